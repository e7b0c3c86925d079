"""Half-precision steps against PyTorch diffusers' recorded ones."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from safetensors import safe_open

import mindone_diffusers
from mindone_diffusers import Generator
from mindone_diffusers.schedulers.arrays import weighted_sum

from .half import CASES, UNITS, deviation, limit
from .runner import SD

REFERENCE = Path(__file__).parents[1] / "reference" / "schedulers_half.safetensors"


@pytest.fixture(scope="module")
def reference():
    with safe_open(REFERENCE, "np") as file:
        yield file


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.scheduler)
def test_replay(case, dtype: str, reference) -> None:
    expected = {name: reference.get_tensor(f"{dtype}|{case.name}|{name}") for name in ("samples", "outputs")}
    assert deviation(case, dtype, expected) <= limit(case)


@pytest.mark.parametrize("dtype, unit", [(ms.float16, 2.0**-10), (ms.bfloat16, 2.0**-7)])
def test_every_operation_is_rounded(dtype, unit: float) -> None:
    """As PyTorch's, and the factors too: to the nearest number, of two equally near ones to the even one."""
    one = np.ones((1, 1), np.float32)
    half = ms.Tensor(one).astype(dtype).asnumpy()

    def rounded(*terms, **over) -> float:
        result = weighted_sum(*terms, **over)
        assert result.dtype == half.dtype
        return float(result.astype(np.float32)[0, 0])

    assert rounded(1 + 0.75 * unit, half) == 1 + unit
    assert rounded(1 + unit / 2, half) == 1 and rounded(1 + 1.5 * unit, half) == 1 + 2 * unit
    assert rounded(1, half, unit / 2, half, unit / 2, half) == 1
    assert rounded(1 + 0.75 * unit, half, over=1 + 0.25 * unit) == 1 + unit
    assert weighted_sum(1, one, unit / 2, half).dtype == np.float32


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16])
def test_dtypes_of_the_results(dtype) -> None:
    """Euler's clean sample stays float32, as PyTorch's; DDIM's does not."""
    for name, original in (("EulerDiscreteScheduler", ms.float32), ("DDIMScheduler", dtype)):
        scheduler = getattr(mindone_diffusers, name)(**SD)
        scheduler.set_timesteps(3)
        x = ms.Tensor(np.random.default_rng(0).standard_normal((1, 2, 4, 4)), ms.float32).astype(dtype)
        scheduler.scale_model_input(x, scheduler.timesteps[0])
        result = scheduler.step(x, scheduler.timesteps[0], x)
        assert (result.prev_sample.dtype, result.pred_original_sample.dtype) == (dtype, original)
        assert scheduler.add_noise(x, x, scheduler.timesteps[:1]).dtype == dtype


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16])
def test_the_loops_of_score_samplers(dtype) -> None:
    """Whose steps are in float32, as PyTorch's."""
    from mindone_diffusers.schedulers import KarrasVeScheduler, ScoreSdeVeScheduler, ScoreSdeVpScheduler

    wide = ms.Tensor(np.random.default_rng(0).standard_normal((1, 2, 4, 4)), ms.float32).astype(dtype).astype(ms.float32)
    results = []
    for x in (wide, wide.astype(dtype)):
        ve, vp, karras = ScoreSdeVeScheduler(), ScoreSdeVpScheduler(), KarrasVeScheduler()
        for scheduler in (ve, vp, karras):
            scheduler.set_timesteps(5)
        ve.set_sigmas(5)
        hat, sigma_hat = karras.add_noise_to_input(x, karras.schedule[4], generator=Generator().manual_seed(0))
        outputs = (
            ve.step_correct(x, x, generator=Generator().manual_seed(0)).prev_sample,
            ve.step_pred(x, ve.timesteps[0], x, return_dict=False, generator=Generator().manual_seed(0))[1],
            vp.step_pred(x, x, vp.timesteps[0])[1],
            hat,
            karras.step(x, sigma_hat, karras.schedule[3], hat).prev_sample,
        )
        assert {output.dtype for output in outputs} == {ms.float32}
        results.append([output.asnumpy() for output in outputs])
    for exact, half in zip(*results):
        np.testing.assert_allclose(half, exact, rtol=1e-6, atol=1e-6 * abs(exact).max())
