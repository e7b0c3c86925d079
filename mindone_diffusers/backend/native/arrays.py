"""The kernels that work on NumPy arrays, on the caller's thread: what NumPy does in many passes over an array, in one."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from . import library


@functools.cache
def functions() -> dict[str, Callable]:
    """The functions of `arrays.cpp` and `random.cpp`; none without a library.

    - `shared_array(tensor, mindspore.float32)`: the array that the tensor keeps as `_shared_array`, if it still shares the tensor's memory,
      or a new one that does, also after the tensor is given other memory. None if it is not in C order or has another dtype.

    The arithmetic writes into the array given first and returns it; None for arrays that are not float32, of one shape and in C order, or
    other factors than numbers:

    - `weighted_sum(result, over, a, x, b, y, ...)`: `(a * x + b * y + ...) / over` of one to five arrays.
    - `clip(result, values, lowest, highest)`.
    - `softmax(result, logits)`, over the last axis.

    Random numbers, too, are written into an array. They are those that `core.mt19937` makes of the words of an `np.random.MT19937`, which
    is given by its `capsule`:

    - `standard_normal(result, capsule)`: float32, a multiple of 16.
    - `uniform_float32(result, capsule)`, `uniform_float64(result, capsule)`.
    - `seed(capsule, number)`: starts the words anew; returns None.
    """
    path = library()
    if path is None or ctypes.c_void_p.from_address(id(_PROBE) + _DATA).value != _PROBE.ctypes.data:
        return {}
    library_functions, result = ctypes.PyDLL(str(path)), {}
    for add in (library_functions.add_array_functions, library_functions.add_random_functions):
        add.argtypes, add.restype = (ctypes.py_object, ctypes.py_object), None
        add(result, np.core.multiarray._ARRAY_API)
    return result


_PROBE, _DATA = np.zeros(1, np.float32), 16  # where CPython 3.10 to 3.13's array objects have their address
