"""What Stable Diffusion XL pipelines return."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from mindspore import Tensor

from ...core.outputs import BaseOutput

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class StableDiffusionXLPipelineOutput(BaseOutput):
    """
    Args:
        images: Pillow images, or an array (batch, height, width, channels) or tensor of them, as `output_type` says.
    """

    images: "list[Image.Image] | np.ndarray | Tensor"
