"""The exponential integrators' errors say what was wrong, what was expected and what to do."""

import logging

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.core.errors import ConfigError, UnsupportedError

from .runner import SD

X = np.zeros((1, 2, 4, 4), np.float32)
DPM, INVERSE, SINGLE = (f"DPMSolver{kind}Scheduler" for kind in ("Multistep", "MultistepInverse", "Singlestep"))
UNIPC, DEIS, SA = "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"
EDM, COSINE, HELIOS = "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler", "HeliosScheduler"
FLOW = {"use_flow_sigmas": True}


@pytest.mark.parametrize(
    "name, config, kind, message",
    [
        *(
            (name, {"use_karras_sigmas": True, "use_beta_sigmas": True}, ConfigError, "are all set")
            for name in (INVERSE, SINGLE, UNIPC, DEIS, SA)
        ),
        *((name, {"beta_schedule": "x"}, UnsupportedError, "beta_schedule is 'x'") for name in (INVERSE, SINGLE, UNIPC, DEIS, SA)),
        *(
            (name, {**FLOW, "use_karras_sigmas": True}, ConfigError, "cannot go with use_karras_sigmas")
            for name in (INVERSE, SINGLE, DEIS, SA)
        ),
        (DPM, {**FLOW, "use_lu_lambdas": True}, ConfigError, "cannot go with use_lu_lambdas"),
        (INVERSE, {"algorithm_type": "x"}, UnsupportedError, "algorithm_type is 'x'; expected one of dpmsolver\\+\\+, dpmsolver, sde"),
        (INVERSE, {"algorithm_type": "sde-dpmsolver++"}, ConfigError, "no noise to add in steps towards noise: use 'dpmsolver\\+\\+'"),
        (SINGLE, {"algorithm_type": "sde-dpmsolver"}, UnsupportedError, "algorithm_type is 'sde-dpmsolver'; expected one of"),
        (SINGLE, {"algorithm_type": "dpmsolver"}, ConfigError, "'zero' does not go with algorithm_type 'dpmsolver'; use 'sigma_min'"),
        (SINGLE, {"solver_order": 4}, ConfigError, "solver_order is 4; expected one of 1, 2, 3"),
        *((name, {"solver_type": "x"}, UnsupportedError, "solver_type is 'x'; expected one of") for name in (INVERSE, SINGLE, UNIPC, DEIS)),
        *((name, {"solver_type": "x"}, UnsupportedError, "solver_type is 'x'; expected one of") for name in (EDM, COSINE, HELIOS)),
        (UNIPC, {"shift_terminal": 0.1}, ConfigError, "`shift_terminal` stretches flow sigmas: it needs use_flow_sigmas=True"),
        (UNIPC, {"predict_x0": False}, ConfigError, "'zero' does not go with predict_x0=False; use 'sigma_min'"),
        (DEIS, {"algorithm_type": "sde-dpmsolver++"}, UnsupportedError, "expected one of deis"),
        (SA, {"algorithm_type": "x"}, UnsupportedError, "expected one of data_prediction, noise_prediction"),
        (SA, {"corrector_order": 5}, ConfigError, "corrector_order is 5; expected one of 1, 2, 3, 4"),
        (EDM, {"algorithm_type": "dpmsolver"}, UnsupportedError, "algorithm_type is 'dpmsolver'; expected one of"),
        (EDM, {"sigma_schedule": "x"}, ConfigError, "sigma_schedule is 'x'"),
        (COSINE, {"solver_order": 3}, ConfigError, "solver_order is 3; expected one of 1, 2"),
        (HELIOS, {"thresholding": True}, UnsupportedError, "no thresholding: leave it False"),
    ],
)
def test_constructors(name: str, config: dict, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        getattr(ours, name)(**config)


@pytest.mark.parametrize(
    "name, config, arguments, message",
    [
        *((name, {"timestep_spacing": "x"}, {"num_inference_steps": 4}, "timestep_spacing is 'x'") for name in (INVERSE, UNIPC, DEIS, SA)),
        *(
            (name, {"final_sigmas_type": "x"}, {"num_inference_steps": 4}, "final_sigmas_type is 'x'")
            for name in (SINGLE, UNIPC, EDM, COSINE)
        ),
        *((name, {}, {"num_inference_steps": 4, "mu": 1.0}, "`mu` needs use_dynamic_shifting=True") for name in (SINGLE, DEIS)),
        (SINGLE, {}, {}, "pass exactly one of num_inference_steps, timesteps"),
        (SINGLE, {}, {"num_inference_steps": 2, "timesteps": [9, 5]}, "pass exactly one of num_inference_steps, timesteps"),
        (SINGLE, {"use_karras_sigmas": True}, {"timesteps": [9, 5]}, "`timesteps` cannot be given with use_karras_sigmas=True"),
        (UNIPC, {}, {}, "pass `num_inference_steps` or `sigmas`"),
        (UNIPC, {}, {"sigmas": [0.9, 0.5]}, "`sigmas` are flow sigmas: they need use_flow_sigmas=True"),
        (UNIPC, {**FLOW, "use_beta_sigmas": True}, {"sigmas": [0.9, 0.5]}, "and no exponential or beta sigmas"),
        (UNIPC, {**FLOW, "use_dynamic_shifting": True}, {"num_inference_steps": 4}, "pass `mu`"),
        (
            UNIPC,
            {**FLOW, "use_beta_sigmas": True},
            {"num_inference_steps": 4},
            "it has to be below 1: pass other sigmas, or set `sigma_max`",
        ),
        (UNIPC, FLOW, {"sigmas": [1.5, 0.5]}, "the largest flow sigma is 1.5"),
    ],
)
def test_set_timesteps(name: str, config: dict, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        getattr(ours, name)(**config).set_timesteps(**arguments)


@pytest.mark.parametrize("name", [INVERSE, SINGLE, UNIPC, DEIS, SA, EDM, COSINE, HELIOS])
def test_steps(name: str) -> None:
    scheduler = getattr(ours, name)()
    with pytest.raises(ValueError, match="call `set_timesteps` before `step`"):
        scheduler.step(X, 5.0, X)
    scheduler = getattr(ours, name)(prediction_type="x")
    scheduler.set_timesteps(4, **({"stage_index": 0} if name == HELIOS else {}))
    with pytest.raises(ConfigError, match="prediction_type is 'x'; expected one of"):
        scheduler.step(X, scheduler.timesteps[0], X)
    with pytest.raises(TypeError, match="nonsense"):
        scheduler.step(X, scheduler.timesteps[0], X, nonsense=1)


@pytest.mark.parametrize(
    "name, config",
    [
        (SINGLE, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        (UNIPC, {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
        (SA, {"algorithm_type": "noise_prediction"}),
    ],
)
def test_predicted_noise_of_a_flow(name: str, config: dict) -> None:
    scheduler = getattr(ours, name)(prediction_type="flow_prediction", **config)
    scheduler.set_timesteps(4)
    with pytest.raises(ConfigError, match="prediction_type is 'flow_prediction'; expected one of epsilon, sample, v_prediction"):
        scheduler.step(X, scheduler.timesteps[0], X)


def test_orders_and_lambdas() -> None:
    scheduler = ours.DPMSolverSinglestepScheduler()
    scheduler.set_timesteps(4)
    with pytest.raises(ConfigError, match="order is 4; expected one of 1, 2, 3"):
        scheduler.singlestep_dpm_solver_update([X], sample=X, order=4)
    with pytest.raises(ConfigError, match="1 nodes for a polynomial of order 1; expected 2"):
        ours.SASolverScheduler().lagrange_polynomial_coefficient(1, [0.5])
    with pytest.raises(ConfigError, match="1 lambdas for order 2; expected as many"):
        ours.SASolverScheduler().get_coefficients_fn(2, 0.0, 1.0, [0.5], 1.0)


def test_helios_steps() -> None:
    scheduler = ours.HeliosScheduler(scheduler_type="x")
    scheduler.set_timesteps(4, stage_index=0)
    with pytest.raises(UnsupportedError, match="scheduler_type is 'x'; expected one of unipc, euler"):
        scheduler.step(X, scheduler.timesteps[0], X)
    with pytest.raises(ConfigError, match="give both `sigma` and `sigma_next`, or neither"):
        scheduler.step_euler(X, 900.0, X, sigma=0.5)
    with pytest.raises(ValueError, match="timestep is the integer 3"):
        scheduler.step_euler(X, 3, X)


def test_singlestep_says_that_it_changes_its_config(caplog) -> None:
    scheduler = ours.DPMSolverSinglestepScheduler(final_sigmas_type="sigma_min")
    with caplog.at_level(logging.WARNING):
        scheduler.set_timesteps(6)
        assert not scheduler.config.lower_order_final and not caplog.records
        scheduler.set_timesteps(5)
    assert scheduler.config.lower_order_final
    assert "lower_order_final becomes True: 5 steps are no multiple of the order" in caplog.text


# ---- where PyTorch diffusers gives NaN or fails


def denoise(scheduler, steps: int = 6) -> np.ndarray:
    """A run on a model that knows that the clean sample is 1."""
    scheduler.set_timesteps(steps)
    sample = np.random.default_rng(0).standard_normal(X.shape).astype(np.float32) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        sample = scheduler.step(np.ones_like(sample), timestep, sample).prev_sample
    return sample


@pytest.mark.parametrize("config", [{"solver_type": "bh1"}, {"lower_order_final": False}, {"solver_order": 3, "lower_order_final": False}])
def test_unipc_to_zero(config: dict) -> None:
    np.testing.assert_allclose(denoise(ours.UniPCMultistepScheduler(prediction_type="sample", **config)), 1, rtol=1e-6)


def test_third_order_stochastic_edm() -> None:
    """With a constant model output only the first term of the series and the noise are left."""
    scheduler = ours.EDMDPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=3)
    scheduler.convert_model_output = lambda model_output, sample: model_output
    np.testing.assert_allclose(denoise(scheduler), 1, rtol=1e-6)


def test_equal_timesteps_of_an_inverse_run() -> None:
    scheduler = ours.DPMSolverMultistepInverseScheduler(use_exponential_sigmas=True, **SD)
    scheduler.set_timesteps(24)
    assert scheduler.timesteps[0] == scheduler.timesteps[1] == 0
    scheduler.step(X, 0, X)
    assert scheduler.step_index == 1


@pytest.mark.parametrize(
    "name, config",
    [(SINGLE, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}), (SA, {"algorithm_type": "noise_prediction"})],
)
def test_thresholding_of_predicted_noise(name: str, config: dict) -> None:
    """A clean sample of 5 everywhere is limited to 1, and the noise is what is beside that."""
    noises = []
    for prediction, limit in ((5.0, {"thresholding": True}), (1.0, {})):
        scheduler = getattr(ours, name)(prediction_type="sample", **config, **limit)
        scheduler.set_timesteps(6)
        scheduler.set_begin_index(2)
        scheduler.step(X, scheduler.timesteps[2], X)
        noises.append(scheduler.convert_model_output(np.full_like(X, prediction), sample=X))
    np.testing.assert_allclose(*noises, rtol=1e-6)


def test_sa_solver_of_a_model_that_predicts_a_variance() -> None:
    scheduler = ours.SASolverScheduler(variance_type="learned")
    scheduler.set_timesteps(4)
    sample = np.zeros((1, 3, 4, 4), np.float32)
    output = np.ones((1, 6, 4, 4), np.float32)
    result = scheduler.step(output, scheduler.timesteps[0], sample).prev_sample
    expected = ours.SASolverScheduler()
    expected.set_timesteps(4)
    np.testing.assert_array_equal(result, expected.step(output[:, :3], expected.timesteps[0], sample).prev_sample)


def test_unipc_with_another_solver() -> None:
    """Without a correction the run is the other solver's; corrected it is not."""
    results = []
    for disabled in (range(8), []):
        solver = ours.DPMSolverMultistepScheduler()
        scheduler = ours.UniPCMultistepScheduler(solver_p=solver, disable_corrector=list(disabled))
        alone = ours.DPMSolverMultistepScheduler()
        alone.set_timesteps(8)
        scheduler.set_timesteps(8)
        samples = [ms.Tensor(np.full_like(X, 0.3))] * 2
        for timestep in alone.timesteps:
            samples = [s.step(sample.sin(), timestep, sample).prev_sample for s, sample in zip((scheduler, alone), samples, strict=True)]
        results.append(abs(samples[0] - samples[1]).max().item())
    assert results[0] == 0.0 and results[1] > 1e-4
