"""Pyramid Attention Broadcast (arXiv:2408.12588): attentions give what they gave at the last step, the more often the less it changes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mindspore import Tensor

from ..core.errors import ConfigError
from ..core.logging import get_logger
from ..models.attention import Attention
from ..models.cache_utils import CacheConfig, CacheMixin, StepCache
from ..nn import functional as F
from .hooked_modules import Hook, HookedModules

logger = get_logger(__name__)

SPATIAL_BLOCKS = ("blocks", "transformer_blocks", "single_transformer_blocks", "layers", "visual_transformer_blocks")
TEMPORAL_BLOCKS = ("temporal_transformer_blocks",)
CROSS_BLOCKS = ("blocks", "transformer_blocks", "layers")


@dataclass
class PyramidAttentionBroadcastConfig(CacheConfig):
    """
    Args:
        spatial_attention_block_skip_range, temporal_attention_block_skip_range, cross_attention_block_skip_range: attentions of this kind
            are computed at one of so many steps; None for at all. If all three are None, every other step for spatial ones.
        spatial_attention_timestep_skip_range, temporal_attention_timestep_skip_range, cross_attention_timestep_skip_range: between these
            timesteps; outside, at every step.
        spatial_attention_block_identifiers, temporal_attention_block_identifiers, cross_attention_block_identifiers: patterns of the
            names of the attentions of this kind. The first two are for attentions to the tokens themselves, the last for those to a
            context.
        current_timestep_callback: gives the timestep of the step that is about to run, e.g. `lambda: pipe.current_timestep`.
    """

    spatial_attention_block_skip_range: int | None = None
    temporal_attention_block_skip_range: int | None = None
    cross_attention_block_skip_range: int | None = None
    spatial_attention_timestep_skip_range: tuple[int, int] = (100, 800)
    temporal_attention_timestep_skip_range: tuple[int, int] = (100, 800)
    cross_attention_timestep_skip_range: tuple[int, int] = (100, 800)
    spatial_attention_block_identifiers: tuple[str, ...] = SPATIAL_BLOCKS
    temporal_attention_block_identifiers: tuple[str, ...] = TEMPORAL_BLOCKS
    cross_attention_block_identifiers: tuple[str, ...] = CROSS_BLOCKS
    current_timestep_callback: Callable[[], int] | None = None

    def make_cache(self, model: CacheMixin) -> StepCache:
        if self.current_timestep_callback is None:
            raise ConfigError("current_timestep_callback is needed to know where a step is: pass e.g. `lambda: pipe.current_timestep`.")
        if all(getattr(self, f"{kind}_attention_block_skip_range") is None for kind in _KINDS):
            logger.warning("No ..._attention_block_skip_range is given: spatial attentions are computed at every other step.")
            self.spatial_attention_block_skip_range = 2
        return _PyramidAttentionBroadcast(model, self)


def apply_pyramid_attention_broadcast(module: CacheMixin, config: PyramidAttentionBroadcastConfig) -> None:
    """`module.enable_cache(config)`, as a function."""
    module.enable_cache(config)


_KINDS = ("spatial", "temporal", "cross")


def kinds_of_attention(model: CacheMixin, config: Any, kinds: tuple[str, ...]) -> dict[str, tuple[Attention, str]]:
    """The attentions that a config means, by name, and the kind of each."""
    found = {}
    for name, module in model.cells_and_names():
        if isinstance(module, Attention):
            for kind in kinds:
                wanted = getattr(config, f"{kind}_attention_block_skip_range") is not None
                patterns = getattr(config, f"{kind}_attention_block_identifiers")
                if wanted and module.is_cross_attention == (kind == "cross") and any(re.search(pattern, name) for pattern in patterns):
                    found[name] = module, kind
                    break
    return found


def within(timestep: float, limits: tuple[float, float]) -> bool:
    return limits[0] < timestep < limits[1]


class _Broadcast(Hook):
    def construct(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.step_action == "skip":
            return self.step_state_0
        output = self.unhooked(self, *args, **kwargs)
        F.assign(self.step_state_0, output)
        return output


class _PyramidAttentionBroadcast(StepCache):
    """Nothing is read from the device. In graph mode there is a graph for each combination of kinds of attention that a step computes."""

    def __init__(self, model: CacheMixin, config: PyramidAttentionBroadcastConfig):
        super().__init__()
        found = kinds_of_attention(model, config, _KINDS)
        self.config, self.step = config, 0
        self.kinds = {name: kind for name, (_, kind) in found.items()}
        self.hooked = HookedModules({name: module for name, (module, _) in found.items()}, _Broadcast, lambda name, output: (output,))

    def run(self, model: CacheMixin, *args: Any) -> tuple:
        timestep = self.config.current_timestep_callback()
        actions = {kind: self._action(kind, timestep) for kind in _KINDS}
        output = self.hooked.run(model, args, {name: actions[kind] for name, kind in self.kinds.items()})
        self.step += 1
        return output

    def _action(self, kind: str, timestep: float) -> str:
        every = getattr(self.config, f"{kind}_attention_block_skip_range")
        skips = every is not None and self.step % every and within(timestep, getattr(self.config, f"{kind}_attention_timestep_skip_range"))
        return "skip" if skips else "compute"

    def reset(self) -> None:
        self.step = 0
