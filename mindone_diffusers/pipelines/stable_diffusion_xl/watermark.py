"""The invisible watermark of Stable Diffusion XL's images."""

from importlib.util import find_spec

import numpy as np
from mindspore import Tensor

WATERMARK_MESSAGE = 0b101100111110110010010000011110111011000110011110
"""Stability AI's, by which the images of its own demonstration are known."""
WATERMARK_BITS = [int(bit) for bit in f"{WATERMARK_MESSAGE:b}"]
SMALLEST = 256
"""Pixels; narrower images get no watermark."""
STEP = 36
"""A coefficient that holds a 0 is a quarter of this above one of its multiples, one that holds a 1 three quarters."""


def is_invisible_watermark_available() -> bool:
    """Whether the library invisible-watermark is installed: then PyTorch diffusers writes the watermark by default, and so do we."""
    return find_spec("imwatermark") is not None


class StableDiffusionXLWatermarker:
    """Writes `WATERMARK_BITS` into images, as `WatermarkEncoder().encode(image, "dwtDct")` of invisible-watermark 0.2 does, which needs
    PyTorch and OpenCV; this does not."""

    watermark = WATERMARK_BITS

    def apply_watermark(self, images: Tensor) -> Tensor:
        """Images (batch, 3, height, width) in [-1, 1] with the watermark, in float32; those less than 256 wide as they are."""
        if images.shape[-1] < SMALLEST:
            return images
        pixels = 255 * (images.asnumpy().astype(np.float32) / 2 + np.float32(0.5))
        marked = np.stack([_encode(image) for image in pixels])
        return Tensor(np.clip(2 * (marked / 255 - np.float32(0.5)), -1, 1))


def _encode(image: np.ndarray) -> np.ndarray:
    """An image (3, height, width) of 0 to 255, in float32, with the watermark in its U channel (ITU-R BT.601)."""
    red, green, blue = image
    y = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    u, v = np.float32(0.492) * (blue - y), np.float32(0.877) * (red - y)
    # Half a level is added because the library does it, and multiples of STEP are counted from there.
    u = _mark(u + np.float32(0.5)) - np.float32(0.5)
    return np.stack((y + np.float32(1.140) * v, y - np.float32(0.395) * u - np.float32(0.581) * v, y + np.float32(2.032) * u))


def _mark(channel: np.ndarray) -> np.ndarray:
    """A channel with the bits in its approximation by a Haar wavelet: one in the largest coefficient but the first of each 4 x 4.

    The library takes the horizontal details for the vertical ones when it goes back, which transposes every 2 x 2 pixels. Whoever reads the
    watermark does not see it, but images should be the same.
    """
    height, width = (length // 4 * 4 for length in channel.shape)
    pixels = channel[:height, :width].reshape(height // 2, 2, width // 2, 2)
    coarse = pixels.sum((1, 3)) / 2
    rows, columns = height // 8, width // 8
    inner = coarse[: 4 * rows, : 4 * columns]
    blocks = inner.reshape(rows, 4, columns, 4).swapaxes(1, 2).reshape(-1, 16)
    largest = np.arange(len(blocks)), np.abs(blocks[:, 1:]).argmax(1) + 1
    bits = np.resize(np.array(WATERMARK_BITS, np.float32), len(blocks))
    changes = np.zeros_like(blocks)
    value = blocks[largest]
    changes[largest] = np.copysign((np.abs(value) // STEP + np.float32(0.25) + np.float32(0.5) * bits) * STEP, value) - value
    change = np.zeros_like(coarse)
    change[: 4 * rows, : 4 * columns] = changes.reshape(rows, columns, 4, 4).swapaxes(1, 2).reshape(inner.shape)
    marked = channel.copy()
    marked[:height, :width] = (pixels.swapaxes(1, 3) + change[:, None, :, None] / 2).reshape(height, width)
    return marked
