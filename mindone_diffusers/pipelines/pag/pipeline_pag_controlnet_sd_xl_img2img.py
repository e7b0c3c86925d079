"""Image to image with Stable Diffusion XL, ControlNets and perturbed attention guidance (arXiv:2302.05543, arXiv:2403.17377)."""

from ..controlnet.pipeline_controlnet_sd_xl_img2img import StableDiffusionXLControlNetImg2ImgPipeline
from .pag_utils import UnguessedPAGMixin, with_pag_layers, with_pag_scales
from .pipeline_pag_sd_xl_img2img import StableDiffusionXLPAGImg2ImgPipeline


class StableDiffusionXLControlNetPAGImg2ImgPipeline(UnguessedPAGMixin, StableDiffusionXLControlNetImg2ImgPipeline):
    """`StableDiffusionXLControlNetImg2ImgPipeline` with perturbed attention guidance. `guess_mode` has no effect.

    What a callback makes of the embeddings reaches the ControlNets too, unlike in PyTorch diffusers.
    """

    _callback_tensor_inputs = StableDiffusionXLPAGImg2ImgPipeline._callback_tensor_inputs

    __init__ = with_pag_layers(StableDiffusionXLControlNetImg2ImgPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionXLControlNetImg2ImgPipeline.__call__)
