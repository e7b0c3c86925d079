"""The mathematics schedulers share: one base class for each way of writing the noise level.

- `DiffusionScheduler`: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, with a_t the cumulative product of 1 - beta (arXiv 2006.11239).
- `SigmaScheduler`: x_t = x_0 + sigma_t noise, the same process divided by sqrt(a_t) (arXiv 2206.00364).
- `LogSNRScheduler`: x_t = alpha_t x_0 + sigma_t noise, and steps in lambda_t = log(alpha_t / sigma_t) (arXiv 2206.00927).

Tables are NumPy arrays; a step reads them as Python floats.
"""

import math
from typing import Any

import numpy as np

from ..core import logging
from ..core.errors import ConfigError
from .arrays import Array, dynamic_threshold, on_host, per_sample
from .scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from .tables import (
    SIGMA_OPTIONS,
    cumulative_product,
    make_betas,
    rescale_zero_terminal_snr,
    sigma_to_timestep,
    sigmas_of,
    timestep_grid,
)

logger = logging.get_logger(__name__)

NO_TIMESTEPS = "`num_inference_steps` is None: call `set_timesteps` before `step`"


def unknown_prediction(prediction_type: str, *expected: str) -> ConfigError:
    return ConfigError(f"prediction_type is {prediction_type!r}; expected one of {', '.join(expected)}")


def velocity(alphas_cumprod: np.ndarray, sample: Array, noise: Array) -> Array:
    """The training target of v-prediction, sqrt(a) noise - sqrt(1 - a) sample, one a for all or one a sample (arXiv 2202.00512)."""
    alphas_cumprod = alphas_cumprod.astype(np.float64)
    return per_sample(alphas_cumprod**0.5, sample) * noise - per_sample((1 - alphas_cumprod) ** 0.5, sample) * sample


def threshold_or_clip(pred_original_sample: Array, config: Any) -> Array:
    """A predicted clean sample, limited as the config's `thresholding`, `clip_sample` and their ranges say."""
    if config.get("thresholding"):
        return dynamic_threshold(pred_original_sample, config.dynamic_thresholding_ratio, config.sample_max_value)
    if config.get("clip_sample"):
        return pred_original_sample.clip(-config.clip_sample_range, config.clip_sample_range)
    return pred_original_sample


class DiffusionScheduler(SchedulerMixin):
    """Discrete-time diffusion: tables of betas, alphas and their cumulative products, read from the config's beta entries."""

    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    _beta_schedules: tuple[str, ...] = ("linear", "scaled_linear", "squaredcos_cap_v2")
    init_noise_sigma: float = 1.0
    num_inference_steps: int | None = None

    def _set_betas(self, last_alpha_cumprod: float | None = None) -> None:
        """Fill the tables.

        Args:
            last_alpha_cumprod: what a zero-SNR schedule's last cumulative product becomes; it is kept at 0 by default.
        """
        config = self.config
        self.betas = make_betas(
            config.beta_schedule,
            config.beta_start,
            config.beta_end,
            config.num_train_timesteps,
            config.trained_betas,
            self._beta_schedules,
        )
        if config.get("rescale_betas_zero_snr"):
            self.betas = rescale_zero_terminal_snr(self.betas)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = cumulative_product(self.alphas)
        if config.get("rescale_betas_zero_snr") and last_alpha_cumprod is not None:
            self.alphas_cumprod[-1] = last_alpha_cumprod

    def _alpha_cumprod(self, timestep: int) -> float:
        """The cumulative product at a timestep, or its value for clean samples if the timestep is negative."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final_alpha_cumprod

    def _timestep_grid(self, num_inference_steps: int) -> np.ndarray:
        config = self.config
        return timestep_grid(config.timestep_spacing, num_inference_steps, config.num_train_timesteps, config.steps_offset)

    def scale_model_input(self, sample: Array, timestep: Any = None) -> Array:
        """The sample itself: this scheduler's samples are what the model takes."""
        return sample

    def _levels(self, timesteps: Any) -> tuple[np.ndarray, np.ndarray]:
        """Factors of the clean sample and of the noise, one a timestep."""
        alphas_cumprod = self.alphas_cumprod[on_host(timesteps).reshape(-1)].astype(np.float64)
        return alphas_cumprod**0.5, (1 - alphas_cumprod) ** 0.5

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> Array:
        """Noisy samples at the given timesteps.

        Args:
            original_samples: clean samples, shape (batch, ...).
            noise: standard normal noise of the same shape.
            timesteps: one for all or one a sample: integers, or, of schedulers that count steps, some of `scheduler.timesteps`; those take
                the current step's noise level for all samples once `set_begin_index` has been called.

        Raises:
            ValueError: neither one timestep nor one a sample.
        """
        signal, noise_level = self._levels(timesteps)
        return per_sample(signal, original_samples) * original_samples + per_sample(noise_level, original_samples) * noise


class StepIndexMixin:
    """Counts steps on the host, so that a schedule may hold a timestep twice and `step` need not look it up."""

    _step_index: int | None = None
    _begin_index: int | None = None

    @property
    def step_index(self) -> int | None:
        """Index of the current step, None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Index of the first step, if `set_begin_index` gave it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this index of the schedule (image to image), instead of looking up the first timestep."""
        self._begin_index = begin_index

    def _restart(self) -> None:
        self._step_index = self._begin_index = None

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Any = None) -> int:
        """Where a timestep is in the schedule: its second place if it is there twice, so that a run started midway skips no sigma.

        Raises:
            IndexError: it is not there.
        """
        schedule = self.timesteps if schedule_timesteps is None else on_host(schedule_timesteps)
        found = np.flatnonzero(schedule.astype(np.float32) == np.float32(on_host(timestep)))
        if len(found) == 0:
            raise IndexError(f"timestep {timestep} is not in the schedule {schedule}: pass one of `scheduler.timesteps`")
        return int(found[1] if len(found) > 1 else found[0])

    def _init_step_index(self, timestep: Any) -> None:
        self._step_index = self.index_for_timestep(timestep) if self._begin_index is None else self._begin_index


class SigmaTableMixin(StepIndexMixin):
    """A table `sigmas` indexed by step, one longer than the steps, and the config's options that choose its values."""

    def _check_sigma_options(self) -> None:
        chosen = [option for option in SIGMA_OPTIONS if self.config[option]]
        if len(chosen) > 1:
            raise ConfigError(f"{' and '.join(chosen)} are all set; set at most one of {', '.join(SIGMA_OPTIONS)}")

    def _optional_sigmas(self, sigma_max: float, sigma_min: float, num: int) -> np.ndarray | None:
        """The sigmas of the option that is set, over this range, or over the config's `sigma_min` and `sigma_max` if it has them."""
        low, high = self.config.get("sigma_min"), self.config.get("sigma_max")
        low, high = float(sigma_min if low is None else low), float(sigma_max if high is None else high)
        for option, sigmas in SIGMA_OPTIONS.items():
            if self.config.get(option):
                return sigmas(high, low, num)
        return None

    def _last_sigma(self) -> float:
        """The noise level of the finished sample, as `final_sigmas_type` says."""
        kind = self.config.final_sigmas_type
        if kind not in ("zero", "sigma_min"):
            raise ConfigError(f"final_sigmas_type is {kind!r}; expected 'zero' or 'sigma_min'")
        return 0.0 if kind == "zero" else float(sigmas_of(self.alphas_cumprod[:1])[0])

    def _check_given(self, **given: Any) -> None:
        """Exactly one of these arguments of `set_timesteps` is given, and `timesteps` not with an option that chooses them."""
        if sum(value is not None for value in given.values()) != 1:
            raise ConfigError(f"pass exactly one of {', '.join(given)} to `set_timesteps`")
        used = [option for option in (*SIGMA_OPTIONS, "use_lu_lambdas", "use_flow_sigmas") if self.config.get(option)]
        if given["timesteps"] is not None and used:
            raise ConfigError(f"`timesteps` cannot be given with {used[0]}=True, which chooses them")

    def _noise_sigmas(self, timesteps: Any) -> np.ndarray:
        """Sigmas to noise samples with: at their timesteps, or at the run's own step if it has a begin index."""
        timesteps = on_host(timesteps).reshape(-1)
        if self._begin_index is None:
            indices = [self.index_for_timestep(timestep) for timestep in timesteps]
        else:
            indices = [self._begin_index if self._step_index is None else self._step_index] * len(timesteps)
        return self.sigmas[indices]


class SigmaScheduler(SigmaTableMixin, DiffusionScheduler):
    """Samplers of x_0 + sigma noise: sigmas at the timesteps, model inputs scaled to unit variance, Euler-like derivatives."""

    is_scale_input_called = False

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the initial noise."""
        sigma = float(self.sigmas.max())
        return sigma if self.config.timestep_spacing in ("linspace", "trailing") else (sigma**2 + 1) ** 0.5

    def _set_sigmas(self, timesteps: np.ndarray, sigmas: np.ndarray | None = None, sigma_last: float = 0.0) -> None:
        """Fill `sigmas` and `timesteps`.

        Args:
            timesteps: float32, descending.
            sigmas: the sigmas there; interpolated in the training table by default. The option that is set replaces both.
            sigma_last: the noise level of the finished sample.
        """
        table = sigmas_of(self.alphas_cumprod)
        if sigmas is None:
            sigmas = np.interp(timesteps, np.arange(len(table)), table)
        optional = self._optional_sigmas(sigmas[0], sigmas[-1], self.num_inference_steps)
        if optional is not None:
            sigmas, timesteps = optional, sigma_to_timestep(optional, np.log(table))
        self.sigmas = np.append(sigmas, sigma_last).astype(np.float32)
        self.timesteps = timesteps.astype(np.float32)
        self._restart()

    def scale_model_input(self, sample: Array, timestep: Any) -> Array:
        """The sample divided by sqrt(sigma^2 + 1), as the model takes it.

        Args:
            sample: shape (batch, ...).
            timestep: the current one of `timesteps`; looked at before the first step only.
        """
        if self._step_index is None:
            self._init_step_index(timestep)
        self.is_scale_input_called = True
        return sample / (float(self.sigmas[self._step_index]) ** 2 + 1) ** 0.5

    def _begin_step(self, timestep: Any) -> int:
        """The index of this step."""
        if not self.is_scale_input_called:
            logger.warning("call `scale_model_input` on the model's input before `step`, or the sample is denoised wrongly")
            self.is_scale_input_called = True
        if self._step_index is None:
            self._init_step_index(timestep)
        return self._step_index

    def _refuse_integer(self, timestep: Any) -> None:
        if "int" in str(getattr(timestep, "dtype", type(timestep))).lower():
            raise ValueError(f"timestep is the integer {timestep}; pass one of `scheduler.timesteps`, not a loop counter")

    def _predict_original(self, model_output: Array, sample: Array, sigma: float) -> Array:
        """The clean sample that a model output means at a noise level."""
        prediction_type = self.config.prediction_type
        if prediction_type == "epsilon":
            return sample - sigma * model_output
        if prediction_type == "v_prediction":
            return model_output * (-sigma / (sigma**2 + 1) ** 0.5) + sample / (sigma**2 + 1)
        if prediction_type == "sample":
            return model_output
        raise unknown_prediction(prediction_type, "epsilon", "sample", "v_prediction")

    def _levels(self, timesteps: Any) -> tuple[np.ndarray, np.ndarray]:
        sigmas = self._noise_sigmas(timesteps)
        return np.ones_like(sigmas), sigmas


class LogSNRScheduler(SigmaTableMixin, DiffusionScheduler):
    """Exponential integrators: model outputs converted to a prediction of the clean sample or of the noise, and steps in lambda."""

    def _set_log_snr_tables(self) -> None:
        self.sigmas = sigmas_of(self.alphas_cumprod)
        self.alpha_t, self.sigma_t = np.sqrt(self.alphas_cumprod), np.sqrt(1 - self.alphas_cumprod)
        self.lambda_t = np.log(self.alpha_t) - np.log(self.sigma_t)

    def _sigma_to_alpha_sigma_t(self, sigma: Any) -> tuple[Any, Any]:
        """(alpha_t, sigma_t) of a noise-to-signal ratio, or of a flow's noise level."""
        if self.config.use_flow_sigmas:
            return 1 - sigma, sigma
        alpha = 1 / (sigma**2 + 1) ** 0.5
        return alpha, sigma * alpha

    def _levels_at(self, index: int) -> tuple[float, float, float]:
        """(alpha, sigma, lambda) at an index of `sigmas`; lambda is infinite where there is no noise."""
        alpha, sigma = self._sigma_to_alpha_sigma_t(float(self.sigmas[index]))
        return alpha, sigma, math.log(alpha / sigma) if sigma > 0 else math.inf

    def _predict_original(self, model_output: Array, sample: Array) -> Array:
        """The clean sample that a model output means at the current step, limited if the config says so."""
        prediction_type = self.config.prediction_type
        alpha, sigma, _ = self._levels_at(self._step_index)
        if prediction_type == "epsilon":
            original = (sample - sigma * self._mean(model_output)) / alpha
        elif prediction_type == "sample":
            original = model_output
        elif prediction_type == "v_prediction":
            original = alpha * sample - sigma * model_output
        elif prediction_type == "flow_prediction":
            original = sample - float(self.sigmas[self._step_index]) * model_output
        else:
            raise unknown_prediction(prediction_type, "epsilon", "sample", "v_prediction", "flow_prediction")
        return threshold_or_clip(original, self.config)

    def _predict_noise(self, model_output: Array, sample: Array) -> Array:
        """The noise that a model output means at the current step, consistent with a limited clean sample if the config says so."""
        prediction_type = self.config.prediction_type
        alpha, sigma, _ = self._levels_at(self._step_index)
        if prediction_type == "epsilon":
            noise = self._mean(model_output)
        elif prediction_type == "sample":
            noise = (sample - alpha * model_output) / sigma
        elif prediction_type == "v_prediction":
            noise = alpha * model_output + sigma * sample
        else:
            raise unknown_prediction(prediction_type, "epsilon", "sample", "v_prediction")
        if self.config.thresholding:
            noise = (sample - alpha * threshold_or_clip((sample - sigma * noise) / alpha, self.config)) / sigma
        return noise

    def _mean(self, model_output: Array) -> Array:
        """The mean's three channels, of a model that also predicts a variance."""
        return model_output[:, :3] if self.config.variance_type in ("learned", "learned_range") else model_output

    def _levels(self, timesteps: Any) -> tuple[np.ndarray, np.ndarray]:
        return self._sigma_to_alpha_sigma_t(self._noise_sigmas(timesteps).astype(np.float64))
