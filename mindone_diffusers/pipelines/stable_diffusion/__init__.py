"""Stable Diffusion 1 and 2 (arXiv:2112.10752)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".pipeline_output": ("StableDiffusionPipelineOutput",),
        ".pipeline_stable_diffusion": ("StableDiffusionPipeline",),
        ".pipeline_stable_diffusion_depth2img": ("StableDiffusionDepth2ImgPipeline",),
        ".pipeline_stable_diffusion_image_variation": ("StableDiffusionImageVariationPipeline",),
        ".pipeline_stable_diffusion_img2img": ("StableDiffusionImg2ImgPipeline",),
        ".pipeline_stable_diffusion_inpaint": ("StableDiffusionInpaintPipeline",),
        ".pipeline_stable_diffusion_instruct_pix2pix": ("StableDiffusionInstructPix2PixPipeline",),
        ".pipeline_stable_diffusion_latent_upscale": ("StableDiffusionLatentUpscalePipeline",),
        ".pipeline_stable_diffusion_upscale": ("StableDiffusionUpscalePipeline",),
        ".pipeline_stable_unclip": ("StableUnCLIPPipeline",),
        ".pipeline_stable_unclip_img2img": ("StableUnCLIPImg2ImgPipeline",),
        ".safety_checker": ("StableDiffusionSafetyChecker",),
        ".stable_unclip_image_normalizer": ("StableUnCLIPImageNormalizer",),
    },
)
