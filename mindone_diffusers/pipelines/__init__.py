"""Floor 5: pipelines, one folder a family, and the steps they share."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".auto_pipeline": ("AutoPipelineForImage2Image", "AutoPipelineForInpainting", "AutoPipelineForText2Image"),
        ".ddim.pipeline_ddim": ("DDIMPipeline",),
        ".ddpm.pipeline_ddpm": ("DDPMPipeline",),
        ".latent_consistency_models.pipeline_latent_consistency_img2img": ("LatentConsistencyModelImg2ImgPipeline",),
        ".latent_consistency_models.pipeline_latent_consistency_text2img": ("LatentConsistencyModelPipeline",),
        ".pag.pipeline_pag_sd": ("StableDiffusionPAGPipeline",),
        ".pag.pipeline_pag_sd_img2img": ("StableDiffusionPAGImg2ImgPipeline",),
        ".pag.pipeline_pag_sd_inpaint": ("StableDiffusionPAGInpaintPipeline",),
        ".pag.pipeline_pag_sd_xl": ("StableDiffusionXLPAGPipeline",),
        ".pag.pipeline_pag_sd_xl_img2img": ("StableDiffusionXLPAGImg2ImgPipeline",),
        ".pag.pipeline_pag_sd_xl_inpaint": ("StableDiffusionXLPAGInpaintPipeline",),
        ".pipeline_utils": ("DiffusionPipeline", "ImagePipelineOutput", "StableDiffusionMixin"),
        ".stable_diffusion.pipeline_stable_diffusion": ("StableDiffusionPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_img2img": ("StableDiffusionImg2ImgPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_inpaint": ("StableDiffusionInpaintPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix": ("StableDiffusionInstructPix2PixPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl": ("StableDiffusionXLPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img": ("StableDiffusionXLImg2ImgPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint": ("StableDiffusionXLInpaintPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl_instruct_pix2pix": ("StableDiffusionXLInstructPix2PixPipeline",),
    },
)
