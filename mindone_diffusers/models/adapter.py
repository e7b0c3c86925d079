"""`T2IAdapter`: a small network that turns a control image into features for a UNet (arXiv:2302.08453)."""

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor

from .. import nn
from ..core.configuration import ConfigMixin, register_to_config
from ..core.errors import ConfigError
from ..nn import functional as F
from .modeling_utils import ModelMixin
from .multi import MultiModel

ADAPTER_TYPES = ("full_adapter", "full_adapter_xl", "light_adapter")


class AdapterResnetBlock(nn.Module):
    """A 3x3 convolution, ReLU and a convolution of `kernel_size`, added to the input."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)

    def construct(self, x: Tensor) -> Tensor:
        return self.block2(F.relu(self.block1(x))) + x


class AdapterBlock(nn.Module):
    """Average 2x2 pixels (with `down`; a last odd row or column by itself), change the channels, then residual blocks.

    Args:
        light: a quarter of `out_channels` within, and 3x3 convolutions only.
    """

    def __init__(self, in_channels: int, out_channels: int, num_res_blocks: int, down: bool, light: bool):
        super().__init__()
        channels = out_channels // 4 if light else out_channels
        self.downsample = nn.AvgPool2d(2, ceil_mode=True) if down else None
        self.in_conv = nn.Conv2d(in_channels, channels, 1) if light or in_channels != out_channels else None
        self.resnets = nn.Sequential(*[AdapterResnetBlock(channels, 3 if light else 1) for _ in range(num_res_blocks)])
        self.out_conv = nn.Conv2d(channels, out_channels, 1) if light else None

    def construct(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        if self.in_conv is not None:
            x = self.in_conv(x)
        x = self.resnets(x)
        return x if self.out_conv is None else self.out_conv(x)


class Adapter(nn.Module):
    """The network of a `T2IAdapter`, which names its arguments: pixels into channels, then blocks, each of which has an output."""

    def __init__(self, in_channels: int, channels: Sequence[int], num_res_blocks: int, downscale_factor: int, adapter_type: str):
        super().__init__()
        light, xl = adapter_type == "light_adapter", adapter_type == "full_adapter_xl"
        in_channels = in_channels * downscale_factor**2
        self.downscale_factor = downscale_factor
        if light:
            self.conv_in = None
            widths = [in_channels, *channels, channels[-1]]
        else:
            self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
            widths = [channels[0], *channels]
        self.body = nn.ModuleList(
            [
                AdapterBlock(widths[i], widths[i + 1], num_res_blocks, down=i == 2 if xl else i > 0, light=light)
                for i in range(len(widths) - 1)
            ]
        )
        self.total_downscale_factor = downscale_factor * 2 ** (1 if xl else len(self.body) - 1)

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.pixel_unshuffle(x, self.downscale_factor)
        if self.conv_in is not None:
            x = self.conv_in(x)
        features = ()
        for block in self.body:
            x = block(x)
            features += (x,)
        return features


class T2IAdapter(ModelMixin, ConfigMixin):
    """Features of a control image (batch, in_channels, H, W), one for each resolution of a UNet, which adds them to its own on the way down
    (arXiv:2302.08453).

    Args:
        in_channels: of the image.
        channels: of the features. "full_adapter_xl" expects that a fourth and later ones repeat the third, as PyTorch diffusers does.
        num_res_blocks: residual blocks a feature.
        downscale_factor: side of the cells of pixels that become channels first; 8, and 16 for SDXL.
        adapter_type: "full_adapter" (each feature has half the resolution of the one before), "full_adapter_xl" (only the third has), or
            "light_adapter" (as the first, narrower inside; it has one feature more than `channels`, as many channels as the last).

    Raises:
        ConfigError: unknown `adapter_type`.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (320, 640, 1280, 1280),
        num_res_blocks: int = 2,
        downscale_factor: int = 8,
        adapter_type: str = "full_adapter",
    ):
        super().__init__()
        if adapter_type not in ADAPTER_TYPES:
            raise ConfigError(f"Unknown adapter_type {adapter_type!r}: expected one of {', '.join(map(repr, ADAPTER_TYPES))}.")
        self.adapter = Adapter(in_channels, channels, num_res_blocks, downscale_factor, adapter_type)

    @property
    def downscale_factor(self) -> int:
        """Height and width of the image are multiples of it."""
        return self.adapter.downscale_factor

    @property
    def total_downscale_factor(self) -> int:
        """Side of the image over that of the smallest feature, if it divides the image's."""
        return self.adapter.total_downscale_factor

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The features of control images (batch, in_channels, H, W) in [0, 1], finest first: (batch, channels[i], h, w).

        Raises:
            TypeError: `x` is no tensor, or not of the model's dtype.
            ValueError: wrong rank or number of channels, or H or W is not a multiple of `downscale_factor`.
        """
        self._check_input("x", x, self.config.in_channels, multiple=self.downscale_factor)
        return list(self._run("construct", x))

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.adapter(x)


class MultiAdapter(MultiModel):
    """Several T2I-Adapters, one for each of several control images; their features are added, each with a weight.

    It is saved as the folders `adapter`, `adapter_1`, `adapter_2`, ... (PyTorch diffusers writes the third where it does not read it).

    Args:
        adapters: two or more, which make features of the same sizes.

    Raises:
        ConfigError: fewer, or different downscaling.
    """

    _member_class, _members_name = T2IAdapter, "adapters"

    def __init__(self, adapters: list[T2IAdapter]):
        if len(adapters) < 2:
            raise ConfigError(f"Got {len(adapters)} adapters, expected at least two: use a single T2IAdapter by itself.")
        factors = [(adapter.downscale_factor, adapter.total_downscale_factor) for adapter in adapters]
        if len(set(factors)) > 1:
            raise ConfigError(f"The adapters' (downscale_factor, total_downscale_factor) are {factors}; expected the same for all.")
        super().__init__(adapters)
        self.num_adapter = len(adapters)
        self.downscale_factor, self.total_downscale_factor = factors[0]

    def __call__(self, xs: Sequence[Tensor], adapter_weights: Sequence[float] | None = None) -> list[Tensor]:
        """The weighted sums of the adapters' features.

        Args:
            xs: a batch of control images for each adapter, all of one height and width.
            adapter_weights: a number for each adapter, by default the same for all, with the sum 1.

        Raises:
            ValueError: not as many of them as adapters.
        """
        weights = [1 / self.num_adapter] * self.num_adapter if adapter_weights is None else adapter_weights
        self._check_lists(xs=xs, adapter_weights=weights)
        return list(self._run("construct", ms.mutable(tuple(xs)), Tensor(weights, self.dtype)))

    def construct(self, xs: tuple[Tensor, ...], adapter_weights: Tensor) -> tuple[Tensor, ...]:
        total = ()
        for i, adapter in enumerate(self.adapters):
            features = adapter(xs[i])
            sums = ()
            for j in range(len(features)):
                feature = adapter_weights[i] * features[j]
                sums += (feature if i == 0 else total[j] + feature,)
            total = sums
        return total
