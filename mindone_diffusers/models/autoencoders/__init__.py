"""Autoencoders: images to latents and back."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".autoencoder_kl": ("AutoencoderKL",),
        ".autoencoder_tiny": ("AutoencoderTiny",),
    },
)
