"""DDIM steps of many timesteps at once, for parallel sampling (ParaDiGMS, arXiv 2305.16317)."""

from typing import Any

from ..core.errors import ConfigError
from .arrays import Array, cast, on_host, per_sample
from .scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput, transfer_levels

DDIMParallelSchedulerOutput = DDIMSchedulerOutput


class DDIMParallelScheduler(DDIMScheduler):
    """`DDIMScheduler` with `batch_step_no_noise`; arguments as there."""

    _is_ode_scheduler = True

    def batch_step_no_noise(
        self, model_output: Array, timesteps: Any, sample: Array, eta: float = 0.0, use_clipped_model_output: bool = False
    ) -> Array:
        """The next samples, each a stride of `num_train_timesteps // num_inference_steps` below its own timestep.

        Those beyond timestep 0 are clean whatever `set_alpha_to_one` is.

        Args:
            model_output: the model's predictions, shape of `sample`.
            timesteps: integers, one a sample.
            sample: the current samples, shape (batch, ...).
            eta: 0, these steps are deterministic.
            use_clipped_model_output: recompute the noise from the clipped clean sample.

        Returns:
            The next samples, in float32 if the samples are of half precision.

        Raises:
            ConfigError: `eta` is not 0, or unknown `prediction_type`.
            ValueError: no `set_timesteps` before, or neither one timestep nor one a sample.
        """
        self._require_timesteps()
        if eta != 0:
            raise ConfigError(f"eta is {eta}; `batch_step_no_noise` takes deterministic steps, of eta=0, only")
        timesteps = on_host(timesteps).reshape(-1)
        prev_timesteps = timesteps - len(self) // self.num_inference_steps
        levels = transfer_levels(self._alphas_cumprod(timesteps), self._alphas_cumprod(prev_timesteps))
        model_output, sample = cast(model_output, "float32"), cast(sample, "float32")
        levels = [per_sample(level, sample) for level in levels]
        return self._transfer(model_output, sample, levels, use_clipped_model_output)[0]
