"""Euler's method on the flow's ODE, or a step to its end and back to the next noise level (arXiv 2210.02747, 2403.03206)."""

from typing import Any, Literal

import numpy as np

from ..core import logging
from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, alike, cast, largest, randn_like, weighted_sum
from .flows import FlowScheduler, TimeShiftMixin
from .scheduling_utils import SchedulerOutput
from .tables import TIME_SHIFTS, expect, shift_flow, stretch_shift_to_terminal

logger = logging.get_logger(__name__)


FlowMatchEulerDiscreteSchedulerOutput = SchedulerOutput


class FlowMatchEulerDiscreteScheduler(TimeShiftMixin, FlowScheduler):
    """Euler steps along the velocity a model predicts, between sigmas that are shifted, stretched or replaced as the config says.

    Args:
        num_train_timesteps: length of the training schedule.
        shift: moves all noise levels towards noise (arXiv 2403.03206, section 5.3.2); not with `use_dynamic_shifting`.
        use_dynamic_shifting: shift by the `mu` of `set_timesteps`, which pipelines compute from the image's size.
        base_shift: pipelines' `mu` at `base_image_seq_len`.
        max_shift: pipelines' `mu` at `max_image_seq_len`.
        base_image_seq_len: see `base_shift`.
        max_image_seq_len: see `max_shift`.
        invert_sigmas: count sigmas from 0 to 1, for models that call 0 noise.
        shift_terminal: stretch the sigmas so that the last before 0 is this one.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        time_shift_type: whether `mu` is the shift's logarithm, "exponential", or the shift, "linear".
        stochastic_sampling: predict the clean sample and noise it anew, instead of an Euler step.

    Raises:
        ConfigError: more than one of the `use_..._sigmas`, or an unknown `time_shift_type`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, shift: float = 1.0, use_dynamic_shifting: bool = False,
        base_shift: float | None = 0.5, max_shift: float | None = 1.15, base_image_seq_len: int = 256, max_image_seq_len: int = 4096,
        invert_sigmas: bool = False, shift_terminal: float | None = None,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        time_shift_type: Literal["exponential", "linear"] = "exponential", stochastic_sampling: bool = False,
    ):  # fmt: skip
        self._set_tables()

    def _set_tables(self) -> None:
        self._check_sigma_options()
        expect("time_shift_type", self.config.time_shift_type, TIME_SHIFTS)
        self._shift = self.config.shift
        self._set_training_sigmas(1.0 if self.config.use_dynamic_shifting else self._shift)

    @property
    def shift(self) -> float:
        """The factor that `set_timesteps` shifts noise levels by."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Shift by this factor from the next `set_timesteps` on; the config keeps its own."""
        self._shift = shift

    def stretch_shift_to_terminal(self, t: np.ndarray) -> np.ndarray:
        """Descending noise levels stretched about 1 so that the last is the config's `shift_terminal`."""
        return stretch_shift_to_terminal(t, self.config.shift_terminal)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: list[float] | None = None, mu: float | None = None,
        timesteps: list[float] | None = None,
    ) -> None:  # fmt: skip
        """Choose timesteps and sigmas: give one or more of `num_inference_steps`, `sigmas` and `timesteps`, of one length.

        Args:
            num_inference_steps: how many, evenly spaced before shifting.
            device: ignored, timesteps stay on the host.
            sigmas: these before shifting, without the finished sample's.
            mu: how much to shift, with `use_dynamic_shifting`.
            timesteps: what the model is given; also sigmas times `num_train_timesteps`, before shifting, if `sigmas` is not given.

        Raises:
            ConfigError: none given, or of different lengths; `use_dynamic_shifting` without `mu`.
        """
        config = self.config
        if config.use_dynamic_shifting and mu is None:
            raise ConfigError("`mu` is None; with use_dynamic_shifting=True pass it to `set_timesteps`")
        self.num_inference_steps = self._count_steps(num_inference_steps, sigmas=sigmas, timesteps=timesteps)
        if timesteps is not None:
            timesteps = np.asarray(timesteps, dtype=np.float32)
            if sigmas is None:
                logger.warning("`timesteps` without `sigmas` are used as given, but the sigmas made of them are shifted: pass `sigmas` too")
                sigmas = timesteps / config.num_train_timesteps
        sigmas = self._training_range(self.num_inference_steps) if sigmas is None else np.asarray(sigmas, dtype=np.float32)

        sigmas = self.time_shift(mu, 1.0, sigmas) if config.use_dynamic_shifting else shift_flow(sigmas, self._shift)
        if config.shift_terminal:
            sigmas = self.stretch_shift_to_terminal(sigmas)
        optional = self._optional_sigmas(sigmas[0], sigmas[-1], self.num_inference_steps)
        sigmas = (sigmas if optional is None else optional).astype(np.float32)
        if config.invert_sigmas:
            sigmas = 1 - sigmas
        if timesteps is None or config.invert_sigmas:
            timesteps = sigmas * config.num_train_timesteps
        self.timesteps, self.sigmas = timesteps, np.append(sigmas, np.float32(config.invert_sigmas))
        self._restart()

    def step(
        self, model_output: Array, timestep: float, sample: Array,
        s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = float("inf"), s_noise: float = 1.0, generator: Any = None,
        per_token_timesteps: Array | None = None, return_dict: bool = True,
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple[Array]:  # fmt: skip
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample`; its dtype is the result's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            s_churn: not used, nor are `s_tmin`, `s_tmax` and `s_noise`: as in PyTorch diffusers, no noise is added before a step.
            s_tmin: not used.
            s_tmax: not used.
            s_noise: not used.
            generator: draws the noise of `stochastic_sampling`.
            per_token_timesteps: of samples of shape (batch, tokens, channels), each token's own timestep, shape (batch, tokens); it goes to
                the next lower sigma of the schedule, with the opposite sign of the velocity, and the result is float32.
            return_dict: return a `FlowMatchEulerDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep.
            TimestepError: `timestep` is not in the schedule.
        """
        index = self._begin_step(timestep)
        sample = cast(sample, "float32")
        if per_token_timesteps is None:
            sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
            length = sigma_next - sigma
        else:
            sigma = (alike(per_token_timesteps, sample) / self.config.num_train_timesteps)[..., None]
            lower = alike(self.sigmas, sample).reshape(-1, 1, 1, 1)
            sigma_next = largest(lower * (lower < sigma - 1e-6), axis=0)[0]
            length = sigma - sigma_next
        if self.config.stochastic_sampling:
            original = weighted_sum(1, sample, -sigma, model_output)
            prev_sample = weighted_sum(1 - sigma_next, original, sigma_next, randn_like(sample, generator))
        else:
            prev_sample = weighted_sum(1, sample, length, model_output)
        if per_token_timesteps is None:
            prev_sample = cast(prev_sample, model_output.dtype)
        return self._end_step(FlowMatchEulerDiscreteSchedulerOutput, return_dict, prev_sample)
