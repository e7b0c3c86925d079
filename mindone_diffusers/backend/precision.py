"""Which dtypes a device computes in."""

import mindspore as ms

from ..core.logging import get_logger
from .device import device_target

logger = get_logger(__name__)

_told = False


def runnable_dtype(dtype):
    """The dtype to hold parameters in when `dtype` is asked for: float32 instead of bfloat16 on the CPU, where MindSpore has no bfloat16
    kernels. It says so once."""
    global _told
    if dtype != ms.bfloat16 or device_target() != "CPU":
        return dtype
    if not _told:
        logger.warning("MindSpore has no bfloat16 kernels for the CPU: float32 is used instead.")
        _told = True
    return ms.float32
