"""The Ascend table, compiled by MindSpore's front end: every call lowers to operators that Ascend has, within their kernels' limits.

The lowering runs once, in a process of its own (this file as a script), because MindSpore caches what it parsed.
"""

import inspect
import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from functools import reduce
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers  # noqa: F401  (CPU tuning)
from mindone_diffusers import nn
from mindone_diffusers.backend import ascend, cpu
from mindone_diffusers.backend.ascend_operators import SOURCES
from mindone_diffusers.backend.lowering import Node, TensorType, lower, problems, remarks
from mindone_diffusers.backend.table import use_table
from tests.functional_cases import CASES, Case, T, case, prepare

DTYPES = ("float32", "float16")
ATTENTION = "scaled_dot_product_attention"
FUNCTIONS = sorted({case.function for case in CASES})
# Beyond PyTorch's cases: a mask and causality at once. (Dropout in training cannot be exported: its random state is no cell's.)
MORE = [
    case(ATTENTION, (2, 2, 5, 16), (2, 2, 3, 16), (2, 2, 3, 16), attn_mask=T(("bool", (2, 1, 1, 3))), is_causal=True),
]
# The operator of each backend that has to be asked for.
INFERENCE = {"prompt_flash": "PromptFlashAttention", "fused_infer": "FusedInferAttentionScore"}


class Calls(nn.Module):
    """The cases of one function, each on inputs of its own."""

    def __init__(self, calls: list, counts: list[int]):
        super().__init__()
        self.calls = nn.ModuleList(calls)
        self.counts = counts

    def construct(self, *tensors):
        outputs, first = (), 0
        for call, count in zip(self.calls, self.counts):
            outputs += (call(*tensors[first : first + count]),)
            first += count
        return outputs


def lower_cases(cases: list[Case], dtype: str) -> list[Node]:
    arrays, calls = zip(*map(prepare, cases))
    convert = {np.dtype("float32"): getattr(ms, dtype)}
    inputs = [ms.Tensor(array, convert.get(array.dtype)) for group in arrays for array in group]
    return lower(Calls(list(calls), [len(group) for group in arrays]), *inputs).nodes


def cases_of(function: str) -> list[Case]:
    return [case for case in CASES + MORE if case.function == function]


def inference_cases(backend: str) -> list[Case]:
    """Attention with one head size, by this backend."""
    cases = [case for case in cases_of(ATTENTION) if case.positional[0][-1] == case.positional[2][-1]]
    return [case._replace(keywords={**case.keywords, "backend": backend}) for case in cases]


def main(path: str) -> None:
    with use_table("ascend"):
        results = {(function, dtype): lower_cases(cases_of(function), dtype) for function in FUNCTIONS for dtype in DTYPES}
        results |= {(ATTENTION, backend): lower_cases(inference_cases(backend), "float16") for backend in INFERENCE}
    Path(path).write_bytes(pickle.dumps({key: [tuple(node) for node in nodes] for key, nodes in results.items()}))


if __name__ == "__main__":
    main(sys.argv[1])


@pytest.fixture(scope="module")
def lowered(tmp_path_factory) -> dict[tuple[str, str], list[Node]]:
    path, root = tmp_path_factory.mktemp("lowered") / "nodes", Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, __file__, path], cwd=path.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {key: [Node(*node) for node in nodes] for key, nodes in pickle.loads(path.read_bytes()).items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_lowers_to_what_ascend_has(lowered, function, dtype):
    assert problems(lowered[function, dtype]) == []


def test_half_precision_attention_is_flash_attention(lowered):
    cases = cases_of(ATTENTION)
    nodes = lowered[ATTENTION, "float16"]
    count = Counter(node.operator for node in nodes)
    odd = sum(case.positional[0][-1] != case.positional[2][-1] for case in cases)  # flash attention has one head size
    assert count["FlashAttentionScore"] == len(cases) - odd
    assert count["BatchMatMul"] == 2 * odd
    sizes = {node.inputs[0].shape[-1] for node in nodes if node.operator == "FlashAttentionScore"}
    assert sizes == {16, 48, 64}


def test_single_precision_attention_is_two_products(lowered):
    count = Counter(node.operator for node in lowered[ATTENTION, "float32"])
    assert count["FlashAttentionScore"] == 0
    assert count["BatchMatMul"] == 2 * len(cases_of(ATTENTION))


@pytest.mark.parametrize("backend", INFERENCE)
def test_attention_for_inference(lowered, backend):
    nodes = lowered[ATTENTION, backend]
    assert problems(nodes) == []
    count = Counter(node.operator for node in nodes)
    assert count[INFERENCE[backend]] == len(inference_cases(backend))
    assert count["FlashAttentionScore"] == count["BatchMatMul"] == 0


@pytest.mark.parametrize("name", sorted(set(SOURCES.values())))
def test_documented_for_ascend(name):
    documentation = reduce(getattr, name.split("."), ms).__doc__
    platforms = documentation[documentation.index("Supported Platforms:") :]
    assert re.search(r"\bAscend\b", platforms)


def test_both_tables_have_the_same_entries():
    def signatures(table):
        return {entry.__name__: list(inspect.signature(entry).parameters) for entry in table.TABLE}

    assert signatures(ascend) == signatures(cpu)


def flash(query=(2, 4, 10, 16), key=(2, 4, 7, 16), value=None, dtype="float16", bias=None, discard=None, heads=4) -> list[Node]:
    tensors = [TensorType(tuple(shape[axis] for axis in (0, 2, 1, 3)), dtype) for shape in (query, key, value or key)]
    return [Node("FlashAttentionScore", (*tensors, bias, None, None, discard, None, None, None, heads))]


def one(operator: str, given: str, made: str | None = None) -> list[Node]:
    return [Node(operator, (TensorType((2,), given),), (TensorType((2,), made or given), None))]


@pytest.mark.parametrize(
    "nodes, count",
    [
        (flash(), 0),
        (flash(dtype="bfloat16", discard=TensorType((10, 7), "bool")), 0),
        (flash(discard=TensorType((2, 4, 10, 7), "uint8"), bias=TensorType((2, 4, 10, 7), "float16")), 0),
        (flash(key=(2, 2, 7, 16)), 0),
        (flash(dtype="float32"), 1),
        (flash(query=(2, 4, 10, 40), key=(2, 4, 7, 40)), 1),
        (flash(query=(2, 4, 10, 528), key=(2, 4, 7, 528)), 1),
        (flash(query=(1, 257, 10, 16), key=(1, 257, 7, 16), heads=257), 1),
        (flash(key=(2, 3, 7, 16)), 1),
        (flash(discard=TensorType((2, 1, 1, 7), "bool")), 1),
        (flash(discard=TensorType((10, 7), "float16")), 1),
        (flash(discard=TensorType((2, 1, 10, 8), "bool")), 1),
        (flash(bias=TensorType((2, 4, 10, 7), "float32")), 1),
        (flash(bias=TensorType((2, 1, 10, 7), "float16")), 1),
        ([Node("UnknownOperator", ())], 1),
        (one("SiLU", "bfloat16"), 0),
        (one("MishExt", "bfloat16"), 1),
        (one("Add", "float64"), 2),
        (one("Cast", "float32", "float64"), 1),
        (one("MaxPoolWithMask", "float16"), 1),
        (one("RepeatInterleaveInt", "int32"), 0),
        (one("RepeatInterleaveInt", "bfloat16"), 1),
        ([Node("Dense", (TensorType((2, 4), "float32"), TensorType((3, 4), "float16"), None), TensorType((2, 3), "float16"))], 1),
    ],
)
def test_problems(nodes, count):
    assert len(problems(nodes)) == count


def test_remarks():
    assert remarks([*one("SiLU", "float16"), *one("Add", "bfloat16")]) == []
    assert remarks([*one("SiLU", "bfloat16")] * 2) == ["SiLU in bfloat16: MindSpore's documentation leaves it out"]
