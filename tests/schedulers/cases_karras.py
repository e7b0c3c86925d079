"""Runs of the samplers of x_0 + sigma noise beside Euler, LMS and Heun, of consistency models, and of score SDEs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .runner import SD, SPACINGS, TRAINED_BETAS, Case, model

GRIDS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
CHURN = {"s_churn": 3.0, "s_tmin": 0.3, "s_tmax": 9.0, "s_noise": 1.01}


def _start(case: Case, scale: float, array: Callable) -> Any:
    noise = np.random.default_rng(0).standard_normal((2, case.channels, 4, 4)).astype(np.float32)
    return array((noise * np.float32(scale)).astype(np.float32))


def _predicted(sample: Any, timestep: float, array: Callable, plain: Callable, scale: float = 1.0) -> Any:
    """The model's output, of a sample of the order of `scale` (else its sines multiply float32's rounding errors)."""
    values = plain(sample) / np.float32(scale)
    return array(model(values, timestep, values.shape[1]))


def _scm(scheduler: Any, case: Case, array: Callable, generator: Any, plain: Callable) -> dict[str, np.ndarray]:
    """SANA-Sprint's loop, whose last timestep is the finished sample's."""
    scheduler.set_timesteps(**case.timesteps)
    sample = _start(case, scheduler.init_noise_sigma, array)
    samples, originals = [plain(sample)], []
    if case.begin is not None:
        scheduler.set_begin_index(case.begin)
    for timestep in scheduler.timesteps[case.begin or 0 : -1]:
        output = _predicted(sample, float(timestep), array, plain)
        sample, original = scheduler.step(output, timestep, sample, generator=generator, return_dict=False)
        samples.append(plain(sample))
        originals.append(plain(original))
    return {"timesteps": plain(scheduler.timesteps), "samples": np.stack(samples), "originals": np.stack(originals)}


def _karras_ve(scheduler: Any, case: Case, array: Callable, generator: Any, plain: Callable) -> dict[str, np.ndarray]:
    """The loop of arXiv 2206.00364, algorithm 2."""
    scheduler.set_timesteps(**case.timesteps)
    sample = _start(case, scheduler.init_noise_sigma, array)
    samples, originals = [plain(sample)], []
    highest = float(scheduler.schedule.max())
    for t in scheduler.timesteps:
        sigma = scheduler.schedule[t]
        sigma_prev = scheduler.schedule[t - 1] if t > 0 else 0
        sample_hat, sigma_hat = scheduler.add_noise_to_input(sample, sigma, generator=generator)
        output = _predicted(sample_hat, float(sigma_hat) / highest * 999, array, plain, highest)
        result = scheduler.step(output, sigma_hat, sigma_prev, sample_hat)
        if sigma_prev != 0:
            samples.append(plain(result.prev_sample))
            originals.append(plain(result.pred_original_sample))
            output = _predicted(result.prev_sample, float(sigma_prev) / highest * 999, array, plain, highest)
            result = scheduler.step_correct(output, sigma_hat, sigma_prev, sample_hat, result.prev_sample, result.derivative)
        sample = result.prev_sample
        samples.append(plain(sample))
        originals.append(plain(result.pred_original_sample))
    tables = {"timesteps": plain(scheduler.timesteps), "sigmas": plain(scheduler.schedule)}
    return {**tables, "samples": np.stack(samples), "originals": np.stack(originals)}


def _sde_ve(scheduler: Any, case: Case, array: Callable, generator: Any, plain: Callable) -> dict[str, np.ndarray]:
    """Predictor-corrector sampling (arXiv 2011.13456, algorithms 2 and 4); `case.step` is given to `set_sigmas`."""
    scheduler.set_timesteps(**case.timesteps)
    scheduler.set_sigmas(case.timesteps["num_inference_steps"], **case.step)
    sample = _start(case, scheduler.init_noise_sigma, array)
    samples, means = [plain(sample)], []
    for i, t in enumerate(scheduler.timesteps):
        sigma = np.float32(scheduler.sigmas[i])

        def score(sample: Any, sigma: np.float32 = sigma) -> Any:
            return array(plain(_predicted(sample, float(sigma), array, plain, scheduler.init_noise_sigma)) / -sigma)

        for _ in range(scheduler.config.correct_steps):
            sample = scheduler.step_correct(score(sample), sample, generator=generator).prev_sample
            samples.append(plain(sample))
        result = scheduler.step_pred(score(sample), t, sample, generator=generator)
        sample = result.prev_sample
        samples.append(plain(sample))
        means.append(plain(result.prev_sample_mean))
    tables = {"timesteps": plain(scheduler.timesteps), "sigmas": plain(scheduler.sigmas)}
    return {**tables, "samples": np.stack(samples), "originals": np.stack(means)}


def _sde_vp(scheduler: Any, case: Case, array: Callable, generator: Any, plain: Callable) -> dict[str, np.ndarray]:
    scheduler.set_timesteps(**case.timesteps)
    sample = _start(case, 1.0, array)
    samples, means = [plain(sample)], []
    for t in scheduler.timesteps:
        sample, mean = scheduler.step_pred(_predicted(sample, float(t), array, plain), sample, t, generator=generator)
        samples.append(plain(sample))
        means.append(plain(mean))
    return {"timesteps": plain(scheduler.timesteps), "samples": np.stack(samples), "originals": np.stack(means)}


def _cases() -> list[Case]:
    cases = []

    def add(scheduler: str, *configs: dict, steps: tuple[int, ...] = (10,), **kwargs: Any) -> None:
        for config in configs or ({},):
            for count in steps if "timesteps" not in kwargs else (None,):
                cases.append(Case(scheduler, config, **{"timesteps": {"num_inference_steps": count}, **kwargs}))

    for name in ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"):
        add(name, {}, SD, {**SD, "prediction_type": "v_prediction"}, steps=(5, 10, 25))
        add(name, SD, steps=(50,))
        add(name, {"num_train_timesteps": 100, "trained_betas": TRAINED_BETAS}, {"num_train_timesteps": 500, **SD})
        add(name, *({**SD, "timestep_spacing": spacing, "steps_offset": 1} for spacing in SPACINGS), steps=(7, 10))
        for grid in GRIDS:
            # PyTorch's float32 ancestral levels lose digits in so long steps: see `test_an_ancestral_level_next_to_nothing`.
            few = name != "KDPM2AncestralDiscreteScheduler" or grid == "use_karras_sigmas"
            add(name, {**SD, grid: True}, steps=(5, 10, 25) if few else (10, 25))
        add(name, *({**SD, grid: True, "timestep_spacing": "leading", "prediction_type": "v_prediction"} for grid in GRIDS))
        add(name, SD, {**SD, "timestep_spacing": "leading"}, begin=4)
        add(name, SD, timesteps={"num_inference_steps": 10, "num_train_timesteps": 800})
        if name != "KDPM2AncestralDiscreteScheduler":  # PyTorch's ancestral levels are NaN
            add(name, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"})
    add("DPMSolverSDEScheduler", {**SD, "noise_sampler_seed": 3}, step={"s_noise": 0.9})

    edm = "EDMEulerScheduler"
    for schedule in ("karras", "exponential"):
        for prediction in ("epsilon", "v_prediction"):
            base = {"sigma_schedule": schedule, "prediction_type": prediction}
            add(edm, base, steps=(5, 10, 25, 50))
            add(edm, base, step=CHURN)
            add(edm, {**base, "final_sigmas_type": "sigma_min"})
        add(edm, {"sigma_schedule": schedule, "sigma_min": 0.02, "sigma_max": 500.0, "sigma_data": 1.0, "rho": 5.0})
    add(edm, begin=4)

    consistency = "CMStochasticIterativeScheduler"
    add(consistency, steps=(1, 2, 5, 10, 40))
    add(consistency, {"clip_denoised": False, "s_noise": 0.9, "sigma_data": 0.7, "rho": 5.0, "sigma_min": 0.01, "sigma_max": 50.0})
    add(consistency, {"num_train_timesteps": 201}, timesteps={"timesteps": [106, 0]})
    add(consistency, {"num_train_timesteps": 201, "clip_denoised": False}, begin=4)

    add("IPNDMScheduler", steps=(1, 3, 5, 10, 25, 50))
    add("IPNDMScheduler", {"trained_betas": np.linspace(0.99, 0, 11).tolist()})

    add("ConsistencyDecoderScheduler", {}, {"sigma_data": 0.7}, steps=(2,))

    scm = "SCMScheduler"
    add(scm, {}, {"sigma_data": 1.0}, steps=(2,), loop=_scm)
    for count in (1, 5, 10):
        add(scm, timesteps={"num_inference_steps": count, "intermediate_timesteps": None}, loop=_scm)
    add(scm, timesteps={"num_inference_steps": 4, "intermediate_timesteps": None, "max_timesteps": 1.5}, begin=1, loop=_scm)
    custom = {"timesteps": [1.5, 1.1, 0.6, 0.0], "max_timesteps": None, "intermediate_timesteps": None}
    add(scm, timesteps={"num_inference_steps": 3, **custom}, loop=_scm)

    add("KarrasVeScheduler", steps=(5, 10, 25, 50), loop=_karras_ve)
    karras = {"sigma_min": 0.1, "sigma_max": 30.0, "s_noise": 1.0, "s_churn": 5.0, "s_min": 1.0, "s_max": 20.0}
    add("KarrasVeScheduler", karras, loop=_karras_ve)

    add("ScoreSdeVeScheduler", steps=(5, 10, 25, 50), loop=_sde_ve)
    add("ScoreSdeVeScheduler", {"snr": 0.3, "sigma_min": 0.1, "sigma_max": 50.0, "sampling_eps": 1e-3, "correct_steps": 2}, loop=_sde_ve)
    add("ScoreSdeVeScheduler", step={"sigma_min": 0.2, "sigma_max": 99.0, "sampling_eps": 1e-3}, loop=_sde_ve)
    add("ScoreSdeVeScheduler", timesteps={"num_inference_steps": 10, "sampling_eps": 0.01}, loop=_sde_ve)

    add("ScoreSdeVpScheduler", steps=(5, 10, 25, 50), loop=_sde_vp)
    add("ScoreSdeVpScheduler", {"beta_min": 0.2, "beta_max": 10, "sampling_eps": 0.01}, loop=_sde_vp)
    return cases


CASES = _cases()
