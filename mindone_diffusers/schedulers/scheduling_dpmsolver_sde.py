"""DPM-Solver++ steps of the reverse SDE, with Brownian noise that does not depend on the steps (k-diffusion's `sample_dpmpp_sde`)."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from ..core.random import Generator, random_integers
from .arrays import Array, alike, weighted_sum
from .cores import MidpointScheduler, ancestral_levels
from .scheduling_utils import DenoisedSchedulerOutput


class BrownianTree:
    """A Brownian path over an interval: increments between any two times, the same from the same seed whatever was asked before.

    The path is that of `torchsde.BrownianInterval(..., tol=1e-6, pool_size=24, halfway_tree=True)` (arXiv 2105.13493), bit for
    bit in float32. Times are rounded to 1e-6; halves of an interval are drawn from the increment over all of it (a Brownian bridge).

    Args:
        start: first time.
        end: last time.
        shape: shape of an increment.
        dtype: what numbers are drawn in; half precision is added up in float32.
        seed: of the path.
    """

    def __init__(self, start: float, end: float, shape: tuple[int, ...], dtype: Any, seed: int):
        self.start, self.end = round(start, 6), round(end, 6)
        self.shape, self.dtype, self.seed = shape, dtype, seed
        self._generator = Generator()
        # Where two queries share an end, they share the intervals around it.
        self._noise = functools.lru_cache(maxsize=64)(self._draw)
        self.increment = self._draw() * math.sqrt(end - start)

    def _draw(self, *node: int) -> np.ndarray:
        """The noise of a node of the tree, (number from the left, depth), or of the path's end."""
        (seed,) = np.random.SeedSequence(self.seed, spawn_key=node, pool_size=24).generate_state(1)
        noise = self._generator.manual_seed(int(seed)).randn(self.shape, self.dtype)
        return noise if noise.dtype == np.float64 else noise.astype(np.float32, copy=False)

    def __call__(self, start: float, end: float) -> np.ndarray:
        """The increment from `start` to `end >= start`, both moved into the path's interval."""
        start, end = (min(max(round(time, 6), self.start), self.end) for time in (start, end))
        if start == end:
            return np.zeros_like(self.increment)
        return functools.reduce(np.add, self._pieces(start, end, self.start, self.end, self.increment, 0, 0))

    def _pieces(
        self, start: float, end: float, left: float, right: float, whole: np.ndarray, index: int, depth: int
    ) -> Iterator[np.ndarray]:
        """The increments of the largest nodes that make up [start, end], below the node over [left, right] with increment `whole`."""
        if (start, end) == (left, right):
            yield whole
            return
        middle = round(0.5 * (right + left), 6)
        before, after, reciprocal = middle - left, right - middle, 1 / (right - left)
        first = before * whole * reciprocal + math.sqrt(before * after * reciprocal) * self._noise(index, depth)
        if start < middle:
            yield from self._pieces(start, min(end, middle), left, middle, first, 2 * index, depth + 1)
        if end > middle:
            yield from self._pieces(max(start, middle), end, middle, right, whole - first, 2 * index + 1, depth + 1)


class BrownianTreeNoiseSampler:
    """Standard normal noise between two noise levels: a Brownian path's increment over the square root of the time between them.

    With the same seed, shape and dtype the numbers are PyTorch diffusers' on a CPU.

    Args:
        x: an array of the shape, kind and dtype the noise is to have.
        sigma_min: lowest noise level; what is below is moved up to it.
        sigma_max: highest noise level; what is above is moved down to it.
        seed: of the path, or one for each sample of the batch; drawn as `manual_seed` says by default.
        transform: from a noise level, a float32 number, to time.

    Raises:
        ConfigError: as many seeds as samples were not given.
    """

    def __init__(
        self, x: Array, sigma_min: float, sigma_max: float, seed: int | Sequence[int] | None = None,
        transform: Callable[[float], float] = lambda sigma: sigma,
    ):  # fmt: skip
        self.transform = transform
        self.like = x
        self.batched = isinstance(seed, (list, tuple))
        if self.batched and len(seed) != x.shape[0]:
            raise ConfigError(f"{len(seed)} seeds for a batch of {x.shape[0]}; give one, or one a sample")
        if seed is None:
            seed = int(random_integers(0, 2**63 - 1, ()))
        seeds = seed if self.batched else [seed]
        shape = tuple(x.shape[1:] if self.batched else x.shape)
        low, high = self._time(sigma_min), self._time(sigma_max)
        self.sign = 1.0 if low < high else -1.0
        self.trees = [BrownianTree(float(min(low, high)), float(max(low, high)), shape, x.dtype, one) for one in seeds]

    def _time(self, sigma: float) -> np.float32:
        return np.float32(self.transform(np.float32(sigma)))

    def __call__(self, sigma: float, sigma_next: float) -> Array:
        """The noise from one noise level to another; none between equal ones, where PyTorch's is NaN."""
        start, end = self._time(sigma), self._time(sigma_next)
        increments = [tree(float(min(start, end)), float(max(start, end))) for tree in self.trees]
        noise = np.stack(increments) if self.batched else increments[0]
        if start != end:
            noise = noise * (self.sign if start < end else -self.sign) / np.sqrt(abs(end - start))
        return alike(noise, self.like)


DPMSolverSDESchedulerOutput = DenoisedSchedulerOutput


class DPMSolverSDEScheduler(MidpointScheduler):
    """Second-order steps of two model calls of DPM-Solver++ for the reverse SDE, with noise of a Brownian path (arXiv 2211.01095).

    A path is rough: its increments change by 1e-3 where their ends change by 1e-6. So the noise of a seed is PyTorch diffusers' to about
    1e-3, because float32 logarithms of sigmas differ in last bits.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        prediction_type: "epsilon" or "v_prediction".
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        noise_sampler_seed: seed of the path; drawn as `manual_seed` says by default.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.

    Raises:
        ConfigError: more than one of the `use_..._sigmas`.
    """

    _timestep_dtype = np.float64

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012,
        beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear",
        trained_betas: np.ndarray | list[float] | None = None, prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon",
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        noise_sampler_seed: int | None = None,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace", steps_offset: int = 0,
    ):  # fmt: skip
        self._check_sigma_options()
        self._set_betas()
        self.noise_sampler_seed = noise_sampler_seed
        self.set_timesteps(num_train_timesteps, None, num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: Any = None, num_train_timesteps: int | None = None) -> None:
        super().set_timesteps(num_inference_steps, device, num_train_timesteps)
        self.sigmas = self.sigmas[:-2]  # nothing follows the last call
        self.noise_sampler = None

    def _step_sigmas(self) -> tuple[float, float, float]:
        first = self._step_index - (not self.state_in_first_order)
        start, end = float(self.sigmas[first]), float(self.sigmas[first + 1])
        return start, (start * end) ** 0.5, end

    def _noise(self, sample: Array, start: float, end: float) -> Array:
        """The path's noise from a step's start to its end, or to its middle in the first stage."""
        if self.noise_sampler is None:
            low, high = self.sigmas[self.sigmas > 0].min(), self.sigmas.max()
            self.noise_sampler = BrownianTreeNoiseSampler(sample, low, high, self.noise_sampler_seed)
        # Rounded to float32 where PyTorch is: see the class.
        t, t_end = (-np.float32(math.log(sigma)) for sigma in (start, end))
        if self.state_in_first_order:
            t_end = t + (t_end - t) * np.float32(0.5)
        return alike(self.noise_sampler(np.float32(math.exp(-t)), np.float32(math.exp(-t_end))), sample)

    def step(
        self, model_output: Array, timestep: float, sample: Array, return_dict: bool = True, s_noise: float = 1.0
    ) -> DPMSolverSDESchedulerOutput | tuple[Array, Array]:
        """One stage of a step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `DPMSolverSDESchedulerOutput`, else a tuple.
            s_noise: what the noise is multiplied by.

        Raises:
            ConfigError: unknown `prediction_type`.
            UnsupportedError: `prediction_type` is "sample".
            TimestepError: `timestep` is not in the schedule.
        """
        self._refuse_sample_prediction()
        self._begin_step(timestep)
        original = self._predict_original(model_output, sample, self._model_sigma())
        start, middle, end = self._step_sigmas()
        if end == 0:
            prev_sample = original
        else:
            down, up = ancestral_levels(start, middle if self.state_in_first_order else end)
            noise = self._noise(sample, start, end)
            step_start, self.sample = (sample, sample) if self.state_in_first_order else (self.sample, None)
            prev_sample = weighted_sum(down / start, step_start, 1 - down / start, original, s_noise * up, noise)

        return self._end_step(DPMSolverSDESchedulerOutput, return_dict, prev_sample, original)
