"""First Block Cache: where the first block changes the hidden states as it did at an earlier step, so will the others.

The idea is TeaCache's (arXiv:2411.19108), the form ParaAttention's (github.com/chengzeyi/ParaAttention).
"""

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor

from ..models.cache_utils import BlockCacheMixin, CacheConfig, CacheMixin, StepCache
from .block_caches import check_blocks, relative_change


@dataclass
class FirstBlockCacheConfig(CacheConfig):
    """
    Args:
        threshold: how much what the first block adds may differ, relatively, from what it added when all blocks were last computed.
            More is faster and less exact.
    """

    threshold: float = 0.05

    def make_cache(self, model: CacheMixin) -> StepCache:
        check_blocks(model, 2, "First Block Cache")
        return _FirstBlockCache(self.threshold)


def apply_first_block_cache(module: CacheMixin, config: FirstBlockCacheConfig) -> None:
    """`module.enable_cache(config)`, as a function."""
    module.enable_cache(config)


@dataclass
class _State:
    """What the first block and the others added to their inputs when all were last computed."""

    first: Tensor | None = None
    others: tuple[Tensor, ...] | None = None


class _FirstBlockCache(StepCache):
    """One number is read from the device at each step but the first. In graph mode there are three graphs: the first block, the other
    ones, and what follows them."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def run(self, model: BlockCacheMixin, *args: Any) -> tuple[Tensor]:
        state, last = self.state(model, _State), model.num_blocks
        states, added, _ = model.run_part(0, 1, args)
        if state.first is not None and not relative_change(added[0], state.first) > self.threshold:
            return model.run_part(last, last, args, states, state.others)[-1]
        state.first = added[0]
        _, state.others, output = model.run_part(1, last, args, states)
        return output
