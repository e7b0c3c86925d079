"""Stable Diffusion 1 and 2 (arXiv:2112.10752)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_output": ("StableDiffusionPipelineOutput",),
        ".pipeline_stable_diffusion": ("StableDiffusionPipeline",),
        ".safety_checker": ("StableDiffusionSafetyChecker",),
        ".stable_unclip_image_normalizer": ("StableUnCLIPImageNormalizer",),
    },
)
