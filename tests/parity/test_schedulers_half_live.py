"""Half-precision steps of every scheduler side by side with PyTorch diffusers."""

import pytest

pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from tests.schedulers.half import CASES, UNITS, deviation, limit, reference  # noqa: E402


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.scheduler)
def test_steps(case, dtype: str) -> None:
    assert deviation(case, dtype, reference(case, dtype)) <= limit(case)
