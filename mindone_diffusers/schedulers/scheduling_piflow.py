"""Few-step sampling with a policy: one model call predicts the velocities of many small steps (pi-Flow, arXiv 2510.14974)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, cast
from .flows import FlowScheduler
from .scheduling_utils import SchedulerOutput
from .tables import shift_flow

PiflowSchedulerOutput = SchedulerOutput


class PiflowScheduler(FlowScheduler):
    """Long steps, each of many Euler steps towards clean samples interpolated between those the model predicts (the "DX" policy).

    These are linear in the model's output, so that a step is the sample less a weighted sum of the predictions, with weights from the
    host.

    Args:
        num_train_timesteps: timesteps are this many times the sigmas.
        shift: moves all noise levels towards noise (arXiv 2403.03206, section 5.3.2).
        n_grid: how many predictions the model makes, at times evenly spaced from the step's end to its start.
        eps: the time at which the last step ends, and the smallest noise level that is divided by.
        final_step_size_scale: length of the last step over that of the others, in unshifted time.
        num_policy_substeps: Euler steps in a unit of unshifted time.

    Raises:
        ConfigError: `n_grid` < 2, `eps` <= 0, `final_step_size_scale` not in (0, 1], or `num_policy_substeps` < 1.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, shift: float = 5.0, n_grid: int = 10, eps: float = 1e-6, final_step_size_scale: float = 0.5,
        num_policy_substeps: int = 128,
    ):  # fmt: skip
        if n_grid < 2:
            raise ConfigError(f"n_grid is {n_grid}; expected at least 2")
        if eps <= 0:
            raise ConfigError(f"eps is {eps}; expected a positive number")
        if not 0 < final_step_size_scale <= 1:
            raise ConfigError(f"final_step_size_scale is {final_step_size_scale}; expected a number over 0, up to 1")
        if num_policy_substeps < 1:
            raise ConfigError(f"num_policy_substeps is {num_policy_substeps}; expected at least 1")
        self.timesteps = self.sigmas = np.zeros(0, np.float32)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: None = None, mu: None = None, timesteps: None = None
    ) -> None:
        """Choose timesteps and sigmas, as the model was distilled for.

        Args:
            num_inference_steps: how many calls of the model.
            device: ignored, timesteps stay on the host.
            sigmas: refused, as are `mu` and `timesteps`.
            mu: refused.
            timesteps: refused.

        Raises:
            ConfigError: anything but a positive `num_inference_steps`.
        """
        if sigmas is not None or mu is not None or timesteps is not None:
            raise ConfigError("sigmas, mu and timesteps cannot be given: the model is distilled for the config's; pass num_inference_steps")
        if num_inference_steps is None or num_inference_steps < 1:
            raise ConfigError(f"num_inference_steps is {num_inference_steps}; expected at least 1")
        self.num_inference_steps = int(num_inference_steps)
        length = 1 / (self.num_inference_steps - 1 + self.config.final_step_size_scale)
        self._times = 1 - np.arange(self.num_inference_steps, dtype=np.float32) * length  # before shifting
        sigmas = shift_flow(self._times, self.config.shift)
        self.timesteps, self.sigmas = sigmas * self.config.num_train_timesteps, np.append(sigmas, np.float32(0))
        self._restart()

    def _weights(self, index: int) -> np.ndarray:
        """What a step takes of each velocity, n_grid numbers: the small steps done with coefficients in place of samples.

        Times are float32, as in PyTorch diffusers: their rounding is as large as `eps`.
        """
        config = self.config
        start, end = np.append(self._times, np.float32(config.eps))[index : index + 2]
        count = max(int(np.round((start - end) * np.float32(config.num_policy_substeps))), 1)
        times = np.cumsum(np.append(start, np.repeat((end - start) / np.float32(count), count)), dtype=np.float32).clip(0)
        sigmas = shift_flow(times, config.shift).astype(np.float64)
        places = ((times - end) / max(start - end, config.eps)).clip(0, 1) * (config.n_grid - 1)
        grid, weights = np.arange(config.n_grid), np.zeros(config.n_grid)
        for place, sigma, sigma_next in zip(places, sigmas, sigmas[1:]):
            clean = sigmas[0] * (1 - abs(grid - place)).clip(0)  # the interpolated clean sample is the first less these
            weights += (sigma_next - sigma) / max(sigma, config.eps) * (weights - clean)
        return weights

    def step(self, model_output: Array, timestep: float, sample: Array, return_dict: bool = True) -> PiflowSchedulerOutput | tuple[Array]:
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's `n_grid` predictions, one after the other in the last axis, which is that many times the sample's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ..., channels); its dtype is the result's.
            return_dict: return a `PiflowSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep, or shapes that do not fit.
            TimestepError: `timestep` is not in the schedule.
            RuntimeError: the steps are all done.
        """
        index, channels = self._begin_step(timestep), sample.shape[-1]
        if index >= self.num_inference_steps:
            raise RuntimeError(f"all {self.num_inference_steps} steps are done: call `set_timesteps` to start again")
        expected = (*sample.shape[:-1], self.config.n_grid * channels)
        if tuple(model_output.shape) != expected:
            raise ValueError(
                f"model_output has shape {tuple(model_output.shape)}; expected {expected}, {self.config.n_grid} predictions side by side"
            )
        prev_sample, predictions = cast(sample, "float32"), cast(model_output, "float32")
        for place, weight in enumerate(self._weights(index).tolist()):
            prev_sample = prev_sample - weight * predictions[..., place * channels : (place + 1) * channels]
        prev_sample = cast(prev_sample, sample.dtype)
        return self._end_step(PiflowSchedulerOutput, return_dict, prev_sample)
