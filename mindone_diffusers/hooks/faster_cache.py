"""FasterCache (arXiv:2410.19355): attentions are extrapolated from their last two outputs, and the prediction without a prompt is the one
with it, plus their last difference, of which the low and the high frequencies are weighted."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..core.errors import ConfigError
from ..models.attention import Attention
from ..models.cache_utils import CacheConfig, CacheMixin, StepCache
from ..models.freeu import both_axes
from ..models.inputs import mutable
from ..nn import functional as F
from .hooked_modules import Hook, HookedModules, Number
from .pyramid_attention_broadcast import kinds_of_attention, within

SPATIAL_ATTENTIONS = ("^blocks.*attn", "^transformer_blocks.*attn", "^single_transformer_blocks.*attn")
TEMPORAL_ATTENTIONS = ("^temporal_transformer_blocks.*attn",)
TENSOR_FORMATS = ("BCFHW", "BFCHW", "BCHW")


@dataclass
class FasterCacheConfig(CacheConfig):
    """For calls with one batch of the inputs without the prompt, then those with it.

    Args:
        spatial_attention_block_skip_range, temporal_attention_block_skip_range: attentions of this kind are computed at one of so many
            steps that leave out the prediction without the prompt; None for at all.
        spatial_attention_timestep_skip_range, temporal_attention_timestep_skip_range: between these timesteps.
        low_frequency_weight_update_timestep_range, high_frequency_weight_update_timestep_range: between these timesteps the difference's
            low and high frequencies grow by `alpha_low_frequency` and `alpha_high_frequency` at each step that uses them.
        unconditional_batch_skip_range: the prediction without the prompt is computed at one of so many steps.
        unconditional_batch_timestep_skip_range: between these timesteps.
        spatial_attention_block_identifiers, temporal_attention_block_identifiers: patterns of the attentions' names.
        attention_weight_callback: given an attention, how far it is extrapolated; by default 0.5.
        low_frequency_weight_callback, high_frequency_weight_callback: given the model, by how much the difference's frequencies grow,
            instead of the above.
        tensor_format: of the model's output: "BCFHW", "BFCHW" or "BCHW".
        is_guidance_distilled: there is no prediction without the prompt in the batch.
        current_timestep_callback: gives the timestep of the step that is about to run, e.g. `lambda: pipe.current_timestep`.
    """

    spatial_attention_block_skip_range: int | None = 2
    temporal_attention_block_skip_range: int | None = None
    spatial_attention_timestep_skip_range: tuple[int, int] = (-1, 681)
    temporal_attention_timestep_skip_range: tuple[int, int] = (-1, 681)
    low_frequency_weight_update_timestep_range: tuple[int, int] = (99, 901)
    high_frequency_weight_update_timestep_range: tuple[int, int] = (-1, 301)
    alpha_low_frequency: float = 1.1
    alpha_high_frequency: float = 1.1
    unconditional_batch_skip_range: int = 5
    unconditional_batch_timestep_skip_range: tuple[int, int] = (-1, 641)
    spatial_attention_block_identifiers: tuple[str, ...] = SPATIAL_ATTENTIONS
    temporal_attention_block_identifiers: tuple[str, ...] = TEMPORAL_ATTENTIONS
    attention_weight_callback: Callable[[Attention], float] | None = None
    low_frequency_weight_callback: Callable[[CacheMixin], float] | None = None
    high_frequency_weight_callback: Callable[[CacheMixin], float] | None = None
    tensor_format: str = "BCFHW"
    is_guidance_distilled: bool = False
    current_timestep_callback: Callable[[], int] | None = None

    def make_cache(self, model: CacheMixin) -> StepCache:
        if self.current_timestep_callback is None:
            raise ConfigError("current_timestep_callback is needed to know where a step is: pass e.g. `lambda: pipe.current_timestep`.")
        if self.tensor_format not in TENSOR_FORMATS:
            raise ConfigError(f"tensor_format is {self.tensor_format!r}; expected one of {TENSOR_FORMATS}.")
        return _FasterCache(model, self)


def apply_faster_cache(module: CacheMixin, config: FasterCacheConfig) -> None:
    """`module.enable_cache(config)`, as a function."""
    module.enable_cache(config)


class _Extrapolated(Hook):
    """States: the last output of the inputs with the prompt, and the one before. Number: how far they are extrapolated."""

    def construct(self, *args: Any, **kwargs: Any) -> Tensor:
        last, before = self.step_state_0, self.step_state_1
        if self.step_action == "skip":
            output = kept = last + (last - before) * self.step_number_0.astype(last.dtype)
        else:
            output = kept = self.unhooked(self, *args, **kwargs)
            if self.step_action == "compute both":
                kept = output[output.shape[0] // 2 :]
        F.assign(self.step_state_1, last)
        F.assign(self.step_state_0, kept)
        return output


class _FasterCache(StepCache):
    """Nothing is read from the device. In graph mode there is a graph for the whole batch, and for the inputs with the prompt one for each
    combination of kinds of attention that are computed."""

    def __init__(self, model: CacheMixin, config: FasterCacheConfig):
        super().__init__()
        found = kinds_of_attention(model, config, ("spatial", "temporal"))
        self.config, self.kinds = config, {name: kind for name, (_, kind) in found.items()}
        self.modules = {name: module for name, (module, _) in found.items()}
        self.weights = {name: [Number(f"{name}.step_number_0")] for name in found}
        self.hooked = HookedModules(self.modules, _Extrapolated, self._first, self.weights)
        self.reset()

    def reset(self) -> None:
        self.step, self.low, self.high = 0, None, None

    def _first(self, name: str, output: Tensor) -> tuple[Tensor, Tensor]:
        kept = output if self.config.is_guidance_distilled else _second_half(output)
        return kept, kept

    def run(self, model: CacheMixin, *args: Any) -> tuple:
        config, timestep = self.config, self.config.current_timestep_callback()
        halves = args if config.is_guidance_distilled else _second_half_of_all(args, args[0].shape[0])
        alone = not config.is_guidance_distilled and self._leaves_out_uncond(timestep)
        whole = not config.is_guidance_distilled and not alone
        actions = {kind: "compute both" if whole else self._action(kind, timestep) for kind in ("spatial", "temporal")}
        for name, module in self.modules.items():
            if actions[self.kinds[name]] == "skip":
                self.weights[name][0].write(_weight(config.attention_weight_callback, module, 0.5))
        output = self.hooked.run(model, halves if alone else args, {name: actions[kind] for name, kind in self.kinds.items()}, like=halves)
        if self.step == 0:
            self.hooked.copy_state(0, 1)
        self.step += 1
        if config.is_guidance_distilled:
            return output
        return (self._with_uncond(model, output[0], timestep) if alone else self._noted(output[0]), *output[1:])

    def _leaves_out_uncond(self, timestep: float) -> bool:
        config = self.config
        inside = within(timestep, config.unconditional_batch_timestep_skip_range)
        return self.low is not None and inside and self.step % config.unconditional_batch_skip_range != 0

    def _action(self, kind: str, timestep: float) -> str:
        every = getattr(self.config, f"{kind}_attention_block_skip_range")
        inside = within(timestep, getattr(self.config, f"{kind}_attention_timestep_skip_range"))
        return "skip" if every is not None and self.step % every and inside else "compute"

    def _noted(self, output: Tensor) -> Tensor:
        uncond, cond = F.chunk(output.astype(ms.float32), 2, 0)
        self.low = low_frequencies(uncond - cond)
        self.high = uncond - cond - self.low
        return output

    def _with_uncond(self, model: CacheMixin, cond: Tensor, timestep: float) -> Tensor:
        config = self.config
        low = config.alpha_low_frequency if within(timestep, config.low_frequency_weight_update_timestep_range) else 1.0
        high = config.alpha_high_frequency if within(timestep, config.high_frequency_weight_update_timestep_range) else 1.0
        self.low = self.low * _weight(config.low_frequency_weight_callback, model, low)
        self.high = self.high * _weight(config.high_frequency_weight_callback, model, high)
        uncond = cond.astype(ms.float32) + self.low + self.high
        return F.cat((uncond.astype(cond.dtype), cond), 0)


def _weight(callback: Callable[[Any], float] | None, module: Any, default: float) -> float:
    return default if callback is None else float(callback(module))


def _second_half(tensor: Tensor) -> Tensor:
    return tensor[tensor.shape[0] // 2 :]


def _second_half_of_all(value: Any, batch: int) -> Any:
    """The second halves of the tensors of a whole batch, in nested dictionaries and tuples too; the rest as it is."""
    if isinstance(value, Tensor):
        return _second_half(value) if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return mutable({name: _second_half_of_all(item, batch) for name, item in value.items()})
    if isinstance(value, tuple):
        return tuple(_second_half_of_all(item, batch) for item in value)
    return value


def low_frequencies(images: Tensor) -> Tensor:
    """The frequencies within a fifth of the smaller side around zero.

    Args:
        images: (..., height, width), float32.
    """
    height, width = images.shape[-2:]
    radius = min(height, width) // 5
    (row_cosines, row_sines), (column_cosines, column_sines) = _waves(height, radius), _waves(width, radius)
    kept = _disc(radius, height * width)
    real = (both_axes(images, row_cosines, column_cosines) - both_axes(images, row_sines, column_sines)) * kept
    imaginary = (both_axes(images, row_sines, column_cosines) + both_axes(images, row_cosines, column_sines)) * kept
    row_cosines, row_sines, column_cosines, column_sines = (
        waves.swapaxes(0, 1) for waves in (row_cosines, row_sines, column_cosines, column_sines)
    )
    real = both_axes(real, row_cosines, column_cosines) - both_axes(real, row_sines, column_sines)
    return real + both_axes(imaginary, row_sines, column_cosines) + both_axes(imaginary, row_cosines, column_sines)


@functools.lru_cache
def _waves(size: int, radius: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the frequencies from -radius to radius: (2 radius + 1, size)."""
    angles = 2 * math.pi / size * np.arange(-radius, radius + 1)[:, None] * np.arange(size)
    return Tensor(np.cos(angles).astype(np.float32)), Tensor(np.sin(angles).astype(np.float32))


@functools.lru_cache
def _disc(radius: int, pixels: int) -> Tensor:
    squares = np.arange(-radius, radius + 1) ** 2
    return Tensor((squares[:, None] + squares <= radius**2).astype(np.float32) / np.float32(pixels))
