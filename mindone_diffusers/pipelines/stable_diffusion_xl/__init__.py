"""Stable Diffusion XL (arXiv:2307.01952)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_output": ("StableDiffusionXLPipelineOutput",),
        ".pipeline_stable_diffusion_xl": ("StableDiffusionXLPipeline",),
        ".pipeline_stable_diffusion_xl_img2img": ("StableDiffusionXLImg2ImgPipeline",),
        ".pipeline_stable_diffusion_xl_inpaint": ("StableDiffusionXLInpaintPipeline",),
        ".pipeline_stable_diffusion_xl_instruct_pix2pix": ("StableDiffusionXLInstructPix2PixPipeline",),
    },
)
