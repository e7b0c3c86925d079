"""Stochastic second-order sampling of variance-exploding models (arXiv 2206.00364, algorithm 2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.configuration import register_to_config
from ...core.errors import UnsupportedError
from ..arrays import Array, cast, randn_like, weighted_sum
from ..cores import churned_sigma
from ..scheduling_utils import DenoisedSchedulerOutput, SchedulerMixin, UnscaledInputMixin


@dataclass
class KarrasVeOutput(DenoisedSchedulerOutput):
    """What a stage of a step returns.

    Args:
        prev_sample: the sample at the next, less noisy, timestep; shape of the sample given.
        pred_original_sample: the clean sample predicted at this stage.
        derivative: of the sample by sigma, which `step_correct` takes.
    """

    derivative: Any = None


class KarrasVeScheduler(UnscaledInputMixin, SchedulerMixin):
    """Steps of three calls: noise is added (`add_noise_to_input`), an Euler step is made (`step`), and corrected (`step_correct`).

    The model's output is minus its prediction of the noise.

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        s_noise: standard deviation of the noise that is added.
        s_churn: how much noise is added in all, where `s_min <= sigma <= s_max`.
        s_min: see `s_churn`.
        s_max: see `s_churn`.
    """

    order = 2

    @register_to_config
    def __init__(
        self, sigma_min: float = 0.02, sigma_max: float = 100, s_noise: float = 1.007, s_churn: float = 80, s_min: float = 0.05,
        s_max: float = 50,
    ):  # fmt: skip
        self.init_noise_sigma = sigma_max
        self.timesteps: np.ndarray | None = None
        self.schedule: np.ndarray | None = None

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose timesteps, the integers below `num_inference_steps`, and noise levels.

        `schedule[t]` is the noise level at t; as in PyTorch diffusers from sigma_max^2 at the first timestep to sigma_min^2 at 0.

        Args:
            num_inference_steps: how many, 2 or more.
            device: ignored, timesteps stay on the host.
        """
        self.num_inference_steps = num_inference_steps
        self.timesteps = np.arange(num_inference_steps)[::-1].copy()
        high, low = self.config.sigma_max**2, self.config.sigma_min**2
        self.schedule = (high * (low / high) ** (self.timesteps / (num_inference_steps - 1))).astype(np.float32)

    def add_noise_to_input(self, sample: Array, sigma: float, generator: Any = None) -> tuple[Array, float]:
        """A sample with a little noise added, and its noise level.

        Args:
            sample: shape (batch, ...).
            sigma: its noise level.
            generator: draws the noise, in float32.
        """
        config, sigma = self.config, float(sigma)
        sigma_hat = churned_sigma(sigma, self.num_inference_steps, config.s_churn, config.s_min, config.s_max)
        noise = randn_like(sample, generator, "float32")
        return weighted_sum(1, sample, config.s_noise * (sigma_hat**2 - sigma**2) ** 0.5, noise), sigma_hat

    def step(
        self, model_output: Array, sigma_hat: float, sigma_prev: float, sample_hat: Array, return_dict: bool = True
    ) -> KarrasVeOutput | tuple[Array, Array]:
        """An Euler step.

        Args:
            model_output: the model's output for `sample_hat`, same shape.
            sigma_hat: the noise level after noise was added.
            sigma_prev: the noise level to step to.
            sample_hat: the sample after noise was added, shape (batch, ...).
            return_dict: return a `KarrasVeOutput`, else (prev_sample, derivative).
        """
        sigma_hat, derivative = float(sigma_hat), cast(weighted_sum(-1, model_output), sample_hat.dtype)
        sample_prev = weighted_sum(1, sample_hat, float(sigma_prev) - sigma_hat, derivative)
        return _output(sample_prev, derivative, weighted_sum(1, sample_hat, sigma_hat, model_output), return_dict)

    def step_correct(
        self, model_output: Array, sigma_hat: float, sigma_prev: float, sample_hat: Array, sample_prev: Array, derivative: Array,
        return_dict: bool = True,
    ) -> KarrasVeOutput | tuple[Array, Array]:  # fmt: skip
        """The same step along the mean of the derivatives at both ends.

        Args:
            model_output: the model's output for `sample_prev`, same shape.
            sigma_hat: as for `step`.
            sigma_prev: as for `step`.
            sample_hat: as for `step`.
            sample_prev: what `step` gave.
            derivative: what `step` gave.
            return_dict: return a `KarrasVeOutput`, else (prev_sample, derivative).
        """
        sigma_prev = float(sigma_prev)
        original, half = weighted_sum(1, sample_prev, sigma_prev, model_output), (sigma_prev - float(sigma_hat)) / 2
        sample_prev = weighted_sum(1, sample_hat, half, derivative, -half, model_output)
        return _output(sample_prev, derivative, original, return_dict)

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> Array:
        """There is none.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError("KarrasVeScheduler has no add_noise; use add_noise_to_input, or another scheduler")


def _output(prev_sample: Array, derivative: Array, original: Array, return_dict: bool) -> KarrasVeOutput | tuple[Array, Array]:
    return KarrasVeOutput(prev_sample, original, derivative) if return_dict else (prev_sample, derivative)
