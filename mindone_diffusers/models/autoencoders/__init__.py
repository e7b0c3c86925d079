"""Autoencoders: images to latents and back."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".autoencoder_asym_kl": ("AsymmetricAutoencoderKL",),
        ".autoencoder_kl": ("AutoencoderKL",),
        ".autoencoder_tiny": ("AutoencoderTiny",),
        ".consistency_decoder_vae": ("ConsistencyDecoderVAE",),
    },
)
