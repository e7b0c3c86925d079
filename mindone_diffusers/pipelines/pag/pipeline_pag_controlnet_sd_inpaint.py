"""Inpainting with Stable Diffusion 1 and 2, ControlNets and perturbed attention guidance (arXiv:2302.05543, arXiv:2403.17377)."""

from ..controlnet.pipeline_controlnet_inpaint import StableDiffusionControlNetInpaintPipeline
from ..stable_diffusion.base import StableDiffusionBase
from .pag_utils import UnguessedPAGMixin, with_pag_layers, with_pag_scales


class StableDiffusionControlNetPAGInpaintPipeline(UnguessedPAGMixin, StableDiffusionControlNetInpaintPipeline):
    """`StableDiffusionControlNetInpaintPipeline` with perturbed attention guidance, without guess mode.

    What a callback makes of the embeddings reaches the ControlNets too, unlike in PyTorch diffusers.
    """

    _callback_tensor_inputs = StableDiffusionBase._callback_tensor_inputs

    __init__ = with_pag_layers(StableDiffusionControlNetInpaintPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionControlNetInpaintPipeline.__call__, without=("guess_mode",))
