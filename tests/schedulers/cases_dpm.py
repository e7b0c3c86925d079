"""Runs of the exponential integrators beside DPM-Solver multistep: its relatives, UniPC, DEIS, SA-Solver and Helios."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .runner import SD, SPACINGS, TRAINED_BETAS, ZERO_SNR, Case

GRIDS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.5}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
STEPS = (5, 10, 25)


@dataclass(frozen=True)
class Tau:
    """A `tau_func` that spells itself, for the case's name."""

    value: float

    def __call__(self, timestep: int) -> float:
        return self.value


def _runs(scheduler: str, *configs: dict, steps: tuple[int, ...] = (10,), **kwargs: Any) -> list[Case]:
    return [Case(scheduler, config, **{"timesteps": {"num_inference_steps": count}, **kwargs}) for config in configs for count in steps]


def _shared(name: str, base: dict, predictions: tuple[str, ...]) -> list[Case]:
    """What every class with betas and sigma options has."""
    return [
        *_runs(name, base, steps=(*STEPS, 50)),
        *_runs(name, {**base, "beta_schedule": "linear"}, {"num_train_timesteps": 100, "trained_betas": TRAINED_BETAS}),
        *_runs(name, *({**base, "prediction_type": prediction} for prediction in predictions)),
        *_runs(name, *({**base, grid: True} for grid in GRIDS), steps=(5, 24)),
        *_runs(name, {**base, **THRESHOLD}, {**base, **FLOW}, {**base, **FLOW, "flow_shift": 1.0}),
        *([] if name.startswith("UniPC") else _runs(name, {**base, "lower_order_final": False})),  # its step to zero is NaN in PyTorch
    ]


def _spaced(name: str, base: dict) -> list[Case]:
    spaced = ({**base, "timestep_spacing": spacing, "steps_offset": 1} for spacing in SPACINGS)
    return _runs(name, *spaced, steps=(7, 10))


def _inverse() -> list[Case]:
    name = "DPMSolverMultistepInverseScheduler"
    cases = [*_shared(name, SD, ("sample", "v_prediction")), *_spaced(name, SD)]
    # PyTorch starts at the second of the two timesteps 0 here, and fails at the end.
    cases = [case for case in cases if not (case.config.get("use_exponential_sigmas") and case.timesteps["num_inference_steps"] == 24)]
    for algorithm in ("dpmsolver++", "dpmsolver"):
        for order in (1, 2, 3):
            config = {**SD, "algorithm_type": algorithm, "solver_order": order}
            cases += _runs(name, config, {**config, "solver_type": "heun"}, steps=(5, 25))
    cases += _runs(name, {**SD, "euler_at_final": True}, {**FLOW, "algorithm_type": "sde-dpmsolver++"}, steps=(25,))
    cases += _runs(name, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, {**SD, "lambda_min_clipped": -2.0})
    cases += _runs(name, {**SD, "use_karras_sigmas": True}, steps=(50,))  # of equal timesteps one is left
    return cases + _runs(name, {**SD, "variance_type": "learned"}, channels=3)


def _singlestep() -> list[Case]:
    name = "DPMSolverSinglestepScheduler"
    cases = _shared(name, SD, ("sample", "v_prediction"))
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"):
        last = {**SD, "algorithm_type": algorithm, "final_sigmas_type": "zero" if algorithm.endswith("++") else "sigma_min"}
        for order in (1, 2, 3):
            for solver in ("midpoint", "heun"):
                config = {**last, "solver_order": order, "solver_type": solver}
                # "sde-dpmsolver++" of third order diverges with "heun" (see `_integrate`): the start's last bit grows to 5e-2 in 25 steps.
                diverges = (algorithm, order, solver) == ("sde-dpmsolver++", 3, "heun")
                cases += _runs(name, config, steps=(5, 6) if diverges else (5, 6, 25))
                cases += _runs(
                    name, {**config, "lower_order_final": True, "final_sigmas_type": "sigma_min"}, steps=(6,) if diverges else (6, 10)
                )
        for prediction in ("sample", "v_prediction", *(("flow_prediction",) if algorithm.endswith("++") else ())):
            cases += _runs(name, {**last, "prediction_type": prediction})
        cases += _runs(name, {**last, "final_sigmas_type": "sigma_min"}, {**last, "use_karras_sigmas": True})
        cases += _runs(name, {**last, "variance_type": "learned"}, {**last, "variance_type": "learned_range"}, channels=3)
    for begin in (2, 4):
        cases += _runs(name, {**SD, "solver_order": 3}, begin=begin)
    cases += _runs(name, {**SD, "lambda_min_clipped": -2.0}, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1})
    cases += _runs(name, SD, timesteps={"timesteps": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]})
    cases += _runs(name, {**FLOW, "use_dynamic_shifting": True}, timesteps={"num_inference_steps": 10, "mu": 0.8})
    # configs of other classes
    deis = {**SD, "algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"}
    return cases + _runs(name, {**SD, "solver_type": "bh2"}, deis)


def _unipc() -> list[Case]:
    name = "UniPCMultistepScheduler"
    cases = [*_shared(name, SD, ("sample", "v_prediction")), *_spaced(name, SD), *_runs(name, ZERO_SNR, steps=STEPS)]
    for original in (True, False):
        for solver in ("bh1", "bh2"):
            for order in (1, 2, 3, 4):
                config = {**SD, "predict_x0": original, "solver_type": solver, "solver_order": order, "final_sigmas_type": "sigma_min"}
                cases += _runs(name, config, steps=(5, 10, 25))
        config = {**SD, "predict_x0": original, "final_sigmas_type": "zero" if original else "sigma_min"}
        cases += _runs(name, *({**config, "prediction_type": prediction} for prediction in ("sample", "v_prediction")))
        cases += _runs(name, {**config, **THRESHOLD}, {**config, "disable_corrector": [0, 3, 4]}, {**config, "solver_order": 3})
    cases += _runs(name, SD, {**SD, "solver_order": 3}, begin=4)
    cases += _runs(name, {**SD, "lower_order_final": False, "final_sigmas_type": "sigma_min", "solver_order": 3})
    for grid in GRIDS:
        cases += _runs(name, {**SD, grid: True, "final_sigmas_type": "sigma_min"})
        cases += _runs(name, {**SD, grid: True, "sigma_min": 0.05, "sigma_max": 9.0})
        cases += _runs(name, {**FLOW, grid: True, "sigma_min": 0.01, "sigma_max": 0.9})
    cosmos = {**FLOW, "use_karras_sigmas": True, "sigma_min": 0.01, "sigma_max": 200.0}
    cases += _runs(name, cosmos, {**FLOW, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, steps=(5, 25))
    cases += _runs(name, {**FLOW, "final_sigmas_type": "sigma_min"}, {**FLOW, "solver_order": 3}, {**FLOW, "shift_terminal": 0.1})
    shifted = {**FLOW, "use_dynamic_shifting": True}
    given = np.array([0.95, 0.7, 0.4, 0.1])
    for kind in ("exponential", "linear"):
        for more in ({}, {"shift_terminal": 0.1}):
            config = {**shifted, "time_shift_type": kind, **more}
            cases += _runs(name, config, timesteps={"num_inference_steps": 10, "mu": 0.8})
            cases += _runs(name, config, timesteps={"sigmas": given, "mu": 0.8})
    cases += _runs(name, FLOW, cosmos, {**FLOW, "use_karras_sigmas": True, "solver_order": 1}, timesteps={"sigmas": given})
    cases += _runs(name, FLOW, timesteps={"sigmas": np.array([0.9, 0.6, 0.3], np.float32)})
    # config of another class
    return cases + _runs(name, {**SD, "solver_type": "midpoint"})


def _deis() -> list[Case]:
    name = "DEISMultistepScheduler"
    cases = [*_shared(name, SD, ("sample", "v_prediction", "flow_prediction")), *_spaced(name, SD)]
    orders = [{**SD, "solver_order": order} for order in (1, 2, 3)]
    cases += _runs(name, *orders, *({**config, "lower_order_final": False} for config in orders), steps=STEPS)
    cases += _runs(name, SD, {**SD, "solver_order": 3}, begin=4)
    cases += _runs(name, {**FLOW, "use_dynamic_shifting": True}, timesteps={"num_inference_steps": 10, "mu": 0.8})
    # configs of other classes
    return cases + _runs(name, {**SD, "solver_type": "midpoint", "algorithm_type": "dpmsolver++"})


def _sa() -> list[Case]:
    name = "SASolverScheduler"
    cases = [*_shared(name, SD, ("sample", "v_prediction")), *_spaced(name, SD)]
    for algorithm in ("data_prediction", "noise_prediction"):
        config = {**SD, "algorithm_type": algorithm}
        for order in (1, 2, 3, 4):
            cases += _runs(name, {**config, "predictor_order": order}, {**config, "corrector_order": order}, steps=(5, 10, 25))
        cases += _runs(name, *({**config, "tau_func": Tau(tau)} for tau in (0.0, 0.5, 1.0)))
        cases += _runs(name, *({**config, "prediction_type": prediction} for prediction in ("sample", "v_prediction")))
        cases += _runs(name, {**config, "lower_order_final": False, "predictor_order": 3, "corrector_order": 4})
    cases += _runs(name, {**SD, "lambda_min_clipped": -2.0}, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1})
    return cases + _runs(name, SD, {**SD, "predictor_order": 3}, begin=4)


def _edm() -> list[Case]:
    name = "EDMDPMSolverMultistepScheduler"
    cases = _runs(name, {}, {"sigma_schedule": "exponential"}, {"final_sigmas_type": "sigma_min"}, steps=(*STEPS, 50))
    for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
        for solver in ("midpoint", "heun"):
            for order in (1, 2, 3) if algorithm == "dpmsolver++" else (1, 2):
                cases += _runs(name, {"algorithm_type": algorithm, "solver_type": solver, "solver_order": order}, steps=(5, 25))
        config = {"algorithm_type": algorithm, "prediction_type": "v_prediction"}
        cases += _runs(name, config, {**config, "lower_order_final": False}, {**config, **THRESHOLD})
        cases += _runs(name, {**config, "final_sigmas_type": "sigma_min", "euler_at_final": True}, steps=(25,))
    cases += _runs(name, {"sigma_min": 0.01, "sigma_max": 9.0, "sigma_data": 1.0, "rho": 5.0}, {"num_train_timesteps": 50})
    return (
        cases
        + _runs(name, {}, begin=4)
        + _runs(name, {"algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"})
    )


def _cosine() -> list[Case]:
    name = "CosineDPMSolverMultistepScheduler"
    cases = _runs(name, {}, {"solver_type": "heun"}, {"solver_order": 1}, {"sigma_schedule": "karras"}, steps=(5, 25))
    cases += _runs(name, {"prediction_type": "epsilon"}, {"euler_at_final": True}, {"lower_order_final": False}, {"solver_type": "bh2"})
    cases += _runs(
        name, {"sigma_min": 0.1, "sigma_max": 90.0, "sigma_data": 0.5}, {"sigma_schedule": "karras", "rho": 5.0, "sigma_max": 90.0}
    )
    return cases + _runs(name, {}, begin=4)


def _helios() -> list[Case]:
    name = "HeliosScheduler"
    cases = []
    for kind in ("unipc", "euler"):
        for stage in range(3):
            for count in (1, 2, 6, 20):
                cases.append(Case(name, {"scheduler_type": kind}, {"num_inference_steps": count, "stage_index": stage}))
        for config, more in (
            ({"stages": 1, "stage_range": [0, 1]}, {}),
            ({"stages": 1, "stage_range": [0, 1], "shift": 0.7}, {}),
            ({"stages": 1, "stage_range": [0, 1], "shift": 3.0, "time_shift_type": "linear"}, {}),
            ({"stages": 1, "stage_range": [0, 1], "use_dynamic_shifting": True}, {"mu": 0.8}),
            ({"use_dynamic_shifting": True, "time_shift_type": "linear"}, {"mu": 0.8, "stage_index": 1}),
            ({"stages": 2, "stage_range": [0, 0.4, 1], "gamma": 0.5, "num_train_timesteps": 500}, {"stage_index": 1}),
        ):
            cases.append(Case(name, {"scheduler_type": kind, **config}, {"num_inference_steps": 8, **more}))
    for config in (
        *({"prediction_type": prediction} for prediction in ("epsilon", "sample", "v_prediction")),
        *({"predict_x0": False, "prediction_type": prediction} for prediction in ("epsilon", "sample", "v_prediction")),
        *({"solver_order": order, "solver_type": solver} for order in (1, 2, 3) for solver in ("bh1", "bh2")),
        {"lower_order_final": False},
        {"disable_corrector": [0, 2]},
        {"solver_type": "heun"},
    ):
        cases.append(Case(name, config, {"num_inference_steps": 8, "stage_index": 0}))
    return cases


CASES = [
    *{case.name: case for case in [*_inverse(), *_singlestep(), *_unipc(), *_deis(), *_sa(), *_edm(), *_cosine(), *_helios()]}.values()
]
