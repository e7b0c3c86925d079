"""Residual blocks of two convolutions (arXiv:1512.03385), conditioned on a time embedding."""

from mindspore import Tensor

from .. import nn
from ..core.errors import ConfigError
from ..nn import functional as F
from .activations import get_activation
from .downsampling import Downsample2D, FirDownsample2D, KDownsample2D
from .normalization import AdaGroupNorm, SpatialNorm
from .upsampling import FirUpsample2D, KUpsample2D, Upsample2D

__all__ = [
    "Downsample2D", "FirDownsample2D", "FirUpsample2D", "KDownsample2D", "KUpsample2D", "ResnetBlock2D", "ResnetBlockCondNorm2D",
    "Upsample2D",
]  # fmt: skip


class _ResnetBlock(nn.Module):
    """norm, activation, resampling, convolution; norm, activation, convolution; plus the input. Subclasses make the norms."""

    def __init__(
        self, in_channels: int, out_channels: int | None, dropout: float, non_linearity: str, output_scale_factor: float,
        use_in_shortcut: bool | None, up: bool, down: bool, conv_shortcut_bias: bool, conv_2d_out_channels: int | None, kernel: str | None,
    ):  # fmt: skip
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels or in_channels
        self.output_scale_factor = output_scale_factor
        last_channels = conv_2d_out_channels or self.out_channels
        self.conv1 = nn.Conv2d(in_channels, self.out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(self.out_channels, last_channels, 3, padding=1)
        self.nonlinearity = get_activation(non_linearity)
        self.dropout = nn.Dropout(dropout)
        self.resample = None
        if up:
            self.resample = FirUpsample2D() if kernel == "fir" else Upsample2D(in_channels)
        elif down:
            self.resample = FirDownsample2D() if kernel == "fir" else Downsample2D(in_channels)
        if use_in_shortcut is None:
            use_in_shortcut = in_channels != last_channels
        self.conv_shortcut = nn.Conv2d(in_channels, last_channels, 1, bias=conv_shortcut_bias) if use_in_shortcut else None

    def first(self, hidden_states: Tensor, temb: Tensor | None) -> Tensor:
        """The first normalisation and its activation."""
        raise NotImplementedError

    def second(self, hidden_states: Tensor, temb: Tensor | None) -> Tensor:
        """The second normalisation and its activation."""
        raise NotImplementedError

    def construct(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:
        hidden_states = self.first(input_tensor, temb)
        if self.resample is not None:
            input_tensor = self.resample(input_tensor)
            hidden_states = self.resample(hidden_states)
        hidden_states = self.second(self.conv1(hidden_states), temb)
        hidden_states = self.conv2(self.dropout(hidden_states))
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        output = input_tensor + hidden_states
        return output if self.output_scale_factor == 1 else output / self.output_scale_factor


class ResnetBlock2D(_ResnetBlock):
    """Residual block whose time embedding shifts, or scales and shifts, what is between the convolutions.

    Args:
        out_channels: default `in_channels`.
        temb_channels: size of the time embedding (batch, temb_channels); None for a block without.
        groups: of the first normalisation. `groups_out`: of the second, by default the same.
        skip_time_act: do not apply the activation to the time embedding.
        time_embedding_norm: "default" adds the embedding before the second normalisation, "scale_shift" scales and shifts after it.
        kernel: the resampling of `up` and `down`: "fir" for a blur, else repetition and averaging.
        output_scale_factor: the sum of both branches is divided by it.
        use_in_shortcut: a 1x1 convolution on the input; default: if the number of channels changes.
        up, down: double or halve the resolution.
        conv_2d_out_channels: of the second convolution; default `out_channels`.
        conv_shortcut, pre_norm: accepted for ported code, without effect there and here.

    Raises:
        ConfigError: for another `time_embedding_norm`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int | None = None,
        conv_shortcut: bool = False,
        dropout: float = 0.0,
        temb_channels: int | None = 512,
        groups: int = 32,
        groups_out: int | None = None,
        pre_norm: bool = True,
        eps: float = 1e-6,
        non_linearity: str = "swish",
        skip_time_act: bool = False,
        time_embedding_norm: str = "default",
        kernel: str | None = None,
        output_scale_factor: float = 1.0,
        use_in_shortcut: bool | None = None,
        up: bool = False,
        down: bool = False,
        conv_shortcut_bias: bool = True,
        conv_2d_out_channels: int | None = None,
    ):
        super().__init__(
            in_channels, out_channels, dropout, non_linearity, output_scale_factor, use_in_shortcut, up, down, conv_shortcut_bias,
            conv_2d_out_channels, kernel,
        )  # fmt: skip
        if time_embedding_norm in ("ada_group", "spatial"):
            raise ConfigError(f"ResnetBlock2D does not have time_embedding_norm={time_embedding_norm!r}: use ResnetBlockCondNorm2D.")
        if temb_channels is not None and time_embedding_norm not in ("default", "scale_shift"):
            raise ConfigError(f"Unknown time_embedding_norm {time_embedding_norm!r}: expected 'default' or 'scale_shift'.")
        self.scale_shift = time_embedding_norm == "scale_shift"
        self.skip_time_act = skip_time_act
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.norm2 = nn.GroupNorm(groups_out or groups, self.out_channels, eps)
        self.time_emb_proj = None
        if temb_channels is not None:
            self.time_emb_proj = nn.Linear(temb_channels, self.out_channels * (2 if self.scale_shift else 1))

    def first(self, hidden_states: Tensor, temb: Tensor | None) -> Tensor:
        return self.nonlinearity(self.norm1(hidden_states))

    def second(self, hidden_states: Tensor, temb: Tensor | None) -> Tensor:
        if self.time_emb_proj is None:
            return self.nonlinearity(self.norm2(hidden_states))
        if not self.skip_time_act:
            temb = self.nonlinearity(temb)
        temb = self.time_emb_proj(temb).expand_dims(-1).expand_dims(-1)
        if not self.scale_shift:
            return self.nonlinearity(self.norm2(hidden_states + temb))
        scale, shift = F.chunk(temb, 2, 1)
        return self.nonlinearity(self.norm2(hidden_states) * (1 + scale) + shift)


class ResnetBlockCondNorm2D(_ResnetBlock):
    """Residual block whose two normalisations depend on the condition.

    `time_embedding_norm` is "ada_group" (`AdaGroupNorm`, of a (batch, temb_channels) embedding) or "spatial" (`SpatialNorm`, of
    (batch, temb_channels, height, width) maps). The other arguments are those of `ResnetBlock2D`.

    Raises:
        ConfigError: for another `time_embedding_norm`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int | None = None,
        conv_shortcut: bool = False,
        dropout: float = 0.0,
        temb_channels: int = 512,
        groups: int = 32,
        groups_out: int | None = None,
        eps: float = 1e-6,
        non_linearity: str = "swish",
        time_embedding_norm: str = "ada_group",
        output_scale_factor: float = 1.0,
        use_in_shortcut: bool | None = None,
        up: bool = False,
        down: bool = False,
        conv_shortcut_bias: bool = True,
        conv_2d_out_channels: int | None = None,
    ):
        super().__init__(
            in_channels, out_channels, dropout, non_linearity, output_scale_factor, use_in_shortcut, up, down, conv_shortcut_bias,
            conv_2d_out_channels, None,
        )  # fmt: skip
        if time_embedding_norm == "ada_group":
            self.norm1 = AdaGroupNorm(temb_channels, in_channels, groups, eps=eps)
            self.norm2 = AdaGroupNorm(temb_channels, self.out_channels, groups_out or groups, eps=eps)
        elif time_embedding_norm == "spatial":
            self.norm1 = SpatialNorm(in_channels, temb_channels)
            self.norm2 = SpatialNorm(self.out_channels, temb_channels)
        else:
            raise ConfigError(f"Unknown time_embedding_norm {time_embedding_norm!r}: expected 'ada_group' or 'spatial'.")

    def first(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        return self.nonlinearity(self.norm1(hidden_states, temb))

    def second(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        return self.nonlinearity(self.norm2(hidden_states, temb))
