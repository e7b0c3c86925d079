"""Guidance towards and away from concepts, each within its own part of the image (arXiv:2311.16711, section 3.3)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor

from ...core.errors import ConfigError
from ...nn import functional as F
from ...schedulers.arrays import quantile
from ..guidance import rescale_noise_cfg
from .attention import LeditsAttentionStore, LeditsGaussianSmoothing


class SemanticGuidance:
    """From predictions without and with each concept to one.

    Args:
        concepts: how many.
        reverse_editing_direction, edit_guidance_scale, edit_warmup_steps, edit_cooldown_steps, edit_threshold: see the pipelines; one value
            for all concepts, or a list.
        user_mask: what each change is multiplied by, (height, width) of the latents or with axes before those.
        sem_guidance: changes of the first steps, instead of the concepts'.
        guidance_rescale: see `rescale_noise_cfg`.
        attention_mask: gives the mask (images, 1, height, width) of a concept's cross-attention from its index and threshold; may be None.
        noise_mask_from: the noisiest timestep where a change is kept only where it is largest.

    Raises:
        ConfigError: a list that is too short.
    """

    def __init__(
        self,
        concepts: int,
        reverse_editing_direction: bool | list[bool],
        edit_guidance_scale: float | list[float],
        edit_warmup_steps: int | list[int],
        edit_cooldown_steps: int | list[int] | None,
        edit_threshold: float | list[float],
        user_mask: Tensor | None,
        sem_guidance: Sequence[Tensor] | None,
        guidance_rescale: float,
        attention_mask: Callable[[int, float], Tensor] | None,
        noise_mask_from: float,
    ):
        cooldown = math.inf if edit_cooldown_steps is None else edit_cooldown_steps
        self._settings = list(
            zip(
                _each("reverse_editing_direction", reverse_editing_direction, concepts),
                _each("edit_guidance_scale", edit_guidance_scale, concepts),
                _each("edit_warmup_steps", edit_warmup_steps, concepts),
                _each("edit_cooldown_steps", cooldown, concepts),
                _each("edit_threshold", edit_threshold, concepts),
            )
        )
        self._user_mask, self._given, self._rescale = user_mask, () if sem_guidance is None else sem_guidance, guidance_rescale
        self._attention_mask, self._noise_mask_from = attention_mask, noise_mask_from
        self._changes: list[Tensor] = []
        self._masks: list[list[Tensor]] = []

    def __call__(self, predictions: Sequence[Tensor], step: int, t: float) -> Tensor:
        """The prediction to step with.

        Args:
            predictions: without a concept, then with each, (images, channels, height, width).
            step: number of the step.
            t: its timestep.
        """
        without, *concepts = predictions
        total = nothing = F.zeros(without.shape, without.dtype)
        masks = [nothing] * len(concepts)
        if step < len(self._given):
            guided = without + self._given[step].astype(without.dtype)
        else:
            for index, concept in enumerate(concepts):
                reverse, scale, warmup, cooldown, threshold = self._settings[index]
                if warmup <= step < cooldown:
                    change = (concept - without) * (-scale if reverse else scale)
                    if self._user_mask is not None:
                        change = change * self._user_mask.astype(change.dtype)
                    masks[index] = self._mask(change, index, threshold, t).broadcast_to(change.shape)
                    total = total + change * masks[index]
            guided = without + total
        self._changes.append(total)
        self._masks.append(masks)
        if concepts and self._rescale > 0.0:
            guided = rescale_noise_cfg(guided, F.stack(concepts).mean(0), self._rescale)
        return guided

    def _mask(self, change: Tensor, index: int, threshold: float, t: float) -> Tensor:
        """1 where a concept's change applies, (images, 1, height, width)."""
        mask = None
        if self._attention_mask is not None:
            mask = F.interpolate(self._attention_mask(index, threshold), size=change.shape[2:])
        if t <= self._noise_mask_from:
            largest = above_quantile(change.abs().sum(1, keepdims=True), threshold)
            mask = largest if mask is None else mask * largest
        return mask

    def history(self) -> tuple[Tensor | None, Tensor | None]:
        """The change of each step (steps, images, channels, height, width), and the masks (steps, concepts, images, channels, height,
        width), 0 where a step had none; None if no step had any."""
        if not self._settings or len(self._changes) <= len(self._given):
            return None, None
        return F.stack(self._changes), F.stack([F.stack(masks) for masks in self._masks])


def above_quantile(values: Tensor, threshold: float) -> Tensor:
    """1 where an image's value is at least the quantile `threshold` of its values, else 0; (images, 1, height, width)."""
    limit = quantile(values.reshape((values.shape[0], -1)).astype(ms.float32), threshold).astype(values.dtype)
    return (values >= limit.reshape((-1, 1, 1, 1))).astype(values.dtype)


def attention_mask(
    store: LeditsAttentionStore, resolution: tuple[int, int], prompts: list[str], tokens: Sequence[int], index: int, threshold: float
) -> Tensor:
    """1 where the step's cross-attention to a concept is at least the quantile `threshold` (arXiv:2311.16711, equation 9).

    Args:
        store: with the step's maps.
        resolution: height and width of the maps to take, which the mask has too.
        prompts: the concepts.
        tokens: how many of the tokens after the first belong to each.
        index: the concept.
        threshold: a number from 0 to 1.

    Returns:
        (images, 1, height, width).
    """
    maps = store.aggregate_attention(store.step_store, prompts, resolution, ["up", "down"], True, index)
    relevance = maps[:, :, :, 1 : 1 + int(tokens[index])].sum(-1).expand_dims(1)
    return above_quantile(LeditsGaussianSmoothing()(F.pad(relevance, (1, 1, 1, 1), mode="reflect")), threshold)


def _each(name: str, value: Any, concepts: int) -> list[Any]:
    if not isinstance(value, list):
        return [value] * concepts
    if len(value) < concepts:
        raise ConfigError(f"{name} has {len(value)} values for {concepts} editing prompts: pass one for each, or a single number")
    return value
