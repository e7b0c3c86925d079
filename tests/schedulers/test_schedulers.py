"""What schedulers promise beyond PyTorch's numbers: no device reads, kinds of arrays and timesteps, files, errors."""

import inspect
import logging

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers
from mindone_diffusers import Generator
from mindone_diffusers.core.errors import CheckpointError, ConfigError, UnsupportedError
from mindone_diffusers.schedulers import AysSchedules, KarrasDiffusionSchedulers, tables

from .cases import CASES
from .device import unread
from .runner import SD, Case, deviation, run

CLASSES = sorted(
    {
        case.scheduler
        for case in CASES
        if "beta_start" in inspect.signature(getattr(mindone_diffusers.schedulers, case.scheduler)).parameters
    }
)
STOCHASTIC = {"DDIMScheduler": {"eta": 1.0}, "EulerDiscreteScheduler": {"s_churn": 5.0}, "EulerAncestralDiscreteScheduler": {}}
SHAPE = (2, 2, 4, 4)


def make(name: str, steps: int = 5, **config):
    seed = {"noise_sampler_seed": 0} if name == "DPMSolverSDEScheduler" else {}
    scheduler = getattr(mindone_diffusers.schedulers, name)(**{**SD, **seed, **config})
    scheduler.set_timesteps(steps)
    return scheduler


def step(scheduler, output, timestep, x, **kwargs):
    """`scheduler.step` with whatever else it has to be given."""
    needed = {"original_image": x, "mask": 0 * x, "old_pred_original_sample": None, "timestep_back": None}
    taken = inspect.signature(scheduler.step).parameters
    return scheduler.step(model_output=output, timestep=timestep, sample=x, **{k: v for k, v in needed.items() if k in taken}, **kwargs)


def seeded(scheduler) -> dict:
    return {"generator": np.random.default_rng(0)} if "generator" in inspect.signature(scheduler.step).parameters else {}


def plain(values):
    return values.asnumpy() if isinstance(values, ms.Tensor) else values


def numbers(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


FIRST = {case.scheduler: case.name for case in reversed(CASES)}
SOME = [case for index, case in enumerate(CASES) if index % 9 == 0 or case.name in FIRST.values() or case.config.get("thresholding")]


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
def test_mindspore_is_numpy_and_nothing_is_read_from_the_device(case: Case, monkeypatch) -> None:
    make_scheduler = getattr(mindone_diffusers.schedulers, case.scheduler)
    numpy = run(make_scheduler(**case.config), case, np.asarray, Generator().manual_seed(0))
    scheduler = unread(make_scheduler(**case.config), monkeypatch)
    mindspore = run(scheduler, case, ms.Tensor, Generator().manual_seed(0), plain)
    assert deviation(mindspore, numpy) < 1e-5


@pytest.mark.parametrize("case", [case for case in SOME if case.name in FIRST.values()], ids=lambda case: case.name)
def test_tensors_on_the_cpu_are_computed_with_as_arrays(case: Case) -> None:
    make_scheduler = getattr(mindone_diffusers.schedulers, case.scheduler)
    numpy = run(make_scheduler(**case.config), case, np.asarray, Generator().manual_seed(0))
    mindspore = run(make_scheduler(**case.config), case, ms.Tensor, Generator().manual_seed(0), plain)
    assert deviation(mindspore, numpy) == 0


def test_what_tensors_give() -> None:
    scheduler = make("EulerDiscreteScheduler")
    x, output, t = ms.Tensor(numbers()), ms.Tensor(numbers(1)), scheduler.timesteps[0]
    scheduler.scale_model_input(x, t)
    result = scheduler.step(output, ms.Tensor(t), x)
    assert isinstance(result.prev_sample, ms.Tensor) and isinstance(result["pred_original_sample"], ms.Tensor)
    assert isinstance(scheduler.step(output, scheduler.timesteps[1], x, return_dict=False)[0], ms.Tensor)
    assert isinstance(scheduler.add_noise(x, output, scheduler.timesteps[:1]), ms.Tensor)
    half = scheduler.step(output.astype(ms.float16), scheduler.timesteps[2], x.astype(ms.float16))
    assert half.prev_sample.dtype == ms.float16
    assert make("DDIMScheduler").scale_model_input(x, 0) is x


def test_a_gradient_passes_through_a_step() -> None:
    scheduler = make("DDIMScheduler", clip_sample=False)
    timestep = scheduler.timesteps[0]

    def loss(x: ms.Tensor, output: ms.Tensor) -> ms.Tensor:
        return scheduler.step(output, timestep, x, return_dict=False)[0].sum()

    gradients = ms.grad(loss, (0, 1))(ms.Tensor(numbers()), ms.Tensor(numbers(1)))
    zeros, ones = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)  # the step is linear: its factors are its values at 1 and 0
    for gradient, arrays in zip(gradients, ((zeros, ones), (ones, zeros))):
        expected = scheduler.step(arrays[0], timestep, arrays[1], return_dict=False)[0]
        np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=1e-5)


def test_reads_are_noticed(monkeypatch) -> None:
    scheduler = unread(make("EulerDiscreteScheduler"), monkeypatch)
    scheduler.sigmas = ms.Tensor(scheduler.sigmas)  # whose items are numbers on the device
    with pytest.raises(AssertionError, match="scale_model_input reads the device"):
        scheduler.scale_model_input(ms.Tensor(numbers()), scheduler.timesteps[0])


BATCHED = {"DDIMParallelScheduler": {}, "DDPMParallelScheduler": {"variance_type": "learned_range"}}


@pytest.mark.parametrize("name", CLASSES)
def test_noising_reads_nothing_from_the_device(name: str, monkeypatch) -> None:
    scheduler = unread(make(name, **BATCHED.get(name, {})), monkeypatch)
    x, output = ms.Tensor(numbers()), ms.Tensor(np.concatenate([numbers(1)] * (1 + ("variance_type" in BATCHED.get(name, {}))), axis=1))
    if name != "RePaintScheduler":
        assert scheduler.add_noise(x, x, scheduler.timesteps[:1]).shape == SHAPE
    if name in BATCHED:
        assert scheduler.batch_step_no_noise(output, scheduler.timesteps[:2], x).shape == SHAPE


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_are_left_alone(name: str) -> None:
    scheduler = make(name)
    x, output = numbers(), numbers(1)
    for timestep in scheduler.timesteps:
        kept = x.copy()
        scheduler.scale_model_input(x, timestep)
        result = step(scheduler, output, timestep, x, return_dict=False)[0]
        np.testing.assert_array_equal(x, kept)
        np.testing.assert_array_equal(output, numbers(1))
        x = result


@pytest.mark.parametrize("name", CLASSES)
def test_kinds_of_timesteps(name: str) -> None:
    results = []
    for kind in (lambda t: t, float, np.asarray, ms.Tensor, lambda t: ms.Tensor(np.asarray(t)).reshape(())):
        scheduler = make(name)
        x = numbers()
        for timestep in scheduler.timesteps[:3]:
            scheduler.scale_model_input(x, kind(timestep))
            x = step(scheduler, numbers(1), kind(timestep), x, **seeded(scheduler), return_dict=False)[0]
        results.append(x)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("name", CLASSES)
def test_a_second_run_is_the_first(name: str) -> None:
    scheduler = getattr(mindone_diffusers.schedulers, name)(**SD)
    case = Case(name, SD)
    first, second = (run(scheduler, case, np.asarray, Generator().manual_seed(0))["samples"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", [*STOCHASTIC, "DPMSolverMultistepScheduler"])
def test_noise_comes_from_the_generator(name: str) -> None:
    config = {"algorithm_type": "sde-dpmsolver++"} if name.startswith("DPM") else {}
    results = []
    for kind in (np.asarray, ms.Tensor):
        for seed in (0, 0, 1):
            scheduler = make(name, **config)
            scheduler.scale_model_input(kind(numbers()), scheduler.timesteps[0])
            generator = np.random.default_rng(seed)
            result = scheduler.step(
                kind(numbers(1)), scheduler.timesteps[0], kind(numbers()), generator=generator, **STOCHASTIC.get(name, {})
            ).prev_sample
            results.append(result if kind is np.asarray else result.asnumpy())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[3], rtol=1e-6, atol=1e-6)
    assert np.abs(results[0] - results[2]).max() > 0.01


def add_to(sample):
    sample += 1
    return sample


def write_into(sample):
    sample[0] = 2
    return sample


def write_part(sample):
    sample[:, :1, 1:] = 0.5
    return sample


@pytest.mark.parametrize("change", [add_to, write_into, write_part])
def test_a_sample_changed_in_place_between_steps(change) -> None:
    """A step's result is the sample it is given next, also where a callback or a mask has written into it."""
    samples = []
    for kind in (np.array, ms.Tensor):
        scheduler, sample = make("EulerDiscreteScheduler", 3), kind(numbers())
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(sample, timestep)
            sample = change(scheduler.step(scaled, timestep, sample).prev_sample)
        samples.append(plain(sample))
    np.testing.assert_allclose(samples[1], samples[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_variance_noise(name: str) -> None:
    """The noise given is the noise used: that of a generator, given as an array, gives the same sample."""
    config, step = ({}, {"eta": 1.0}) if name == "DDIMScheduler" else ({"algorithm_type": "sde-dpmsolver++"}, {})
    noise = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)
    drawn = make(name, **config).step(numbers(1), make(name).timesteps[0], numbers(), generator=np.random.default_rng(5), **step)
    given = make(name, **config).step(numbers(1), make(name).timesteps[0], numbers(), variance_noise=noise, **step)
    np.testing.assert_array_equal(drawn.prev_sample, given.prev_sample)


def test_lms_coefficients() -> None:
    """Against adaptive quadrature in float64."""
    integrate = pytest.importorskip("scipy.integrate")
    scheduler = make("LMSDiscreteScheduler", 12)
    sigmas = scheduler.sigmas.astype(np.float64)
    for order in (1, 2, 3, 4, 6):
        for t in (order - 1, 8):
            for current in range(order):
                nodes = [sigmas[t - k] for k in range(order) if k != current]

                def derivative(tau: float, nodes=nodes, own=sigmas[t - current]) -> float:
                    return float(np.prod([(tau - node) / (own - node) for node in nodes]))

                expected = integrate.quad(derivative, sigmas[t], sigmas[t + 1], epsabs=1e-13, epsrel=1e-12)[0]
                assert abs(scheduler.get_lms_coefficient(order, t, current) - expected) < 1e-10 * max(1, abs(expected))


def test_beta_sigmas_are_quantiles() -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = 0.03 + stats.beta.ppf(1 - np.linspace(0, 1, 9), 0.6, 0.6) * (14.6 - 0.03)
    np.testing.assert_allclose(tables.beta_sigmas(14.6, 0.03, 9), expected, rtol=1e-12)


@pytest.mark.parametrize("config", [{"solver_order": 3}, {"solver_type": "heun"}])
def test_a_step_between_equal_noise_levels_keeps_the_sample(config: dict) -> None:
    scheduler = make("DPMSolverMultistepScheduler", 25, use_karras_sigmas=True, final_sigmas_type="sigma_min", **config)
    assert scheduler.sigmas[-1] == scheduler.sigmas[-2]
    x = numbers()
    for index, timestep in enumerate(scheduler.timesteps):
        before, x = x, scheduler.step(numbers(index), timestep, x).prev_sample
    np.testing.assert_array_equal(x, before)


def test_align_your_steps() -> None:
    scheduler = mindone_diffusers.EulerDiscreteScheduler(**SD)
    scheduler.set_timesteps(sigmas=AysSchedules["StableDiffusionSigmas"])
    assert len(scheduler.timesteps) == 10 and scheduler.init_noise_sigma == np.float32(14.615)
    dpm = mindone_diffusers.DPMSolverMultistepScheduler(**SD)
    dpm.set_timesteps(timesteps=AysSchedules["StableDiffusionTimesteps"])
    assert dpm.timesteps.tolist() == AysSchedules["StableDiffusionTimesteps"]


def test_dynamic_shift_is_not_kept() -> None:
    """`mu` counts for its own call; PyTorch diffusers keeps the last one in the config."""
    scheduler = mindone_diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", use_dynamic_shifting=True
    )
    scheduler.set_timesteps(5)
    plain = scheduler.sigmas
    scheduler.set_timesteps(5, mu=1.0)
    assert (scheduler.sigmas[1:-1] > plain[1:-1]).all()
    scheduler.set_timesteps(5)
    np.testing.assert_array_equal(scheduler.sigmas, plain)


# ---- files


@pytest.mark.parametrize("name", CLASSES)
def test_save_and_load(name: str, tmp_path) -> None:
    scheduler = getattr(mindone_diffusers.schedulers, name)(**SD, trained_betas=np.linspace(0.001, 0.02, 50), num_train_timesteps=50)
    scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = getattr(mindone_diffusers.schedulers, name).from_pretrained(tmp_path, subfolder="scheduler")
    np.testing.assert_array_equal(loaded.betas, scheduler.betas)
    changed, unused = getattr(mindone_diffusers.schedulers, name).from_pretrained(
        tmp_path, subfolder="scheduler", beta_end=0.03, other=1, return_unused_kwargs=True
    )
    assert changed.config.beta_end == 0.03 and unused["other"] == 1


def test_file_missing(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="scheduler_config.json"):
        mindone_diffusers.DDIMScheduler.from_pretrained(tmp_path)


def test_compatibles() -> None:
    scheduler = mindone_diffusers.PNDMScheduler(skip_prk_steps=True, **SD)
    there = {name for name in KarrasDiffusionSchedulers.__members__ if hasattr(mindone_diffusers, name)}
    assert {c.__name__ for c in scheduler.compatibles} == there
    euler = mindone_diffusers.EulerDiscreteScheduler.from_config(scheduler.config)
    assert euler.config.beta_end == 0.012
    assert mindone_diffusers.PNDMScheduler.from_config(euler.config).config.skip_prk_steps  # kept on the way
    assert mindone_diffusers.DPMSolverMultistepScheduler.from_config({"algorithm_type": "deis"}).config.algorithm_type == "dpmsolver++"


# ---- errors say what was wrong


def test_errors() -> None:
    ours = mindone_diffusers
    x = numbers()
    with pytest.raises(UnsupportedError, match="beta_schedule is 'cubic'; expected one of linear, scaled_linear"):
        ours.DDIMScheduler(beta_schedule="cubic")
    with pytest.raises(ConfigError, match="use_karras_sigmas and use_beta_sigmas"):
        ours.HeunDiscreteScheduler(use_karras_sigmas=True, use_beta_sigmas=True)
    with pytest.raises(ConfigError, match="use_flow_sigmas"):
        ours.DPMSolverMultistepScheduler(use_flow_sigmas=True, use_karras_sigmas=True)
    with pytest.raises(UnsupportedError, match="no solver_order 3"):
        ours.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver", solver_order=3, final_sigmas_type="sigma_min")
    with pytest.raises(TypeError, match="nonsense"):
        ours.DDIMScheduler(nonsense=1)
    with pytest.raises(ValueError, match="call `set_timesteps` before `step`"):
        ours.PNDMScheduler().step(x, 1, x)
    with pytest.raises(ConfigError, match="prediction_type is 'sample'; expected one of epsilon, v_prediction"):
        make("PNDMScheduler", prediction_type="sample").step(x, 800, x)
    with pytest.raises(ConfigError, match="flow_prediction"):
        make(
            "DPMSolverMultistepScheduler", algorithm_type="dpmsolver", final_sigmas_type="sigma_min", prediction_type="flow_prediction"
        ).step(x, 999, x)
    with pytest.raises(ValueError, match="12 Runge-Kutta"):
        make("PNDMScheduler").step_plms(x, 800, x)
    with pytest.raises(ValueError, match="3 timesteps for a batch of 2"):
        make("DDIMScheduler").add_noise(x, x, [1, 2, 3])
    with pytest.raises(IndexError, match="timestep 3.5 is not in the schedule"):
        make("LMSDiscreteScheduler").scale_model_input(x, 3.5)
    with pytest.raises(ValueError, match="loop counter"):
        make("EulerDiscreteScheduler").step(x, 3, x)
    with pytest.raises(ValueError, match="shape|broadcast"):
        make("DDIMScheduler").step(x[..., :3], 800, x)


def test_warning_without_scale_model_input(caplog) -> None:
    scheduler = make("EulerDiscreteScheduler")
    library = logging.getLogger("mindone_diffusers")
    library.addHandler(caplog.handler)
    scheduler.step(numbers(), scheduler.timesteps[0], numbers())
    library.removeHandler(caplog.handler)
    assert "scale_model_input" in caplog.text
