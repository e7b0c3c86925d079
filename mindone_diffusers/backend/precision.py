"""Which dtypes a device computes in."""

import mindspore as ms

from ..core.logging import get_logger
from . import native
from .device import device_target

logger = get_logger(__name__)

_told = False


def runnable_dtype(dtype):
    """The dtype to compute in when `dtype` is asked for: float32 instead of bfloat16 on the CPU, where MindSpore has no bfloat16 kernels.
    It says so once."""
    global _told
    if dtype != ms.bfloat16 or device_target() != "CPU":
        return dtype
    if not _told:
        kept = ", but for the weights of linear layers and convolutions" if native.available() else ""
        logger.warning(f"MindSpore has no bfloat16 kernels for the CPU: float32 is used instead{kept}.")
        _told = True
    return ms.float32


def weight_dtype(dtype):
    """The dtype to hold the weights of linear layers and convolutions in when `dtype` is asked for: also on the CPU bfloat16, if there are
    the native kernels, which take it. Where the processor multiplies bfloat16, they round the other side of such a product, too."""
    runnable = runnable_dtype(dtype)
    return dtype if runnable == dtype or native.available() else runnable
