"""What the compiled graphs of a cell depend on, as text: the key of graphs kept on disk, and of blocks that share one."""

import enum
import functools
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from ..core.configuration import FrozenDict
from ..core.dtypes import is_dtype

PACKAGE = Path(__file__).parents[1]


class Indescribable(Exception):
    """What makes a description impossible."""


def digest(parts: Iterable[str]) -> str:
    """A name for a description."""
    result = hashlib.sha256()
    for part in parts:
        result.update(part.encode() + b"\0")
    return result.hexdigest()[:40]


def describe(cell: ms.nn.Cell) -> Iterator[str]:
    """Everything that the compiled graphs of a cell depend on, but its arguments: classes, attributes and parameters, of all cells in it.

    Parameters go by where they are, not by their names, which are other ones in each block of a model.

    Raises:
        Indescribable: an attribute is something that has no description.
    """
    return _values(cell, {}, constant=True)


def describe_arguments(args: tuple) -> str:
    """The arguments' structure, the shapes and dtypes of tensors, and everything else as it is.

    Raises:
        Indescribable: an argument is something that has no description.
    """
    return "".join(_values(args, {}, constant=False))


def _values(value: Any, seen: dict[int, int], constant: bool) -> Iterator[str]:
    """A description of a value, of a tensor's numbers too where they are constants of the graph."""
    if isinstance(value, ms.Parameter):
        yield f"parameter {seen.setdefault(id(value), len(seen))} {value.shape} {value.dtype} {value.requires_grad};"
    elif isinstance(value, ms.Tensor) and not constant:
        yield f"tensor {value.shape} {value.dtype};"
    elif isinstance(value, (ms.Tensor, np.ndarray)):
        array = np.ascontiguousarray(value.asnumpy() if isinstance(value, ms.Tensor) else value)
        yield f"constant {array.shape} {value.dtype} {hashlib.sha256(array.view(np.uint8)).hexdigest()};"
    elif isinstance(value, (list, tuple)):
        yield "[" if constant else f"{type(value).__name__}["  # a config has lists where its constructor was given tuples
        for item in value:
            yield from _values(item, seen, constant)
        yield "]"
    elif isinstance(value, Mapping):
        items = value.items()
        if isinstance(value, FrozenDict):  # a config, without its folder and versions
            items = sorted((name, item) for name, item in items if not str(name).startswith("_"))
        yield "{"
        for name, item in items:
            yield f"{name!r}:"
            yield from _values(item, seen, constant)
        yield "}"
    elif isinstance(value, (set, frozenset)):
        yield f"{sorted(map(repr, value))};"
    elif value is None or isinstance(value, (bool, int, float, str, bytes, enum.Enum, np.generic, np.dtype)) or is_dtype(value):
        yield f"{value!r};"  # after what may hold tensors: is_dtype would read them from the device
    elif id(value) in seen:
        yield f"again {seen[id(value)]};"
    else:
        seen[id(value)] = len(seen)
        yield from _object(value, seen)


def _object(value: Any, seen: dict[int, int]) -> Iterator[str]:
    """The description of a cell, a class, a function, or an object of a class of this package."""
    if isinstance(value, type):
        parts = ()
    elif inspect.isfunction(value):
        parts = tuple(cell.cell_contents for cell in value.__closure__ or ())
    elif inspect.ismethod(value):
        value, parts = value.__func__, (value.__self__,)
    elif isinstance(value, ms.nn.Cell):
        ignored = _cells_own() | set(getattr(type(value), "_not_in_graphs", ()))
        own = {name: item for name, item in vars(value).items() if name not in ignored}
        value, parts = type(value), (value.training, own, dict(value._params), dict(value._cells))
    elif hasattr(value, "__dict__") and not isinstance(value, ms.ops.Primitive):
        value, parts = type(value), (vars(value),)
    else:
        raise Indescribable(f"it holds a {type(value).__module__}.{type(value).__qualname__}")
    yield f"{_code(value)}("
    for part in parts:
        yield from _values(part, seen, constant=True)
    yield ")"


@functools.cache
def _cells_own() -> frozenset[str]:
    """The names of attributes that MindSpore gives every cell, and those that compiling adds."""
    return frozenset(vars(ms.nn.Cell())) | {"__parse_method__", "_mutable_flags"}


def _code(value: Any) -> str:
    """The name of a class or function of this package, whose source is in the digest, or of MindSpore, whose version is."""
    name = f"{value.__module__}.{value.__qualname__}"
    if value.__module__.split(".")[0] not in (PACKAGE.name, "mindspore", "builtins"):
        raise Indescribable(f"it holds {name}, and what that depends on is not known")
    return name
