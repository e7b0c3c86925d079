"""Improved pseudo numerical methods: multistep steps of fourth order from the first call on (crowsonkb/v-diffusion-pytorch)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, cast, weighted_sum
from .cores import StepIndexMixin, adams_bashforth, predict_original
from .scheduling_utils import SchedulerMixin, SchedulerOutput, UnscaledInputMixin
from .tables import linspace_float32


class IPNDMScheduler(UnscaledInputMixin, StepIndexMixin, SchedulerMixin):
    """Linear multistep steps on the circle x = alpha x_0 + beta noise, for models of the velocity; orders 1 to 3 for the first ones.

    Args:
        num_train_timesteps: number of steps before `set_timesteps`.
        trained_betas: noise levels, one more than there are steps; a squared sine from 1 to 0 by default.
    """

    init_noise_sigma = 1.0
    pndm_order = 4

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, trained_betas: np.ndarray | list[float] | None = None):
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.
        """
        self.num_inference_steps = num_inference_steps
        # Near pure noise alpha is the root of a difference of almost equal numbers: float32 where PyTorch diffusers has it.
        angles = linspace_float32(1, 0, num_inference_steps + 1) * np.float32(np.pi) / np.float32(2)
        betas = self.config.trained_betas
        self.betas = np.sin(angles, dtype=np.float64).astype(np.float32) ** 2 if betas is None else np.asarray(betas, dtype=np.float32)
        self.alphas = np.sqrt(1 - self.betas**2)
        self.timesteps = (np.arctan2(self.betas, self.alphas) / np.float32(np.pi) * 2)[:-1]
        self.ets = []
        self._restart()

    def step(self, model_output: Array, timestep: float, sample: Array, return_dict: bool = True) -> SchedulerOutput | tuple[Array]:
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            TimestepError: `timestep` is not in the schedule.
        """
        index = self._find_step(timestep)
        (alpha, alpha_next), (beta, beta_next) = (table[index : index + 2].tolist() for table in (self.alphas, self.betas))
        start = cast(sample, "float32")
        self.ets = [*self.ets[-3:], weighted_sum(beta, start, alpha, cast(model_output, "float32"))]
        noise = adams_bashforth(self.ets[::-1])
        original = predict_original("epsilon", noise, start, max(alpha, 1e-8), beta)
        prev_sample = cast(weighted_sum(alpha_next, original, beta_next, noise), sample.dtype)

        return self._end_step(SchedulerOutput, return_dict, prev_sample)
