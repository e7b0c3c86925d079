"""The table of functions `nn.functional` calls: the CPU's or the Ascend's.

The active table follows MindSpore's device target. `use_table("ascend")` selects the other one, so that the Ascend
lowering of a model can be compiled by MindSpore's front end on a machine that has no NPU. MindSpore caches what it
parsed, so select a table before a model's first compilation.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator

from . import native
from .device import device_target


class Table:
    """Attribute access to one device's functions; a plain object, which MindSpore's graph parser reads."""

    name: str
    attention_layout: str  # the axes of what `attention` takes, "BNSD" (batch, heads, tokens, size) or "BSND"

    def select(self, name: str) -> None:
        if name not in ("cpu", "ascend"):
            raise ValueError(f"Unknown op table {name!r}: expected 'cpu' or 'ascend'.")
        module = importlib.import_module(f".{name}", __package__)
        self.name, self.attention_layout = name, module.ATTENTION_LAYOUT
        for function in module.TABLE:
            setattr(self, function.__name__, function)
        if name == "cpu":
            for entry in native.NAMES:
                delattr(self, entry)

    def __getattr__(self, name: str) -> Callable:
        """A CPU entry that may have a native kernel, settled at its first use: then the kernels are compiled and loaded."""
        if name not in native.NAMES:
            raise AttributeError(f"The op table has no entry {name!r}.")
        from . import cpu

        function = native.entry(name) or getattr(cpu, name)
        setattr(self, name, function)
        return function


table = Table()
table.select("ascend" if device_target() == "Ascend" else "cpu")


@contextlib.contextmanager
def use_table(name: str) -> Iterator[Table]:
    """Within the context, `nn.functional` uses the named device's functions (for auditing, not for running)."""
    previous = table.name
    table.select(name)
    try:
        yield table
    finally:
        table.select(previous)
