"""Trajectory consistency distillation (arXiv 2402.19159)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .arrays import Array, randn_like, weighted_sum
from .cores import predict_noise, predict_original
from .scheduling_lcm import DistilledScheduler
from .scheduling_utils import SchedulerOutput


@dataclass
class TCDSchedulerOutput(SchedulerOutput):
    """What `TCDScheduler.step` returns.

    Args:
        prev_sample: the sample at the next, less noisy, timestep; shape of the sample given.
        pred_noised_sample: the sample predicted at the timestep from which noise brings it there.
    """

    pred_noised_sample: Any = None


class TCDScheduler(DistilledScheduler):
    """Strategic stochastic sampling: each step goes below the next timestep, the farther the larger `eta`, and noise brings it back.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        original_inference_steps: how many steps the distillation took.
        clip_sample: not used, as `clip_sample_range`, `thresholding`, `dynamic_thresholding_ratio` and `sample_max_value`: they are only
            kept in the config.
        clip_sample_range: not used.
        set_alpha_to_one: kept in the config; no step ends beyond timestep 0.
        steps_offset: not used, kept in the config.
        prediction_type: "epsilon", "sample" or "v_prediction".
        thresholding: not used.
        dynamic_thresholding_ratio: not used.
        sample_max_value: not used.
        timestep_spacing: not used, kept in the config.
        timestep_scaling: not used, kept in the config.
        rescale_betas_zero_snr: make the last timestep pure noise (arXiv 2305.08891).
    """

    def _distillation_timesteps(self, original_inference_steps: int | None, strength: float) -> tuple[int, np.ndarray]:
        """All timesteps of training, where `set_timesteps` is given `original_inference_steps`."""
        if original_inference_steps is None:
            return super()._distillation_timesteps(None, strength)
        return original_inference_steps, np.arange(int(len(self) * strength))

    def step(
        self, model_output: Array, timestep: int, sample: Array, eta: float = 0.3, generator: Any = None, return_dict: bool = True
    ) -> TCDSchedulerOutput | tuple[Array, Array]:
        """One step: along the trajectory to timestep (1 - eta) times the next, and noise up to that (algorithm 4).

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            eta: how much of the step is noise, from 0 (none) to 1 (as LCM); gamma in the paper.
            generator: draws the noise, if `eta` > 0.
            return_dict: return a `TCDSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: `eta` is not in [0, 1], or an unknown `prediction_type`.
            ValueError: no `set_timesteps` before.
            IndexError: the first timestep is not in the schedule.
        """
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta is {eta}; expected a number from 0 to 1")
        timestep, prev_timestep = self._ends(timestep)
        prev_timestep = 0 if self._step_index + 1 >= len(self.timesteps) else prev_timestep
        below = int(np.float32(1 - eta) * np.float32(prev_timestep))  # in float32, as PyTorch: it decides which whole number is reached
        alpha, alpha_prev, alpha_below = (self._alpha_cumprod(t) for t in (timestep, prev_timestep, below))
        levels = alpha**0.5, (1 - alpha) ** 0.5
        original = predict_original(self.config.prediction_type, model_output, sample, *levels)
        noise = predict_noise(self.config.prediction_type, model_output, sample, *levels)
        prev_sample = noised = weighted_sum(alpha_below**0.5, original, (1 - alpha_below) ** 0.5, noise)
        if eta > 0 and not self._is_last_step:
            kept = alpha_prev / alpha_below
            prev_sample = weighted_sum(kept**0.5, noised, (1 - kept) ** 0.5, randn_like(noised, generator))
        return self._end_step(TCDSchedulerOutput, return_dict, prev_sample, noised)
