"""The mathematics schedulers share: one base class for each way of writing the noise level.

- `DiffusionScheduler`: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, with a_t the cumulative product of 1 - beta (arXiv 2006.11239).
- `SigmaScheduler`: x_t = x_0 + sigma_t noise, the same process divided by sqrt(a_t) (arXiv 2206.00364).
- `LogSNRScheduler` (solvers.py): x_t = alpha_t x_0 + sigma_t noise, and steps in lambda_t = log(alpha_t / sigma_t) (arXiv 2206.00927).
- `FlowScheduler` (flows.py): x_t = (1 - sigma_t) x_0 + sigma_t noise, and models of the velocity noise - x_0 (arXiv 2210.02747).

Tables are NumPy arrays; a step reads them as Python floats.
"""

import math
from itertools import chain
from typing import Any

import numpy as np

from ..core import logging
from ..core.errors import ConfigError, TimestepError, UnsupportedError
from ..core.outputs import BaseOutput
from .arrays import Array, clamp, dynamic_threshold, on_host, per_sample, randn_like, weighted_sum
from .scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, UnscaledInputMixin, as_output
from .tables import (
    SIGMA_OPTIONS,
    cumulative_product,
    expect,
    karras_sigmas_at,
    linspace_float32,
    make_betas,
    rescale_zero_terminal_snr,
    sigma_to_timestep,
    sigmas_of,
    timestep_grid,
)  # fmt: skip

logger = logging.get_logger(__name__)

PREDICTIONS = ("epsilon", "sample", "v_prediction")


def velocity(alphas_cumprod: np.ndarray, sample: Array, noise: Array) -> Array:
    """The training target of v-prediction, sqrt(a) noise - sqrt(1 - a) sample, one a for all or one a sample (arXiv 2202.00512)."""
    alphas_cumprod = alphas_cumprod.astype(np.float64)
    return weighted_sum(per_sample(alphas_cumprod**0.5, sample), noise, per_sample(-((1 - alphas_cumprod) ** 0.5), sample), sample)


def ancestral_levels(sigma: float, sigma_next: float) -> tuple[float, float]:
    """An ancestral step's two parts: the noise level it denoises to, and that of the fresh noise that makes it `sigma_next`."""
    return sigma_next**2 / sigma, sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5


def adams_bashforth(outputs: list[Array]) -> Array:
    """The mean of the last one to four outputs, newest first, that a linear multistep method of that order steps along."""
    return weighted_sum(*chain(*zip(_ADAMS_BASHFORTH[len(outputs)], outputs)))


_ADAMS_BASHFORTH = {1: (1,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def churned_sigma(sigma: float, steps: int, s_churn: float, s_tmin: float, s_tmax: float) -> float:
    """The noise level that a step starts from, above `sigma` where churn is wanted (arXiv 2206.00364, algorithm 2).

    Args:
        sigma: the sample's noise level.
        steps: how many steps a run has.
        s_churn: how much noise is added in all of them.
        s_tmin: the lowest noise level to add some at.
        s_tmax: the highest.
    """
    return sigma * (1 + (min(s_churn / steps, 2**0.5 - 1) if s_tmin <= sigma <= s_tmax else 0.0))


def edm_scalings(sigma: Any, sigma_data: float) -> tuple[Any, Any]:
    """EDM's c_skip and c_out: what the sample and the model's output are multiplied by (arXiv 2206.00364, table 1)."""
    variance = sigma**2 + sigma_data**2
    return sigma_data**2 / variance, sigma * sigma_data / variance**0.5


def threshold_or_clip(pred_original_sample: Array, config: Any) -> Array:
    """A predicted clean sample, limited as the config's `thresholding`, `clip_sample` and their ranges say."""
    if config.thresholding:
        return dynamic_threshold(pred_original_sample, config.dynamic_thresholding_ratio, config.sample_max_value)
    return clip(pred_original_sample, config)


def clip(pred_original_sample: Array, config: Any) -> Array:
    """A predicted clean sample, limited as the config's `clip_sample` and `clip_sample_range` say."""
    return clamp(pred_original_sample, -config.clip_sample_range, config.clip_sample_range) if config.clip_sample else pred_original_sample


def predict_original(prediction_type: str, model_output: Array, sample: Array, signal: Any, noise_level: Any) -> Array:
    """The clean sample that a model output means, where the sample is signal * clean + noise_level * noise.

    Args:
        prediction_type: "epsilon", "sample" or "v_prediction".
        model_output: shape of `sample`.
        sample: shape (batch, ...).
        signal: a number, or one a sample (see `per_sample`).
        noise_level: likewise.

    Raises:
        ConfigError: unknown `prediction_type`.
    """
    expect("prediction_type", prediction_type, PREDICTIONS)
    if prediction_type == "epsilon":
        return weighted_sum(1, sample, -noise_level, model_output, over=signal)
    return model_output if prediction_type == "sample" else weighted_sum(signal, sample, -noise_level, model_output)


def predict_noise(prediction_type: str, model_output: Array, sample: Array, signal: Any, noise_level: Any) -> Array:
    """The noise that a model output means; arguments as `predict_original`, which refuses unknown prediction types."""
    if prediction_type == "epsilon":
        return model_output
    if prediction_type == "sample":
        return weighted_sum(1, sample, -signal, model_output, over=noise_level)
    return weighted_sum(signal, model_output, noise_level, sample)


def find_timestep(schedule: np.ndarray | None, timestep: Any) -> np.ndarray:
    """The indices of a schedule that hold a timestep.

    Raises:
        TimestepError: there are none.
        ValueError: there is no schedule yet.
    """
    if schedule is None:
        raise ValueError("there are no timesteps yet: call `set_timesteps` before `step`")
    found = np.flatnonzero(schedule.astype(np.float32) == np.float32(on_host(timestep)))
    if len(found) == 0:
        raise TimestepError(f"timestep {timestep} is not in the schedule {schedule}: pass one of `scheduler.timesteps`")
    return found


def checked_timesteps(timesteps: Any, length: int) -> np.ndarray:
    """The integer timesteps a user gives to `set_timesteps`, of a training schedule of this length.

    Raises:
        ConfigError: they do not descend, or start after the end of the training schedule.
    """
    timesteps = on_host(timesteps).astype(np.int64)
    if (np.diff(timesteps) >= 0).any():
        raise ConfigError(f"timesteps are {timesteps.tolist()}; expected them to descend, each smaller than the one before")
    if timesteps[0] >= length:
        raise ConfigError(f"timesteps start at {timesteps[0]}; the training schedule ends at {length - 1}")
    return timesteps


def check_exactly_one(**given: Any) -> None:
    """Refuse none, or more than one, of these arguments of `set_timesteps`."""
    if sum(value is not None for value in given.values()) != 1:
        raise ConfigError(f"pass exactly one of {', '.join(given)} to `set_timesteps`")


def check_steps(num_inference_steps: int, length: int) -> None:
    """Refuse more steps than the training schedule has."""
    if num_inference_steps > length:
        raise ConfigError(f"num_inference_steps is {num_inference_steps}; the training schedule has {length}")


class DiffusionScheduler(UnscaledInputMixin, SchedulerMixin):
    """Discrete-time diffusion: tables of betas, alphas and their cumulative products, read from the config's beta entries."""

    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    _beta_schedules: tuple[str, ...] = ("linear", "scaled_linear", "squaredcos_cap_v2")
    init_noise_sigma: float = 1.0
    final_alpha_cumprod: float = 1.0

    def _make_betas(self) -> np.ndarray:
        config = self.config
        return make_betas(config.beta_schedule, config.beta_start, config.beta_end, len(self), config.trained_betas, self._beta_schedules)

    def _set_betas(self, betas: np.ndarray | None = None, last_alpha_cumprod: float | None = None) -> None:
        """Fill the tables, and start with the whole training schedule.

        Args:
            betas: the config's by default.
            last_alpha_cumprod: what a zero-SNR schedule's last cumulative product becomes; it is kept at 0 by default.
        """
        rescale = self.config.get("rescale_betas_zero_snr")
        self.betas = self._make_betas() if betas is None else betas
        if rescale:
            self.betas = rescale_zero_terminal_snr(self.betas)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = cumulative_product(self.alphas)
        if rescale and last_alpha_cumprod is not None:
            self.alphas_cumprod[-1] = last_alpha_cumprod
        self._set_training_timesteps()

    def _set_training_timesteps(self) -> None:
        """All of the training schedule's timesteps, and the cumulative product beyond the last, as `set_alpha_to_one` says."""
        self.final_alpha_cumprod = 1.0 if self._option("set_alpha_to_one", True) else float(self.alphas_cumprod[0])
        self.timesteps = np.arange(len(self))[::-1]

    def _alpha_cumprod(self, timestep: int) -> float:
        """The cumulative product at a timestep, or its value for clean samples if the timestep is negative."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final_alpha_cumprod

    def _alphas_cumprod(self, timesteps: np.ndarray) -> np.ndarray:
        """The cumulative products at timesteps, in float64, 1 where these are negative."""
        return np.where(timesteps < 0, 1.0, self.alphas_cumprod[np.maximum(timesteps, 0)].astype(np.float64))

    def _timestep_grid(self, num_inference_steps: int, num_train_timesteps: int | None = None) -> np.ndarray:
        """Timesteps spaced as the config says, over all training timesteps or over these first ones."""
        length = len(self) if num_train_timesteps is None else num_train_timesteps
        return timestep_grid(self.config.timestep_spacing, num_inference_steps, length, self.config.steps_offset)

    def _set_integer_timesteps(self, num_inference_steps: int) -> None:
        """Choose whole timesteps, spaced as the config says.

        Raises:
            ConfigError: more steps than the training schedule has, or an unknown `timestep_spacing`.
        """
        check_steps(num_inference_steps, len(self))
        self.num_inference_steps = num_inference_steps
        self.timesteps = self._timestep_grid(num_inference_steps).round().astype(np.int64)

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
        return weighted_sum(per_sample(signal, original_samples), original_samples, per_sample(noise_level, original_samples), noise)

    def get_velocity(self, sample: Array, noise: Array, timesteps: Any) -> Array:
        """The training target of v-prediction (arXiv 2202.00512) for clean samples, their noise, and integer timesteps."""
        return velocity(self.alphas_cumprod[on_host(timesteps).reshape(-1)], sample, noise)


class CustomTimestepsMixin:
    """Schedulers that can be given their timesteps, and go from each to the next one."""

    custom_timesteps = False

    def previous_timestep(self, timestep: Any) -> int:
        """The timestep that a step from `timestep` ends at: the next of the schedule, -1 after the last.

        Raises:
            IndexError: `timestep` is not in the schedule.
        """
        if not self.custom_timesteps and not self.num_inference_steps:
            return int(timestep) - 1
        index = find_timestep(self.timesteps, timestep)[0] + 1
        return int(self.timesteps[index]) if index < len(self.timesteps) else -1


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
            TimestepError: it is not there.
        """
        schedule = self.timesteps if schedule_timesteps is None else on_host(schedule_timesteps)
        found = find_timestep(schedule, timestep)
        return int(found[1] if len(found) > 1 else found[0])

    def _find_step(self, timestep: Any) -> int:
        """The index of this step: of its timestep if it is the first, unless `set_begin_index` gave it."""
        if self._step_index is None:
            self._step_index = self.index_for_timestep(timestep) if self._begin_index is None else self._begin_index
        return self._step_index

    def _end_step(self, output: type[BaseOutput], return_dict: bool, *values: Any) -> Any:
        """What `step` returns, having counted."""
        self._step_index += 1
        return as_output(output, return_dict, *values)

    def _refuse_integer(self, timestep: Any) -> None:
        if not isinstance(timestep, (float, np.floating)) and "int" in str(getattr(timestep, "dtype", type(timestep))).lower():
            raise ValueError(f"timestep is the integer {timestep}; pass one of `scheduler.timesteps`, not a loop counter")


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
            if self._option(option):
                return sigmas(high, low, num)
        return None

    def _last_sigma(self, sigma_min: float | None = None) -> float:
        """The noise level of the finished sample, as `final_sigmas_type` says: 0, or this, by default the smallest of training."""
        expect("final_sigmas_type", self.config.final_sigmas_type, ("zero", "sigma_min"))
        if self.config.final_sigmas_type == "zero":
            return 0.0
        return float(sigmas_of(self.alphas_cumprod[:1])[0] if sigma_min is None else sigma_min)

    def _check_given(self, **given: Any) -> None:
        """Exactly one of these arguments of `set_timesteps` is given, and `timesteps` not with an option that chooses them."""
        check_exactly_one(**given)
        used = [option for option in (*SIGMA_OPTIONS, "use_lu_lambdas", "use_flow_sigmas") if self._option(option)]
        if given["timesteps"] is not None and used:
            raise ConfigError(f"`timesteps` cannot be given with {used[0]}=True, which chooses them")

    def _churn(
        self, model_output: Array, sample: Array, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float, generator: Any, index: int
    ) -> tuple[Array, float]:
        """A sample with a little noise added, and its noise level, from that of the table at `index`; other arguments as `step`."""
        sigma = float(self.sigmas[index])
        sigma_hat = churned_sigma(sigma, len(self.sigmas) - 1, s_churn, s_tmin, s_tmax)
        if sigma_hat > sigma:
            sample = weighted_sum(1, sample, s_noise * (sigma_hat**2 - sigma**2) ** 0.5, randn_like(model_output, generator))
        return sample, sigma_hat

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

    def _set_training_sigmas(self, dtype: Any = np.float32) -> None:
        """Fill the tables as they are before `set_timesteps`, the training schedule's, with a first sigma that is finite.

        Args:
            dtype: of `timesteps`.
        """
        self._set_betas(last_alpha_cumprod=2**-24)  # not 0
        self.sigmas = np.append(sigmas_of(self.alphas_cumprod)[::-1], np.float32(0))
        self.timesteps = self.timesteps.astype(dtype)

    def _set_sigmas(self, timesteps: np.ndarray, sigmas: np.ndarray | None = None, sigma_last: float = 0, dtype: Any = np.float32) -> None:
        """Fill `sigmas` and `timesteps`.

        Args:
            timesteps: descending.
            sigmas: the sigmas there; interpolated in the training table by default. The option that is set replaces both.
            sigma_last: the noise level of the finished sample.
            dtype: what `timesteps` are kept in.
        """
        table = sigmas_of(self.alphas_cumprod)
        if sigmas is None:
            sigmas = np.interp(timesteps, np.arange(len(table)), table)
        optional = self._optional_sigmas(sigmas[0], sigmas[-1], self.num_inference_steps)
        if optional is not None:
            sigmas, timesteps = optional, sigma_to_timestep(optional, np.log(table))
        self.sigmas = np.append(sigmas, sigma_last).astype(np.float32)
        self.timesteps = timesteps.astype(dtype)
        self._restart()

    def _model_sigma(self) -> float:
        """The noise level of the current model call."""
        return float(self.sigmas[self._step_index])

    def scale_model_input(self, sample: Array, timestep: Any) -> Array:
        """The sample divided by sqrt(sigma^2 + 1), as the model takes it.

        Args:
            sample: shape (batch, ...).
            timestep: the current one of `timesteps`; looked at before the first step only.
        """
        self.is_scale_input_called = True
        self._find_step(timestep)
        return weighted_sum(1, sample, over=(self._model_sigma() ** 2 + 1) ** 0.5)

    def _begin_step(self, timestep: Any) -> int:
        """The index of this step."""
        if not self.is_scale_input_called:
            logger.warning("call `scale_model_input` on the model's input before `step`, or the sample is denoised wrongly")
            self.is_scale_input_called = True
        return self._find_step(timestep)

    def _refuse_sample_prediction(self) -> None:
        if self.config.prediction_type == "sample":
            raise UnsupportedError("prediction_type 'sample' is not supported here; use EulerDiscreteScheduler")

    def _predict_original(self, model_output: Array, sample: Array, sigma: float) -> Array:
        """The clean sample that a model output means at a noise level."""
        prediction_type = self.config.prediction_type
        expect("prediction_type", prediction_type, PREDICTIONS)
        if prediction_type == "epsilon":
            return weighted_sum(1, sample, -sigma, model_output)
        if prediction_type == "v_prediction":
            return weighted_sum(-sigma / (sigma**2 + 1) ** 0.5, model_output, 1 / (sigma**2 + 1), sample)
        return model_output

    def _derivative(self, model_output: Array, sample: Array, original: Array, sigma: float) -> Array:
        """That of the sample in sigma, (sample - original) / sigma: the model output itself if that is noise and nothing was clipped."""
        if self.config.prediction_type == "epsilon" and not self._option("clip_sample"):
            return model_output
        return weighted_sum(1, sample, -1, original, over=sigma)

    def _levels(self, timesteps: Any) -> tuple[np.ndarray, np.ndarray]:
        sigmas = self._noise_sigmas(timesteps)
        return np.ones_like(sigmas), sigmas


class TwoStageMixin:
    """Samplers of two model calls a step; `sample` is the step's start while its second call is due."""

    order = 2
    sample: Array | None = None

    @property
    def state_in_first_order(self) -> bool:
        """Whether the next call is the first of a step."""
        return self.sample is None


class HeunMixin(TwoStageMixin):
    """Heun's steps: Euler's, then its correction by the mean of the derivatives at both ends (arXiv 2206.00364, algorithm 1)."""

    prev_derivative: Array | None = None
    dt: float | None = None

    def _forget_stage(self) -> None:
        self.prev_derivative = self.dt = self.sample = None

    def _heun(self, sample: Array, derivative: Array, dt: float) -> Array:
        """The sample after a stage; `sample` and `dt`, the step, are the first stage's."""
        if self.state_in_first_order:
            self.prev_derivative, self.dt, self.sample = derivative, dt, sample
            return weighted_sum(1, sample, dt, derivative)
        prev_sample = weighted_sum(1, self.sample, self.dt, weighted_sum(0.5, self.prev_derivative, 0.5, derivative))
        self._forget_stage()
        return prev_sample


class MidpointScheduler(TwoStageMixin, SigmaScheduler):
    """Samplers whose second model call of a step is at a noise level inside it, and at a timestep of its own."""

    _timestep_dtype: Any = np.float32

    def _middle_sigmas(self, sigmas: np.ndarray) -> np.ndarray:
        """The noise levels of the second calls, of steps between these: halfway in log(sigma)."""
        return (sigmas[:-1] * sigmas[1:]) ** 0.5

    def _step_sigmas(self) -> tuple[float, float, float]:
        """The noise levels at the current step's start, middle and end."""
        raise NotImplementedError

    def set_timesteps(self, num_inference_steps: int, device: Any = None, num_train_timesteps: int | None = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many steps; the model is called twice in each but the last.
            device: ignored, timesteps stay on the host.
            num_train_timesteps: length of the training schedule to spread them over; the config's by default.

        Raises:
            ConfigError: unknown `timestep_spacing`.
        """
        self.num_inference_steps = num_inference_steps
        grid = self._timestep_grid(num_inference_steps, num_train_timesteps).astype(self._timestep_dtype)
        chosen = any(self.config[option] for option in SIGMA_OPTIONS)
        self._set_sigmas(grid, dtype=np.float64 if chosen else self._timestep_dtype)
        middle = sigma_to_timestep(self._middle_sigmas(self.sigmas[:-1]), np.log(sigmas_of(self.alphas_cumprod)))
        self.timesteps = self.timesteps.repeat(2)[:-1]
        self.timesteps[1::2] = middle
        self.sigmas = np.concatenate([self.sigmas[:1], self.sigmas[1:].repeat(2), self.sigmas[-1:]])
        self.sample = None

    def _model_sigma(self) -> float:
        start, middle, _ = self._step_sigmas()
        return start if self.state_in_first_order else middle


class EDMMixin:
    """EDM's preconditioning and sigmas, of schedulers that have a sigma table and no betas (arXiv 2206.00364, table 1).

    Read from the config's `sigma_min`, `sigma_max`, `sigma_data`, `sigma_schedule` and `rho`.
    """

    _compatibles: list[str] = []

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the initial noise."""
        return (self.config.sigma_max**2 + 1) ** 0.5

    def _edm_sigmas(self, ramp: np.ndarray) -> np.ndarray:
        """The schedule's sigmas in float32: "karras" at these fractions of the way down, or as many, "exponential".

        Raises:
            ConfigError: unknown `sigma_schedule`.
        """
        config = self.config
        expect("sigma_schedule", config.sigma_schedule, ("karras", "exponential"))
        if config.sigma_schedule == "karras":
            return karras_sigmas_at(ramp, config.sigma_max, config.sigma_min, config.rho).astype(np.float32)
        log_sigmas = linspace_float32(math.log(config.sigma_min), math.log(config.sigma_max), len(ramp))
        return np.exp(log_sigmas[::-1], dtype=np.float64).astype(np.float32)

    def _set_edm_tables(self, ramp: np.ndarray, last: float | None = None) -> None:
        """Fill `timesteps` and `sigmas`; the finished sample's is this, or as `final_sigmas_type` says."""
        sigmas = self._edm_sigmas(ramp)
        self.timesteps = self.precondition_noise(sigmas)
        self.sigmas = np.append(sigmas, np.float32(self._last_sigma(sigmas[-1]) if last is None else last))

    def precondition_inputs(self, sample: Array, sigma: float) -> Array:
        """c_in times a sample of noise level `sigma`: what the model takes, of unit variance."""
        return weighted_sum(1 / (sigma**2 + self.config.sigma_data**2) ** 0.5, sample)

    def precondition_noise(self, sigma: float | np.ndarray) -> np.ndarray:
        """c_noise: the timesteps of these noise levels, log(sigma) / 4, float32 of at least one dimension."""
        return 0.25 * np.log(np.atleast_1d(np.asarray(sigma, dtype=np.float32)))

    def precondition_outputs(self, sample: Array, model_output: Array, sigma: float) -> Array:
        """The clean sample that a model's output for `sample` of noise level `sigma` means: c_skip sample + c_out output.

        Raises:
            ConfigError: `prediction_type` is neither "epsilon" nor "v_prediction".
        """
        signs = {"epsilon": 1, "v_prediction": -1}
        expect("prediction_type", self.config.prediction_type, signs)
        c_skip, c_out = edm_scalings(sigma, self.config.sigma_data)
        return weighted_sum(c_skip, sample, signs[self.config.prediction_type] * c_out, model_output)

    def scale_model_input(self, sample: Array, timestep: Any) -> Array:
        """The sample as the model takes it: `precondition_inputs` at the current step.

        Args:
            sample: shape (batch, ...).
            timestep: the current one of `timesteps`; looked at before the first step only.
        """
        self.is_scale_input_called = True
        return self.precondition_inputs(sample, float(self.sigmas[self._find_step(timestep)]))
