"""Text to image with Stable Diffusion 1 and 2 with perturbed attention guidance (arXiv:2403.17377)."""

from ..stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from .pag_utils import PAGMixin, with_pag_layers, with_pag_scales


class StableDiffusionPAGPipeline(PAGMixin, StableDiffusionPipeline):
    """`StableDiffusionPipeline` with perturbed attention guidance. Height and width are the UNet's each by itself, if not given."""

    __init__ = with_pag_layers(StableDiffusionPipeline.__init__)
    __call__ = with_pag_scales(StableDiffusionPipeline.__call__)

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        default = self._default_size()
        return height or default[0], width or default[1]
