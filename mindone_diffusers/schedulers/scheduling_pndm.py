"""Pseudo numerical methods for diffusion models (arXiv 2202.09778)."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, weighted_sum
from .cores import DiffusionScheduler, adams_bashforth, predict_noise
from .scheduling_utils import SchedulerOutput, as_output
from .tables import expect


class PNDMScheduler(DiffusionScheduler):
    """PNDM: three pseudo Runge-Kutta steps of four model calls each, then a linear multistep method of fourth order (PLMS).

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        skip_prk_steps: begin with multistep steps of lower order, as Stable Diffusion does.
        set_alpha_to_one: the last step ends at a clean sample, instead of at timestep 0.
        prediction_type: "epsilon" or "v_prediction".
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.
    """

    pndm_order = 4

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, skip_prk_steps: bool = False, set_alpha_to_one: bool = False,
        prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading", steps_offset: int = 0,
    ):  # fmt: skip
        self._set_betas()
        self.timesteps = self.prk_timesteps = self.plms_timesteps = None
        self._forget()

    def _forget(self) -> None:
        self.counter = 0
        self.cur_model_output = None
        self.cur_sample = None
        self.ets = []

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps; the model is called more often than `num_inference_steps`: see `len(timesteps)`.

        Args:
            num_inference_steps: how many steps.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: unknown `timestep_spacing`, or fewer than 4 steps with Runge-Kutta steps.
        """
        config = self.config
        self.num_inference_steps = num_inference_steps
        grid = self._timestep_grid(num_inference_steps).round().astype(np.int64)
        if config.skip_prk_steps:
            self.prk_timesteps = grid[:0]
            self.plms_timesteps = np.concatenate([grid[:1], grid[1:2], grid[1:]])
        else:
            # A Runge-Kutta step visits its start, twice its middle, and its end, which is the start of the next.
            if num_inference_steps < self.pndm_order:
                raise ConfigError(f"num_inference_steps is {num_inference_steps}; Runge-Kutta steps (skip_prk_steps=False) need 4")
            half = config.num_train_timesteps // num_inference_steps // 2
            visited = np.stack([grid[: self.pndm_order] + half, grid[: self.pndm_order]], axis=1).reshape(-1)
            self.prk_timesteps = visited[1:].repeat(2)[1:-1]
            self.plms_timesteps = grid[3:]
        self.timesteps = np.concatenate([self.prk_timesteps, self.plms_timesteps])
        self._forget()

    def step(self, model_output: Array, timestep: int, sample: Array, return_dict: bool = True) -> SchedulerOutput | tuple[Array]:
        """One model call's step, of `step_prk` or `step_plms`.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or an unknown `prediction_type`.
        """
        self._require_timesteps()
        step = self.step_prk if self.counter < len(self.prk_timesteps) else self.step_plms
        return step(model_output, timestep, sample, return_dict)

    def step_prk(self, model_output: Array, timestep: int, sample: Array, return_dict: bool = True) -> SchedulerOutput | tuple[Array]:
        """One of the four stages of a pseudo Runge-Kutta step: equation 13. Arguments as `step`."""
        self._require_timesteps()
        half = self.config.num_train_timesteps // self.num_inference_steps // 2
        prev_timestep = int(timestep) - (0 if self.counter % 2 else half)
        start = int(self.prk_timesteps[self.counter // 4 * 4])
        stage = self.counter % 4
        if stage == 0:
            self.ets.append(model_output)
            self.cur_sample = sample
        before = (1, self.cur_model_output) if stage else ()
        mean = weighted_sum(*before, (1 / 6, 1 / 3, 1 / 3, 1 / 6)[stage], model_output)
        self.cur_model_output, model_output = (mean, model_output) if stage < 3 else (None, mean)
        return self._finish(self.cur_sample, start, prev_timestep, model_output, return_dict)

    def step_plms(self, model_output: Array, timestep: int, sample: Array, return_dict: bool = True) -> SchedulerOutput | tuple[Array]:
        """One linear multistep step: equation 12; its first two calls make one step of second order. Arguments as `step`.

        Raises:
            ValueError: no `set_timesteps` before, or no Runge-Kutta steps before though the config asks for them.
        """
        self._require_timesteps()
        if not self.config.skip_prk_steps and len(self.ets) < 3:
            raise ValueError("multistep steps need the 12 Runge-Kutta calls first; call `step`, or set skip_prk_steps=True")
        stride = self.config.num_train_timesteps // self.num_inference_steps
        timestep = int(timestep)
        prev_timestep = timestep - stride
        if self.counter == 1:
            timestep, prev_timestep = timestep + stride, timestep
        else:
            self.ets = [*self.ets[-3:], model_output]

        e = self.ets[::-1]
        if self.counter == 0 and len(e) == 1:
            self.cur_sample = sample
        elif self.counter == 1 and len(e) == 1:
            model_output = weighted_sum(1 / 2, model_output, 1 / 2, e[0])
            sample, self.cur_sample = self.cur_sample, None
        else:
            model_output = adams_bashforth(e)
        return self._finish(sample, timestep, prev_timestep, model_output, return_dict)

    def _finish(
        self, sample: Array, timestep: int, prev_timestep: int, model_output: Array, return_dict: bool
    ) -> SchedulerOutput | tuple[Array]:
        prev_sample = self._get_prev_sample(sample, timestep, prev_timestep, model_output)
        self.counter += 1
        return as_output(SchedulerOutput, return_dict, prev_sample)

    def _get_prev_sample(self, sample: Array, timestep: int, prev_timestep: int, model_output: Array) -> Array:
        """The transfer of a sample from one timestep to another along a model output: equation 9."""
        alpha, alpha_prev = self._alpha_cumprod(timestep), self._alpha_cumprod(prev_timestep)
        expect("prediction_type", self.config.prediction_type, ("epsilon", "v_prediction"))
        if self.config.prediction_type == "v_prediction":
            model_output = predict_noise("v_prediction", model_output, sample, alpha**0.5, (1 - alpha) ** 0.5)
        scale = alpha * (1 - alpha_prev) ** 0.5 + (alpha * (1 - alpha) * alpha_prev) ** 0.5
        return weighted_sum((alpha_prev / alpha) ** 0.5, sample, -(alpha_prev - alpha) / scale, model_output)
