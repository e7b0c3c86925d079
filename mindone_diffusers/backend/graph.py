"""Graph mode: `mindspore.jit` of a cell's methods, counting compilations and forgetting stale ones."""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mindspore as ms

from ..core.errors import UnsupportedError

api = importlib.import_module(ms.jit.__module__)
"""MindSpore's own: `mindspore.common.api`, and `mindspore.graph.api` since 2.9, where the old name is a copy that warns."""

is_differentiating: Callable[[], bool] = api._pynative_executor._executor.grad_flag
"""Whether what is computed now will be differentiated."""


def in_global_graph_mode() -> bool:
    """Whether the user has set `mindspore.set_context(mode=mindspore.GRAPH_MODE)`."""
    return ms.get_context("mode") == ms.GRAPH_MODE


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Within the context, cells run eagerly, also in MindSpore's global graph mode."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


def check_options(jit_level: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError for a level other than "O0" and "O1" ("O2" is gone from MindSpore 2.9), and UnsupportedError for graphs of unknown
    shapes: the models' Python goes by the shapes, as the kernels' checks do."""
    if jit_level not in ("O0", "O1"):
        raise ValueError(f"Unknown jit_level {jit_level!r}: expected 'O0' or 'O1'.")
    if options.get("dynamic"):
        raise UnsupportedError("dynamic graphs are not possible: leave `dynamic` out. Each shape is compiled once, and kept on disk.")


def jit(function: Callable, jit_level: str = "O0", **options: Any) -> Callable:
    """`mindspore.jit`, by abstract syntax tree."""
    return ms.jit(function, jit_level=jit_level, **options)


def compilations() -> int:
    """How many graphs MindSpore has compiled by `jit` in this process so far."""
    return len(api.ms_compile_cache)


def forget_compiled(cell: ms.nn.Cell) -> None:
    """Have the cell's methods compiled again at their next call.

    MindSpore keeps a compiled graph by the cell's creation time and the arguments' signature, and does not see that
    an attribute, a sub-cell or a Parameter object was replaced.
    """
    exchange_compiled(cell, time.time_ns())


def exchange_compiled(cell: ms.nn.Cell, created: int) -> int:
    """Have MindSpore use the graphs that it compiled while the cell's creation time was `created`, and return that of its graphs so far."""
    before, cell._create_time = cell._create_time, created
    return before


def compile_model(
    model: Any,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """What `torch.compile(model)` is in ported code: the same model, or pipeline, in graph mode.

    Args:
        model: anything with `enable_graph_mode`.
        fullgraph: graphs are always whole.
        dynamic: accepted; graphs are of fixed shapes, one a shape, and are kept on disk.
        backend: "inductor", which stands for MindSpore's compiler.
        mode: "reduce-overhead" and "max-autotune" have an Ascend NPU launch captured graphs; "default" and others do not.
        options: for `mindspore.jit`.
        disable: leave the model as it is.

    Raises:
        ValueError: an unknown `mode`, or another `backend`.
    """
    if mode not in (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"):
        raise ValueError(f"mode is {mode!r}; expected 'default', 'reduce-overhead', 'max-autotune' or 'max-autotune-no-cudagraphs'")
    if backend != "inductor":
        raise ValueError(f"backend is {backend!r}; MindSpore compiles the graphs here: leave it out")
    if disable:
        return model
    if mode in ("reduce-overhead", "max-autotune") and ms.get_context("device_target") == "Ascend":
        ms.runtime.set_kernel_launch_capture(True)
    return model.enable_graph_mode(**(options or {}))
