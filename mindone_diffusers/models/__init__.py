"""Floor 3: denoisers, autoencoders and ControlNets."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".adapter": ("MultiAdapter", "T2IAdapter"),
        ".attention_dispatch": ("AttentionBackendName", "attention_backend"),
        ".autoencoders.autoencoder_asym_kl": ("AsymmetricAutoencoderKL",),
        ".autoencoders.autoencoder_kl": ("AutoencoderKL",),
        ".autoencoders.autoencoder_tiny": ("AutoencoderTiny",),
        ".autoencoders.consistency_decoder_vae": ("ConsistencyDecoderVAE",),
        ".controlnets.controlnet": ("ControlNetModel",),
        ".controlnets.controlnet_union": ("ControlNetUnionModel",),
        ".controlnets.multicontrolnet": ("MultiControlNetModel",),
        ".controlnets.multicontrolnet_union": ("MultiControlNetUnionModel",),
        ".embeddings": ("ImageProjection",),
        ".modeling_utils": ("ModelMixin",),
        ".transformers.dit_transformer_2d": ("DiTTransformer2DModel",),
        ".transformers.prior_transformer": ("PriorTransformer",),
        ".transformers.transformer_2d": ("Transformer2DModel",),
        ".unets.unet_2d": ("UNet2DModel",),
        ".unets.unet_2d_condition": ("UNet2DConditionModel",),
    },
)
