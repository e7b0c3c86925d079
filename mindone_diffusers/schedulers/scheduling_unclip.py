"""DDPM as unCLIP and its successors use it (arXiv 2204.06125)."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array
from .cores import clip
from .scheduling_ddpm import DDPMScheduler
from .scheduling_utils import DenoisedSchedulerOutput, as_output
from .tables import betas_for_alpha_bar, expect

UnCLIPSchedulerOutput = DenoisedSchedulerOutput


class UnCLIPScheduler(DDPMScheduler):
    """DDPM on the cosine schedule, with timesteps that start at the last of training, and steps to a timestep that the caller names.

    Args:
        num_train_timesteps: length of the training schedule.
        variance_type: of the noise that is added; "fixed_small_log" or "learned_range", see `DDPMScheduler`.
        clip_sample: clip the predicted clean sample to +-`clip_sample_range`.
        clip_sample_range: see `clip_sample`.
        prediction_type: "epsilon" or "sample".
        beta_schedule: "squaredcos_cap_v2".

    Raises:
        ConfigError: another `variance_type` or `beta_schedule`.
    """

    _compatibles = []
    _limit = staticmethod(clip)

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, variance_type: Literal["fixed_small_log", "learned_range"] = "fixed_small_log",
        clip_sample: bool = True, clip_sample_range: float = 1.0, prediction_type: Literal["epsilon", "sample"] = "epsilon",
        beta_schedule: Literal["squaredcos_cap_v2"] = "squaredcos_cap_v2",
    ):  # fmt: skip
        expect("beta_schedule", beta_schedule, ("squaredcos_cap_v2",))
        expect("variance_type", variance_type, ("fixed_small_log", "learned_range"))
        self.variance_type = variance_type
        self._set_betas(betas_for_alpha_bar(num_train_timesteps))

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps, evenly from the last of training to 0.

        Args:
            num_inference_steps: how many, at least 2.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: fewer than 2 steps.
        """
        if num_inference_steps < 2:
            raise ConfigError(f"num_inference_steps is {num_inference_steps}; expected at least 2, the first and the last timestep")
        self.num_inference_steps = num_inference_steps
        stride = (len(self) - 1) / (num_inference_steps - 1)
        self.timesteps = (np.arange(num_inference_steps) * stride).round()[::-1].astype(np.int64)

    def step(
        self, model_output: Array, timestep: int, sample: Array, prev_timestep: int | None = None,
        generator: Any = None, return_dict: bool = True,
    ) -> UnCLIPSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """One step towards the clean sample, and noise unless the timestep is 0.

        Args:
            model_output: the model's prediction, shape of `sample`, or twice its channels if the variance is learned.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, channels, ...).
            prev_timestep: the next one of `timesteps`; one less than `timestep` by default.
            generator: draws the noise.
            return_dict: return a `UnCLIPSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: unknown `prediction_type`, or a learned variance that the model output does not hold.
        """
        expect("prediction_type", self.config.prediction_type, ("epsilon", "sample"))
        timestep = int(timestep)
        prev_timestep = timestep - 1 if prev_timestep is None else int(prev_timestep)
        prev_sample, original = self._sample_posterior(model_output, timestep, prev_timestep, sample, generator)
        return as_output(UnCLIPSchedulerOutput, return_dict, prev_sample, original)

    def _beta(self, timestep: int, prev_timestep: int) -> float:
        """The beta of the whole step: the schedule's own between neighbours, else rounded to float32, so that it can be 1 as PyTorch's."""
        beta = self.betas[timestep] if prev_timestep == timestep - 1 else np.float32(super()._beta(timestep, prev_timestep))
        return float(beta)
