"""Halving the resolution of (batch, channels, height, width) maps."""

import mindspore as ms
import numpy as np
from mindspore import Tensor

from .. import nn
from ..nn import functional as F
from .normalization import ChannelNorm


class Downsample2D(nn.Module):
    """A convolution of stride 2, or the average of 2x2 cells.

    Args:
        use_conv: convolve (else average; then `out_channels` must be `channels`).
        padding: of the convolution; 0 pads the bottom and the right by one.
        name: accepted for ported code; the convolution is `conv` under any name.
        norm_type: None, "ln_norm" or "rms_norm": over the channels, before the convolution, with `eps` and `elementwise_affine`.
    """

    def __init__(
        self,
        channels: int,
        use_conv: bool = False,
        out_channels: int | None = None,
        padding: int = 1,
        name: str = "conv",
        kernel_size: int = 3,
        norm_type: str | None = None,
        eps: float | None = None,
        elementwise_affine: bool | None = None,
        bias: bool = True,
    ):
        super().__init__()
        self.pad_end = use_conv and padding == 0
        self.norm = None if norm_type is None else ChannelNorm(norm_type, channels, eps, elementwise_affine)
        if use_conv:
            self.conv = nn.Conv2d(channels, out_channels or channels, kernel_size, stride=2, padding=padding, bias=bias)
        else:
            self.conv = nn.AvgPool2d(2)

    def construct(self, hidden_states: Tensor) -> Tensor:
        if self.norm is not None:
            hidden_states = self.norm(hidden_states)
        if self.pad_end:
            hidden_states = F.pad(hidden_states, (0, 1, 0, 1))
        return self.conv(hidden_states)


def blur_kernel(taps: tuple[float, ...], gain: float) -> Tensor:
    """The separable filter with these taps, whose values add up to `gain`, as a (1, 1, taps, taps) convolution weight."""
    kernel = np.outer(taps, taps).astype(np.float32)
    return ms.Tensor(kernel[None, None] * np.float32(gain / kernel.sum()))


class FirDownsample2D(nn.Module):
    """Blur each channel with the filter (1, 3, 3, 1) and take every second value; the border is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = blur_kernel((1, 3, 3, 1), 1.0)

    def construct(self, hidden_states: Tensor) -> Tensor:
        batch, channels, height, width = hidden_states.shape
        planes = hidden_states.reshape((batch * channels, 1, height, width))
        planes = F.conv2d(planes, self.kernel.astype(planes.dtype), stride=2, padding=1)
        return planes.reshape((batch, channels) + planes.shape[2:])


class KDownsample2D(FirDownsample2D):
    """As `FirDownsample2D`, the border reflected (or as `pad_mode` says)."""

    def __init__(self, pad_mode: str = "reflect"):
        super().__init__()
        self.pad_mode = pad_mode

    def construct(self, hidden_states: Tensor) -> Tensor:
        batch, channels, height, width = hidden_states.shape
        planes = F.pad(hidden_states, (1, 1, 1, 1), self.pad_mode).reshape((batch * channels, 1, height + 2, width + 2))
        planes = F.conv2d(planes, self.kernel.astype(planes.dtype), stride=2)
        return planes.reshape((batch, channels) + planes.shape[2:])
