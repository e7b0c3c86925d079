"""SA-Solver: stochastic Adams predictor and corrector for diffusion SDEs (arXiv 2309.05019)."""

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, randn_like, weighted_sum
from .scheduling_utils import SchedulerOutput
from .solvers import LogSNRScheduler
from .tables import adams_weights, expect, exponential_moment, lagrange_basis


def _middle_of_training(timestep: int) -> int:
    return int(200 <= timestep <= 800)


class SASolverScheduler(LogSNRScheduler):
    """Multistep integration of an SDE whose noise may change from step to step, with a correction when the next model output is known.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        predictor_order: from 1 to 4; 2 for guided sampling.
        corrector_order: from 1 to 4; 2 for guided sampling.
        prediction_type: "epsilon", "sample", "v_prediction", or, with "data_prediction", "flow_prediction".
        tau_func: from a timestep to the amount of noise, 0 for an ODE and 1 for the usual SDE; by default 1 from 200 to 800, else 0.
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487); with "noise_prediction" too, where PyTorch
            diffusers fails.
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        algorithm_type: integrate the predicted clean sample, "data_prediction", or noise, "noise_prediction".
        lower_order_final: orders no higher than the number of steps left.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        use_flow_sigmas: sigmas of rectified flow: x_t = (1 - sigma) x_0 + sigma noise.
        flow_shift: their shift towards noise.
        lambda_min_clipped: timesteps with a smaller lambda are not used; needed with the cosine schedule.
        variance_type: "learned" or "learned_range" if the model also predicts a variance, after the mean's three channels; PyTorch
            diffusers then fails.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.

    Raises:
        ConfigError: options that exclude each other, or an order out of range.
        UnsupportedError: an unknown `algorithm_type` or `beta_schedule`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, predictor_order: int = 2, corrector_order: int = 2,
        prediction_type: str = "epsilon", tau_func: Callable | None = None,
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, sample_max_value: float = 1.0,
        algorithm_type: str = "data_prediction", lower_order_final: bool = True,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        use_flow_sigmas: bool = False, flow_shift: float = 1.0, lambda_min_clipped: float = -float("inf"), variance_type: str | None = None,
        timestep_spacing: str = "linspace", steps_offset: int = 0,
    ):  # fmt: skip
        self._accept("algorithm_type", ("data_prediction", "noise_prediction"))
        for name, order in (("predictor_order", predictor_order), ("corrector_order", corrector_order)):
            expect(name, order, (1, 2, 3, 4))
        self.tau_func = _middle_of_training if tau_func is None else tau_func
        self.predict_x0 = algorithm_type == "data_prediction"
        self._set_tables()

    def _forget(self) -> None:
        self.model_outputs = [None] * max(self.config.predictor_order, self.config.corrector_order - 1)
        self.lower_order_nums = 0
        self.last_sample: Array | None = None
        self._restart()

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: an unknown `timestep_spacing`.
        """
        sigmas, timesteps = self._schedule(num_inference_steps, flow_shift=self.config.flow_shift)
        self._begin_run(sigmas, self._sigma_beyond(sigmas), timesteps)

    def convert_model_output(self, model_output: Array, *, sample: Array) -> Array:
        """What the solver integrates: the predicted clean sample ("data_prediction"), or the predicted noise.

        Args:
            model_output: the model's prediction.
            sample: the current sample.

        Raises:
            ConfigError: a `prediction_type` that is unknown or does not go with the algorithm.
        """
        return (self._predict_original if self.predict_x0 else self._predict_limited_noise)(model_output, sample)

    # ---- coefficients

    def get_coefficients_exponential_negative(self, order: int, interval_start: float, interval_end: float) -> float:
        """The integral of exp(-x) x^order over an interval."""
        return exponential_moment(-1.0, order, interval_start, interval_end)

    def get_coefficients_exponential_positive(self, order: int, interval_start: float, interval_end: float, tau: float) -> float:
        """The integral of exp((1 + tau^2) x) x^order over an interval."""
        return exponential_moment(1.0 + tau**2, order, interval_start, interval_end)

    def lagrange_polynomial_coefficient(self, order: int, lambda_list: list[float]) -> list[list[float]]:
        """For each of order + 1 nodes, the coefficients, highest power first, of the polynomial that is 1 there and 0 at the others."""
        if len(lambda_list) != order + 1:
            raise ConfigError(f"{len(lambda_list)} nodes for a polynomial of order {order}; expected {order + 1}")
        return [polynomial.tolist() for polynomial in lagrange_basis(lambda_list)]

    def get_coefficients_fn(
        self, order: int, interval_start: float, interval_end: float, lambda_list: list[float], tau: float
    ) -> list[float]:
        """The weights of model outputs at `order` lambdas in the integral over an interval of lambda."""
        if len(lambda_list) != order:
            raise ConfigError(f"{len(lambda_list)} lambdas for order {order}; expected as many")
        return adams_weights(1.0 + tau**2 if self.predict_x0 else -1.0, lambda_list, interval_start, interval_end)

    # ---- steps

    def stochastic_adams_bashforth_update(self, model_output: Array, *, sample: Array, noise: Array, order: int, tau: float) -> Array:
        """The predictor's step.

        Args:
            model_output: the converted output at the current step, which is the last of `model_outputs`, too; not used.
            sample: the current sample.
            noise: standard normal.
            order: how many of the last converted model outputs to use.
            tau: the amount of noise.
        """
        return self._update(self.model_outputs[::-1], sample, noise, self._step_index, order, tau)

    def stochastic_adams_moulton_update(
        self, this_model_output: Array, *, last_sample: Array, last_noise: Array, this_sample: Array, order: int, tau: float
    ) -> Array:
        """The last step again, with the model output at its end.

        Args:
            this_model_output: the converted output at the current step.
            last_sample: the sample of the last step, corrected.
            last_noise: the last step's noise.
            this_sample: what the predictor made of it; not used.
            order: how many model outputs to use, this one among them.
            tau: the last step's amount of noise.
        """
        return self._update([this_model_output, *self.model_outputs[::-1]], last_sample, last_noise, self._step_index - 1, order, tau)

    def _update(self, outputs: list[Array], sample: Array, noise: Array, start: int, order: int, tau: float) -> Array:
        """From `sample` at index `start` to the next noise level, with a polynomial through model outputs, the current step's first."""
        alpha, sigma, lambda_t = self._levels_at(start + 1)
        alpha_s, sigma_s, lambda_s = self._levels_at(start)
        h, rate = lambda_t - lambda_s, 1 + tau**2
        nodes = [self._levels_at(self._step_index - i)[2] for i in range(order)]
        weights = self.get_coefficients_fn(order, lambda_s, lambda_t, nodes, tau)
        if self.predict_x0:
            keep, factor = math.exp(-(tau**2) * h) * sigma / sigma_s, rate * sigma * math.exp(-(tau**2) * lambda_t)
            spread = sigma * math.sqrt(-math.expm1(-2 * tau**2 * h))
            if order == 2:  # a term of higher order for fewer steps (appendix of the paper)
                change = h**2 / 2 - (h * rate + math.expm1(-rate * h)) / rate**2
                change *= math.exp(rate * lambda_t) / (nodes[0] - nodes[1])
                weights = [weights[0] + change, weights[1] - change]
        else:
            keep, factor = alpha / alpha_s, -rate * alpha
            spread = tau * sigma * math.sqrt(math.expm1(2 * h))
        weights = [factor * weight for weight in weights]
        return weighted_sum(keep, sample, spread, noise, *chain(*zip(weights, outputs, strict=False)))

    def step(
        self, model_output: Array, timestep: int, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample` (twice its channels with a `variance_type`).
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise.
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or a `prediction_type` that is unknown or does not go with the algorithm.
        """
        self._begin_step(timestep)
        config, index = self.config, self._step_index
        model_output = self.convert_model_output(model_output, sample=sample)
        if index > 0 and self.last_sample is not None:
            sample = self.stochastic_adams_moulton_update(
                model_output,
                last_sample=self.last_sample,
                last_noise=self.last_noise,
                this_sample=sample,
                order=self.this_corrector_order,
                tau=self.tau_func(self.timesteps[index - 1]),
            )
        self._remember(model_output)
        left = len(self.timesteps) - index if config.lower_order_final else math.inf
        self.this_predictor_order = min(config.predictor_order, left, self.lower_order_nums + 1)
        self.this_corrector_order = min(config.corrector_order, left + 1, self.lower_order_nums + 2)
        self.last_sample, self.last_noise = sample, randn_like(model_output, generator)
        prev_sample = self.stochastic_adams_bashforth_update(
            model_output,
            sample=sample,
            noise=self.last_noise,
            order=self.this_predictor_order,
            tau=self.tau_func(self.timesteps[index]),
        )
        return self._end_step(SchedulerOutput, return_dict, prev_sample)
