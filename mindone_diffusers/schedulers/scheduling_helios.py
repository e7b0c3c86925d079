"""Helios' sampler: UniPC (arXiv 2302.04867) or Euler steps of a flow, stage by stage (arXiv 2410.05954)."""

from dataclasses import dataclass
from typing import Any, Literal

from ..core.configuration import register_to_config
from ..core.errors import ConfigError, UnsupportedError
from .arrays import Array, cast, weighted_sum
from .flows import FlowStagesMixin
from .scheduling_helios_dmd import HeliosDMDSchedulerOutput
from .scheduling_unipc_multistep import UniPCMultistepScheduler
from .scheduling_utils import SchedulerMixin, as_output
from .tables import expect


@dataclass
class HeliosSchedulerOutput(HeliosDMDSchedulerOutput):
    """What `step` returns.

    Args:
        prev_sample: the sample at the next, less noisy, timestep; shape of the sample given.
        model_outputs: what `step_unipc` was given, with the converted output of this step as its last.
        last_sample: this step's sample, corrected; of UniPC steps.
        this_order: this step's order; of UniPC steps.
    """


class HeliosScheduler(FlowStagesMixin, UniPCMultistepScheduler):
    """UniPC's or Euler's steps on the noise levels of a stage.

    Args:
        num_train_timesteps: length of the training schedule.
        shift: moves all noise levels towards noise (arXiv 2403.03206, section 5.3.2); not with `use_dynamic_shifting`.
        stages: how many resolutions.
        stage_range: the parts of the training schedule that the stages cover, `stages` + 1 numbers from 0 to 1.
        gamma: how correlated the noise that is added between stages is.
        thresholding: False; there is none.
        prediction_type: "epsilon", "sample", "v_prediction", or, with `predict_x0`, "flow_prediction"; of UniPC steps.
        solver_order: UniPC's, any from 1.
        predict_x0: integrate the predicted clean sample; else the predicted noise.
        solver_type: B(h): "bh1" or "bh2".
        lower_order_final: orders no higher than the number of steps left.
        disable_corrector: steps whose result is not corrected.
        solver_p: a scheduler that predicts instead of UniP; its timesteps have to be set beforehand.
        use_flow_sigmas: x_t = (1 - sigma) x_0 + sigma noise; else sigma is the noise-to-signal ratio.
        scheduler_type: "unipc" or "euler".
        use_dynamic_shifting: shift by the `mu` of `set_timesteps`.
        time_shift_type: whether `mu`, and `shift` of a flow in one stage, are the shift's logarithm, "exponential", or the shift, "linear".

    Raises:
        UnsupportedError: an unknown `solver_type`, or `thresholding`, with which PyTorch diffusers fails.
    """

    _compatibles: list[str] = []

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, shift: float = 1.0,
        stages: int = 3, stage_range: list[float] = [0, 1 / 3, 2 / 3, 1], gamma: float = 1 / 3, thresholding: bool = False,  # noqa: B006
        prediction_type: str = "flow_prediction", solver_order: int = 2, predict_x0: bool = True, solver_type: str = "bh2",
        lower_order_final: bool = True, disable_corrector: list[int] = [], solver_p: SchedulerMixin | None = None,  # noqa: B006
        use_flow_sigmas: bool = True, scheduler_type: str = "unipc",
        use_dynamic_shifting: bool = False, time_shift_type: Literal["exponential", "linear"] = "exponential",
    ):  # fmt: skip
        if thresholding:
            raise UnsupportedError("HeliosScheduler has no thresholding: leave it False")
        self._accept_solver()
        self.gamma, self.predict_x0 = gamma, predict_x0
        self.init_sigmas_for_each_stage()
        self.reset_scheduler_history()

    def reset_scheduler_history(self) -> None:
        """Forget the steps taken, and take `disable_corrector` and `solver_p` from the config again."""
        self.disable_corrector, self.solver_p = self.config.disable_corrector, self.config.solver_p
        self._forget()

    def _sigma_to_alpha_sigma_t(self, sigma: Any) -> tuple[Any, Any]:
        alpha, noise_level = super()._sigma_to_alpha_sigma_t(sigma)
        return alpha, max(noise_level, 1e-8) if self.config.use_flow_sigmas else noise_level

    def convert_model_output(self, model_output: Array, *, sample: Array, sigma: float | None = None) -> Array:
        """As `UniPCMultistepScheduler.convert_model_output`; `sigma` replaces the current one of `sigmas`."""
        return (self._predict_original if self.predict_x0 else self._predict_noise)(model_output, sample, sigma)

    def multistep_uni_p_bh_update(
        self, model_output: Array, *, sample: Array, order: int, sigma: float | None = None, sigma_next: float | None = None
    ) -> Array:
        """As `UniPCMultistepScheduler.multistep_uni_p_bh_update`; `sigma` and `sigma_next` replace those of the step's ends."""
        if self.solver_p is not None or sigma is None:
            return super().multistep_uni_p_bh_update(model_output, sample=sample, order=order)
        return self._bh_update(sample, order, self._levels_of(sigma), self._levels_of(sigma_next))

    def multistep_uni_c_bh_update(
        self, this_model_output: Array, *, last_sample: Array, this_sample: Array, order: int,
        sigma_before: float | None = None, sigma: float | None = None,
    ) -> Array:  # fmt: skip
        """As `UniPCMultistepScheduler.multistep_uni_c_bh_update`; `sigma_before` and `sigma` replace those of the last step's ends."""
        if sigma_before is None:
            return super().multistep_uni_c_bh_update(this_model_output, last_sample=last_sample, this_sample=this_sample, order=order)
        return self._bh_update(last_sample, order, self._levels_of(sigma_before), self._levels_of(sigma), this_model_output)

    def step_euler(
        self, model_output: Array, timestep: Any = None, sample: Array = None, generator: Any = None,
        sigma: float | None = None, sigma_next: float | None = None, return_dict: bool = True,
    ) -> HeliosSchedulerOutput | tuple[Array]:  # fmt: skip
        """One Euler step, in float32.

        Args:
            model_output: the predicted flow, shape of `sample`; its dtype is the result's.
            timestep: the current one of `timesteps`; not read, steps are counted from 0.
            sample: the current sample, shape (batch, channels, frames, height, width).
            generator: not used.
            sigma: replaces the current one of `sigmas`, together with `sigma_next`.
            sigma_next: likewise, at the step's end.
            return_dict: return a `HeliosSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: only one of `sigma` and `sigma_next`.
            ValueError: an integer timestep.
        """
        if (sigma is None) != (sigma_next is None):
            raise ConfigError("give both `sigma` and `sigma_next`, or neither")
        self._step_index = self._step_index or 0
        if sigma is None:
            self._refuse_integer(timestep)
            sigma, sigma_next = self.sigmas[self._step_index], self.sigmas[self._step_index + 1]
        prev_sample = weighted_sum(1, cast(sample, "float32"), float(sigma_next - sigma), model_output)
        self._step_index += 1
        return as_output(HeliosSchedulerOutput, return_dict, cast(prev_sample, model_output.dtype))

    def step_unipc(
        self, model_output: Array, timestep: Any = None, sample: Array = None, return_dict: bool = True,
        model_outputs: list[Array] | None = None, timestep_list: list[Any] | None = None,
        sigma_before: float | None = None, sigma: float | None = None, sigma_next: float | None = None,
        cus_step_index: int | None = None, cus_lower_order_num: int | None = None, cus_this_order: int | None = None,
        cus_last_sample: Array | None = None,
    ) -> HeliosSchedulerOutput | tuple[Array, list[Array] | None, Array, int]:  # fmt: skip
        """One UniPC step, from the scheduler's own history or from one that is given.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`; not read, steps are counted from 0.
            sample: the current sample, shape (batch, channels, frames, height, width).
            return_dict: return a `HeliosSchedulerOutput`, else a tuple of its fields.
            model_outputs: converted outputs of the last `solver_order` steps and a last place, which this step's is put into.
            timestep_list: their timesteps; looked at only for being there together with `model_outputs`.
            sigma_before: replaces the last step's of `sigmas`.
            sigma: replaces the current one.
            sigma_next: replaces the next one.
            cus_step_index: replaces the count of steps, which then is not counted on.
            cus_lower_order_num: replaces the number of earlier model outputs, likewise.
            cus_this_order: replaces the last step's order.
            cus_last_sample: replaces the last step's sample.

        Raises:
            ValueError: no `set_timesteps` before, or a `prediction_type` that is unknown or needs `predict_x0`.
        """
        self._require_timesteps()
        self._step_index = (self._step_index or 0) if cus_step_index is None else cus_step_index
        if cus_lower_order_num is not None:
            self.lower_order_nums = cus_lower_order_num
        if cus_this_order is not None:
            self.this_order = cus_this_order
        if cus_last_sample is not None:
            self.last_sample = cus_last_sample
        converted = self.convert_model_output(model_output, sample=sample, sigma=sigma)
        given = model_outputs is not None and timestep_list is not None
        if given:
            self.model_outputs = model_outputs[:-1]
            model_outputs[-1] = converted
        if self._corrects():
            sample = self.multistep_uni_c_bh_update(
                converted,
                last_sample=self.last_sample,
                this_sample=sample,
                order=self.this_order,
                sigma_before=sigma_before,
                sigma=sigma,
            )
        self._remember(converted)
        self.this_order, self.last_sample = self._order(), sample
        prev_sample = self.multistep_uni_p_bh_update(model_output, sample=sample, order=self.this_order, sigma=sigma, sigma_next=sigma_next)
        if cus_lower_order_num is None:
            self.lower_order_nums = min(self.lower_order_nums + 1, self.config.solver_order)
        if cus_step_index is None:
            self._step_index += 1
        return as_output(HeliosSchedulerOutput, return_dict, prev_sample, model_outputs, sample, self.this_order)

    def step(
        self, model_output: Array, timestep: Any = None, sample: Array = None, generator: Any = None, return_dict: bool = True
    ) -> HeliosSchedulerOutput | tuple[Array, ...]:
        """One step towards the clean sample: `step_unipc` or `step_euler`, as `scheduler_type` says.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, channels, frames, height, width).
            generator: not used.
            return_dict: return a `HeliosSchedulerOutput`, else a tuple.

        Raises:
            UnsupportedError: an unknown `scheduler_type`.
        """
        expect("scheduler_type", self.config.scheduler_type, ("unipc", "euler"), UnsupportedError)
        if self.config.scheduler_type == "euler":
            return self.step_euler(model_output, timestep, sample, generator, return_dict=return_dict)
        return self.step_unipc(model_output, timestep, sample, return_dict)
