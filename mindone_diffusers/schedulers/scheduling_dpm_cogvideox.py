"""The second-order stochastic solver of CogVideoX: SDE-DPM-Solver++ (2M) (arXiv 2211.01095, 2408.06072)."""

from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .arrays import Array, randn_like, weighted_sum
from .cores import predict_original
from .scheduling_ddim import DDIMSchedulerOutput
from .scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from .scheduling_utils import as_output


class CogVideoXDPMScheduler(CogVideoXDDIMScheduler):
    """Exponential integrators in the log signal-to-noise ratio, with noise; the tables and arguments are `CogVideoXDDIMScheduler`'s.

    It keeps nothing from step to step: `step` is given the last step's timestep and clean sample.
    """

    def get_variables(
        self, alpha_prod_t: float, alpha_prod_t_prev: float, alpha_prod_t_back: float | None = None
    ) -> tuple[float, float | None, float, float]:
        """The step in lambda = log(sqrt(alpha) / sqrt(1 - alpha)), and where it is.

        Args:
            alpha_prod_t: cumulative product of alphas at this timestep.
            alpha_prod_t_prev: that at the next, less noisy, timestep.
            alpha_prod_t_back: that at the last step's timestep.

        Returns:
            The step h, the last step's over h (None without `alpha_prod_t_back`), lambda here and at the next timestep.
        """
        lambda_t, lambda_next = _half_log_snr(alpha_prod_t), _half_log_snr(alpha_prod_t_prev)
        h = lambda_next - lambda_t
        if alpha_prod_t_back is None:
            return h, None, lambda_t, lambda_next
        return h, (lambda_t - _half_log_snr(alpha_prod_t_back)) / h, lambda_t, lambda_next

    def get_mult(
        self, h: float, r: float | None, alpha_prod_t: float, alpha_prod_t_prev: float, alpha_prod_t_back: float | None = None
    ) -> tuple[float, ...]:
        """The step's factors.

        Args:
            h: the step in lambda.
            r: the last step's over h.
            alpha_prod_t: cumulative product of alphas at this timestep.
            alpha_prod_t_prev: that at the next, less noisy, timestep.
            alpha_prod_t_back: that at the last step's timestep.

        Returns:
            Of the sample, and minus that of the clean sample; with `alpha_prod_t_back` also, for the extrapolated clean sample, that of
            this step's and minus that of the last step's.
        """
        of_sample = ((1 - alpha_prod_t_prev) / (1 - alpha_prod_t)) ** 0.5 * float(np.exp(-h))
        of_original = float(np.expm1(-2 * h)) * alpha_prod_t_prev**0.5
        if alpha_prod_t_back is None:
            return of_sample, of_original
        return of_sample, of_original, 1 + 1 / (2 * r), 1 / (2 * r)

    def step(
        self, model_output: Array, old_pred_original_sample: Array | None, timestep: int, timestep_back: int | None, sample: Array,
        eta: float = 0.0, use_clipped_model_output: bool = False, generator: Any = None, variance_noise: Array | None = None,
        return_dict: bool = False,
    ) -> DDIMSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """One step towards the clean sample: of second order, but the first and the last.

        Args:
            model_output: the model's prediction, shape of `sample`.
            old_pred_original_sample: the last step's clean sample, None in the first step.
            timestep: the current one of `timesteps`.
            timestep_back: the last step's, None in the first step.
            sample: the current sample, shape (batch, ...).
            eta: not used, as `use_clipped_model_output` and `variance_noise`.
            use_clipped_model_output: not used.
            generator: draws the noise: twice in a step of second order, which uses the second draw, as in PyTorch.
            variance_noise: not used.
            return_dict: return a `DDIMSchedulerOutput`, else a tuple. PyTorch diffusers' first-order steps give a tuple anyway.

        Raises:
            ConfigError: an old sample without its timestep, or an unknown `prediction_type`.
            ValueError: no `set_timesteps` before.
        """
        timestep, prev_timestep = int(timestep), self._next_timestep(timestep)
        alpha, alpha_prev = self._alpha_cumprod(timestep), self._alpha_cumprod(prev_timestep)
        original = predict_original(self.config.prediction_type, model_output, sample, alpha**0.5, (1 - alpha) ** 0.5)
        noise, denoised, alpha_back = randn_like(sample, generator), original, None
        if old_pred_original_sample is not None and prev_timestep >= 0:
            if timestep_back is None:
                raise ConfigError("timestep_back is None; pass the timestep that old_pred_original_sample was predicted at")
            noise, alpha_back = randn_like(sample, generator), self._alpha_cumprod(int(timestep_back))

        h, r, _, _ = self.get_variables(alpha, alpha_prev, alpha_back)
        of_sample, of_original, *extrapolation = self.get_mult(h, r, alpha, alpha_prev, alpha_back)
        if extrapolation:
            denoised = weighted_sum(extrapolation[0], original, -extrapolation[1], old_pred_original_sample)
        noise_level = ((1 - alpha_prev) * -float(np.expm1(-2 * h))) ** 0.5
        prev_sample = weighted_sum(of_sample, sample, -of_original, denoised, noise_level, noise)
        return as_output(DDIMSchedulerOutput, return_dict, prev_sample, original)


def _half_log_snr(alpha_cumprod: float) -> float:
    """Infinite at the ends, where there is no noise or nothing but noise."""
    with np.errstate(divide="ignore"):
        return float(np.log(alpha_cumprod) - np.log1p(-alpha_cumprod)) / 2
