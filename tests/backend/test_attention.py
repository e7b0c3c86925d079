"""The backends of attention: each against the formula in float64, which one is chosen, and what cannot be."""

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers.backend import attention as backends
from mindone_diffusers.backend import common, native
from mindone_diffusers.backend.attention import AttentionBackendName, attention_backend, choose
from mindone_diffusers.backend.table import use_table
from mindone_diffusers.models.attention_dispatch import dispatch_attention_fn
from mindone_diffusers.nn import functional as F

ON_CPU = ["native", "math", "chunked", *(["_native_flash"] if native.available() else [])]
# (heads of the query, of key and value), (queries, keys), (sizes of query and key, of value), mask ("bool" or "add", its shape), causality
CASES = [
    *(((4, 4), (33, 33), (size, size), None, False) for size in (40, 64, 80, 160)),
    *(((4, 4), (20, 77), (40, 40), (kind, (2, 1, 1, 77)), False) for kind in ("bool", "add")),
    *(((4, 4), (20, 77), (64, 64), (kind, (2, 4, 20, 77)), False) for kind in ("bool", "add")),
    ((4, 4), (20, 77), (80, 80), ("add", (1, 4, 1, 77)), False),
    ((4, 4), (40, 40), (160, 160), None, True),
    ((4, 4), (40, 40), (64, 64), ("bool", (2, 1, 1, 40)), True),
    ((8, 2), (20, 77), (40, 40), None, False),
    ((8, 1), (40, 40), (80, 80), ("add", (1, 8, 40, 40)), True),
    ((2, 2), (10, 30), (40, 24), ("bool", (1, 30)), False),
]


def inputs(heads, tokens, sizes, mask):
    """Query, key, value and mask; each query may see the first key."""
    rng = np.random.default_rng([*heads, *tokens, *sizes])
    shapes = (heads[0], tokens[0], sizes[0]), (heads[1], tokens[1], sizes[0]), (heads[1], tokens[1], sizes[1])
    arrays = [rng.standard_normal((2, *shape), dtype=np.float32) for shape in shapes]
    if mask is None:
        return *arrays, None
    values = rng.standard_normal(mask[1], dtype=np.float32)
    values[..., 0] = 1
    return *arrays, values > -0.4 if mask[0] == "bool" else np.where(values > -0.4, values, -np.inf)


def formula(query, key, value, mask, causal):
    query, key, value = (array.astype(np.float64) for array in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat(groups, 1).swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[2:], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value.repeat(groups, 1)


def caller(backend, causal):
    def call(query, key, value, attn_mask):
        return F.scaled_dot_product_attention(query, key, value, attn_mask, is_causal=causal, backend=backend)

    return call


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few queries."""
    monkeypatch.setattr(common, "ATTENTION_SCORE_BYTES", 30000)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("backend", ON_CPU)
def test_every_backend_is_the_formula(backend, jit, small_chunks):
    for heads, tokens, sizes, mask, causal in CASES:
        arrays = inputs(heads, tokens, sizes, mask)
        call = caller(backend, causal)
        tensors = [None if array is None else ms.Tensor(array) for array in arrays]
        output = (ms.jit(call) if jit else call)(*tensors).asnumpy()
        np.testing.assert_allclose(output, formula(*arrays, causal), atol=1e-5, err_msg=str((heads, tokens, sizes, mask, causal)))


@pytest.mark.parametrize("backend", ON_CPU)
def test_half_precision(backend):
    for heads, tokens, sizes, mask, causal in CASES[::3]:
        *arrays, mask = inputs(heads, tokens, sizes, mask)
        halves = [array.astype(np.float16) for array in arrays]
        output = F.scaled_dot_product_attention(
            *map(ms.Tensor, halves), None if mask is None else ms.Tensor(mask), 0.0, causal, None, backend
        )
        assert output.dtype == ms.float16
        np.testing.assert_allclose(output.asnumpy(), formula(*halves, mask, causal), atol=4e-3)


def test_dispatch_function_takes_heads_after_tokens():
    query, key, value, mask = inputs((4, 2), (20, 77), (40, 40), ("bool", (2, 77)))
    tensors = [ms.Tensor(array.swapaxes(1, 2)) for array in (query, key, value)]
    output = dispatch_attention_fn(*tensors, ms.Tensor(mask), enable_gqa=True, backend=AttentionBackendName._NATIVE_MATH)
    np.testing.assert_allclose(output.asnumpy().swapaxes(1, 2), formula(query, key, value, mask[:, None, None], False), atol=1e-5)
    with pytest.raises(NotImplementedError, match="attention_kwargs"):
        dispatch_attention_fn(*tensors, attention_kwargs={"return_lse": True})


HEADS, LONG, LARGE, WIDE = (2, 8, 64, 40), (2, 8, 8192, 40), (2, 8, 64, 528), (2, 257, 64, 40)


@pytest.mark.parametrize(
    "table, backend, dtype, query, key, value, kernel",
    [
        ("ascend", None, ms.float16, HEADS, HEADS, HEADS, "flash"),
        ("ascend", "native", ms.bfloat16, LONG, HEADS, HEADS, "flash"),
        ("ascend", "xformers", ms.float32, HEADS, HEADS, HEADS, "math"),
        ("ascend", "native", ms.float32, LONG, LONG, LONG, "chunked"),
        ("ascend", "native", ms.float16, LARGE, LARGE, LARGE, "math"),
        ("ascend", "native", ms.float16, HEADS, HEADS, LARGE, "math"),
        ("ascend", "native", ms.float16, WIDE, WIDE, WIDE, "math"),
        *(("ascend", name, ms.float16, HEADS, HEADS, HEADS, "flash") for name in ("flash", "_native_flash", "_native_npu")),
        *(("ascend", name, ms.float16, HEADS, HEADS, HEADS, name) for name in ("prompt_flash", "fused_infer", "math", "chunked")),
        ("cpu", "native", ms.float64, HEADS, HEADS, HEADS, "math"),
        ("cpu", "native", ms.float64, LONG, LONG, LONG, "chunked"),
        ("cpu", "_native_efficient", ms.float32, HEADS, HEADS, HEADS, "chunked"),
        ("cpu", "_native_math", ms.float32, LONG, LONG, LONG, "math"),
    ],
)
def test_choice(table, backend, dtype, query, key, value, kernel):
    with use_table(table):
        assert choose(backend, dtype, query, key, value) == kernel


@pytest.mark.parametrize("compiled", [True, False])
def test_choice_on_the_cpu(compiled, monkeypatch):
    monkeypatch.setattr(native, "available", lambda: compiled)
    for dtype in (ms.float32, ms.float16, ms.bfloat16):
        assert choose("native", dtype, HEADS, HEADS, HEADS) == ("native" if compiled else "math")
        assert choose("native", dtype, LONG, LONG, LONG) == ("native" if compiled else "chunked")
    if compiled:
        assert choose("_native_flash", ms.float32, HEADS, HEADS, HEADS) == "native"
    else:
        with pytest.raises(NotImplementedError, match="install a C\\+\\+ compiler"):
            choose("_native_flash", ms.float32, HEADS, HEADS, HEADS)


@pytest.mark.parametrize(
    "table, backend, dtype, query, value, message",
    [
        ("ascend", "flash", ms.float32, HEADS, HEADS, "float16 and bfloat16, not float32"),
        ("ascend", "_native_npu", ms.float16, LARGE, LARGE, "at most 512"),
        ("ascend", "fused_infer", ms.float16, HEADS, (2, 8, 64, 48), "one size"),
        ("ascend", "prompt_flash", ms.float16, WIDE, WIDE, "256 heads, not 257"),
        ("ascend", "prompt_flash", ms.float16, (1, 65, 9, 16), (1, 1, 9, 16), "64 heads"),
        ("cpu", "_native_flash", ms.float64, HEADS, HEADS, "not float64"),
    ],
)
def test_a_named_kernel_does_not_take_everything(table, backend, dtype, query, value, message, monkeypatch):
    monkeypatch.setattr(native, "available", lambda: True)
    with use_table(table), pytest.raises(ValueError, match=message):
        choose(backend, dtype, query, (*value[:3], query[3]), value)


def test_the_active_backend(monkeypatch):
    assert backends.active_backend() == "native"
    with attention_backend("MATH"):
        assert choose(None, ms.float32, LONG, LONG, LONG) == "math"
        assert choose("chunked", ms.float32, LONG, LONG, LONG) == "chunked"
        with pytest.raises(ZeroDivisionError), attention_backend(AttentionBackendName.CHUNKED):
            assert choose(None, ms.float32, HEADS, HEADS, HEADS) == "chunked"
            raise ZeroDivisionError
        assert backends.active_backend() == "math"
    with attention_backend():
        assert backends.active_backend() == "native"
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "_native_math")
    assert choose(None, ms.float32, LONG, LONG, LONG) == "math"


@pytest.mark.parametrize("backend", ["flash", "_native_npu", "prompt_flash", "fused_infer", AttentionBackendName.FLASH])
def test_ascends_backends_on_the_cpu(backend):
    """PyTorch diffusers raises a RuntimeError, which a NotImplementedError is."""
    with pytest.raises(RuntimeError, match="is Ascend's, and this is the CPU: here there are native, "), attention_backend(backend):
        pass


def test_unknown_backends():
    with pytest.raises(ValueError, match="no attention backend 'sage': here there are native, "), attention_backend("sage"):
        pass
    with use_table("ascend"), pytest.raises(ValueError, match="fused_infer"):
        backends.checked_name("flex")
