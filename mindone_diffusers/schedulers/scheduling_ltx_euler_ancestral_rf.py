"""Ancestral Euler sampling of rectified flows (ComfyUI's `sample_euler_ancestral_RF`, used for LTX-Video, arXiv 2501.00103)."""

from typing import Any

import numpy as np

from ..core import logging
from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, cast, on_host, randn_like, weighted_sum
from .flows import FlowScheduler
from .scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from .scheduling_utils import SchedulerOutput

logger = logging.get_logger(__name__)


LTXEulerAncestralRFSchedulerOutput = SchedulerOutput


class LTXEulerAncestralRFScheduler(FlowScheduler):
    """Euler steps to below the next noise level, then fresh noise up to it, keeping clean sample and noise in the flow's proportion.

    Args:
        num_train_timesteps: timesteps are this many times the sigmas.
        eta: how far below the next noise level a step goes, 0 (deterministic) to 1.
        s_noise: standard deviation of the fresh noise.
    """

    _compatibles = ["FlowMatchEulerDiscreteScheduler"]

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, eta: float = 1.0, s_noise: float = 1.0):
        pass

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: list[float] | None = None,
        timesteps: list[float] | None = None, mu: float | None = None,
    ) -> None:  # fmt: skip
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many, of `FlowMatchEulerDiscreteScheduler`'s, which reads its own entries of this config.
            device: ignored, timesteps stay on the host.
            sigmas: exactly these, the finished sample's (0) included; it also ends `timesteps`.
            timesteps: another name of `sigmas`.
            mu: how much to shift, if the config has `use_dynamic_shifting`.

        Raises:
            ConfigError: none given; `sigmas` are not a list of numbers; `use_dynamic_shifting` without `mu`.
        """
        sigmas = timesteps if sigmas is None else sigmas
        if sigmas is None:
            if num_inference_steps is None:
                raise ConfigError("pass num_inference_steps, sigmas or timesteps to `set_timesteps`")
            flow = FlowMatchEulerDiscreteScheduler.from_config({**self.config, "_class_name": type(self).__name__})
            flow.set_timesteps(num_inference_steps, mu=mu)
            self.sigmas, self.timesteps = flow.sigmas, flow.timesteps
        else:
            self.sigmas = on_host(sigmas).astype(np.float32)
            if self.sigmas.ndim != 1:
                raise ConfigError(f"`sigmas` has shape {self.sigmas.shape}; expected a list of numbers")
            if abs(self.sigmas[-1]) > 1e-6:
                logger.warning("the last of `sigmas` is %.6f; it should be 0, the finished sample's", self.sigmas[-1])
            if num_inference_steps not in (None, len(self.sigmas) - 1):
                logger.warning("num_inference_steps=%d is ignored: `sigmas` make %d steps", num_inference_steps, len(self.sigmas) - 1)
            self.timesteps = self.sigmas * self.config.num_train_timesteps
        self.num_inference_steps = len(self.sigmas) - 1
        self._restart()

    def step(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> LTXEulerAncestralRFSchedulerOutput | tuple[Array]:
        """One step towards the clean sample, in float32. At the last sigma, the sample is finished and stays as it is.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...); its dtype is the result's.
            generator: draws the noise.
            return_dict: return an `LTXEulerAncestralRFSchedulerOutput`, else a tuple.

        Raises:
            ValueError: an integer timestep, or `set_timesteps` has not been called.
            TimestepError: `timestep` is not in the schedule.
        """
        index, last = self._begin_step(timestep), len(self.sigmas) - 1
        prev_sample = sample if index >= last else self._next_sample(model_output, sample, index, generator)
        self._step_index = min(index, last - 1)
        return self._end_step(LTXEulerAncestralRFSchedulerOutput, return_dict, prev_sample)

    def _next_sample(self, model_output: Array, sample: Array, index: int, generator: Any) -> Array:
        eta, s_noise = self.config.eta, self.config.s_noise
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        sigma_down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
        if abs(sigma_next) < 1e-8:
            sigma_down = 0.0
        result = weighted_sum(1, cast(sample, "float32"), sigma_down - sigma, cast(model_output, "float32"))
        if sigma_down and eta > 0 and s_noise > 0:
            signal = (1 - sigma_next) / (1 - sigma_down + 1e-12)
            renoise = max(sigma_next**2 - (sigma_down * signal) ** 2, 0.0) ** 0.5
            result = weighted_sum(signal, result, renoise * s_noise, randn_like(result, generator))
        return cast(result, sample.dtype)
