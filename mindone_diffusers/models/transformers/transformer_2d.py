"""`Transformer2DModel`: transformer blocks over the pixels of a feature map."""

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...core.errors import ConfigError, UnsupportedError
from ...core.outputs import BaseOutput
from ..attention import transformer_blocks
from ..modeling_utils import ModelMixin


@dataclass
class Transformer2DModelOutput(BaseOutput):
    """
    Args:
        sample: (batch, channels, height, width).
    """

    sample: Tensor


class Transformer2DModel(ModelMixin, ConfigMixin):
    """Transformer blocks over the pixels of (batch, in_channels, height, width), added to the input.

    Args:
        num_attention_heads, attention_head_dim: number and size of the heads; their product is the blocks' width.
        in_channels: of the feature map.
        num_layers: number of blocks.
        norm_num_groups: groups of the normalisation before the first block.
        cross_attention_dim: channels of the context.
        use_linear_projection: into and out of the blocks by linear layers instead of 1x1 convolutions.
        norm_type, num_embeds_ada_norm, only_cross_attention, double_self_attention, upcast_attention, norm_elementwise_affine, norm_eps,
            attention_type, activation_fn, attention_bias: see `BasicTransformerBlock`.

    Raises:
        UnsupportedError: for patches (`patch_size`) or tokens (`num_vector_embeds`) as input.
        ConfigError: without `in_channels`.
    """

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 88,
        in_channels: int | None = None,
        out_channels: int | None = None,
        num_layers: int = 1,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        cross_attention_dim: int | None = None,
        attention_bias: bool = False,
        sample_size: int | None = None,
        num_vector_embeds: int | None = None,
        patch_size: int | None = None,
        activation_fn: str = "geglu",
        num_embeds_ada_norm: int | None = None,
        use_linear_projection: bool = False,
        only_cross_attention: bool = False,
        double_self_attention: bool = False,
        upcast_attention: bool = False,
        norm_type: str = "layer_norm",
        norm_elementwise_affine: bool = True,
        norm_eps: float = 1e-5,
        attention_type: str = "default",
        caption_channels: int | None = None,
        interpolation_scale: float | None = None,
        use_additional_conditions: bool | None = None,
    ):
        super().__init__()
        if patch_size is not None or num_vector_embeds is not None:
            raise UnsupportedError("Transformer2DModel takes feature maps only: leave patch_size and num_vector_embeds out.")
        if in_channels is None:
            raise ConfigError("Transformer2DModel needs in_channels.")
        if norm_type == "layer_norm" and num_embeds_ada_norm is not None:
            norm_type = "ada_norm"
        width = num_attention_heads * attention_head_dim
        out_channels = in_channels if out_channels is None else out_channels
        self.use_linear_projection = use_linear_projection
        self.norm = nn.GroupNorm(norm_num_groups, in_channels, 1e-6)
        self.proj_in = nn.Linear(in_channels, width) if use_linear_projection else nn.Conv2d(in_channels, width, 1)
        self.transformer_blocks = transformer_blocks(self.config, norm_type=norm_type)
        self.proj_out = nn.Linear(width, out_channels) if use_linear_projection else nn.Conv2d(width, out_channels, 1)

    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """
        Args:
            hidden_states: (batch, in_channels, height, width).
            encoder_hidden_states: the context, (batch, keys, cross_attention_dim).
            timestep, added_cond_kwargs, class_labels: for adaptive norms, see `BasicTransformerBlock`.
            cross_attention_kwargs: for the attention processors.
            attention_mask, encoder_attention_mask: (batch, keys), 1 to keep and 0 to leave out; or (batch, 1, keys), added to the scores.
        """
        output = self._run(
            "construct", hidden_states, encoder_hidden_states, timestep, added_cond_kwargs, class_labels, cross_attention_kwargs,
            attention_mask, encoder_attention_mask,
        )  # fmt: skip
        return Transformer2DModelOutput(sample=output[0]) if return_dict else output

    def construct(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        batch, _, height, width = hidden_states.shape
        attention_mask = additive_mask(attention_mask, hidden_states.dtype)
        encoder_attention_mask = additive_mask(encoder_attention_mask, hidden_states.dtype)
        residual = hidden_states
        hidden_states = self.norm(hidden_states)
        if not self.use_linear_projection:
            hidden_states = self.proj_in(hidden_states)
        hidden_states = hidden_states.reshape((batch, hidden_states.shape[1], height * width)).swapaxes(1, 2)
        if self.use_linear_projection:
            hidden_states = self.proj_in(hidden_states)
        for block in self.transformer_blocks:
            hidden_states = block(
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask,
                timestep,
                cross_attention_kwargs,
                class_labels,
                added_cond_kwargs,
            )
        if self.use_linear_projection:
            hidden_states = self.proj_out(hidden_states)
        hidden_states = hidden_states.swapaxes(1, 2).reshape((batch, hidden_states.shape[2], height, width))
        if not self.use_linear_projection:
            hidden_states = self.proj_out(hidden_states)
        return (hidden_states + residual,)


def additive_mask(mask: Tensor | None, dtype) -> Tensor | None:
    """A (batch, keys) mask of ones and zeros as (batch, 1, keys) zeros and -10000; masks of other shapes pass."""
    if mask is None or mask.ndim != 2:
        return mask
    return ((1 - mask.astype(dtype)) * -10000.0).expand_dims(1)
