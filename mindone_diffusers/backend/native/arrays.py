"""The kernels that work on NumPy arrays, called through ctypes: what NumPy does in many passes over an array, in one."""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import library


@functools.cache
def _standard_normal() -> Callable | None:
    path = library()
    return path and _function(ctypes.CDLL(str(path)), "standard_normal", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, result=None)


@functools.cache
def _arithmetic() -> dict[Any, Callable]:
    """The functions that take array objects: "clip", and the weighted sums by the number of their arguments; none without a library."""
    path = library()
    if path is None or ctypes.c_void_p.from_address(id(_PROBE) + _DATA).value != _PROBE.ctypes.data:
        return {}
    functions, array, number = ctypes.PyDLL(str(path)), ctypes.py_object, ctypes.c_double  # PyDLL keeps Python's lock: arrays are read
    sums = {2 * n: _function(functions, f"weighted_sum_{n}", array, number, *(number, array) * n) for n in range(1, 6)}
    return sums | {"clip": _function(functions, "clip", array, array, number, number)}


def _function(functions: ctypes.CDLL, name: str, *arguments: Any, result: Any = ctypes.c_int) -> Callable:
    function = functions[name]
    function.argtypes, function.restype = arguments, result
    return function


_PROBE, _DATA = np.zeros(1, np.float32), 16  # where CPython 3.10 to 3.13's array objects have their address


def standard_normal(words: np.random.MT19937, size: int) -> np.ndarray | None:
    """The float32 numbers that `core.mt19937` makes of the next `size` words, a multiple of 16; None if there is no library."""
    function = _standard_normal()
    if function is None:
        return None
    result = np.empty(size, np.float32)
    with words.lock:
        function(words.ctypes.state_address, result.ctypes.data, size)
    return result


def weighted_sum(*terms: Any, over: float = 1.0) -> np.ndarray | None:
    """`(a * x + b * y + ...) / over` of the arguments a, x, b, y, ...: one to five float32 arrays, and a number for each.

    None for anything else, and where there is no library.
    """
    function = _arithmetic().get(len(terms))
    if function is None or terms[1].dtype is not _FLOAT32:
        return None
    result = np.empty_like(terms[1])
    try:
        return result if function(result, over, *terms) else None
    except ctypes.ArgumentError:  # a factor that is an array
        return None


def clip(values: np.ndarray, lowest: float, highest: float) -> np.ndarray | None:
    """A float32 array's numbers, limited; None for another one, and where there is no library."""
    function = _arithmetic().get("clip")
    if function is None or values.dtype is not _FLOAT32:
        return None
    result = np.empty_like(values)
    return result if function(result, values, lowest, highest) else None


_FLOAT32 = np.dtype(np.float32)
