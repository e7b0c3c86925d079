"""DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), multistep, with their stochastic variants."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import UnsupportedError
from .arrays import Array, cast
from .scheduling_utils import SchedulerOutput
from .solvers import DPMSolverScheduler
from .tables import lu_sigmas


class DPMSolverMultistepScheduler(DPMSolverScheduler):
    """Exponential-integrator steps in log signal-to-noise ratio that reuse the last one or two model outputs.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        solver_order: 1, 2 (for guided sampling) or 3 (for unconditional sampling; not with "sde-dpmsolver").
        prediction_type: "epsilon", "sample", "v_prediction", or, with the "++" algorithms, "flow_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487).
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        algorithm_type: "dpmsolver", "dpmsolver++", or their stochastic variants "sde-dpmsolver", "sde-dpmsolver++".
        solver_type: of second-order steps, "midpoint" or "heun".
        lower_order_final: steps of order 2 and 1 at the end of runs of fewer than 15 steps.
        euler_at_final: a last step of order 1 in any run.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        use_lu_lambdas: sigmas evenly spaced in log signal-to-noise ratio (arXiv 2206.00927).
        use_flow_sigmas: sigmas of rectified flow: x_t = (1 - sigma) x_0 + sigma noise.
        flow_shift: their shift towards noise.
        final_sigmas_type: the finished sample's noise level, "zero" ("++" algorithms only) or "sigma_min".
        lambda_min_clipped: timesteps with a smaller lambda are not used; needed with the cosine schedule.
        variance_type: "learned" or "learned_range" if the model also predicts a variance, after the mean's three channels.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.
        rescale_betas_zero_snr: make the last timestep (nearly) pure noise (arXiv 2305.08891).
        use_dynamic_shifting: take the flow's shift from `set_timesteps(mu=...)`.
        time_shift_type: "exponential": the shift is exp(mu).

    Raises:
        ConfigError: options that exclude each other.
        UnsupportedError: an unknown `algorithm_type`, `solver_type` or `beta_schedule`.
    """

    _in_float32 = True  # whether half-precision samples are stepped in float32

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, solver_order: int = 2,
        prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] = "epsilon",
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, sample_max_value: float = 1.0,
        algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"] = "dpmsolver++",
        solver_type: Literal["midpoint", "heun"] = "midpoint", lower_order_final: bool = True, euler_at_final: bool = False,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False, use_lu_lambdas: bool = False,
        use_flow_sigmas: bool = False, flow_shift: float = 1.0, final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
        lambda_min_clipped: float = -float("inf"), variance_type: Literal["learned", "learned_range"] | None = None,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace", steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False, use_dynamic_shifting: bool = False, time_shift_type: Literal["exponential"] = "exponential",
    ):  # fmt: skip
        self._check_solver("dpmsolver++", "dpmsolver", "sde-dpmsolver", "sde-dpmsolver++")
        if algorithm_type == "sde-dpmsolver" and solver_order > 2:
            raise UnsupportedError(f"algorithm_type 'sde-dpmsolver' has no solver_order {solver_order}; use 1 or 2, or 'sde-dpmsolver++'")
        self._set_tables()

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
                name in the config.
        """
        self._check_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if timesteps is not None:
            timesteps = np.asarray(timesteps).astype(np.int64)
        sigmas, timesteps = self._schedule(num_inference_steps, timesteps, self._flow_shift(mu))
        self._begin_run(sigmas, self._last_sigma(), timesteps)

    def _optional_sigmas(self, sigma_max: float, sigma_min: float, num: int) -> np.ndarray | None:
        if self._option("use_lu_lambdas") and not self.config.use_karras_sigmas:
            return lu_sigmas(sigma_max, sigma_min, num)
        return super()._optional_sigmas(sigma_max, sigma_min, num)

    def _rounds_timesteps(self) -> bool:
        return self.config.beta_schedule != "squaredcos_cap_v2" and (self.config.use_karras_sigmas or self._option("use_lu_lambdas"))

    def multistep_dpm_solver_second_order_update(self, model_output_list: list[Array], sample: Array, noise: Array | None = None) -> Array:
        """One second-order step from the last two converted model outputs."""
        return self._update(model_output_list[-2:], sample, noise)

    def multistep_dpm_solver_third_order_update(self, model_output_list: list[Array], sample: Array, noise: Array | None = None) -> Array:
        """One third-order step from the last three converted model outputs."""
        return self._update(model_output_list[-3:], sample, noise)

    def _update(self, outputs: list[Array], sample: Array, noise: Array | None) -> Array:
        """The step of the order that there are outputs, with derivatives from divided differences."""
        each, index = np.eye(len(outputs)), self._step_index
        series = [each[-1]]
        if len(outputs) > 1:
            lambda_t, lambda_0, lambda_1 = (self._levels_at(index + 1 - i)[2] for i in range(3))
            h, h0 = lambda_t - lambda_0, lambda_0 - lambda_1
            series += [(h / h0) * (each[-1] - each[-2])]
        if len(outputs) > 2:
            h1 = lambda_1 - self._levels_at(index - 2)[2]
            change = series[1] - (h / h1) * (each[-2] - each[-3])
            series = [series[0], series[1] + (h0 / (h0 + h1)) * change, (h / (h0 + h1)) * change]
        halve = len(series) == 2 and self.config.solver_type == "midpoint"
        return self._integrate(outputs, series, index, sample, noise, halve)

    def step(
        self, model_output: Array, timestep: int, sample: Array, generator: Any = None, variance_noise: Array | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Array]:  # fmt: skip
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample` (twice its channels with a `variance_type`); its dtype is the result's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise of a stochastic variant.
            variance_noise: the noise itself, instead of a generator.
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or a `prediction_type` that is unknown or does not go with the algorithm.
        """
        self._begin_step(timestep)
        model_output = self.convert_model_output(model_output, sample=sample)
        self._remember(model_output)
        dtype = "float32" if self._in_float32 else model_output.dtype
        noise = self._step_noise(model_output, generator, dtype) if variance_noise is None else cast(variance_noise, dtype)
        if self._in_float32:
            sample = cast(sample, dtype)
        prev_sample = self._update(self.model_outputs[-self._order() :], sample, noise)
        return self._end_step(SchedulerOutput, return_dict, cast(prev_sample, model_output.dtype) if self._in_float32 else prev_sample)
