"""Settings that make MindSpore fast on small CPU machines. Importing this module does not import MindSpore.

`tune_cpu` runs once, when both this package and MindSpore have been imported, and only on the CPU target. Set
`MINDONE_DIFFUSERS_CPU_TUNING=0` to leave MindSpore's defaults alone.
"""

import os


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


def is_tuning_on() -> bool:
    """Whether the environment leaves it on."""
    return os.environ.get("MINDONE_DIFFUSERS_CPU_TUNING", "1") != "0"


def needs_onednn_cap(mindspore_version: str) -> bool:
    """Whether it is MindSpore >= 2.9, whose oneDNN picks a reference convolution on AVX-512 machines, about a hundred times slower, unless
    its instruction set is capped."""
    return tuple(int(part) for part in mindspore_version.split(".")[:2]) >= (2, 9)
