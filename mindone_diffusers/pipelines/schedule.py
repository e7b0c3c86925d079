"""The steps of a run."""

import inspect
from typing import Any

import numpy as np

from ..core.errors import ConfigError


def retrieve_timesteps(
    scheduler: Any,
    num_inference_steps: int | None = None,
    device: Any = None,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
    **kwargs: Any,
) -> tuple[np.ndarray, int]:
    """Set a scheduler's timesteps and return them, on the host, with the number of inference steps.

    Args:
        scheduler: any scheduler.
        num_inference_steps: how many steps, spaced as the scheduler's config says.
        device: not used, timesteps stay on the host.
        timesteps: these instead.
        sigmas: these noise levels instead.
        kwargs: passed to `scheduler.set_timesteps`.

    Raises:
        ConfigError: both are given, there is less than one step, or the scheduler does not take them.
    """
    if timesteps is not None and sigmas is not None:
        raise ConfigError("`timesteps` and `sigmas` are both given: pass one of them")
    custom = {name: values for name, values in (("timesteps", timesteps), ("sigmas", sigmas)) if values is not None}
    for name in custom:
        if name not in inspect.signature(scheduler.set_timesteps).parameters:
            raise ConfigError(f"{type(scheduler).__name__}.set_timesteps takes no custom {name}: use another scheduler, or leave them out")
    if custom:
        scheduler.set_timesteps(**custom, **kwargs)
        num_inference_steps = len(scheduler.timesteps)
    elif num_inference_steps < 1:
        raise ConfigError(f"num_inference_steps is {num_inference_steps}; expected at least 1")
    else:
        scheduler.set_timesteps(num_inference_steps, **kwargs)
    return scheduler.timesteps, num_inference_steps


def accepted_by(function: Any, **kwargs: Any) -> dict[str, Any]:
    """Those of the keyword arguments that `function` takes."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in kwargs.items() if name in parameters}
