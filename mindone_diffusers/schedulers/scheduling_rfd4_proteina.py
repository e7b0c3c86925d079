"""Flow sampling of protein backbones and latents with temporal score rescaling, as RFD4-Proteina does it."""

import math
from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, alike, cast, on_host, randn_like, weighted_sum
from .scheduling_utils import SchedulerMixin, SchedulerOutput, as_output
from .tables import expect, linspace_float32

RFD4ProteinaSchedulerOutput = SchedulerOutput


class RFD4ProteinaScheduler(SchedulerMixin):
    """Steps one modality, the backbone or the local latents, from noise at time 0 to data at time 1.

    x_t = (1 - t) noise + t data. In the middle of the run the velocity's ODE becomes an SDE whose score is scaled up over time, which
    lowers the temperature.

    Args:
        schedule_mode: spacing of the times: "log" or "power".
        noise_mode: how much noise a time gets: "1/t" or "tan".
        tsr_k: the score's final factor; the higher, the lower the temperature.
        tsr_sigma: how soon it is reached.
        tail_steps: how many intervals at the end are finer.
        tail_step_multiplier: by which factor, at least 2.
        t_lim_ode: above this time no noise is added.
        t_lim_ode_below: nor below this one.

    Raises:
        ConfigError: unknown `schedule_mode` or `noise_mode`.
    """

    @register_to_config
    def __init__(
        self, schedule_mode: str, noise_mode: str, tsr_k: float, tsr_sigma: float, tail_steps: int = 10, tail_step_multiplier: int = 2,
        t_lim_ode: float = 0.95, t_lim_ode_below: float = 0.02,
    ):  # fmt: skip
        expect("schedule_mode", schedule_mode, ("log", "power"))
        expect("noise_mode", noise_mode, ("1/t", "tan"))
        self.timesteps: np.ndarray | None = None
        self._step_index: int | None = None

    @property
    def step_index(self) -> int | None:
        """Index of the next step."""
        return self._step_index

    def set_timesteps(self, num_inference_steps: int, device: Any = None, start_time: float | None = None) -> None:
        """Choose the times and go back to the first.

        Args:
            num_inference_steps: how many steps.
            device: ignored, times stay on the host.
            start_time: start at about this time, in [0, 1), with a sample noised by `add_noise`.

        Raises:
            ConfigError: `num_inference_steps` is not a positive integer or too small for the tail, `start_time` is out of range, or
                `tail_step_multiplier` is not an integer from 2.
        """
        if type(num_inference_steps) is not int or num_inference_steps < 1:
            raise ConfigError(f"num_inference_steps is {num_inference_steps!r}; expected a positive integer")
        steps = num_inference_steps
        if start_time is not None:
            if not 0 <= start_time < 1:
                raise ConfigError(f"start_time is {start_time}; expected 0 or more and less than 1")
            # As many steps in all that about num_inference_steps of them are after start_time.
            dense = max(steps * 100, 1000)
            late = np.flatnonzero(self._times_of(dense) >= start_time - 1e-6)
            steps = round(steps * dense / max(dense - late[0], 1))
        times = self._times_of(steps)
        noise = self._noise_at(times[:-1]) / self._rescaling(times[:-1]) ** 2
        self._times, self._noise = times[-num_inference_steps - 1 :], noise[-num_inference_steps:]
        self.timesteps = self._times[:-1].astype(np.float32)
        self._step_index = 0

    def _times_of(self, steps: int) -> np.ndarray:
        """Times from 0.001 to 1, the tail's taken from a finer grid."""
        tail, finer = self.config.tail_steps, self.config.tail_step_multiplier
        if not tail:
            return self._grid(steps)
        if type(finer) is not int or finer < 2:
            raise ConfigError(f"tail_step_multiplier is {finer!r}; expected an integer from 2")
        coarse = steps - (finer - 1) * tail
        if coarse < tail:
            raise ConfigError(f"{steps} steps are too few for a tail of {tail} x {finer}")
        grid, start = self._grid(coarse * finer), (coarse - tail) * finer
        return np.concatenate([grid[:start:finer], grid[start:]])

    def _grid(self, steps: int) -> np.ndarray:
        first = 1e-3
        if self.config.schedule_mode == "power":
            return linspace_float32(first**0.5, 1, steps + 1).astype(np.float64) ** 2
        # In float64: PyTorch's are off by up to 3e-7, as its float32 power.
        times = 1 - np.logspace(-2, first, steps + 1)[::-1]
        times += first - times.min()
        return times / times.max()

    def _noise_at(self, times: np.ndarray) -> np.ndarray:
        times = times.clip(0, 1 - 1e-5)
        if self.config.noise_mode == "1/t":
            return 1 / (times + 1e-2)
        angle = (1 - times) * np.pi / 2
        return np.pi / 2 * np.sin(angle) / (np.cos(angle) + 1e-2)

    def _rescaling(self, times: np.ndarray | float) -> np.ndarray | float:
        """The score's factor, from 1 at time 0 to `tsr_k` at time 1."""
        ratio = (times / (1 - times) * self.config.tsr_sigma) ** 2
        return (ratio + 1) / (ratio / self.config.tsr_k + 1)

    def add_noise(self, original_samples: Array, noise: Array, timesteps: Any) -> Array:
        """Samples at a time: (1 - t) noise + t data.

        Args:
            original_samples: clean states, shape (batch, tokens, features).
            noise: standard normal noise of the same shape.
            timesteps: times in [0, 1), one for all or one a sample.

        Raises:
            ConfigError: other times.
        """
        times, batch = on_host(timesteps), original_samples.shape[0]
        if times.shape not in ((), (batch,)) or (times < 0).any() or (times >= 1).any():
            raise ConfigError(f"timesteps are {times}; expected one or {batch}, 0 or more and less than 1")
        time = alike(times.astype(np.float32).reshape(-1, 1, 1), original_samples)  # in the samples' dtype, as the products
        return (1 - time) * noise + time * original_samples

    def step(
        self, model_output: Array, timestep: Any, sample: Array, emit_mask: Array, generator: Any = None, return_dict: bool = True
    ) -> RFD4ProteinaSchedulerOutput | tuple[Array]:
        """One step.

        Args:
            model_output: the velocity, shape of `sample`.
            timestep: the next of `timesteps`.
            sample: the current state, shape (batch, tokens, features).
            emit_mask: booleans of shape (batch, tokens): tokens that are sampled; the state of others (context, padding) becomes 0.
            generator: one a sample, each another, or None.
            return_dict: return an `RFD4ProteinaSchedulerOutput`, else a tuple.

        Returns:
            The state, in float32.

        Raises:
            ValueError: no `set_timesteps` before, no step left, another timestep, or not one generator a sample.
        """
        if self._step_index is None:
            raise ValueError("call `set_timesteps` before `step`")
        if self._step_index >= len(self.timesteps):
            raise ValueError("all steps were made: call `set_timesteps` to start again")
        if np.float32(on_host(timestep)) != self.timesteps[self._step_index]:
            raise ValueError(f"timestep is {timestep}; expected the next of `timesteps`, {self.timesteps[self._step_index]}")
        generators = _one_a_sample(generator, sample.shape[0])
        now, following = self._times[self._step_index : self._step_index + 2]
        interval, strength = float(following - now), float(self._noise[self._step_index])
        self._step_index += 1

        config, now = self.config, float(now)
        ratio = float(self._rescaling(now))
        state, velocity = cast(sample, "float32"), cast(model_output, "float32")
        # The velocity of the rescaled score, (state + (1 - now) * ratio * score) / now, without taking the difference of its large terms.
        of_velocity, of_state, noise = ratio, (1 - ratio) / now, ()
        if np.float32(config.t_lim_ode_below) <= now <= np.float32(config.t_lim_ode):
            pull = strength * ratio / (1 - now)
            of_velocity, of_state = of_velocity + pull * now, of_state - pull
            noise = math.sqrt(2 * strength * interval), cast(randn_like(sample, generators), "float32")
        prev_sample = weighted_sum(1 + interval * of_state, state, interval * of_velocity, velocity, *noise)
        return as_output(RFD4ProteinaSchedulerOutput, return_dict, prev_sample * cast(emit_mask[..., None], "float32"))


def _one_a_sample(generator: Any, batch: int) -> list | None:
    if generator is None:
        return None
    generators = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if len(generators) != batch or len({id(one) for one in generators}) != batch:
        raise ConfigError(f"generator is {generator}; expected {batch} different ones, one a sample")
    return generators
