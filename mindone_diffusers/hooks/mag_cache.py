"""MagCache (arXiv:2506.09045): blocks are left out while the magnitude of what they add, known from a calibration, has changed little."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mindspore import Tensor

from ..core.errors import ConfigError
from ..core.logging import get_logger
from ..models.cache_utils import BlockCacheMixin, CacheConfig, CacheMixin, StepCache
from .block_caches import check_blocks

logger = get_logger(__name__)

FLUX_MAG_RATIOS = np.array(
    [
        1.0, 1.21094, 1.11719, 1.07812, 1.0625, 1.03906, 1.03125, 1.03906, 1.02344, 1.03125, 1.02344, 0.98047, 1.01562, 1.00781, 1.0,
        1.00781, 1.0, 1.00781, 1.0, 1.0, 0.99609, 0.99609, 0.98047, 0.98828, 0.96484, 0.95703, 0.93359, 0.89062,
    ],
    np.float32,
)  # fmt: skip
"""The `mag_ratios` of Flux, 28 steps."""


def nearest_interp(src_array: np.ndarray, target_length: int) -> np.ndarray:
    """So many entries of an array, evenly spaced from the first to the last; for one, the last."""
    if target_length == 1:
        return src_array[-1:]
    scale = np.float32((len(src_array) - 1) / (target_length - 1))
    return src_array[np.round(np.arange(target_length, dtype=np.float32) * scale).astype(int)]


@dataclass
class MagCacheConfig(CacheConfig):
    """
    Args:
        threshold: how far the accumulated error of the steps that leave the blocks out may go. More is faster and less exact.
        max_skip_steps: at most so many of them in a row.
        retention_ratio: the part of the steps, from the first, in which none is.
        num_inference_steps: steps of a whole drawing; the cache starts again after them.
        mag_ratios: for each step, how large what the blocks add is in relation to the step before. They are a checkpoint's own. Others than
            `num_inference_steps` are stretched to as many.
        calibrate: leave nothing out, and print the `mag_ratios` after the last step.

    Raises:
        ConfigError: neither `mag_ratios` nor `calibrate`.
    """

    threshold: float = 0.06
    max_skip_steps: int = 3
    retention_ratio: float = 0.2
    num_inference_steps: int = 28
    mag_ratios: Any = None
    calibrate: bool = False

    def __post_init__(self) -> None:
        if self.calibrate:
            return
        if self.mag_ratios is None:
            raise ConfigError(
                "MagCache needs mag_ratios, which depend on the model: draw once with MagCacheConfig(calibrate=True, "
                "num_inference_steps=...) and pass those that it prints. Flux's are in mindone_diffusers.hooks.mag_cache.FLUX_MAG_RATIOS."
            )
        self.mag_ratios = np.asarray(self.mag_ratios, np.float32)
        if len(self.mag_ratios) != self.num_inference_steps:
            self.mag_ratios = nearest_interp(self.mag_ratios, self.num_inference_steps)

    def make_cache(self, model: CacheMixin) -> StepCache:
        check_blocks(model, 1, "MagCache")
        return _MagCache(self)


def apply_mag_cache(module: CacheMixin, config: MagCacheConfig) -> None:
    """`module.enable_cache(config)`, as a function."""
    module.enable_cache(config)


@dataclass
class _State:
    """Steps so far, what the blocks added when they were last computed, and what has accumulated since. float32, as the ratios are: a sum
    on the threshold must fall on the side where PyTorch's does."""

    step: int = 0
    added: Tensor | None = None
    ratio: np.float32 = np.float32(1)
    error: np.float32 = np.float32(0)
    skipped: int = 0
    calibration: list[float] = field(default_factory=list)

    def restart(self) -> None:
        self.__init__()


class _MagCache(StepCache):
    """Nothing is read from the device, unless it calibrates. In graph mode there are two graphs: with the blocks, and without."""

    def __init__(self, config: MagCacheConfig):
        super().__init__()
        self.config = config

    def run(self, model: BlockCacheMixin, *args: Any) -> tuple[Tensor]:
        state, last = self.state(model, _State, default="inference"), model.num_blocks
        if self._skips(state):
            output = model.run_part(last, last, args, residuals=(state.added,))[-1]
        else:
            _, added, output = model.run_part(0, last, args)
            if self.config.calibrate:
                state.calibration.append(1.0 if state.added is None else _magnitude(added[0], state.added))
            state.added = added[0]
        state.step += 1
        if state.step >= self.config.num_inference_steps:
            if self.config.calibrate:
                print(f"MagCacheConfig(mag_ratios={state.calibration})")
            state.restart()
        return output

    def _skips(self, state: _State) -> bool:
        config = self.config
        if config.calibrate or state.step < int(config.retention_ratio * config.num_inference_steps + 0.5):
            return False
        state.ratio *= config.mag_ratios[state.step]
        state.error += np.abs(np.float32(1) - state.ratio)
        state.skipped += 1
        if state.added is not None and state.error <= np.float32(config.threshold) and state.skipped <= config.max_skip_steps:
            return True
        state.ratio, state.error, state.skipped = np.float32(1), np.float32(0), 0
        return False


def _magnitude(new: Tensor, old: Tensor) -> float:
    """How large the tokens of one are in relation to those of the other, on average."""
    new, old = (np.linalg.norm(tensor.asnumpy().astype(np.float32), axis=-1) for tensor in (new, old))
    return float((new / (old + np.float32(1e-8))).mean())
