"""The kernels that work on NumPy arrays, called through ctypes: what NumPy does in many passes over an array, in one."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from . import library


@functools.cache
def _function() -> Callable | None:
    path = library()
    if path is None:
        return None
    function = ctypes.CDLL(str(path)).standard_normal
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64), None
    return function


def standard_normal(words: np.random.MT19937, size: int) -> np.ndarray | None:
    """The float32 numbers that `core.mt19937` makes of the next `size` words, a multiple of 16; None if there is no library."""
    function = _function()
    if function is None:
        return None
    result = np.empty(size, np.float32)
    with words.lock:
        function(words.ctypes.state_address, result.ctypes.data, size)
    return result
