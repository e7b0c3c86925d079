"""Floor 3: denoisers and autoencoders."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".autoencoders.autoencoder_kl": ("AutoencoderKL",),
        ".autoencoders.autoencoder_tiny": ("AutoencoderTiny",),
        ".embeddings": ("ImageProjection",),
        ".modeling_utils": ("ModelMixin",),
        ".transformers.transformer_2d": ("Transformer2DModel",),
        ".unets.unet_2d": ("UNet2DModel",),
        ".unets.unet_2d_condition": ("UNet2DConditionModel",),
    },
)
