"""Cases on MindSpore."""

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
import numpy as np

import mindone_diffusers

from . import harness


def build(case: Mapping[str, Any], dtype=None):
    """Our model of a case, with the weights that `harness.make_weight` gives its parameters."""
    model = getattr(mindone_diffusers, case["class"].split(":")[-1])(**case["config"])
    shapes = {name: parameter.shape for name, parameter in model._unfilled_parameters().items()}
    model.load_state_dict(harness.make_state(shapes))
    return model if dtype is None else model.to(dtype)


def run(model, case: Mapping[str, Any], dtype=None) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of the case's calls: {"call": {"field": array}}. Floating inputs are cast to `dtype`."""

    def to_tensor(array: np.ndarray | harness.Seed) -> Any:
        if isinstance(array, harness.Seed):
            return mindone_diffusers.Generator().manual_seed(array.value)
        tensor = ms.Tensor(array)
        return tensor.astype(dtype) if dtype is not None and array.dtype == np.float32 else tensor

    outputs = {}
    for call, arguments in harness.calls(case, to_tensor):
        output = getattr(model, call)(**arguments)
        outputs[call] = harness.flatten_output(output, lambda tensor: tensor.astype(ms.float32).asnumpy())
    return outputs


def count_host_reads(monkeypatch, counting: Callable[[], Any] = lambda: True) -> list[str]:
    """A list that from now on gets the name of each way in which the host reads a tensor, while `counting()`."""
    reads: list[str] = []

    def patch(name: str, original: Callable) -> None:
        def counted(self, *args, **kwargs):
            if counting():
                reads.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(ms.Tensor, name, counted)

    for name in ("asnumpy", "numpy", "item", "tolist", "__bool__", "__int__", "__float__", "__index__"):
        patch(name, getattr(ms.Tensor, name))
    return reads
