"""Latent consistency models (arXiv:2310.04378)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_latent_consistency_img2img": ("LatentConsistencyModelImg2ImgPipeline",),
        ".pipeline_latent_consistency_text2img": ("LatentConsistencyModelPipeline",),
    },
)
