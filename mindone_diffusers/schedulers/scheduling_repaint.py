"""RePaint: inpainting with an unconditional diffusion model (arXiv 2201.09865)."""

from typing import Any, NoReturn

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import UnsupportedError
from .arrays import Array, clamp, randn_like, weighted_sum
from .cores import predict_original
from .scheduling_ddim import DDIMScheduler, transfer_levels
from .scheduling_utils import DenoisedSchedulerOutput, as_output

RePaintSchedulerOutput = DenoisedSchedulerOutput


class RePaintScheduler(DDIMScheduler):
    """DDIM steps of the unknown part joined with the noised known part, and jumps back to more noise that make the two agree.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2" or "sigmoid".
        eta: how much noise is added to the unknown part, from 0 (none, as DDIM) to 1 (as DDPM).
        trained_betas: betas that replace the schedule.
        clip_sample: clip the predicted clean sample to +-1.
    """

    _compatibles = []
    _beta_schedules = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        eta: float = 0.0, trained_betas: np.ndarray | list[float] | None = None, clip_sample: bool = True,
    ):  # fmt: skip
        self._set_betas()
        self.eta = eta

    def set_timesteps(self, num_inference_steps: int, jump_length: int = 10, jump_n_sample: int = 10, device: Any = None) -> None:
        """Choose the timesteps: descending, but each stretch of `jump_length` is gone through `jump_n_sample` times (figure 9).

        Args:
            num_inference_steps: how many noise levels; at most the training schedule's.
            jump_length: the steps of a jump.
            jump_n_sample: how often each stretch is denoised.
            device: ignored, timesteps stay on the host.
        """
        self.num_inference_steps = num_inference_steps = min(len(self), num_inference_steps)
        jumps = dict.fromkeys(range(0, num_inference_steps - jump_length, jump_length), jump_n_sample - 1)
        levels, level = [], num_inference_steps
        while level >= 1:
            level -= 1
            levels.append(level)
            if jumps.get(level, 0) > 0:
                jumps[level] -= 1
                levels.extend(range(level + 1, level + jump_length + 1))
                level += jump_length
        self.timesteps = np.array(levels) * (len(self) // num_inference_steps)

    def step(
        self, model_output: Array, timestep: int, sample: Array, original_image: Array, mask: Array,
        generator: Any = None, return_dict: bool = True,
    ) -> RePaintSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """One step towards the clean sample: algorithm 1, lines 4 to 8, with DDIM's step for line 7; both parts take the same noise.

        Args:
            model_output: the predicted noise, shape of `sample`.
            timestep: the current one of `timesteps`, smaller than the last one.
            sample: the current sample, shape (batch, ...).
            original_image: the clean image, shape of `sample`.
            mask: 1 where `original_image` is known and 0 where it is made up, broadcast to `sample`.
            generator: draws the noise.
            return_dict: return a `RePaintSchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before.
        """
        timestep, prev_timestep = int(timestep), self._next_timestep(timestep)
        alpha, alpha_prev = self._alpha_cumprod(timestep), self._alpha_cumprod(prev_timestep)
        variance = self.eta**2 * self._get_variance(timestep, prev_timestep)
        signal, noise_level, next_signal, direction = transfer_levels(alpha, alpha_prev, variance)
        original = predict_original("epsilon", model_output, sample, signal, noise_level)
        if self.config.clip_sample:
            original = clamp(original, -1.0, 1.0)
        noise = randn_like(model_output, generator)
        spread = variance**0.5 if timestep > 0 and self.eta > 0 else 0.0
        unknown = weighted_sum(next_signal, original, direction, model_output, spread, noise)
        known = weighted_sum(alpha_prev**0.5, original_image, (1 - alpha_prev) ** 0.5, noise)
        prev_sample = mask * known + (1.0 - mask) * unknown
        return as_output(RePaintSchedulerOutput, return_dict, prev_sample, original)

    def undo_step(self, sample: Array, timestep: int, generator: Any = None) -> Array:
        """A sample one step noisier: algorithm 1, line 10, once for each training timestep of the step.

        Args:
            sample: shape (batch, ...).
            timestep: the timestep it is at.
            generator: draws the noise.

        Raises:
            ValueError: no `set_timesteps` before.
        """
        stride = int(timestep) - self._next_timestep(timestep)
        for beta in self.betas[int(timestep) : int(timestep) + stride].tolist():
            sample = weighted_sum((1 - beta) ** 0.5, sample, beta**0.5, randn_like(sample, generator))
        return sample

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> NoReturn:
        """Not here.

        Raises:
            NotImplementedError: always; `DDPMScheduler.add_noise` noises samples for training.
        """
        raise UnsupportedError("RePaintScheduler does not noise training samples: use `DDPMScheduler.add_noise`")
