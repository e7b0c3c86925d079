"""BiT (arXiv:1912.11370): a ResNet with group normalisation and standardised weights, with transformers' config entries and names."""

from typing import Any

from mindspore import Tensor

from .. import nn
from ..core.configuration import FrozenDict
from ..core.errors import ConfigError, UnsupportedError
from ..nn import functional as F
from .modeling_utils import get_activation

BIT_DEFAULTS = {
    "model_type": "bit", "num_channels": 3, "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3],
    "layer_type": "preactivation", "hidden_act": "relu", "global_padding": None, "num_groups": 32, "drop_path_rate": 0.0,
    "embedding_dynamic_padding": False, "output_stride": 32, "width_factor": 1,
}  # fmt: skip


def bit_config(values: dict[str, Any]) -> dict[str, Any]:
    """A config with every entry, from some of them.

    Raises:
        ConfigError: a `global_padding` other than None and "same" ("valid" fails in transformers), or `out_features` that are no stages.
        UnsupportedError: another model, or a `layer_type` other than "bottleneck".
    """
    config = BIT_DEFAULTS | values
    if config["model_type"] != "bit" or config["layer_type"] != "bottleneck":
        raise UnsupportedError(
            f"the backbone is a {config['model_type']!r} of {config['layer_type']!r} layers; expected 'bit' of 'bottleneck' layers"
        )
    padding = config["global_padding"]
    if padding is not None and padding.lower() != "same":
        raise ConfigError(f"global_padding is {padding!r}; expected None or 'same'")
    stages = ["stem", *(f"stage{number}" for number in range(1, len(config["depths"]) + 1))]
    features, indices = config.get("out_features"), config.get("out_indices")
    if features is None:
        features = [stages[index] for index in ([-1] if indices is None else indices)]
    if not set(features) <= set(stages):
        raise ConfigError(f"out_features is {list(features)}; expected some of {stages}")
    return config | {
        "global_padding": padding and padding.upper(), "stage_names": stages, "out_features": list(features),
        "out_indices": [stages.index(name) for name in features],
    }  # fmt: skip


class Pad(nn.Module):
    """Zeros around an image, so that windows at every `stride`-th pixel cover it: one more after it than before, if they are odd."""

    def __init__(self, kernel_size: int, stride: int, dilation: int = 1):
        super().__init__()
        self.reach, self.stride = (kernel_size - 1) * dilation + 1, stride

    def missing(self, size: int) -> int:
        return max((size - 1) // self.stride * self.stride + self.reach - size, 0)

    def construct(self, input: Tensor) -> Tensor:
        rows, columns = self.missing(input.shape[2]), self.missing(input.shape[3])
        if rows == 0 and columns == 0:
            return input
        return F.pad(input, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class WeightStandardizedConv2d(nn.Conv2d):
    """A convolution without bias whose weights have, for each output channel, mean 0 and variance 1 (arXiv:1903.10520)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, global_padding: str | None, stride: int = 1, dilation: int = 1
    ):
        padding = ((stride - 1) + dilation * (kernel_size - 1)) // 2 if global_padding is None else 0
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False)
        self.pad = Pad(kernel_size, stride, dilation) if global_padding == "SAME" else None

    def construct(self, input: Tensor) -> Tensor:
        if self.pad is not None:
            input = self.pad(input)
        shape = self.weight.shape
        weight = self.weight.reshape((shape[0], -1))
        weight = F.layer_norm(weight, weight.shape[1:], eps=1e-8).reshape(shape)
        return F.conv2d(input, weight, None, self.stride, self.padding, self.dilation)


class BitEmbeddings(nn.Module):
    """The stem: a convolution and a maximum over windows, each of every second pixel."""

    def __init__(self, config: FrozenDict):
        super().__init__()
        self.convolution = WeightStandardizedConv2d(config.num_channels, config.embedding_size, 7, config.global_padding, stride=2)
        self.norm = nn.GroupNorm(config.num_groups, config.embedding_size)
        self.activation = get_activation(config.hidden_act)
        self.pads_conv = config.global_padding != "SAME"
        self.pad = Pad(3, 2) if config.embedding_dynamic_padding else None

    def construct(self, pixel_values: Tensor) -> Tensor:
        embedding = self.convolution(pixel_values)
        if self.pads_conv:
            embedding = F.pad(embedding, (1, 1, 1, 1))
        embedding = self.activation(self.norm(embedding))
        if self.pad is not None:
            embedding = self.pad(embedding)
        return F.max_pool2d(embedding, 3, 2)


class BitDownsampleConv(nn.Module):
    def __init__(self, config: FrozenDict, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv = WeightStandardizedConv2d(in_channels, out_channels, 1, config.global_padding, stride)
        self.norm = nn.GroupNorm(config.num_groups, out_channels)

    def construct(self, input: Tensor) -> Tensor:
        return self.norm(self.conv(input))


class BitBottleneckLayer(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 pixels, the middle one of a quarter of the channels, added to the input (arXiv:1512.03385)."""

    def __init__(self, config: FrozenDict, in_channels: int, out_channels: int, stride: int, dilation: int, is_first: bool):
        super().__init__()
        padding, middle = config.global_padding, _multiple_of_8(out_channels / 4)
        self.downsample = BitDownsampleConv(config, in_channels, out_channels, stride) if is_first else None
        self.conv1 = WeightStandardizedConv2d(in_channels, middle, 1, padding)
        self.norm1 = nn.GroupNorm(config.num_groups, middle)
        self.conv2 = WeightStandardizedConv2d(middle, middle, 3, padding, stride, dilation)
        self.norm2 = nn.GroupNorm(config.num_groups, middle)
        self.conv3 = WeightStandardizedConv2d(middle, out_channels, 1, padding)
        self.norm3 = nn.GroupNorm(config.num_groups, out_channels)
        self.activation = get_activation(config.hidden_act)

    def construct(self, hidden_states: Tensor) -> Tensor:
        shortcut = hidden_states if self.downsample is None else self.downsample(hidden_states)
        hidden_states = self.activation(self.norm1(self.conv1(hidden_states)))
        hidden_states = self.activation(self.norm2(self.conv2(hidden_states)))
        return self.activation(self.norm3(self.conv3(hidden_states)) + shortcut)


class BitStage(nn.Module):
    def __init__(self, config: FrozenDict, in_channels: int, out_channels: int, depth: int, stride: int, dilation: int):
        super().__init__()
        layers = []
        for index in range(depth):
            if index == 0:
                layer = BitBottleneckLayer(config, in_channels, out_channels, stride, 1 if dilation <= 2 else 2, True)
            else:
                layer = BitBottleneckLayer(config, out_channels, out_channels, 1, dilation, False)
            layers.append(layer)
        self.layers = nn.Sequential(*layers)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return self.layers(hidden_states)


class BitEncoder(nn.Module):
    """Stages, each of half the resolution of the one before it, until the pixels are `output_stride` apart; from there on the
    convolutions' windows have gaps instead."""

    def __init__(self, config: FrozenDict):
        super().__init__()
        stages, distance, dilation, in_channels = [], 4, 1, config.embedding_size
        for index, (depth, size) in enumerate(zip(config.depths, config.hidden_sizes)):
            stride, out_channels = 1 if index == 0 else 2, _multiple_of_8(size * config.width_factor)
            if distance >= config.output_stride:
                stride, dilation = 1, dilation * stride
            stages.append(BitStage(config, in_channels, out_channels, depth, stride, dilation))
            distance, in_channels = distance * stride, out_channels
        self.stages = nn.ModuleList(stages)

    def construct(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        """The input and every stage's output."""
        states = (hidden_states,)
        for stage in self.stages:
            hidden_states = stage(hidden_states)
            states += (hidden_states,)
        return states


class BitModel(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.embedder = BitEmbeddings(config)
        self.encoder = BitEncoder(config)

    def construct(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return self.encoder(self.embedder(pixel_values))


class BitBackbone(nn.Module):
    """The outputs of the stages in `out_features`, each (batch, channels, height, width).

    Args:
        config: see `bit_config`.
    """

    def __init__(self, config: FrozenDict):
        super().__init__()
        self.bit = BitModel(config)
        self.indices = tuple(sorted(config.out_indices))

    def construct(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        states = self.bit(pixel_values)
        features = ()
        for index in self.indices:
            features += (states[index],)
        return features


def _multiple_of_8(value: float) -> int:
    """The nearest multiple of 8, at least 8, that is not below nine tenths of the value."""
    nearest = max(8, int(value + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * value else nearest
