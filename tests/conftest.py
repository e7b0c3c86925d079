"""Tests side by side (`pytest -n 2`): each worker keeps to a core of its own, and its MindSpore to one thread."""

import collections
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        cores = sorted(os.sched_getaffinity(0))
        if worker["workercount"] > 1:
            os.sched_setaffinity(0, {cores[int(worker["workerid"][2:]) % len(cores)]})
    elif getattr(config.option, "numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"
        config.option.loadscopereorder = False  # in the order of `pytest_collection_modifyitems`, not by numbers of tests
        libraries = [os.environ.get("LD_PRELOAD"), _built(Path(__file__).with_name("one_core.cpp")), _allocator()]
        os.environ["LD_PRELOAD"] = " ".join(str(library) for library in libraries if library)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the most slow tests come first, so that no worker is left with one at the end."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def _built(source: Path) -> Path | None:
    """The library compiled from `source`; None without a compiler, and tests are slower."""
    compiler = shutil.which("c++")
    if compiler is None:
        return None
    library = Path(tempfile.mkdtemp(prefix="mindone_diffusers-tests-"), source.stem + ".so")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def _allocator() -> Path | None:
    """The jemalloc that MindSpore brings, if it does: compilers of graphs spend a quarter of their time in the C library's `malloc`."""
    library = Path(importlib.util.find_spec("mindspore").origin).parent / "lib" / "libjemalloc.so.2"
    return library if library.exists() else None
