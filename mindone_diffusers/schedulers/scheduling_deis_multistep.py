"""DEIS: exponential integrators with polynomials through the last predicted noises (arXiv 2204.13902)."""

from itertools import chain
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, weighted_sum
from .cores import predict_noise
from .scheduling_utils import SchedulerOutput
from .solvers import LogSNRScheduler
from .tables import adams_weights


class DEISMultistepScheduler(LogSNRScheduler):
    """Multistep integration of the predicted noise, a polynomial in log(rho), over rho = sigma / alpha ("log-rho DEIS").

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        solver_order: 1, 2 (for guided sampling) or 3 (for unconditional sampling).
        prediction_type: "epsilon", "sample", "v_prediction" or "flow_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487).
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        algorithm_type: "deis".
        solver_type: "logrho".
        lower_order_final: steps of order 2 and 1 at the end of runs of fewer than 15 steps.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        use_flow_sigmas: sigmas of rectified flow: x_t = (1 - sigma) x_0 + sigma noise.
        flow_shift: their shift towards noise.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.
        use_dynamic_shifting: take the flow's shift from `set_timesteps(mu=...)`.
        time_shift_type: "exponential": the shift is exp(mu).

    Raises:
        ConfigError: options that exclude each other.
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
        algorithm_type: Literal["deis"] = "deis", solver_type: Literal["logrho"] = "logrho", lower_order_final: bool = True,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        use_flow_sigmas: bool = False, flow_shift: float = 1.0,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace", steps_offset: int = 0,
        use_dynamic_shifting: bool = False, time_shift_type: Literal["exponential"] = "exponential",
    ):  # fmt: skip
        self._accept("algorithm_type", ("deis",), foreign=("dpmsolver", "dpmsolver++"))
        self._accept("solver_type", ("logrho",), foreign=("midpoint", "heun", "bh1", "bh2"))
        self._set_tables()

    def set_timesteps(self, num_inference_steps: int, device: Any = None, mu: float | None = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.
            mu: log of the flow's shift, with `use_dynamic_shifting`.

        Raises:
            ConfigError: `mu` without dynamic shifting; an unknown `timestep_spacing`.
        """
        sigmas, timesteps = self._schedule(num_inference_steps, flow_shift=self._flow_shift(mu))
        self._begin_run(sigmas, self._sigma_beyond(sigmas), timesteps)

    def convert_model_output(self, model_output: Array, *, sample: Array) -> Array:
        """The noise beside the clean sample that is predicted, and limited if the config says so.

        Args:
            model_output: the model's prediction.
            sample: the current sample.

        Raises:
            ConfigError: an unknown `prediction_type`.
        """
        alpha, sigma, _ = self._levels_at(self._step_index)
        if self.config.prediction_type == "flow_prediction":
            sigma = float(self.sigmas[self._step_index])  # as in PyTorch diffusers, also where sigmas are not a flow's
        return predict_noise("sample", self._predict_original(model_output, sample), sample, alpha, sigma)

    def deis_first_order_update(self, model_output: Array, *, sample: Array) -> Array:
        """One first-order step (DDIM's) from a converted model output."""
        return self._update([model_output], sample)

    def multistep_deis_second_order_update(self, model_output_list: list[Array], *, sample: Array) -> Array:
        """One second-order step from the last two converted model outputs."""
        return self._update(model_output_list[-2:], sample)

    def multistep_deis_third_order_update(self, model_output_list: list[Array], *, sample: Array) -> Array:
        """One third-order step from the last three converted model outputs."""
        return self._update(model_output_list[-3:], sample)

    def _update(self, outputs: list[Array], sample: Array) -> Array:
        """The step of the order that there are outputs: their integral over rho, which is that over lambda of exp(-lambda)."""
        index = self._step_index
        alpha, _, lambda_t = self._levels_at(index + 1)
        nodes = [self._levels_at(index - i)[2] for i in range(len(outputs))]
        weights = [-alpha * weight for weight in adams_weights(-1.0, nodes, nodes[0], lambda_t)]
        return weighted_sum(alpha / self._levels_at(index)[0], sample, *chain(*zip(weights, reversed(outputs), strict=True)))

    def step(self, model_output: Array, timestep: int, sample: Array, return_dict: bool = True) -> SchedulerOutput | tuple[Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or an unknown `prediction_type`.
        """
        self._begin_step(timestep)
        self._remember(self.convert_model_output(model_output, sample=sample))
        return self._end_step(SchedulerOutput, return_dict, self._update(self.model_outputs[-self._order() :], sample))
