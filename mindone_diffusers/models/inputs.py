"""What users give to a model's `__call__`, as its `construct` takes it."""

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor


def timesteps(timestep: Tensor | float | int, batch: int) -> Tensor:
    """A number, or a tensor of one or of `batch`, as (batch,) float32: a graph is compiled for each shape and dtype."""
    if not isinstance(timestep, Tensor):
        timestep = Tensor(np.asarray(timestep, np.float32))
    return timestep.astype(ms.float32).reshape((-1,)).broadcast_to((batch,))


def tensor(value: Any, dtype) -> Tensor:
    """A number or a sequence of them, which may change from call to call, as a tensor: as they are, graphs would hold them as constants."""
    return (value if isinstance(value, Tensor) else Tensor(np.asarray(value, np.float32))).astype(dtype)


def cast(value: Any, dtype) -> Any:
    """Floating tensors, also within dictionaries and sequences, in `dtype`."""
    if isinstance(value, Tensor):
        return value.astype(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: cast(item, dtype) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(cast(item, dtype) for item in value)
    return value


def mutable(value: Any) -> Any:
    """Dictionaries and tuples of tensors as graph inputs; those with other values are constants of the graph. Empty ones are None."""
    if not value:
        return None
    return ms.mutable(value) if _all_tensors(value) else value


def _all_tensors(value: Any) -> bool:
    if isinstance(value, (dict, tuple)):
        return all(_all_tensors(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, Tensor)
