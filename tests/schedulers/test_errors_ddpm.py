"""DDPM, DDIM and their relatives: what their errors say, and what they promise beyond PyTorch's numbers."""

import logging

import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.core.errors import ConfigError, UnsupportedError

from .runner import SD

SHAPE = (2, 2, 4, 4)


def numbers(seed: int = 0, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SHAPE[0], channels, *SHAPE[2:])).astype(np.float32)


def make(name: str, steps: int = 5, **config):
    scheduler = getattr(ours, name)(**config)
    scheduler.set_timesteps(steps)
    return scheduler


def test_ddpm_errors() -> None:
    x = numbers()
    with pytest.raises(ConfigError, match="variance_type is 'small'; expected one of fixed_small, fixed_small_log"):
        ours.DDPMScheduler(variance_type="small")
    with pytest.raises(UnsupportedError, match="beta_schedule is 'exp'; expected one of linear, .*laplace, sigmoid"):
        ours.DDPMScheduler(beta_schedule="exp")
    with pytest.raises(ConfigError, match="pass exactly one of num_inference_steps, timesteps"):
        ours.DDPMScheduler().set_timesteps()
    with pytest.raises(ConfigError, match=r"timesteps are \[9, 9\]; expected them to descend"):
        ours.DDPMScheduler().set_timesteps(timesteps=[9, 9])
    with pytest.raises(ConfigError, match="timesteps start at 1000; the training schedule ends at 999"):
        ours.DDPMScheduler().set_timesteps(timesteps=[1000, 9])
    with pytest.raises(ConfigError, match="num_inference_steps is 1001; the training schedule has 1000"):
        make("DDPMScheduler", 1001)
    with pytest.raises(IndexError, match="timestep 3 is not in the schedule"):
        make("DDPMScheduler").step(x, 3, x)
    for variance_type in ("learned", "learned_range"):
        with pytest.raises(
            ConfigError, match=f"variance_type is '{variance_type}': the model output must have twice the sample's channels"
        ):
            make("DDPMScheduler", variance_type=variance_type).step(x, 800, x)
    with pytest.raises(ConfigError, match="prediction_type is 'v'; expected one of epsilon, sample, v_prediction"):
        make("DDPMScheduler", prediction_type="v").step(x, 800, x)


def test_ddim_errors() -> None:
    x = numbers()
    with pytest.raises(ConfigError, match="eta is 0.5; `batch_step_no_noise` takes deterministic steps"):
        make("DDIMParallelScheduler").batch_step_no_noise(x, [800, 600], x, eta=0.5)
    with pytest.raises(ValueError, match="call `set_timesteps` before"):
        ours.DDIMParallelScheduler().batch_step_no_noise(x, [800, 600], x)
    for name in ("DDIMParallelScheduler", "DDPMParallelScheduler"):
        with pytest.raises(ValueError, match="3 timesteps for a batch of 2"):
            make(name).batch_step_no_noise(x, [800, 600, 400], x)
    with pytest.raises(ConfigError, match="timestep_spacing is 'linspace'; DDIMInverseScheduler takes 'leading' or 'trailing'"):
        make("DDIMInverseScheduler", timestep_spacing="linspace")
    with pytest.raises(ConfigError, match="no noise to read off the clean sample of the first step: set set_alpha_to_one=False"):
        make("DDIMInverseScheduler", prediction_type="sample").step(numbers(), 1, numbers())
    for name in ("DDIMInverseScheduler", "CogVideoXDDIMScheduler"):
        with pytest.raises(ValueError, match="call `set_timesteps` before `step`"):
            getattr(ours, name)().step(x, 3, x)
    with pytest.raises(ConfigError, match="timestep_back is None"):
        make("CogVideoXDPMScheduler").step(x, x, 800, None, x)


def test_unclip_and_repaint_errors() -> None:
    x = numbers()
    with pytest.raises(ConfigError, match="beta_schedule is 'linear'; expected one of squaredcos_cap_v2"):
        ours.UnCLIPScheduler(beta_schedule="linear")
    with pytest.raises(ConfigError, match="variance_type is 'fixed_large'; expected one of fixed_small_log, learned_range"):
        ours.UnCLIPScheduler(variance_type="fixed_large")
    with pytest.raises(ConfigError, match="num_inference_steps is 1; expected at least 2"):
        make("UnCLIPScheduler", 1)
    with pytest.raises(ConfigError, match="expected one of epsilon, sample$"):
        make("UnCLIPScheduler", prediction_type="v_prediction").step(x, 999, x)
    with pytest.raises(ConfigError, match="twice the sample's channels"):
        make("UnCLIPScheduler", variance_type="learned_range").step(x, 999, x)
    with pytest.raises(NotImplementedError, match="use `DDPMScheduler.add_noise`"):
        make("RePaintScheduler").add_noise(x, x, [3])
    for call in (lambda s: s.step(x, 3, x, x, x), lambda s: s.undo_step(x, 3)):
        with pytest.raises(ValueError, match="call `set_timesteps` before"):
            call(ours.RePaintScheduler())


def test_distilled_errors() -> None:
    x = numbers()
    for name in ("LCMScheduler", "TCDScheduler"):
        with pytest.raises(ConfigError, match="pass exactly one of num_inference_steps, timesteps"):
            getattr(ours, name)().set_timesteps(4, timesteps=[999])
        with pytest.raises(ConfigError, match="num_inference_steps is 26; .* of which strength=0.5 leaves 25"):
            getattr(ours, name)().set_timesteps(26, strength=0.5)
        with pytest.raises(ConfigError, match="original_inference_steps is 1001; the training schedule has 1000"):
            make(name, original_inference_steps=1001)
        with pytest.raises(ValueError, match="call `set_timesteps` before"):
            getattr(ours, name)().step(x, 999, x)
    for eta in (-0.1, 1.1):
        with pytest.raises(ConfigError, match=f"eta is {eta}; expected a number from 0 to 1"):
            make("TCDScheduler").step(x, 999, x, eta=eta)
    with pytest.raises(IndexError, match="timestep 0.0 is the last one of the schedule"):
        make("DDPMWuerstchenScheduler").step(x, np.zeros(2, np.float32), x)


def test_warnings_about_timesteps_without_distillation(caplog) -> None:
    library = logging.getLogger("mindone_diffusers")
    library.addHandler(caplog.handler)
    scheduler = ours.LCMScheduler(original_inference_steps=2)
    scheduler.set_timesteps(timesteps=[999, 499])
    assert caplog.text == ""
    scheduler.set_timesteps(timesteps=[998, 499, 100])
    library.removeHandler(caplog.handler)
    for part in (
        "timesteps start at 998, not at the last of training, 999",
        r"not distilled on the timesteps [100]",
        "3 timesteps are given",
    ):
        assert part in caplog.text


@pytest.mark.parametrize("name", ["DDIMParallelScheduler", "DDPMParallelScheduler"])
def test_a_batch_of_timesteps_is_its_single_steps(name: str) -> None:
    """At timestep 0 DDPM adds no noise either, so its step is the mean there."""
    scheduler = make(name, **SD)
    sample, output = numbers(), numbers(1)
    batch = scheduler.batch_step_no_noise(output, [600, 0], sample)
    single = scheduler.step(output[1:], 0, sample[1:]).prev_sample
    np.testing.assert_allclose(batch[1:], single, atol=1e-6)
    if name.startswith("DDIM"):
        np.testing.assert_allclose(batch[:1], scheduler.step(output[:1], 600, sample[:1]).prev_sample, atol=1e-6)


def test_fixed_large_log_is_fixed_large() -> None:
    """PyTorch diffusers takes the root of a logarithm there, NaN."""
    results = [
        make("DDPMScheduler", variance_type=kind).step(numbers(), 600, numbers(1), np.random.default_rng(0)).prev_sample
        for kind in ("fixed_large", "fixed_large_log", "fixed_small")
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 1e-3


def test_first_step_of_cogvideox_returns_what_was_asked_for() -> None:
    """PyTorch diffusers gives a tuple."""
    scheduler = make("CogVideoXDPMScheduler")
    result = scheduler.step(numbers(), None, 800, None, numbers(1), generator=np.random.default_rng(0), return_dict=True)
    pair = scheduler.step(numbers(), None, 800, None, numbers(1), generator=np.random.default_rng(0))
    np.testing.assert_array_equal(result.prev_sample, pair[0])
    np.testing.assert_array_equal(result.pred_original_sample, pair[1])


def test_wuerstchen_takes_a_timestep_a_sample() -> None:
    """One for all, and one each; and in samples of another count, an error."""
    scheduler = make("DDPMWuerstchenScheduler")
    results = [
        scheduler.step(numbers(), np.full(count, scheduler.timesteps[1]), numbers(1), np.random.default_rng(0)).prev_sample
        for count in (1, 2)
    ]
    np.testing.assert_array_equal(*results)
    with pytest.raises(ValueError, match="3 timesteps for a batch of 2"):
        scheduler.step(numbers(), np.full(3, scheduler.timesteps[1]), numbers(1))
