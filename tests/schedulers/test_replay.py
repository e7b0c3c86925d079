"""The scheduler cases against PyTorch diffusers' recorded runs: whole loops, on NumPy arrays."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from mindone_diffusers import Generator, schedulers

from .cases import CASES
from .runner import Case, compare, run

REFERENCE = Path(__file__).parents[1] / "reference" / "schedulers.safetensors"


@pytest.fixture(scope="module")
def reference():
    with safe_open(REFERENCE, "np") as file:
        yield file


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_replay(case: Case, reference) -> None:
    scheduler = getattr(schedulers, case.scheduler)(**case.config)
    ours = run(scheduler, case, array=lambda values: values, generator=Generator().manual_seed(0))
    ours.pop("originals", None)
    compare(ours, {name: reference.get_tensor(f"{case.name}|{name}") for name in ours})


def test_every_case_is_recorded(reference) -> None:
    names = list(reference.keys())
    assert {name.split("|")[0] for name in names} == {case.name for case in CASES}
    assert all(np.isfinite(reference.get_tensor(name)).all() for name in names)
