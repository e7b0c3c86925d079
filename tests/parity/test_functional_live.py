"""Every function of `nn.functional` and every layer of `nn` against PyTorch: values, graph mode and gradients."""

import inspect
import subprocess
import sys
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers  # noqa: F401  (CPU tuning)
from mindone_diffusers import nn
from mindone_diffusers.backend import cpu, native
from mindone_diffusers.backend.table import table
from mindone_diffusers.core.errors import UnsupportedError
from mindone_diffusers.nn import functional

torch = pytest.importorskip("torch")

from tests.harness import make_input, make_inputs, make_state, relative_error, rng_for  # noqa: E402

torch.set_num_threads(1)


class Case(NamedTuple):
    """A function by name, the specifications of its tensors (see `make_input`) and its other arguments."""

    function: str
    tensors: tuple
    arguments: dict[str, Any]

    def __str__(self):
        parts = ["x".join(map(str, spec if not spec or not isinstance(spec[0], str) else (spec[0], *spec[1]))) for spec in self.tensors]
        return "-".join([self.function, *parts, *(f"{name}={value}" for name, value in self.arguments.items())])


def case(function: str, *tensors, **arguments) -> Case:
    return Case(function, tensors, arguments)


X1, X2, X3 = (2, 6, 9), (2, 6, 7, 8), (1, 4, 5, 6, 7)
Q, K = (2, 4, 10, 8), (2, 4, 7, 8)


def masked(mask, **arguments) -> Case:
    return case("scaled_dot_product_attention", Q, K, K, mask, **arguments)


CASES = [
    # layers with weights
    case("linear", (3, 5), (4, 5)),
    case("linear", (2, 3, 5), (4, 5), (4,)),
    case("linear", (5,), (4, 5), (4,)),
    case("linear", (2, 3, 2, 5), (1, 5), (1,)),
    case("conv1d", X1, (4, 6, 3)),
    case("conv1d", X1, (4, 6, 3), (4,), stride=2, padding=1),
    case("conv1d", X1, (4, 3, 3), (4,), stride=(1,), padding=(2,), dilation=2, groups=2),
    case("conv2d", X2, (4, 6, 3, 3)),
    case("conv2d", X2, (4, 6, 1, 1), (4,)),
    case("conv2d", X2, (4, 6, 3, 3), (4,), stride=2, padding=1),
    case("conv2d", X2, (4, 6, 3, 5), (4,), stride=(1, 2), padding=(1, 2)),
    case("conv2d", X2, (4, 3, 3, 3), (4,), padding=1, groups=2),
    case("conv2d", X2, (6, 1, 3, 3), (6,), padding=1, groups=6),
    case("conv2d", X2, (12, 1, 3, 3), (12,), padding=1, groups=6),
    case("conv2d", X2, (4, 6, 3, 3), (4,), padding=2, dilation=2),
    case("conv2d", X2, (4, 6, 3, 3), (4,), padding=(2, 1), dilation=(2, 1)),
    case("conv3d", X3, (6, 4, 3, 3, 3)),
    case("conv3d", X3, (6, 4, 3, 1, 1), (6,), padding=(1, 0, 0)),
    case("conv3d", X3, (6, 4, 3, 3, 3), (6,), stride=(1, 2, 2), padding=(1, 1, 0)),
    case("conv3d", X3, (6, 2, 3, 3, 3), (6,), padding=1, groups=2),
    case("conv3d", X3, (6, 4, 2, 2, 2), (6,), dilation=2),
    case("conv_transpose2d", X2, (6, 4, 3, 3)),
    case("conv_transpose2d", X2, (6, 4, 4, 4), (4,), stride=2, padding=1),
    case("conv_transpose2d", X2, (6, 4, 3, 3), (4,), stride=2, padding=1, output_padding=1),
    case("conv_transpose2d", X2, (6, 4, 3, 5), (4,), stride=(1, 2), padding=(0, 2), output_padding=(0, 1)),
    case("conv_transpose2d", X2, (6, 4, 3, 3), (4,), dilation=2),
    case("conv_transpose2d", X2, (6, 2, 4, 4), (4,), stride=2, padding=1, groups=2),
    case("embedding", ("int", (2, 5), 9), (9, 4)),
    case("embedding", ("int", (3,), 9), (9, 4)),
    # normalisation
    case("group_norm", X2, num_groups=3),
    case("group_norm", X2, num_groups=1, eps=1e-6),
    case("group_norm", X2, 3, (6,), (6,), 1e-3),
    case("group_norm", X1, 2, (6,), (6,)),
    case("group_norm", X3, 2, (4,), (4,)),
    case("group_norm", (5, 6), 3, (6,), (6,)),
    case("layer_norm", (2, 3, 8), normalized_shape=(8,)),
    case("layer_norm", (2, 3, 8), (8,), (8,), (8,), 1e-6),
    case("layer_norm", (2, 3, 8), (8,), (8,)),
    case("layer_norm", (2, 3, 8), (3, 8), (3, 8), (3, 8)),
    case("rms_norm", (2, 3, 8), normalized_shape=(8,)),
    case("rms_norm", (2, 3, 8), (8,), (8,), 1e-3),
    case("rms_norm", (2, 3, 8), (3, 8), (3, 8)),
    case("batch_norm", X2, (6,), ("uniform", (6,)), (6,), (6,)),
    case("batch_norm", X2, (6,), ("uniform", (6,)), (6,), (6,), eps=1e-2),
    case("normalize", X2),
    case("normalize", X2, dim=-1, eps=1.0),
    case("normalize", (3, 5), dim=0),
    # activations
    case("silu", X2),
    case("gelu", X2),
    case("gelu", X2, approximate="tanh"),
    case("geglu", (2, 3, 8)),
    case("relu", X2),
    case("leaky_relu", X2),
    case("leaky_relu", X2, negative_slope=0.2),
    case("elu", X2),
    case("elu", X2, alpha=0.5),
    case("mish", X2),
    case("softplus", X2),
    case("sigmoid", X2),
    case("tanh", X2),
    case("softmax", X2, dim=-1),
    case("softmax", X2, dim=1),
    case("dropout", X2, p=0.5, training=False),
    case("dropout", X2, p=0.0, training=True),
    # shapes and sampling
    case("pad", X1, pad=(1, 2)),
    case("pad", X2, pad=(1, 2), value=1.5),
    case("pad", X2, pad=(0, 1, 0, 1)),
    case("pad", X2, pad=(1, 2, 3, 4, 5, 6), value=-1.0),
    case("pad", X3, pad=(0, 0, 0, 0, 2, 0)),
    case("pad", X2, pad=(-1, 2, 1, -2)),
    case("pad", X1, pad=(3, 2), mode="reflect"),
    case("pad", X2, pad=(3, 2, 1, 4), mode="reflect"),
    case("pad", X3, pad=(3, 2, 1, 4, 2, 1), mode="reflect"),
    case("pad", X1, pad=(3, 2), mode="replicate"),
    case("pad", X2, pad=(3, 2, 1, 4), mode="replicate"),
    case("pad", X3, pad=(1, 2, 2, 1, 2, 0), mode="replicate"),
    case("pad", X3, pad=(0, 0, 0, 0, 2, 0), mode="replicate"),
    case("pad", X2, pad=(1, 2, 2, 0), mode="circular"),
    case("interpolate", X2, scale_factor=2.0),
    case("interpolate", X2, scale_factor=(2.0, 3.0)),
    case("interpolate", X2, size=(14, 16)),
    case("interpolate", X2, size=(10, 5)),
    case("interpolate", X2, size=5),
    case("interpolate", X2, scale_factor=1.5),
    case("interpolate", X2, scale_factor=1.7),
    case("interpolate", X2, scale_factor=0.5),
    case("interpolate", (1, 2, 37, 53), scale_factor=0.3),
    case("interpolate", (1, 2, 37, 53), scale_factor=2.3),
    case("interpolate", X1, scale_factor=2),
    case("interpolate", X1, size=13),
    case("interpolate", X3, scale_factor=2.0),
    case("interpolate", X3, scale_factor=(1.0, 2.0, 2.0)),
    case("interpolate", X3, size=(3, 9, 7)),
    case("interpolate", X2, size=(10, 5), mode="nearest-exact"),
    case("interpolate", X2, scale_factor=2.0, mode="nearest-exact"),
    case("interpolate", X1, scale_factor=1.7, mode="nearest-exact"),
    *(
        case("interpolate", shape, **size, mode=mode, align_corners=align)
        for shape, mode in ((X1, "linear"), (X2, "bilinear"), (X2, "bicubic"), (X3, "trilinear"))
        for align in (None, True)
        for size in ({"scale_factor": 2.0}, {"size": 5}, {"size": 13}, {"scale_factor": 1.7}, {"scale_factor": 0.6}, {"size": 1})
    ),
    case("interpolate", X2, size=(10, 5), mode="bilinear", antialias=True),
    case("interpolate", X2, size=(3, 5), mode="bicubic", antialias=True),
    case("avg_pool2d", X2, kernel_size=2),
    case("avg_pool2d", X2, kernel_size=2, stride=2),
    case("avg_pool2d", X2, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
    case("avg_pool2d", X2, kernel_size=3, stride=1, padding=1),
    case("max_pool2d", X2, kernel_size=2),
    case("max_pool2d", X2, kernel_size=3, stride=2, padding=1),
    case("max_pool2d", X2, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
    case("cat", [(2, 3), (2, 3), (4, 3)]),
    case("cat", [X2, X2], dim=1),
    case("cat", [X2, X2], dim=-1),
    case("cat", [("int", (2, 3), 9), ("int", (2, 3), 9)]),
    case("stack", [X2, X2]),
    case("stack", [X2, X2], dim=-1),
    case("split", X2, 2, dim=1),
    case("split", X2, (1, 5), dim=1),
    case("split", X2, [1, 2, 4], dim=2),
    case("split", X2, 3, dim=-1),
    case("split", X2, 10, dim=-1),
    case("chunk", X2, 3, dim=1),
    case("chunk", X2, 4, dim=2),
    case("chunk", X2, 3, dim=-1),
    case("chunk", X2, 2),
    case("chunk", X2, 1),
    case("repeat_interleave", X2, 3, dim=0),
    case("repeat_interleave", X2, 2, dim=-1),
    case("repeat_interleave", (3,), 2, dim=0),
    case("repeat_interleave", ("int", (3, 2), 9), 2, dim=1),
    case("pixel_shuffle", (2, 8, 3, 4), 2),
    case("pixel_unshuffle", (2, 3, 6, 9), 3),
    # making and reducing
    case("arange", start=5),
    case("arange", start=2, end=9),
    case("arange", start=1, end=2, step=0.25, dtype="float32"),
    case("arange", start=7, end=0, step=-2),
    case("arange", start=0, end=6, dtype="float32"),
    case("zeros", size=(2, 3)),
    case("zeros", size=(2,), dtype="int64"),
    case("ones", size=[2, 3], dtype="float16"),
    case("ones", size=()),
    case("full", size=(2, 3), fill_value=2.5),
    case("full", size=(2, 3), fill_value=float("-inf")),
    case("full", size=(3,), fill_value=7, dtype="int64"),
    case("full", size=(3,), fill_value=True, dtype="bool"),
    case("where", ("bool", (3, 4)), (3, 4), (3, 4)),
    case("where", ("bool", (3, 1)), (3, 4), 0.0),
    case("where", ("bool", (3, 4)), 1.0, (4,)),
    case("argmax", (3, 7), dim=-1),
    case("argmax", ("int", (3, 7), 20), dim=0),
    case("argmax", (2, 3, 4), dim=1),
    case("cumsum", (3, 7), dim=-1),
    case("cumsum", (3, 7), dim=0),
    case("cumsum", ("int", (3, 7), 20), dim=1),
    case("bmm", (3, 4, 5), (3, 5, 2)),
    case("bmm", (3, 4, 5), (3, 2, 5), transpose_b=True),
    case("bmm", (2, 3, 4, 5), (2, 3, 5, 2)),
    # attention
    case("scaled_dot_product_attention", Q, K, K),
    case("scaled_dot_product_attention", Q, K, (2, 4, 7, 5)),
    case("scaled_dot_product_attention", Q, Q, Q, is_causal=True),
    case("scaled_dot_product_attention", Q, K, K, is_causal=True),
    case("scaled_dot_product_attention", K, Q, Q, is_causal=True),
    case("scaled_dot_product_attention", Q, K, K, scale=0.1),
    case("scaled_dot_product_attention", (2, 4, 10, 8), (2, 2, 7, 8), (2, 2, 7, 8), enable_gqa=True),
    case("scaled_dot_product_attention", (2, 4, 10, 8), (2, 1, 10, 8), (2, 1, 10, 8), enable_gqa=True, is_causal=True),
    *(
        masked((kind, shape) if kind else shape, scale=scale)
        for kind in ("bool", None)
        for shape in ((10, 7), (2, 1, 10, 7), (2, 1, 1, 7), (2, 4, 10, 7), (1, 7), (1, 1, 10, 7), (4, 1, 7), (1, 4, 10, 7))
        for scale in (None,)
    ),
    masked(("bool", (10, 7)), scale=0.3),
    masked((1, 1, 10, 1)),
    masked(("bool", (2, 1, 10, 1))),
]

# Functions that torch has under another name, or not at all.
TORCH = {
    "geglu": lambda input: input.chunk(2, -1)[0] * torch.nn.functional.gelu(input.chunk(2, -1)[1]),
    "batch_norm": lambda x, mean, var, weight, bias, eps=1e-5: torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.1, eps),
    "bmm": lambda input, other, transpose_b=False: input @ (other.mT if transpose_b else other),
    "arange": lambda start, end=None, **rest: torch.arange(*((start,) if end is None else (start, end)), **rest),
}


def torch_function(name: str):
    return TORCH.get(name) or getattr(torch.nn.functional, name, None) or getattr(torch, name)


class Call(nn.Module):
    """A function with its arguments that are no tensors."""

    def __init__(self, function, template, arguments):
        super().__init__()
        self.function = function
        self.template = template
        self.arguments = arguments

    def construct(self, *tensors):
        return self.function(*tensors, **self.arguments)
