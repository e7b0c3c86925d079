"""Runs of the flow-matching schedulers."""

from typing import Any

from .runner import Case

STEPS = (5, 10, 25)
OPTIONS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
SIGMAS = [1.0, 0.9, 0.75, 0.5, 0.2]
TIMESTEPS = [1000.0, 850.0, 600.0, 300.0, 90.0]


def _runs(name: str, *configs: dict, steps: tuple[int, ...] = (10,), **kwargs: Any) -> list[Case]:
    many = [{"timesteps": kwargs.pop("timesteps")}] if "timesteps" in kwargs else [{"timesteps": {"num_inference_steps": n}} for n in steps]
    return [Case(name, config, **{"shape": (2, 3, 4), **one, **kwargs}) for config in configs for one in many]


def _shifted(name: str) -> list[Case]:
    """What the schedulers with all of `FlowMatchEulerDiscreteScheduler`'s options share."""
    dynamic = {"use_dynamic_shifting": True}
    moved = {"num_inference_steps": 10, "mu": 0.8}
    return [
        *_runs(name, {}, {"shift": 3.0}, steps=(*STEPS, 50)),
        *_runs(name, dynamic, {**dynamic, "time_shift_type": "linear"}, {**dynamic, "shift": 3.0, "shift_terminal": 0.1}, timesteps=moved),
        *_runs(name, {"num_train_timesteps": 500}, {"invert_sigmas": True}, {"invert_sigmas": True, "shift": 3.0}),
        *_runs(name, {"shift_terminal": 0.1}, {"shift": 2.0, "shift_terminal": 0.02}, steps=(5, 25)),
        *_runs(name, *({option: True} for option in OPTIONS), steps=(5, 24)),
        *_runs(name, *({option: True, "shift": 3.0, "shift_terminal": 0.1} for option in OPTIONS)),
        *_runs(name, {}, {"shift": 3.0}, {"use_karras_sigmas": True}, timesteps={"sigmas": SIGMAS}),
        *_runs(name, dynamic, {**dynamic, "time_shift_type": "linear"}, timesteps={"sigmas": SIGMAS, "mu": 1.15}),
        *_runs(name, {"shift": 3.0}, {"invert_sigmas": True}, timesteps={"timesteps": TIMESTEPS}),
        *_runs(name, {"shift": 3.0}, timesteps={"timesteps": TIMESTEPS, "sigmas": SIGMAS, "num_inference_steps": 5}),
        *_runs(name, {"shift": 3.0}, begin=4),
    ]


def _cases() -> list[Case]:
    euler, heun, lcm = (f"FlowMatch{kind}Scheduler" for kind in ("EulerDiscrete", "HeunDiscrete", "LCM"))
    flow_map, ltx, minimax = "FlowMapEulerDiscreteScheduler", "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler"
    helios, piflow = "HeliosDMDScheduler", "PiflowScheduler"
    churn = {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 0.9, "s_noise": 1.01}
    stage = {"num_inference_steps": 4, "stage_index": 1}
    one_stage = {"stages": 1, "stage_range": [0, 1]}
    return [
        *_shifted(euler),
        *_runs(euler, {"stochastic_sampling": True}, {"stochastic_sampling": True, "shift": 3.0}, steps=STEPS),
        *_shifted(lcm),
        *(
            Case(lcm, {"scale_factors": [0.5, 1.0, 1.5], "upscale_mode": mode}, {"num_inference_steps": 4}, shape=(2, *(4, 6, 2)[:axes]))
            for axes, modes in {1: ("linear",), 2: ("bilinear", "bicubic", "nearest"), 3: ("trilinear", "area", "nearest-exact")}.items()
            for mode in modes
        ),
        *_runs(heun, {}, {"shift": 3.0}, {"num_train_timesteps": 500}, steps=STEPS),
        *_runs(heun, {"shift": 3.0}, step=churn),
        *_runs(heun, {"shift": 3.0}, begin=3),
        *_runs(flow_map, {}, {"shift": 5.0}, steps=(1, 4, 10)),
        *_runs(flow_map, {"shift": 5.0}, timesteps={"sigmas": SIGMAS}),
        *_runs(flow_map, {"shift": 5.0}, timesteps={"timesteps": TIMESTEPS}),
        *_runs(flow_map, {"shift": 5.0}, begin=4),
        *_runs(flow_map, {}, step={"r_timestep": 123.0}),
        *_runs(ltx, {}, {"eta": 0.0}, {"eta": 0.5, "s_noise": 1.1}, {"s_noise": 0.0}, steps=STEPS),
        *_runs(ltx, {}, {"eta": 0.3}, timesteps={"sigmas": [*SIGMAS, 0.0]}),
        *_runs(ltx, {}, timesteps={"timesteps": SIGMAS}),
        *_runs(minimax, {}, {"shift": 3.0}, {"shift": 1.0}, steps=(2, 6, 25)),
        *_runs(minimax, {}, timesteps={"sigmas": [*SIGMAS, 0.0]}),
        *_runs(minimax, {"shift": 3.0}, begin=4),
        *_runs(helios, {}, {"gamma": 0.5, "shift": 2.0}, {"stage_range": [0, 0.2, 0.5, 1]}, timesteps=stage, shape=(2, 1, 2, 3)),
        *_runs(helios, {}, timesteps={**stage, "stage_index": 2, "is_amplify_first_chunk": True}, shape=(2, 1, 2, 3)),
        *_runs(helios, {"use_dynamic_shifting": True}, timesteps={**stage, "mu": 1.5}, shape=(2, 1, 2, 3)),
        *_runs(helios, one_stage, {**one_stage, "shift": 3.0}, steps=(2, 5), shape=(2, 1, 2, 3)),
        *_runs(
            helios,
            {**one_stage, "use_dynamic_shifting": True, "time_shift_type": "exponential"},
            timesteps={"num_inference_steps": 4, "mu": 1.5},
            shape=(2, 1, 2, 3),
        ),
        *_runs(piflow, {"n_grid": 10}, {"n_grid": 4, "shift": 1.0}, steps=(1, 4, 8)),
        *_runs(piflow, {"n_grid": 3, "final_step_size_scale": 1.0, "num_policy_substeps": 17, "eps": 1e-3}, steps=(2, 5)),
    ]


CASES = _cases()
