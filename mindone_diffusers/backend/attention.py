"""The backends of attention by name, and the one function that decides which of a device's kernels computes it.

    with attention_backend("math"):
        image = pipe(prompt).images[0]

The kernels themselves are `attention` of each op table.
"""

import contextlib
import os
from collections.abc import Iterator
from enum import Enum

import mindspore as ms
from mindspore import ops

from ..core.dtypes import dtype_name
from ..core.errors import ConfigError, UnsupportedError
from . import native
from .ascend_operators import FUSED_ATTENTION
from .common import ATTENTION_SCORE_BYTES
from .table import table


class AttentionBackendName(str, Enum):
    """Ways to compute attention: ours, and PyTorch diffusers' names of the same things.

    NATIVE, XFORMERS: what `choose` finds best; the default, on any device.
    MATH, _NATIVE_MATH: two products and a softmax. The scores of all queries are in memory at once.
    CHUNKED, _NATIVE_EFFICIENT: the same for a few queries at a time.
    FLASH, _NATIVE_NPU: Ascend's flash attention (arXiv:2307.08691). _NATIVE_FLASH: the same, or on the CPU the compiled kernel.
    PROMPT_FLASH, FUSED_INFER: Ascend's kernels for inference, which have no gradient.
    """

    NATIVE = "native"
    MATH = "math"
    CHUNKED = "chunked"
    FLASH = "flash"
    PROMPT_FLASH = "prompt_flash"
    FUSED_INFER = "fused_infer"
    XFORMERS = "xformers"
    _NATIVE_EFFICIENT = "_native_efficient"
    _NATIVE_FLASH = "_native_flash"
    _NATIVE_MATH = "_native_math"
    _NATIVE_NPU = "_native_npu"


# What each name stands for on an op table: a kernel, or "best".
_EVERYWHERE = {
    "native": "best", "xformers": "best", "math": "math", "_native_math": "math", "chunked": "chunked", "_native_efficient": "chunked",
}  # fmt: skip
KERNELS = {
    "cpu": {**_EVERYWHERE, "_native_flash": "native"},
    "ascend": {
        **_EVERYWHERE, "_native_flash": "flash", "_native_npu": "flash", "flash": "flash", "prompt_flash": "prompt_flash",
        "fused_infer": "fused_infer",
    },
}  # fmt: skip

_active: str | None = None


@contextlib.contextmanager
def attention_backend(backend: str | AttentionBackendName = AttentionBackendName.NATIVE) -> Iterator[None]:
    """Within the context, attention is computed by the backend of this name, but in models that `set_attention_backend` gave their own.

    A model's graphs are kept for each backend. Functions that you compile yourself keep the backend of their first call.

    Raises:
        ConfigError: there is no such name.
        UnsupportedError: the device does not have it.
    """
    global _active
    previous, _active = _active, checked_name(backend)
    try:
        yield
    finally:
        _active = previous


def active_backend() -> str:
    """The name in `attention_backend`, else in the environment variable DIFFUSERS_ATTN_BACKEND, else "native"."""
    return _active or os.environ.get("DIFFUSERS_ATTN_BACKEND", "native")


def checked_name(backend: str | AttentionBackendName) -> str:
    """The backend's name, if the active op table has it.

    Raises:
        ConfigError: there is no such name.
        UnsupportedError: the device does not have it.
    """
    name = backend.value if isinstance(backend, AttentionBackendName) else backend.lower()
    kernels = KERNELS[table.name]
    if name not in {known.value for known in AttentionBackendName}:
        raise ConfigError(f"There is no attention backend {backend!r}: here there are {', '.join(kernels)}.")
    if name not in kernels:
        raise UnsupportedError(f"The attention backend {name!r} is Ascend's, and this is the CPU: here there are {', '.join(kernels)}.")
    if kernels[name] == "native" and not native.available():
        raise UnsupportedError(f"The attention backend {name!r} is a compiled kernel, and there is none: install a C++ compiler.")
    return name


@ops.constexpr(reuse_result=False, check=False)  # the active backend may be another the next time
def choose(backend: str | None, dtype, query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], layout: str = "BNSD") -> str:
    """The kernel for inputs of this dtype and these shapes (batch, heads, tokens, size), or with the layout "BSND" the tokens before the
    heads: the one that a backend's name stands for, else the device's fused kernel if it takes them, else "math", or "chunked" if that
    would need much memory.

    Raises:
        ConfigError, UnsupportedError: see `checked_name`.
        ValueError: the named kernel does not take them.
    """
    if layout == "BSND":
        query, key, value = ((batch, heads, tokens, size) for batch, tokens, heads, size in (query, key, value))
    name = checked_name(backend or active_backend())
    kernel = KERNELS[table.name][name]
    if kernel != "best":
        refused = refusal(kernel, dtype, query, key, value)
        if refused:
            raise ValueError(f"The attention backend {name!r} takes {refused}.")
        return kernel
    fused = "flash" if table.name == "ascend" else "native" if native.available() else None
    if fused is not None and refusal(fused, dtype, query, key, value) is None:
        return fused
    scores = query[0] * query[1] * query[2] * key[2] * 4
    return "chunked" if scores > ATTENTION_SCORE_BYTES else "math"


def refusal(kernel: str, dtype, query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> str | None:
    """What the kernel takes and these inputs are not; None if they are."""
    if kernel in FUSED_ATTENTION:
        return FUSED_ATTENTION[kernel].refusal(dtype_name(dtype), query, key, value)
    if kernel == "native" and dtype not in (ms.float32, ms.float16, ms.bfloat16):
        return f"float32, float16 and bfloat16, not {dtype_name(dtype)}"
    return None
