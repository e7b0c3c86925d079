"""What the flow-matching schedulers promise beyond PyTorch's numbers: no device reads, kinds of arrays and timesteps, files, formulas."""

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers
from mindone_diffusers import Generator
from mindone_diffusers.schedulers import arrays, tables

from .cases_flow import CASES
from .device import unread
from .runner import Case, model, run

CLASSES = sorted({case.scheduler for case in CASES})
CONFIGS = {
    "FlowMatchEulerDiscreteScheduler": {"stochastic_sampling": True},
    "HeliosDMDScheduler": {"stages": 1},
    "PiflowScheduler": {"n_grid": 3},
}
SHAPE = (2, 2, 4, 4)


def make(name: str, steps: int = 4, **config):
    scheduler = getattr(mindone_diffusers, name)(**{**CONFIGS.get(name, {}), **config})
    scheduler.set_timesteps(steps)
    return scheduler


def numbers(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def step(scheduler, timestep, sample, output, index: int = 0):
    """A step with all that the scheduler needs; the noise is drawn with seed 0."""
    extra = {}
    if "Helios" in type(scheduler).__name__:
        schedule = scheduler.timesteps
        extra = {"cur_sampling_step": index, "dmd_noisy_tensor": output, "dmd_sigmas": scheduler.sigmas, "dmd_timesteps": schedule}
        extra["all_timesteps"] = schedule
    elif not any(kind in type(scheduler).__name__ for kind in ("FlowMap", "MiniMax", "Piflow")):
        extra = {"generator": np.random.default_rng(0)}
    return scheduler.step(output, timestep, sample, **extra).prev_sample


def output_for(scheduler, seed: int = 1) -> np.ndarray:
    return numbers(seed, (*SHAPE[:-1], SHAPE[-1] * scheduler.config.get("n_grid", 1)))


def test_per_token_timesteps_stay_on_the_device(monkeypatch) -> None:
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    x, output, timesteps = (ms.Tensor(numbers(seed, shape)) for seed, shape in ((0, (2, 3, 4)), (1, (2, 3, 4)), (2, (2, 3))))
    scheduler = unread(scheduler, monkeypatch)
    assert scheduler.step(output, scheduler.timesteps[0], x, per_token_timesteps=timesteps).prev_sample.shape == (2, 3, 4)


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_are_left_alone(name: str) -> None:
    scheduler = make(name)
    x, output = numbers(), output_for(scheduler)
    for index, timestep in enumerate(scheduler.timesteps):
        kept = x.copy()
        result = step(scheduler, timestep, x, output, index)
        np.testing.assert_array_equal(x, kept)
        np.testing.assert_array_equal(output, output_for(scheduler))
        x = result


@pytest.mark.parametrize("name", CLASSES)
def test_kinds_of_timesteps(name: str) -> None:
    results = []
    for kind in (lambda t: t, float, np.asarray, lambda t: ms.Tensor(np.asarray(t))):
        scheduler = make(name)
        x = numbers()
        for index, timestep in enumerate(scheduler.timesteps[:3]):
            x = step(scheduler, kind(timestep), x, output_for(scheduler), index)
        results.append(x)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("case", CASES[::9], ids=lambda case: case.name)
def test_a_second_run_is_the_first(case: Case) -> None:
    scheduler = getattr(mindone_diffusers, case.scheduler)(**case.config)
    first, second = (run(scheduler, case, np.asarray, Generator().manual_seed(0))["samples"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", [np.asarray, ms.Tensor])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler", "LTXEulerAncestralRFScheduler"])
def test_noise_comes_from_the_generator(name: str, kind) -> None:
    results = []
    for seed in (0, 0, 1):
        scheduler = make(name)
        arguments = (kind(numbers(1)), scheduler.timesteps[0], kind(numbers()))
        results.append(np.array(scheduler.step(*arguments, generator=np.random.default_rng(seed)).prev_sample))
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 0.01


@pytest.mark.parametrize("name", CLASSES)
def test_save_and_load(name: str, tmp_path) -> None:
    option = {"eta": 0.5} if name.startswith("LTX") else {"shift": 2.0}
    scheduler = make(name, **option)
    scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = getattr(mindone_diffusers, name).from_pretrained(tmp_path, subfolder="scheduler")
    assert {**loaded.config, "_": 0}.items() >= {k: v for k, v in scheduler.config.items() if k[0] != "_"}.items()
    loaded.set_timesteps(4)
    np.testing.assert_array_equal(loaded.timesteps, scheduler.timesteps)
    assert scheduler  # also where it has no length


# ---- formulas


def test_time_shift() -> None:
    t = np.linspace(0, 1, 6)
    np.testing.assert_allclose(tables.time_shift("linear", 3.0, 1.0, t), tables.shift_flow(t, 3.0), rtol=1e-14)
    np.testing.assert_allclose(tables.time_shift("exponential", np.log(3.0), 1.0, t), tables.shift_flow(t, 3.0), rtol=1e-14)
    odds = (1 - t[1:]) / t[1:]
    np.testing.assert_allclose(tables.time_shift("linear", 3.0, 2.0, t)[1:], 3 / (3 + odds**2), rtol=1e-14)
    stretched = tables.stretch_shift_to_terminal(t[::-1], 0.1)
    np.testing.assert_allclose(stretched, 1 - (1 - t[::-1]) * 0.9, rtol=1e-14)


@pytest.mark.parametrize("name", CLASSES)
def test_a_straight_flow_is_solved_in_any_number_of_steps(name: str) -> None:
    """With the true velocity of one clean sample, every scheduler arrives at it."""
    for steps in (2, 5):
        scheduler = make(name, steps, **({"eta": 0.0} if name.startswith("LTX") else {}))
        clean, noise = numbers(), numbers(1)
        x = noise
        for index, timestep in enumerate(scheduler.timesteps):
            sigma = float(scheduler.sigmas[getattr(scheduler, "step_index", None) or index])
            sign = -1 if name.startswith("MiniMax") else 1
            velocity = sign * (x - clean) / sigma
            x = step(scheduler, timestep, x, np.concatenate([velocity] * scheduler.config.get("n_grid", 1), axis=-1), index)
        np.testing.assert_allclose(x, clean, atol=2e-5)


def test_piflow_is_the_many_steps_it_stands_for() -> None:
    """Against the policy with samples in place of coefficients, in float64."""
    scheduler = mindone_diffusers.PiflowScheduler(n_grid=4, shift=3.0)
    scheduler.set_timesteps(3)
    x, output = numbers(), numbers(1, (*SHAPE[:-1], 16))
    got = scheduler.step(output, scheduler.timesteps[0], x).prev_sample
    times = np.linspace(scheduler._times[0], scheduler._times[1], 52, dtype=np.float64)  # 0.4 of the way in 51 steps of about 1 / 128
    sigmas = tables.shift_flow(times, 3.0)
    clean = [x - sigmas[0] * part.astype(np.float64) for part in np.split(output, 4, axis=-1)]
    y = x.astype(np.float64)
    for time, sigma, sigma_next in zip(times, sigmas, sigmas[1:]):
        place = (time - times[-1]) / (times[0] - times[-1]) * 3
        low = min(int(place), 2)
        target = (low + 1 - place) * clean[low] + (place - low) * clean[low + 1]
        y += (sigma_next - sigma) * (y - target) / sigma
    np.testing.assert_allclose(got, y, atol=2e-6)


def test_flow_map_steps_from_any_timestep_to_any() -> None:
    scheduler = make("FlowMapEulerDiscreteScheduler", 4, shift=3.0)
    x, velocity = numbers(), numbers(1)
    np.testing.assert_allclose(scheduler.step(velocity, 612.5, x, r_timestep=87.5).prev_sample, x - 0.525 * velocity, atol=1e-6)
    np.testing.assert_array_equal(scheduler.step(velocity, 500.0, x, r_timestep=500.0).prev_sample, x)
    each = scheduler.step(velocity, np.array([400.0, 200.0]), x, r_timestep=np.array([0.0, 100.0])).prev_sample
    np.testing.assert_allclose(each, x - np.array([0.4, 0.1]).reshape(2, 1, 1, 1) * velocity, atol=1e-6)
    assert scheduler.index_for_timestep(scheduler.timesteps[2]) == 2 and scheduler.index_for_timestep(333.0) is None


def test_shift_and_factors_can_be_changed() -> None:
    for name in ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler", "MiniMaxH3Scheduler"):
        scheduler = make(name, shift=3.0)
        np.testing.assert_equal(scheduler.shift, 3.0)
        before = scheduler.sigmas
        scheduler.set_shift(5.0)
        scheduler.set_timesteps(4)
        assert scheduler.shift == 5.0 and scheduler.config.shift == 3.0 and (scheduler.sigmas[1:-1] > before[1:-1]).all()
    lcm = make("FlowMatchLCMScheduler", 2)
    lcm.set_scale_factors([2.0], "nearest")
    assert lcm.step(numbers(1), lcm.timesteps[0], numbers()).prev_sample.shape == (2, 2, 8, 8)


@pytest.mark.parametrize("mode", tables.RESIZE_MODES)
def test_resizing_keeps_constants(mode: str) -> None:
    for source, target in ((4, 9), (9, 4), (5, 5), (1, 3)):
        matrix = tables.resize_matrix(source, target, mode)
        np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-12)
        if source == target:
            np.testing.assert_allclose(matrix, np.eye(source), atol=1e-12)


def test_resizing_formulas() -> None:
    np.testing.assert_allclose(tables.resize_matrix(4, 2, "area").T, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(tables.resize_matrix(2, 4, "linear").T, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(tables.resize_matrix(2, 4, "nearest").T, [[1, 0], [1, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(tables.resize_matrix(5, 3, "nearest-exact").argmax(axis=0), [0, 2, 4])
    # Keys' cubic with a = -0.75 at the distances 1.75, 0.75, 0.25 and 1.25
    cubic = tables.resize_matrix(8, 16, "bicubic")[:, 6]
    np.testing.assert_allclose(cubic[1:5] * 256, [-9, 67, 225, -27], atol=1e-9)
    sample = numbers(0, (1, 2, 3, 4))
    both = [np.array(arrays.resize(kind(sample), [5, 6], "bicubic")) for kind in (np.asarray, ms.Tensor)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)


def test_stages_follow_each_other() -> None:
    scheduler = mindone_diffusers.HeliosDMDScheduler()
    ratios = scheduler.timestep_ratios
    assert ratios[0][0] == 0 and ratios[0][1] == ratios[1][0] and ratios[1][1] == ratios[2][0] and ratios[2][1] == 0.9999999999999999
    assert all(scheduler.start_sigmas[stage] > scheduler.end_sigmas[stage] for stage in range(3))
    # Pyramid Flow's start after renoising with gamma = 1/3: 1 - s' = (1 - s) / (2 s + 1 - s)
    start = scheduler.ori_start_sigmas[1]
    np.testing.assert_allclose(1 - scheduler.start_sigmas[1], (1 - start) / (1 + start), rtol=1e-12)


def test_heun_is_more_accurate_than_euler() -> None:
    def final(name: str, steps: int) -> np.ndarray:
        scheduler, x = make(name, steps, **({"stochastic_sampling": False} if "Euler" in name else {})), numbers()
        for timestep in scheduler.timesteps:
            x = scheduler.step(model(0.3 * x, 0.0, 2), timestep, x).prev_sample
        return x

    exact = final("FlowMatchHeunDiscreteScheduler", 400)
    errors = [np.abs(final(f"FlowMatch{kind}DiscreteScheduler", 20) - exact).max() for kind in ("Heun", "Euler")]
    assert errors[0] < errors[1] / 5
