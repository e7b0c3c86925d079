"""Number formats by name: MindSpore, NumPy, torch (never imported) and safetensors.

The canonical name is NumPy's and torch's: "float16", "bfloat16", "int64", "bool", ...
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ConfigError, UnsupportedError

# In the order in which the safetensors library writes tensors: wide ones first, so that all are aligned.
_FROM_SAFETENSORS = {
    "U64": "uint64", "I64": "int64", "F64": "float64", "F32": "float32", "U32": "uint32", "I32": "int32", "BF16": "bfloat16",
    "F16": "float16", "U16": "uint16", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
SAFETENSORS_CODES = tuple(_FROM_SAFETENSORS)
_TO_SAFETENSORS = {name: code for code, name in _FROM_SAFETENSORS.items()}
_SHORT = {
    "fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "float": "float32", "fp64": "float64", "double": "float64",
    "int": "int32", "long": "int64", "short": "int16", "bool_": "bool",
}  # fmt: skip


@functools.cache
def dtype_name(dtype: Any) -> str:
    """The canonical name of a MindSpore, NumPy or torch dtype, or of a name such as "fp16", "torch.float16", "Float16".

    Raises:
        ConfigError: no such dtype.
    """
    text = np.dtype(dtype).name if isinstance(dtype, (type, np.dtype)) else str(dtype)
    name = text.lower().rsplit(".", 1)[-1]
    name = _SHORT.get(name, name)
    if name not in _TO_SAFETENSORS:
        raise ConfigError(f"{dtype!r} is not a dtype; expected one of {', '.join(_TO_SAFETENSORS)}")
    return name


def is_dtype(value: Any) -> bool:
    """Whether `dtype_name` takes it."""
    try:
        dtype_name(value)
    except (ConfigError, TypeError):
        return False
    return True


def to_mindspore_dtype(dtype: Any) -> Any:
    """The MindSpore dtype for anything `dtype_name` takes."""
    import mindspore

    name = dtype_name(dtype)
    return getattr(mindspore, "bool_" if name == "bool" else name)


def to_numpy_dtype(dtype: Any) -> np.dtype:
    """The NumPy dtype for anything `dtype_name` takes; bfloat16 is MindSpore's."""
    name = dtype_name(dtype)
    if name == "bfloat16":
        from mindspore.common import np_dtype

        return np.dtype(np_dtype.bfloat16)
    return np.dtype(name)


def is_floating(dtype: Any) -> bool:
    return "float" in dtype_name(dtype)


def from_safetensors(code: str) -> np.dtype:
    """The NumPy dtype of a safetensors dtype code ("BF16", ...).

    Raises:
        UnsupportedError: float8 and sub-byte formats, which neither NumPy nor MindSpore's tensors hold.
    """
    if code not in _FROM_SAFETENSORS:
        raise UnsupportedError(f"safetensors dtype {code!r} cannot be loaded; supported are {', '.join(_FROM_SAFETENSORS)}")
    return to_numpy_dtype(_FROM_SAFETENSORS[code])


def to_safetensors(dtype: Any) -> str:
    """The safetensors code of anything `dtype_name` takes."""
    return _TO_SAFETENSORS[dtype_name(dtype)]


def resolve_dtype_arguments(mindspore_dtype: Any = None, dtype: Any = None, torch_dtype: Any = None) -> Any:
    """The one dtype a caller asked for under three names.

    Each argument is None, anything `dtype_name` takes, or for a pipeline a dictionary of those by component (`{"vae": "fp32",
    "default": "fp16"}`).

    Returns:
        A MindSpore dtype, a dictionary of them, or None if nothing was asked for.

    Raises:
        ConfigError: two of them disagree.
    """
    given = {"mindspore_dtype": mindspore_dtype, "dtype": dtype, "torch_dtype": torch_dtype}
    wanted = {
        argument: {part: to_mindspore_dtype(d) for part, d in value.items()} if isinstance(value, Mapping) else to_mindspore_dtype(value)
        for argument, value in given.items()
        if value is not None
    }
    first = next(iter(wanted.values()), None)
    if any(value != first for value in wanted.values()):
        described = ", ".join(f"{argument}={given[argument]!r}" for argument in wanted)
        raise ConfigError(f"{described} disagree: they mean the same thing, pass one of them")
    return first
