"""Floor 5: pipelines, one folder a family, and the steps they share."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".auto_pipeline": ("AutoPipelineForImage2Image", "AutoPipelineForInpainting", "AutoPipelineForText2Image"),
        ".controlnet.pipeline_controlnet": ("StableDiffusionControlNetPipeline",),
        ".controlnet.pipeline_controlnet_img2img": ("StableDiffusionControlNetImg2ImgPipeline",),
        ".controlnet.pipeline_controlnet_inpaint": ("StableDiffusionControlNetInpaintPipeline",),
        ".controlnet.pipeline_controlnet_inpaint_sd_xl": ("StableDiffusionXLControlNetInpaintPipeline",),
        ".controlnet.pipeline_controlnet_sd_xl": ("StableDiffusionXLControlNetPipeline",),
        ".controlnet.pipeline_controlnet_sd_xl_img2img": ("StableDiffusionXLControlNetImg2ImgPipeline",),
        ".controlnet.pipeline_controlnet_union_inpaint_sd_xl": ("StableDiffusionXLControlNetUnionInpaintPipeline",),
        ".controlnet.pipeline_controlnet_union_sd_xl": ("StableDiffusionXLControlNetUnionPipeline",),
        ".controlnet.pipeline_controlnet_union_sd_xl_img2img": ("StableDiffusionXLControlNetUnionImg2ImgPipeline",),
        ".ddim.pipeline_ddim": ("DDIMPipeline",),
        ".ddpm.pipeline_ddpm": ("DDPMPipeline",),
        ".latent_consistency_models.pipeline_latent_consistency_img2img": ("LatentConsistencyModelImg2ImgPipeline",),
        ".latent_consistency_models.pipeline_latent_consistency_text2img": ("LatentConsistencyModelPipeline",),
        ".pipeline_utils": ("DiffusionPipeline", "ImagePipelineOutput", "StableDiffusionMixin"),
        ".stable_diffusion.pipeline_stable_diffusion": ("StableDiffusionPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_depth2img": ("StableDiffusionDepth2ImgPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_image_variation": ("StableDiffusionImageVariationPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_img2img": ("StableDiffusionImg2ImgPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_inpaint": ("StableDiffusionInpaintPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix": ("StableDiffusionInstructPix2PixPipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_latent_upscale": ("StableDiffusionLatentUpscalePipeline",),
        ".stable_diffusion.pipeline_stable_diffusion_upscale": ("StableDiffusionUpscalePipeline",),
        ".stable_diffusion.pipeline_stable_unclip_img2img": ("StableUnCLIPImg2ImgPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl": ("StableDiffusionXLPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img": ("StableDiffusionXLImg2ImgPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint": ("StableDiffusionXLInpaintPipeline",),
        ".stable_diffusion_xl.pipeline_stable_diffusion_xl_instruct_pix2pix": ("StableDiffusionXLInstructPix2PixPipeline",),
        ".t2i_adapter.pipeline_stable_diffusion_adapter": ("StableDiffusionAdapterPipeline",),
        ".t2i_adapter.pipeline_stable_diffusion_xl_adapter": ("StableDiffusionXLAdapterPipeline",),
    },
)
