"""Linear multistep (Adams-Bashforth) method in sigma (k-diffusion's `sample_lms`)."""

from itertools import chain
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, weighted_sum
from .cores import SigmaScheduler
from .scheduling_utils import DenoisedSchedulerOutput

LMSDiscreteSchedulerOutput = DenoisedSchedulerOutput


class LMSDiscreteScheduler(SigmaScheduler):
    """Steps along the integral of a polynomial through the last derivatives, four by default.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        prediction_type: "epsilon", "sample" or "v_prediction".
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.

    Raises:
        ConfigError: more than one of the `use_..._sigmas`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon",
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace", steps_offset: int = 0,
    ):  # fmt: skip
        self._check_sigma_options()
        self._set_betas()
        self.set_timesteps(num_train_timesteps)

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """The weight of one derivative: the integral of its Lagrange polynomial over the step.

        Args:
            order: how many derivatives are used.
            t: index of the step.
            current_order: which of them, 0 the newest.
        """
        sigmas = self.sigmas.astype(np.float64)
        nodes, weights = np.polynomial.legendre.leggauss(order)  # exact for these polynomials
        start, end = sigmas[t], sigmas[t + 1]
        tau = (start + end) / 2 + (end - start) / 2 * nodes
        others = [t - k for k in range(order) if k != current_order]
        polynomial = np.prod([(tau - sigmas[k]) / (sigmas[t - current_order] - sigmas[k]) for k in others], axis=0)
        return float((weights * polynomial).sum() * (end - start) / 2)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: unknown `timestep_spacing`.
        """
        self.num_inference_steps = num_inference_steps
        self._set_sigmas(self._timestep_grid(num_inference_steps).astype(np.float32))
        self.derivatives = []

    def step(
        self, model_output: Array, timestep: float, sample: Array, order: int = 4, return_dict: bool = True
    ) -> LMSDiscreteSchedulerOutput | tuple[Array, Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            order: how many derivatives are used, once there are so many.
            return_dict: return an `LMSDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: unknown `prediction_type`.
            IndexError: `timestep` is not in the schedule.
        """
        index = self._begin_step(timestep)
        sigma = float(self.sigmas[index])
        original = self._predict_original(model_output, sample, sigma)
        self.derivatives = [*self.derivatives, self._derivative(model_output, sample, original, sigma)][-order:]
        order = min(index + 1, order)
        weights = (self.get_lms_coefficient(order, index, k) for k in range(order))
        prev_sample = weighted_sum(1, sample, *chain(*zip(weights, reversed(self.derivatives))))

        return self._end_step(LMSDiscreteSchedulerOutput, return_dict, prev_sample, original)
