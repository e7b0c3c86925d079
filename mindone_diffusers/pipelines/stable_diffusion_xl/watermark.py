"""The invisible watermark of Stable Diffusion XL's images."""

from importlib.util import find_spec

import numpy as np
from mindspore import Tensor

from ...core.errors import ConfigError

WATERMARK_MESSAGE = 0b101100111110110010010000011110111011000110011110
"""Stability AI's, by which the images of its own demonstration are known."""
WATERMARK_BITS = [int(bit) for bit in f"{WATERMARK_MESSAGE:b}"]
SMALLEST = 256
"""Pixels; the encoder takes no smaller images."""


def is_invisible_watermark_available() -> bool:
    return find_spec("imwatermark") is not None


class StableDiffusionXLWatermarker:
    """Writes `WATERMARK_BITS` into images.

    Raises:
        ConfigError: the library that does it is not installed.
    """

    def __init__(self) -> None:
        if not is_invisible_watermark_available():
            raise ConfigError("add_watermarker=True needs a library: pip install invisible-watermark; or pass add_watermarker=False")
        from imwatermark import WatermarkEncoder

        self.watermark = WATERMARK_BITS
        self.encoder = WatermarkEncoder()
        self.encoder.set_watermark("bits", self.watermark)

    def apply_watermark(self, images: Tensor) -> Tensor:
        """Images (batch, 3, height, width) in [-1, 1] with the watermark, in float32; those less than 256 wide as they are."""
        if images.shape[-1] < SMALLEST:
            return images
        # The encoder wants blue, green, red.
        pixels = 255 * (images.asnumpy().astype(np.float32) / 2 + 0.5).transpose(0, 2, 3, 1)[..., ::-1]
        marked = np.stack([self.encoder.encode(image, "dwtDct") for image in pixels])[..., ::-1].transpose(0, 3, 1, 2)
        return Tensor(np.clip(2 * (marked / 255 - 0.5), -1, 1).astype(np.float32))
