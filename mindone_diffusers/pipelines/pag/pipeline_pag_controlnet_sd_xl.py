"""Text to image with Stable Diffusion XL, ControlNets and perturbed attention guidance (arXiv:2302.05543, arXiv:2403.17377)."""

from ..controlnet.pipeline_controlnet_sd_xl import StableDiffusionXLControlNetPipeline
from .pag_utils import UnguessedPAGMixin, with_pag_layers, with_pag_scales
from .pipeline_pag_sd_xl import StableDiffusionXLPAGPipeline


class StableDiffusionXLControlNetPAGPipeline(UnguessedPAGMixin, StableDiffusionXLControlNetPipeline):
    """`StableDiffusionXLControlNetPipeline` with perturbed attention guidance, without guess mode.

    What a callback makes of the embeddings reaches the ControlNets too, unlike in PyTorch diffusers.
    """

    _callback_tensor_inputs = StableDiffusionXLPAGPipeline._callback_tensor_inputs

    __init__ = with_pag_layers(StableDiffusionXLControlNetPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionXLControlNetPipeline.__call__, without=("guess_mode",))
