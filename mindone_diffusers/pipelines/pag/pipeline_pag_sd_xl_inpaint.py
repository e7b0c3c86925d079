"""Inpainting with Stable Diffusion XL with perturbed attention guidance (arXiv:2403.17377)."""

from ..stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import StableDiffusionXLInpaintPipeline
from .pag_utils import PAGMixin, with_pag_layers, with_pag_scales


class StableDiffusionXLPAGInpaintPipeline(PAGMixin, StableDiffusionXLInpaintPipeline):
    """`StableDiffusionXLInpaintPipeline` with perturbed attention guidance."""

    _callback_tensor_inputs = [
        "latents", "prompt_embeds", "negative_prompt_embeds", "add_text_embeds", "add_time_ids", "negative_pooled_prompt_embeds",
        "add_neg_time_ids", "mask", "masked_image_latents",
    ]  # fmt: skip

    __init__ = with_pag_layers(StableDiffusionXLInpaintPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionXLInpaintPipeline.__call__)
