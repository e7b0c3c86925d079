"""Perturbed attention guidance (arXiv:2403.17377)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_pag_controlnet_sd": ("StableDiffusionControlNetPAGPipeline",),
        ".pipeline_pag_controlnet_sd_inpaint": ("StableDiffusionControlNetPAGInpaintPipeline",),
        ".pipeline_pag_controlnet_sd_xl": ("StableDiffusionXLControlNetPAGPipeline",),
        ".pipeline_pag_controlnet_sd_xl_img2img": ("StableDiffusionXLControlNetPAGImg2ImgPipeline",),
        ".pipeline_pag_sd": ("StableDiffusionPAGPipeline",),
        ".pipeline_pag_sd_img2img": ("StableDiffusionPAGImg2ImgPipeline",),
        ".pipeline_pag_sd_inpaint": ("StableDiffusionPAGInpaintPipeline",),
        ".pipeline_pag_sd_xl": ("StableDiffusionXLPAGPipeline",),
        ".pipeline_pag_sd_xl_img2img": ("StableDiffusionXLPAGImg2ImgPipeline",),
        ".pipeline_pag_sd_xl_inpaint": ("StableDiffusionXLPAGInpaintPipeline",),
    },
)
