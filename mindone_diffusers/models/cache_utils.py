"""What models need for step caches, which leave out parts of a denoising step that hardly change from one to the next (`hooks/`)."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from typing import Any, ClassVar

from mindspore import Tensor

from ..backend import graph
from ..core.logging import get_logger
from .inputs import mutable
from .modeling_utils import ModelMixin

logger = get_logger(__name__)


class StepCache(ABC):
    """What runs a model's steps while it is enabled. It keeps a state for each context (see `CacheMixin.cache_context`)."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}

    @abstractmethod
    def run(self, model: "CacheMixin", *args: Any) -> tuple:
        """The output of a step: of `model.construct(*args)`, or about that."""

    def state(self, model: "CacheMixin", new: Callable[[], Any], default: str | None = None) -> Any:
        """The state of the current context; `new` makes it at the first step.

        Args:
            default: the context where there is none.

        Raises:
            ValueError: there is no context, and no default.
        """
        name = model.active_cache_context or default
        if name is None:
            raise ValueError(
                "No cache context is set: call the model within `with model.cache_context(name):`, which tells the cache whose steps these "
                "are."
            )
        return self._states.setdefault(name, new())

    def reset(self) -> None:
        """Forget all steps."""
        self._states = {}


class CacheConfig(ABC):
    """Base of the caches' settings."""

    @abstractmethod
    def make_cache(self, model: "CacheMixin") -> StepCache:
        """The cache for a model.

        Raises:
            ValueError: the settings, or the model, are not for this cache.
        """


class CacheMixin(ModelMixin):
    """A model whose steps can be cached. It comes before other bases."""

    _not_in_graphs: ClassVar[tuple[str, ...]] = (*ModelMixin._not_in_graphs, "_cache_config", "_step_cache", "active_cache_context")
    _cache_config: CacheConfig | None = None
    _step_cache: StepCache | None = None
    active_cache_context: str | None = None

    @property
    def is_cache_enabled(self) -> bool:
        return self._cache_config is not None

    def enable_cache(self, config: CacheConfig) -> None:
        """Cache parts of the steps from now on.

            model.enable_cache(FirstBlockCacheConfig(threshold=0.1))

        Args:
            config: what and how, e.g. a `FirstBlockCacheConfig`.

        Raises:
            ValueError: a cache is enabled already, `config` is of another kind, or not for this model.
        """
        if self.is_cache_enabled:
            raise ValueError(f"A {type(self._cache_config).__name__} is enabled already: call disable_cache() first.")
        if not isinstance(config, CacheConfig):
            raise ValueError(f"Cache config {type(config)} is not supported; expected one of mindone_diffusers.hooks.")
        self._step_cache = config.make_cache(self)
        self._cache_config = config

    def disable_cache(self) -> None:
        """Compute every step in full again."""
        if not self.is_cache_enabled:
            logger.warning("No cache is enabled, so there is nothing to disable.")
        kept = {variant: graphs for variant, graphs in self._other_variants.items() if self._step_cache not in variant}
        self._other_variants = kept
        self._cache_config = self._step_cache = None

    @contextlib.contextmanager
    def cache_context(
        self,
        name: str,
        *,
        step_index: int | None = None,
        num_inference_steps: int | None = None,
        timestep: float | Tensor | None = None,
        sigma: float | None = None,
    ) -> Iterator[None]:
        """Within the context, calls are the steps of one of several predictions that alternate, each of which has its own cache.

        Args:
            name: of the prediction, e.g. "cond", "uncond", or "cond_uncond" for both in one batch.
            step_index, num_inference_steps, timestep, sigma: where the loop is; no cache that is here asks for them.
        """
        self.active_cache_context = name
        try:
            yield
        finally:
            self.active_cache_context = None

    def _reset_stateful_cache(self) -> None:
        """Forget the steps so far: pipelines call it at the end."""
        if self._step_cache is not None:
            self._step_cache.reset()
        self.active_cache_context = None

    def _run(self, core: str, *args: Any) -> tuple:
        if core != "construct" or self._step_cache is None:
            return super()._run(core, *args)
        return self._step_cache.run(self, *args)

    def run_uncached(self, *args: Any) -> tuple:
        """`construct`, as without a cache."""
        return super()._run("construct", *args)

    def run_eagerly(self, *args: Any) -> tuple:
        """`construct`, as without a cache and without graph mode."""
        if not self._filled:
            self.fill_parameters()
        with graph.eager():
            return self._run_core("construct", *args)

    @contextlib.contextmanager
    def cached_variant(self, *key: Hashable) -> Iterator[None]:
        """Meanwhile, the cache has changed the model into another one of itself, whose graphs are kept until the cache is disabled."""
        before = self._variant
        self._switch_variant((*before, self._step_cache, *key))
        try:
            yield
        finally:
            self._switch_variant(before)


class BlockCacheMixin(CacheMixin):
    """A model that is a sequence of blocks. Its `construct` is these three, one after the other, with all blocks in between.

    Attributes:
        num_blocks: how many there are.
    """

    num_blocks: int

    def before_blocks(self, *args: Any) -> tuple[tuple[Tensor, ...], tuple]:
        """From the arguments of `construct`: the states that go from block to block, the hidden states first, and what every block is
        given beside them."""
        raise NotImplementedError

    def run_blocks(self, states: tuple[Tensor, ...], conditions: tuple, start: int, stop: int) -> tuple[Tensor, ...]:
        """The states after the blocks from `start` to before `stop`."""
        raise NotImplementedError

    def after_blocks(self, states: tuple[Tensor, ...], conditions: tuple) -> Tensor:
        """The output."""
        raise NotImplementedError

    def modulated_input(self, states: tuple[Tensor, ...], conditions: tuple) -> Tensor:
        """What the first block's attention is given: the hidden states, normalised, scaled and shifted as the timestep has it."""
        raise NotImplementedError

    def run_part(
        self,
        start: int,
        stop: int,
        args: tuple,
        states: tuple[Tensor, ...] | None = None,
        residuals: tuple[Tensor, ...] | None = None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Some of the blocks, in graph mode as a graph of their own.

        Args:
            start, stop: the blocks from the first to before the second.
            args: the arguments of `construct`.
            states: what goes into block `start`; None for what goes into the first.
            residuals: added to the states, or to the first of them.

        Returns:
            The states after these blocks, what they added, and after the last block the model's output.
        """
        outputs = self._run("_part", start, stop, mutable(states), mutable(residuals), *args)
        count = (len(outputs) - (stop == self.num_blocks)) // 2
        return outputs[:count], outputs[count : 2 * count], outputs[2 * count :]

    def _part(
        self, start: int, stop: int, states: tuple[Tensor, ...] | None, residuals: tuple[Tensor, ...] | None, *args: Any
    ) -> tuple[Tensor, ...]:
        first, conditions = self.before_blocks(*args)
        if states is None:
            states = first
        if residuals is not None:
            for i in range(len(residuals)):
                states = states[:i] + (states[i] + residuals[i],) + states[i + 1 :]
        after, added = states, ()
        if start < stop:
            after = self.run_blocks(states, conditions, start, stop)
            for i in range(len(after)):
                added += (after[i] - states[i],)
        kept = after + added if start < stop else ()
        return kept + (self.after_blocks(after, conditions),) if stop == self.num_blocks else kept

    def _modulated_input(self, *args: Any) -> tuple[Tensor]:
        states, conditions = self.before_blocks(*args)
        return (self.modulated_input(states, conditions),)
