"""Euler's method on the probability-flow ODE (arXiv 2206.00364, algorithm 2)."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, cast, on_host, weighted_sum
from .cores import SigmaScheduler, velocity
from .scheduling_utils import DenoisedSchedulerOutput
from .tables import expect, linspace_float32, sigma_to_timestep, sigmas_of

EulerDiscreteSchedulerOutput = DenoisedSchedulerOutput


class EulerDiscreteScheduler(SigmaScheduler):
    """Euler steps between noise levels, optionally with some noise added before each ("churn").

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        prediction_type: "epsilon", "sample" (also called "original_sample") or "v_prediction".
        interpolation_type: sigmas at the timesteps, "linear", or over the whole range evenly spaced in log(sigma), "log_linear".
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        sigma_min: the smallest of those sigmas, instead of the training schedule's.
        sigma_max: the largest.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        timestep_type: what the model is given: "discrete" timesteps, or, with v-prediction, "continuous" log(sigma) / 4.
        steps_offset: added to "leading" timesteps.
        rescale_betas_zero_snr: make the last timestep (nearly) pure noise (arXiv 2305.08891).
        final_sigmas_type: the finished sample's noise level, "zero" or "sigma_min".

    Raises:
        ConfigError: more than one of the `use_..._sigmas`.
        UnsupportedError: unknown `beta_schedule`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, prediction_type: str = "epsilon", interpolation_type: str = "linear",
        use_karras_sigmas: bool | None = False, use_exponential_sigmas: bool | None = False, use_beta_sigmas: bool | None = False,
        sigma_min: float | None = None, sigma_max: float | None = None,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace",
        timestep_type: Literal["discrete", "continuous"] = "discrete", steps_offset: int = 0, rescale_betas_zero_snr: bool = False,
        final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
    ):  # fmt: skip
        self._check_sigma_options()
        self._set_training_sigmas()
        self._set_continuous_timesteps()

    def _continuous(self) -> bool:
        return self.config.timestep_type == "continuous" and self.config.prediction_type == "v_prediction"

    def _set_continuous_timesteps(self) -> None:
        if self._continuous():
            self.timesteps = (0.25 * np.log(self.sigmas[:-1], dtype=np.float64)).astype(np.float32)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
    ) -> None:  # fmt: skip
        """Choose timesteps and sigmas: give exactly one of the arguments.

        Args:
            num_inference_steps: how many, spaced as the config says.
            device: ignored, timesteps stay on the host.
            timesteps: these.
            sigmas: these, the finished sample's (0) included.

        Raises:
            ConfigError: not exactly one given; `timesteps` with an option that chooses them; an unknown name in the config.
        """
        config = self.config
        self._check_given(num_inference_steps=num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        if timesteps is not None and self._continuous():
            raise ConfigError("`timesteps` cannot be given with timestep_type='continuous' and v-prediction: give `sigmas`")

        table = sigmas_of(self.alphas_cumprod)
        if sigmas is not None:
            self.num_inference_steps = len(sigmas) - 1
            self.sigmas = np.asarray(sigmas, dtype=np.float32)
            self.timesteps = sigma_to_timestep(self.sigmas[:-1], np.log(table)).astype(np.float32)
            self._restart()
        else:
            self.num_inference_steps = len(timesteps) if num_inference_steps is None else num_inference_steps
            if timesteps is None:
                timesteps = self._timestep_grid(self.num_inference_steps)
            expect("interpolation_type", config.interpolation_type, ("linear", "log_linear"))
            if config.interpolation_type == "log_linear":
                log_sigmas = linspace_float32(np.log(table[-1]), np.log(table[0]), self.num_inference_steps + 1)
                sigmas = np.exp(log_sigmas, dtype=np.float64).astype(np.float32)
            self._set_sigmas(np.asarray(timesteps, dtype=np.float32), sigmas, self._last_sigma())
        self._set_continuous_timesteps()

    def step(
        self, model_output: Array, timestep: float, sample: Array,
        s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = float("inf"), s_noise: float = 1.0,
        generator: Any = None, return_dict: bool = True,
    ) -> EulerDiscreteSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample`; its dtype is the result's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            s_churn: how much noise is added in all, where `s_tmin <= sigma <= s_tmax`.
            s_tmin: see `s_churn`.
            s_tmax: see `s_churn`.
            s_noise: standard deviation of that noise.
            generator: draws it.
            return_dict: return an `EulerDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep, or an unknown `prediction_type`.
            IndexError: `timestep` is not in the schedule.
        """
        self._refuse_integer(timestep)
        index = self._begin_step(timestep)
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        sample, sigma_hat = self._churn(model_output, cast(sample, "float32"), s_churn, s_tmin, s_tmax, s_noise, generator, index)
        if self.config.prediction_type == "original_sample":
            original = model_output
        else:  # v-prediction's scalings are those of the noise level the model was called with
            original = self._predict_original(model_output, sample, sigma if self.config.prediction_type == "v_prediction" else sigma_hat)
        kept = sigma_next / sigma_hat
        prev_sample = cast(weighted_sum(kept, sample, 1 - kept, original), model_output.dtype)

        return self._end_step(EulerDiscreteSchedulerOutput, return_dict, prev_sample, original)

    def get_velocity(self, sample: Array, noise: Array, timesteps: Any) -> Array:
        """The training target of v-prediction (arXiv 2202.00512) for clean samples, their noise, and some of `timesteps`.

        As in PyTorch diffusers, the noise level is read at the *index in the schedule*, which is not the training timestep.

        Raises:
            ValueError: integer timesteps.
        """
        self._refuse_integer(timesteps)
        indices = [self.index_for_timestep(t) for t in on_host(timesteps).reshape(-1)]
        return velocity(self.alphas_cumprod[indices], sample, noise)
