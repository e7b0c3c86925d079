"""The device MindSpore runs on."""

import mindspore as ms

from ..core.errors import UnsupportedError


def device_target() -> str:
    """MindSpore's current target: `"CPU"` or `"Ascend"`."""
    return ms.get_context("device_target")


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
