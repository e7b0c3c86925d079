"""Floor 3: denoisers and autoencoders."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".adapter": ("MultiAdapter", "T2IAdapter"),
        ".autoencoders.autoencoder_asym_kl": ("AsymmetricAutoencoderKL",),
        ".autoencoders.autoencoder_kl": ("AutoencoderKL",),
        ".autoencoders.autoencoder_tiny": ("AutoencoderTiny",),
        ".autoencoders.consistency_decoder_vae": ("ConsistencyDecoderVAE",),
        ".embeddings": ("ImageProjection",),
        ".modeling_utils": ("ModelMixin",),
        ".transformers.transformer_2d": ("Transformer2DModel",),
        ".unets.unet_2d": ("UNet2DModel",),
        ".unets.unet_2d_condition": ("UNet2DConditionModel",),
    },
)
