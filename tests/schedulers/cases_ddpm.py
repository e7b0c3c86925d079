"""Runs of DDPM, DDIM and their relatives: steps on alphas_cumprod itself."""

from typing import Any

import numpy as np

from .runner import SD, SPACINGS, TRAINED_BETAS, ZERO_SNR, Case

PREDICTIONS = ("epsilon", "sample", "v_prediction")
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.5}


def _cases() -> list[Case]:
    cases = []

    def add(scheduler: str, *configs: dict, steps: tuple[int, ...] = (10,), **kwargs: Any) -> None:
        for config in configs:
            for count in steps if "timesteps" not in kwargs else (None,):
                cases.append(Case(scheduler, config, **{"timesteps": {"num_inference_steps": count}, **kwargs}))

    def options(base: dict, **values: tuple) -> list[dict]:
        return [{**base, name: value} for name, choices in values.items() for value in choices]

    # DDPM
    ddpm, unclipped = "DDPMScheduler", {**SD, "clip_sample": False}
    schedules = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")
    add(ddpm, *({"beta_schedule": schedule} for schedule in schedules), {"num_train_timesteps": 500}, steps=(5, 25))
    add(ddpm, {"num_train_timesteps": 100, "trained_betas": TRAINED_BETAS}, steps=(10, 100))
    add(ddpm, *options(unclipped, prediction_type=PREDICTIONS, timestep_spacing=SPACINGS), steps=(5, 50))
    add(ddpm, *({**unclipped, "timestep_spacing": spacing, "steps_offset": 1} for spacing in SPACINGS))
    add(ddpm, *options(SD, clip_sample_range=(0.5, 3.0)), {**SD, **THRESHOLD}, {**SD, **THRESHOLD, "prediction_type": "v_prediction"})
    add(ddpm, *options(SD, variance_type=("fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range")), steps=(5, 25))
    add(ddpm, {**unclipped, "variance_type": "learned_range", "timestep_spacing": "leading", "steps_offset": 1})
    add(ddpm, ZERO_SNR, {**ZERO_SNR, "clip_sample": False}, steps=(5, 25))
    add(ddpm, unclipped, timesteps={"timesteps": [999, 850, 736, 545, 124, 24]})
    add(ddpm, unclipped, begin=4)
    add("DDPMParallelScheduler", unclipped, {**SD, "variance_type": "learned_range"})

    # DDIM
    add("DDIMParallelScheduler", {**unclipped, "set_alpha_to_one": False}, step={"eta": 0.5})
    inverse = "DDIMInverseScheduler"
    add(inverse, {}, *({"beta_schedule": schedule} for schedule in schedules[1:3]), steps=(5, 10, 25, 50))
    add(inverse, *options(unclipped, prediction_type=("epsilon", "v_prediction")), steps=(5, 50))
    add(inverse, *options({**unclipped, "set_alpha_to_one": False}, prediction_type=PREDICTIONS), steps=(5, 50))
    add(inverse, {**unclipped, "timestep_spacing": "trailing"}, {**unclipped, "steps_offset": 1}, {**SD, "clip_sample_range": 2.0})
    add(inverse, {**ZERO_SNR, "clip_sample": False})

    # CogVideoX
    for name in ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"):
        add(name, {}, *({"beta_schedule": schedule} for schedule in ("linear", "squaredcos_cap_v2")), steps=(5, 25))
        add(name, *options({}, prediction_type=PREDICTIONS[1:], timestep_spacing=SPACINGS, snr_shift_scale=(1.0,)), steps=(5, 50))
        add(name, {"set_alpha_to_one": False}, {"steps_offset": 1}, {"num_train_timesteps": 100, "trained_betas": TRAINED_BETAS})
        zero = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
        add(name, {**zero, "snr_shift_scale": 1.0}, {**zero, "beta_schedule": "linear"}, steps=(5, 50))

    # unCLIP
    unclip = "UnCLIPScheduler"
    add(unclip, *options({}, prediction_type=("epsilon", "sample"), variance_type=("learned_range",)), steps=(5, 25))
    add(unclip, {"clip_sample": False, "prediction_type": "sample"}, {"clip_sample_range": 2.0}, {"num_train_timesteps": 500})
    add(unclip, {"num_train_timesteps": 20}, {"num_train_timesteps": 20, "variance_type": "learned_range"}, steps=(20,))

    # RePaint
    repaint, jumps = "RePaintScheduler", {"num_inference_steps": 10, "jump_length": 3, "jump_n_sample": 2}
    add(repaint, *({"beta_schedule": schedule} for schedule in (*schedules[:3], "sigmoid")), timesteps=jumps)
    add(repaint, *options(SD, eta=(0.5, 1.0), clip_sample=(False,)), timesteps=jumps)
    add(repaint, {"num_train_timesteps": 100, "trained_betas": np.array(TRAINED_BETAS, np.float32)}, timesteps=jumps)
    add(repaint, SD, {**SD, "eta": 0.5}, steps=(15, 25))

    # Distilled models
    lcm, tcd = "LCMScheduler", "TCDScheduler"
    for name in (lcm, tcd):
        add(name, *({"beta_schedule": schedule} for schedule in schedules[:3]), steps=(1, 4, 8, 40))
        add(
            name,
            *options({}, prediction_type=PREDICTIONS[1:], set_alpha_to_one=(False,), original_inference_steps=(40,)),
            steps=(4, 20, 40),
        )
        add(name, {"num_train_timesteps": 100, "trained_betas": TRAINED_BETAS}, {"rescale_betas_zero_snr": True, **ZERO_SNR}, steps=(5,))
        add(name, {}, timesteps={"timesteps": [999, 759, 499, 259]})
        add(name, {}, timesteps={"timesteps": [979, 759, 499, 259, 100], "strength": 0.6})
        add(name, {}, timesteps={"num_inference_steps": 4, "strength": 0.6})
        add(name, {}, timesteps={"num_inference_steps": 4, "original_inference_steps": 100})
        add(name, {}, timesteps={"num_inference_steps": 8}, begin=3)
    add(lcm, {"timestep_scaling": 0.01}, {"clip_sample": True}, {"clip_sample": True, "clip_sample_range": 2.0}, THRESHOLD, steps=(4,))
    for eta in (0.0, 0.5, 0.7, 1.0):
        add(tcd, {}, steps=(4, 30, 40), step={"eta": eta})

    # Wuerstchen
    wuerstchen = "DDPMWuerstchenScheduler"
    add(wuerstchen, {}, {"scaler": 2.0}, {"scaler": 0.5}, {"s": 0.02}, steps=(5, 25))
    add(wuerstchen, {}, timesteps={"timesteps": [1.0, 0.8, 0.55, 0.2, 0.0]})
    return list({case.name: case for case in cases}.values())


CASES = _cases()
