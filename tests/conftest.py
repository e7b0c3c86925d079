"""Tests side by side (`pytest -n 2`): each worker keeps to a core of its own, and its MindSpore to one thread."""

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
        _preload(Path(__file__).with_name("one_core.cpp"))


def _preload(source: Path) -> None:
    """Have processes started from now on use the library compiled from `source`; without a compiler they are slower."""
    compiler = shutil.which("c++")
    if compiler is not None:
        library = Path(tempfile.mkdtemp(prefix="mindone_diffusers-tests-"), source.stem + ".so")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        os.environ["LD_PRELOAD"] = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
