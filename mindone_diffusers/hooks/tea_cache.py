"""TeaCache (arXiv:2411.19108): blocks are left out while the modulated input of the first has changed little.

PyTorch diffusers has none; the name and the calls are in its style.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor

from ..models.cache_utils import BlockCacheMixin, CacheConfig, CacheMixin, StepCache
from .block_caches import check_blocks, relative_change


@dataclass
class TeaCacheConfig(CacheConfig):
    """
    Args:
        threshold: all blocks are computed again when the estimated changes of their output have added up to this. More is faster and less
            exact.
        coefficients: of the polynomial that estimates the relative change of the output from that of the modulated input, the highest power
            first. They are a model's own (the paper fits them); by default the two changes are taken to be the same.
        num_inference_steps: steps of a whole drawing, the last of which is computed in full; None if that does not matter.
    """

    threshold: float = 0.2
    coefficients: tuple[float, ...] = (1.0, 0.0)
    num_inference_steps: int | None = None

    def make_cache(self, model: CacheMixin) -> StepCache:
        check_blocks(model, 1, "TeaCache")
        return _TeaCache(self)


def apply_tea_cache(module: CacheMixin, config: TeaCacheConfig) -> None:
    """`module.enable_cache(config)`, as a function."""
    module.enable_cache(config)


@dataclass
class _State:
    """Steps so far, the last one's modulated input, the changes since all blocks were computed, and what they added then."""

    step: int = 0
    input: Tensor | None = None
    change: float = 0.0
    added: tuple[Tensor, ...] | None = None


class _TeaCache(StepCache):
    """One number is read from the device at each step but the first and the last. In graph mode there are three graphs: the modulated
    input, all blocks, and what is around them."""

    def __init__(self, config: TeaCacheConfig):
        super().__init__()
        self.threshold, self.estimate, self.steps = config.threshold, np.poly1d(config.coefficients), config.num_inference_steps

    def run(self, model: BlockCacheMixin, *args: Any) -> tuple[Tensor]:
        state, last = self.state(model, _State), model.num_blocks
        (modulated,) = model._run("_modulated_input", *args)
        state.step += 1
        if state.added is not None and state.step != self.steps:
            state.change += float(self.estimate(relative_change(modulated, state.input)))
        else:
            state.change = self.threshold
        state.input = modulated
        if state.change < self.threshold:
            return model.run_part(last, last, args, residuals=state.added)[-1]
        state.change = 0.0
        _, state.added, output = model.run_part(0, last, args)
        return output
