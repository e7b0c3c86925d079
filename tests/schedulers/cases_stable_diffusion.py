"""Runs of the first schedulers: DDIM, PNDM, Euler, Euler ancestral, LMS, Heun and DPM-Solver multistep."""

from typing import Any

from .runner import SD, SPACINGS, TRAINED_BETAS, ZERO_SNR, Case


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
