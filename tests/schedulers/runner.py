"""A scheduler run that is compared with PyTorch: a whole denoising loop with a made-up model, computed by NumPy for both sides."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
SPACINGS = ("linspace", "leading", "trailing")
ORIGINALS = ("pred_original_sample", "denoised", "pred_noised_sample")
FLOAT32_STEPS = {"DDIMInverseScheduler": 10, "LCMScheduler": 20, "TCDScheduler": 30}
"""So many steps agree in float32. Longer runs with clipped or amplified predictions carry a last bit of a root beyond 1e-5."""
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
    loop: Callable | None = None  # in place of `run`'s, of a scheduler with other methods than `step`; arguments as `run`
    shape: tuple[int, ...] | None = None  # of a sample, if it is not (channels, 4, 4)

    @property
    def float64_coefficients(self) -> bool:
        """Whether PyTorch is to take its steps' factors in float64: in float32 this one has lost too many digits to compare with."""
        algorithm = self.config.get("algorithm_type")
        order = max(self.config.get(name, 2) for name in ("solver_order", "predictor_order", "corrector_order"))
        if self.scheduler in ("RePaintScheduler", "SASolverScheduler"):  # a jump multiplies by a hundred roots; a solver inverts integrals
            return True
        if self.scheduler in FLOAT32_STEPS:
            return self.timesteps.get("num_inference_steps", 0) > FLOAT32_STEPS[self.scheduler]
        if self.scheduler == "DEISMultistepScheduler":
            return "use_flow_sigmas" in self.config
        return order == 4 or order == 3 and algorithm == "sde-dpmsolver++"

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
    # A learned variance, in the channels after the prediction's, is positive, and not so near 0 that its root is ill-conditioned.
    return np.concatenate([output, abs(output) + 0.5], axis=1)[:, :prediction_channels].astype(np.float32)


def smooth_noise(shape: tuple[int, ...], sigma: float, sigma_next: float) -> np.ndarray:
    """Made-up noise between two noise levels."""
    first, second = np.random.default_rng(1).standard_normal((2, *shape))
    return (np.sin(sigma) * first + np.cos(sigma_next) * second).astype(np.float32)


def run(
    scheduler: Any, case: Case, array: Callable, generator: Any, plain: Callable = np.asarray, follow: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The whole loop.

    Args:
        scheduler: ours, or PyTorch diffusers'.
        case: what to run.
        array: from NumPy to the arrays the scheduler is to step.
        generator: seeded; draws the noise of stochastic steps.
        plain: back to NumPy.
        follow: another run's "samples" and "outputs", for each step to start from instead of the last one's result; empty to note both.

    Returns:
        "timesteps", "sigmas" (if there are), "samples" (initial, then one a step), "originals" (if predicted).
    """
    if case.loop is not None:
        return case.loop(scheduler, case, array, generator, plain)
    scheduler.set_timesteps(**case.timesteps)
    for table in ("sigmas", "alphas_cumprod", "betas") if case.float64_coefficients else ():
        if hasattr(getattr(scheduler, table, None), "double"):
            setattr(scheduler, table, getattr(scheduler, table).double())
    random = np.random.default_rng(0)
    shape = (2 if case.config.get("thresholding") else 1, *(case.shape or (case.channels, 4, 4)))
    noise = random.standard_normal(shape).astype(np.float32)
    timesteps = scheduler.timesteps
    result = {"timesteps": plain(timesteps)}
    if hasattr(scheduler, "sigmas"):
        result["sigmas"] = plain(scheduler.sigmas).astype(np.float32)
    if case.begin is None:
        sample = array((noise * np.float32(getattr(scheduler, "init_noise_sigma", 1))).astype(np.float32))
    else:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(case.begin)
        timesteps = timesteps[case.begin :]
        clean = array(random.standard_normal(shape).astype(np.float32))
        if hasattr(scheduler, "scale_noise"):
            sample = scheduler.scale_noise(clean, timesteps[:1], array(noise))
        else:
            sample = scheduler.add_noise(clean, array(noise), timesteps[:1])
    if case.scheduler == "DDPMWuerstchenScheduler":  # the last timestep is where the last step ends, and a step takes one a sample
        timesteps = timesteps[:-1].reshape(-1, 1)
    if hasattr(scheduler, "noise_sampler"):  # a Brownian path changes more than float32's last bits of the times it is asked for
        scheduler.noise_sampler = lambda sigma, sigma_next: array(smooth_noise(shape, float(sigma), float(sigma_next)))
    samples, originals, outputs = [plain(sample)], [], []
    channels = shape[1] * (2 if str(case.config.get("variance_type")).startswith("learned") else 1)
    image, mask = random.standard_normal(shape).astype(np.float32), (random.random(shape) < 0.5).astype(np.float32)
    taken = inspect.signature(scheduler.step).parameters
    original = last_timestep = None
    for index, timestep in enumerate(timesteps):
        if hasattr(scheduler, "undo_step") and last_timestep is not None and timestep > last_timestep:  # RePaint's jumps
            sample, last_timestep = scheduler.undo_step(sample, last_timestep, generator), timestep
            samples.append(plain(sample))
            if follow:
                sample = array(follow["samples"][len(samples) - 1])
            continue
        offered = {
            "generator": generator,
            "prev_timestep": timesteps[index + 1] if index + 1 < len(timesteps) else None,
            "timestep_back": last_timestep,
            "old_pred_original_sample": original,
            "original_image": array(image),
            "mask": array(mask),
            "cur_sampling_step": index,
            "dmd_noisy_tensor": array(noise[..., ::-1].copy()),
            "dmd_sigmas": getattr(scheduler, "sigmas", None),
            "dmd_timesteps": timesteps,
            "all_timesteps": timesteps,
        }
        arguments = {name: value for name, value in offered.items() if name in taken} | case.step
        scaled = plain(scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample)
        # Pi-Flow's models predict `n_grid` times, in the last axis.
        output = model(np.tile(scaled, case.config.get("n_grid", 1)), timestep.item(), channels)
        if follow:
            output = follow["outputs"][len(outputs)]
        outputs.append(plain(array(output)))
        result_of_step = scheduler.step(model_output=array(output), timestep=timestep, sample=sample, **arguments)
        if isinstance(result_of_step, tuple):  # CogVideoX's DPM, in PyTorch
            result_of_step = dict(zip(("prev_sample", "pred_original_sample"), result_of_step))
        sample, last_timestep = result_of_step["prev_sample"], timestep
        samples.append(plain(sample))
        if follow:
            sample = array(follow["samples"][len(samples) - 1])
        original = next((result_of_step[name] for name in ORIGINALS if name in result_of_step), None)
        if original is not None:
            originals.append(plain(original))
    largest = max(samples, key=np.size).shape  # samples that grow are repeated, to be of one size here
    result["samples"] = np.stack([np.resize(sample, largest) for sample in samples])
    if originals:
        result["originals"] = np.stack(originals)
    if follow is not None:
        result["outputs"] = np.stack(outputs)
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
        worst = np.maximum(worst, (difference / np.maximum(np.abs(theirs[name]).max(axis=axes), floor)).max())  # NaN if anything is
    return worst


def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Assert that a run is PyTorch's: tables to the last bits of float32, every step to 1e-5.

    PyTorch's float32 square root (MKL) is up to one bit off the correctly rounded one, which differs between machines: so may sigmas and
    what is interpolated in them. With `rescale_betas_zero_snr` it is the difference of two roots, and some more bits near timestep 999.
    """
    assert ours.keys() == theirs.keys()
    assert ours["timesteps"].dtype == theirs["timesteps"].dtype
    # A last bit of a logarithm of a sigma is some 3e-5 of a timestep, and float32's own are 6e-5 of those above 512.
    exact = ours["timesteps"].dtype == np.int64
    np.testing.assert_allclose(ours["timesteps"], theirs["timesteps"], rtol=0 if exact else 2**-22, atol=0 if exact else 1e-4)
    if "sigmas" in ours:
        np.testing.assert_array_max_ulp(ours["sigmas"], theirs["sigmas"], 32)
    assert deviation(ours, theirs) < 1e-5
