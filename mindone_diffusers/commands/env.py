"""Describe this installation, for a bug report: versions, the machine, and what is fast or slow on it. Copy the lines into the issue."""

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path

from ..backend import tuning
from ..version import __version__

PACKAGES = (
    "mindspore", "numpy", "transformers", "tokenizers", "huggingface_hub", "safetensors", "pillow", "torch", "diffusers",
)  # fmt: skip
VARIABLES = (
    "MINDONE_DIFFUSERS_CPU_TUNING", "MINDONE_DIFFUSERS_NATIVE", "MINDONE_DIFFUSERS_HF32", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(arguments: argparse.Namespace) -> None:
    """Print the description. It has no paths of the user's, no names of machine or user, and no values of variables but `VARIABLES`."""
    facts = {"mindone_diffusers": __version__, "Python": platform.python_version()}
    facts |= {name: _version(name) for name in PACKAGES}
    facts |= {"Platform": platform.platform(), "Processor": _processor(), "Memory": _memory(), "Ascend NPU": _npus()}
    variables = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    facts |= {"Environment": ", ".join(variables) or "nothing set that matters"}
    try:
        facts |= _device()
    except Exception as error:  # a broken MindSpore is what a bug report is about
        facts["MindSpore"] = f"does not start: {type(error).__name__}: {error}"
    for name, fact in facts.items():
        print(f"- {name}: {' '.join(fact.split())}".replace(f"{Path.home()}/", "~/"))


def _version(package: str) -> str:
    """The installed version, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    names = []
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {tuning.usable_cores()} cores"


def _memory() -> str:
    if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return "unknown"
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (os.sysconf(name) * page / 2**30 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    return f"{total:.1f} GiB, {free:.1f} free"


def _npus() -> str:
    """Ascend devices as the driver shows them, whether or not MindSpore can use them."""
    devices = [path for path in Path("/dev").glob("davinci*") if path.name.removeprefix("davinci").isdecimal()]
    return f"{len(devices)} devices" if devices else "none"


def _device() -> dict[str, str]:
    """What MindSpore runs on, and what that means for speed."""
    import mindspore

    from ..backend.device import device_target

    target = device_target()
    if target != "CPU":
        return {"Device target": target}
    facts = {
        "Device target": target,
        "Native CPU kernels": _kernels(),
        "bfloat16": "weights and products, by the native kernels; the rest is computed in float32, because MindSpore has none",
    }
    if not tuning.is_tuning_on():
        return facts | {"CPU tuning": "off: eager mode can be 50 times slower, and MindSpore >= 2.9 convolutions 100 times"}
    facts["Operator launch"] = "blocking (mindspore.runtime.launch_blocking), which is fast in eager mode"
    if tuning.needs_onednn_cap(mindspore.__version__):
        facts["oneDNN"] = f"limited to {os.environ['ONEDNN_MAX_CPU_ISA']}, because MindSpore >= 2.9 has slow convolutions with more"
    return facts


def _kernels() -> str:
    """Whether there are native kernels, which are compiled if they were not yet."""
    from ..backend import native

    reason = "MINDONE_DIFFUSERS_NATIVE=0"
    if os.environ.get("MINDONE_DIFFUSERS_NATIVE", "1") != "0":
        try:
            native.build()
            return "compiled; normalisation, activations and attention are fast in float32"
        except native.BuildError as error:
            reason = str(error)
    return f"none ({reason}); MindSpore's normalisation, activations and attention are 2 to 25 times slower"
