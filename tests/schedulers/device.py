"""Schedulers that may not look at their tensors: what a step reads from the device makes a loop wait for it."""

import functools
from typing import Any

import mindspore as ms
import pytest

READS = ("asnumpy", "item", "tolist", "__float__", "__int__", "__index__", "__bool__", "__array__")
# Whether to go on is for the host to decide; and times that are given as a tensor are looked at there.
ALLOWED = {"BlockRefinementScheduler": ("check_block_should_continue",), "RFD4ProteinaScheduler": ("add_noise",)}


def unread(scheduler: Any, patch: pytest.MonkeyPatch) -> Any:
    """The scheduler, whose public methods now fail if they read a MindSpore tensor on the host."""
    patch.setattr("mindone_diffusers.schedulers.arrays.tensors_are_arrays", lambda: False)  # as on an NPU
    running = []
    for name in READS:
        original = getattr(ms.Tensor, name)

        def read(self, *args: Any, original=original, **kwargs: Any) -> Any:
            assert not running, f"{running[-1]} reads the device"
            return original(self, *args, **kwargs)

        patch.setattr(ms.Tensor, name, read)
    kind = type(scheduler)
    for name in dir(kind):
        if name.startswith("_") or name in ALLOWED.get(kind.__name__, ()) or isinstance(getattr(kind, name), property):
            continue
        method = getattr(scheduler, name)
        if callable(method):

            @functools.wraps(method)
            def watched(*args: Any, method=method, name=name, **kwargs: Any) -> Any:
                running.append(name)
                try:
                    return method(*args, **kwargs)
                finally:
                    running.pop()

            patch.setitem(scheduler.__dict__, name, watched)
    return scheduler
