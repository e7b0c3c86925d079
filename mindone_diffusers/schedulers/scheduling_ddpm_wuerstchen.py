"""DDPM in continuous time, as Wuerstchen and Stable Cascade use it (arXiv 2306.00637)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, cast, on_host, per_sample, randn_like, weighted_sum
from .cores import DiffusionScheduler
from .scheduling_utils import SchedulerOutput, as_output
from .tables import linspace_float32

DDPMWuerstchenSchedulerOutput = SchedulerOutput


class DDPMWuerstchenScheduler(DiffusionScheduler):
    """DDPM steps on the cosine schedule with timesteps from 1 (noise) to 0 (clean).

    Args:
        scaler: exponent that stretches the time near 0 (above 1) or near 1 (below 1).
        s: offset of the cosine (arXiv 2102.09672).
    """

    _compatibles = []

    @register_to_config
    def __init__(self, scaler: float = 1.0, s: float = 0.008):
        self.scaler, self.s = scaler, s

    def _alphas_cumprod(self, timesteps: np.ndarray) -> np.ndarray:
        """The cumulative products at fractional timesteps, kept off 0 and 1; in float32, whose rounding the cosine near 0 magnifies."""
        t, s = timesteps.astype(np.float32), np.float32(self.s)
        if self.scaler > 1:
            t = 1 - (1 - t) ** self.scaler
        elif self.scaler < 1:
            t = t**self.scaler
        signal, first = (np.cos((time + s) / (1 + s) * np.float32(np.pi) * np.float32(0.5)) ** 2 for time in (t, np.float32(0)))
        return (signal / first).clip(0.0001, 0.9999).astype(np.float64)

    def _levels(self, timesteps: Any) -> tuple[np.ndarray, np.ndarray]:
        alphas_cumprod = self._alphas_cumprod(on_host(timesteps).reshape(-1))
        return alphas_cumprod**0.5, (1 - alphas_cumprod) ** 0.5

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> Array:
        """Noisy samples at fractional timesteps, one for all or one a sample; computed in float32, in the samples' dtype."""
        noisy = super().add_noise(cast(original_samples, "float32"), cast(noise, "float32"), timesteps)
        return cast(noisy, original_samples.dtype)

    def set_timesteps(
        self, num_inference_steps: int | None = None, timesteps: list[float] | np.ndarray | None = None, device: Any = None
    ) -> None:
        """Choose the timesteps, one more than the steps.

        Args:
            num_inference_steps: how many steps, evenly from 1 to 0.
            timesteps: the timesteps themselves, descending to 0, instead.
            device: ignored, timesteps stay on the host.
        """
        self.timesteps = linspace_float32(1.0, 0.0, num_inference_steps + 1) if timesteps is None else on_host(timesteps).astype(np.float32)

    def step(
        self, model_output: Array, timestep: Any, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> DDPMWuerstchenSchedulerOutput | tuple[Array]:
        """One step towards the clean sample, and noise unless it ends there; computed in float32.

        Args:
            model_output: the predicted noise, shape of `sample`.
            timestep: one of `timesteps` but the last, as an array of one a sample, or of one.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise.
            return_dict: return a `DDPMWuerstchenSchedulerOutput`, else a tuple.
        """
        timestep = on_host(timestep).reshape(-1)
        prev_timestep = self.previous_timestep(timestep)
        alpha_cumprod, alpha_cumprod_prev = self._alphas_cumprod(timestep), self._alphas_cumprod(prev_timestep)
        alpha = alpha_cumprod / alpha_cumprod_prev
        of_output = (1 - alpha) / (1 - alpha_cumprod) ** 0.5
        deviation = ((1 - alpha) * (1 - alpha_cumprod_prev) / (1 - alpha_cumprod)) ** 0.5 * (prev_timestep != 0)
        noise = randn_like(model_output, generator)
        sample, output, noise = (cast(array, "float32") for array in (sample, model_output, noise))
        factors = alpha**-0.5, -(alpha**-0.5) * of_output, deviation
        rescale, of_output, deviation = (per_sample(factor, sample) for factor in factors)
        prev_sample = cast(weighted_sum(rescale, sample, of_output, output, deviation, noise), model_output.dtype)
        return as_output(DDPMWuerstchenSchedulerOutput, return_dict, prev_sample)

    def previous_timestep(self, timestep: Any) -> np.ndarray:
        """The timesteps that steps from `timestep`, an array of equal ones, end at.

        Raises:
            IndexError: it is the last one.
        """
        timestep = on_host(timestep).reshape(-1)
        index = np.abs(self.timesteps - timestep[0]).argmin() + 1
        if index == len(self.timesteps):
            raise IndexError(f"timestep {timestep[0]} is the last one of the schedule {self.timesteps}: no step starts there")
        return np.repeat(self.timesteps[index], len(timestep))
