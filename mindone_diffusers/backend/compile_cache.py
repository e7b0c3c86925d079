"""Compiled graphs kept on disk, so that a model that was compiled in an earlier process takes a fraction of a second.

MindSpore can keep graphs itself (`MS_COMPILER_CACHE_ENABLE`), but it numbers a process's graphs in the order they are compiled, and gives
graph 0 of the last run to the first compilation of this one, whatever model that is. So each process has a folder of its own with those
numbers here, and a graph gets its number just before its compilation asks for it, from a store in which its name is a digest of all it was
made from: MindSpore's version, this package's source, the native kernels, the cell with everything that hangs on it but the names and
values of its Parameters, and the arguments' shapes and dtypes. MindSpore finds a graph's Parameters by their names, so that they have
those of their places in the cell meanwhile: of blocks that are alike only the first is compiled. A cell that holds something this cannot
describe, such as a processor of the user's, is compiled as ever.

`MINDONE_DIFFUSERS_COMPILE_CACHE=0` turns it off.
"""

import atexit
import contextlib
import functools
import itertools
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms

from ..core.files import replaced_file
from ..core.logging import get_logger
from . import attention, graph, native
from .description import PACKAGE, Indescribable, describe, describe_arguments, digest
from .device import device_target
from .graph import api
from .shared_blocks import shared_blocks
from .table import table

GRAPHS = 300
"""How many graphs the store keeps, a few megabytes each; the least recently used go."""

logger = get_logger(__name__)


class KeptGraphs:
    """A method of a cell, compiled; its graphs are looked for in the store, and put there.

    Args:
        cell: the cell.
        method: its method's name.
        options: of `graph.jit`.
    """

    def __init__(self, cell: ms.nn.Cell, method: str, options: Mapping[str, Any]):
        self._cell, self._method, self._options = cell, method, options
        self._compiled = graph.jit(getattr(cell, method), **options)
        self._known: set[str | None] = set()

    def __call__(self, *args: Any) -> Any:
        if graph.is_differentiating():
            return self._compiled(*args)
        try:
            signature = describe_arguments(args)
        except Indescribable:
            signature = None
        if signature in self._known:
            return self._compiled(*args)
        self._known.add(signature)
        key = self._key(signature) if signature is not None and is_on() else None
        with shared_blocks(self._cell, getattr(self._cell, "_repeated_blocks", ())):
            if key is None:
                return self._compiled(*args)
            with _named_by_place(self._cell):
                return _with_kept_graph(key, functools.partial(self._compiled, *args))

    def _key(self, signature: str) -> str | None:
        """The name of the graph in the store; None, and a line of log, where the cell has no description."""
        try:
            return digest(itertools.chain([_surroundings(), self._method, repr(self._options), signature], describe(self._cell)))
        except Indescribable as reason:
            logger.info(f"{type(self._cell).__name__} is compiled without looking for its graph on disk: {reason}")
            return None


def is_on() -> bool:
    """Whether graphs are kept: unless the environment turns it off, or has MindSpore's own cache on, or it once did not work."""
    ours, theirs = os.environ.get("MINDONE_DIFFUSERS_COMPILE_CACHE", "1"), os.environ.get("MS_COMPILER_CACHE_ENABLE")
    return ours != "0" and theirs is None and _process.works


class _Process:
    """This process's folder, which MindSpore looks into for graphs by number, and the number of the next one."""

    def __init__(self) -> None:
        self.works, self.next, self.lock = True, 0, threading.RLock()

    @functools.cached_property
    def folder(self) -> Path:
        folder = tempfile.mkdtemp(prefix="mindone_diffusers-graphs-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


_process = _Process()


def _with_kept_graph(key: str, run: Callable[[], Any]) -> Any:
    """What `run` returns, whose one compilation is spared if the store has its graph, and is kept there if not."""
    try:
        store = native.cache_folder() / "graphs"
        store.mkdir(exist_ok=True)
    except (native.BuildError, OSError) as reason:
        logger.info(f"compiled graphs are not kept: {reason}")
        _process.works = False
        return run()
    kept = store / f"{key}.mindir"
    with _process.lock:
        before, number = graph.compilations(), f"rank_{os.environ.get('RANK_ID', '0')}/graph_cache/compile_cache_{_process.next}.mindir"
        numbered = _process.folder / number
        numbered.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(kept, numbered)
            os.utime(kept)
        except FileNotFoundError:
            pass
        found = numbered.exists()
        _process.works = False  # until the number that comes next is known
        with _mindspore_cache(_process.folder):
            result = run()
        compiled = graph.compilations() - before
        if compiled == 0:
            numbered.unlink(missing_ok=True)
        elif compiled == 1 and numbered.exists():
            _process.next += 1
            if not found:
                with replaced_file(kept) as temporary:
                    shutil.copyfile(numbered, temporary)
                _prune(store)
        else:
            return result
        _process.works = True
    return result


@contextlib.contextmanager
def _named_by_place(cell: ms.nn.Cell) -> Iterator[None]:
    """Within the context, the Parameters of a cell have the names they would have if it were in no other."""
    names: dict[str, ms.Parameter] = {}
    for path, owner in cell.cells_and_names():
        names |= {f"{path}.{name}".lstrip("."): parameter for name, parameter in owner._params.items() if parameter is not None}
    before = [(parameter, parameter.name) for name, parameter in names.items() if parameter.name != name]
    for name, parameter in names.items():
        parameter.name = name
    try:
        yield
    finally:
        for parameter, name in before:
            parameter.name = name


@contextlib.contextmanager
def _mindspore_cache(folder: Path) -> Iterator[None]:
    """Within the context, MindSpore takes graphs from the folder, and puts them there, without asking which script is running."""
    names = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": str(folder), "MS_DEV_FORCE_USE_COMPILE_CACHE": "1"}
    script, before = folder / "script.py", api.entry_script_path
    script.touch()
    api.entry_script_path = str(script)  # it reads the script and what that imports, and fails where there is none, as in a notebook
    os.environ.update(names)
    try:
        with _without_its_warnings():
            yield
    finally:
        api.entry_script_path = before
        for name in names:
            del os.environ[name]


_WARNING = re.compile(rb"^\[WARNING\] PIPELINE\(.*ccsrc/frontend/jit/ps/(compile_cache_manager|resource)\.cc")


@contextlib.contextmanager
def _without_its_warnings() -> Iterator[None]:
    """MindSpore warns, from C++, that it has found a graph, and that it has not; other lines of the error output pass, a little late."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        real = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            written.seek(0)
            with os.fdopen(real, "wb") as output:
                output.writelines(line for line in written if not _WARNING.match(line))


def _prune(store: Path) -> None:
    files = sorted(store.glob("*.mindir"), key=lambda file: file.stat().st_mtime)
    for file in files[: max(len(files) - GRAPHS, 0)]:
        file.unlink(missing_ok=True)


def _surroundings() -> str:
    """What all graphs depend on."""
    chosen = table.name, attention.active_backend(), ms.get_context("enable_graph_kernel")
    return repr((ms.__version__, _source(), device_target(), str(native.library()), *chosen))


@functools.cache
def _source() -> str:
    """A digest of this package's modules."""
    return digest(part for file in sorted(PACKAGE.rglob("*.py")) for part in (str(file.relative_to(PACKAGE)), file.read_text()))
