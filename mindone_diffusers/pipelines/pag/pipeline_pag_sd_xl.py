"""Text to image with Stable Diffusion XL with perturbed attention guidance (arXiv:2403.17377)."""

from ..stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from .pag_utils import PAGMixin, with_pag_layers, with_pag_scales


class StableDiffusionXLPAGPipeline(PAGMixin, StableDiffusionXLPipeline):
    """`StableDiffusionXLPipeline` with perturbed attention guidance."""

    _callback_tensor_inputs = [
        "latents", "prompt_embeds", "negative_prompt_embeds", "add_text_embeds", "add_time_ids", "negative_pooled_prompt_embeds",
        "negative_add_time_ids",
    ]  # fmt: skip

    __init__ = with_pag_layers(StableDiffusionXLPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionXLPipeline.__call__)
