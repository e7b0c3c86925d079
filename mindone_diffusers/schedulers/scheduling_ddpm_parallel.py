"""DDPM steps of many timesteps at once, for parallel sampling (ParaDiGMS, arXiv 2305.16317)."""

from typing import Any

import numpy as np

from .arrays import Array, cast, on_host, per_sample
from .scheduling_ddpm import DDPMScheduler, DDPMSchedulerOutput, posterior_levels

DDPMParallelSchedulerOutput = DDPMSchedulerOutput


class DDPMParallelScheduler(DDPMScheduler):
    """`DDPMScheduler` with `batch_step_no_noise`; arguments as there."""

    _is_ode_scheduler = False

    def batch_step_no_noise(self, model_output: Array, timesteps: Any, sample: Array) -> Array:
        """The means of the next samples, each a stride of `num_train_timesteps // num_inference_steps` below its own timestep.

        Args:
            model_output: the model's predictions, shape of `sample`, or twice its channels if the variance is learned.
            timesteps: integers, one a sample.
            sample: the current samples, shape (batch, channels, ...).

        Returns:
            The next samples without noise, in float32 if the samples are of half precision.

        Raises:
            ConfigError: unknown `prediction_type`.
            ValueError: neither one timestep nor one a sample.
        """
        timesteps = on_host(timesteps).reshape(-1)
        prev_timesteps = timesteps - len(self) // (self.num_inference_steps or len(self))
        model_output, _ = self._split(cast(model_output, "float32"), sample)
        alpha, alpha_prev = self._alphas_cumprod(timesteps), self._alphas_cumprod(prev_timesteps)
        beta = 1 - (alpha.astype(np.float32) / alpha_prev.astype(np.float32)).astype(np.float64)
        sample = cast(sample, "float32")
        levels = [per_sample(level, sample) for level in posterior_levels(alpha, alpha_prev, beta)]
        return self._posterior_mean(model_output, sample, levels)[0]
