"""FreeU (arXiv:2309.11497): on the first two stages of a UNet's way up, more of the backbone and less of the skip connections' low
frequencies."""

import math

import mindspore as ms
from mindspore import Tensor

from ..nn import functional as F


def fourier_filter(x: Tensor, threshold: int, scale: float) -> Tensor:
    """Images with the frequencies from -threshold to threshold - 1 of both axes multiplied by `scale`.

    The Fourier transform is linear, so this is the image and a multiple of its low frequencies, which products with two small matrices
    give: no operator for the transform is needed.

    Args:
        x: (batch, channels, height, width). The filter is computed in float32; the result has the dtype of `x`.
    """
    image = x.astype(ms.float32)
    row_cosines, row_sines = _low_frequencies(x.shape[2], threshold)
    column_cosines, column_sines = _low_frequencies(x.shape[3], threshold)
    # The real part of (C + iS) image (C + iS)^T.
    low = both_axes(image, row_cosines, column_cosines) - both_axes(image, row_sines, column_sines)
    return (image + (scale - 1) * low).astype(x.dtype)


def both_axes(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The product rows image columns^T, of each of the images."""
    return F.linear(F.linear(image, columns).swapaxes(-2, -1), rows).swapaxes(-2, -1)


def _low_frequencies(size: int, threshold: int) -> tuple[Tensor, Tensor]:
    """The real and imaginary parts of the (size, size) matrix that keeps an axis' low frequencies and drops the others."""
    lowest, end = max(-threshold, -(size // 2)), min(threshold, size - size // 2)
    frequencies = F.arange(lowest, end).astype(ms.float32).expand_dims(1)
    angles = frequencies * F.arange(0, size).astype(ms.float32).expand_dims(0) * (2 * math.pi / size)
    cosines, sines = angles.cos().swapaxes(0, 1), angles.sin().swapaxes(0, 1)
    real = F.linear(cosines, cosines) + F.linear(sines, sines)
    return real / size, (F.linear(sines, cosines) - F.linear(cosines, sines)) / size


def apply_freeu(hidden_states: Tensor, skipped: Tensor, backbone_scale: float, skip_scale: float) -> tuple[Tensor, Tensor]:
    """What a stage joins: half of the backbone's channels scaled, and the skip connection with its lowest frequencies scaled.

    Args:
        hidden_states: of the backbone, (batch, channels, height, width).
        skipped: from the way down, (batch, channels, height, width).
    """
    half = hidden_states.shape[1] // 2
    hidden_states = F.cat((hidden_states[:, :half] * backbone_scale, hidden_states[:, half:]), 1)
    return hidden_states, fourier_filter(skipped, 1, skip_scale)
