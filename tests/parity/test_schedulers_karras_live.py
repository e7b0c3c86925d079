"""Schedulers without betas against PyTorch diffusers, beside their loops: noise, scalings, tables, half precision, refusals."""

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from mindone_diffusers import Generator, schedulers  # noqa: E402
from tests.schedulers.runner import SD, Case, run  # noqa: E402

SHAPE = (2, 2, 4, 4)
LOOPS = {
    "KarrasVeScheduler": lambda s, x, out, g: s.step(out, *reversed([1.5, s.add_noise_to_input(x, 2.0, g)[1]]), x).prev_sample,
    "ScoreSdeVeScheduler": lambda s, x, out, g: s.step_correct(out, s.step_pred(out, s.timesteps[1], x, g).prev_sample, g).prev_sample,
    "ScoreSdeVpScheduler": lambda s, x, out, g: s.step_pred(out, x, s.timesteps[1], g)[0],
    "SCMScheduler": lambda s, x, out, g: s.step(out, s.timesteps[0], x, g).prev_sample,
    "CMStochasticIterativeScheduler": lambda s, x, out, g: (
        s.step(out, s.timesteps[0], s.scale_model_input(x, s.timesteps[0]), g).prev_sample
    ),
    "ConsistencyDecoderScheduler": lambda s, x, out, g: s.step(out, s.timesteps[0], s.scale_model_input(x, 1008), g).prev_sample,
    "EDMEulerScheduler": lambda s, x, out, g: (
        s.step(out, s.timesteps[0], s.scale_model_input(x, s.timesteps[0]), 5.0, generator=g).prev_sample
    ),
    "IPNDMScheduler": lambda s, x, out, g: s.step(out, s.timesteps[0], x).prev_sample,
}


def pair(name: str, steps: int | None = None, **config):
    both = getattr(schedulers, name)(**config), getattr(diffusers.schedulers, name)(**config)
    for scheduler in both if steps else ():
        scheduler.set_timesteps(steps)
    return both


def numbers(seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(dtype)


@pytest.mark.parametrize("name", LOOPS)
def test_tables_before_set_timesteps(name: str) -> None:
    ours, theirs = pair(name)
    for table in ("timesteps", "sigmas", "discrete_sigmas", "betas", "alphas", "c_in", "c_out", "c_skip", "init_noise_sigma"):
        expected = getattr(theirs, table, None) if name != "ConsistencyDecoderScheduler" or table[0] == "c" else None
        if expected is not None:
            # IPNDM's alphas of 1000 steps are roots of differences of almost equal float32 numbers, and timesteps are their angles.
            atol = 1e-3 if table == "alphas" else 1e-5 if name == "IPNDMScheduler" else 1e-6
            np.testing.assert_allclose(getattr(ours, table), np.asarray(expected), rtol=1e-6, atol=atol, err_msg=table)
    if "num_train_timesteps" in ours.config:
        assert len(ours) == theirs.config.num_train_timesteps


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "CMStochasticIterativeScheduler"])
def test_add_noise(name: str, begun: bool) -> None:
    ours, theirs = pair(name, 10)
    x, noise = numbers(), numbers(1)
    for scheduler in (ours, theirs) if begun else ():
        scheduler.set_begin_index(3)
    expected = theirs.add_noise(torch.from_numpy(x), torch.from_numpy(noise), theirs.timesteps[[2, 6]]).numpy()
    np.testing.assert_allclose(ours.add_noise(x, noise, ours.timesteps[[2, 6]]), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        ours.add_noise(ms.Tensor(x), ms.Tensor(noise), ours.timesteps[[2, 6]]).asnumpy(), expected, rtol=1e-6, atol=1e-6
    )


def test_add_noise_of_score_sde() -> None:
    ours, theirs = pair("ScoreSdeVeScheduler", 10)
    x, noise, places = numbers(), numbers(1), np.array([3, 1999])
    expected = theirs.add_noise(torch.from_numpy(x), torch.from_numpy(noise), torch.from_numpy(places)).numpy()
    np.testing.assert_allclose(ours.add_noise(x, noise, places), expected, rtol=1e-6, atol=1e-6)
    got = ours.get_adjacent_sigma(np.array([0, 1, 1000]), None)
    expected = theirs.get_adjacent_sigma(torch.tensor([0, 1, 1000]), torch.zeros(3)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_scalings(prediction: str) -> None:
    x, output = numbers(), numbers(1)
    ours, theirs = pair("EDMEulerScheduler", prediction_type=prediction, sigma_data=0.7)
    np.testing.assert_allclose(ours.precondition_inputs(x, 3.0), theirs.precondition_inputs(torch.from_numpy(x), 3.0).numpy(), rtol=1e-6)
    expected = theirs.precondition_outputs(torch.from_numpy(x), torch.from_numpy(output), 3.0).numpy()
    np.testing.assert_allclose(ours.precondition_outputs(x, output, 3.0), expected, rtol=1e-5, atol=1e-6)
    for sigma in (3.0, np.array([0.1, 3.0], np.float32)):
        given = sigma if isinstance(sigma, float) else torch.from_numpy(sigma)
        np.testing.assert_allclose(ours.precondition_noise(sigma), theirs.precondition_noise(given).numpy(), rtol=1e-6)
    ours, theirs = pair("CMStochasticIterativeScheduler")
    for sigma in (0.002, 1.3, 80.0):
        assert ours.get_scalings(sigma) == pytest.approx(theirs.get_scalings(sigma))
        assert ours.get_scalings_for_boundary_condition(sigma) == pytest.approx(theirs.get_scalings_for_boundary_condition(sigma))
    np.testing.assert_array_equal(ours.sigma_to_t(np.array([0.0, 2.0])), theirs.sigma_to_t(np.array([0.0, 2.0])))


@pytest.mark.parametrize("name", LOOPS)
def test_float16(name: str) -> None:
    """Dtypes are PyTorch's, and values agree to half precision."""
    steps = 2 if name in ("SCMScheduler", "ConsistencyDecoderScheduler") else 5
    x, output = numbers(dtype="float16"), numbers(1, "float16")
    ours, theirs = pair(name, steps)
    expected = LOOPS[name](theirs, torch.from_numpy(x), torch.from_numpy(output), torch.Generator().manual_seed(0)).numpy()
    for kind in (np.asarray, ms.Tensor):
        scheduler = pair(name, steps)[0]
        got = LOOPS[name](scheduler, kind(x), kind(output), Generator().manual_seed(0))
        got = got.asnumpy() if kind is ms.Tensor else got
        assert got.dtype == expected.dtype
        limit = 4e-3 * max(1, np.abs(expected.astype(np.float64)).max())
        assert np.abs(got.astype(np.float64) - expected.astype(np.float64)).max() < limit


REFUSED = [
    ("EDMEulerScheduler", {"sigma_schedule": "nonsense"}, {"num_inference_steps": 5}),
    ("EDMEulerScheduler", {"final_sigmas_type": "nonsense"}, {"num_inference_steps": 5}),
    *(("CMStochasticIterativeScheduler", {}, arguments) for arguments in (
        {}, {"num_inference_steps": 2, "timesteps": [22, 0]}, {"timesteps": [0, 22]}, {"timesteps": [40, 0]}, {"num_inference_steps": 41})),
    *(("SCMScheduler", {}, {"num_inference_steps": count, **arguments}) for count, arguments in (
        (1001, {}), (2, {"timesteps": [1.5, 0.7, 0.0]}), (2, {"max_timesteps": None}), (4, {}),
        (2, {"timesteps": [1.5, 0.0], "max_timesteps": None}))),
    ("ConsistencyDecoderScheduler", {}, {"num_inference_steps": 3}),
]  # fmt: skip


@pytest.mark.parametrize("name, config, arguments", REFUSED)
def test_refused_by_both(name: str, config: dict, arguments: dict) -> None:
    for owner in (diffusers.schedulers, schedulers):
        with pytest.raises(ValueError):
            getattr(owner, name)(**config).set_timesteps(**arguments)


def test_an_ancestral_level_next_to_nothing() -> None:
    """5 steps of beta sigmas end with one from 2.6 to 0.029, whose lower level is sqrt(0.029^2 - up^2), almost 0. PyTorch's difference of
    float32 squares has 3 digits, so that the timestep of the step's middle is 6e-4 instead of 0. The samples agree even so."""
    case = Case("KDPM2AncestralDiscreteScheduler", {**SD, "use_beta_sigmas": True}, {"num_inference_steps": 5})
    ours, theirs = pair(case.scheduler, 5, **case.config)
    start, end = (float(ours.sigmas[index]) for index in (6, 7))
    down = end**2 / start
    assert 3e-4 < abs(float(theirs.sigmas_down[6]) / down - 1) < 1e-3 and abs((start * down) ** 0.5 / end - 1) < 1e-6
    assert ours.timesteps[-2] == 0 and 5e-4 < float(theirs.timesteps[-2]) < 7e-4
    got = run(ours, case, np.asarray, Generator().manual_seed(0))
    expected = run(theirs, case, torch.from_numpy, torch.Generator().manual_seed(0))
    for key in ("samples", "originals"):
        for sample, other in zip(got[key], expected[key]):
            assert np.abs(sample - other).max() <= 1e-5 * np.abs(other).max()
