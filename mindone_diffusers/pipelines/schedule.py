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


def get_timesteps(
    scheduler: Any, num_inference_steps: int, strength: float, denoising_start: float | None = None
) -> tuple[np.ndarray, int]:
    """The last part of a scheduler's timesteps, which an image is changed in: strength 1 is all of them, 0 none.

    The scheduler is set to begin there.

    Args:
        scheduler: with its timesteps set.
        num_inference_steps: how many steps those are.
        strength: the part of the steps to take.
        denoising_start: instead of it, the part of the training's timesteps to leave out, if it is a `fraction`.

    Returns:
        The timesteps, and how many steps they are.
    """
    skipped = num_inference_steps - min(int(num_inference_steps * strength), num_inference_steps)
    start, steps = skipped * scheduler.order, num_inference_steps - skipped
    if fraction(denoising_start) is not None:
        steps = int((scheduler.timesteps < _cutoff(scheduler, denoising_start)).sum())
        if scheduler.order == 2 and steps % 2 == 0:
            steps += 1  # all timesteps but the first are there twice, and a step begins with the second
        start = len(scheduler.timesteps) - steps
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    return scheduler.timesteps[start:], steps


def end_early(scheduler: Any, timesteps: np.ndarray, num_inference_steps: int, denoising_end: float | None) -> tuple[np.ndarray, int]:
    """The timesteps of a run that leaves the rest to another model, and how many they are; all, unless `denoising_end` is a `fraction` of
    the training's timesteps."""
    if fraction(denoising_end) is None:
        return timesteps, num_inference_steps
    steps = int((timesteps >= _cutoff(scheduler, denoising_end)).sum())
    return timesteps[:steps], steps


def fraction(value: Any) -> float | None:
    """A float between 0 and 1, neither of them; None for anything else, which turns `denoising_start` and `denoising_end` off."""
    return value if isinstance(value, float) and 0 < value < 1 else None


def _cutoff(scheduler: Any, part: float) -> int:
    """The timestep where this part of the training's timesteps, from the noisiest on, is over."""
    timesteps = scheduler.config.num_train_timesteps
    return int(round(timesteps - part * timesteps))


def accepted_by(function: Any, **kwargs: Any) -> dict[str, Any]:
    """Those of the keyword arguments that `function` takes."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in kwargs.items() if name in parameters}
