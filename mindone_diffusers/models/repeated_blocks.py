"""A model that runs eagerly but for its repeated blocks, each a compiled graph: of blocks that are alike one is compiled."""

import contextlib
import inspect
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from .. import nn
from ..backend import graph
from ..backend.compile_cache import KeptGraphs
from .inputs import mutable


class CompiledBlock:
    """What a block is meanwhile, beside what it was: its calls run `compiled_block`."""

    compiled_block: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if graph.is_differentiating():
            return super().__call__(*args, **kwargs)
        arguments = inspect.signature(self.construct).bind(*args, **kwargs)
        arguments.apply_defaults()
        return self.compiled_block(*(mutable(value) if isinstance(value, (dict, tuple)) else value for value in arguments.args))


class RepeatedBlocks:
    """Runs a model's method with compiled blocks.

    Args:
        model: the model.
        classes: names of the blocks' classes. Of a block in another one, only the outer is compiled.
        run: the method, eagerly.
        options: of `graph.jit`.
    """

    def __init__(self, model: nn.Module, classes: Collection[str], run: Callable[..., tuple], options: Mapping[str, Any]):
        blocks: dict[str, nn.Module] = {}
        for path, cell in model.cells_and_names():
            if type(cell).__name__ in classes and not any(path.startswith(f"{outer}.") for outer in blocks):
                blocks[path] = cell
        self._compiled = {cell: KeptGraphs(cell, "construct", options) for cell in blocks.values()}
        self._run, self._created = run, time.time_ns()

    def __call__(self, *args: Any) -> tuple:
        with graph.eager(), self._compiled_blocks():
            return self._run(*args)

    @contextlib.contextmanager
    def _compiled_blocks(self) -> Iterator[None]:
        """Within the context, the blocks' calls run these graphs."""
        before = {}
        for block, compiled in self._compiled.items():
            before[block] = type(block), graph.exchange_compiled(block, self._created)
            block.__class__ = nn.overridden(type(block), CompiledBlock)
            block.compiled_block = compiled
        try:
            yield
        finally:
            for block, (kind, created) in before.items():
                del block.compiled_block
                block.__class__ = kind
                graph.exchange_compiled(block, created)
