"""Exponential integrators: steps of the diffusion ODE and SDE in lambda_t = log(alpha_t / sigma_t), for x_t = alpha_t x_0 + sigma_t noise.

`LogSNRScheduler` is what they share (arXiv 2206.00927), `DPMSolverScheduler` the single- and multistep DPM-Solvers' part.
"""

import math
from itertools import chain
from typing import Any

import numpy as np

from ..core.errors import ConfigError, UnsupportedError
from ..core.outputs import BaseOutput
from .arrays import Array, dynamic_threshold, randn_like, weighted_sum
from .cores import PREDICTIONS, DiffusionScheduler, SigmaTableMixin, predict_noise, predict_original
from .tables import SIGMA_OPTIONS, expect, flow_sigmas, sigma_to_timestep, sigmas_of, timestep_grid


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
        self.timesteps = self.timesteps.astype(np.float32)
        self._forget()

    def _accept(self, option: str, expected: tuple[str, ...], foreign: tuple[str, ...] = ()) -> None:
        """Check a config entry that names something; another class's names become the first of the expected.

        Raises:
            UnsupportedError: it is unknown.
        """
        name = self.config[option]
        if name in foreign:
            self.register_to_config(**{option: expected[0]})
        else:
            expect(option, name, expected, UnsupportedError)

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
        spacing, offset = self._option("timestep_spacing", "linspace"), self._option("steps_offset", 0)
        return timestep_grid(spacing, num_inference_steps, len(self), offset, self._used_timesteps(), extra).round()

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
        expect("prediction_type", kind, (*PREDICTIONS, "flow_prediction"))
        if kind == "flow_prediction":
            return self._limited(weighted_sum(1, sample, -sigma, model_output))
        alpha, noise_level, _ = self._levels_of(sigma)
        return self._limited(predict_original(kind, self._mean(model_output), sample, alpha, noise_level))

    def _predict_noise(self, model_output: Array, sample: Array, sigma: float | None = None) -> Array:
        """The noise that a model output means; `sigma` as in `_predict_original`."""
        kind, sigma = self.config.prediction_type, float(self.sigmas[self._step_index]) if sigma is None else sigma
        expect("prediction_type", kind, PREDICTIONS)
        alpha, noise_level, _ = self._levels_of(sigma)
        return predict_noise(kind, self._mean(model_output), sample, alpha, noise_level)

    def _predict_limited_noise(self, model_output: Array, sample: Array) -> Array:
        """The noise that a model output means, consistent with a limited clean sample if the config says so."""
        noise = self._predict_noise(model_output, sample)
        if self.config.thresholding:
            alpha, sigma, _ = self._levels_at(self._step_index)
            original = self._limited(predict_original("epsilon", noise, sample, alpha, sigma))
            noise = predict_noise("sample", original, sample, alpha, sigma)
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

    def _begin_step(self, timestep: Any) -> int:
        """The index of this step."""
        self._require_timesteps()
        return self._find_step(timestep)

    def _end_step(self, output: type[BaseOutput], return_dict: bool, *values: Any) -> Any:
        self.lower_order_nums = min(self.lower_order_nums + 1, len(self.model_outputs))
        return super()._end_step(output, return_dict, *values)


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
        return self._integrate([model_output], [np.ones(1)], self._step_index, sample, noise)

    def _step_noise(self, model_output: Array, generator: Any, dtype: Any = None) -> Array | None:
        """The noise of a step from a converted model output, None if the algorithm has none."""
        return randn_like(model_output, generator, dtype) if self._algorithm.startswith("sde") else None

    def _integrate(
        self, outputs: list[Array], series: list[np.ndarray], start: int, sample: Array, noise: Array | None, halve: bool = False
    ) -> Array:
        """From `sample` at index `start` to the next step's noise level: a Taylor series of the model output under an exact integral.

        The four algorithms differ in the integrand's exponent z and in the factors of sample, series and noise.

        Args:
            outputs: converted model outputs.
            series: what these weigh in the output at `start` and in its derivatives in lambda, times the powers of the step h in lambda.
            start: index of the sample's noise level.
            sample: shape (batch, ...).
            noise: of a stochastic variant.
            halve: the slope counts as at the middle of the step.
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

        weights = phi * series[0]
        if len(series) > 1:
            slope = phi / z - 1 if z else 0.0  # z is 0 if the last step's noise levels are equal ("sigma_min" with other sigmas)
            weights = weights + (phi / 2 if halve else slope) * series[1]
        if len(series) > 2:
            # PyTorch diffusers subtracts a half with the wrong sign in "sde-dpmsolver++"; kept for parity.
            bend = (phi - z) / z**2 + (0.5 if algorithm == "sde-dpmsolver++" else -0.5) if z else 0.0
            weights = weights + bend * series[2]
        terms = [keep, sample, *chain(*zip((factor * weights).tolist(), outputs, strict=True))]
        if algorithm.startswith("sde") and noise is not None:
            variance = -math.expm1(-2 * h) if algorithm.endswith("++") else math.expm1(2 * h)
            terms += [sigma * math.sqrt(max(variance, 0.0)), noise]  # of equal noise levels, h may be a rounding error below 0
        return weighted_sum(*terms)
