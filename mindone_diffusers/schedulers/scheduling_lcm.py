"""Latent consistency models (arXiv 2310.04378), and what schedulers of consistency-distilled models share."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import logging
from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, randn_like, weighted_sum
from .cores import (
    CustomTimestepsMixin,
    DiffusionScheduler,
    StepIndexMixin,
    check_exactly_one,
    checked_timesteps,
    predict_original,
    threshold_or_clip,
)  # fmt: skip
from .scheduling_utils import SchedulerOutput

logger = logging.get_logger(__name__)


class DistilledScheduler(StepIndexMixin, CustomTimestepsMixin, DiffusionScheduler):
    """A few of the timesteps that a model was distilled on, and each step to the next of them."""

    _compatibles = []

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, beta_schedule: str = "scaled_linear",
        trained_betas: np.ndarray | list[float] | None = None, original_inference_steps: int = 50,
        clip_sample: bool = False, clip_sample_range: float = 1.0, set_alpha_to_one: bool = True, steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, sample_max_value: float = 1.0,
        timestep_spacing: str = "leading", timestep_scaling: float = 10.0, rescale_betas_zero_snr: bool = False,
    ):  # fmt: skip
        self._set_betas()

    def _distillation_timesteps(self, original_inference_steps: int | None, strength: float) -> tuple[int, np.ndarray]:
        """How many steps the distillation took, and the ascending timesteps of the noisier or all of them."""
        steps = self.config.original_inference_steps if original_inference_steps is None else original_inference_steps
        if steps > len(self):
            raise ConfigError(f"original_inference_steps is {steps}; the training schedule has {len(self)}")
        return steps, np.arange(1, int(steps * strength) + 1) * (len(self) // steps) - 1

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, original_inference_steps: int | None = None,
        timesteps: list[int] | np.ndarray | None = None, strength: float = 1.0,
    ) -> None:  # fmt: skip
        """Choose the timesteps: how many, or which.

        Args:
            num_inference_steps: how many, taken evenly from the distillation's.
            device: ignored, timesteps stay on the host.
            original_inference_steps: how many steps the distillation took; the config's by default.
            timesteps: the timesteps themselves, descending.
            strength: the share of the schedule that is run, in image to image: from 0 to 1.

        Raises:
            ConfigError: not one of both is given, timesteps that do not descend within the training schedule, or more steps than the
                distillation took times `strength`.
        """
        check_exactly_one(num_inference_steps=num_inference_steps, timesteps=timesteps)
        original_steps, distilled = self._distillation_timesteps(original_inference_steps, strength)
        if timesteps is None:
            if num_inference_steps > min(original_steps, len(distilled)):
                raise ConfigError(
                    f"num_inference_steps is {num_inference_steps}; the distillation took original_inference_steps={original_steps}, "
                    f"of which strength={strength} leaves {len(distilled)}"
                )
            self.num_inference_steps = num_inference_steps
            chosen = np.linspace(0, len(distilled), num_inference_steps, endpoint=False).astype(np.int64)
            self.timesteps = distilled[::-1][chosen]
        else:
            timesteps = checked_timesteps(timesteps, len(self))
            self._warn_about(timesteps, original_steps, distilled, strength)
            self.num_inference_steps, self.custom_timesteps = len(timesteps), True
            self.timesteps = timesteps[len(timesteps) - min(int(len(timesteps) * strength), len(timesteps)) :]
        self._restart()

    def _warn_about(self, timesteps: np.ndarray, original_steps: int, distilled: np.ndarray, strength: float) -> None:
        """Timesteps that the model was not distilled on may give bad images."""
        if strength == 1.0 and timesteps[0] != len(self) - 1:
            logger.warning(f"timesteps start at {timesteps[0]}, not at the last of training, {len(self) - 1}")
        unknown = np.setdiff1d(timesteps[1:], distilled)
        if len(unknown) > 0:
            logger.warning(f"the model was not distilled on the timesteps {unknown.tolist()}")
        if len(timesteps) > original_steps:
            logger.warning(f"{len(timesteps)} timesteps are given; the model was distilled with {original_steps}")

    def _ends(self, timestep: Any) -> tuple[int, int]:
        """The timestep, and the one the step ends at: in the last step, the same."""
        self._require_timesteps()
        index = self._find_step(timestep) + 1
        return int(timestep), int(self.timesteps[index] if index < len(self.timesteps) else timestep)

    @property
    def _is_last_step(self) -> bool:
        return self._step_index == self.num_inference_steps - 1


@dataclass
class LCMSchedulerOutput(SchedulerOutput):
    """What `LCMScheduler.step` returns.

    Args:
        prev_sample: the sample at the next, less noisy, timestep; shape of the sample given.
        denoised: the clean sample predicted at this step.
    """

    denoised: Any = None


class LCMScheduler(DistilledScheduler):
    """Multistep consistency sampling: predict the clean sample, add noise of the next level, again.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        original_inference_steps: how many steps the distillation took.
        clip_sample: clip the predicted clean sample to +-`clip_sample_range`.
        clip_sample_range: see `clip_sample`.
        set_alpha_to_one: kept in the config; no step ends beyond timestep 0.
        steps_offset: not used, kept in the config.
        prediction_type: "epsilon", "sample" or "v_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487).
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        timestep_spacing: not used, kept in the config.
        timestep_scaling: the factor of timesteps in the boundary condition; larger is closer to the clean sample itself.
        rescale_betas_zero_snr: make the last timestep pure noise (arXiv 2305.08891).
    """

    def get_scalings_for_boundary_condition_discrete(self, timestep: int) -> tuple[float, float]:
        """c_skip and c_out at a timestep: the factors of the sample and of the predicted clean sample (appendix C)."""
        sigma_data = 0.5
        scaled = int(timestep) * self.config.timestep_scaling
        return sigma_data**2 / (scaled**2 + sigma_data**2), scaled / (scaled**2 + sigma_data**2) ** 0.5

    def step(
        self, model_output: Array, timestep: int, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> LCMSchedulerOutput | tuple[Array, Array]:
        """One step: to the clean sample, and, unless it is the last, back to the next timestep's noise level (algorithm 3).

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise.
            return_dict: return an `LCMSchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or an unknown `prediction_type`.
            IndexError: the first timestep is not in the schedule.
        """
        timestep, prev_timestep = self._ends(timestep)
        alpha, alpha_prev = self._alpha_cumprod(timestep), self._alpha_cumprod(prev_timestep)
        original = predict_original(self.config.prediction_type, model_output, sample, alpha**0.5, (1 - alpha) ** 0.5)
        c_skip, c_out = self.get_scalings_for_boundary_condition_discrete(timestep)
        prev_sample = denoised = weighted_sum(c_out, threshold_or_clip(original, self.config), c_skip, sample)
        if not self._is_last_step:
            prev_sample = weighted_sum(alpha_prev**0.5, denoised, (1 - alpha_prev) ** 0.5, randn_like(denoised, generator))
        return self._end_step(LCMSchedulerOutput, return_dict, prev_sample, denoised)
