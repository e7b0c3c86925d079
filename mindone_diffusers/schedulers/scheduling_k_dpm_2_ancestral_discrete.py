"""Ancestral sampling with second-order midpoint steps (k-diffusion's `sample_dpm_2_ancestral`)."""

from typing import Any

import numpy as np

from .arrays import Array, randn_like, weighted_sum
from .cores import ancestral_levels
from .scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from .scheduling_utils import DenoisedSchedulerOutput, as_output

KDPM2AncestralDiscreteSchedulerOutput = DenoisedSchedulerOutput


class KDPM2AncestralDiscreteScheduler(KDPM2DiscreteScheduler):
    """Midpoint steps to below the next noise level, then fresh noise up to it; arguments as `KDPM2DiscreteScheduler`.

    Halfway in log(sigma) to the level below, sigma_next^2 / sigma, is the next noise level itself.
    """

    def _middle_sigmas(self, sigmas: np.ndarray) -> np.ndarray:
        return sigmas[1:]

    def _step_sigmas(self) -> tuple[float, float, float]:
        first = self._step_index - (not self.state_in_first_order)
        sigma, sigma_next = float(self.sigmas[first]), float(self.sigmas[first + 2])
        return sigma, sigma_next, ancestral_levels(sigma, sigma_next)[0]

    def step(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> KDPM2AncestralDiscreteSchedulerOutput | tuple[Array, Array]:
        """One stage of a step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise of second stages.
            return_dict: return a `KDPM2AncestralDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: unknown `prediction_type`.
            UnsupportedError: `prediction_type` is "sample".
            TimestepError: `timestep` is not in the schedule.
        """
        if self.state_in_first_order:
            prev_sample, original = self._advance(model_output, timestep, sample)
        else:
            _, sigma_next, down = self._step_sigmas()
            prev_sample, original = self._advance(model_output, timestep, sample)
            prev_sample = weighted_sum(1, prev_sample, (sigma_next**2 - down**2) ** 0.5, randn_like(model_output, generator))
        return as_output(KDPM2AncestralDiscreteSchedulerOutput, return_dict, prev_sample, original)
