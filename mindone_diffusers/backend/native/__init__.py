"""Optional C++ kernels for the CPU, compiled for the machine when the first one is wanted.

MindSpore's own CPU kernels are 3 to 25 times slower than PyTorch's in normalisation, activations and attention, and 2 to
4 times slower than they could be in products and convolutions. The C++ files here have those in float32; the system's
compiler turns them into a library in the user's cache folder, which takes some seconds once. `operators.py` makes
MindSpore operators of it, and `backend/table.py` puts them in the CPU table. Without a compiler, or with
`MINDONE_DIFFUSERS_NATIVE=0`, MindSpore's operators do the work.

Importing this package compiles and loads nothing.
"""

import ctypes
import functools
import hashlib
import importlib
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import mindspore as ms

from ...core import mt19937
from ...core.files import replaced_file
from ...core.logging import get_logger
from ..tuning import usable_cores

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread", "-Wno-psabi")

# The entries of the CPU table that have a kernel.
NAMES = ("attention", "conv2d", "dropout", "geglu", "gelu", "group_norm", "interpolate_nearest", "layer_norm", "linear", "silu")

logger = get_logger(__name__)


class BuildError(Exception):
    """Why there are no native kernels."""


def available() -> bool:
    """Whether the kernels can be used; builds and loads them at the first call."""
    return library() is not None


def entry(name: str) -> Callable | None:
    """The function to put into the CPU table under `name`, or None where MindSpore's operators have to do."""
    if name not in NAMES or not available():
        return None
    return getattr(importlib.import_module(".operators", __package__), name)


@functools.cache
def library() -> Path | None:
    """The compiled library, built if it is not in the cache yet; None, and one line of log, if there is none."""
    if os.environ.get("MINDONE_DIFFUSERS_NATIVE", "1") == "0":
        logger.info("MINDONE_DIFFUSERS_NATIVE=0: MindSpore's CPU operators are used instead of the native kernels.")
        return None
    try:
        path = build()
        ctypes.CDLL(str(path)).set_threads(threads())
    except (BuildError, OSError) as error:
        logger.warning(
            f"No native CPU kernels ({error}): MindSpore's operators are used, which are slower. Install a C++ compiler, or "
            "set MINDONE_DIFFUSERS_NATIVE=0 to choose this."
        )
        return None
    return path


def threads() -> int:
    """How many threads the kernels use: OMP_NUM_THREADS, if it was set when Python started (MindSpore sets it to 1 later, of which
    `os.environ` knows nothing), or one for each core that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(wanted) if wanted.isdecimal() and int(wanted) else usable_cores()


def build() -> Path:
    """Compile the C++ files for this machine, unless that was done before. Processes that do so together do no harm.

    Raises:
        BuildError: there is no compiler, it failed, or the cache folder belongs to somebody else.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or [shutil.which("c++") or shutil.which("g++")]
    if compiler[0] is None:
        raise BuildError("there is no C++ compiler")
    sources = sorted(FOLDER.glob("*.cpp"))
    texts = [path.read_text() for path in (*sorted(FOLDER.glob("*.h")), *sources)]
    key = "\n".join((*texts, *compiler, *FLAGS, _run([*compiler, "--version"]), _processor(), ms.__version__))
    path = cache_folder() / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if not path.exists():
        with replaced_file(path) as temporary:
            _run([*compiler, *FLAGS, "-o", str(temporary), *map(str, sources)])
    return path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/mindone_diffusers`, by default under `~/.cache`; what lies there is executed, so it must be the user's alone."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindone_diffusers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BuildError(f"{folder} must belong to you and be writable by you alone")
    return folder


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    except FileNotFoundError:
        raise BuildError(f"there is no C++ compiler {command[0]}") from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason = (error.stderr or str(error)).strip().splitlines()
        raise BuildError(f"{command[0]} failed: {reason[0] if reason else error}") from None


def _processor() -> str:
    """The processor's name and instruction sets: what `-march=native` looks at."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "CPU part", "Features"))}))


@functools.cache
def _functions() -> dict[str, Callable]:
    from .arrays import functions

    return functions()


mt19937.kernels = _functions
