"""Calls of `nn.functional` as data, every function with each of its arguments: for PyTorch's values and for Ascend's operators."""

import inspect
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np

from mindone_diffusers import nn
from mindone_diffusers.nn import functional
from tests.harness import make_input


class T(NamedTuple):
    """A tensor by its specification, see `make_input`."""

    spec: Any


class Case(NamedTuple):
    """A function by name and its arguments: every positional one is a tensor, a keyword one if it is a `T`."""

    function: str
    positional: tuple
    keywords: dict[str, Any]

    def __str__(self):
        keywords = (f"{name}={value.spec if isinstance(value, T) else value}" for name, value in self.keywords.items())
        return "-".join((self.function, *map(str, self.positional), *keywords)).replace(" ", "").replace("'", "")


def case(function: str, *tensors, **keywords) -> Case:
    return Case(function, tensors, keywords)


X1, X2, X3 = (2, 6, 9), (2, 6, 7, 8), (1, 4, 5, 6, 7)
Q, K = (2, 4, 10, 8), (2, 4, 7, 8)


def masked(mask, **arguments) -> Case:
    return case("scaled_dot_product_attention", Q, K, K, attn_mask=T(mask), **arguments)


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
    case("group_norm", X2, num_groups=3, weight=T((6,)), bias=T((6,)), eps=1e-3),
    case("group_norm", X1, num_groups=2, weight=T((6,)), bias=T((6,))),
    case("group_norm", X3, num_groups=2, weight=T((4,)), bias=T((4,))),
    case("group_norm", (5, 24), num_groups=3, weight=T((24,)), bias=T((24,))),
    case("layer_norm", (2, 3, 8), normalized_shape=(8,)),
    case("layer_norm", (2, 3, 8), normalized_shape=(8,), weight=T((8,)), bias=T((8,)), eps=1e-6),
    case("layer_norm", (2, 3, 8), normalized_shape=[8], weight=T((8,))),
    case("layer_norm", (2, 3, 8), normalized_shape=(3, 8), weight=T((3, 8)), bias=T((3, 8))),
    case("rms_norm", (2, 3, 8), normalized_shape=(8,)),
    case("rms_norm", (2, 3, 8), normalized_shape=(8,), weight=T((8,)), eps=1e-3),
    case("rms_norm", (2, 3, 8), normalized_shape=(3, 8), weight=T((3, 8))),
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
    *(
        case("interpolate", shape, **size, mode=mode, align_corners=align)
        for shape, mode in ((X1, "linear"), (X2, "bilinear"), (X2, "bicubic"), (X3, "trilinear"))
        for align in (None, True)
        for size in ({"scale_factor": 2.0}, {"size": 13}, {"scale_factor": 1.7}, {"scale_factor": 0.6}, {"size": 1})
    ),
    case("avg_pool2d", X2, kernel_size=2),
    case("avg_pool2d", X2, kernel_size=2, stride=2),
    case("avg_pool2d", X2, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
    case("avg_pool2d", X2, kernel_size=3, stride=1, padding=1),
    case("avg_pool2d", X2, kernel_size=2, ceil_mode=True),
    case("avg_pool2d", X2, kernel_size=(3, 4), stride=2, ceil_mode=True),
    case("max_pool2d", X2, kernel_size=2),
    case("max_pool2d", X2, kernel_size=3, stride=2, padding=1),
    case("max_pool2d", X2, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
    case("cat", [(2, 3), (2, 3), (4, 3)]),
    case("cat", [X2, X2], dim=1),
    case("cat", [X2, X2], dim=-1),
    case("cat", [("int", (2, 3), 9), ("int", (2, 3), 9)]),
    case("stack", [X2, X2]),
    case("stack", [X2, X2], dim=-1),
    case("split", X2, split_size_or_sections=2, dim=1),
    case("split", X2, split_size_or_sections=(1, 5), dim=1),
    case("split", X2, split_size_or_sections=[1, 2, 4], dim=2),
    case("split", X2, split_size_or_sections=3, dim=-1),
    case("split", X2, split_size_or_sections=10, dim=-1),
    case("chunk", X2, chunks=3, dim=1),
    case("chunk", X2, chunks=4, dim=2),
    case("chunk", X2, chunks=3, dim=-1),
    case("chunk", X2, chunks=2),
    case("chunk", X2, chunks=1),
    case("repeat_interleave", X2, repeats=3, dim=0),
    case("repeat_interleave", X2, repeats=2, dim=-1),
    case("repeat_interleave", (3,), repeats=2, dim=0),
    case("repeat_interleave", ("int", (3, 2), 9), repeats=2, dim=1),
    case("pixel_shuffle", (2, 8, 3, 4), upscale_factor=2),
    case("pixel_unshuffle", (2, 3, 6, 9), downscale_factor=3),
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
    case("detach", (3, 7)),
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
    case("scaled_dot_product_attention", (2, 4, 10, 8), (2, 2, 7, 8), (2, 2, 7, 8)),
    case("scaled_dot_product_attention", (2, 4, 10, 8), (2, 1, 10, 8), (2, 1, 10, 8), is_causal=True),
    *(
        masked(spec)
        for shape in ((10, 7), (2, 1, 10, 7), (2, 1, 1, 7), (2, 4, 10, 7), (1, 7), (1, 1, 10, 7), (4, 1, 7), (1, 4, 10, 7))
        for spec in (("bool", shape), shape)
    ),
    masked(("bool", (10, 7)), scale=0.3),
    case("scaled_dot_product_attention", (1, 2, 5, 40), (1, 2, 3, 40), (1, 2, 3, 40)),
    case("scaled_dot_product_attention", (1, 2, 5, 64), (1, 1, 3, 64), (1, 1, 3, 64), attn_mask=T(("bool", (1, 1, 1, 3)))),
    masked((1, 1, 10, 1)),
    masked(("bool", (2, 1, 10, 1))),
]


class Call(nn.Module):
    """A function of `nn.functional` with everything but its tensors given."""

    def __init__(self, name: str, slots: tuple, constants: tuple):
        super().__init__()
        self.function = getattr(functional, name)
        self.slots = slots
        self.constants = constants

    def construct(self, *tensors):
        arguments = ()
        for slot, constant in zip(self.slots, self.constants):
            if slot is None:
                arguments += (constant,)
            elif isinstance(slot, tuple):
                arguments += ([tensors[index] for index in slot],)
            else:
                arguments += (tensors[slot],)
        return self.function(*arguments)


def prepare(case: Case) -> tuple[list[np.ndarray], Call]:
    """The arrays of a case and the function of them."""
    arrays, slots, constants = [], [], []

    def take(spec):
        arrays.append(make_input(str(len(arrays)), spec))
        return len(arrays) - 1

    signature = inspect.signature(getattr(functional, case.function))
    keywords = {name: getattr(ms, value) if name == "dtype" else value for name, value in case.keywords.items()}
    bound = signature.bind(*map(T, case.positional), **keywords)
    bound.apply_defaults()
    for value in bound.arguments.values():
        tensor = isinstance(value, T) and isinstance(value.spec, (tuple, list))
        many = tensor and isinstance(value.spec, list)
        slots.append((tuple(map(take, value.spec)) if many else take(value.spec)) if tensor else None)
        constants.append(None if tensor else value.spec if isinstance(value, T) else value)
    return arrays, Call(case.function, tuple(slots), tuple(constants))


def as_tuple(output) -> tuple:
    return tuple(output) if isinstance(output, (tuple, list)) else (output,)
