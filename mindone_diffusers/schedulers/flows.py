"""Flow matching: x_t = (1 - sigma_t) x_0 + sigma_t noise, and models of the velocity noise - x_0 (arXiv 2210.02747)."""

import math
from itertools import accumulate
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .arrays import Array, per_sample, weighted_sum
from .cores import SigmaTableMixin, StepIndexMixin
from .scheduling_utils import SchedulerMixin
from .tables import flow_sigmas, shift_flow, time_shift


class FlowScheduler(SigmaTableMixin, SchedulerMixin):
    """Flow matching: sigmas in [0, 1], timesteps sigma * num_train_timesteps, and a model of the velocity dx/dsigma = noise - x_0."""

    timesteps: np.ndarray | None = None
    sigmas: np.ndarray | None = None

    def _set_training_sigmas(self, shift: float) -> None:
        """The tables before `set_timesteps`: the training schedule's, in float32."""
        length = self.config.num_train_timesteps
        self.sigmas = shift_flow(np.arange(length, 0, -1, dtype=np.float32) / length, shift)
        self.timesteps = self.sigmas * length
        self.sigma_min, self.sigma_max = float(self.sigmas[-1]), float(self.sigmas[0])

    def _training_range(self, num: int) -> np.ndarray:
        """Sigmas evenly spaced over the training schedule's range, which has the config's shift already, in float64."""
        length = self.config.num_train_timesteps
        return np.linspace(self.sigma_max * length, self.sigma_min * length, num) / length

    def _count_steps(self, num_inference_steps: int | None, **given: Any) -> int:
        """How many steps these arguments of `set_timesteps` ask for.

        Raises:
            ConfigError: none given, or they ask for different numbers.
        """
        counts = {name: len(values) for name, values in given.items() if values is not None}
        if num_inference_steps is not None:
            counts["num_inference_steps"] = num_inference_steps
        if not counts:
            raise ConfigError(f"pass one of num_inference_steps, {', '.join(given)} to `set_timesteps`")
        if len(set(counts.values())) > 1:
            raise ConfigError(f"`set_timesteps` got different numbers of steps: {', '.join(f'{n} of {k}' for k, n in counts.items())}")
        return next(iter(counts.values()))

    def _begin_step(self, timestep: Any) -> int:
        """The index of this step."""
        self._refuse_integer(timestep)
        return self._find_step(timestep)

    def _noise_levels(self, timestep: Any, sample: Array) -> np.ndarray:
        """The noise levels to noise samples to, one or one a sample."""
        return self._noise_sigmas(timestep)

    def scale_noise(self, sample: Array, timestep: Any, noise: Array | None = None) -> Array:
        """Noisy samples, (1 - sigma) sample + sigma noise.

        Args:
            sample: clean samples, shape (batch, ...).
            timestep: one of `timesteps` for all or one a sample. Once `set_begin_index` has been called, the level is the current step's.
            noise: standard normal noise of the same shape.

        Raises:
            TimestepError: a timestep is not in the schedule.
            ValueError: neither one timestep nor one a sample.
        """
        sigma = per_sample(self._noise_levels(timestep, sample), sample)
        return weighted_sum(sigma, noise, 1 - sigma, sample)


class TimeShiftMixin:
    """Flows that shift their noise levels by the image's size."""

    def time_shift(self, mu: float, sigma: float, t: np.ndarray) -> np.ndarray:
        """Flow noise levels, shifted as the config's `time_shift_type` says.

        Args:
            mu: the shift, or its logarithm.
            sigma: exponent of (1 - t) / t.
            t: noise levels in [0, 1].
        """
        return time_shift(self.config.time_shift_type, mu, sigma, t)


class FlowStagesMixin(TimeShiftMixin, StepIndexMixin):
    """A flow in stages of rising resolution, each between two noise levels of its own (pyramidal flow matching, arXiv 2410.05954).

    Read from the config's `stages`, `stage_range`, `gamma`, `shift`, `use_dynamic_shifting`, `time_shift_type` and, if it has one,
    `scheduler_type`. The tables of a stage, float64, are in dictionaries by its number.
    """

    def init_sigmas(self) -> None:
        """Fill `sigmas` and `timesteps` with the whole training schedule."""
        length = self.config.num_train_timesteps
        self.sigmas = flow_sigmas(length, length, self.config.shift)
        self.timesteps = self.sigmas * length
        self._restart()

    def init_sigmas_for_each_stage(self) -> None:
        """Fill the stages' tables: noise levels at their ends, and the timesteps and sigmas between.

        Upsampling a sample makes its noise correlated; where a stage starts from one, noise is added until its covariance is that of
        a noisier start, which `gamma` says.
        """
        self.init_sigmas()
        config, length, stages = self.config, self.config.num_train_timesteps, range(self.config.stages)
        levels = np.append(self.sigmas, 0.0)
        ends = [float(levels[min(max(int(part * length), 0), length)]) for part in config.stage_range]
        self.ori_start_sigmas, self.end_sigmas = dict(zip(stages, ends)), dict(zip(stages, ends[1:]))
        renoised = (1 - (1 - start) / (math.sqrt(1 + 1 / config.gamma) * start + 1 - start) for start in ends[1:])
        self.start_sigmas = dict(zip(stages, [ends[0], *renoised]))

        lengths = accumulate(self.start_sigmas[stage] - self.end_sigmas[stage] for stage in stages)
        ratios = np.array([0.0, *lengths])
        ratios = (ratios / ratios[-1]).tolist()
        ratios[-1] = 0.9999999999999999
        self.timestep_ratios = {stage: (ratios[stage], ratios[stage + 1]) for stage in stages}
        self.timesteps_per_stage = {}
        for stage, (start, end) in self.timestep_ratios.items():
            first, last = self.timesteps[int(start * length)], self.timesteps[min(int(end * length), length - 1)]
            self.timesteps_per_stage[stage] = np.linspace(min(first, 999), last, length + 1)[:-1]
        self.sigmas_per_stage = {stage: np.linspace(0.999, 0, length + 1)[:-1] for stage in stages}
        self.sigma_min, self.sigma_max = float(self.sigmas[-1]), float(self.sigmas[0])

    def set_timesteps(
        self, num_inference_steps: int, stage_index: int | None = None, device: Any = None, sigmas: Any = None, mu: float | None = None,
        is_amplify_first_chunk: bool = False,
    ) -> None:  # fmt: skip
        """Choose timesteps and sigmas of a stage.

        Args:
            num_inference_steps: how many.
            stage_index: the stage, if the config's `stages` is more than 1.
            device: ignored, timesteps stay on the host.
            sigmas: these, of a flow in one stage.
            mu: how much to shift, with `use_dynamic_shifting`.
            is_amplify_first_chunk: of distilled schedulers, twice as many steps.

        Raises:
            ConfigError: `use_dynamic_shifting` with a `shift` or without `mu`.
        """
        config, length = self.config, self.config.num_train_timesteps
        if config.use_dynamic_shifting and (config.shift != 1.0 or mu is None):
            raise ConfigError(f"use_dynamic_shifting wants shift=1 and `mu`; shift is {config.shift} and mu is {mu}")
        distilled = config.get("scheduler_type", "dmd") == "dmd"
        if distilled:  # the last one is dropped below
            num_inference_steps = (2 * num_inference_steps if is_amplify_first_chunk else num_inference_steps) + 1
        self.num_inference_steps = num_inference_steps
        if config.stages == 1:
            if sigmas is None:
                sigmas = np.linspace(1, 1 / length, num_inference_steps + 1)[:-1].astype(np.float32)
                if config.shift != 1.0:
                    sigmas = self.time_shift(config.shift, 1.0, sigmas)
            sigmas = np.asarray(sigmas)
            timesteps = sigmas * length
        else:
            stage_timesteps, stage_sigmas = self.timesteps_per_stage[stage_index], self.sigmas_per_stage[stage_index]
            timesteps = np.linspace(stage_timesteps[0], stage_timesteps[-1], num_inference_steps)
            sigmas = np.linspace(stage_sigmas[0], stage_sigmas[-1], num_inference_steps)
        if distilled:
            timesteps, sigmas = timesteps[:-1], sigmas[:-1]
        self.timesteps, self.sigmas = timesteps, np.append(sigmas, sigmas.dtype.type(0))
        self.reset_scheduler_history()
        if config.use_dynamic_shifting:
            self.sigmas = self.time_shift(mu, 1.0, self.sigmas)
            lowest, highest = (0, length) if config.stages == 1 else (stage_timesteps.min(), stage_timesteps.max())
            self.timesteps = lowest + self.sigmas[:-1] * (highest - lowest)

    def reset_scheduler_history(self) -> None:
        """Forget the steps taken."""
        self._restart()
