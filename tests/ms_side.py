"""Cases on MindSpore."""

from collections.abc import Mapping
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
