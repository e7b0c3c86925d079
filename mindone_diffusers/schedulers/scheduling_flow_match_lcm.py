"""Latent consistency sampling of flow-matching models (arXiv 2310.04378), optionally from small samples to large (arXiv 2503.16397)."""

from typing import Any, Literal

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, cast, randn_like, resize, weighted_sum
from .scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from .scheduling_utils import SchedulerOutput

FlowMatchLCMSchedulerOutput = SchedulerOutput


class FlowMatchLCMScheduler(FlowMatchEulerDiscreteScheduler):
    """Steps to the predicted clean sample, which is noised anew to the next level; between them it may be resized.

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
        scale_factors: after each step but the last, the sample's size over the size of the first model output.
        upscale_mode: how it is resized: "nearest", "nearest-exact", "area", "linear" (one axis), "bilinear" or "bicubic" (two),
            "trilinear" (three).

    Raises:
        ConfigError: more than one of the `use_..._sigmas`, or an unknown `time_shift_type`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, shift: float = 1.0, use_dynamic_shifting: bool = False,
        base_shift: float = 0.5, max_shift: float = 1.15, base_image_seq_len: int = 256, max_image_seq_len: int = 4096,
        invert_sigmas: bool = False, shift_terminal: float | None = None,
        use_karras_sigmas: bool | None = False, use_exponential_sigmas: bool | None = False, use_beta_sigmas: bool | None = False,
        time_shift_type: Literal["exponential", "linear"] = "exponential",
        scale_factors: list[float] | None = None,
        upscale_mode: Literal["nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"] = "bicubic",
    ):  # fmt: skip
        self._set_tables()
        self.set_scale_factors(scale_factors, upscale_mode)

    def set_scale_factors(self, scale_factors: list[float], upscale_mode: str) -> None:
        """Resize samples by these factors from now on; the config keeps its own. Arguments as the class's."""
        self._scale_factors, self._upscale_mode = scale_factors, upscale_mode

    def step(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> FlowMatchLCMSchedulerOutput | tuple[Array]:
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample`; its dtype is the result's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, channels, ...).
            generator: draws the noise.
            return_dict: return a `FlowMatchLCMSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep.
            ConfigError: as many `scale_factors` as steps less one are wanted.
            UnsupportedError: `upscale_mode` is not for samples of this rank.
            TimestepError: `timestep` is not in the schedule.
        """
        factors = self._scale_factors if self._upscale_mode else None
        if factors and len(factors) != len(self.timesteps) - 1:
            raise ConfigError(f"{len(factors)} scale_factors for {len(self.timesteps)} steps; expected one a step, but for the last")
        if self._step_index is None:
            self._first_size = model_output.shape[2:]
        index = self._begin_step(timestep)
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        original = weighted_sum(1, cast(sample, "float32"), -sigma, model_output)
        if factors and index < len(factors):
            original = resize(original, [round(factors[index] * size) for size in self._first_size], self._upscale_mode)
        prev_sample = weighted_sum(1 - sigma_next, original, sigma_next, randn_like(original, generator))
        prev_sample = cast(prev_sample, model_output.dtype)
        return self._end_step(FlowMatchLCMSchedulerOutput, return_dict, prev_sample)
