"""Predictor-corrector sampling of the variance-exploding SDE (arXiv 2011.13456)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, cast, on_host, per_sample, randn_like, weighted_sum
from .scheduling_utils import SchedulerMixin, SchedulerOutput, UnscaledInputMixin, as_output
from .tables import linspace_float32


@dataclass
class SdeVeOutput(SchedulerOutput):
    """What `step_pred` returns.

    Args:
        prev_sample: the sample at the next, less noisy, timestep; shape of the sample given.
        prev_sample_mean: its mean: the same before noise was added.
    """

    prev_sample_mean: Any


class ScoreSdeVeScheduler(UnscaledInputMixin, SchedulerMixin):
    """Steps of the reverse SDE (`step_pred`), and Langevin steps that correct a sample at its noise level (`step_correct`).

    Args:
        num_train_timesteps: number of noise levels before `set_sigmas`.
        snr: signal-to-noise ratio of a correction's step.
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        sampling_eps: the last of the timesteps, which begin at 1.
        correct_steps: how many corrections a pipeline makes at each timestep.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 2000, snr: float = 0.15, sigma_min: float = 0.01, sigma_max: float = 1348.0,
        sampling_eps: float = 1e-5, correct_steps: int = 1,
    ):  # fmt: skip
        self.init_noise_sigma = sigma_max
        self.set_timesteps(num_train_timesteps)
        self.set_sigmas(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, sampling_eps: float | None = None, device: Any = None) -> None:
        """Choose the timesteps.

        Args:
            num_inference_steps: how many, from 1 down to `sampling_eps`.
            sampling_eps: the config's by default.
            device: ignored, timesteps stay on the host.
        """
        self.timesteps = linspace_float32(1, self.config.sampling_eps if sampling_eps is None else sampling_eps, num_inference_steps)

    def set_sigmas(
        self, num_inference_steps: int, sigma_min: float | None = None, sigma_max: float | None = None, sampling_eps: float | None = None
    ) -> None:
        """Choose the noise levels, once `set_timesteps` has chosen the timesteps.

        Args:
            num_inference_steps: how many, evenly spaced in log(sigma).
            sigma_min: the config's by default.
            sigma_max: the config's by default.
            sampling_eps: not used, as in PyTorch diffusers.
        """
        low = self.config.sigma_min if sigma_min is None else sigma_min
        high = self.config.sigma_max if sigma_max is None else sigma_max
        logs = linspace_float32(math.log(low), math.log(high), num_inference_steps)
        self.discrete_sigmas = np.exp(logs, dtype=np.float64).astype(np.float32)
        self.sigmas = (low * (high / low) ** self.timesteps.astype(np.float64)).astype(np.float32)

    def get_adjacent_sigma(self, timesteps: Any, t: Any) -> np.ndarray:
        """The noise levels below those at these indices of `discrete_sigmas`: 0 below the lowest. `t` is not looked at."""
        timesteps = on_host(timesteps)
        return np.where(timesteps == 0, np.float32(0), self.discrete_sigmas[timesteps - 1])

    def step_pred(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> SdeVeOutput | tuple[Array, Array]:
        """One step of the reverse SDE, in float32 (arXiv 2011.13456, algorithm 2).

        Args:
            model_output: the model's score, shape of `sample`.
            timestep: the current one of `timesteps`, or one a sample.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise.
            return_dict: return an `SdeVeOutput`, else a tuple.
        """
        timesteps = on_host(timestep).astype(np.float32).reshape(-1)
        indices = (timesteps * np.float32(len(self.timesteps) - 1)).astype(np.int64)
        sigmas, below = self.discrete_sigmas[indices].astype(np.float64), self.get_adjacent_sigma(indices, timesteps).astype(np.float64)
        variance = sigmas**2 - below**2
        noise = randn_like(sample, generator)
        sample, score, noise = (cast(array, "float32") for array in (sample, model_output, noise))
        mean = weighted_sum(1, sample, per_sample(variance, sample), score)
        prev_sample = weighted_sum(1, mean, per_sample(variance**0.5, sample), noise)
        return as_output(SdeVeOutput, return_dict, prev_sample, mean)

    def step_correct(
        self, model_output: Array, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Array]:
        """One Langevin step, of a length that gives the config's signal-to-noise ratio (arXiv 2011.13456, algorithm 4).

        Args:
            model_output: the model's score, shape of `sample`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise, in float32.
            return_dict: return a `SchedulerOutput`, else a tuple.
        """
        noise, sample, score = randn_like(sample, generator, "float32"), cast(sample, "float32"), cast(model_output, "float32")
        ratio = self.config.snr * _mean_norm(noise) / _mean_norm(score)
        prev_sample = weighted_sum(1, sample, 2 * ratio**2, score, 2 * ratio, noise)
        return as_output(SchedulerOutput, return_dict, prev_sample)

    def add_noise(self, original_samples: Array, noise: Array | None, timesteps: Any) -> Array:
        """Noisy samples, in float32.

        Args:
            original_samples: clean samples, shape (batch, ...).
            noise: standard normal noise of the same shape; drawn as `manual_seed` says if it is None.
            timesteps: indices of `discrete_sigmas`, one for all or one a sample.

        Raises:
            ValueError: neither one timestep nor one a sample.
        """
        noise = randn_like(original_samples, None) if noise is None else noise
        sigmas = self.discrete_sigmas[on_host(timesteps).reshape(-1)]
        original_samples = cast(original_samples, "float32")
        return weighted_sum(1, original_samples, per_sample(sigmas, original_samples), noise)


def _mean_norm(values: Array) -> Array:
    """The mean of the samples' Euclidean norms, one float32 number."""
    return ((values**2).reshape(values.shape[0], -1).sum(axis=1) ** 0.5).mean()
