"""Multistep sampling of consistency models (arXiv 2303.01469, algorithm 1)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, clamp, randn_like, weighted_sum
from .cores import SigmaScheduler, check_steps, checked_timesteps, edm_scalings
from .scheduling_utils import SchedulerOutput
from .tables import karras_sigmas_at

CMStochasticIterativeSchedulerOutput = SchedulerOutput


class CMStochasticIterativeScheduler(SigmaScheduler):
    """Steps that predict the clean sample and noise it again, to the next noise level.

    Args:
        num_train_timesteps: length of the training schedule.
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        sigma_data: standard deviation of the data.
        s_noise: standard deviation of the noise that is added.
        rho: exponent of the sigmas (arXiv 2206.00364, equation 5).
        clip_denoised: clip predicted clean samples to [-1, 1].
    """

    _compatibles = []

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 40, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5,
        s_noise: float = 1.0, rho: float = 7.0, clip_denoised: bool = True,
    ):  # fmt: skip
        self.sigmas = karras_sigmas_at(np.linspace(0, 1, num_train_timesteps), sigma_max, sigma_min, rho)
        self.timesteps = self.sigma_to_t(self.sigmas)
        self.custom_timesteps = False

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the initial noise."""
        return self.config.sigma_max

    def scale_model_input(self, sample: Array, timestep: Any) -> Array:
        """The sample divided by sqrt(sigma^2 + sigma_data^2), as the model takes it.

        Args:
            sample: shape (batch, ...).
            timestep: the current one of `timesteps`; looked at before the first step only.
        """
        self.is_scale_input_called = True
        self._find_step(timestep)
        return weighted_sum(1, sample, over=(self._model_sigma() ** 2 + self.config.sigma_data**2) ** 0.5)

    def sigma_to_t(self, sigmas: float | np.ndarray) -> np.ndarray:
        """The timesteps of noise levels: 250 log(sigma)."""
        return 250 * np.log(np.asarray(sigmas) + 1e-44)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, timesteps: list[int] | np.ndarray | None = None
    ) -> None:
        """Choose timesteps and sigmas: give `num_inference_steps` or `timesteps`.

        Args:
            num_inference_steps: how many, evenly spaced in the training schedule.
            device: ignored, timesteps stay on the host.
            timesteps: places in the training schedule, descending.

        Raises:
            ConfigError: not exactly one given; too many steps; timesteps not descending from below `num_train_timesteps`.
        """
        self._check_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        length = len(self)
        self.custom_timesteps = timesteps is not None
        if timesteps is not None:
            places = checked_timesteps(timesteps, length)
        else:
            check_steps(num_inference_steps, length)
            self.num_inference_steps = num_inference_steps
            places = np.arange(num_inference_steps)[::-1] * (length // num_inference_steps)
        config = self.config
        # Places are counted from the clean end, and the sigmas at the same distance from the noisy end are taken: as in PyTorch diffusers.
        sigmas = karras_sigmas_at(places[::-1] / (length - 1), config.sigma_max, config.sigma_min, config.rho)
        self.timesteps = self.sigma_to_t(sigmas)
        self.sigmas = np.append(sigmas, config.sigma_min).astype(np.float32)
        self._restart()

    def get_scalings(self, sigma: float) -> tuple[float, float]:
        """c_skip and c_out: what the sample and the model's output are multiplied by (arXiv 2206.00364, table 1)."""
        return edm_scalings(sigma, self.config.sigma_data)

    def get_scalings_for_boundary_condition(self, sigma: float) -> tuple[float, float]:
        """c_skip and c_out, changed so that at `sigma_min` the sample is its own prediction (arXiv 2303.01469, appendix C)."""
        above, sigma_data = sigma - self.config.sigma_min, self.config.sigma_data
        return sigma_data**2 / (above**2 + sigma_data**2), above * sigma_data / (sigma**2 + sigma_data**2) ** 0.5

    def step(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> CMStochasticIterativeSchedulerOutput | tuple[Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise.
            return_dict: return a `CMStochasticIterativeSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep.
            TimestepError: `timestep` is not in the schedule.
        """
        self._refuse_integer(timestep)
        config, index = self.config, self._begin_step(timestep)
        c_skip, c_out = self.get_scalings_for_boundary_condition(float(self.sigmas[index]))
        prev_sample = weighted_sum(c_out, model_output, c_skip, sample)
        if config.clip_denoised:
            prev_sample = clamp(prev_sample, -1.0, 1.0)
        if len(self.timesteps) > 1:
            sigma_next = min(max(float(self.sigmas[min(index + 1, len(self.sigmas) - 1)]), config.sigma_min), config.sigma_max)
            noise_level = (sigma_next**2 - config.sigma_min**2) ** 0.5
            prev_sample = weighted_sum(1, prev_sample, config.s_noise * noise_level, randn_like(model_output, generator))

        return self._end_step(CMStochasticIterativeSchedulerOutput, return_dict, prev_sample)
