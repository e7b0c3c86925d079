"""Reference cases: weights and inputs made from names alone, identical in every framework, and their comparison.

A case is data (see `tests/cases/`):

    "sd15": {
        "class": "UNet2DConditionModel",          # the class, the same name upstream and here
        "config": {...},                          # its constructor's arguments
        "inputs": {"sample": (2, 4, 8, 8), ...},  # see `make_input`
        "calls": ("__call__",),                   # methods to run, each with `inputs`; this is the default
    }

`tools/record_references.py` runs PyTorch diffusers on the cases and writes `tests/reference/<table>.safetensors`;
`tests/test_references.py` replays them on MindSpore without torch; `tests/parity/` compares both live.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Seed:
    """A generator that both frameworks make from the same seed, PyTorch's on the CPU."""

    value: int


def rng_for(name: str) -> np.random.Generator:
    """A generator seeded by a name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def make_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 value of a parameter, by its name: activations stay of order one and nothing is trivially zero or one."""
    values = rng_for(name).standard_normal(shape)
    if len(shape) >= 2:
        values /= np.sqrt(np.prod(shape[1:])) if not name.endswith(("embedding.weight", "embeddings.weight")) else 2.0
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    else:
        values *= 0.1
    return values.astype(np.float32)


def make_state(parameters: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Values for the given names and shapes."""
    return {name: make_weight(name, tuple(shape)) for name, shape in parameters.items()}


def make_input(name: str, spec: Any) -> Any:
    """An input by its name and specification: a shape (float32, standard normal), ("int", shape, high), ("uniform", shape),
    ("bool", shape), ("array", nested lists), ("seed", number), a dictionary or list of specifications, or a plain value."""
    if isinstance(spec, dict):
        return {key: make_input(f"{name}.{key}", value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [make_input(f"{name}.{index}", value) for index, value in enumerate(spec)]
    if isinstance(spec, tuple):
        rng = rng_for("input " + name)
        if not spec or not isinstance(spec[0], str):
            return rng.standard_normal(spec).astype(np.float32)
        kind, *rest = spec
        if kind == "int":
            shape, high = rest if len(rest) == 2 else (rest[0], 1000)
            return rng.integers(0, high, shape)
        if kind == "uniform":
            return rng.random(rest[0]).astype(np.float32)
        if kind == "bool":
            return rng.random(rest[0]) < 0.7
        if kind == "seed":
            return Seed(rest[0])
        if kind == "array":
            array = np.array(rest[0])
            return array.astype(np.float32) if array.dtype == np.float64 else array
        raise ValueError(f"Unknown input kind {kind!r} for {name!r}.")
    return spec


def make_inputs(case: Mapping[str, Any]) -> dict[str, Any]:
    return {name: make_input(name, spec) for name, spec in case["inputs"].items()}


def calls(case: Mapping[str, Any], convert: Callable[[np.ndarray | Seed], Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The case's calls with their arguments, whose arrays and seeds are converted to the framework's tensors and generators."""
    inputs = map_arrays(convert, make_inputs(case))
    for call in case.get("calls", ("__call__",)):
        names = case.get("arguments", {}).get(call, inputs)
        yield call, {name: value for name, value in inputs.items() if name in names}


def map_arrays(convert, value: Any) -> Any:
    """Apply `convert` to every NumPy array and seed in nested dictionaries, lists and tuples."""
    if isinstance(value, (np.ndarray, Seed)):
        return convert(value)
    if isinstance(value, dict):
        return {key: map_arrays(convert, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_arrays(convert, item) for item in value)
    return value


def flatten_output(output: Any, to_numpy, prefix: str = "") -> dict[str, np.ndarray]:
    """The tensors of a model's output (dataclass, tuple or tensor) by field name."""
    if output is None or isinstance(output, (bool, int, float, str)):
        return {}
    if hasattr(output, "latent_dist"):
        return {f"{prefix}moments": to_numpy(output.latent_dist.parameters)}
    if isinstance(output, Mapping):
        items = output.items()
    elif isinstance(output, (tuple, list)):
        items = enumerate(output)
    else:
        return {prefix.rstrip(".") or "out": to_numpy(output)}
    flat: dict[str, np.ndarray] = {}
    for key, value in items:
        flat |= flatten_output(value, to_numpy, f"{prefix}{key}.")
    return flat


def case_id(value: Any) -> str:
    """A parameter's name in test reports, without the addresses of objects: every process has to give the same."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference, over the largest absolute expected value."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert np.isfinite(expected).all(), "the reference holds NaN or infinity"
    return float(np.abs(actual.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30))
