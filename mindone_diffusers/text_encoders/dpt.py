"""DPT (arXiv:2103.13413): depth from an image, by a vision transformer whose layers are read out as feature maps.

With transformers' config entries and parameter names, for the ViT alone (dpt-large) and for the hybrid (dpt-hybrid-midas, in Stable
Diffusion 2's depth model), whose patches and first two maps come from a ResNet.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor

from .. import nn
from ..core.configuration import FrozenDict
from ..core.errors import ConfigError, UnsupportedError
from ..core.outputs import BaseOutput
from ..nn import functional as F
from .bit import BitBackbone, bit_config
from .modeling_utils import PreTrainedModel, attend, check_heads, get_activation

DPT_DEFAULTS = {
    "model_type": "dpt", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.02,
    "layer_norm_eps": 1e-12, "image_size": 384, "patch_size": 16, "num_channels": 3, "is_hybrid": False, "qkv_bias": True,
    "backbone_out_indices": [2, 5, 8, 11], "readout_type": "project", "reassemble_factors": [4, 2, 1, 0.5],
    "neck_hidden_sizes": [96, 192, 384, 768], "fusion_hidden_size": 256, "head_in_index": -1, "use_batch_norm_in_fusion_residual": False,
    "use_bias_in_fusion_residual": None, "add_projection": False, "use_auxiliary_head": True, "auxiliary_loss_weight": 0.4,
    "semantic_loss_ignore_index": 255, "semantic_classifier_dropout": 0.1, "backbone_featmap_shape": [1, 1024, 24, 24],
    "neck_ignore_stages": [0, 1], "backbone_config": None, "pooler_output_size": None, "pooler_act": "tanh",
}  # fmt: skip
HYBRID_BACKBONE = {
    "global_padding": "same", "layer_type": "bottleneck", "depths": [3, 4, 9], "out_features": ["stage1", "stage2", "stage3"],
    "embedding_dynamic_padding": True,
}  # fmt: skip


@dataclass
class DepthEstimatorOutput(BaseOutput):
    """
    Args:
        predicted_depth: how near each pixel is, in no unit, (batch, height, width).
        hidden_states: the embeddings and every layer's output, if asked for.
    """

    predicted_depth: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


# The transformer


class DPTViTPatchEmbeddings(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size)

    def construct(self, pixel_values: Tensor) -> Tensor:
        return self.projection(pixel_values)


class DPTEmbeddings(nn.Module):
    """Base: a class token and patches, with their positions."""

    def __init__(self, config: FrozenDict):
        super().__init__()
        height, width = _pair(config.image_size)
        patches = (height // config.patch_size) * (width // config.patch_size)
        self.side = int(patches**0.5)
        self.cls_token = nn.Parameter((1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter((1, patches + 1, config.hidden_size))

    def tokens(self, patches: Tensor) -> Tensor:
        """(batch, size, rows, columns) to (batch, 1 + rows * columns, size). Positions of another grid, which is square, are resized."""
        batch, size, rows, columns = patches.shape
        token, positions = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        if (rows, columns) != (self.side, self.side):
            positions = positions.reshape((1, self.side, self.side, size)).transpose((0, 3, 1, 2))
            positions = F.interpolate(positions, (rows, columns), mode="bilinear").reshape((1, size, rows * columns)).swapaxes(1, 2)
        patches = patches.reshape((batch, size, rows * columns)).swapaxes(1, 2) + positions
        return F.cat(((self.cls_token + token).broadcast_to((batch, 1, size)), patches), 1)


class DPTViTEmbeddings(DPTEmbeddings):
    def __init__(self, config: FrozenDict):
        super().__init__(config)
        self.patch_embeddings = DPTViTPatchEmbeddings(config)

    def construct(self, pixel_values: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[int, int]]:
        """Tokens, feature maps of a backbone (none), and rows and columns of patches."""
        patches = self.patch_embeddings(pixel_values)
        return self.tokens(patches), (), patches.shape[2:]


class DPTViTHybridEmbeddings(DPTEmbeddings):
    def __init__(self, config: FrozenDict):
        super().__init__(config)
        self.backbone = BitBackbone(config.backbone_config)
        self.projection = nn.Conv2d(config.backbone_featmap_shape[1], config.hidden_size, 1)

    def construct(self, pixel_values: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[int, int]]:
        maps = self.backbone(pixel_values)
        patches = self.projection(maps[2])
        return self.tokens(patches), maps[:2], patches.shape[2:]


class DPTSelfAttention(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        check_heads(config)
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(size, size, config.qkv_bias)
        self.key = nn.Linear(size, size, config.qkv_bias)
        self.value = nn.Linear(size, size, config.qkv_bias)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return attend(self.query(hidden_states), self.key(hidden_states), self.value(hidden_states), self.num_heads)


class DPTDense(nn.Module):
    """A linear layer, named `dense`."""

    def __init__(self, in_size: int, out_size: int):
        super().__init__()
        self.dense = nn.Linear(in_size, out_size)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return self.dense(hidden_states)


class DPTViTAttention(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.attention = DPTSelfAttention(config)
        self.output = DPTDense(config.hidden_size, config.hidden_size)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return self.output(self.attention(hidden_states))


class DPTViTLayer(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.attention = DPTViTAttention(config)
        self.intermediate = DPTDense(config.hidden_size, config.intermediate_size)
        self.activation = get_activation(config.hidden_act)
        self.output = DPTDense(config.intermediate_size, config.hidden_size)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.attention(self.layernorm_before(hidden_states))
        return hidden_states + self.output(self.activation(self.intermediate(self.layernorm_after(hidden_states))))


class DPTViTEncoder(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.layer = nn.ModuleList([DPTViTLayer(config) for _ in range(config.num_hidden_layers)])

    def construct(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        """The input and every layer's output."""
        states = (hidden_states,)
        for layer in self.layer:
            hidden_states = layer(hidden_states)
            states += (hidden_states,)
        return states


class DPTModel(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.embeddings = DPTViTHybridEmbeddings(config) if config.is_hybrid else DPTViTEmbeddings(config)
        self.encoder = DPTViTEncoder(config)
        # Depth is read from the layers, before this; checkpoints have it.
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[int, int]]:
        """The encoder's states, feature maps of a backbone, and rows and columns of patches."""
        tokens, maps, grid = self.embeddings(pixel_values)
        return self.encoder(tokens), maps, grid


# From layers to depth


class DPTReassembleLayer(nn.Module):
    """A feature map in other channels, and `factor` times as large."""

    def __init__(self, config: FrozenDict, channels: int, factor: float):
        super().__init__()
        self.projection = nn.Conv2d(config.hidden_size, channels, 1)
        if factor > 1:
            self.resize = nn.ConvTranspose2d(channels, channels, int(factor), stride=int(factor))
        else:
            self.resize = nn.Identity() if factor == 1 else nn.Conv2d(channels, channels, 3, stride=int(1 / factor), padding=1)

    def construct(self, feature: Tensor) -> Tensor:
        return self.resize(self.projection(feature))


class DPTReassembleStage(nn.Module):
    """Layers' tokens to feature maps, which the class token goes into as `readout_type` says."""

    def __init__(self, config: FrozenDict):
        super().__init__()
        self.readout_type = config.readout_type
        self.activation = get_activation(config.hidden_act)
        self.readout_projects, layers, projects = None, [], []
        for index, (channels, factor) in enumerate(zip(config.neck_hidden_sizes, config.reassemble_factors)):
            passes = index < _maps_of_backbone(config)
            layers.append(nn.Identity() if passes else DPTReassembleLayer(config, channels, factor))
            projects.append(nn.ModuleList([nn.Identity() if passes else nn.Linear(2 * config.hidden_size, config.hidden_size)]))
        self.layers = nn.ModuleList(layers)
        if config.readout_type == "project":
            self.readout_projects = nn.ModuleList(projects)

    def construct(self, maps: tuple[Tensor, ...], states: tuple[Tensor, ...], grid: tuple[int, int]) -> tuple[Tensor, ...]:
        features = maps
        for state in states:
            index = len(features)
            token, patches = state[:, :1], state[:, 1:]
            if self.readout_projects is not None:
                both = F.cat((patches, token.broadcast_to(patches.shape)), -1)
                patches = self.activation(self.readout_projects[index][0](both))
            elif self.readout_type == "add":
                patches = patches + token
            batch, _, size = patches.shape
            features += (self.layers[index](patches.swapaxes(1, 2).reshape((batch, size) + grid)),)
        return features


class DPTPreActResidualLayer(nn.Module):
    """Two convolutions after an activation each, added to the input (arXiv:1603.05027)."""

    def __init__(self, config: FrozenDict):
        super().__init__()
        size, normalised, bias = config.fusion_hidden_size, config.use_batch_norm_in_fusion_residual, config.use_bias_in_fusion_residual
        bias = not normalised if bias is None else bias
        self.convolution1 = nn.Conv2d(size, size, 3, padding=1, bias=bias)
        self.convolution2 = nn.Conv2d(size, size, 3, padding=1, bias=bias)
        self.batch_norm1 = nn.BatchNorm2d(size) if normalised else None
        self.batch_norm2 = nn.BatchNorm2d(size) if normalised else None

    def construct(self, feature: Tensor) -> Tensor:
        residual = self.convolution1(F.relu(feature))
        if self.batch_norm1 is not None:
            residual = self.batch_norm1(residual)
        residual = self.convolution2(F.relu(residual))
        if self.batch_norm2 is not None:
            residual = self.batch_norm2(residual)
        return feature + residual


class DPTFeatureFusionLayer(nn.Module):
    """What the layers before it fused and the next feature map, added, at twice the resolution."""

    def __init__(self, config: FrozenDict):
        super().__init__()
        self.projection = nn.Conv2d(config.fusion_hidden_size, config.fusion_hidden_size, 1)
        self.residual_layer1 = DPTPreActResidualLayer(config)
        self.residual_layer2 = DPTPreActResidualLayer(config)

    def construct(self, fused: Tensor | None, feature: Tensor) -> Tensor:
        if fused is None:
            fused = feature
        else:
            if fused.shape != feature.shape:
                feature = F.interpolate(feature, fused.shape[2:], mode="bilinear")
            fused = fused + self.residual_layer1(feature)
        return self.projection(F.interpolate(self.residual_layer2(fused), scale_factor=2, mode="bilinear", align_corners=True))


class DPTFeatureFusionStage(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.layers = nn.ModuleList([DPTFeatureFusionLayer(config) for _ in config.neck_hidden_sizes])

    def construct(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Every layer's output, from the deepest feature on."""
        fused, outputs = None, ()
        for layer, feature in zip(self.layers, features[::-1]):
            fused = layer(fused, feature)
            outputs += (fused,)
        return outputs


class DPTNeck(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.reassemble_stage = DPTReassembleStage(config)
        convs = [nn.Conv2d(channels, config.fusion_hidden_size, 3, padding=1, bias=False) for channels in config.neck_hidden_sizes]
        self.convs = nn.ModuleList(convs)
        self.fusion_stage = DPTFeatureFusionStage(config)

    def construct(self, maps: tuple[Tensor, ...], states: tuple[Tensor, ...], grid: tuple[int, int]) -> tuple[Tensor, ...]:
        features = ()
        for conv, feature in zip(self.convs, self.reassemble_stage(maps, states, grid)):
            features += (conv(feature),)
        return self.fusion_stage(features)


class DPTDepthEstimationHead(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        size = config.fusion_hidden_size
        self.projection = nn.Conv2d(256, 256, 3, padding=1) if config.add_projection else None
        self.head = nn.Sequential(
            nn.Conv2d(size, size // 2, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(size // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU(),
        )  # fmt: skip

    def construct(self, feature: Tensor) -> Tensor:
        if self.projection is not None:
            feature = F.relu(self.projection(feature))
        return self.head(feature)[:, 0]


class DPTForDepthEstimation(PreTrainedModel):
    """DPT with its depth estimation head.

    Raises:
        ConfigError: an unknown `readout_type`, another than "project" for a hybrid, or not one layer to read out for each of
            `neck_hidden_sizes`.
        UnsupportedError: a backbone other than the hybrid's.
    """

    config_defaults = DPT_DEFAULTS
    _keys_to_ignore_on_load_unexpected = (r"\.num_batches_tracked$",)

    def __init__(self, config: Any = None, **values: Any):
        super().__init__(config, **values)
        self.register_to_config(**_complete(self.config))
        config = self.config
        indices = config.backbone_out_indices[_maps_of_backbone(config) :]
        self.indices = tuple(index for index in range(config.num_hidden_layers) if index in indices)
        if _maps_of_backbone(config) + len(self.indices) != len(config.neck_hidden_sizes):
            raise ConfigError(
                f"backbone_out_indices is {config.backbone_out_indices}; expected one of {config.num_hidden_layers} layers for each of "
                f"the neck_hidden_sizes {config.neck_hidden_sizes}"
            )
        self.dpt = DPTModel(config)
        self.neck = DPTNeck(config)
        self.head = DPTDepthEstimationHead(config)
        self.head_in_index = config.head_in_index

    def __call__(
        self, pixel_values: Tensor | np.ndarray, output_hidden_states: bool | None = None, return_dict: bool = True
    ) -> DepthEstimatorOutput | tuple:
        """
        Args:
            pixel_values: images as DPTImageProcessor gives them, (batch, channels, height, width); for a hybrid of `image_size`. (Those
                that are not square fail in transformers.)
            output_hidden_states: also return the embeddings and every layer's output. Default: the config's entry.
            return_dict: return `DepthEstimatorOutput`, else a tuple.

        Raises:
            ValueError: images of another size or number of channels.
        """
        pixel_values = pixel_values if isinstance(pixel_values, Tensor) else Tensor(np.asarray(pixel_values))
        config, shape = self.config, pixel_values.shape
        if shape[1] != config.num_channels:
            raise ValueError(f"pixel_values has the shape {shape}; expected (batch, {config.num_channels}, height, width)")
        if config.is_hybrid and shape[2:] != _pair(config.image_size):
            raise ValueError(f"pixel_values has the shape {shape}; this model's images have {_pair(config.image_size)}")
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        outputs = self._run("construct", pixel_values.astype(self.dtype), output_hidden_states)
        return DepthEstimatorOutput(*outputs) if return_dict else outputs

    def construct(self, pixel_values, output_hidden_states: bool = False, return_dict: bool = False) -> tuple:
        states, maps, grid = self.dpt(pixel_values)
        chosen = ()
        for index in self.indices:
            chosen += (states[index + 1],)
        depth = self.head(self.neck(maps, chosen, grid)[self.head_in_index])
        return (depth, states) if output_hidden_states else (depth,)


def _maps_of_backbone(config: FrozenDict) -> int:
    """How many of the feature maps are a backbone's own."""
    return 2 if config.is_hybrid else 0


def _complete(config: FrozenDict) -> dict[str, Any]:
    """The entries that depend on others."""
    if config.readout_type not in (("project",) if config.is_hybrid else ("ignore", "add", "project")):
        raise ConfigError(f"readout_type is {config.readout_type!r}; expected 'project' or, if not is_hybrid, 'ignore' or 'add'")
    pooler_output_size = config.pooler_output_size or config.hidden_size
    if not config.is_hybrid:
        if config.backbone_config is not None:
            raise UnsupportedError("a backbone_config without is_hybrid: this library has the hybrid's backbone, BiT, only")
        return {"backbone_featmap_shape": None, "neck_ignore_stages": [], "pooler_output_size": pooler_output_size}
    backbone = bit_config(HYBRID_BACKBONE if config.backbone_config is None else config.backbone_config)
    if len(backbone["out_features"]) != 3:
        raise ConfigError(f"the backbone's out_features are {backbone['out_features']}; expected three stages")
    return {"backbone_config": FrozenDict(backbone), "pooler_output_size": pooler_output_size}
