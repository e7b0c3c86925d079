"""Text to image with Stable Diffusion 1 and 2, ControlNets and perturbed attention guidance (arXiv:2302.05543, arXiv:2403.17377)."""

from ..controlnet.pipeline_controlnet import StableDiffusionControlNetPipeline
from ..stable_diffusion.base import StableDiffusionBase
from .pag_utils import PAGMixin, with_pag_layers, with_pag_scales


class StableDiffusionControlNetPAGPipeline(PAGMixin, StableDiffusionControlNetPipeline):
    """`StableDiffusionControlNetPipeline` with perturbed attention guidance.

    Guess mode works with guidance by the prompt; in PyTorch diffusers it raises an error. What a callback makes of the embeddings reaches
    the ControlNets too.
    """

    _callback_tensor_inputs = StableDiffusionBase._callback_tensor_inputs

    __init__ = with_pag_layers(StableDiffusionControlNetPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionControlNetPipeline.__call__)
