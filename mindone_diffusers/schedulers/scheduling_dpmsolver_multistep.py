"""DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), multistep, with their stochastic variants."""

import math
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError, UnsupportedError
from .arrays import Array, randn_like
from .cores import NO_TIMESTEPS, LogSNRScheduler
from .scheduling_utils import SchedulerOutput
from .tables import SIGMA_OPTIONS, flow_sigmas, lu_sigmas, sigma_to_timestep, sigmas_of, timestep_grid


class DPMSolverMultistepScheduler(LogSNRScheduler):
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

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        solver_order: int = 2,
        prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"] = "dpmsolver++",
        solver_type: Literal["midpoint", "heun"] = "midpoint",
        lower_order_final: bool = True,
        euler_at_final: bool = False,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        use_lu_lambdas: bool = False,
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
        lambda_min_clipped: float = -float("inf"),
        variance_type: Literal["learned", "learned_range"] | None = None,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        use_dynamic_shifting: bool = False,
        time_shift_type: Literal["exponential"] = "exponential",
    ):
        self._check_sigma_options()
        self._set_betas(last_alpha_cumprod=2**-24)  # not 0, so that the first sigma is finite
        self._set_log_snr_tables()
        if algorithm_type == "deis":  # a DEISMultistepScheduler's config
            self.register_to_config(algorithm_type="dpmsolver++")
        elif algorithm_type not in ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"):
            raise UnsupportedError(
                f"algorithm_type is {algorithm_type!r}; expected 'dpmsolver', 'dpmsolver++', 'sde-dpmsolver' or 'sde-dpmsolver++'"
            )
        if solver_type in ("logrho", "bh1", "bh2"):  # a DEISMultistepScheduler's or UniPCMultistepScheduler's config
            self.register_to_config(solver_type="midpoint")
        elif solver_type not in ("midpoint", "heun"):
            raise UnsupportedError(f"solver_type is {solver_type!r}; expected 'midpoint' or 'heun'")
        if algorithm_type in ("dpmsolver", "sde-dpmsolver") and final_sigmas_type == "zero":
            raise ConfigError(f"final_sigmas_type 'zero' does not go with algorithm_type {algorithm_type!r}; use 'sigma_min'")
        if algorithm_type == "sde-dpmsolver" and solver_order > 2:
            raise UnsupportedError(f"algorithm_type 'sde-dpmsolver' has no solver_order {solver_order}; use 1 or 2, or 'sde-dpmsolver++'")
        if use_flow_sigmas and (use_lu_lambdas or any(self.config[option] for option in SIGMA_OPTIONS)):
            raise ConfigError("use_flow_sigmas, whose sigmas are below 1, cannot go with another choice of sigmas")
        self.timesteps = np.arange(num_train_timesteps, dtype=np.float32)[::-1]
        self._forget()

    def _forget(self) -> None:
        self.model_outputs = [None] * self.config.solver_order
        self.lower_order_nums = 0
        self._restart()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        mu: float | None = None,
        timesteps: list[int] | None = None,
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
        config = self.config
        if mu is not None and not (config.use_dynamic_shifting and config.time_shift_type == "exponential"):
            raise ConfigError("`mu` needs use_dynamic_shifting=True and time_shift_type='exponential'")
        self._check_given(num_inference_steps=num_inference_steps, timesteps=timesteps)

        length = config.num_train_timesteps
        if timesteps is None:
            last = length - int(np.searchsorted(self.lambda_t[::-1], config.lambda_min_clipped))
            timesteps = timestep_grid(config.timestep_spacing, num_inference_steps, length, config.steps_offset, last, extra=1).round()
        timesteps = np.asarray(timesteps).astype(np.int64)

        table = sigmas_of(self.alphas_cumprod)
        sigma_max, sigma_min = table[-1].item(), table[0].item()
        sigmas = self._optional_sigmas(sigma_max, sigma_min, num_inference_steps)
        if config.use_lu_lambdas and not config.use_karras_sigmas:
            sigmas = lu_sigmas(sigma_max, sigma_min, num_inference_steps)
        if sigmas is not None:
            timesteps = sigma_to_timestep(sigmas, np.log(table))
            if config.beta_schedule != "squaredcos_cap_v2" and (config.use_karras_sigmas or config.use_lu_lambdas):
                timesteps = timesteps.round()
        elif config.use_flow_sigmas:
            sigmas = flow_sigmas(num_inference_steps, length, config.flow_shift if mu is None else math.exp(mu))
            timesteps = sigmas * length
        else:
            sigmas = np.interp(timesteps, np.arange(length), table)
        self.sigmas = np.append(sigmas, self._last_sigma()).astype(np.float32)
        self.timesteps = timesteps.astype(np.int64)
        self.num_inference_steps = len(timesteps)
        self._forget()

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Any = None) -> int:
        """As the other schedulers', but a timestep that is not in the schedule is taken for the last."""
        try:
            return super().index_for_timestep(timestep, schedule_timesteps)
        except IndexError:
            return len(self.timesteps) - 1

    def convert_model_output(self, model_output: Array, *, sample: Array) -> Array:
        """What the algorithm integrates: the predicted clean sample ("++"), or the predicted noise.

        Args:
            model_output: the model's prediction.
            sample: the current sample.

        Raises:
            ConfigError: a `prediction_type` that is unknown or does not go with the algorithm.
        """
        predict = self._predict_original if self.config.algorithm_type.endswith("++") else self._predict_noise
        return predict(model_output, sample)

    def dpm_solver_first_order_update(self, model_output: Array, *, sample: Array, noise: Array | None = None) -> Array:
        """One first-order step (DDIM's) from a converted model output."""
        return self._update([model_output], sample, noise)

    def multistep_dpm_solver_second_order_update(
        self, model_output_list: list[Array], *, sample: Array, noise: Array | None = None
    ) -> Array:
        """One second-order step from the last two converted model outputs."""
        return self._update(model_output_list[-2:], sample, noise)

    def multistep_dpm_solver_third_order_update(
        self, model_output_list: list[Array], *, sample: Array, noise: Array | None = None
    ) -> Array:
        """One third-order step from the last three converted model outputs."""
        return self._update(model_output_list[-3:], sample, noise)

    def _update(self, outputs: list[Array], sample: Array, noise: Array | None) -> Array:
        """The step of the order that there are outputs: a Taylor series of the model output in lambda under an exact integral.

        With h the step in lambda, the four algorithms differ in the integrand's exponent z and in the factors of sample, series and noise.
        """
        algorithm, index = self.config.algorithm_type, self._step_index
        alpha, sigma, lambda_t = self._levels_at(index + 1)
        alpha_s, sigma_s, lambda_s = self._levels_at(index)
        h = lambda_t - lambda_s
        if algorithm == "dpmsolver++":
            z, keep, series = -h, sigma / sigma_s, -alpha
        elif algorithm == "dpmsolver":
            z, keep, series = h, alpha / alpha_s, -sigma
        elif algorithm == "sde-dpmsolver++":
            z, keep, series = -2 * h, sigma / sigma_s * math.exp(-h), -alpha
        else:
            z, keep, series = h, alpha / alpha_s, -2 * sigma
        phi = math.expm1(z)

        slope = phi / z - 1 if z else 0.0  # z is 0 if the last step's noise levels are equal ("sigma_min" with other sigmas)
        # PyTorch diffusers subtracts a half with the wrong sign in "sde-dpmsolver++"; kept for parity.
        bend = (phi - z) / z**2 + (0.5 if algorithm == "sde-dpmsolver++" else -0.5) if z else 0.0

        prev_sample = keep * sample + (series * phi) * outputs[-1]
        if len(outputs) > 1:
            h0 = lambda_s - self._levels_at(index - 1)[2]
            first = (h / h0) * (outputs[-1] - outputs[-2])
            if len(outputs) == 3:
                h1 = self._levels_at(index - 1)[2] - self._levels_at(index - 2)[2]
                change = first - (h / h1) * (outputs[-2] - outputs[-3])
                first = first + (h0 / (h0 + h1)) * change
                prev_sample = prev_sample + (series * bend * h / (h0 + h1)) * change
            midpoint = len(outputs) == 2 and self.config.solver_type == "midpoint"
            prev_sample = prev_sample + (series * (phi / 2 if midpoint else slope)) * first
        if algorithm == "sde-dpmsolver++":
            prev_sample = prev_sample + (sigma * math.sqrt(-math.expm1(-2 * h))) * noise
        elif algorithm == "sde-dpmsolver":
            prev_sample = prev_sample + (sigma * math.sqrt(math.expm1(2 * h))) * noise
        return prev_sample

    def step(
        self,
        model_output: Array,
        timestep: int,
        sample: Array,
        generator: Any = None,
        variance_noise: Array | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Array]:
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
        if self.num_inference_steps is None:
            raise ValueError(NO_TIMESTEPS)
        if self._step_index is None:
            self._init_step_index(timestep)
        config, left = self.config, len(self.timesteps) - self._step_index
        short = config.lower_order_final and len(self.timesteps) < 15
        model_output = self.convert_model_output(model_output, sample=sample)
        self.model_outputs = [*self.model_outputs[1:], model_output]

        noise = None
        if config.algorithm_type.startswith("sde"):
            noise = randn_like(model_output, generator, "float32") if variance_noise is None else variance_noise.astype("float32")
        order = min(config.solver_order, self.lower_order_nums + 1, 3)
        if left == 1 and (config.euler_at_final or short or config.final_sigmas_type == "zero"):
            order = 1
        elif left == 2 and short:
            order = min(order, 2)
        prev_sample = self._update(self.model_outputs[-order:], sample.astype("float32"), noise).astype(model_output.dtype)

        self.lower_order_nums = min(self.lower_order_nums + 1, config.solver_order)
        self._step_index += 1
        return SchedulerOutput(prev_sample=prev_sample) if return_dict else (prev_sample,)
