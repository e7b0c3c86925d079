"""Cases on PyTorch diffusers: imported by the recorder and by `tests/parity/` only."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from . import harness


def find_class(name: str) -> type:
    """A class of diffusers, of transformers, or of a module given as "package.module:Class"."""
    if ":" in name:
        module, name = name.split(":")
        return getattr(importlib.import_module(module), name)
    import diffusers
    import transformers

    return getattr(diffusers, name, None) or getattr(transformers, name)


def build(case: Mapping[str, Any], device: str = "cpu") -> torch.nn.Module:
    """The torch model of a case, with the weights that `harness.make_weight` gives its parameters."""
    cls = find_class(case["class"])
    config_class = getattr(cls, "config_class", None)
    model = cls(config_class(**case["config"])) if config_class else cls(**case["config"])
    parameters = dict(model.named_parameters())
    state = harness.make_state({name: value.shape for name, value in parameters.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(state[name]))
    return model.eval().to(device)


@torch.no_grad()
def run(model: torch.nn.Module, case: Mapping[str, Any], device: str = "cpu") -> dict[str, dict[str, np.ndarray]]:
    """Outputs of the case's calls: {"call": {"field": array}}."""
    to_numpy = lambda tensor: tensor.float().cpu().numpy()  # noqa: E731

    def to_tensor(array: np.ndarray | harness.Seed) -> torch.Tensor | torch.Generator:
        if isinstance(array, harness.Seed):
            return torch.Generator().manual_seed(array.value)
        return torch.from_numpy(array).to(device)

    outputs = {}
    for call, arguments in harness.calls(case, to_tensor):
        outputs[call] = harness.flatten_output(getattr(model, call)(**arguments), to_numpy)
    return outputs
