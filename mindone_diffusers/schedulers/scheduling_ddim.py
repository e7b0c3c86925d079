"""Denoising diffusion implicit models (arXiv 2010.02502)."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, randn_like, weighted_sum
from .cores import DiffusionScheduler, predict_noise, predict_original, threshold_or_clip
from .scheduling_utils import DenoisedSchedulerOutput, as_output

DDIMSchedulerOutput = DenoisedSchedulerOutput


class DDIMScheduler(DiffusionScheduler):
    """DDIM: steps of any length through the diffusion process, deterministic (`eta=0`) up to those of DDPM (`eta=1`).

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        clip_sample: clip the predicted clean sample to +-`clip_sample_range`.
        set_alpha_to_one: the last step ends at a clean sample, instead of at timestep 0.
        steps_offset: added to "leading" timesteps.
        prediction_type: "epsilon", "sample" or "v_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487).
        dynamic_thresholding_ratio: its quantile.
        clip_sample_range: see `clip_sample`.
        sample_max_value: the largest threshold.
        timestep_spacing: "leading", "trailing" or "linspace" (arXiv 2305.08891, table 2).
        rescale_betas_zero_snr: make the last timestep pure noise (arXiv 2305.08891).
    """

    _limit = staticmethod(threshold_or_clip)

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, clip_sample: bool = True, set_alpha_to_one: bool = True,
        steps_offset: int = 0, prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon",
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0, timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading",
        rescale_betas_zero_snr: bool = False,
    ):  # fmt: skip
        self._set_betas()

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: more steps than the training schedule has, or an unknown `timestep_spacing`.
        """
        self._set_integer_timesteps(num_inference_steps)

    def _get_variance(self, timestep: int, prev_timestep: int) -> float:
        """The variance of a stochastic step with eta = 1: equation 16, squared."""
        alpha, alpha_prev = self._alpha_cumprod(timestep), self._alpha_cumprod(prev_timestep)
        return (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)

    def step(
        self, model_output: Array, timestep: int, sample: Array, eta: float = 0.0, use_clipped_model_output: bool = False,
        generator: Any = None, variance_noise: Array | None = None, return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """One step towards the clean sample: equation 12.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            eta: how much noise is added, from 0 (none) to 1 (as DDPM).
            use_clipped_model_output: recompute the noise from the clipped clean sample.
            generator: draws the noise, if `eta` > 0.
            variance_noise: the noise itself, instead of a generator.
            return_dict: return a `DDIMSchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, both a generator and a noise, or an unknown `prediction_type`.
        """
        timestep, prev_timestep = int(timestep), self._next_timestep(timestep)
        variance = eta**2 * self._get_variance(timestep, prev_timestep)
        levels = transfer_levels(self._alpha_cumprod(timestep), self._alpha_cumprod(prev_timestep), variance)
        prev_sample, original = self._transfer(model_output, sample, levels, use_clipped_model_output)
        if eta > 0:
            if variance_noise is None:
                variance_noise = randn_like(model_output, generator)
            elif generator is not None:
                raise ValueError("both `generator` and `variance_noise` are given; pass one of them")
            prev_sample = weighted_sum(1, prev_sample, variance**0.5, variance_noise)

        return as_output(DDIMSchedulerOutput, return_dict, prev_sample, original)

    def _next_timestep(self, timestep: Any) -> int:
        """The timestep a stride below."""
        self._require_timesteps()
        return int(timestep) - self.config.num_train_timesteps // self.num_inference_steps

    def _transfer(
        self, model_output: Array, sample: Array, levels: tuple[Any, Any, Any, Any], use_clipped_model_output: bool = False
    ) -> tuple[Array, Array]:
        """The sample at another noise level, without fresh noise, and the clean one: equation 12."""
        prediction_type = self.config.prediction_type
        signal, noise_level, next_signal, direction = levels
        original = self._limit(predict_original(prediction_type, model_output, sample, signal, noise_level), self.config)
        if use_clipped_model_output:
            noise = predict_noise("sample", original, sample, signal, noise_level)
        else:
            noise = predict_noise(prediction_type, model_output, sample, signal, noise_level)
        return weighted_sum(next_signal, original, direction, noise), original


def transfer_levels(alpha: Any, alpha_prev: Any, variance: float = 0.0) -> tuple[Any, Any, Any, Any]:
    """Factors of the clean sample and of the noise: in a sample, and in the next, where `variance` is left to fresh noise.

    Args:
        alpha: the cumulative product at the sample's timestep, a number or an array.
        alpha_prev: that at the next sample's.
        variance: of the fresh noise.
    """
    direction = 1 - alpha_prev - variance
    return alpha**0.5, (1 - alpha) ** 0.5, alpha_prev**0.5, (direction * (direction > 0)) ** 0.5
