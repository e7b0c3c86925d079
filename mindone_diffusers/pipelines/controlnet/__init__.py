"""Pipelines that ControlNets steer (arXiv:2302.05543)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_controlnet": ("StableDiffusionControlNetPipeline",),
        ".pipeline_controlnet_img2img": ("StableDiffusionControlNetImg2ImgPipeline",),
        ".pipeline_controlnet_inpaint": ("StableDiffusionControlNetInpaintPipeline",),
        ".pipeline_controlnet_inpaint_sd_xl": ("StableDiffusionXLControlNetInpaintPipeline",),
        ".pipeline_controlnet_sd_xl": ("StableDiffusionXLControlNetPipeline",),
        ".pipeline_controlnet_sd_xl_img2img": ("StableDiffusionXLControlNetImg2ImgPipeline",),
        ".pipeline_controlnet_union_inpaint_sd_xl": ("StableDiffusionXLControlNetUnionInpaintPipeline",),
        ".pipeline_controlnet_union_sd_xl": ("StableDiffusionXLControlNetUnionPipeline",),
        ".pipeline_controlnet_union_sd_xl_img2img": ("StableDiffusionXLControlNetUnionImg2ImgPipeline",),
    },
)
