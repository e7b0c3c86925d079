"""Attention, its processors, feed-forward layers and transformer blocks (arXiv:1706.03762)."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mindspore as ms
from mindspore import Tensor

from .. import nn
from ..backend.common import swap_heads_and_tokens
from ..core.errors import ConfigError, UnsupportedError
from ..nn import functional as F
from .activations import GEGLU, GELU, ApproximateGELU, LinearActivation, SwiGLU
from .embeddings import SinusoidalPositionalEmbedding
from .normalization import AdaLayerNorm, AdaLayerNormContinuous, AdaLayerNormZero, FP32LayerNorm, LpNorm, SpatialNorm


class Attention(nn.Module):
    """Multi-head attention of a sequence, or of an image's pixels, to itself or to a context.

    What is computed from the projections is the `processor`'s decision: any object that is called with this module first, then
    `(hidden_states, encoder_hidden_states=None, attention_mask=None, ...)`. Entries of `cross_attention_kwargs` that it does not take
    are left out.

    Args:
        query_dim: channels of `hidden_states`. `cross_attention_dim`: of the context; None for self-attention.
        heads, dim_head: number and size of the heads. `kv_heads`: number of key and value heads, if fewer.
        bias: of the query, key and value projections. `out_bias`: of the output's.
        upcast_attention, upcast_softmax: float32 scores, or softmax, where the processor leaves that open (`AttnProcessor`).
        cross_attention_norm: None, "layer_norm" or "group_norm" (of `cross_attention_norm_num_groups`): of the context.
        qk_norm: None, "layer_norm", "fp32_layer_norm", "layer_norm_across_heads", "rms_norm", "rms_norm_across_heads" or "l2".
        added_kv_proj_dim: channels of a context that gets its own projections `add_k_proj`, `add_v_proj` (biased if `added_proj_bias`)
            and, unless `context_pre_only` is None, `add_q_proj` and (if it is False) `to_add_out` to `out_context_dim`.
        norm_num_groups: normalise `hidden_states` in so many groups of channels (with `eps`).
        spatial_norm_dim: channels of the maps of a `SpatialNorm` of `hidden_states`.
        scale_qk: scale the scores by dim_head ** -0.5.
        only_cross_attention: with `added_kv_proj_dim`: attend to the context only, not to `hidden_states`.
        rescale_output_factor: the output is divided by it. `residual_connection`: `hidden_states` is added before that.
        out_dim: channels of all projections and the output. Default: dim_head * heads, and `query_dim`.
        pre_only: no output projection. `elementwise_affine`: weights in `qk_norm`.
        is_causal: kept for processors that ask for it.
        processor: default `AttnProcessor2_0`, or `AttnProcessor` if not `scale_qk`.

    Attributes:
        attention_backend: name of the backend for processors that take any (`AttnProcessor2_0`); None for the active one.

    Raises:
        ConfigError: unknown norm, or `only_cross_attention` without `added_kv_proj_dim`.
    """

    def __init__(
        self,
        query_dim: int,
        cross_attention_dim: int | None = None,
        heads: int = 8,
        kv_heads: int | None = None,
        dim_head: int = 64,
        dropout: float = 0.0,
        bias: bool = False,
        upcast_attention: bool = False,
        upcast_softmax: bool = False,
        cross_attention_norm: str | None = None,
        cross_attention_norm_num_groups: int = 32,
        qk_norm: str | None = None,
        added_kv_proj_dim: int | None = None,
        added_proj_bias: bool = True,
        norm_num_groups: int | None = None,
        spatial_norm_dim: int | None = None,
        out_bias: bool = True,
        scale_qk: bool = True,
        only_cross_attention: bool = False,
        eps: float = 1e-5,
        rescale_output_factor: float = 1.0,
        residual_connection: bool = False,
        _from_deprecated_attn_block: bool = False,
        processor: Any = None,
        out_dim: int | None = None,
        out_context_dim: int | None = None,
        context_pre_only: bool | None = None,
        pre_only: bool = False,
        elementwise_affine: bool = True,
        is_causal: bool = False,
    ):
        super().__init__()
        if only_cross_attention and added_kv_proj_dim is None:
            raise ConfigError("only_cross_attention=True needs added_kv_proj_dim: without it there is nothing to attend to.")
        self.query_dim = query_dim
        self.is_cross_attention = cross_attention_dim is not None
        self.cross_attention_dim = cross_attention_dim or query_dim
        self.heads = out_dim // dim_head if out_dim is not None else heads
        self.inner_dim = out_dim if out_dim is not None else dim_head * heads
        self.inner_kv_dim = self.inner_dim if kv_heads is None else dim_head * kv_heads
        self.sliceable_head_dim = heads
        self.scale_qk = scale_qk
        self.scale = dim_head**-0.5 if scale_qk else 1.0
        self.upcast_attention = upcast_attention
        self.upcast_softmax = upcast_softmax
        self.only_cross_attention = only_cross_attention
        self.added_kv_proj_dim = added_kv_proj_dim
        self.rescale_output_factor = rescale_output_factor
        self.residual_connection = residual_connection
        self.context_pre_only, self.pre_only = context_pre_only, pre_only
        self.is_causal = is_causal
        self.attention_backend: str | None = None

        self.group_norm = None if norm_num_groups is None else nn.GroupNorm(norm_num_groups, query_dim, eps)
        self.spatial_norm = None if spatial_norm_dim is None else SpatialNorm(query_dim, spatial_norm_dim)
        sizes = (dim_head, dim_head * heads, dim_head * (kv_heads or heads))
        self.norm_q, self.norm_k = _query_key_norms(qk_norm, *sizes, eps, elementwise_affine)
        self.norm_added_q = self.norm_added_k = None
        if added_kv_proj_dim is not None:
            self.norm_added_q, self.norm_added_k = _query_key_norms(qk_norm, *sizes, eps, elementwise_affine)
            if qk_norm == "rms_norm_across_heads":
                self.norm_added_q = None
        self.cross_attention_norm = cross_attention_norm
        self.norm_cross = None
        if cross_attention_norm == "layer_norm":
            self.norm_cross = nn.LayerNorm(self.cross_attention_dim)
        elif cross_attention_norm == "group_norm":
            self.norm_cross = nn.GroupNorm(cross_attention_norm_num_groups, added_kv_proj_dim or self.cross_attention_dim)
        elif cross_attention_norm is not None:
            raise ConfigError(f"Unknown cross_attention_norm {cross_attention_norm!r}: expected None, 'layer_norm' or 'group_norm'.")

        self.to_q = nn.Linear(query_dim, self.inner_dim, bias)
        self.to_k = self.to_v = None
        if not only_cross_attention:
            self.to_k = nn.Linear(self.cross_attention_dim, self.inner_kv_dim, bias)
            self.to_v = nn.Linear(self.cross_attention_dim, self.inner_kv_dim, bias)
        self.add_q_proj = self.add_k_proj = self.add_v_proj = self.to_add_out = None
        if added_kv_proj_dim is not None:
            self.add_k_proj = nn.Linear(added_kv_proj_dim, self.inner_kv_dim, added_proj_bias)
            self.add_v_proj = nn.Linear(added_kv_proj_dim, self.inner_kv_dim, added_proj_bias)
            if context_pre_only is not None:
                self.add_q_proj = nn.Linear(added_kv_proj_dim, self.inner_dim, added_proj_bias)
        self.to_out = None
        if not pre_only:
            self.to_out = nn.ModuleList([nn.Linear(self.inner_dim, out_dim or query_dim, out_bias), nn.Dropout(dropout)])
        if context_pre_only is not None and not context_pre_only:
            self.to_add_out = nn.Linear(self.inner_dim, out_context_dim or query_dim, out_bias)
        self.set_processor(processor or self._stock_processor())

    def _stock_processor(self) -> Any:
        return AttnProcessor2_0() if self.scale_qk else AttnProcessor()

    def set_processor(self, processor: Any) -> None:
        """Attend with `processor` from now on. (Of a model in graph mode, use the model's `set_attn_processor`.)"""
        if "processor" in self._cells:
            del self.processor
        self.processor = processor
        parameters = inspect.signature(type(processor).construct if isinstance(processor, nn.Module) else processor.__call__).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self.processor_arguments = None if takes_any else tuple(parameters)

    def get_processor(self) -> Any:
        return self.processor

    def set_use_memory_efficient_attention_xformers(self, use_memory_efficient_attention_xformers: bool, attention_op: None = None) -> None:
        """The stock processor, whose attention is memory-efficient anyway, also if that is switched off.

        Raises:
            UnsupportedError: an `attention_op`, which is xFormers'.
        """
        if attention_op is not None:
            raise UnsupportedError(f"attention_op={attention_op!r} names an operator of xFormers, which is for CUDA: leave it out.")
        self.set_processor(AttnAddedKVProcessor2_0() if self.added_kv_proj_dim is not None else self._stock_processor())

    def set_attention_slice(self, slice_size: int | None) -> None:
        """Compute so many heads at a time, which needs less memory; None for all at once.

        Raises:
            ValueError: more than there are.
        """
        if slice_size is not None and slice_size > self.sliceable_head_dim:
            raise ValueError(f"slice_size is {slice_size}, but the attention has {self.sliceable_head_dim} heads.")
        added = self.added_kv_proj_dim is not None
        if slice_size is not None:
            self.set_processor(SlicedAttnAddedKVProcessor(slice_size) if added else SlicedAttnProcessor(slice_size))
        else:
            self.set_processor(AttnAddedKVProcessor() if added else self._stock_processor())

    def construct(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """
        Args:
            hidden_states: (batch, tokens, query_dim) or (batch, query_dim, height, width); the output has the same shape.
            encoder_hidden_states: the context, (batch, keys, channels). Default: `hidden_states`.
            attention_mask: added to the scores; (batch, 1 or tokens, keys) or (batch * heads, 1 or tokens, keys).
        """
        if self.processor_arguments is not None:
            taken = {}
            for name in self.processor_arguments:
                if name in kwargs:
                    taken[name] = kwargs[name]
            kwargs = taken
        return self.processor(self, hidden_states, encoder_hidden_states=encoder_hidden_states, attention_mask=attention_mask, **kwargs)

    # Pieces for processors

    def normed_tokens(self, hidden_states: Tensor) -> Tensor:
        """`hidden_states` as (batch, tokens, channels), group-normalised if there is a `group_norm`."""
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.reshape(hidden_states.shape[:2] + (-1,))
            if self.group_norm is not None:
                hidden_states = self.group_norm(hidden_states)
            return hidden_states.swapaxes(1, 2)
        if self.group_norm is not None:
            hidden_states = self.group_norm(hidden_states.swapaxes(1, 2)).swapaxes(1, 2)
        return hidden_states

    def norm_encoder_hidden_states(self, encoder_hidden_states: Tensor) -> Tensor:
        """The context through `norm_cross`, if there is one."""
        if self.cross_attention_norm == "layer_norm":
            return self.norm_cross(encoder_hidden_states)
        if self.cross_attention_norm == "group_norm":
            return self.norm_cross(encoder_hidden_states.swapaxes(1, 2)).swapaxes(1, 2)
        return encoder_hidden_states

    def split_heads(self, tensor: Tensor) -> Tensor:
        """(batch, tokens, heads * size) to (batch, tokens, heads, size), for as many heads as there are."""
        batch, tokens, channels = tensor.shape
        size = self.inner_dim // self.heads
        return tensor.reshape((batch, tokens, channels // size, size))

    def project_out(self, attended: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(batch, tokens, heads, size) through the output projection, in `shape`: (batch, tokens, channels) or an image's."""
        output = self.to_out[0](attended.reshape(attended.shape[:2] + (-1,)))
        output = self.to_out[1](output)
        if len(shape) == 4:
            output = output.swapaxes(1, 2).reshape((shape[0], -1) + shape[2:])
        return output

    def head_to_batch_dim(self, tensor: Tensor, out_dim: int = 3) -> Tensor:
        """(batch, tokens, heads * size) to (batch * heads, tokens, size), or with `out_dim=4` to (batch, heads, tokens, size)."""
        tensor = tensor.reshape((tensor.shape[0], -1, self.heads, tensor.shape[-1] // self.heads)).transpose((0, 2, 1, 3))
        return tensor.reshape((-1,) + tensor.shape[2:]) if out_dim == 3 else tensor

    def batch_to_head_dim(self, tensor: Tensor) -> Tensor:
        """(batch * heads, tokens, size) to (batch, tokens, heads * size)."""
        tokens, size = tensor.shape[1:]
        tensor = tensor.reshape((-1, self.heads, tokens, size)).transpose((0, 2, 1, 3))
        return tensor.reshape((-1, tokens, self.heads * size))

    def get_attention_scores(self, query: Tensor, key: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """softmax(query key^T * scale + mask), for three or four dimensions, in the query's dtype."""
        dtype = query.dtype
        if self.upcast_attention:
            query, key = query.astype(ms.float32), key.astype(ms.float32)
        scores = F.bmm(query * self.scale, key, transpose_b=True)
        if attention_mask is not None:
            scores = scores + attention_mask
        if self.upcast_softmax:
            scores = scores.astype(ms.float32)
        return F.softmax(scores, -1).astype(dtype)

    def prepare_attention_mask(self, attention_mask: Tensor | None, target_length: int, batch_size: int, out_dim: int = 3) -> Tensor | None:
        """The mask for (batch * heads, queries, keys) scores, or with `out_dim=4` for (batch, heads, queries, keys).

        One that is not `target_length` long gets so many zeros at its end: it covers the context, and all of `hidden_states` follows.
        """
        attention_mask = self.broadcast_mask(attention_mask, target_length, batch_size)
        if attention_mask is None:
            return None
        queries, keys = attention_mask.shape[2:]
        attention_mask = attention_mask.broadcast_to((batch_size, self.heads, queries, keys))
        return attention_mask.reshape((-1, queries, keys)) if out_dim == 3 else attention_mask

    def broadcast_mask(self, attention_mask: Tensor | None, target_length: int, batch_size: int) -> Tensor | None:
        """As `prepare_attention_mask`, in four dimensions that broadcast: (batch, 1 or heads, 1 or queries, keys)."""
        if attention_mask is None:
            return None
        if attention_mask.shape[-1] != target_length:
            attention_mask = F.pad(attention_mask, (0, target_length))
        heads = self.heads if attention_mask.shape[0] >= batch_size * self.heads else 1
        return attention_mask.reshape((-1, heads) + attention_mask.shape[1:])


def _query_key_norms(kind: str | None, dim_head: int, query: int, key: int, eps: float, affine: bool) -> tuple:
    if kind is None:
        return None, None
    if kind == "layer_norm":
        return nn.LayerNorm(dim_head, eps, affine), nn.LayerNorm(dim_head, eps, affine)
    if kind == "fp32_layer_norm":
        return FP32LayerNorm(dim_head, eps, False), FP32LayerNorm(dim_head, eps, False)
    if kind == "layer_norm_across_heads":
        return nn.LayerNorm(query, eps), nn.LayerNorm(key, eps)
    if kind == "rms_norm":
        return nn.RMSNorm(dim_head, eps, affine), nn.RMSNorm(dim_head, eps, affine)
    if kind == "rms_norm_across_heads":
        return nn.RMSNorm(query, eps), nn.RMSNorm(key, eps)
    if kind == "l2":
        return LpNorm(eps=eps), LpNorm(eps=eps)
    raise ConfigError(
        f"Unknown qk_norm {kind!r}: expected None, 'layer_norm', 'fp32_layer_norm', 'layer_norm_across_heads', 'rms_norm', "
        "'rms_norm_across_heads' or 'l2'."
    )


# Processors: a way to project (plain or with an added context), to (batch, tokens, heads, size), and a way to attend (fused, explicit or
# sliced), which gives the same


class _PlainProjection:
    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        tokens = attn.normed_tokens(hidden_states)
        context = None if encoder_hidden_states is None else attn.norm_encoder_hidden_states(encoder_hidden_states)
        query, key, value = self.project(attn, tokens, context)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        mask = attn.broadcast_mask(attention_mask, key.shape[1], key.shape[0])
        output = attn.project_out(self.attend(attn, query, key, value, mask), residual.shape)
        if attn.residual_connection:
            output = output + residual
        return output if attn.rescale_output_factor == 1 else output / attn.rescale_output_factor

    def project(self, attn: Attention, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value by heads, the latter two of the context, or without one of the tokens."""
        if context is None:
            context = tokens
        return attn.split_heads(attn.to_q(tokens)), attn.split_heads(attn.to_k(context)), attn.split_heads(attn.to_v(context))


class _JoinedProjection(_PlainProjection):
    """One product for the projections that have the same input. The weights stay apart and are joined at each call, which leaves
    checkpoints, training and adapters as they are."""

    def project(self, attn: Attention, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        heads = attn.inner_kv_dim * attn.heads // attn.inner_dim
        if context is None:
            return F.split(attn.split_heads(_joined(tokens, attn.to_q, attn.to_k, attn.to_v)), (attn.heads, heads, heads), 2)
        key, value = F.split(attn.split_heads(_joined(context, attn.to_k, attn.to_v)), (heads, heads), 2)
        return attn.split_heads(attn.to_q(tokens)), key, value


def _joined(input: Tensor, *layers: nn.Linear) -> Tensor:
    weights, biases = (), ()
    for layer in layers:
        weights += (layer.weight,)
        if layer.bias is not None:
            biases += (layer.bias,)
    return F.linear(input, F.cat(weights, 0), F.cat(biases, 0) if biases else None)


class _AddedProjection:
    """The context has its own projections; its keys and values come before those of `hidden_states` (b, channels, height, width)."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        tokens = attn.normed_tokens(hidden_states)
        if encoder_hidden_states is None:
            context = hidden_states.reshape(hidden_states.shape[:2] + (-1,)).swapaxes(1, 2)
        else:
            context = attn.norm_encoder_hidden_states(encoder_hidden_states)
        query = attn.split_heads(attn.to_q(tokens))
        key = attn.split_heads(attn.add_k_proj(context))
        value = attn.split_heads(attn.add_v_proj(context))
        if not attn.only_cross_attention:
            key = F.cat((key, attn.split_heads(attn.to_k(tokens))), 1)
            value = F.cat((value, attn.split_heads(attn.to_v(tokens))), 1)
        mask = attn.broadcast_mask(attention_mask, tokens.shape[1], tokens.shape[0])
        return attn.project_out(self.attend(attn, query, key, value, mask), hidden_states.shape) + hidden_states


class _Fused:
    """All in one `scaled_dot_product_attention`, by the attention's `attention_backend`."""

    def attend(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        precision = None if attn.upcast_attention else attn.to_q.weight.dtype
        return F.scaled_dot_product_attention(
            query, key, value, mask, scale=attn.scale, backend=attn.attention_backend, layout="BSND", precision=precision
        )


class _Explicit:
    """Two products and a softmax, in the dtypes the attention asks for."""

    def attend(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = swap_heads_and_tokens(query, key, value)
        return F.bmm(attn.get_attention_scores(query, key, mask), value).swapaxes(1, 2)


class _Sliced:
    """As `_Explicit`, `slice_size` heads at a time, counted over the batch."""

    def __init__(self, slice_size: int):
        self.slice_size = slice_size

    def attend(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = swap_heads_and_tokens(query, key, value)
        shape = query.shape
        query, key, value = query.reshape((-1,) + shape[2:]), key.reshape((-1,) + key.shape[2:]), value.reshape((-1,) + value.shape[2:])
        if mask is not None:
            mask = mask.broadcast_to(shape[:2] + mask.shape[2:]).reshape((-1,) + mask.shape[2:])
        outputs = ()
        for start in range(0, query.shape[0], self.slice_size):
            stop = min(start + self.slice_size, query.shape[0])
            part = None if mask is None else mask[start:stop]
            outputs += (F.bmm(attn.get_attention_scores(query[start:stop], key[start:stop], part), value[start:stop]),)
        return F.cat(outputs, 0).reshape(shape).swapaxes(1, 2)


class _Perturbed(_Fused):
    """Of the last of `parts` equal parts of the batch each token attends to itself alone (arXiv:2403.17377)."""

    parts: int

    def attend(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        rows = query.shape[0] - query.shape[0] // self.parts
        mask = None if mask is None else mask[:rows]
        return F.cat((_Fused.attend(self, attn, query[:rows], key[:rows], value[:rows], mask), value[rows:]), 0)


class AttnProcessor(_PlainProjection, _Explicit):
    """Attention step by step, honouring `upcast_attention` and `upcast_softmax`."""


class AttnProcessor2_0(_PlainProjection, _Fused):
    """The default: the backend's fused attention."""


class FusedAttnProcessor2_0(_JoinedProjection, _Fused):
    """`AttnProcessor2_0` with one product for query, key and value, or with a context one for key and value."""


class SlicedAttnProcessor(_PlainProjection, _Sliced):
    """`AttnProcessor` in slices of `slice_size` heads."""


class AttnAddedKVProcessor(_AddedProjection, _Explicit):
    """`AttnProcessor` with the projections `add_k_proj` and `add_v_proj` of the context."""


class AttnAddedKVProcessor2_0(_AddedProjection, _Fused):
    """`AttnProcessor2_0` with the projections `add_k_proj` and `add_v_proj` of the context."""


class SlicedAttnAddedKVProcessor(_AddedProjection, _Sliced):
    """`AttnAddedKVProcessor` in slices of `slice_size` heads."""


class PAGIdentitySelfAttnProcessor2_0(_PlainProjection, _Perturbed):
    """Self-attention for perturbed attention guidance alone: of the predictions with the prompt, then the perturbed ones."""

    parts = 2


class PAGCFGIdentitySelfAttnProcessor2_0(_PlainProjection, _Perturbed):
    """The same with classifier-free guidance: of the predictions without the prompt, with it, and perturbed."""

    parts = 3


ADDED_KV_ATTENTION_PROCESSORS = (AttnAddedKVProcessor, SlicedAttnAddedKVProcessor, AttnAddedKVProcessor2_0)
CROSS_ATTENTION_PROCESSORS = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor)


class AttentionMixin:
    """For models: reading and setting the processors of all their attentions."""

    original_attn_processors: dict[str, Any] | None = None

    def _attentions(self) -> dict[str, Attention]:
        return {f"{name}.processor": cell for name, cell in self.cells_and_names() if isinstance(cell, Attention)}

    @property
    def attn_processors(self) -> dict[str, Any]:
        """Processors by name: the attention's name and ".processor"."""
        return {name: attention.processor for name, attention in self._attentions().items()}

    def set_attn_processor(self, processor: Any) -> None:
        """Set one processor for all attentions, or a dictionary of one for each, named as in `attn_processors`.

        Raises:
            ValueError: the dictionary's names are not the attentions'.
        """
        attentions = self._attentions()
        if not isinstance(processor, Mapping):
            processor = dict.fromkeys(attentions, processor)
        elif processor.keys() != attentions.keys():
            odd = sorted(processor.keys() ^ attentions.keys())
            raise ValueError(f"{len(processor)} processors for {len(attentions)} attentions; missing or unknown names: {odd}.")
        for name, attention in attentions.items():
            attention.set_processor(processor[name])
        self._recompile()

    @contextmanager
    def replaced_attn_processors(self, processors: Mapping[str, Any]) -> Iterator[None]:
        """Meanwhile, these processors in the attentions of these names, as in `attn_processors`. Graphs compiled with them are kept for
        the next time."""
        attentions, original, variant = self._attentions(), self.attn_processors, self._variant
        self._switch_variant(variant + tuple(processors.items()))
        try:
            for name, processor in processors.items():
                attentions[name].set_processor(processor)
            yield
        finally:
            for name in processors:
                attentions[name].set_processor(original[name])
            self._switch_variant(variant)

    def set_default_attn_processor(self) -> None:
        """`AttnProcessor`, or `AttnAddedKVProcessor` for attentions with added projections, everywhere.

        Raises:
            ValueError: there are processors of other kinds, or both kinds.
        """
        kinds = {type(processor) for processor in self.attn_processors.values()}
        if kinds <= set(ADDED_KV_ATTENTION_PROCESSORS):
            self.set_attn_processor(AttnAddedKVProcessor())
        elif kinds <= set(CROSS_ATTENTION_PROCESSORS):
            self.set_attn_processor(AttnProcessor())
        else:
            names = sorted(kind.__name__ for kind in kinds)
            raise ValueError(f"set_default_attn_processor cannot choose for {names}: call set_attn_processor.")

    def set_attention_slice(self, slice_size: str | int | list[int | None] | None = "auto") -> None:
        """Compute attention in slices of heads, which needs less memory.

        Args:
            slice_size: "auto" for half of the heads at a time, "max" for one, a number, a list of one for each attention, or None for all.

        Raises:
            ValueError: a list of another length, or more heads than there are.
        """
        attentions = list(self._attentions().values())
        if slice_size == "auto":
            slice_size = [max(attention.sliceable_head_dim // 2, 1) for attention in attentions]
        elif not isinstance(slice_size, list):
            slice_size = [1 if slice_size == "max" else slice_size] * len(attentions)
        if len(slice_size) != len(attentions):
            raise ValueError(f"slice_size has {len(slice_size)} entries, but there are {len(attentions)} attentions.")
        for size, attention in zip(slice_size, attentions):
            if size is not None and size > attention.sliceable_head_dim:
                raise ValueError(f"slice_size is {size}, but an attention has {attention.sliceable_head_dim} heads.")
        for size, attention in zip(slice_size, attentions):
            attention.set_attention_slice(size)
        self._recompile()

    def fuse_qkv_projections(self) -> None:
        """From now on one product for query, key and value of each self-attention, one for key and value of each attention to a context.

        The parameters stay as they are, so that the model is saved, loaded and trained as before.

        Raises:
            ValueError: there are attentions with added projections.
        """
        added = {name for name in (type(processor).__name__ for processor in self.attn_processors.values()) if "Added" in name}
        if added:
            raise ValueError(f"fuse_qkv_projections is not for attentions with added projections, which have {', '.join(sorted(added))}.")
        if self.original_attn_processors is None:
            self.original_attn_processors = self.attn_processors
        self.set_attn_processor(FusedAttnProcessor2_0())

    def unfuse_qkv_projections(self) -> None:
        """Back to the processors from before `fuse_qkv_projections`, if that was called."""
        if self.original_attn_processors is not None:
            self.set_attn_processor(self.original_attn_processors)
            self.original_attn_processors = None


# Transformer blocks


class FeedForward(nn.Module):
    """A linear layer with an activation to `mult * dim` (or `inner_dim`), and one to `dim_out`.

    `activation_fn` is "gelu", "gelu-approximate", "geglu", "geglu-approximate", "swiglu" or "linear-silu".
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        mult: int = 4,
        dropout: float = 0.0,
        activation_fn: str = "geglu",
        final_dropout: bool = False,
        inner_dim: int | None = None,
        bias: bool = True,
    ):
        super().__init__()
        inner_dim = inner_dim or int(dim * mult)
        if activation_fn in ("gelu", "gelu-approximate"):
            activation = GELU(dim, inner_dim, "none" if activation_fn == "gelu" else "tanh", bias)
        elif activation_fn == "geglu":
            activation = GEGLU(dim, inner_dim, bias)
        elif activation_fn == "geglu-approximate":
            activation = ApproximateGELU(dim, inner_dim, bias)
        elif activation_fn == "swiglu":
            activation = SwiGLU(dim, inner_dim, bias)
        elif activation_fn == "linear-silu":
            activation = LinearActivation(dim, inner_dim, bias, "silu")
        else:
            raise ConfigError(
                f"Unknown activation_fn {activation_fn!r}: expected 'gelu', 'gelu-approximate', 'geglu', 'geglu-approximate', 'swiglu' or "
                "'linear-silu'."
            )
        layers = [activation, nn.Dropout(dropout), nn.Linear(inner_dim, dim_out or dim, bias)]
        self.net = nn.ModuleList(layers + [nn.Dropout(dropout)] if final_dropout else layers)

    def construct(self, hidden_states: Tensor) -> Tensor:
        for layer in self.net:
            hidden_states = layer(hidden_states)
        return hidden_states


class GatedSelfAttentionDense(nn.Module):
    """GLIGEN's layer (arXiv:2301.07093): tokens attend to themselves and to grounding objects, through gates that start at zero."""

    def __init__(self, query_dim: int, context_dim: int, n_heads: int, d_head: int):
        super().__init__()
        self.linear = nn.Linear(context_dim, query_dim)
        self.attn = Attention(query_dim, heads=n_heads, dim_head=d_head)
        self.ff = FeedForward(query_dim)
        self.norm1 = nn.LayerNorm(query_dim)
        self.norm2 = nn.LayerNorm(query_dim)
        self.alpha_attn = nn.Parameter(())
        self.alpha_dense = nn.Parameter(())
        self.enabled = True

    def construct(self, x: Tensor, objs: Tensor) -> Tensor:
        if not self.enabled:
            return x
        seen = self.attn(self.norm1(F.cat((x, self.linear(objs)), 1)))
        x = x + F.tanh(self.alpha_attn) * seen[:, : x.shape[1]]
        return x + F.tanh(self.alpha_dense) * self.ff(self.norm2(x))


_NORM_TYPES = ("layer_norm", "layer_norm_i2vgen", "ada_norm", "ada_norm_zero", "ada_norm_single", "ada_norm_continuous")


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to a context, feed-forward; each after a normalisation and added to its input.

    Args:
        dim, num_attention_heads, attention_head_dim: channels; number and size of the heads.
        cross_attention_dim: channels of the context; None leaves the second attention out.
        activation_fn: see `FeedForward`, as for `final_dropout`, `ff_inner_dim`, `ff_bias`.
        num_embeds_ada_norm: timesteps in the table of "ada_norm" and "ada_norm_zero".
        only_cross_attention: the first attention is to the context as well.
        double_self_attention: the second attention is to the tokens themselves as well.
        norm_type: "layer_norm"; "layer_norm_i2vgen" (none before the feed-forward); "ada_norm", "ada_norm_zero" (by timestep, and class);
            "ada_norm_single" (PixArt, arXiv:2310.00426); "ada_norm_continuous" (by `added_cond_kwargs["pooled_text_emb"]`).
        attention_type: "default"; "gated" or "gated-text-image" for GLIGEN, with `cross_attention_kwargs["gligen"]["objs"]`.
        positional_embeddings: "sinusoidal" for those of `num_positional_embeddings` positions, before each attention.

    Raises:
        ConfigError: an unknown `norm_type`, or one without what it needs.
    """

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        dropout: float = 0.0,
        cross_attention_dim: int | None = None,
        activation_fn: str = "geglu",
        num_embeds_ada_norm: int | None = None,
        attention_bias: bool = False,
        only_cross_attention: bool = False,
        double_self_attention: bool = False,
        upcast_attention: bool = False,
        norm_elementwise_affine: bool = True,
        norm_type: str = "layer_norm",
        norm_eps: float = 1e-5,
        final_dropout: bool = False,
        attention_type: str = "default",
        positional_embeddings: str | None = None,
        num_positional_embeddings: int | None = None,
        ada_norm_continous_conditioning_embedding_dim: int | None = None,
        ada_norm_bias: bool | None = None,
        ff_inner_dim: int | None = None,
        ff_bias: bool = True,
        attention_out_bias: bool = True,
    ):
        super().__init__()
        if norm_type not in _NORM_TYPES:
            raise ConfigError(f"Unknown norm_type {norm_type!r}: expected one of {', '.join(_NORM_TYPES)}.")
        if norm_type in ("ada_norm", "ada_norm_zero") and num_embeds_ada_norm is None:
            raise ConfigError(f"norm_type={norm_type!r} needs num_embeds_ada_norm, the number of timesteps.")
        if positional_embeddings is not None and num_positional_embeddings is None:
            raise ConfigError("positional_embeddings needs num_positional_embeddings.")
        self.norm_type = norm_type
        self.only_cross_attention = only_cross_attention
        self.pos_embed = None
        if positional_embeddings == "sinusoidal":
            self.pos_embed = SinusoidalPositionalEmbedding(dim, num_positional_embeddings)

        def norm(adaptive: tuple[str, ...], continuous: str) -> nn.Module:
            """The block's kind of norm if it is among `adaptive`, else layer normalisation."""
            if norm_type not in adaptive:
                return nn.LayerNorm(dim, norm_eps, norm_elementwise_affine)
            if norm_type == "ada_norm":
                return AdaLayerNorm(dim, num_embeds_ada_norm)
            if norm_type == "ada_norm_zero":
                return AdaLayerNormZero(dim, num_embeds_ada_norm)
            conditioning = ada_norm_continous_conditioning_embedding_dim
            return AdaLayerNormContinuous(dim, conditioning, norm_elementwise_affine, norm_eps, ada_norm_bias, continuous)

        attention = {
            "query_dim": dim, "heads": num_attention_heads, "dim_head": attention_head_dim, "dropout": dropout, "bias": attention_bias,
            "upcast_attention": upcast_attention, "out_bias": attention_out_bias,
        }  # fmt: skip
        self.norm1 = norm(("ada_norm", "ada_norm_zero", "ada_norm_continuous"), "rms_norm")
        self.attn1 = Attention(cross_attention_dim=cross_attention_dim if only_cross_attention else None, **attention)
        self.norm2 = self.attn2 = self.norm3 = None
        has_second = cross_attention_dim is not None or double_self_attention
        if has_second or norm_type == "ada_norm_single":
            self.norm2 = norm(("ada_norm", "ada_norm_continuous"), "rms_norm")
        if has_second:
            self.attn2 = Attention(cross_attention_dim=None if double_self_attention else cross_attention_dim, **attention)
        if norm_type not in ("layer_norm_i2vgen", "ada_norm_single"):
            self.norm3 = norm(("ada_norm_continuous",), "layer_norm")
        self.ff = FeedForward(
            dim, dropout=dropout, activation_fn=activation_fn, final_dropout=final_dropout, inner_dim=ff_inner_dim, bias=ff_bias
        )
        self.fuser = None
        if attention_type in ("gated", "gated-text-image"):
            self.fuser = GatedSelfAttentionDense(dim, cross_attention_dim, num_attention_heads, attention_head_dim)
        if norm_type == "ada_norm_single":
            self.scale_shift_table = nn.Parameter((6, dim), lambda rng, shape: rng.standard_normal(shape) / math.sqrt(dim))

    def construct(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """`hidden_states` is (batch, tokens, dim); for the others see `Attention` and `norm_type`."""
        kwargs = {} if cross_attention_kwargs is None else cross_attention_kwargs
        pooled = added_cond_kwargs["pooled_text_emb"] if self.norm_type == "ada_norm_continuous" else None
        gate = mlp_shift = mlp_scale = mlp_gate = None
        if self.norm_type == "ada_norm":
            normed = self.norm1(hidden_states, timestep)
        elif self.norm_type == "ada_norm_continuous":
            normed = self.norm1(hidden_states, pooled)
        elif self.norm_type == "ada_norm_zero":
            normed, gate, mlp_shift, mlp_scale, mlp_gate = self.norm1(hidden_states, timestep, class_labels)
        elif self.norm_type == "ada_norm_single":
            table = self.scale_shift_table.expand_dims(0) + timestep.reshape((hidden_states.shape[0], 6, -1))
            shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = F.chunk(table, 6, 1)
            normed = self.norm1(hidden_states) * (1 + scale) + shift
        else:
            normed = self.norm1(hidden_states)
        if self.pos_embed is not None:
            normed = self.pos_embed(normed)
        context = encoder_hidden_states if self.only_cross_attention else None
        attended = self.attn1(normed, encoder_hidden_states=context, attention_mask=attention_mask, **kwargs)
        hidden_states = hidden_states + (attended if gate is None else gate * attended)
        if self.fuser is not None and "gligen" in kwargs:
            hidden_states = self.fuser(hidden_states, kwargs["gligen"]["objs"])

        if self.attn2 is not None:
            if self.norm_type == "ada_norm":
                normed = self.norm2(hidden_states, timestep)
            elif self.norm_type == "ada_norm_continuous":
                normed = self.norm2(hidden_states, pooled)
            elif self.norm_type == "ada_norm_single":
                normed = hidden_states
            else:
                normed = self.norm2(hidden_states)
            if self.pos_embed is not None and self.norm_type != "ada_norm_single":
                normed = self.pos_embed(normed)
            hidden_states = hidden_states + self.attn2(
                normed, encoder_hidden_states=encoder_hidden_states, attention_mask=encoder_attention_mask, **kwargs
            )

        if self.norm_type == "ada_norm_continuous":
            normed = self.norm3(hidden_states, pooled)
        elif self.norm_type == "ada_norm_single":
            normed = self.norm2(hidden_states)
        elif self.norm3 is not None:
            normed = self.norm3(hidden_states)
        else:
            normed = hidden_states
        if mlp_scale is not None:
            normed = normed * (1 + mlp_scale) + mlp_shift
        output = self.ff(normed)
        return hidden_states + (output if mlp_gate is None else mlp_gate * output)


def transformer_blocks(config: Mapping[str, Any], **others: Any) -> nn.ModuleList:
    """`num_layers` blocks, with what a model's config says of them, but for `others`."""
    named = {name: config[name] for name in inspect.signature(BasicTransformerBlock.__init__).parameters if name in config}
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return nn.ModuleList([BasicTransformerBlock(width, **named | others) for _ in range(config["num_layers"])])
