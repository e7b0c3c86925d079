"""DeepCache (arXiv:2312.00858): the deep stages of a UNet are computed at one of several steps, the outer ones at each.

PyTorch diffusers has none; the name and the calls are in its style.
"""

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor

from ..core.errors import ConfigError
from ..models.cache_utils import CacheConfig, CacheMixin, StepCache
from ..models.unets.unet_2d_condition import UNet2DConditionModel


@dataclass
class DeepCacheConfig(CacheConfig):
    """
    Args:
        cache_interval: the deep stages are computed at one of so many steps.
        cache_branch_id: the last stage whose skip connections are computed at every step, counted from 0, the outermost.
    """

    cache_interval: int = 3
    cache_branch_id: int = 0

    def make_cache(self, model: CacheMixin) -> StepCache:
        if not isinstance(model, UNet2DConditionModel):
            raise ConfigError(f"DeepCache is for UNet2DConditionModel; got {type(model).__name__}.")
        deepest = len(model.up_blocks) - 2
        if self.cache_interval < 1 or not 0 <= self.cache_branch_id <= deepest:
            raise ConfigError(
                f"cache_interval is {self.cache_interval}, expected 1 or more, and cache_branch_id is {self.cache_branch_id}, "
                f"expected 0 to {deepest} in this UNet."
            )
        return _DeepCache(self)


def apply_deep_cache(module: UNet2DConditionModel, config: DeepCacheConfig) -> None:
    """`module.enable_cache(config)`, as a function."""
    module.enable_cache(config)


class _DeepCache(StepCache):
    """Nothing is read from the device. In graph mode there are two graphs: with the deep stages, and without."""

    def __init__(self, config: DeepCacheConfig):
        super().__init__()
        self.interval, self.outer = config.cache_interval, config.cache_branch_id + 1
        self.reset()

    def reset(self) -> None:
        self.step, self.deep = 0, None

    def run(self, model: UNet2DConditionModel, *args: Any) -> tuple[Tensor]:
        deep = self.deep if self.step % self.interval else None
        output, self.deep = model._run("denoise", deep, self.outer, *args)
        self.step += 1
        return (output,)
