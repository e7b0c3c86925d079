"""Editing real images with words, LEdits++ (arXiv:2311.16711)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_leditspp_stable_diffusion": ("LEditsPPPipelineStableDiffusion",),
        ".pipeline_leditspp_stable_diffusion_xl": ("LEditsPPPipelineStableDiffusionXL",),
        ".pipeline_output": ("LEditsPPDiffusionPipelineOutput", "LEditsPPInversionPipelineOutput"),
    },
)
