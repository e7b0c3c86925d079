"""Euler's method on MiniMax-H3's flow, in which time runs from 0, noise, to 1, clean."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.dtypes import to_numpy_dtype
from ..core.errors import ConfigError
from .arrays import Array, cast, on_host, per_sample, weighted_sum
from .flows import FlowScheduler
from .scheduling_utils import SchedulerOutput
from .tables import linspace_float32, shift_flow

MiniMaxH3SchedulerOutput = SchedulerOutput


class MiniMaxH3Scheduler(FlowScheduler):
    """Euler steps for a model of the velocity towards data, x_0 - noise, whose timesteps are 1 - sigma.

    `scale_noise` takes timesteps from 0 to 1, in the schedule or not.

    Args:
        shift: moves all noise levels towards noise (arXiv 2403.03206, section 5.3.2); 12 for video, 3 for audio.

    Raises:
        ConfigError: `shift` is not positive.
    """

    @register_to_config
    def __init__(self, shift: float = 12.0):
        self.set_shift(shift)

    @property
    def shift(self) -> float:
        """The factor that `set_timesteps` shifts noise levels by."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Shift by this factor from the next `set_timesteps` on; the config keeps its own.

        Raises:
            ConfigError: it is not positive.
        """
        if shift <= 0:
            raise ConfigError(f"shift is {shift}; expected a positive number")
        self._shift = float(shift)

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many sigmas from 1 to 0, the finished sample's included: the model is called once less. Shifted ones
                that are equal in float32 count once.
            device: ignored, timesteps stay on the host.
            sigmas: exactly these instead, falling to 0.

        Raises:
            ConfigError: neither `sigmas` nor at least 2 steps; `sigmas` do not fall, or not to 0.
        """
        if sigmas is not None:
            sigmas = on_host(sigmas).astype(np.float32).reshape(-1)
            if len(sigmas) < 2 or (np.diff(sigmas) >= 0).any() or sigmas[-1] != 0:
                raise ConfigError(f"`sigmas` is {sigmas}; expected at least two numbers, each less than the one before, the last 0")
        elif num_inference_steps is None or num_inference_steps < 2:
            raise ConfigError(f"num_inference_steps is {num_inference_steps}; expected at least 2, or `sigmas`")
        else:
            sigmas = shift_flow(linspace_float32(1, 0, int(num_inference_steps)), self._shift)
            sigmas = sigmas[np.append(True, np.diff(sigmas) != 0)]
        self.sigmas, self.timesteps = sigmas, 1 - sigmas[:-1]
        self.num_inference_steps = len(self.timesteps)
        self._restart()

    def _noise_levels(self, timestep: Any, sample: Array) -> np.ndarray:
        """1 - timestep, one or one a sample, rounded to the sample's dtype as the reference does."""
        dtype = sample.dtype if isinstance(sample, np.ndarray) else to_numpy_dtype(sample.dtype)
        return 1 - on_host(timestep).reshape(-1).astype(dtype)

    def step(
        self, model_output: Array, timestep: float, sample: Array, return_dict: bool = True
    ) -> MiniMaxH3SchedulerOutput | tuple[Array]:
        """One step towards the clean sample: the clean sample in its own dtype, then the step in float32.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...); its dtype is the result's.
            return_dict: return a `MiniMaxH3SchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep, or `set_timesteps` has not been called.
            TimestepError: `timestep` is not in the schedule.
        """
        index = self._begin_step(timestep)
        original = weighted_sum(1, sample, per_sample(self._noise_levels(timestep, sample), sample), model_output)
        ratio = float(self.sigmas[index + 1]) / float(self.sigmas[index])
        prev_sample = weighted_sum(ratio, cast(sample, "float32"), 1 - ratio, cast(original, "float32"))
        prev_sample = cast(prev_sample, sample.dtype)
        return self._end_step(MiniMaxH3SchedulerOutput, return_dict, prev_sample)
