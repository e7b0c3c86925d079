"""Ancestral sampling with Euler steps (k-diffusion's `sample_euler_ancestral`; variances of arXiv 2006.11239)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, cast, randn_like, weighted_sum
from .cores import SigmaScheduler, ancestral_levels
from .scheduling_utils import DenoisedSchedulerOutput

EulerAncestralDiscreteSchedulerOutput = DenoisedSchedulerOutput


class EulerAncestralDiscreteScheduler(SigmaScheduler):
    """Euler steps to below the next noise level, then fresh noise up to it.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        prediction_type: "epsilon" or "v_prediction".
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.
        rescale_betas_zero_snr: make the last timestep (nearly) pure noise (arXiv 2305.08891).
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, prediction_type: str = "epsilon",
        timestep_spacing: str = "linspace", steps_offset: int = 0, rescale_betas_zero_snr: bool = False,
    ):  # fmt: skip
        self._set_training_sigmas(np.float64)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: unknown `timestep_spacing`.
        """
        self.num_inference_steps = num_inference_steps
        self._set_sigmas(self._timestep_grid(num_inference_steps).astype(np.float32))

    def step(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> EulerAncestralDiscreteSchedulerOutput | tuple[Array, Array]:
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample`; its dtype is the result's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise.
            return_dict: return an `EulerAncestralDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep, or an unknown `prediction_type`.
            UnsupportedError: `prediction_type` is "sample".
            IndexError: `timestep` is not in the schedule.
        """
        self._refuse_integer(timestep)
        self._refuse_sample_prediction()
        index = self._begin_step(timestep)
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        sample = cast(sample, "float32")

        original = self._predict_original(model_output, sample, sigma)
        sigma_down, sigma_up = ancestral_levels(sigma, sigma_next)
        kept = sigma_down / sigma
        prev_sample = weighted_sum(kept, sample, 1 - kept, original, sigma_up, randn_like(model_output, generator))
        prev_sample = cast(prev_sample, model_output.dtype)

        return self._end_step(EulerAncestralDiscreteSchedulerOutput, return_dict, prev_sample, original)
