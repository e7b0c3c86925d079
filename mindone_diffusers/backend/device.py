"""The device MindSpore runs on, and the settings that make small CPU machines fast.

`tune_cpu` runs once, when the package is imported, and only on the CPU target. Set `MINDONE_DIFFUSERS_CPU_TUNING=0` to
leave MindSpore's defaults alone.
"""

import os

import mindspore as ms

from ..core.errors import UnsupportedError


def device_target() -> str:
    """MindSpore's current target: `"CPU"` or `"Ascend"`."""
    return ms.get_context("device_target")


def tune_cpu() -> None:
    """Launch operators synchronously and keep oneDNN on its fast convolutions.

    With asynchronous launch, an eager operator on a two-core machine now and then costs a whole scheduler tick: 200
    small operators take 1500 ms instead of 13 ms. MindSpore >= 2.9 ships a oneDNN which picks a reference
    convolution on AVX-512 machines, about a hundred times slower, unless its instruction set is capped.
    """
    if os.environ.get("MINDONE_DIFFUSERS_CPU_TUNING", "1") == "0" or device_target() != "CPU":
        return
    if tuple(int(part) for part in ms.__version__.split(".")[:2]) >= (2, 9):
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    ms.runtime.launch_blocking()


def check_device(device: str) -> None:
    """Accept the device MindSpore already runs on, by torch's or MindSpore's name.

    Raises:
        UnsupportedError: for another device. MindSpore has one device target a process, chosen before the first operator runs.
    """
    name = str(device).lower().split(":")[0]
    wanted = {"cpu": "CPU", "npu": "Ascend", "ascend": "Ascend"}.get(name)
    target = device_target()
    if wanted is None:
        raise UnsupportedError(
            f"Device {device!r} is not one MindSpore runs these models on: leave `.to({device!r})` out. The models are already on "
            f"MindSpore's device target, {target}; choose it at the start of the program with mindspore.set_device('Ascend') or "
            "mindspore.set_device('CPU')."
        )
    if wanted != target:
        raise UnsupportedError(
            f"MindSpore runs on {target} in this process and cannot move a model to {wanted}: call mindspore.set_device({wanted!r}) "
            "before anything else."
        )
