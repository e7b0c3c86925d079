"""Second-order midpoint steps: DPM-Solver-2 in sigma (k-diffusion's `sample_dpm_2`; arXiv 2206.00364, algorithm 2 without churn)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, weighted_sum
from .cores import MidpointScheduler
from .scheduling_utils import DenoisedSchedulerOutput, as_output

KDPM2DiscreteSchedulerOutput = DenoisedSchedulerOutput


class KDPM2DiscreteScheduler(MidpointScheduler):
    """Steps of two model calls: an Euler step to halfway in log(sigma), then the whole step along the derivative there.

    The last step is Euler's.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364); timesteps but those of middles are then rounded.
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        prediction_type: "epsilon" or "v_prediction".
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.

    Raises:
        ConfigError: more than one of the `use_..._sigmas`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        prediction_type: str = "epsilon", timestep_spacing: str = "linspace", steps_offset: int = 0,
    ):  # fmt: skip
        self._check_sigma_options()
        self._set_betas()
        self.set_timesteps(num_train_timesteps, None, num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: Any = None, num_train_timesteps: int | None = None) -> None:
        super().set_timesteps(num_inference_steps, device, num_train_timesteps)
        if self.config.use_karras_sigmas:
            self.timesteps[::2] = self.timesteps[::2].round()

    def _step_sigmas(self) -> tuple[float, float, float]:
        first = self._step_index - (not self.state_in_first_order)
        end = float(self.sigmas[first + 1])
        # A run begun at a middle timestep steps from a sigma to itself, by way of the one before.
        before = float(self.sigmas[max(first - 1, 0)])
        return float(self.sigmas[first]), (before * end) ** 0.5, end

    def step(
        self, model_output: Array, timestep: float, sample: Array, return_dict: bool = True
    ) -> KDPM2DiscreteSchedulerOutput | tuple[Array, Array]:
        """One stage of a step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `KDPM2DiscreteSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: unknown `prediction_type`.
            UnsupportedError: `prediction_type` is "sample".
            TimestepError: `timestep` is not in the schedule.
        """
        return as_output(KDPM2DiscreteSchedulerOutput, return_dict, *self._advance(model_output, timestep, sample))

    def _advance(self, model_output: Array, timestep: float, sample: Array) -> tuple[Array, Array]:
        """The sample after a stage, and the clean one predicted there; arguments as `step`."""
        self._refuse_sample_prediction()
        self._begin_step(timestep)
        start, middle, end = self._step_sigmas()
        sigma = self._model_sigma()
        original = self._predict_original(model_output, sample, sigma)
        derivative = self._derivative(model_output, sample, original, sigma)
        step_start, length = (sample, middle - start) if self.state_in_first_order else (self.sample, end - start)
        self.sample = sample if self.state_in_first_order else None
        prev_sample = weighted_sum(1, step_start, length, derivative)
        self._step_index += 1
        return prev_sample, original
