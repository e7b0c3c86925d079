"""Sampling of continuous-time consistency models on the circle, SANA-Sprint's (arXiv 2410.11081, arXiv 2503.09641)."""

import math
from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, on_host, randn_like, weighted_sum
from .cores import StepIndexMixin, check_steps
from .scheduling_utils import DenoisedSchedulerOutput, SchedulerMixin
from .tables import expect, linspace_float32

SCMSchedulerOutput = DenoisedSchedulerOutput


class SCMScheduler(StepIndexMixin, SchedulerMixin):
    """Steps that predict the clean sample of x = cos(t) x_0 + sin(t) noise, t from pi/2 to 0, and noise it again.

    Args:
        num_train_timesteps: most inference steps there may be.
        prediction_type: "trigflow".
        sigma_data: standard deviation of the data, and of the noise that is added.
    """

    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, prediction_type: str = "trigflow", sigma_data: float = 0.5):
        self.timesteps = np.arange(num_train_timesteps)[::-1].copy()

    def set_timesteps(
        self, num_inference_steps: int, timesteps: list[float] | np.ndarray | None = None, device: Any = None,
        max_timesteps: float | None = 1.57080, intermediate_timesteps: float | None = 1.3,
    ) -> None:  # fmt: skip
        """Choose the timesteps, one more than there are steps: the last is the finished sample's.

        Args:
            num_inference_steps: how many steps.
            timesteps: these angles, in radians.
            device: ignored, timesteps stay on the host.
            max_timesteps: the first angle of timesteps that are evenly spaced down to 0; None if `timesteps` are given.
            intermediate_timesteps: the second of two steps' angles; None if there are not two.

        Raises:
            ConfigError: arguments that exclude each other, too many steps, or not `num_inference_steps + 1` timesteps.
        """
        check_steps(num_inference_steps, len(self))
        if (timesteps is None) == (max_timesteps is None):
            raise ConfigError("give either `timesteps`, and max_timesteps=None, or `max_timesteps`")
        if timesteps is not None and len(timesteps) != num_inference_steps + 1:
            raise ConfigError(f"{len(timesteps)} timesteps for {num_inference_steps} steps; expected one more than steps")
        if intermediate_timesteps is not None and num_inference_steps != 2:
            raise ConfigError(f"intermediate_timesteps is of 2 steps, not of {num_inference_steps}: set intermediate_timesteps=None")
        self.num_inference_steps = num_inference_steps
        if timesteps is not None:
            self.timesteps = on_host(timesteps).astype(np.float32)
        elif intermediate_timesteps is not None:
            self.timesteps = np.array([max_timesteps, intermediate_timesteps, 0], dtype=np.float32)
        else:
            self.timesteps = linspace_float32(max_timesteps, 0, num_inference_steps + 1)
        self._restart()

    def step(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> SCMSchedulerOutput | tuple[Array, Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`, not the last.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise, in float32.
            return_dict: return an `SCMSchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or an unknown `prediction_type`.
            TimestepError: `timestep` is not in the schedule.
        """
        self._require_timesteps()
        expect("prediction_type", self.config.prediction_type, ("trigflow",))
        index = self._find_step(timestep)
        angle, angle_next = self.timesteps[index : index + 2].tolist()
        original = weighted_sum(math.cos(angle), sample, -math.sin(angle), model_output)
        noise, noise_level = randn_like(model_output, generator, "float32"), math.sin(angle_next) * self.config.sigma_data
        prev_sample = weighted_sum(math.cos(angle_next), original, noise_level, noise)

        return self._end_step(SCMSchedulerOutput, return_dict, prev_sample, original)
