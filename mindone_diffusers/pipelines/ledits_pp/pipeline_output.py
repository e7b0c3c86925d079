"""What LEdits++ pipelines return."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from mindspore import Tensor

from ...core.outputs import BaseOutput

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class LEditsPPDiffusionPipelineOutput(BaseOutput):
    """
    Args:
        images: the edited images, Pillow's, or an array (batch, height, width, channels) or tensor of them, as `output_type` says.
        nsfw_content_detected: for each image whether the safety checker blacked it out; None without a safety checker.
    """

    images: "list[Image.Image] | np.ndarray | Tensor"
    nsfw_content_detected: list[bool] | None


@dataclass
class LEditsPPInversionPipelineOutput(BaseOutput):
    """
    Args:
        images: the images as they were inverted, cropped and resized.
        vae_reconstruction_images: what the autoencoder alone makes of them, the best that an edit can keep.
    """

    images: "list[Image.Image]"
    vae_reconstruction_images: "list[Image.Image]"
