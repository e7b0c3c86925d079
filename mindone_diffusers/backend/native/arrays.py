"""The kernels that work on NumPy arrays, called on the caller's thread: what NumPy does in many passes over an array, in one."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from . import library


@functools.cache
def _standard_normal() -> Callable | None:
    path = library()
    if path is None:
        return None
    function = ctypes.CDLL(str(path)).standard_normal
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64), None
    return function


def standard_normal(words: np.random.MT19937, size: int) -> np.ndarray | None:
    """The float32 numbers that `core.mt19937` makes of the next `size` words, a multiple of 16; None if there is no library."""
    function = _standard_normal()
    if function is None:
        return None
    result = np.empty(size, np.float32)
    with words.lock:
        function(words.ctypes.state_address, result.ctypes.data, size)
    return result


@functools.cache
def functions() -> dict[str, Callable]:
    """The functions of `arrays.cpp`; none without a library. They write into the float32 array given first, and return it, or None.

    - `weighted_sum(result, over, a, x, b, y, ...)`: `(a * x + b * y + ...) / over` of one to five arrays.
    - `clip(result, values, lowest, highest)`.
    """
    path = library()
    if path is None or ctypes.c_void_p.from_address(id(_PROBE) + _DATA).value != _PROBE.ctypes.data:
        return {}
    make = ctypes.PyDLL(str(path)).array_functions
    make.restype = ctypes.py_object
    return make()


_PROBE, _DATA = np.zeros(1, np.float32), 16  # where CPython 3.10 to 3.13's array objects have their address
