"""Activation functions by name, and linear layers that end in one."""

from mindspore import Tensor

from .. import nn
from ..core.errors import ConfigError
from ..nn import functional as F

_ACTIVATIONS = {"swish": nn.SiLU, "silu": nn.SiLU, "mish": nn.Mish, "gelu": nn.GELU, "relu": nn.ReLU}


def get_activation(act_fn: str) -> nn.Module:
    """The activation named "swish" or "silu", "mish", "gelu" or "relu", in any case.

    Raises:
        ConfigError: for another name.
    """
    if act_fn.lower() not in _ACTIVATIONS:
        raise ConfigError(f"Unknown activation function {act_fn!r}: expected one of {sorted(_ACTIVATIONS)}.")
    return _ACTIVATIONS[act_fn.lower()]()


def quick_gelu(input: Tensor) -> Tensor:
    """x sigmoid(1.702 x), an approximation of GELU (arXiv:1606.08415)."""
    return input * F.sigmoid(1.702 * input)


class GELU(nn.Module):
    """`gelu(x W + b)` (arXiv:1606.08415); `approximate` is "none" or "tanh"."""

    def __init__(self, dim_in: int, dim_out: int, approximate: str = "none", bias: bool = True):
        super().__init__()
        self.proj = nn.Linear(dim_in, dim_out, bias=bias)
        self.approximate = approximate

    def construct(self, hidden_states: Tensor) -> Tensor:
        return F.gelu(self.proj(hidden_states), self.approximate)


class GEGLU(nn.Module):
    """A linear map to twice `dim_out`; one half, gated by the GELU of the other (arXiv:2002.05202)."""

    def __init__(self, dim_in: int, dim_out: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Linear(dim_in, dim_out * 2, bias=bias)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return F.geglu(self.proj(hidden_states))


class SwiGLU(nn.Module):
    """As `GEGLU`, with SiLU for GELU (arXiv:2002.05202)."""

    def __init__(self, dim_in: int, dim_out: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Linear(dim_in, dim_out * 2, bias=bias)

    def construct(self, hidden_states: Tensor) -> Tensor:
        hidden_states, gate = F.chunk(self.proj(hidden_states), 2, -1)
        return hidden_states * F.silu(gate)


class ApproximateGELU(nn.Module):
    """`y sigmoid(1.702 y)` with `y = x W + b` (arXiv:1606.08415, section 2)."""

    def __init__(self, dim_in: int, dim_out: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Linear(dim_in, dim_out, bias=bias)

    def construct(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.proj(hidden_states)
        return hidden_states * F.sigmoid(1.702 * hidden_states)


class LinearActivation(nn.Module):
    """A linear layer and the activation of that name."""

    def __init__(self, dim_in: int, dim_out: int, bias: bool = True, activation: str = "silu"):
        super().__init__()
        self.proj = nn.Linear(dim_in, dim_out, bias=bias)
        self.activation = get_activation(activation)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return self.activation(self.proj(hidden_states))
