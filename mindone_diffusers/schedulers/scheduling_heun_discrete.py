"""Heun's method on the probability-flow ODE (arXiv 2206.00364, algorithm 1)."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array
from .cores import HeunMixin, SigmaScheduler, clip
from .scheduling_utils import DenoisedSchedulerOutput

HeunDiscreteSchedulerOutput = DenoisedSchedulerOutput


class HeunDiscreteScheduler(HeunMixin, SigmaScheduler):
    """Second-order steps of two model calls: an Euler step, then its correction by the mean of the derivatives at both ends.

    Every timestep but the first is there twice; the last step is Euler's.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2" or "exp".
        trained_betas: betas that replace the schedule.
        prediction_type: "epsilon", "sample" or "v_prediction".
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        clip_sample: clip the predicted clean sample to +-`clip_sample_range`.
        clip_sample_range: see `clip_sample`.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.

    Raises:
        ConfigError: more than one of the `use_..._sigmas`.
    """

    _beta_schedules = ("linear", "scaled_linear", "squaredcos_cap_v2", "exp")

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, prediction_type: str = "epsilon",
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        clip_sample: bool = False, clip_sample_range: float = 1.0,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace", steps_offset: int = 0,
    ):  # fmt: skip
        self._check_sigma_options()
        self._set_betas()
        self.set_timesteps(num_train_timesteps, None, num_train_timesteps)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, num_train_timesteps: int | None = None,
        timesteps: list[int] | None = None,
    ) -> None:  # fmt: skip
        """Choose timesteps and sigmas: give `num_inference_steps` or `timesteps`.

        Args:
            num_inference_steps: how many steps; the model is called twice in each but the last.
            device: ignored, timesteps stay on the host.
            num_train_timesteps: length of the training schedule to spread them over; the config's by default.
            timesteps: these.

        Raises:
            ConfigError: not exactly one given; `timesteps` with an option that chooses them; an unknown name in the config.
        """
        self._check_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        self.num_inference_steps = len(timesteps) if num_inference_steps is None else num_inference_steps
        if timesteps is None:
            timesteps = self._timestep_grid(num_inference_steps, num_train_timesteps)
        self._set_sigmas(np.asarray(timesteps, dtype=np.float32))
        self.sigmas = np.concatenate([self.sigmas[:1], self.sigmas[1:-1].repeat(2), self.sigmas[-1:]])
        self.timesteps = np.concatenate([self.timesteps[:1], self.timesteps[1:].repeat(2)])
        self._forget_stage()

    def step(
        self, model_output: Array, timestep: float, sample: Array, return_dict: bool = True
    ) -> HeunDiscreteSchedulerOutput | tuple[Array, Array]:
        """One stage of a step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `HeunDiscreteSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: unknown `prediction_type`.
            IndexError: `timestep` is not in the schedule.
        """
        index = self._begin_step(timestep)
        sigma = float(self.sigmas[index])  # of this model call: the end of the step in its second stage
        original = clip(self._predict_original(model_output, sample, sigma), self.config)
        derivative = self._derivative(model_output, sample, original, sigma)
        prev_sample = self._heun(sample, derivative, float(self.sigmas[index + 1]) - sigma)
        return self._end_step(HeunDiscreteSchedulerOutput, return_dict, prev_sample, original)
