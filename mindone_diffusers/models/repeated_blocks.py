"""A model that runs eagerly but for its repeated blocks, each a compiled graph: of blocks that are alike one is compiled."""

import contextlib
import functools
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
        arguments = _signature(type(self)).bind(self, *args, **kwargs)
        arguments.apply_defaults()
        return self.compiled_block(*(mutable(value) if isinstance(value, (dict, tuple)) else value for value in arguments.args[1:]))


@functools.cache
def _signature(kind: type[nn.Module]) -> inspect.Signature:
    return inspect.signature(kind.construct)


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
        attributes = {block: {"compiled_block": compiled} for block, compiled in self._compiled.items()}
        with graph.eager(), self._own_graphs(), nn.overridden(CompiledBlock, attributes):
            return self._run(*args)

    @contextlib.contextmanager
    def _own_graphs(self) -> Iterator[None]:
        """Within the context, MindSpore uses these graphs of the blocks."""
        before = {block: graph.exchange_compiled(block, self._created) for block in self._compiled}
        try:
            yield
        finally:
            for block, created in before.items():
                graph.exchange_compiled(block, created)
