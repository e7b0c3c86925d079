"""Every model case against what PyTorch diffusers gave for it (`tools/record_references.py`), without torch."""

import importlib
from functools import cache
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file

from . import harness, ms_side
from .cases import TABLES

CASES = {
    f"{table}/{name}": case
    for table, module in TABLES.items()
    if module.startswith("tests.cases.")
    for name, case in importlib.import_module(module).CASES.items()
}


@cache
def references(table: str) -> dict[str, np.ndarray]:
    return load_file(Path(__file__).parent / "reference" / f"{table}.safetensors")


def check(name: str, outputs: dict[str, dict[str, np.ndarray]], tolerance: float) -> None:
    table, case = name.split("/")
    expected = {key: value for key, value in references(table).items() if key.startswith(f"{case}/")}
    actual = {f"{case}/{call}/{field}": value for call, fields in outputs.items() for field, value in fields.items()}
    assert expected.keys() == actual.keys(), "record the references again: tools/record_references.py"
    for key, value in expected.items():
        assert harness.relative_error(actual[key], value) <= tolerance, key


@pytest.mark.parametrize("name", CASES)
def test_eager(name):
    check(name, ms_side.run(ms_side.build(CASES[name]), CASES[name]), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].get("graph")])
def test_graph_mode(name):
    check(name, ms_side.run(ms_side.build(CASES[name]).enable_graph_mode(), CASES[name]), 1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].get("float16")])
def test_float16(name):
    check(name, ms_side.run(ms_side.build(CASES[name], ms.float16), CASES[name], ms.float16), 2e-2)
