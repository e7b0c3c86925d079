"""CLIP's text and vision transformers (arXiv:2103.00020), with transformers' config entries and parameter names.

Each `*ModelWithProjection` adds the linear map into the space that text and images share.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import mindspore as ms
import numpy as np
from mindspore import Tensor

from .. import nn
from ..core.configuration import FrozenDict
from ..core.outputs import BaseOutput
from ..nn import functional as F
from .modeling_utils import BaseModelOutputWithPooling, PreTrainedModel, attend, check_heads, get_activation

_COMMON_DEFAULTS = {
    "projection_dim": 512, "num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0,
    "initializer_range": 0.02, "initializer_factor": 1.0,
}  # fmt: skip
TEXT_DEFAULTS = _COMMON_DEFAULTS | {
    "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "max_position_embeddings": 77, "pad_token_id": 1, "bos_token_id": 49406, "eos_token_id": 49407,
}  # fmt: skip
VISION_DEFAULTS = _COMMON_DEFAULTS | {
    "model_type": "clip_vision_model", "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_channels": 3,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip

# Names a checkpoint may hold besides the model's: buffers that transformers 4 saved, and the layers beyond `num_hidden_layers`.
_SPARE = (r"(^|\.)position_ids$", r"encoder\.layers\.\d+\.(self_attn\.\w+_proj|mlp\.fc[12]|layer_norm[12])\.(weight|bias)$")


@dataclass
class CLIPTextModelOutput(BaseOutput):
    """
    Args:
        text_embeds: (batch, projection_dim).
        last_hidden_state: (batch, tokens, hidden_size), after the final norm.
        hidden_states: the embeddings and every layer's output (before the final norm), if asked for.
    """

    text_embeds: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class CLIPVisionModelOutput(BaseOutput):
    """
    Args:
        image_embeds: (batch, projection_dim).
        last_hidden_state: (batch, 1 + patches, hidden_size); the class token comes first.
        hidden_states: the embeddings and every layer's output, if asked for.
    """

    image_embeds: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class CLIPAttention(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        check_heads(config)
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.q_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def construct(self, hidden_states: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        return self.out_proj(attend(query, key, value, self.num_heads, mask, is_causal))


class CLIPMLP(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.activation_fn = get_activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class CLIPEncoderLayer(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, hidden_states: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states), mask, is_causal)
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class CLIPEncoder(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.layers = nn.ModuleList([CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def construct(self, hidden_states: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> tuple[Tensor, ...]:
        """The input and every layer's output."""
        states = (hidden_states,)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, is_causal)
            states += (hidden_states,)
        return states


class CLIPTextEmbeddings(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def construct(self, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
        if position_ids is None:
            positions = self.position_embedding.weight[: input_ids.shape[1]]
        else:
            positions = self.position_embedding(position_ids)
        return self.token_embedding(input_ids) + positions


class CLIPVisionEmbeddings(nn.Module):
    def __init__(self, config: FrozenDict):
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter((size,))
        self.patch_embedding = nn.Conv2d(config.num_channels, size, kernel_size=patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2 + 1, size)

    def construct(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embedding(pixel_values)
        batch, size, rows, columns = patches.shape
        patches = patches.reshape((batch, size, rows * columns)).transpose((0, 2, 1))
        class_token = self.class_embedding.reshape((1, 1, size)).broadcast_to((batch, 1, size))
        return F.cat((class_token, patches), 1) + self.position_embedding.weight


def _causal_keep_mask(attention_mask: Tensor) -> Tensor:
    """Which keys each query sees, (batch, 1, queries, keys): those up to itself that `attention_mask` (batch, keys) keeps.

    A query before the first kept key sees every key up to itself: without any, its softmax would be NaN.
    """
    tokens = attention_mask.shape[1]
    positions = F.arange(tokens)
    none_yet = F.cumsum(attention_mask.astype(ms.int32), 1) == 0
    seen = attention_mask.expand_dims(1).logical_or(none_yet.expand_dims(2))
    return (positions.reshape((tokens, 1)) >= positions).logical_and(seen).expand_dims(1)


class _CLIPTextModel(PreTrainedModel):
    """The call that both text models have; a subclass's `construct` returns the fields of its `output_class`."""

    base_config_key = "text_config"
    config_defaults = TEXT_DEFAULTS
    _repeated_blocks = ("CLIPEncoderLayer",)
    _keys_to_ignore_on_load_unexpected = (*_SPARE, r"^(text_projection|vision_model|visual_projection|logit_scale)(\.|$)")
    output_class: ClassVar[type[BaseOutput]]

    def __call__(
        self,
        input_ids: Tensor | np.ndarray | list,
        attention_mask: Tensor | np.ndarray | list | None = None,
        position_ids: Tensor | np.ndarray | list | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool = True,
    ) -> Any:
        """
        Args:
            input_ids: token numbers, (batch, tokens) or (tokens,).
            attention_mask: (batch, tokens), nonzero for tokens that may be attended to. Attention is causal in any case.
            position_ids: (batch or 1, tokens), by default 0, 1, 2, ...
            output_hidden_states: also return the embeddings and every layer's output. Default: the config's entry.
            return_dict: return the output class, else a tuple.

        Raises:
            ValueError: more tokens than positions, or a mask of another shape.
        """
        input_ids = _integers(input_ids)
        input_ids = input_ids.reshape((-1, input_ids.shape[-1]))
        tokens, limit = input_ids.shape[1], self.config.max_position_embeddings
        if tokens > limit:
            raise ValueError(f"input_ids has {tokens} tokens, the model has {limit} positions: truncate the prompt")
        if attention_mask is not None:
            attention_mask = _integers(attention_mask) != 0
            if attention_mask.shape != input_ids.shape:
                raise ValueError(f"attention_mask has shape {attention_mask.shape}; expected input_ids' {input_ids.shape}")
        if position_ids is not None:
            position_ids = _integers(position_ids)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        outputs = self._run("construct", input_ids, attention_mask, position_ids, output_hidden_states)
        return self.output_class(*outputs) if return_dict else outputs


def _integers(values: Any) -> Tensor:
    return (values if isinstance(values, Tensor) else Tensor(np.asarray(values))).astype(ms.int32)


class CLIPTextModel(_CLIPTextModel):
    """CLIP's text encoder; `pooler_output` is the state at the end-of-text token."""

    output_class = BaseModelOutputWithPooling
    _checkpoint_renames = ((r"^text_model\.", ""),)  # transformers before 5.6, and files of a whole CLIP

    def __init__(self, config: Any = None, **values: Any):
        super().__init__(config, **values)
        self.embeddings = CLIPTextEmbeddings(self.config)
        self.encoder = CLIPEncoder(self.config)
        self.final_layer_norm = nn.LayerNorm(self.config.hidden_size, self.config.layer_norm_eps)
        self.eos_token_id = self.config.eos_token_id

    @property
    def text_model(self) -> "CLIPTextModel":
        """The model itself: where transformers before 5.6 had the layers."""
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.token_embedding

    def construct(
        self, input_ids, attention_mask=None, position_ids=None, output_hidden_states: bool = False, return_dict: bool = False
    ) -> tuple:
        batch, tokens = input_ids.shape
        mask = None if attention_mask is None else _causal_keep_mask(attention_mask)
        states = self.encoder(self.embeddings(input_ids, position_ids), mask, mask is None)
        last_hidden_state = self.final_layer_norm(states[-1])
        # The end of the text: configs with the (wrong) id 2 mean the largest id, others the first that is eos_token_id.
        ends = input_ids if self.eos_token_id == 2 else (input_ids == self.eos_token_id).astype(ms.int32)
        rows = F.arange(batch) * tokens + F.argmax(ends, 1)
        pooled = F.embedding(rows, last_hidden_state.reshape((batch * tokens, -1)))
        return (last_hidden_state, pooled, states) if output_hidden_states else (last_hidden_state, pooled)


class CLIPTextModelWithProjection(_CLIPTextModel):
    """CLIP's text encoder with its projection; `text_embeds` is the projected state at the end-of-text token."""

    output_class = CLIPTextModelOutput

    def __init__(self, config: Any = None, **values: Any):
        super().__init__(config, **values)
        self.text_model = CLIPTextModel(self.config)
        self.text_projection = nn.Linear(self.config.hidden_size, self.config.projection_dim, bias=False)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.text_model.get_input_embeddings()

    def construct(
        self, input_ids, attention_mask=None, position_ids=None, output_hidden_states: bool = False, return_dict: bool = False
    ) -> tuple:
        outputs = self.text_model.construct(input_ids, attention_mask, position_ids, output_hidden_states)
        return (self.text_projection(outputs[1]), outputs[0]) + outputs[2:]


class _CLIPVisionModel(PreTrainedModel):
    """The call that both vision models have; a subclass's `construct` returns the fields of its `output_class`."""

    base_config_key = "vision_config"
    config_defaults = VISION_DEFAULTS
    _repeated_blocks = ("CLIPEncoderLayer",)
    _keys_to_ignore_on_load_unexpected = (*_SPARE, r"^(visual_projection|text_model|text_projection|logit_scale)(\.|$)")
    output_class: ClassVar[type[BaseOutput]]

    def __call__(self, pixel_values: Tensor | np.ndarray, output_hidden_states: bool | None = None, return_dict: bool = True) -> Any:
        """
        Args:
            pixel_values: images as CLIPImageProcessor gives them, (batch, channels, image_size, image_size).
            output_hidden_states: also return the embeddings and every layer's output. Default: the config's entry.
            return_dict: return the output class, else a tuple.

        Raises:
            ValueError: images of another size.
        """
        pixel_values = pixel_values if isinstance(pixel_values, Tensor) else Tensor(np.asarray(pixel_values))
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if pixel_values.shape[1:] != expected:
            raise ValueError(f"pixel_values has shape {pixel_values.shape}; expected (batch, {', '.join(map(str, expected))})")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        outputs = self._run("construct", pixel_values.astype(self.dtype), output_hidden_states)
        return self.output_class(*outputs) if return_dict else outputs


class CLIPVisionModel(_CLIPVisionModel):
    """CLIP's vision transformer (arXiv:2010.11929); `pooler_output` is the class token's normalised state."""

    output_class = BaseModelOutputWithPooling
    _checkpoint_renames = ((r"^vision_model\.", ""),)  # transformers before 5.6, and files of a whole CLIP

    def __init__(self, config: Any = None, **values: Any):
        super().__init__(config, **values)
        size, eps = self.config.hidden_size, self.config.layer_norm_eps
        self.embeddings = CLIPVisionEmbeddings(self.config)
        self.pre_layrnorm = nn.LayerNorm(size, eps)
        self.encoder = CLIPEncoder(self.config)
        self.post_layernorm = nn.LayerNorm(size, eps)

    @property
    def vision_model(self) -> "CLIPVisionModel":
        """The model itself: where transformers before 5.6 had the layers."""
        return self

    def construct(self, pixel_values, output_hidden_states: bool = False, return_dict: bool = False) -> tuple:
        states = self.encoder(self.pre_layrnorm(self.embeddings(pixel_values)))
        pooled = self.post_layernorm(states[-1][:, 0])
        return (states[-1], pooled, states) if output_hidden_states else (states[-1], pooled)


class CLIPVisionModelWithProjection(_CLIPVisionModel):
    """CLIP's vision transformer with its projection, which gives `image_embeds`."""

    output_class = CLIPVisionModelOutput

    def __init__(self, config: Any = None, **values: Any):
        super().__init__(config, **values)
        self.vision_model = CLIPVisionModel(self.config)
        self.visual_projection = nn.Linear(self.config.hidden_size, self.config.projection_dim, bias=False)

    def construct(self, pixel_values, output_hidden_states: bool = False, return_dict: bool = False) -> tuple:
        outputs = self.vision_model.construct(pixel_values, output_hidden_states)
        return (self.visual_projection(outputs[1]), outputs[0]) + outputs[2:]
