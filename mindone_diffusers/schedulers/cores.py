"""The mathematics schedulers share: one base class for each way of writing the noise level.

- `DiffusionScheduler`: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, with a_t the cumulative product of 1 - beta (arXiv 2006.11239).
- `SigmaScheduler`: x_t = x_0 + sigma_t noise, the same process divided by sqrt(a_t) (arXiv 2206.00364).
- `LogSNRScheduler`: x_t = alpha_t x_0 + sigma_t noise, and steps in lambda_t = log(alpha_t / sigma_t) (arXiv 2206.00927).
- `FlowScheduler`: x_t = (1 - sigma_t) x_0 + sigma_t noise, and models of the velocity noise - x_0 (arXiv 2210.02747).

Tables are NumPy arrays; a step reads them as Python floats.
"""

import math
from itertools import accumulate
from typing import Any

import numpy as np

from ..core import logging
from ..core.errors import ConfigError, TimestepError, UnsupportedError
from .arrays import Array, dynamic_threshold, on_host, per_sample, randn_like
from .scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput
from .tables import (
    SIGMA_OPTIONS,
    cumulative_product,
    flow_sigmas,
    karras_sigmas_at,
    linspace_float32,
    make_betas,
    rescale_zero_terminal_snr,
    shift_flow,
    sigma_to_timestep,
    sigmas_of,
    time_shift,
    timestep_grid,
)

logger = logging.get_logger(__name__)

PREDICTIONS = ("epsilon", "sample", "v_prediction")
NO_TIMESTEPS = "`num_inference_steps` is None: call `set_timesteps` before `step`"


def unknown_prediction(prediction_type: str, *expected: str) -> ConfigError:
    return ConfigError(f"prediction_type is {prediction_type!r}; expected one of {', '.join(expected)}")


def velocity(alphas_cumprod: np.ndarray, sample: Array, noise: Array) -> Array:
    """The training target of v-prediction, sqrt(a) noise - sqrt(1 - a) sample, one a for all or one a sample (arXiv 2202.00512)."""
    alphas_cumprod = alphas_cumprod.astype(np.float64)
    return per_sample(alphas_cumprod**0.5, sample) * noise - per_sample((1 - alphas_cumprod) ** 0.5, sample) * sample


def ancestral_levels(sigma: float, sigma_next: float) -> tuple[float, float]:
    """An ancestral step's two parts: the noise level it denoises to, and that of the fresh noise that makes it `sigma_next`."""
    return sigma_next**2 / sigma, sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5


def adams_bashforth(outputs: list[Array]) -> Array:
    """The mean of the last one to four outputs, newest first, that a linear multistep method of that order steps along."""
    return sum(weight * output for weight, output in zip(_ADAMS_BASHFORTH[len(outputs)], outputs))


_ADAMS_BASHFORTH = {1: (1,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


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
    return pred_original_sample.clip(-config.clip_sample_range, config.clip_sample_range) if config.clip_sample else pred_original_sample


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
    if prediction_type == "epsilon":
        return (sample - noise_level * model_output) / signal
    if prediction_type == "sample":
        return model_output
    if prediction_type == "v_prediction":
        return signal * sample - noise_level * model_output
    raise unknown_prediction(prediction_type, "epsilon", "sample", "v_prediction")


def predict_noise(prediction_type: str, model_output: Array, sample: Array, signal: Any, noise_level: Any) -> Array:
    """The noise that a model output means; arguments as `predict_original`, which refuses unknown prediction types."""
    if prediction_type == "epsilon":
        return model_output
    if prediction_type == "sample":
        return (sample - signal * model_output) / noise_level
    return signal * model_output + noise_level * sample


def find_timestep(schedule: np.ndarray | None, timestep: Any) -> np.ndarray:
    """The indices of a schedule that hold a timestep.

    Raises:
        TimestepError: there are none.
        ValueError: there is no schedule yet.
    """
    if schedule is None:
        raise ValueError(NO_TIMESTEPS)
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


def check_steps(num_inference_steps: int, length: int) -> None:
    """Refuse more steps than the training schedule has."""
    if num_inference_steps > length:
        raise ConfigError(f"num_inference_steps is {num_inference_steps}; the training schedule has {length}")


class DiffusionScheduler(SchedulerMixin):
    """Discrete-time diffusion: tables of betas, alphas and their cumulative products, read from the config's beta entries."""

    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    _beta_schedules: tuple[str, ...] = ("linear", "scaled_linear", "squaredcos_cap_v2")
    init_noise_sigma: float = 1.0
    final_alpha_cumprod: float = 1.0
    num_inference_steps: int | None = None

    def _make_betas(self) -> np.ndarray:
        config = self.config
        return make_betas(
            config.beta_schedule,
            config.beta_start,
            config.beta_end,
            config.num_train_timesteps,
            config.trained_betas,
            self._beta_schedules,
        )

    def _set_betas(self, last_alpha_cumprod: float | None = None) -> None:
        """Fill the tables.

        Args:
            last_alpha_cumprod: what a zero-SNR schedule's last cumulative product becomes; it is kept at 0 by default.
        """
        config = self.config
        self.betas = self._make_betas()
        if config.get("rescale_betas_zero_snr"):
            self.betas = rescale_zero_terminal_snr(self.betas)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = cumulative_product(self.alphas)
        if config.get("rescale_betas_zero_snr") and last_alpha_cumprod is not None:
            self.alphas_cumprod[-1] = last_alpha_cumprod

    def _alpha_cumprod(self, timestep: int) -> float:
        """The cumulative product at a timestep, or its value for clean samples if the timestep is negative."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final_alpha_cumprod

    def _alphas_cumprod(self, timesteps: np.ndarray) -> np.ndarray:
        """The cumulative products at timesteps, in float64, 1 where these are negative."""
        return np.where(timesteps < 0, 1.0, self.alphas_cumprod[np.maximum(timesteps, 0)].astype(np.float64))

    def _timestep_grid(self, num_inference_steps: int, num_train_timesteps: int | None = None) -> np.ndarray:
        """Timesteps spaced as the config says, over all training timesteps or over these first ones."""
        config = self.config
        length = config.num_train_timesteps if num_train_timesteps is None else num_train_timesteps
        return timestep_grid(config.timestep_spacing, num_inference_steps, length, config.steps_offset)

    def _set_integer_timesteps(self, num_inference_steps: int) -> None:
        """Choose whole timesteps, spaced as the config says.

        Raises:
            ConfigError: more steps than the training schedule has, or an unknown `timestep_spacing`.
        """
        check_steps(num_inference_steps, len(self))
        self.num_inference_steps = num_inference_steps
        self.timesteps = self._timestep_grid(num_inference_steps).round().astype(np.int64)

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

    def _init_step_index(self, timestep: Any) -> None:
        self._step_index = self.index_for_timestep(timestep) if self._begin_index is None else self._begin_index

    def _refuse_integer(self, timestep: Any) -> None:
        if "int" in str(getattr(timestep, "dtype", type(timestep))).lower():
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
        kind = self.config.final_sigmas_type
        if kind not in ("zero", "sigma_min"):
            raise ConfigError(f"final_sigmas_type is {kind!r}; expected 'zero' or 'sigma_min'")
        if sigma_min is None:
            sigma_min = sigmas_of(self.alphas_cumprod[:1])[0]
        return 0.0 if kind == "zero" else float(sigma_min)

    def _check_given(self, **given: Any) -> None:
        """Exactly one of these arguments of `set_timesteps` is given, and `timesteps` not with an option that chooses them."""
        if sum(value is not None for value in given.values()) != 1:
            raise ConfigError(f"pass exactly one of {', '.join(given)} to `set_timesteps`")
        used = [option for option in (*SIGMA_OPTIONS, "use_lu_lambdas", "use_flow_sigmas") if self._option(option)]
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

    def _set_sigmas(
        self, timesteps: np.ndarray, sigmas: np.ndarray | None = None, sigma_last: float = 0.0, dtype: Any = np.float32
    ) -> None:
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
        if self._step_index is None:
            self._init_step_index(timestep)
        self.is_scale_input_called = True
        return sample / (self._model_sigma() ** 2 + 1) ** 0.5

    def _begin_step(self, timestep: Any) -> int:
        """The index of this step."""
        if not self.is_scale_input_called:
            logger.warning("call `scale_model_input` on the model's input before `step`, or the sample is denoised wrongly")
            self.is_scale_input_called = True
        if self._step_index is None:
            self._init_step_index(timestep)
        return self._step_index

    def _refuse_sample_prediction(self) -> None:
        if self.config.prediction_type == "sample":
            raise UnsupportedError("prediction_type 'sample' is not supported here; use EulerDiscreteScheduler")

    def _churn(
        self,
        model_output: Array,
        sample: Array,
        s_churn: float,
        s_tmin: float,
        s_tmax: float,
        s_noise: float,
        generator: Any,
    ) -> tuple[Array, float]:
        """A sample with a little noise added, and its noise level (arXiv 2206.00364, algorithm 2); arguments as `step`."""
        sigma = float(self.sigmas[self._step_index])
        churn = min(s_churn / (len(self.sigmas) - 1), 2**0.5 - 1) if s_tmin <= sigma <= s_tmax else 0.0
        sigma_hat = sigma * (churn + 1)
        if churn > 0:
            sample = sample + (s_noise * (sigma_hat**2 - sigma**2) ** 0.5) * randn_like(model_output, generator)
        return sample, sigma_hat

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


class TwoStageScheduler(SigmaScheduler):
    """Samplers of two model calls a step; `sample` is the step's start while its second call is due."""

    order = 2
    sample: Array | None = None

    @property
    def state_in_first_order(self) -> bool:
        """Whether the next call is the first of a step."""
        return self.sample is None


class MidpointScheduler(TwoStageScheduler):
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


class LogSNRScheduler(SigmaTableMixin, DiffusionScheduler):
    """Exponential integrators: model outputs converted to a prediction of the clean sample or of the noise, and steps in lambda."""

    def _set_tables(self, flow_alone: bool = True) -> None:
        """Check the sigmas' options and fill the tables.

        Args:
            flow_alone: refuse `use_flow_sigmas` together with another choice of sigmas.
        """
        self._check_sigma_options()
        chosen = [option for option in (*SIGMA_OPTIONS, "use_lu_lambdas") if self._option(option)]
        if flow_alone and self.config.use_flow_sigmas and chosen:
            raise ConfigError(f"use_flow_sigmas, whose sigmas are below 1, cannot go with {chosen[0]}: set one of them")
        self._set_betas(last_alpha_cumprod=2**-24)  # not 0, so that the first sigma is finite
        self.sigmas = sigmas_of(self.alphas_cumprod)
        self.alpha_t, self.sigma_t = np.sqrt(self.alphas_cumprod), np.sqrt(1 - self.alphas_cumprod)
        self.lambda_t = np.log(self.alpha_t) - np.log(self.sigma_t)
        self.timesteps = np.arange(self.config.num_train_timesteps, dtype=np.float32)[::-1]
        self._forget()

    def _accept(self, option: str, expected: tuple[str, ...], foreign: tuple[str, ...] = ()) -> None:
        """Check a config entry that names something; another class's names become the first of the expected.

        Raises:
            UnsupportedError: it is unknown.
        """
        name = self.config[option]
        if name in foreign:
            self.register_to_config(**{option: expected[0]})
        elif name not in expected:
            raise UnsupportedError(f"{option} is {name!r}; expected one of {', '.join(expected)}")

    # ---- schedules

    def _flow_shift(self, mu: float | None) -> float:
        """The shift of flow sigmas: the config's, or exp(mu) with dynamic shifting."""
        config = self.config
        if mu is None:
            return config.flow_shift
        if not (config.use_dynamic_shifting and config.time_shift_type == "exponential"):
            raise ConfigError("`mu` needs use_dynamic_shifting=True and time_shift_type='exponential'")
        return math.exp(mu)

    def _used_timesteps(self) -> int:
        """How many of the training timesteps have a lambda that is not clipped."""
        length, clipped = self.config.num_train_timesteps, self._option("lambda_min_clipped", -math.inf)
        return length - int(np.searchsorted(self.lambda_t[::-1], clipped))

    def _timestep_grid(self, num_inference_steps: int, extra: int = 1) -> np.ndarray:
        return timestep_grid(
            self._option("timestep_spacing", "linspace"),
            num_inference_steps,
            self.config.num_train_timesteps,
            self._option("steps_offset", 0),
            self._used_timesteps(),
            extra,
        ).round()

    def _schedule(
        self, num_inference_steps: int | None, timesteps: np.ndarray | None = None, flow_shift: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sigmas, without the finished sample's, and their timesteps: the chosen option's, or those at the timesteps given or spaced."""
        config, length = self.config, self.config.num_train_timesteps
        table = sigmas_of(self.alphas_cumprod)
        sigmas = self._optional_sigmas(table[-1].item(), table[0].item(), num_inference_steps)
        if sigmas is not None:
            timesteps = sigma_to_timestep(sigmas, np.log(table))
            return sigmas, timesteps.round() if self._rounds_timesteps() else timesteps
        if config.use_flow_sigmas:
            sigmas = flow_sigmas(num_inference_steps, length, flow_shift)
            return sigmas, sigmas * length
        if timesteps is None:
            timesteps = self._timestep_grid(num_inference_steps)
        return np.interp(timesteps, np.arange(length), table), timesteps

    def _rounds_timesteps(self) -> bool:
        """Whether timesteps of optional sigmas are rounded, not truncated."""
        return self.config.use_karras_sigmas

    def _sigma_beyond(self, sigmas: np.ndarray, timestep: int = 0) -> float:
        """The noise level after the last of the table's sigmas: this training timestep's; after others, that of the last again."""
        others = self.config.use_flow_sigmas or any(self.config[option] for option in SIGMA_OPTIONS)
        return sigmas[-1] if others else sigmas_of(self.alphas_cumprod)[timestep]

    def _begin_run(self, sigmas: np.ndarray, last: float, timesteps: np.ndarray) -> None:
        self.sigmas = np.append(sigmas, last).astype(np.float32)
        self.timesteps = timesteps.astype(np.int64)
        self.num_inference_steps = len(timesteps)
        self._forget()

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Any = None) -> int:
        """As the other schedulers', but a timestep that is not in the schedule is taken for the last."""
        try:
            return super().index_for_timestep(timestep, schedule_timesteps)
        except IndexError:
            return len(self.timesteps) - 1

    # ---- noise levels and predictions

    def _sigma_to_alpha_sigma_t(self, sigma: Any) -> tuple[Any, Any]:
        """(alpha_t, sigma_t) of a noise-to-signal ratio, or of a flow's noise level."""
        if self.config.use_flow_sigmas:
            return 1 - sigma, sigma
        alpha = 1 / (sigma**2 + 1) ** 0.5
        return alpha, sigma * alpha

    def _levels_of(self, sigma: float) -> tuple[float, float, float]:
        """(alpha, sigma, lambda) of an entry of `sigmas`; lambda is infinite where there is no noise, or nothing else."""
        alpha, sigma = self._sigma_to_alpha_sigma_t(sigma)
        if alpha == 0 or sigma == 0:
            return alpha, sigma, math.inf if alpha else -math.inf
        return alpha, sigma, math.log(alpha / sigma)

    def _levels_at(self, index: int) -> tuple[float, float, float]:
        return self._levels_of(float(self.sigmas[index]))

    def _predict_original(self, model_output: Array, sample: Array, sigma: float | None = None) -> Array:
        """The clean sample that a model output means at an entry of `sigmas`, the current one by default; limited if the config says so."""
        kind, sigma = self.config.prediction_type, float(self.sigmas[self._step_index]) if sigma is None else sigma
        if kind == "flow_prediction":
            return self._limited(sample - sigma * model_output)
        if kind not in PREDICTIONS:
            raise unknown_prediction(kind, *PREDICTIONS, "flow_prediction")
        alpha, noise_level, _ = self._levels_of(sigma)
        return self._limited(predict_original(kind, self._mean(model_output), sample, alpha, noise_level))

    def _predict_noise(self, model_output: Array, sample: Array, sigma: float | None = None) -> Array:
        """The noise that a model output means; `sigma` as in `_predict_original`."""
        kind, sigma = self.config.prediction_type, float(self.sigmas[self._step_index]) if sigma is None else sigma
        if kind not in PREDICTIONS:
            raise unknown_prediction(kind, *PREDICTIONS)
        alpha, noise_level, _ = self._levels_of(sigma)
        return predict_noise(kind, self._mean(model_output), sample, alpha, noise_level)

    def _predict_limited_noise(self, model_output: Array, sample: Array) -> Array:
        """The noise that a model output means, consistent with a limited clean sample if the config says so."""
        noise = self._predict_noise(model_output, sample)
        if self.config.thresholding:
            alpha, sigma, _ = self._levels_at(self._step_index)
            noise = (sample - alpha * self._limited((sample - sigma * noise) / alpha)) / sigma
        return noise

    def _limited(self, original: Array) -> Array:
        config = self.config
        if not self._option("thresholding"):
            return original
        return dynamic_threshold(original, config.dynamic_thresholding_ratio, config.sample_max_value)

    def _mean(self, model_output: Array) -> Array:
        """The three channels of the predicted noise, of a model that also predicts a variance."""
        learned = self._option("variance_type") in ("learned", "learned_range") and self.config.prediction_type == "epsilon"
        return model_output[:, :3] if learned else model_output

    def _levels(self, timesteps: Any) -> tuple[np.ndarray, np.ndarray]:
        return self._sigma_to_alpha_sigma_t(self._noise_sigmas(timesteps).astype(np.float64))

    # ---- steps

    def _forget(self) -> None:
        """Start without model outputs to reuse."""
        self.model_outputs = [None] * self.config.solver_order
        self.lower_order_nums = 0
        self._restart()

    def _remember(self, model_output: Array) -> None:
        self.model_outputs = [*self.model_outputs[1:], model_output]

    def _order(self) -> int:
        """This step's order: of as many outputs as there are, and lower at the end as the config says."""
        config, left = self.config, len(self.timesteps) - self._step_index
        short = config.lower_order_final and len(self.timesteps) < 15
        if left == 1 and (short or self._option("euler_at_final") or self._option("final_sigmas_type") == "zero"):
            return 1
        return min(config.solver_order, self.lower_order_nums + 1, 2 if left == 2 and short else 3)

    def _begin_step(self, timestep: Any) -> None:
        if self.num_inference_steps is None:
            raise ValueError(NO_TIMESTEPS)
        if self._step_index is None:
            self._init_step_index(timestep)

    def _end_step(self, prev_sample: Array, return_dict: bool) -> SchedulerOutput | tuple[Array]:
        self.lower_order_nums = min(self.lower_order_nums + 1, len(self.model_outputs))
        self._step_index += 1
        return SchedulerOutput(prev_sample=prev_sample) if return_dict else (prev_sample,)


class DPMSolverScheduler(LogSNRScheduler):
    """What DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), single- or multistep, share."""

    @property
    def _algorithm(self) -> str:
        return self.config.algorithm_type

    def _check_solver(self, *algorithms: str) -> None:
        if algorithms:
            self._accept("algorithm_type", algorithms, foreign=("deis",))  # a DEISMultistepScheduler's config
        self._accept("solver_type", ("midpoint", "heun"), foreign=("logrho", "bh1", "bh2"))  # that, or a UniPCMultistepScheduler's
        if not self._algorithm.endswith("++") and self._option("final_sigmas_type") == "zero":
            raise ConfigError(f"final_sigmas_type 'zero' does not go with algorithm_type {self._algorithm!r}; use 'sigma_min'")

    def convert_model_output(self, model_output: Array, *, sample: Array) -> Array:
        """What the algorithm integrates: the predicted clean sample ("++"), or the predicted noise.

        Args:
            model_output: the model's prediction.
            sample: the current sample.

        Raises:
            ConfigError: a `prediction_type` that is unknown or does not go with the algorithm.
        """
        predict = self._predict_original if self._algorithm.endswith("++") else self._predict_limited_noise
        return predict(model_output, sample)

    def dpm_solver_first_order_update(self, model_output: Array, sample: Array, noise: Array | None = None) -> Array:
        """One first-order step (DDIM's) from a converted model output."""
        return self._integrate([model_output], self._step_index, sample, noise)

    def _step_noise(self, model_output: Array, generator: Any, dtype: Any = None) -> Array | None:
        """The noise of a step from a converted model output, None if the algorithm has none."""
        return randn_like(model_output, generator, dtype) if self._algorithm.startswith("sde") else None

    def _integrate(self, series: list[Array], start: int, sample: Array, noise: Array | None, halve: bool = False) -> Array:
        """From `sample` at index `start` to the next step's noise level: a Taylor series of the model output under an exact integral.

        The series is of the output at `start` and its derivatives in lambda, times the powers of the step h in lambda. The four
        algorithms differ in the integrand's exponent z and in the factors of sample, series and noise. With `halve`, the slope counts as
        at the middle of the step.
        """
        algorithm = self._algorithm
        alpha, sigma, lambda_t = self._levels_at(self._step_index + 1)
        alpha_s, sigma_s, lambda_s = self._levels_at(start)
        h = lambda_t - lambda_s
        if algorithm == "dpmsolver++":
            z, keep, factor = -h, sigma / sigma_s, -alpha
        elif algorithm == "dpmsolver":
            z, keep, factor = h, alpha / alpha_s, -sigma
        elif algorithm == "sde-dpmsolver++":
            z, keep, factor = -2 * h, sigma / sigma_s * math.exp(-h), -alpha
        else:
            z, keep, factor = h, alpha / alpha_s, -2 * sigma
        phi = math.expm1(z)

        prev_sample = keep * sample + (factor * phi) * series[0]
        if len(series) > 1:
            slope = phi / z - 1 if z else 0.0  # z is 0 if the last step's noise levels are equal ("sigma_min" with other sigmas)
            prev_sample = prev_sample + (factor * (phi / 2 if halve else slope)) * series[1]
        if len(series) > 2:
            # PyTorch diffusers subtracts a half with the wrong sign in "sde-dpmsolver++"; kept for parity.
            bend = (phi - z) / z**2 + (0.5 if algorithm == "sde-dpmsolver++" else -0.5) if z else 0.0
            prev_sample = prev_sample + (factor * bend) * series[2]
        if algorithm == "sde-dpmsolver++":
            # Of equal noise levels, h may be a rounding error below 0.
            prev_sample = prev_sample + (sigma * math.sqrt(max(-math.expm1(-2 * h), 0.0))) * noise
        elif algorithm == "sde-dpmsolver":
            prev_sample = prev_sample + (sigma * math.sqrt(math.expm1(2 * h))) * noise
        return prev_sample


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
        if config.sigma_schedule == "karras":
            return karras_sigmas_at(ramp, config.sigma_max, config.sigma_min, config.rho).astype(np.float32)
        if config.sigma_schedule == "exponential":
            log_sigmas = linspace_float32(math.log(config.sigma_min), math.log(config.sigma_max), len(ramp))
            return np.exp(log_sigmas[::-1], dtype=np.float64).astype(np.float32)
        raise ConfigError(f"sigma_schedule is {config.sigma_schedule!r}; expected 'karras' or 'exponential'")

    def precondition_inputs(self, sample: Array, sigma: float) -> Array:
        """c_in times a sample of noise level `sigma`: what the model takes, of unit variance."""
        return sample * (1 / (sigma**2 + self.config.sigma_data**2) ** 0.5)

    def precondition_noise(self, sigma: float | np.ndarray) -> np.ndarray:
        """c_noise: the timesteps of these noise levels, log(sigma) / 4, float32 of at least one dimension."""
        return 0.25 * np.log(np.atleast_1d(np.asarray(sigma, dtype=np.float32)))

    def precondition_outputs(self, sample: Array, model_output: Array, sigma: float) -> Array:
        """The clean sample that a model's output for `sample` of noise level `sigma` means: c_skip sample + c_out output.

        Raises:
            ConfigError: `prediction_type` is neither "epsilon" nor "v_prediction".
        """
        signs = {"epsilon": 1, "v_prediction": -1}
        if self.config.prediction_type not in signs:
            raise unknown_prediction(self.config.prediction_type, *signs)
        c_skip, c_out = edm_scalings(sigma, self.config.sigma_data)
        return c_skip * sample + signs[self.config.prediction_type] * c_out * model_output

    def scale_model_input(self, sample: Array, timestep: Any) -> Array:
        """The sample as the model takes it: `precondition_inputs` at the current step.

        Args:
            sample: shape (batch, ...).
            timestep: the current one of `timesteps`; looked at before the first step only.
        """
        if self._step_index is None:
            self._init_step_index(timestep)
        self.is_scale_input_called = True
        return self.precondition_inputs(sample, float(self.sigmas[self._step_index]))


class FlowScheduler(SigmaTableMixin, SchedulerMixin):
    """Flow matching: sigmas in [0, 1], timesteps sigma * num_train_timesteps, and a model of the velocity dx/dsigma = noise - x_0."""

    num_inference_steps: int | None = None
    timesteps: np.ndarray | None = None
    sigmas: np.ndarray | None = None

    def _set_training_sigmas(self, shift: float) -> None:
        """The tables before `set_timesteps`: the training schedule's, in float32."""
        length = self.config.num_train_timesteps
        self.sigmas = shift_flow(np.arange(length, 0, -1, dtype=np.float32) / length, shift)
        self.timesteps = self.sigmas * length
        self.sigma_min, self.sigma_max = float(self.sigmas[-1]), float(self.sigmas[0])

    def _training_range(self, num: int) -> np.ndarray:
        """Sigmas evenly spaced over the training schedule's range, which has the config's shift already, in float64."""
        length = self.config.num_train_timesteps
        return np.linspace(self.sigma_max * length, self.sigma_min * length, num) / length

    def _count_steps(self, num_inference_steps: int | None, **given: Any) -> int:
        """How many steps these arguments of `set_timesteps` ask for.

        Raises:
            ConfigError: none given, or they ask for different numbers.
        """
        counts = {name: len(values) for name, values in given.items() if values is not None}
        if num_inference_steps is not None:
            counts["num_inference_steps"] = num_inference_steps
        if not counts:
            raise ConfigError(f"pass one of num_inference_steps, {', '.join(given)} to `set_timesteps`")
        if len(set(counts.values())) > 1:
            raise ConfigError(f"`set_timesteps` got different numbers of steps: {', '.join(f'{n} of {k}' for k, n in counts.items())}")
        return next(iter(counts.values()))

    def _begin_step(self, timestep: Any) -> int:
        """The index of this step."""
        self._refuse_integer(timestep)
        if self.sigmas is None:
            raise ValueError(NO_TIMESTEPS)
        if self._step_index is None:
            self._init_step_index(timestep)
        return self._step_index

    def _end_step(self, output: type[SchedulerOutput], prev_sample: Array, return_dict: bool) -> Any:
        """What `step` returns, having counted."""
        self._step_index += 1
        return output(prev_sample=prev_sample) if return_dict else (prev_sample,)

    def scale_noise(self, sample: Array, timestep: Any, noise: Array | None = None) -> Array:
        """Noisy samples, (1 - sigma) sample + sigma noise.

        Args:
            sample: clean samples, shape (batch, ...).
            timestep: one of `timesteps` for all or one a sample. Once `set_begin_index` has been called, the level is the current step's.
            noise: standard normal noise of the same shape.

        Raises:
            TimestepError: a timestep is not in the schedule.
            ValueError: neither one timestep nor one a sample.
        """
        sigma = per_sample(self._noise_sigmas(timestep), sample)
        return sigma * noise + (1 - sigma) * sample


class TimeShiftMixin:
    """Flows that shift their noise levels by the image's size."""

    def time_shift(self, mu: float, sigma: float, t: np.ndarray) -> np.ndarray:
        """Flow noise levels, shifted as the config's `time_shift_type` says.

        Args:
            mu: the shift, or its logarithm.
            sigma: exponent of (1 - t) / t.
            t: noise levels in [0, 1].
        """
        return time_shift(self.config.time_shift_type, mu, sigma, t)


class FlowStagesMixin(TimeShiftMixin, StepIndexMixin):
    """A flow in stages of rising resolution, each between two noise levels of its own (pyramidal flow matching, arXiv 2410.05954).

    Read from the config's `stages`, `stage_range`, `gamma`, `shift`, `use_dynamic_shifting`, `time_shift_type` and, if it has one,
    `scheduler_type`. The tables of a stage, float64, are in dictionaries by its number.
    """

    def init_sigmas(self) -> None:
        """Fill `sigmas` and `timesteps` with the whole training schedule."""
        length = self.config.num_train_timesteps
        self.sigmas = flow_sigmas(length, length, self.config.shift)
        self.timesteps = self.sigmas * length
        self._restart()

    def init_sigmas_for_each_stage(self) -> None:
        """Fill the stages' tables: noise levels at their ends, and the timesteps and sigmas between.

        Upsampling a sample makes its noise correlated; where a stage starts from one, noise is added until its covariance is that of
        a noisier start, which `gamma` says.
        """
        self.init_sigmas()
        config, length, stages = self.config, self.config.num_train_timesteps, range(self.config.stages)
        levels = np.append(self.sigmas, 0.0)
        ends = [float(levels[min(max(int(part * length), 0), length)]) for part in config.stage_range]
        self.ori_start_sigmas, self.end_sigmas = dict(zip(stages, ends)), dict(zip(stages, ends[1:]))
        renoised = (1 - (1 - start) / (math.sqrt(1 + 1 / config.gamma) * start + 1 - start) for start in ends[1:])
        self.start_sigmas = dict(zip(stages, [ends[0], *renoised]))

        lengths = accumulate(self.start_sigmas[stage] - self.end_sigmas[stage] for stage in stages)
        ratios = np.array([0.0, *lengths])
        ratios = (ratios / ratios[-1]).tolist()
        ratios[-1] = 0.9999999999999999
        self.timestep_ratios = {stage: (ratios[stage], ratios[stage + 1]) for stage in stages}
        self.timesteps_per_stage = {}
        for stage, (start, end) in self.timestep_ratios.items():
            first, last = self.timesteps[int(start * length)], self.timesteps[min(int(end * length), length - 1)]
            self.timesteps_per_stage[stage] = np.linspace(min(first, 999), last, length + 1)[:-1]
        self.sigmas_per_stage = {stage: np.linspace(0.999, 0, length + 1)[:-1] for stage in stages}
        self.sigma_min, self.sigma_max = float(self.sigmas[-1]), float(self.sigmas[0])

    def set_timesteps(
        self,
        num_inference_steps: int,
        stage_index: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        is_amplify_first_chunk: bool = False,
    ) -> None:
        """Choose timesteps and sigmas of a stage.

        Args:
            num_inference_steps: how many.
            stage_index: the stage, if the config's `stages` is more than 1.
            device: ignored, timesteps stay on the host.
            sigmas: these, of a flow in one stage.
            mu: how much to shift, with `use_dynamic_shifting`.
            is_amplify_first_chunk: of distilled schedulers, twice as many steps.

        Raises:
            ConfigError: `use_dynamic_shifting` with a `shift` or without `mu`.
        """
        config, length = self.config, self.config.num_train_timesteps
        if config.use_dynamic_shifting and (config.shift != 1.0 or mu is None):
            raise ConfigError(f"use_dynamic_shifting wants shift=1 and `mu`; shift is {config.shift} and mu is {mu}")
        distilled = config.get("scheduler_type", "dmd") == "dmd"
        if distilled:  # the last one is dropped below
            num_inference_steps = (2 * num_inference_steps if is_amplify_first_chunk else num_inference_steps) + 1
        self.num_inference_steps = num_inference_steps
        if config.stages == 1:
            if sigmas is None:
                sigmas = np.linspace(1, 1 / length, num_inference_steps + 1)[:-1].astype(np.float32)
                if config.shift != 1.0:
                    sigmas = self.time_shift(config.shift, 1.0, sigmas)
            sigmas = np.asarray(sigmas)
            timesteps = sigmas * length
        else:
            stage_timesteps, stage_sigmas = self.timesteps_per_stage[stage_index], self.sigmas_per_stage[stage_index]
            timesteps = np.linspace(stage_timesteps[0], stage_timesteps[-1], num_inference_steps)
            sigmas = np.linspace(stage_sigmas[0], stage_sigmas[-1], num_inference_steps)
        if distilled:
            timesteps, sigmas = timesteps[:-1], sigmas[:-1]
        self.timesteps, self.sigmas = timesteps, np.append(sigmas, sigmas.dtype.type(0))
        self.reset_scheduler_history()
        if config.use_dynamic_shifting:
            self.sigmas = self.time_shift(mu, 1.0, self.sigmas)
            lowest, highest = (0, length) if config.stages == 1 else (stage_timesteps.min(), stage_timesteps.max())
            self.timesteps = lowest + self.sigmas[:-1] * (highest - lowest)

    def reset_scheduler_history(self) -> None:
        """Forget the steps taken."""
        self._restart()
