"""Text to image under a control image, with T2I-Adapters (arXiv:2302.08453)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_stable_diffusion_adapter": ("StableDiffusionAdapterPipeline",),
        ".pipeline_stable_diffusion_xl_adapter": ("StableDiffusionXLAdapterPipeline",),
    },
)
