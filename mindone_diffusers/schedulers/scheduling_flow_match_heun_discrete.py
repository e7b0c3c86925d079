"""Heun's method on the flow's ODE (arXiv 2206.00364, algorithm 1; arXiv 2403.03206)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, cast, weighted_sum
from .cores import HeunMixin
from .flows import FlowScheduler
from .scheduling_utils import SchedulerOutput
from .tables import shift_flow

FlowMatchHeunDiscreteSchedulerOutput = SchedulerOutput


class FlowMatchHeunDiscreteScheduler(HeunMixin, FlowScheduler):
    """Second-order steps of two model calls: an Euler step, then its correction by the mean of the velocities at both ends.

    Every timestep but the first is there twice; the last step is Euler's.

    Args:
        num_train_timesteps: length of the training schedule.
        shift: moves all noise levels towards noise (arXiv 2403.03206, section 5.3.2).
    """

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, shift: float = 1.0):
        self._set_training_sigmas(shift)

    def scale_noise(self, sample: Array, timestep: Any, noise: Array) -> Array:
        """Noisy samples, (1 - sigma) sample + sigma noise, of the current step's level, which before the first step is `timestep`'s.

        Args:
            sample: clean samples, shape (batch, ...).
            timestep: one of `timesteps`; the first step is then there.
            noise: standard normal noise of the same shape.

        Raises:
            TimestepError: it is not in the schedule.
        """
        sigma = float(self.sigmas[self._find_step(timestep)])
        return weighted_sum(sigma, noise, 1 - sigma, sample)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many steps; the model is called twice in each but the last.
            device: ignored, timesteps stay on the host.
        """
        self.num_inference_steps = num_inference_steps
        sigmas = shift_flow(self._training_range(num_inference_steps), self.config.shift).astype(np.float32)
        sigmas = np.append(sigmas[:1], sigmas[1:].repeat(2))
        self.timesteps, self.sigmas = sigmas * self.config.num_train_timesteps, np.append(sigmas, np.float32(0))
        self._forget_stage()
        self._restart()

    def step(
        self, model_output: Array, timestep: float, sample: Array,
        s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = float("inf"), s_noise: float = 1.0,
        generator: Any = None, return_dict: bool = True,
    ) -> FlowMatchHeunDiscreteSchedulerOutput | tuple[Array]:  # fmt: skip
        """One stage of a step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample`; its dtype is the result's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            s_churn: how much noise is added in all, where `s_tmin <= sigma <= s_tmax`.
            s_tmin: see `s_churn`.
            s_tmax: see `s_churn`.
            s_noise: standard deviation of that noise.
            generator: draws it.
            return_dict: return a `FlowMatchHeunDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep.
            TimestepError: `timestep` is not in the schedule.
        """
        index = self._begin_step(timestep)
        start = index if self.state_in_first_order else index - 1
        sigma, sigma_next = self.sigmas[start : start + 2].tolist()
        # Noise is drawn in both stages, as in PyTorch diffusers; the second does not depend on `sample`.
        sample = cast(sample, "float32")
        sample, sigma_hat = self._churn(model_output, sample, s_churn, s_tmin, s_tmax, s_noise, generator, start)
        churned = self.state_in_first_order and sigma_hat > sigma
        derivative = weighted_sum(sigma / sigma_hat, model_output) if churned else model_output
        prev_sample = cast(self._heun(sample, derivative, sigma_next - sigma_hat), model_output.dtype)
        return self._end_step(FlowMatchHeunDiscreteSchedulerOutput, return_dict, prev_sample)
