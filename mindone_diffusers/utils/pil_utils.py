"""Arrays and tensors as Pillow images."""

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor
from PIL import Image

from ..core.errors import ConfigError

PIL_INTERPOLATION = {
    "linear": Image.Resampling.BILINEAR,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
"""Pillow's resampling filters by the names that configs use."""


def numpy_to_pil(images: np.ndarray) -> list[Image.Image]:
    """Images in [0, 1], (batch, height, width, channels) or one (height, width, channels), as Pillow images; one channel is grey."""
    if images.ndim == 3:
        images = images[None]
    images = (images * 255).round().astype(np.uint8)
    if images.shape[-1] == 1:
        images = images[..., 0]
    return [Image.fromarray(image) for image in images]


def pt_to_pil(images: Tensor) -> list[Image.Image]:
    """A tensor of images in [-1, 1], (batch, channels, height, width), as Pillow images. The name is PyTorch diffusers'."""
    images = np.clip(images.asnumpy().astype(np.float32) / 2 + 0.5, 0, 1)
    return numpy_to_pil(images.transpose(0, 2, 3, 1))


def make_image_grid(images: Sequence[Image.Image], rows: int, cols: int, resize: int | None = None) -> Image.Image:
    """Images side by side, row by row, each as large as the first.

    Args:
        images: `rows * cols` of them.
        rows: number of rows.
        cols: number of columns.
        resize: side in pixels that every image is scaled to first, if given.

    Raises:
        ConfigError: another number of images.
    """
    if len(images) != rows * cols:
        raise ConfigError(f"{len(images)} images do not fill a grid of {rows} rows and {cols} columns, which takes {rows * cols}")
    if resize is not None:
        images = [image.resize((resize, resize)) for image in images]
    width, height = images[0].size
    grid = Image.new("RGB", (cols * width, rows * height))
    for index, image in enumerate(images):
        grid.paste(image, (index % cols * width, index // cols * height))
    return grid
