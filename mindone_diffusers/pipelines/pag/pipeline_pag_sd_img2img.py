"""Image to image with Stable Diffusion 1 and 2 with perturbed attention guidance (arXiv:2403.17377)."""

from ..stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from .pag_utils import PAGMixin, with_pag_layers, with_pag_scales


class StableDiffusionPAGImg2ImgPipeline(PAGMixin, StableDiffusionImg2ImgPipeline):
    """`StableDiffusionImg2ImgPipeline` with perturbed attention guidance."""

    __init__ = with_pag_layers(StableDiffusionImg2ImgPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionImg2ImgPipeline.__call__)
