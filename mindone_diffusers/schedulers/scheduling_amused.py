"""The sampler of masked image tokens of aMUSEd (arXiv 2401.01808), after MaskGIT (arXiv 2202.04200)."""

import math
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.dtypes import dtype_name
from ..core.errors import ConfigError
from .arrays import Array, alike
from .scheduling_utils import DenoisedSchedulerOutput, SchedulerMixin, as_output
from .tables import expect, linspace_float32
from .tokens import LARGEST, at, categorical, gather, gumbel, log, order, softmax, uniform, where

AmusedSchedulerOutput = DenoisedSchedulerOutput


class AmusedScheduler(SchedulerMixin):
    """Predicts all masked tokens at once, keeps those it is most confident of, and masks the others again.

    Args:
        mask_token_id: the token that stands for a masked one.
        masking_schedule: the part of all tokens that is still masked after a step: "cosine" or "linear" in the part of steps done.
    """

    @register_to_config
    def __init__(self, mask_token_id: int, masking_schedule: Literal["cosine", "linear"] = "cosine"):
        self.temperatures: np.ndarray | None = None
        self.timesteps: np.ndarray | None = None

    def set_timesteps(self, num_inference_steps: int, temperature: int | tuple[int, int] | list[int] = (2, 0), device: Any = None) -> None:
        """Choose the steps.

        Args:
            num_inference_steps: how many.
            temperature: of the noise that confidences get, at the first and the last step; one number falls to 0.01.
            device: ignored, timesteps stay on the host.
        """
        first, last = temperature if isinstance(temperature, (tuple, list)) else (temperature, 0.01)
        self.num_inference_steps = num_inference_steps
        self.timesteps = np.arange(num_inference_steps)[::-1]
        self.temperatures = linspace_float32(first, last, num_inference_steps)

    def _position(self, timestep: int) -> int:
        self._require_timesteps()
        found = np.flatnonzero(self.timesteps == int(timestep))
        if len(found) == 0:
            raise ConfigError(f"timestep {timestep} is not in the schedule {self.timesteps}: pass one of `scheduler.timesteps`")
        return int(found[0])

    def _mask_ratio(self, position: int) -> np.float32:
        """In float32 as PyTorch's, because the number of masked tokens, this times all, is rounded down."""
        expect("masking_schedule", self.config.masking_schedule, ("cosine", "linear"))
        done = np.float32(position + 1) / np.float32(len(self.timesteps))
        if self.config.masking_schedule == "cosine":
            return np.float32(math.cos(done * np.float32(math.pi) / np.float32(2)))
        return np.float32(1) - done

    def step(
        self, model_output: Array, timestep: int, sample: Array, starting_mask_ratio: float = 1.0,
        generator: Any = None, return_dict: bool = True,
    ) -> AmusedSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """Fill in the masked tokens and mask the least confident again; none at timestep 0.

        Args:
            model_output: logits, shape (batch, tokens, codebook) for a `sample` of shape (batch, tokens), or (batch, codebook, height,
                width) for (batch, height, width).
            timestep: the current one of `timesteps`.
            sample: tokens, those to be predicted `mask_token_id`.
            starting_mask_ratio: the part of all tokens that was masked at the start (image to image).
            generator: draws the tokens, then the noise of the confidences.
            return_dict: return an `AmusedSchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, a timestep that is not in it, or an unknown `masking_schedule`.
        """
        shape = sample.shape
        if len(shape) == 3 and len(model_output.shape) == 4:
            sample = sample.reshape(shape[0], -1)
            model_output = model_output.reshape(*model_output.shape[:2], -1).swapaxes(1, 2)
        unknown = sample == self.config.mask_token_id
        probabilities = softmax(model_output).astype(model_output.dtype)
        original = where(unknown, categorical(probabilities.astype("float32"), generator).astype(sample.dtype), sample)
        prev_sample = original
        if timestep != 0:
            position = self._position(timestep)
            masked = int(np.floor(np.float32(sample.shape[1]) * (np.float32(starting_mask_ratio) * self._mask_ratio(position))))
            count = (unknown.sum(axis=-1, keepdims=True) - 1).clip(None, masked).clip(1, None)
            dtype = dtype_name(probabilities.dtype)
            # Tokens that were given are certain.
            confidence = log(where(unknown, at(probabilities, original), LARGEST[dtype]).clip(1e-20, None))
            temperature = alike(self.temperatures[None, position : position + 1], probabilities, "float32")
            confidence = confidence + temperature * gumbel(confidence.shape, generator, confidence, 1e-20, dtype)
            limit = gather(gather(confidence, order(confidence)), count)
            prev_sample = where(confidence >= limit, original, self.config.mask_token_id)
        prev_sample, original = prev_sample.reshape(shape), original.reshape(shape)
        return as_output(AmusedSchedulerOutput, return_dict, prev_sample, original)

    def add_noise(self, sample: Array, timesteps: int, generator: Any = None) -> Array:
        """Tokens, each masked with the probability that the schedule has after the step at `timesteps`.

        Raises:
            ValueError: no `set_timesteps` before, a timestep that is not in it, or an unknown `masking_schedule`.
        """
        ratio = self._mask_ratio(self._position(timesteps))
        return where(uniform(sample.shape, generator, sample) >= float(ratio), sample, self.config.mask_token_id)
