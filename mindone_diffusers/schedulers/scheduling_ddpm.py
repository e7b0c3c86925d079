"""Denoising diffusion probabilistic models (arXiv 2006.11239)."""

import math
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, randn_like, weighted_sum
from .cores import CustomTimestepsMixin, DiffusionScheduler, check_exactly_one, checked_timesteps, predict_original, threshold_or_clip
from .scheduling_utils import DenoisedSchedulerOutput, as_output
from .tables import expect

VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")


DDPMSchedulerOutput = DenoisedSchedulerOutput


class DDPMScheduler(CustomTimestepsMixin, DiffusionScheduler):
    """DDPM: each step samples the posterior of the next sample, given this one and the clean one the model predicts.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2", "laplace" or "sigmoid".
        trained_betas: betas that replace the schedule.
        variance_type: of the noise that is added. "fixed_small" and "fixed_small_log": the posterior's variance. "fixed_large" and
            "fixed_large_log" (NaN in PyTorch diffusers): beta. "learned": the second half of the model output's channels.
            "learned_range": between both, where the second half says from -1 to 1 (arXiv 2102.09672, equation 15).
        clip_sample: clip the predicted clean sample to +-`clip_sample_range`.
        prediction_type: "epsilon", "sample" or "v_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487).
        dynamic_thresholding_ratio: its quantile.
        clip_sample_range: see `clip_sample`.
        sample_max_value: the largest threshold.
        timestep_spacing: "leading", "trailing" or "linspace" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.
        rescale_betas_zero_snr: make the last timestep pure noise (arXiv 2305.08891).

    Raises:
        ConfigError: unknown `variance_type`; PyTorch diffusers takes it for "fixed_small", as both do None.
    """

    _limit = staticmethod(threshold_or_clip)
    _beta_schedules = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, variance_type: Literal[VARIANCE_TYPES] = "fixed_small",
        clip_sample: bool = True, prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon",
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0, timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading", steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ):  # fmt: skip
        expect("variance_type", variance_type, (*VARIANCE_TYPES, None))
        self.variance_type = variance_type
        self._set_betas()

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, timesteps: list[int] | np.ndarray | None = None
    ) -> None:
        """Choose the timesteps: how many, or which.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.
            timesteps: the timesteps themselves, descending.

        Raises:
            ConfigError: not one of both is given, timesteps that do not descend within the training schedule, more steps than that has,
                or an unknown `timestep_spacing`.
        """
        check_exactly_one(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if timesteps is None:
            self._set_integer_timesteps(num_inference_steps)
        else:
            self.timesteps = checked_timesteps(timesteps, len(self))
        self.custom_timesteps = timesteps is not None

    def step(
        self, model_output: Array, timestep: int, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> DDPMSchedulerOutput | tuple[Array, Array]:
        """One step towards the clean sample: equation 7, and noise unless the timestep is 0.

        Args:
            model_output: the model's prediction, shape of `sample`, or twice its channels if the variance is learned.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, channels, ...).
            generator: draws the noise.
            return_dict: return a `DDPMSchedulerOutput`, else a tuple.

        Raises:
            IndexError: the timestep is not in the schedule.
            ConfigError: unknown `prediction_type`, or a learned variance that the model output does not hold.
        """
        prev_sample, original = self._sample_posterior(model_output, int(timestep), self.previous_timestep(timestep), sample, generator)
        return as_output(DDPMSchedulerOutput, return_dict, prev_sample, original)

    def _sample_posterior(
        self, model_output: Array, timestep: int, prev_timestep: int, sample: Array, generator: Any
    ) -> tuple[Array, Array]:
        """The sample at `prev_timestep`, and the clean one."""
        model_output, learned = self._split(model_output, sample)
        alpha, alpha_prev = self._alpha_cumprod(timestep), self._alpha_cumprod(prev_timestep)
        beta = self._beta(timestep, prev_timestep)
        prev_sample, original = self._posterior_mean(model_output, sample, posterior_levels(alpha, alpha_prev, beta))
        if timestep > 0:
            noise = randn_like(model_output, generator)
            variance = max((1 - alpha_prev) / (1 - alpha) * beta, 1e-20)
            prev_sample = weighted_sum(1, prev_sample, self._standard_deviation(variance, beta, learned), noise)
        return prev_sample, original

    def _split(self, model_output: Array, sample: Array) -> tuple[Array, Array | None]:
        """A model output's prediction, and its variance if that is learned."""
        channels = sample.shape[1]
        if model_output.shape[1] == 2 * channels and self.variance_type in ("learned", "learned_range"):
            return model_output[:, :channels], model_output[:, channels:]
        return model_output, None

    def _beta(self, timestep: int, prev_timestep: int) -> float:
        """The beta of the whole step. The ratio is rounded to float32 as PyTorch's: that is up to 1e-3 of the beta of one timestep."""
        ratio = np.float32(self._alpha_cumprod(timestep)) / np.float32(self._alpha_cumprod(prev_timestep))
        return 1 - float(ratio)

    def _posterior_mean(self, model_output: Array, sample: Array, levels: tuple[Any, Any, Any, Any]) -> tuple[Array, Array]:
        """The mean of the next sample, and the clean sample: equations 7 and 15."""
        signal, noise_level, of_original, of_sample = levels
        original = predict_original(self.config.prediction_type, model_output, sample, signal, noise_level)
        original = self._limit(original, self.config)
        return weighted_sum(of_original, original, of_sample, sample), original

    def _standard_deviation(self, variance: float, beta: float, learned: Array | None) -> Array | float:
        if learned is None and self.variance_type in ("learned", "learned_range"):
            raise ConfigError(f"variance_type is {self.variance_type!r}: the model output must have twice the sample's channels")
        if self.variance_type == "learned":
            return learned**0.5
        if self.variance_type == "learned_range":
            middle, half_range = math.log(beta * variance) / 4, math.log(beta / variance) / 4
            return math.e ** (middle + half_range * learned)  # MindSpore's exp is off by 1e-5, its powers by 4e-7
        return (beta if self.variance_type in ("fixed_large", "fixed_large_log") else variance) ** 0.5


def posterior_levels(alpha: Any, alpha_prev: Any, beta: Any) -> tuple[Any, Any, Any, Any]:
    """Factors of the clean sample and of the noise in a sample, and of the clean sample and the sample in the posterior's mean.

    Args:
        alpha: the cumulative product at the sample's timestep, a number or an array.
        alpha_prev: that at the next sample's.
        beta: 1 - alpha / alpha_prev.
    """
    of_original, of_sample = alpha_prev**0.5 * beta / (1 - alpha), (1 - beta) ** 0.5 * (1 - alpha_prev) / (1 - alpha)
    return alpha**0.5, (1 - alpha) ** 0.5, of_original, of_sample
