"""Steps of a flow map, a model that is distilled to go from any timestep to any other (AnyFlow, arXiv 2605.13724)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, cast, on_host, per_sample, weighted_sum
from .flows import FlowScheduler
from .scheduling_utils import SchedulerOutput, UnscaledInputMixin
from .tables import shift_flow

FlowMapEulerDiscreteSchedulerOutput = SchedulerOutput


class FlowMapEulerDiscreteScheduler(UnscaledInputMixin, FlowScheduler):
    """Steps along the mean velocity a model predicts between two timesteps, on the schedule or off it. Tables are float64.

    `scale_noise` takes any timesteps, too: its sigma is timestep / num_train_timesteps.

    Args:
        num_train_timesteps: length of the training schedule.
        shift: moves all noise levels towards noise (arXiv 2403.03206, section 5.3.2).
    """

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, shift: float = 1.0):
        self.set_timesteps(num_train_timesteps)

    def _noise_levels(self, timestep: Any, sample: Array) -> np.ndarray:
        """timestep / num_train_timesteps, on the schedule or not."""
        return on_host(timestep).reshape(-1) / self.config.num_train_timesteps

    def apply_shift(self, sigmas: np.ndarray) -> np.ndarray:
        """Noise levels moved towards noise by the config's `shift`."""
        return shift_flow(sigmas, self.config.shift)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: list[float] | None = None,
        timesteps: list[float] | None = None,
    ) -> None:  # fmt: skip
        """Choose timesteps and sigmas: give one or more of `num_inference_steps`, `sigmas` and `timesteps`, of one length.

        Args:
            num_inference_steps: how many, evenly spaced from 1 to 0 before shifting.
            device: ignored, timesteps stay on the host.
            sigmas: these before shifting, without the finished sample's.
            timesteps: these before shifting, if `sigmas` is not given.

        Raises:
            ConfigError: none given, or of different lengths.
        """
        self.num_inference_steps = self._count_steps(num_inference_steps, sigmas=sigmas, timesteps=timesteps)
        if sigmas is not None:
            sigmas = np.asarray(sigmas, dtype=np.float64)
        elif timesteps is not None:
            sigmas = np.asarray(timesteps, dtype=np.float64) / self.config.num_train_timesteps
        else:
            sigmas = np.linspace(1, 0, self.num_inference_steps + 1)[:-1]
        self.sigmas = np.append(self.apply_shift(sigmas), 0.0)
        self.timesteps = self.sigmas[:-1] * self.config.num_train_timesteps
        self._restart()

    def index_for_timestep(self, timestep: Any) -> int | None:
        """Where a timestep is in the schedule, to 1e-3, or None if it is not there."""
        distances = abs(self.timesteps.astype(np.float32) - float(on_host(timestep).reshape(-1)[0]))
        nearest = int(distances.argmin())
        return nearest if distances[nearest] <= 1e-3 else None

    def _sigma_at(self, timestep: float, later: int = 0) -> float:
        """The noise level at a timestep, or some steps later."""
        index = self.index_for_timestep(timestep)
        if index is not None:
            return float(self.sigmas[index + later])
        if later:
            raise ConfigError(f"timestep {timestep} is not in the schedule {self.timesteps}: pass `r_timestep`, which it is to go to")
        return float(timestep) / self.config.num_train_timesteps

    def step(
        self, model_output: Array, timestep: Any, sample: Array, r_timestep: Any = None, return_dict: bool = True
    ) -> FlowMapEulerDiscreteSchedulerOutput | tuple[Array]:
        """One step from `timestep` to `r_timestep`, in float32. Nothing is remembered: the same arguments give the same result.

        Args:
            model_output: the model's prediction, shape of `sample`; its dtype is the result's.
            timestep: where the sample is, one for all or one a sample, each looked up by itself (PyTorch diffusers looks up the first).
            sample: the current sample, shape (batch, ...).
            r_timestep: where it is to go, likewise; the next of the schedule by default.
            return_dict: return a `FlowMapEulerDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: no `r_timestep`, and `timestep` is not in the schedule.
        """
        timesteps = on_host(timestep).reshape(-1)
        if self._step_index is None:
            self._step_index = (self.index_for_timestep(timesteps) or 0) if self._begin_index is None else self._begin_index
        sigma = np.array([self._sigma_at(t) for t in timesteps])
        if r_timestep is None:
            sigma_next = np.array([self._sigma_at(t, later=1) for t in timesteps])
        else:
            sigma_next = np.array([self._sigma_at(r) for r in on_host(r_timestep).reshape(-1)])
        prev_sample = weighted_sum(1, cast(sample, "float32"), per_sample(sigma_next - sigma, sample), cast(model_output, "float32"))
        prev_sample = cast(prev_sample, model_output.dtype)
        return self._end_step(FlowMapEulerDiscreteSchedulerOutput, return_dict, prev_sample)
