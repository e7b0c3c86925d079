"""Settings of MindSpore that its defaults get wrong for us. Importing this module does not import MindSpore.

`tune` runs once, when both this package and MindSpore have been imported. Set `MINDONE_DIFFUSERS_CPU_TUNING=0` to leave MindSpore's
defaults on the CPU alone, and `MINDONE_DIFFUSERS_HF32=1` for Ascend's faster float32.
"""

import atexit
import contextlib
import os


def tune() -> None:
    """The settings of the device that MindSpore runs on."""
    import mindspore as ms

    if ms.get_context("device_target") == "Ascend":
        set_hf32(os.environ.get("MINDONE_DIFFUSERS_HF32", "0") == "1")
    else:
        tune_cpu()


def set_hf32(allowed: bool) -> None:
    """Whether Ascend may round float32 inputs of convolutions and products to HF32 (11 bits of mantissa), what TF32 is on CUDA.

    CANN does so for convolutions by default; here it is off, as TF32 is in PyTorch's products, because a float32 model is loaded for its
    precision. MindSpore takes each of the settings once a process: one that the user has made before stays.
    """
    from mindspore.device_context.ascend import op_precision

    for setting in (op_precision.conv_allow_hf32, op_precision.matmul_allow_hf32):
        with contextlib.suppress(RuntimeError):
            setting(allowed)


def tune_cpu() -> None:
    """Launch operators synchronously and keep oneDNN on its fast convolutions.

    With asynchronous launch, an eager operator on a two-core machine now and then costs a whole scheduler tick: 200
    small operators take 1500 ms instead of 13 ms. MindSpore takes the setting only before its first operator.
    """
    import mindspore as ms

    if not is_tuning_on() or ms.get_context("device_target") != "CPU":
        return
    if needs_onednn_cap(ms.__version__):
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    ms.runtime.launch_blocking()
    atexit.register(_drop_last_copy)


def _drop_last_copy() -> None:
    """The operator that copies what a reshape cannot view keeps its last output until after MindSpore (before 2.10) has freed all memory,
    and frees it once more: the process would abort at its end. So let it be an output without memory."""
    import mindspore as ms

    copied = ms.Tensor([[1.0, 2.0]] * 2).transpose((1, 0)).reshape((4,))
    copied.untyped_storage().resize_(0)


def is_tuning_on() -> bool:
    """Whether the environment leaves it on."""
    return os.environ.get("MINDONE_DIFFUSERS_CPU_TUNING", "1") != "0"


def needs_onednn_cap(mindspore_version: str) -> bool:
    """Whether it is MindSpore >= 2.9, whose oneDNN picks a reference convolution on AVX-512 machines, about a hundred times slower, unless
    its instruction set is capped."""
    return tuple(int(part) for part in mindspore_version.split(".")[:2]) >= (2, 9)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
