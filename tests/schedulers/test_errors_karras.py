"""Samplers of x_0 + sigma noise, consistency models and score SDEs: what their errors say, and what they promise beyond loops."""

import numpy as np
import pytest

from mindone_diffusers import schedulers as ours
from mindone_diffusers.core.errors import ConfigError, TimestepError, UnsupportedError

SHAPE = (2, 2, 4, 4)


def numbers(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def make(name: str, steps: int = 5, **config):
    scheduler = getattr(ours, name)(**config)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("name", ["KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"])
def test_midpoint_errors(name: str) -> None:
    x = numbers()
    with pytest.raises(ConfigError, match="use_karras_sigmas and use_beta_sigmas are all set; set at most one"):
        make(name, use_karras_sigmas=True, use_beta_sigmas=True)
    with pytest.raises(ConfigError, match="timestep_spacing is 'even'; expected one of linspace, leading, trailing"):
        make(name, timestep_spacing="even")
    with pytest.raises(UnsupportedError, match="beta_schedule is 'exp'; expected one of linear, scaled_linear, squaredcos_cap_v2"):
        make(name, beta_schedule="exp")
    with pytest.raises(UnsupportedError, match="prediction_type 'sample' is not supported here; use EulerDiscreteScheduler"):
        make(name, prediction_type="sample").step(x, 999.0, x)
    with pytest.raises(ConfigError, match="prediction_type is 'x0'; expected one of epsilon"):
        make(name, prediction_type="x0").step(x, 999.0, x)
    with pytest.raises(TimestepError, match="timestep 3.7 is not in the schedule"):
        make(name).step(x, 3.7, x)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sigmas'"):
        make(name).set_timesteps(5, sigmas=[1.0])


def test_edm_euler_errors() -> None:
    x = numbers()
    with pytest.raises(ConfigError, match="sigma_schedule is 'linear'; expected one of karras, exponential"):
        ours.EDMEulerScheduler(sigma_schedule="linear")
    with pytest.raises(ConfigError, match="final_sigmas_type is 'one'; expected one of zero, sigma_min"):
        ours.EDMEulerScheduler(final_sigmas_type="one")
    scheduler = make("EDMEulerScheduler", prediction_type="sample")
    with pytest.raises(ConfigError, match="prediction_type is 'sample'; expected one of epsilon, v_prediction"):
        scheduler.step(x, scheduler.timesteps[0], x)
    with pytest.raises(ValueError, match="timestep is the integer 0; pass one of `scheduler.timesteps`"):
        make("EDMEulerScheduler").step(x, 0, x)


def test_edm_euler_takes_places_and_predictions() -> None:
    """Cosmos gives places on the schedule as `sigmas`; a known clean sample replaces the model's."""
    counted, placed = make("EDMEulerScheduler", 7), ours.EDMEulerScheduler()
    placed.set_timesteps(sigmas=np.linspace(0, 1, 7))
    np.testing.assert_array_equal(placed.sigmas, counted.sigmas)
    placed.set_timesteps(sigmas=[0.0, 0.25, 1.0])
    np.testing.assert_allclose(placed.sigmas[[0, 2, 3]], [80, 0.002, 0], rtol=1e-6)
    x, clean = numbers(), numbers(1)
    prev_sample, original = counted.step(x, counted.timesteps[0], x, pred_original_sample=clean, return_dict=False)
    ratio = counted.sigmas[1] / counted.sigmas[0]
    assert original is clean
    np.testing.assert_allclose(prev_sample, ratio * x + (1 - ratio) * clean, rtol=1e-5, atol=1e-6)
    # PyTorch diffusers' numbers
    np.testing.assert_allclose(counted.precondition_noise(3.0), [0.27465308])
    np.testing.assert_allclose(counted.precondition_inputs(1.0, 3.0), 0.32879797)
    np.testing.assert_allclose(counted.precondition_outputs(1.0, 2.0, 3.0), 1.0134209, rtol=1e-6)


def test_consistency_model_errors() -> None:
    x = numbers()
    scheduler = ours.CMStochasticIterativeScheduler()
    for arguments in ({}, {"num_inference_steps": 2, "timesteps": [22, 0]}):
        with pytest.raises(ConfigError, match="pass exactly one of num_inference_steps, timesteps"):
            scheduler.set_timesteps(**arguments)
    with pytest.raises(ConfigError, match=r"timesteps are \[0, 22\]; expected them to descend"):
        scheduler.set_timesteps(timesteps=[0, 22])
    with pytest.raises(ConfigError, match="timesteps start at 40; the training schedule ends at 39"):
        scheduler.set_timesteps(timesteps=[40, 0])
    with pytest.raises(ConfigError, match="num_inference_steps is 41; the training schedule has 40"):
        scheduler.set_timesteps(41)
    with pytest.raises(ValueError, match="timestep is the integer 1"):
        scheduler.step(x, 1, x)
    np.testing.assert_allclose(scheduler.get_scalings(0.5), (0.5, 0.5**1.5))
    assert scheduler.get_scalings_for_boundary_condition(0.002) == (1, 0)


def test_ipndm_forgets_the_last_run() -> None:
    scheduler = ours.IPNDMScheduler()
    x, results = numbers(), []
    for _ in range(2):
        scheduler.set_timesteps(5)
        sample = x
        for timestep in scheduler.timesteps:
            sample = scheduler.step(np.sin(sample), timestep, sample, return_dict=False)[0]
        results.append(sample)
    np.testing.assert_array_equal(*results)
    with pytest.raises(TimestepError, match="timestep 0.3 is not in the schedule"):
        make("IPNDMScheduler").step(x, 0.3, x)


def test_scm_errors() -> None:
    x = numbers()
    scheduler = ours.SCMScheduler()
    with pytest.raises(ValueError, match="call `set_timesteps` before `step`"):
        scheduler.step(x, 999, x)
    with pytest.raises(ConfigError, match="num_inference_steps is 1001; the training schedule has 1000"):
        scheduler.set_timesteps(1001)
    for arguments in ({"timesteps": [1.5, 0.7, 0.0]}, {"max_timesteps": None}):
        with pytest.raises(ConfigError, match="give either `timesteps`, and max_timesteps=None, or `max_timesteps`"):
            scheduler.set_timesteps(2, **arguments)
    with pytest.raises(ConfigError, match="2 timesteps for 2 steps; expected one more than steps"):
        scheduler.set_timesteps(2, timesteps=[1.5, 0.0], max_timesteps=None)
    with pytest.raises(ConfigError, match="intermediate_timesteps is of 2 steps, not of 4: set intermediate_timesteps=None"):
        scheduler.set_timesteps(4)
    scheduler = make("SCMScheduler", 2, prediction_type="epsilon")
    with pytest.raises(ConfigError, match="prediction_type is 'epsilon'; expected one of trigflow"):
        scheduler.step(x, scheduler.timesteps[0], x)


def test_consistency_decoder_errors() -> None:
    x = numbers()
    scheduler = ours.ConsistencyDecoderScheduler()
    with pytest.raises(ConfigError, match="num_inference_steps is 3; this scheduler has 2 steps"):
        scheduler.set_timesteps(3)
    with pytest.raises(TimestepError, match="timestep 7 is not in the schedule"):
        scheduler.step(x, 7, x)


def test_score_sde_errors() -> None:
    x = numbers()
    with pytest.raises(ValueError, match="call `set_timesteps` before `step`"):
        ours.ScoreSdeVpScheduler().step_pred(x, x, 0.5)
    with pytest.raises(UnsupportedError, match="KarrasVeScheduler has no add_noise; use add_noise_to_input"):
        ours.KarrasVeScheduler().add_noise(x, x, 0)
    with pytest.raises(ValueError, match="3 timesteps for a batch of 2"):
        ours.ScoreSdeVeScheduler().step_pred(x, np.array([1.0, 0.5, 0.1]), x)


def test_score_sde_timesteps_of_each_sample() -> None:
    x, output = numbers(), numbers(1)
    times = np.array([0.9, 0.2], dtype=np.float32)
    for both, one in (
        (lambda t, **g: make("ScoreSdeVeScheduler").step_pred(output, t, x, **g).prev_sample_mean,) * 2,
        (lambda t, **g: make("ScoreSdeVpScheduler").step_pred(output, x, t, **g)[1],) * 2,
    ):
        together = both(times)
        for i, time in enumerate(times):
            np.testing.assert_array_equal(together[i], one(time)[i])


def test_score_sde_add_noise() -> None:
    scheduler = ours.ScoreSdeVeScheduler(num_train_timesteps=11, sigma_min=0.1, sigma_max=10.0)
    x, noise = numbers(), numbers(1)
    noisy = scheduler.add_noise(x, noise, [0, 10])
    np.testing.assert_allclose(noisy - x, np.array([0.1, 10])[:, None, None, None] * noise, rtol=1e-5, atol=1e-6)
    drawn = scheduler.add_noise(x, None, [10]) - x
    assert 8 < drawn.std() < 12
