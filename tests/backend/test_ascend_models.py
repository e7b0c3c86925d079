"""Reference cases that also run in graph mode, lowered for Ascend in float16: what they run is documented for Ascend, and each attention is
one operator. `tests/pipelines/test_ascend_audit.py` does the same for pipelines, and so for most models; here are other kinds of blocks.

The lowering runs in a process of its own, because MindSpore caches what it parsed for the CPU.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TABLES = ("adapters", "autoencoders", "unet")


def problems_of(case) -> list[str]:
    """The problems of all cores that a case's calls run."""
    import mindone_diffusers
    from mindone_diffusers.nn import parameter_dtype
    from mindone_diffusers.pipelines.audit import Auditor
    from tests import harness

    with parameter_dtype(ms.float16):
        model = getattr(mindone_diffusers, case["class"])(**case["config"])
    model._mark_filled()

    def to_tensor(array: np.ndarray | harness.Seed) -> ms.Tensor | np.random.Generator:
        if isinstance(array, harness.Seed):
            return np.random.default_rng(array.value)
        return ms.Tensor(array, ms.float16 if array.dtype == np.float32 else None)

    auditor = Auditor("float16")
    with auditor.listening():
        for call, arguments in harness.calls(case, to_tensor):
            getattr(model, call)(**arguments)
    assert auditor.cores, "nothing was lowered"
    return [f"{core.core}: {problem}" for core in auditor.cores for problem in core.problems]


def lower_table(table: str) -> dict[str, list[str]]:
    results = {}
    for name, case in importlib.import_module(f"tests.cases.{table}").CASES.items():
        if case.get("graph"):
            try:
                results[name] = problems_of(case)
            except (RuntimeError, TypeError, ValueError) as error:
                results[name] = [f"{type(error).__name__}: {str(error)[:500]}"]
    return results


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_models_lower_to_what_ascend_has():
    done = subprocess.run(
        [sys.executable, "-m", "tests.backend.test_ascend_models"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "GLOG_v": "3"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert all(results[table] for table in TABLES)
    assert {f"{table}, {name}": found for table in TABLES for name, found in results[table].items() if found} == {}


if __name__ == "__main__":
    print(json.dumps({table: lower_table(table) for table in TABLES}))
