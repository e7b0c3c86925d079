"""What the loops do not show of DDPM, DDIM and their relatives, against PyTorch: batched steps, noising, half precision, errors."""

import inspect

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindone_diffusers  # noqa: E402
from mindone_diffusers import Generator  # noqa: E402
from tests.schedulers.cases_ddpm import CASES, PREDICTIONS, THRESHOLD  # noqa: E402
from tests.schedulers.runner import SD, ZERO_SNR  # noqa: E402

CLASSES = sorted({case.scheduler for case in CASES})
WUERSTCHEN = "DDPMWuerstchenScheduler"
SHAPE = (3, 2, 4, 4)


def pair(name: str, **config):
    return getattr(mindone_diffusers, name)(**config), getattr(diffusers, name)(**config)


def numbers(seed: int = 0, channels: int = 2, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SHAPE[0], channels, *SHAPE[2:])).astype(dtype)


def host(values) -> np.ndarray:
    return values.asnumpy() if isinstance(values, ms.Tensor) else np.asarray(values)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", [np.asarray, ms.Tensor])
@pytest.mark.parametrize(
    "name, config",
    [
        *(("DDPMParallelScheduler", {**SD, "prediction_type": prediction}) for prediction in PREDICTIONS),
        *(("DDIMParallelScheduler", {**SD, "prediction_type": prediction}) for prediction in PREDICTIONS),
        ("DDPMParallelScheduler", {**SD, **THRESHOLD}),
        ("DDPMParallelScheduler", {**SD, "variance_type": "learned"}),
        ("DDIMParallelScheduler", {**SD, **THRESHOLD}),
        ("DDIMParallelScheduler", {**SD, "set_alpha_to_one": False, "clip_sample": False}),
        ("DDIMParallelScheduler", ZERO_SNR),
    ],
)
def test_batch_step_no_noise(name: str, config: dict, kind, dtype: type) -> None:
    ours, theirs = pair(name, **config)
    ours.set_timesteps(5)
    theirs.set_timesteps(5)
    timesteps = theirs.timesteps[[0, 2, 4]]
    sample, output = numbers(dtype=dtype), numbers(1, 4 if "variance_type" in config else 2, dtype)
    clipped = [False, True] if name.startswith("DDIM") else [None]
    for use in clipped:
        extra = {} if use is None else {"use_clipped_model_output": use}
        got = ours.batch_step_no_noise(kind(output), timesteps.numpy(), kind(sample), **extra)
        expected = theirs.batch_step_no_noise(torch.from_numpy(output), timesteps, torch.from_numpy(sample), **extra).numpy()
        assert host(got).dtype == expected.dtype == np.float32
        np.testing.assert_allclose(host(got), expected, rtol=0, atol=(1e-5 if dtype is np.float32 else 4e-3) * np.abs(expected).max())


def test_batch_step_before_set_timesteps() -> None:
    ours, theirs = pair("DDPMParallelScheduler", **SD)
    expected = theirs.batch_step_no_noise(torch.from_numpy(numbers(1)), torch.tensor([999, 500, 1]), torch.from_numpy(numbers())).numpy()
    np.testing.assert_allclose(ours.batch_step_no_noise(numbers(1), [999, 500, 1], numbers()), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", [np.asarray, ms.Tensor])
@pytest.mark.parametrize(
    "name", [name for name in CLASSES if hasattr(getattr(diffusers, name), "add_noise") and name != "RePaintScheduler"]
)
def test_forward_process(name: str, kind, dtype: type) -> None:
    ours, theirs = pair(name)
    # Not near 0 in float16: there PyTorch, which casts alphas_cumprod to it, has lost 1 - alphas_cumprod.
    timesteps = np.array([0.9, 0.5, 0.001], np.float32) if name == WUERSTCHEN else np.array([999, 500, 3 if dtype is np.float32 else 60])
    sample, noise = numbers(dtype=dtype), numbers(1, dtype=dtype)
    for method in ("add_noise", "get_velocity"):
        if hasattr(theirs, method):
            expected = getattr(theirs, method)(torch.from_numpy(sample), torch.from_numpy(noise), torch.from_numpy(timesteps)).numpy()
            got = host(getattr(ours, method)(kind(sample), kind(noise), kind(timesteps)))
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 if dtype is np.float32 else 4e-3)


@pytest.mark.parametrize("name", CLASSES)
def test_float16_steps(name: str) -> None:
    """Dtypes are upstream's in every step of half-precision samples, and values agree to half precision."""
    schedulers = *pair(name), getattr(mindone_diffusers, name)()
    for scheduler in schedulers:
        scheduler.set_timesteps(4)
    ours, theirs, on_mindspore = schedulers
    original = None
    for index, timestep in enumerate(ours.timesteps[:3]):
        sample, output = numbers(index, dtype=np.float16), numbers(index + 10, dtype=np.float16)
        results = []
        for scheduler, kind, generator in zip(
            schedulers, (np.asarray, torch.from_numpy, ms.Tensor), (Generator, torch.Generator, Generator)
        ):
            given = {
                "generator": generator().manual_seed(index),
                "prev_timestep": scheduler.timesteps[index + 1],
                "timestep_back": scheduler.timesteps[index - 1] if index else None,
                "old_pred_original_sample": None if original is None else kind(original),
                "original_image": kind(numbers(5, dtype=np.float16)),
                "mask": kind((numbers(6) > 0).astype(np.float16)),
            }
            given = {key: value for key, value in given.items() if key in inspect.signature(scheduler.step).parameters}
            t = scheduler.timesteps[index]
            t = (np.repeat(t, 3) if scheduler is not theirs else t.expand(3)) if name == WUERSTCHEN else t
            results.append(scheduler.step(model_output=kind(output), timestep=t, sample=kind(sample), **given, return_dict=False))
        for got, expected, also in zip(*results):
            expected = expected.numpy()
            assert got.dtype == host(also).dtype == expected.dtype
            # A prediction that is divided by a small sqrt(alpha) carries half precision's rounding of the difference.
            signal = 1 if name == WUERSTCHEN else float(ours.alphas_cumprod[int(timestep)]) ** 0.5
            limit = 6e-3 * max(1, np.abs(expected.astype(np.float32)).max()) if signal > 0.2 else 1.0
            assert np.abs(got.astype(np.float32) - expected).max() < limit
            assert np.abs(host(also).astype(np.float32) - expected).max() < limit
        original = results[1][-1].numpy()


@pytest.mark.parametrize("name", ["DDPMScheduler", "LCMScheduler", "TCDScheduler"])
def test_previous_timestep(name: str) -> None:
    ours, theirs = pair(name)
    assert [ours.previous_timestep(t) for t in (999, 5, 0)] == [theirs.previous_timestep(t) for t in (999, 5, 0)] == [998, 4, -1]
    for arguments in ({"num_inference_steps": 4}, {"timesteps": [999, 500, 20]}):
        ours.set_timesteps(**arguments)
        theirs.set_timesteps(**arguments)
        assert [ours.previous_timestep(t) for t in ours.timesteps] == [int(theirs.previous_timestep(t)) for t in theirs.timesteps]
        with pytest.raises(IndexError):
            theirs.previous_timestep(7)
        with pytest.raises(IndexError, match="timestep 7 is not in the schedule"):
            ours.previous_timestep(7)


def test_wuerstchen_previous_timestep() -> None:
    ours, theirs = pair(WUERSTCHEN)
    ours.set_timesteps(7)
    theirs.set_timesteps(7)
    for index in (0, 3, 6):
        expected = theirs.previous_timestep(theirs.timesteps[index].expand(2)).numpy()
        np.testing.assert_array_equal(ours.previous_timestep(np.repeat(ours.timesteps[index], 2)), expected)
    for timestep in (ours.timesteps[-1:], theirs.timesteps[-1:]):
        with pytest.raises(IndexError):
            (ours if isinstance(timestep, np.ndarray) else theirs).previous_timestep(timestep)


@pytest.mark.parametrize("alphas", [(0.1, 0.4), (0.1, 0.4, 0.05), (0.0, 0.3), (0.3, 1.0), (0.2, 0.5, 0.0)])
def test_cogvideox_factors(alphas: tuple[float, ...]) -> None:
    ours, theirs = pair("CogVideoXDPMScheduler")
    tensors = [torch.tensor(alpha, dtype=torch.float64) for alpha in alphas]
    got, expected = ours.get_variables(*alphas), theirs.get_variables(*tensors)
    assert [value is None for value in got] == [value is None for value in expected]
    np.testing.assert_allclose([v for v in got if v is not None], [float(v) for v in expected if v is not None], rtol=1e-12)
    got, expected = ours.get_mult(*got[:2], *alphas), theirs.get_mult(*expected[:2], *tensors)
    np.testing.assert_allclose(got, [float(value) for value in expected], rtol=1e-12)


def test_lcm_boundary_condition() -> None:
    ours, theirs = pair("LCMScheduler", timestep_scaling=0.02)
    for timestep in (0, 19, 999):
        expected = theirs.get_scalings_for_boundary_condition_discrete(timestep)
        np.testing.assert_allclose(ours.get_scalings_for_boundary_condition_discrete(timestep), expected, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != WUERSTCHEN])
def test_tables(name: str) -> None:
    ours, theirs = pair(name)
    assert ours.init_noise_sigma == theirs.init_noise_sigma == 1 and len(ours) == 1000
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    for table in ("betas", "alphas", "alphas_cumprod"):
        got, expected = getattr(ours, table), getattr(theirs, table).numpy()
        assert got.dtype == expected.dtype
        # CogVideoX's are of float64, to its last bits; the others are equal to float32's last.
        np.testing.assert_allclose(got, expected, rtol=1e-13 if got.dtype == np.float64 else 0)
    for value in ("final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(theirs, value):
            assert getattr(ours, value) == float(getattr(theirs, value))


def test_old_argument_of_ddim_inverse() -> None:
    with pytest.warns(FutureWarning):
        ours, theirs = pair("DDIMInverseScheduler", set_alpha_to_zero=False)
    assert ours.initial_alpha_cumprod == float(theirs.initial_alpha_cumprod) < 1
    assert {k: v for k, v in ours.config.items() if k[0] != "_"} == {k: v for k, v in theirs.config.items() if k[0] != "_"}


def test_inverse_of_another_config() -> None:
    """What the inverse has no argument for is kept in its config and does nothing, as dynamic thresholding here."""
    results = []
    for package, kind in ((mindone_diffusers, np.asarray), (diffusers, torch.from_numpy)):
        forward = package.DDIMScheduler(**SD, **THRESHOLD, clip_sample=False)
        scheduler = package.DDIMInverseScheduler.from_config(forward.config)
        scheduler.set_timesteps(5)
        results.append(np.asarray(scheduler.step(kind(numbers()), scheduler.timesteps[2], kind(numbers(1)), return_dict=False)[1]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-5)


DISTILLED = ("LCMScheduler", "TCDScheduler")
SIZED = [name for name in CLASSES if name not in ("UnCLIPScheduler", "RePaintScheduler", WUERSTCHEN, *DISTILLED)]
BAD_CALLS = [
    *((name, {}, {"num_inference_steps": 1001}) for name in (*SIZED, *DISTILLED)),
    *((name, {"timestep_spacing": "nonsense"}, {"num_inference_steps": 5}) for name in SIZED),
    ("DDIMInverseScheduler", {"timestep_spacing": "linspace"}, {"num_inference_steps": 5}),
    *((name, {}, {"num_inference_steps": 3, "timesteps": [9, 5, 1]}) for name in ("DDPMScheduler", *DISTILLED)),
    *((name, {}, {"timesteps": [9, 9, 1]}) for name in ("DDPMScheduler", *DISTILLED)),
    *((name, {}, {"timesteps": [1000, 9, 1]}) for name in ("DDPMScheduler", *DISTILLED)),
    *((name, {}, {}) for name in DISTILLED),
    *((name, {}, {"num_inference_steps": 51}) for name in DISTILLED),
    *((name, {}, {"num_inference_steps": 26, "strength": 0.5}) for name in DISTILLED),
    *((name, {"original_inference_steps": 1001}, {"num_inference_steps": 4}) for name in DISTILLED),
    ("TCDScheduler", {}, {"num_inference_steps": 30, "original_inference_steps": 20}),
]


@pytest.mark.parametrize("name, config, arguments", BAD_CALLS)
def test_refused_by_both_set_timesteps(name: str, config: dict, arguments: dict) -> None:
    ours, theirs = pair(name, **config)
    with pytest.raises(ValueError):
        theirs.set_timesteps(**arguments)
    with pytest.raises(ValueError):
        ours.set_timesteps(**arguments)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != WUERSTCHEN])
def test_refused_by_both_constructors(name: str) -> None:
    for package in (diffusers, mindone_diffusers):
        with pytest.raises(ValueError if name == "UnCLIPScheduler" else NotImplementedError):
            getattr(package, name)(beta_schedule="nonsense")


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("RePaintScheduler", WUERSTCHEN)])
def test_refused_by_both_steps(name: str) -> None:
    for package, kind in ((diffusers, torch.from_numpy), (mindone_diffusers, np.asarray)):
        scheduler = getattr(package, name)(prediction_type="v_prediction" if name == "UnCLIPScheduler" else "nonsense")
        scheduler.set_timesteps(5)
        extra = {"old_pred_original_sample": None, "timestep_back": None} if name == "CogVideoXDPMScheduler" else {}
        with pytest.raises(ValueError, match="prediction_type"):
            scheduler.step(model_output=kind(numbers()), timestep=scheduler.timesteps[0], sample=kind(numbers()), **extra)
        fresh = getattr(package, name)()
        if name not in ("DDPMScheduler", "DDPMParallelScheduler", "UnCLIPScheduler", "DDIMInverseScheduler"):
            with pytest.raises(ValueError, match="set_timesteps"):
                fresh.step(model_output=kind(numbers()), timestep=3, sample=kind(numbers()), **extra)
        if name in DISTILLED:
            scheduler = getattr(package, name)()
            scheduler.set_timesteps(5)
            with pytest.raises(IndexError):
                scheduler.step(kind(numbers()), 3, kind(numbers()))


def test_custom_timesteps_and_steps_without_a_schedule() -> None:
    """DDPM steps through all of training's timesteps if none were chosen."""
    results = []
    for scheduler, kind, generator in zip(pair("DDPMScheduler", **SD), (np.asarray, torch.from_numpy), (Generator(), torch.Generator())):
        x = kind(numbers())
        for timestep in (999, 998, 500, 2, 1, 0):
            x = scheduler.step(kind(numbers(timestep)), timestep, x, generator=generator.manual_seed(timestep)).prev_sample
        results.append(np.asarray(x))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-5)
