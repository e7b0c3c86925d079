"""The flow-matching schedulers' errors say what was wrong, what was expected and what to do."""

import logging

import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.core.errors import ConfigError, TimestepError, UnsupportedError

from .test_flow import make, numbers

X = numbers()
EULER, HEUN, LCM = (f"FlowMatch{kind}Scheduler" for kind in ("EulerDiscrete", "HeunDiscrete", "LCM"))
FLOW_MAP, LTX, MINIMAX = "FlowMapEulerDiscreteScheduler", "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler"
HELIOS, PIFLOW = "HeliosDMDScheduler", "PiflowScheduler"


@pytest.mark.parametrize(
    "name, config, message",
    [
        (EULER, {"use_karras_sigmas": True, "use_beta_sigmas": True}, "use_karras_sigmas and use_beta_sigmas are all set"),
        (LCM, {"time_shift_type": "cubic"}, "time_shift_type is 'cubic'; expected one of exponential, linear"),
        (MINIMAX, {"shift": -1.0}, "shift is -1.0; expected a positive number"),
        (PIFLOW, {"n_grid": 1}, "n_grid is 1; expected at least 2"),
        (PIFLOW, {"eps": 0.0}, "eps is 0.0; expected a positive number"),
        (PIFLOW, {"final_step_size_scale": 0.0}, "final_step_size_scale is 0.0; expected a number over 0, up to 1"),
        (PIFLOW, {"num_policy_substeps": 0}, "num_policy_substeps is 0; expected at least 1"),
    ],
)
def test_constructors(name: str, config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        getattr(ours, name)(**config)


@pytest.mark.parametrize(
    "name, config, arguments, message",
    [
        (EULER, {"use_dynamic_shifting": True}, {"num_inference_steps": 4}, "`mu` is None; with use_dynamic_shifting=True pass it"),
        (EULER, {}, {}, "pass one of num_inference_steps, sigmas, timesteps to `set_timesteps`"),
        (LCM, {}, {"sigmas": [1.0, 0.5], "timesteps": [900.0]}, "different numbers of steps: 2 of sigmas, 1 of timesteps"),
        (FLOW_MAP, {}, {"num_inference_steps": 3, "sigmas": [1.0, 0.5]}, "2 of sigmas, 3 of num_inference_steps"),
        (LTX, {}, {}, "pass num_inference_steps, sigmas or timesteps"),
        (LTX, {}, {"sigmas": [[1.0], [0.5]]}, r"`sigmas` has shape \(2, 1\); expected a list of numbers"),
        (MINIMAX, {}, {"num_inference_steps": 1}, "num_inference_steps is 1; expected at least 2, or `sigmas`"),
        (MINIMAX, {}, {"sigmas": [1.0, 0.5]}, "expected at least two numbers, each less than the one before, the last 0"),
        (HELIOS, {"use_dynamic_shifting": True}, {"num_inference_steps": 4, "stage_index": 0}, "shift is 1.0 and mu is None"),
        (PIFLOW, {}, {"num_inference_steps": 4, "mu": 1.0}, "the model is distilled for the config's; pass num_inference_steps"),
        (PIFLOW, {}, {"num_inference_steps": 0}, "num_inference_steps is 0; expected at least 1"),
    ],
)
def test_set_timesteps(name: str, config: dict, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        getattr(ours, name)(**config).set_timesteps(**arguments)


def test_unknown_arguments() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        make(LTX).set_timesteps(4, nonsense=1)
    with pytest.raises(TypeError, match="nonsense"):
        ours.FlowMatchEulerDiscreteScheduler(nonsense=1)


@pytest.mark.parametrize("name", [EULER, HEUN, LCM, LTX, MINIMAX, PIFLOW])
def test_timesteps(name: str) -> None:
    with pytest.raises(ValueError, match="timestep is the integer 3; pass one of `scheduler.timesteps`, not a loop counter"):
        make(name).step(X, 3, X)
    with pytest.raises(ValueError, match="timestep is the integer 3"):
        make(name).step(X, np.int64(3), X)
    with pytest.raises(TimestepError, match="timestep 3.5 is not in the schedule") as error:
        make(name).step(X, 3.5, X)
    assert isinstance(error.value, IndexError) and isinstance(error.value, ValueError)  # upstream raises the one or the other


@pytest.mark.parametrize("name", [LTX, MINIMAX])
def test_steps_before_set_timesteps(name: str) -> None:
    scheduler = getattr(ours, name)()
    for call in (lambda: scheduler.step(X, 3.5, X), lambda: scheduler.index_for_timestep(3.5)):
        with pytest.raises(ValueError, match="call `set_timesteps` before `step`"):
            call()


def test_steps() -> None:
    with pytest.raises(ValueError, match="3 timesteps for a batch of 2"):
        make(EULER).scale_noise(X, make(EULER).timesteps[:3], X)
    with pytest.raises(ConfigError, match="2 scale_factors for 4 steps; expected one a step, but for the last"):
        make(LCM, scale_factors=[1, 2]).step(X, 1000.0, X)
    with pytest.raises(UnsupportedError, match="upscale_mode 'trilinear' for 2 axes; expected one of nearest, nearest-exact"):
        make(LCM, scale_factors=[1, 2, 2], upscale_mode="trilinear").step(X, 1000.0, X)
    with pytest.raises(ConfigError, match="timestep 612.5 is not in the schedule .*: pass `r_timestep`"):
        make(FLOW_MAP).step(X, 612.5, X)
    with pytest.raises(ConfigError, match="shift is 0; expected a positive number"):
        make(MINIMAX).set_shift(0)
    with pytest.raises(ValueError, match=r"model_output has shape \(2, 2, 4, 4\); expected \(2, 2, 4, 12\), 3 predictions side by side"):
        make(PIFLOW).step(X, 1000.0, X)
    scheduler = make(PIFLOW, 1)
    scheduler.step(np.tile(X, 3), 1000.0, X)
    with pytest.raises(RuntimeError, match="all 1 steps are done: call `set_timesteps` to start again"):
        scheduler.step(np.tile(X, 3), 1000.0, X)


def test_warnings(caplog) -> None:
    library = logging.getLogger("mindone_diffusers")
    library.addHandler(caplog.handler)
    make(EULER).set_timesteps(timesteps=[900.0, 500.0])
    make(LTX).set_timesteps(3, sigmas=[1.0, 0.5])
    library.removeHandler(caplog.handler)
    assert "pass `sigmas` too" in caplog.text
    assert (
        "it should be 0, the finished sample's" in caplog.text and "num_inference_steps=3 is ignored: `sigmas` make 1 steps" in caplog.text
    )
