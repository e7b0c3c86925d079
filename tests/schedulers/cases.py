"""The table of scheduler runs that are compared with PyTorch: live in tests/parity, recorded in tests/reference/schedulers.safetensors.

A run is a whole denoising loop with a made-up model, computed by NumPy for both sides.
"""

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


def _cases() -> list[Case]:
    cases = []

    def add(scheduler: str, *configs: dict, steps: tuple[int, ...] = (10,), **kwargs: Any) -> None:
        for config in configs or ({},):
            for count in steps if "timesteps" not in kwargs else (None,):
                cases.append(Case(scheduler, config, **{"timesteps": {"num_inference_steps": count}, **kwargs}))

    def options(**values: tuple) -> list[dict]:
        return [{**SD, name: value} for name, choices in values.items() for value in choices]

    everyone = {
        "DDIMScheduler": ("epsilon", "sample", "v_prediction"),
        "PNDMScheduler": ("epsilon", "v_prediction"),
        "EulerDiscreteScheduler": ("epsilon", "sample", "v_prediction"),
        "EulerAncestralDiscreteScheduler": ("epsilon", "v_prediction"),
        "DPMSolverMultistepScheduler": ("epsilon", "sample", "v_prediction"),
        "LMSDiscreteScheduler": ("epsilon", "sample", "v_prediction"),
        "HeunDiscreteScheduler": ("epsilon", "sample", "v_prediction"),
    }
    for name, predictions in everyone.items():
        add(name, *({"beta_schedule": schedule} for schedule in ("linear", "scaled_linear")), steps=(5, 10, 25))
        # The cosine schedule ends at sigma 20000: DPM-Solver clips it, and Heun's (x - (x - sigma epsilon)) / sigma loses all its digits.
        cosine = {"DPMSolverMultistepScheduler": {"lambda_min_clipped": -5.1}, "HeunDiscreteScheduler": {"prediction_type": "sample"}}
        add(name, {"beta_schedule": "squaredcos_cap_v2", **cosine.get(name, {})}, steps=(10,) if name.startswith("Heun") else (5, 10, 25))
        add(name, {"num_train_timesteps": 100, "trained_betas": TRAINED_BETAS}, {"num_train_timesteps": 500, **SD})
        add(name, *options(timestep_spacing=SPACINGS, prediction_type=predictions), steps=(5, 10, 25))
        add(name, *({**SD, "timestep_spacing": spacing, "steps_offset": 1} for spacing in SPACINGS), steps=(7, 10))
        add(name, *({**SD, "timestep_spacing": spacing, "prediction_type": "v_prediction"} for spacing in SPACINGS))

    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"):
        add(name, ZERO_SNR, steps=(5, 10, 25))
    grids = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"):
        add(name, *options(**dict.fromkeys(grids, (True,))), steps=(5, 10, 25))
        add(name, *({**SD, grid: True, "timestep_spacing": "leading", "steps_offset": 1} for grid in grids))
        add(name, *({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", grid: True} for grid in grids))
    indexed = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "LMSDiscreteScheduler")
    for name in (*indexed, "HeunDiscreteScheduler"):
        add(name, SD, {**SD, "timestep_spacing": "leading"}, begin=4)

    # DDIM
    unclipped = {**SD, "clip_sample": False}
    add("DDIMScheduler", *({**unclipped, "set_alpha_to_one": one} for one in (True, False)), steps=(5, 10, 25))
    add("DDIMScheduler", unclipped, {**unclipped, "steps_offset": 1, "set_alpha_to_one": False}, step={"eta": 1.0})
    add("DDIMScheduler", *options(clip_sample_range=(0.5, 3.0)), step={"eta": 0.5, "use_clipped_model_output": True})
    add("DDIMScheduler", {**unclipped, "prediction_type": "v_prediction"}, step={"eta": 1.0})
    # Not eta 1: there the first direction's factor is 0, and in PyTorch the square root of float32's rounding, 3e-4.
    add("DDIMScheduler", {**ZERO_SNR, "clip_sample": False}, step={"eta": 0.9})
    threshold = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.5}
    add("DDIMScheduler", {**SD, **threshold}, {**SD, "thresholding": True}, {**SD, **threshold, "prediction_type": "v_prediction"})

    # PNDM
    for spacing in SPACINGS:
        plms = {**SD, "skip_prk_steps": True, "timestep_spacing": spacing, "steps_offset": 1}
        add("PNDMScheduler", plms, {**plms, "prediction_type": "v_prediction"}, {**plms, "set_alpha_to_one": True}, steps=(5, 10, 25))
    add("PNDMScheduler", {**SD, "set_alpha_to_one": True}, steps=(5, 10, 25))

    # Euler
    euler = "EulerDiscreteScheduler"
    add(euler, *options(prediction_type=("original_sample",), final_sigmas_type=("zero", "sigma_min")))
    add(euler, {**SD, "interpolation_type": "log_linear"}, {**SD, "interpolation_type": "log_linear", "use_karras_sigmas": True})
    for grid in grids:
        add(euler, {**SD, grid: True, "sigma_min": 0.05, "sigma_max": 9.0}, {**SD, grid: True, "final_sigmas_type": "sigma_min"})
    continuous = {**SD, "timestep_type": "continuous", "prediction_type": "v_prediction"}
    add(euler, continuous, {**continuous, "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0}, steps=(5, 10, 25))
    add(euler, {**SD, "timestep_type": "continuous"})
    for prediction in everyone[euler]:
        add(euler, {**SD, "prediction_type": prediction}, step={"s_churn": 3.0, "s_tmin": 0.3, "s_tmax": 9.0, "s_noise": 1.01})
    add(euler, SD, timesteps={"timesteps": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]})
    add(euler, SD, continuous, timesteps={"sigmas": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]})

    # LMS and Heun
    add("LMSDiscreteScheduler", *([SD] * 1), step={"order": 2})
    add("LMSDiscreteScheduler", {**SD, "use_karras_sigmas": True}, step={"order": 6}, steps=(10,))
    heun = "HeunDiscreteScheduler"
    add(heun, {"beta_schedule": "exp"}, {**SD, "clip_sample": True}, {**SD, "clip_sample": True, "clip_sample_range": 2.0})
    add(heun, SD, timesteps={"timesteps": [999, 800, 600, 300, 100, 20]})
    add(heun, SD, timesteps={"num_inference_steps": 10, "num_train_timesteps": 800})

    # DPM-Solver
    dpm = "DPMSolverMultistepScheduler"
    for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"):
        last = {"algorithm_type": algorithm, "final_sigmas_type": "zero" if algorithm.endswith("++") else "sigma_min", **SD}
        for order in (1, 2, 3) if algorithm != "sde-dpmsolver" else (1, 2):
            for solver in ("midpoint", "heun"):
                # Third-order "sde-dpmsolver++" diverges (see its sign): the start's last bit can grow to 2e-5 in 25 steps.
                diverges = (algorithm, order) == ("sde-dpmsolver++", 3)
                add(dpm, {**last, "solver_order": order, "solver_type": solver}, steps=(5, 10) if diverges else (5, 10, 25))
        for prediction in ("sample", "v_prediction", *(("flow_prediction",) if algorithm.endswith("++") else ())):
            add(dpm, {**last, "prediction_type": prediction})
        add(dpm, {**last, **threshold}, {**last, "use_karras_sigmas": True}, {**last, "final_sigmas_type": "sigma_min"})
        add(dpm, {**last, "variance_type": "learned"}, {**last, "variance_type": "learned_range"}, channels=3)
        add(dpm, {**last, "lower_order_final": False}, {**last, "euler_at_final": True}, steps=(5, 10, 25))
        final = {**last, "final_sigmas_type": "sigma_min", "solver_order": 2 if algorithm.startswith("sde") else 3}
        add(dpm, final, {**final, "lower_order_final": False}, {**final, "euler_at_final": True}, steps=(5, 25))
        # The last step here is between equal noise levels; PyTorch's is NaN in all but second-order midpoint steps.
        add(dpm, {**final, "solver_order": 2, "use_karras_sigmas": True}, steps=(25,))
    add(dpm, *options(use_lu_lambdas=(True,), lambda_min_clipped=(-2.0,), timestep_spacing=SPACINGS), steps=(5, 10, 25))
    add(dpm, *({**SD, "lambda_min_clipped": -2.0, "timestep_spacing": spacing} for spacing in SPACINGS))
    add(dpm, {"beta_schedule": "squaredcos_cap_v2", "use_lu_lambdas": True, "prediction_type": "sample"})
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    add(dpm, flow, {**flow, "flow_shift": 1.0, "solver_order": 3}, {**flow, "algorithm_type": "sde-dpmsolver++"}, steps=(5, 10, 25))
    add(dpm, {**flow, "final_sigmas_type": "sigma_min"}, {**flow, "prediction_type": "epsilon"})
    add(dpm, {**flow, "use_dynamic_shifting": True}, timesteps={"num_inference_steps": 10, "mu": 0.8})
    add(dpm, SD, timesteps={"timesteps": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]})
    # configs of other classes
    add(dpm, {"solver_type": "bh2", **SD}, {"algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min", **SD})
    return list({case.name: case for case in cases}.values())


CASES = _cases()


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
    if case.scheduler.startswith(("Euler", "DDIM", "DPM")):
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
