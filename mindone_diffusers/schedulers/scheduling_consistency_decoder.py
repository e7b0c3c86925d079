"""Two-step sampling of the consistency decoder of DALL-E 3's latents (openai/consistencydecoder; arXiv 2303.01469)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, randn_like, weighted_sum
from .cores import edm_scalings, find_timestep
from .scheduling_utils import SchedulerMixin, SchedulerOutput, as_output
from .tables import betas_for_alpha_bar, cumulative_product

ConsistencyDecoderSchedulerOutput = SchedulerOutput


class ConsistencyDecoderScheduler(SchedulerMixin):
    """Two steps, at timesteps 1008 and 512 of a cosine schedule: the clean sample is predicted, noised again, and predicted again.

    Args:
        num_train_timesteps: length of the training schedule, 1009 or more.
        sigma_data: standard deviation of the data.
    """

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1024, sigma_data: float = 0.5):
        alphas_cumprod = cumulative_product(1 - betas_for_alpha_bar(num_train_timesteps))
        self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod = np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)
        sigmas, scale = np.sqrt(1 / alphas_cumprod - 1), np.sqrt(1 / alphas_cumprod)
        c_skip, self.c_out = edm_scalings(sigmas, sigma_data)
        self.c_skip, self.c_in = scale * c_skip, scale / (sigmas**2 + sigma_data**2) ** 0.5
        self.set_timesteps(2)

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """The two timesteps there are; they are set from the start.

        Args:
            num_inference_steps: 2.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: not 2 steps.
        """
        if num_inference_steps != 2:
            raise ConfigError(f"num_inference_steps is {num_inference_steps}; this scheduler has 2 steps")
        self.timesteps = np.array([1008, 512])

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the initial noise."""
        return float(self.sqrt_one_minus_alphas_cumprod[self.timesteps[0]])

    def scale_model_input(self, sample: Array, timestep: int) -> Array:
        """The sample as the model takes it: c_in times it.

        Args:
            sample: shape (batch, ...).
            timestep: one of the training timesteps.
        """
        return weighted_sum(float(self.c_in[int(timestep)]), sample)

    def step(
        self, model_output: Array, timestep: int, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> ConsistencyDecoderSchedulerOutput | tuple[Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: 1008 or 512.
            sample: the current sample, shape (batch, ...).
            generator: draws the first step's noise.
            return_dict: return a `ConsistencyDecoderSchedulerOutput`, else a tuple.

        Raises:
            TimestepError: another timestep.
        """
        timestep = int(timestep)
        index = find_timestep(self.timesteps, timestep)[0]
        prev_sample = weighted_sum(float(self.c_out[timestep]), model_output, float(self.c_skip[timestep]), sample)
        if index + 1 < len(self.timesteps):
            following = self.timesteps[index + 1]
            signal, noise_level = float(self.sqrt_alphas_cumprod[following]), float(self.sqrt_one_minus_alphas_cumprod[following])
            prev_sample = weighted_sum(signal, prev_sample, noise_level, randn_like(prev_sample, generator))
        return as_output(ConsistencyDecoderSchedulerOutput, return_dict, prev_sample)
