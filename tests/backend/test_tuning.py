"""The settings of Ascend, which are only said to MindSpore here: there is no NPU."""

import subprocess
import sys

import mindspore as ms
import pytest
from mindspore.device_context.ascend import op_precision

from mindone_diffusers.backend import tuning


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[bool]]:
    """What MindSpore, on Ascend, is told."""
    told: dict[str, list[bool]] = {"conv_allow_hf32": [], "matmul_allow_hf32": []}
    monkeypatch.setattr(ms, "get_context", lambda name: {"device_target": "Ascend"}[name])
    monkeypatch.delenv("MINDONE_DIFFUSERS_HF32", raising=False)
    for name, values in told.items():
        monkeypatch.setattr(op_precision, name, values.append)
    return told


def test_float32_is_float32_on_ascend(said) -> None:
    tuning.tune()
    assert said == {"conv_allow_hf32": [False], "matmul_allow_hf32": [False]}


def test_hf32_is_a_switch(said, monkeypatch) -> None:
    monkeypatch.setenv("MINDONE_DIFFUSERS_HF32", "1")
    tuning.tune()
    assert said == {"conv_allow_hf32": [True], "matmul_allow_hf32": [True]}


def test_what_the_user_has_set_stays(said, monkeypatch) -> None:
    def refuse(allowed: bool) -> None:
        raise RuntimeError("The 'conv_allow_hf32' can not be set repeatedly.")

    monkeypatch.setattr(op_precision, "conv_allow_hf32", refuse)
    tuning.tune()
    assert said["matmul_allow_hf32"] == [False]


def test_nothing_is_said_of_hf32_on_a_cpu(said, monkeypatch) -> None:
    monkeypatch.setattr(ms, "get_context", lambda name: {"device_target": "CPU"}[name])
    tuning.tune()
    assert said == {"conv_allow_hf32": [], "matmul_allow_hf32": []}


def test_a_process_that_copied_a_transposed_tensor_ends_well() -> None:
    code = "import mindspore as ms, mindone_diffusers; print(ms.ops.ones((2, 16, 16)).transpose((0, 2, 1)).reshape((128, 4)).sum())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "512.0\n"), done.stderr
