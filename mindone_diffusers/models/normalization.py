"""Normalisations whose scale and shift depend on a condition (FiLM, arXiv:1709.07871; adaLN, arXiv:2212.09748)."""

import mindspore as ms
from mindspore import Tensor

from .. import nn
from ..core.errors import ConfigError
from ..nn import functional as F
from .activations import get_activation
from .embeddings import CombinedTimestepLabelEmbeddings


class ChannelNorm(nn.Module):
    """Layer or root-mean-square normalisation over the channels of (batch, channels, height, width).

    `norm_type` is "ln_norm" or "rms_norm". The parameters are named as if this were the normalisation itself.
    """

    def __init__(self, norm_type: str, channels: int, eps: float, elementwise_affine: bool):
        super().__init__()
        if norm_type not in ("ln_norm", "rms_norm"):
            raise ConfigError(f"Unknown norm_type {norm_type!r}: expected 'ln_norm', 'rms_norm' or None.")
        self.centred = norm_type == "ln_norm"
        norm = nn.LayerNorm(channels, eps, elementwise_affine) if self.centred else nn.RMSNorm(channels, eps, elementwise_affine)
        self.eps = eps
        self.weight = norm.weight
        self.bias = norm.bias if self.centred else None

    def construct(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states.transpose((0, 2, 3, 1))
        if self.centred:
            hidden_states = F.layer_norm(hidden_states, hidden_states.shape[-1], self.weight, self.bias, self.eps)
        else:
            hidden_states = F.rms_norm(hidden_states, hidden_states.shape[-1], self.weight, self.eps)
        return hidden_states.transpose((0, 3, 1, 2))


class FP32LayerNorm(nn.LayerNorm):
    """Layer normalisation computed in float32, whatever the input's dtype."""

    def construct(self, input: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.astype(ms.float32)
        bias = None if self.bias is None else self.bias.astype(ms.float32)
        return F.layer_norm(input.astype(ms.float32), self.normalized_shape, weight, bias, self.eps).astype(input.dtype)


class LpNorm(nn.Module):
    """Divide by the Euclidean norm along `dim`."""

    def __init__(self, p: int = 2, dim: int = -1, eps: float = 1e-12):
        super().__init__()
        self.p, self.dim, self.eps = p, dim, eps

    def construct(self, hidden_states: Tensor) -> Tensor:
        return F.normalize(hidden_states, self.p, self.dim, self.eps)


class SpatialNorm(nn.Module):
    """Group normalisation scaled and shifted by maps made from `zq`, resized to fit (MoVQ, arXiv:2209.09002)."""

    def __init__(self, f_channels: int, zq_channels: int):
        super().__init__()
        self.norm_layer = nn.GroupNorm(32, f_channels, eps=1e-6)
        self.conv_y = nn.Conv2d(zq_channels, f_channels, 1)
        self.conv_b = nn.Conv2d(zq_channels, f_channels, 1)

    def construct(self, f: Tensor, zq: Tensor) -> Tensor:
        zq = F.interpolate(zq, size=f.shape[-2:], mode="nearest")
        return self.norm_layer(f) * self.conv_y(zq) + self.conv_b(zq)


class AdaGroupNorm(nn.Module):
    """Group normalisation of (batch, out_dim, height, width), scaled and shifted by a linear map of `emb` (batch, embedding_dim)."""

    def __init__(self, embedding_dim: int, out_dim: int, num_groups: int, act_fn: str | None = None, eps: float = 1e-5):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.act = None if act_fn is None else get_activation(act_fn)
        self.linear = nn.Linear(embedding_dim, out_dim * 2)

    def construct(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.act is not None:
            emb = self.act(emb)
        scale, shift = F.chunk(self.linear(emb).expand_dims(-1).expand_dims(-1), 2, 1)
        return F.group_norm(x, self.num_groups, eps=self.eps) * (1 + scale) + shift


class AdaLayerNorm(nn.Module):
    """Layer normalisation of (batch, tokens, size), scaled and shifted by a linear map of an embedding.

    Args:
        embedding_dim: size of the embedding.
        num_embeddings: look the embedding up in a table of so many, by `timestep`; None takes it as `temb`.
        output_dim: of the linear map, twice the size of `x`. Default: twice `embedding_dim`.
        chunk_dim: 0 for one timestep for the whole batch (scale comes first), 1 for one each (shift comes first).
    """

    def __init__(
        self,
        embedding_dim: int,
        num_embeddings: int | None = None,
        output_dim: int | None = None,
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-5,
        chunk_dim: int = 0,
    ):
        super().__init__()
        output_dim = output_dim or embedding_dim * 2
        self.chunk_dim = chunk_dim
        self.emb = None if num_embeddings is None else nn.Embedding(num_embeddings, embedding_dim)
        self.linear = nn.Linear(embedding_dim, output_dim)
        self.norm = nn.LayerNorm(output_dim // 2, norm_eps, norm_elementwise_affine)

    def construct(self, x: Tensor, timestep: Tensor | None = None, temb: Tensor | None = None) -> Tensor:
        if self.emb is not None:
            temb = self.emb(timestep)
        temb = self.linear(F.silu(temb))
        if self.chunk_dim == 1:
            shift, scale = F.chunk(temb.expand_dims(1), 2, 2)
        else:
            scale, shift = F.chunk(temb, 2, -1)
        return self.norm(x) * (1 + scale) + shift


class AdaLayerNormZero(nn.Module):
    """adaLN-Zero of DiT (arXiv:2212.09748): six maps of the embedding scale, shift and gate an attention and a feed-forward.

    Returns the normalised `x`, then the attention's gate and the feed-forward's shift, scale and gate, each (batch, 1, embedding_dim).
    """

    def __init__(self, embedding_dim: int, num_embeddings: int | None = None, norm_type: str = "layer_norm", bias: bool = True):
        super().__init__()
        self.emb = None if num_embeddings is None else CombinedTimestepLabelEmbeddings(num_embeddings, embedding_dim)
        self.linear = nn.Linear(embedding_dim, 6 * embedding_dim, bias=bias)
        if norm_type == "layer_norm":
            self.norm = nn.LayerNorm(embedding_dim, eps=1e-6, elementwise_affine=False)
        elif norm_type == "fp32_layer_norm":
            self.norm = FP32LayerNorm(embedding_dim, elementwise_affine=False)
        else:
            raise ConfigError(f"Unknown norm_type {norm_type!r}: expected 'layer_norm' or 'fp32_layer_norm'.")

    def construct(
        self, x: Tensor, timestep: Tensor | None = None, class_labels: Tensor | None = None, emb: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        if self.emb is not None:
            emb = self.emb(timestep, class_labels, x.dtype)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = F.chunk(self.linear(F.silu(emb)).expand_dims(1), 6, 2)
        x = self.norm(x) * (1 + scale) + shift
        return x, gate, mlp_shift, mlp_scale, mlp_gate


class AdaLayerNormContinuous(nn.Module):
    """Normalisation of (batch, tokens, size), scaled and shifted by a linear map of a (batch, conditioning size) embedding.

    `norm_type` is "layer_norm" or "rms_norm".
    """

    def __init__(
        self,
        embedding_dim: int,
        conditioning_embedding_dim: int,
        elementwise_affine: bool = True,
        eps: float = 1e-5,
        bias: bool = True,
        norm_type: str = "layer_norm",
    ):
        super().__init__()
        self.linear = nn.Linear(conditioning_embedding_dim, embedding_dim * 2, bias=bias)
        if norm_type == "layer_norm":
            self.norm = nn.LayerNorm(embedding_dim, eps, elementwise_affine, bias)
        elif norm_type == "rms_norm":
            self.norm = nn.RMSNorm(embedding_dim, eps, elementwise_affine)
        else:
            raise ConfigError(f"Unknown norm_type {norm_type!r}: expected 'layer_norm' or 'rms_norm'.")

    def construct(self, x: Tensor, conditioning_embedding: Tensor) -> Tensor:
        emb = self.linear(F.silu(conditioning_embedding).astype(x.dtype)).expand_dims(1)
        scale, shift = F.chunk(emb, 2, 2)
        return self.norm(x) * (1 + scale) + shift
