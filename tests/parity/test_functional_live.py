"""Every function of `nn.functional` and every layer of `nn` against PyTorch: values, graph mode and gradients."""

import inspect
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers  # noqa: F401  (CPU tuning)
from mindone_diffusers import nn
from mindone_diffusers.backend import cpu, native
from mindone_diffusers.backend.table import table
from mindone_diffusers.core.errors import UnsupportedError
from mindone_diffusers.nn import functional

torch = pytest.importorskip("torch")

from tests.functional_cases import CASES, Case, T, as_tuple, prepare  # noqa: E402
from tests.harness import make_state, rng_for  # noqa: E402

torch.set_num_threads(1)


# Functions that torch has under another name, or not at all.
def _geglu(input):
    hidden, gate = input.chunk(2, -1)
    return hidden * torch.nn.functional.gelu(gate)


def _attention(query, key, value, **rest):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=query.shape[1] != key.shape[1], **rest)


TORCH = {
    "geglu": _geglu,
    "batch_norm": lambda x, mean, var, weight, bias, eps=1e-5: torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.1, eps),
    "bmm": lambda input, other, transpose_b=False: input @ (other.mT if transpose_b else other),
    "arange": lambda start, end=None, **rest: torch.arange(*((start,) if end is None else (start, end)), **rest),
    "scaled_dot_product_attention": _attention,
}


def torch_outputs(case: Case, tensors: list) -> tuple:
    """What torch makes of the tensors, in the order in which `prepare` lists them."""
    tensors = iter(tensors)

    def fill(value):
        spec = value.spec
        if isinstance(spec, list):
            return [next(tensors) for _ in spec]
        return next(tensors) if isinstance(spec, tuple) else spec

    order = list(inspect.signature(getattr(functional, case.function)).parameters)
    positional = [fill(T(spec)) for spec in case.positional]
    keywords = {}
    for name in sorted(case.keywords, key=order.index):
        value = case.keywords[name]
        keywords[name] = getattr(torch, value) if name == "dtype" else fill(value) if isinstance(value, T) else value
    function = TORCH.get(case.function) or getattr(torch.nn.functional, case.function, None) or getattr(torch, case.function)
    return as_tuple(function(*positional, **keywords))


def check(actual: tuple, expected: tuple, tolerance: float) -> None:
    """Same number of tensors, dtypes, shapes and values."""
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        ours, theirs = ours.asnumpy(), theirs.detach().numpy()
        assert ours.dtype == theirs.dtype
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(ours[~finite], theirs[~finite])
        error = np.abs(np.where(finite, ours, 0).astype(np.float64) - np.where(finite, theirs, 0)).max()
        assert error <= tolerance * max(np.abs(theirs[finite]).max(initial=0), 1e-2)


@pytest.fixture(scope="module", params=["operators", "native"])
def kernels(request):
    """MindSpore's own CPU kernels, or the native ones where there are some."""
    if request.param == "native" and not native.available():
        pytest.skip("there is no C++ compiler")
    with pytest.MonkeyPatch.context() as patch:
        for name in native.NAMES:
            patch.setattr(table, name, native.entry(name) if request.param == "native" else getattr(cpu, name))
        yield request.param


def cases(*functions: str):
    return pytest.mark.parametrize("case", [case for case in CASES if not functions or case.function in functions], ids=str)


@cases()
def test_value(case, kernels):
    arrays, call = prepare(case)
    check(as_tuple(call(*map(ms.Tensor, arrays))), torch_outputs(case, list(map(torch.from_numpy, arrays))), 1e-5)


@cases()
def test_value_in_graph_mode(case, kernels):
    arrays, call = prepare(case)
    output = ms.jit(call)(*map(ms.Tensor, arrays))
    check(as_tuple(output), torch_outputs(case, list(map(torch.from_numpy, arrays))), 1e-5)


@cases()
def test_gradients(case, kernels):
    arrays, call = prepare(case)
    wanted = [index for index, array in enumerate(arrays) if array.dtype == np.float32]
    if case.function == "batch_norm":
        wanted = [0, 3, 4]  # the stored statistics are no variables
    inputs = [torch.from_numpy(array).requires_grad_(index in wanted) for index, array in enumerate(arrays)]
    outputs = torch_outputs(case, inputs)
    if not wanted or not outputs[0].requires_grad:
        pytest.skip("nothing to differentiate")
    weights = [rng_for(f"{case} {index}").standard_normal(output.shape).astype(np.float32) for index, output in enumerate(outputs)]
    sum((output * torch.from_numpy(weight)).sum() for output, weight in zip(outputs, weights)).backward()
    factors = [ms.Tensor(weight) for weight in weights]

    def loss(*tensors):
        total = 0
        for output, factor in zip(as_tuple(call(*tensors)), factors):
            total = total + (output * factor).sum()
        return total

    _, gradients = ms.value_and_grad(loss, grad_position=tuple(wanted))(*map(ms.Tensor, arrays))
    check(as_tuple(gradients), tuple(inputs[index].grad for index in wanted), 1e-4)
