"""Doubling the resolution of (batch, channels, height, width) maps."""

from mindspore import Tensor

from .. import nn
from ..nn import functional as F
from .downsampling import blur_kernel
from .normalization import ChannelNorm


class Upsample2D(nn.Module):
    """Repeat every value twice in both directions, then convolve; or a transposed convolution of stride 2.

    Args:
        use_conv: convolve after repeating.
        use_conv_transpose: a transposed convolution instead of both.
        name: the convolution's name: "conv", else it is `Conv2d_0`.
        kernel_size: default 3, and 4 for the transposed convolution.
        norm_type: None, "ln_norm" or "rms_norm": over the channels, before all else, with `eps` and `elementwise_affine`.
        interpolate: False leaves the repetition out.
    """

    def __init__(
        self,
        channels: int,
        use_conv: bool = False,
        use_conv_transpose: bool = False,
        out_channels: int | None = None,
        name: str = "conv",
        kernel_size: int | None = None,
        padding: int = 1,
        norm_type: str | None = None,
        eps: float | None = None,
        elementwise_affine: bool | None = None,
        bias: bool = True,
        interpolate: bool = True,
    ):
        super().__init__()
        self.interpolate = interpolate and not use_conv_transpose
        self.norm = None if norm_type is None else ChannelNorm(norm_type, channels, eps, elementwise_affine)
        self.conv = self.Conv2d_0 = None
        conv = None
        if use_conv_transpose:
            conv = nn.ConvTranspose2d(channels, out_channels or channels, kernel_size or 4, stride=2, padding=padding, bias=bias)
        elif use_conv:
            conv = nn.Conv2d(channels, out_channels or channels, kernel_size or 3, padding=padding, bias=bias)
        if name == "conv":
            self.conv = conv
        else:
            self.Conv2d_0 = conv

    def construct(self, hidden_states: Tensor, output_size: tuple[int, int] | None = None) -> Tensor:
        """`output_size` is the (height, width) to reach instead of twice the input's."""
        if self.norm is not None:
            hidden_states = self.norm(hidden_states)
        if self.interpolate:
            if output_size is None:
                output_size = (2 * hidden_states.shape[2], 2 * hidden_states.shape[3])
            hidden_states = F.interpolate(hidden_states, size=output_size, mode="nearest")
        if self.conv is not None:
            hidden_states = self.conv(hidden_states)
        if self.Conv2d_0 is not None:
            hidden_states = self.Conv2d_0(hidden_states)
        return hidden_states


class FirUpsample2D(nn.Module):
    """Put zeros between each channel's values and blur with the filter (1, 3, 3, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = blur_kernel((1, 3, 3, 1), 4.0)

    def construct(self, hidden_states: Tensor) -> Tensor:
        batch, channels, height, width = hidden_states.shape
        planes = hidden_states.reshape((batch * channels, 1, height, width))
        planes = F.conv_transpose2d(planes, self.kernel.astype(planes.dtype), stride=2, padding=1)
        return planes.reshape((batch, channels, 2 * height, 2 * width))


class KUpsample2D(FirUpsample2D):
    """As `FirUpsample2D`, the border reflected (or as `pad_mode` says)."""

    def __init__(self, pad_mode: str = "reflect"):
        super().__init__()
        self.pad_mode = pad_mode

    def construct(self, hidden_states: Tensor) -> Tensor:
        batch, channels, height, width = hidden_states.shape
        planes = F.pad(hidden_states, (1, 1, 1, 1), self.pad_mode).reshape((batch * channels, 1, height + 2, width + 2))
        planes = F.conv_transpose2d(planes, self.kernel.astype(planes.dtype), stride=2, padding=3)
        return planes.reshape((batch, channels, 2 * height, 2 * width))
