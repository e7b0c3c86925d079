"""A scheduler run that is compared with PyTorch: a whole denoising loop with a made-up model, computed by NumPy for both sides."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
SPACINGS = ("linspace", "leading", "trailing")
TRAINED_BETAS = np.linspace(0.001, 0.02, 100).tolist()


@dataclass(frozen=True)
class Case:
    """One run: `scheduler(**config)`, `set_timesteps(**timesteps)`, then steps from index `begin` with the arguments `step`."""

    scheduler: str
    config: dict[str, Any] = field(default_factory=dict)
    timesteps: dict[str, Any] = field(default_factory=lambda: {"num_inference_steps": 10})
    step: dict[str, Any] = field(default_factory=dict)
    begin: int | None = None
    channels: int = 2

    @property
    def float64_coefficients(self) -> bool:
        """Whether PyTorch is to take its steps' factors in float64: in float32 this one has lost too many digits to compare with."""
        return self.config.get("algorithm_type") == "sde-dpmsolver++" and self.config.get("solver_order") == 3

    @property
    def name(self) -> str:
        def spell(values: dict[str, Any]) -> str:
            return ",".join(f"{key}={'...' if len(str(value)) > 60 else value}" for key, value in values.items())

        parts = [self.scheduler.removesuffix("Scheduler"), spell(self.config), spell(self.timesteps), spell(self.step)]
        return "/".join(part for part in parts if part) + (f"/begin={self.begin}" if self.begin is not None else "")


def model(sample: np.ndarray, timestep: float, prediction_channels: int) -> np.ndarray:
    """A made-up prediction: smooth in the sample and the timestep, different in every place."""
    place = np.arange(sample.size, dtype=np.float64).reshape(sample.shape)
    output = np.sin(1.3 * sample.astype(np.float64) + 0.004 * timestep + place) + 0.3 * np.cos(0.7 * place)
    return np.concatenate([output] * (prediction_channels // sample.shape[1]), axis=1).astype(np.float32)


def run(scheduler: Any, case: Case, array: Callable, generator: Any, plain: Callable = np.asarray) -> dict[str, np.ndarray]:
    """The whole loop.

    Args:
        scheduler: ours, or PyTorch diffusers'.
        case: what to run.
        array: from NumPy to the arrays the scheduler is to step.
        generator: seeded; draws the noise of stochastic steps.
        plain: back to NumPy.

    Returns:
        "timesteps", "sigmas" (if there are), "samples" (initial, then one a step), "originals" (if predicted).
    """
    scheduler.set_timesteps(**case.timesteps)
    if case.float64_coefficients and hasattr(scheduler.sigmas, "double"):
        scheduler.sigmas = scheduler.sigmas.double()
    random = np.random.default_rng(0)
    shape = (2 if case.config.get("thresholding") else 1, case.channels, 4, 4)
    noise = random.standard_normal(shape).astype(np.float32)
    timesteps = scheduler.timesteps
    result = {"timesteps": plain(timesteps)}
    if hasattr(scheduler, "sigmas"):
        result["sigmas"] = plain(scheduler.sigmas).astype(np.float32)
    if case.begin is None:
        sample = array((noise * np.float32(scheduler.init_noise_sigma)).astype(np.float32))
    else:
        scheduler.set_begin_index(case.begin)
        timesteps = timesteps[case.begin :]
        sample = scheduler.add_noise(array(random.standard_normal(shape).astype(np.float32)), array(noise), timesteps[:1])
    arguments = dict(case.step)
    if "generator" in inspect.signature(scheduler.step).parameters:
        arguments["generator"] = generator
    samples, originals = [plain(sample)], []
    channels = case.channels * (2 if case.config.get("variance_type") else 1)
    for timestep in timesteps:
        output = model(plain(scheduler.scale_model_input(sample, timestep)), float(timestep), channels)
        result_of_step = scheduler.step(array(output), timestep, sample, **arguments)
        sample = result_of_step.prev_sample
        samples.append(plain(sample))
        if "pred_original_sample" in result_of_step:
            originals.append(plain(result_of_step.pred_original_sample))
    result["samples"] = np.stack(samples)
    if originals:
        result["originals"] = np.stack(originals)
    return result


def deviation(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest difference in any step of a run, relative to the largest number of that step.

    But at least to 1% of the largest sample of the loop: what starts at 20000 (the cosine schedule) and ends at 1 carries float32's
    rounding of 20000 all the way.
    """
    floor = 0.01 * np.abs(theirs["samples"]).max()
    worst = 0.0
    for name in {"samples", "originals"} & theirs.keys():
        axes = tuple(range(1, theirs[name].ndim))
        difference = np.abs(ours[name].astype(np.float64) - theirs[name]).max(axis=axes)
        worst = max(worst, (difference / np.maximum(np.abs(theirs[name]).max(axis=axes), floor)).max())
    return worst


def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Assert that a run is PyTorch's: tables to the last bits of float32, every step to 1e-5.

    PyTorch's float32 square root (MKL) is up to one bit off the correctly rounded one, which differs between machines: so may sigmas and
    what is interpolated in them. With `rescale_betas_zero_snr` it is the difference of two roots, and some more bits near timestep 999.
    """
    assert ours.keys() == theirs.keys()
    assert ours["timesteps"].dtype == theirs["timesteps"].dtype
    # A last bit of a logarithm of a sigma is some 3e-5 of a timestep.
    np.testing.assert_allclose(ours["timesteps"], theirs["timesteps"], rtol=0, atol=0 if ours["timesteps"].dtype == np.int64 else 1e-4)
    if "sigmas" in ours:
        np.testing.assert_array_max_ulp(ours["sigmas"], theirs["sigmas"], 32)
    assert deviation(ours, theirs) < 1e-5
