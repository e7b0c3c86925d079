"""Every reference case's model, lowered for Ascend in float16: operators that Ascend has, within the kernels' limits, and no more of
them than `ascend_operators.json` says (`python -m tests.backend.test_ascend_models` writes it).

The lowering runs in processes of their own, because MindSpore caches what it parsed for the CPU.
"""

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BASELINE = Path(__file__).with_name("ascend_operators.json")
TABLES = ("adapters", "autoencoders", "controlnets", "dpt", "text_encoders", "transformers", "unet", "unet_2d")


class Captured(Exception):
    """The tensor core that a call would have run, and its arguments."""


class Construct(ms.nn.Cell):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def construct(self, *inputs):
        return self.model.construct(*inputs)


class Encode(Construct):
    def construct(self, *inputs):
        return self.model._encode(*inputs)


class Decode(Construct):
    def construct(self, *inputs):
        return self.model._decode(*inputs)


class Denoise(Construct):
    def construct(self, *inputs):
        return self.model._denoise(*inputs)


CORES = {"construct": Construct, "_encode": Encode, "_decode": Decode, "_denoise": Denoise}


def lower_case(case) -> tuple[dict[str, int], list[str]]:
    """Operator counts and problems of all cores that a case's calls run."""
    import mindone_diffusers
    from mindone_diffusers.backend.lowering import FRONT_END, lower, problems
    from mindone_diffusers.backend.table import use_table
    from mindone_diffusers.nn import parameter_dtype
    from tests import harness

    with parameter_dtype(ms.float16):
        model = getattr(mindone_diffusers, case["class"])(**case["config"])
    model._mark_filled()

    def capture(core, *inputs):
        raise Captured(core, inputs)

    model._run = capture

    def to_tensor(array: np.ndarray | harness.Seed) -> ms.Tensor | np.random.Generator:
        if isinstance(array, harness.Seed):
            return np.random.default_rng(array.value)
        return ms.Tensor(array, ms.float16 if array.dtype == np.float32 else None)

    counts, found = {}, []
    for call, arguments in harness.calls(case, to_tensor):
        try:
            getattr(model, call)(**arguments)
        except Captured as captured:
            core, tensors = captured.args
        with use_table("ascend"):
            nodes = lower(CORES[core](model), *tensors)
        operators = Counter(node.operator for node in nodes if node.operator not in FRONT_END)
        counts |= {f"{core}:{name}": count for name, count in sorted(operators.items())}
        found += problems(nodes)
    return counts, found


def lower_table(table: str) -> dict[str, list]:
    results = {}
    for name, case in importlib.import_module(f"tests.cases.{table}").CASES.items():
        if table == "controlnets" and not case.get("graph"):  # the others' blocks are the UNet's
            continue
        try:
            results[name] = lower_case(case)
        except (RuntimeError, TypeError, ValueError) as error:
            results[name] = {}, [f"{type(error).__name__}: {str(error)[:500]}"]
    return results


def run(table: str) -> dict[str, list]:
    """`lower_table` in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.backend.test_ascend_models", table], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "GLOG_v": "3"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def lowered():
    """A future of each table's results: a process a core, because the front end uses one."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield {table: pool.submit(run, table) for table in sorted(TABLES, key="unet".__ne__)}  # the longest first


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("table", TABLES)
def test_models_lower_to_what_ascend_has(table, lowered):
    results, baseline = lowered[table].result(), json.loads(BASELINE.read_text())[table]
    assert {name: problems for name, (_, problems) in results.items() if problems} == {}
    assert results.keys() == baseline.keys()
    more = {name: counts for name, (counts, _) in results.items() if sum(counts.values()) > sum(baseline[name].values())}
    assert more == {}, "more operators than before"


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(lower_table(sys.argv[1])))
        return
    counts = {table: {name: result[0] for name, result in run(table).items()} for table in TABLES}
    BASELINE.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
