"""Sampling of the variance-preserving SDE (arXiv 2011.13456)."""

from typing import Any

import numpy as np

from ...core.configuration import register_to_config
from ..arrays import Array, cast, on_host, per_sample, randn_like, weighted_sum
from ..scheduling_utils import SchedulerMixin
from ..tables import linspace_float32


class ScoreSdeVpScheduler(SchedulerMixin):
    """Euler-Maruyama steps of the reverse SDE.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_min: beta at time 0.
        beta_max: beta at time 1.
        sampling_eps: the last of the timesteps, which begin at 1.
    """

    @register_to_config
    def __init__(self, num_train_timesteps: int = 2000, beta_min: float = 0.1, beta_max: float = 20, sampling_eps: float = 1e-3):
        self.timesteps: np.ndarray | None = None

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps.

        Args:
            num_inference_steps: how many, from 1 down to `sampling_eps`.
            device: ignored, timesteps stay on the host.
        """
        self.num_inference_steps = num_inference_steps
        self.timesteps = linspace_float32(1, self.config.sampling_eps, num_inference_steps)

    def step_pred(self, score: Array, x: Array, t: Any, generator: Any = None) -> tuple[Array, Array]:
        """One step, in float32: the sample, and its mean before noise was added.

        Args:
            score: the model's prediction of the noise, shape of `x`.
            x: the current sample, shape (batch, ...).
            t: the current one of `timesteps`, or one a sample.
            generator: draws the noise.

        Raises:
            ValueError: no `set_timesteps` before.
        """
        self._require_timesteps()
        t, low, span = on_host(t).astype(np.float32).reshape(-1), self.config.beta_min, self.config.beta_max - self.config.beta_min
        # Near 0 the deviation is the root of a difference of almost equal numbers: float32 where PyTorch diffusers has it.
        exponent = -0.25 * t**2 * span - 0.5 * t * low
        deviation = np.sqrt(1 - np.exp(2 * exponent, dtype=np.float64).astype(np.float32))
        beta, dt = low + t.astype(np.float64) * span, 1 / len(self.timesteps)
        noise = randn_like(x, generator)
        x, score, noise = (cast(array, "float32") for array in (x, score, noise))
        growth, of_score, noise_level = (
            per_sample(factor, x) for factor in (1 + 0.5 * beta * dt, -beta * dt / deviation, (beta * dt) ** 0.5)
        )
        mean = weighted_sum(growth, x, of_score, score)
        return weighted_sum(1, mean, noise_level, noise), mean
