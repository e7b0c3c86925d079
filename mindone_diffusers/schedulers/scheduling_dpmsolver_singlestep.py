"""DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), single-step."""

from typing import Any, Literal

import numpy as np

from ..core import logging
from ..core.configuration import register_to_config
from .arrays import Array
from .scheduling_utils import SchedulerOutput
from .solvers import DPMSolverScheduler
from .tables import expect

logger = logging.get_logger(__name__)


class DPMSolverSinglestepScheduler(DPMSolverScheduler):
    """Exponential-integrator steps in log signal-to-noise ratio, in blocks of up to three that each start again from the block's sample.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        solver_order: 1, 2 (for guided sampling) or 3 (for unconditional sampling).
        prediction_type: "epsilon", "sample", "v_prediction", or, with the "++" algorithms, "flow_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487); with "dpmsolver" too, where PyTorch diffusers fails.
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        algorithm_type: "dpmsolver", "dpmsolver++", or its stochastic variant "sde-dpmsolver++".
        solver_type: "midpoint" or "heun".
        lower_order_final: steps of lower order at the end; becomes True if the number of steps or `final_sigmas_type` asks for it.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        use_flow_sigmas: sigmas of rectified flow: x_t = (1 - sigma) x_0 + sigma noise.
        flow_shift: their shift towards noise.
        final_sigmas_type: the finished sample's noise level, "zero" ("++" algorithms only) or "sigma_min".
        lambda_min_clipped: timesteps with a smaller lambda are not used; needed with the cosine schedule.
        variance_type: "learned" or "learned_range" if the model also predicts a variance, after the mean's three channels.
        use_dynamic_shifting: take the flow's shift from `set_timesteps(mu=...)`.
        time_shift_type: "exponential": the shift is exp(mu).

    Raises:
        ConfigError: options that exclude each other, or a `solver_order` above 3.
        UnsupportedError: an unknown `algorithm_type`, `solver_type` or `beta_schedule`.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02,
        beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear",
        trained_betas: np.ndarray | list[float] | None = None, solver_order: int = 2,
        prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] = "epsilon",
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, sample_max_value: float = 1.0,
        algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++",
        solver_type: Literal["midpoint", "heun"] = "midpoint", lower_order_final: bool = False,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        use_flow_sigmas: bool = False, flow_shift: float = 1.0, final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
        lambda_min_clipped: float = -float("inf"), variance_type: Literal["learned", "learned_range"] | None = None,
        use_dynamic_shifting: bool = False, time_shift_type: Literal["exponential"] = "exponential",
    ):  # fmt: skip
        self._check_solver("dpmsolver++", "dpmsolver", "sde-dpmsolver++")
        self._set_tables()
        self.order_list = self.get_order_list(num_train_timesteps)

    def _forget(self) -> None:
        super()._forget()
        self.sample = None

    def get_order_list(self, num_inference_steps: int) -> list[int]:
        """The order of each step: 1, 2, ... up to `solver_order`, again and again, and as the config says at the end.

        Args:
            num_inference_steps: how many.

        Raises:
            ConfigError: `solver_order` is not 1, 2 or 3.
        """
        config, order = self.config, self.config.solver_order
        expect("solver_order", order, (1, 2, 3))
        blocks, rest = divmod(num_inference_steps, order)
        orders = [*range(1, order + 1)] * blocks
        if config.lower_order_final:
            # The last step is of order 1: an incomplete block ends the run, or the last complete one is cut into two.
            if rest:
                orders += range(1, rest + 1)
            elif order > 1:
                orders[-1] = 1
        if config.final_sigmas_type == "zero":
            orders[-1] = 1
        return orders

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, mu: float | None = None, timesteps: list[int] | None = None
    ) -> None:
        """Choose timesteps and sigmas: give `num_inference_steps` or `timesteps`.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.
            mu: log of the flow's shift, with `use_dynamic_shifting`.
            timesteps: these.

        Raises:
            ConfigError: not exactly one given; `timesteps` with an option that chooses them; `mu` without dynamic shifting; an unknown
                `final_sigmas_type`.
        """
        self._check_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if timesteps is not None:
            timesteps = np.asarray(timesteps).astype(np.int64)
        sigmas, timesteps = self._schedule(num_inference_steps, timesteps, self._flow_shift(mu))
        self._begin_run(sigmas, self._last_sigma(), timesteps)
        config = self.config
        uneven = self.num_inference_steps % config.solver_order != 0
        if not config.lower_order_final and (uneven or config.final_sigmas_type == "zero"):
            reason = f"{self.num_inference_steps} steps are no multiple of the order" if uneven else "final_sigmas_type is 'zero'"
            logger.warning(f"lower_order_final becomes True: {reason}")
            self.register_to_config(lower_order_final=True)
        self.order_list = self.get_order_list(self.num_inference_steps)

    def singlestep_dpm_solver_second_order_update(self, model_output_list: list[Array], sample: Array, noise: Array | None = None) -> Array:
        """One second-order step from the last two converted model outputs and the sample of the first of them."""
        return self.singlestep_dpm_solver_update(model_output_list, sample=sample, order=2, noise=noise)

    def singlestep_dpm_solver_third_order_update(self, model_output_list: list[Array], sample: Array, noise: Array | None = None) -> Array:
        """One third-order step from the last three converted model outputs and the sample of the first of them."""
        return self.singlestep_dpm_solver_update(model_output_list, sample=sample, order=3, noise=noise)

    def singlestep_dpm_solver_update(self, model_output_list: list[Array], sample: Array, order: int, noise: Array | None = None) -> Array:
        """One step from a block's sample, with derivatives there from divided differences.

        Args:
            model_output_list: converted model outputs, the last `order` of which are used.
            sample: the sample at the first of these.
            order: 1, 2 or 3.
            noise: of a stochastic variant.

        Raises:
            ConfigError: another order.
        """
        expect("order", order, (1, 2, 3))
        outputs, start, each = model_output_list[-order:], self._step_index - order + 1, np.eye(order)
        series, midpoint = [each[0]], self.config.solver_type == "midpoint"
        if order > 1:
            lambda_s = self._levels_at(start)[2]
            h = self._levels_at(self._step_index + 1)[2] - lambda_s
            h0 = self._levels_at(self._step_index)[2] - lambda_s
            series += [(h / h0) * (each[-1] - each[0])]
        if order == 3 and not midpoint:
            h1 = self._levels_at(start + 1)[2] - lambda_s
            inner = (h / h1) * (each[1] - each[0])
            slope = (h0 * inner - h1 * series[1]) / (h0 - h1)
            series = [each[0], slope, (2 * h / (h0 - h1)) * (series[1] - inner)]
        return self._integrate(outputs, series, start, sample, noise, halve=midpoint and order == 2)

    def step(
        self, model_output: Array, timestep: int, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample` (twice its channels with a `variance_type`).
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise of the stochastic variant.
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or a `prediction_type` that is unknown or does not go with the algorithm.
        """
        self._begin_step(timestep)
        model_output = self.convert_model_output(model_output, sample=sample)
        self._remember(model_output)
        # A run that starts inside a block has fewer outputs than the block's order.
        order = min(self.order_list[self._step_index], self.lower_order_nums + 1)
        if order == 1:
            self.sample = sample
        noise = self._step_noise(model_output, generator)
        prev_sample = self.singlestep_dpm_solver_update(self.model_outputs, sample=self.sample, order=order, noise=noise)
        return self._end_step(SchedulerOutput, return_dict, prev_sample)
