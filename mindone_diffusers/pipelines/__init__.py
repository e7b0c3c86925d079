"""Floor 5: pipelines, one folder a family, and the steps they share."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".ddim.pipeline_ddim": ("DDIMPipeline",),
        ".ddpm.pipeline_ddpm": ("DDPMPipeline",),
        ".pipeline_utils": ("DiffusionPipeline", "ImagePipelineOutput", "StableDiffusionMixin"),
        ".stable_diffusion.pipeline_stable_diffusion": ("StableDiffusionPipeline",),
    },
)
