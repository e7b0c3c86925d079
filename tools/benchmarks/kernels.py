"""Times of the CPU kernels at Stable Diffusion 1.5's shapes (batch 2, 512x512): ours, MindSpore's operators, PyTorch's.

    python tools/benchmarks/kernels.py [--rounds 7] [--only attention] [--bfloat16]

The three take turns within one process, and each row has their shortest times in milliseconds. Without PyTorch its column is empty.
Products and convolutions have our billions of operations a second too: the definition's, of which Winograd's algorithm needs a quarter.
With `--bfloat16` those and attention only: ours have weights in bfloat16 (attention may round), PyTorch's everything, MindSpore's nothing.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator

import mindspore as ms
import numpy as np

import mindone_diffusers  # noqa: F401  (sets up the CPU)
from mindone_diffusers.backend import cpu
from mindone_diffusers.backend.table import table

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None


def cases() -> Iterator[tuple[str, list[tuple[int, ...]], Callable, Callable | None]]:
    """(name, shapes of the tensors, function of an op table and the tensors, the same for PyTorch)."""
    for shape in ((2, 320, 64, 64), (2, 640, 32, 32), (2, 1280, 16, 16), (1, 128, 512, 512)):
        channels = shape[1]
        yield (
            f"group_norm {shape}", [shape, (channels,), (channels,)],
            lambda t, x, w, b: t.group_norm(x, 32, w, b, 1e-5), lambda x, w, b: F.group_norm(x, 32, w, b, 1e-5),
        )  # fmt: skip
        yield f"silu {shape}", [shape], lambda t, x: t.silu(x), lambda x: F.silu(x)
    for shape in ((2, 4096, 320), (2, 1024, 640), (2, 256, 1280)):
        size = shape[2:]
        yield (
            f"layer_norm {shape}", [shape, size, size],
            lambda t, x, w, b, size=size: t.layer_norm(x, size, w, b, 1e-5), lambda x, w, b, size=size: F.layer_norm(x, size, w, b),
        )  # fmt: skip
        yield f"geglu {(*shape[:2], 8 * shape[2])}", [(*shape[:2], 8 * shape[2])], lambda t, x: t.geglu(x), _torch_geglu
    shape = (2, 77, 3072)
    yield f"gelu {shape}", [shape], lambda t, x: t.gelu(x, "none"), lambda x: F.gelu(x)
    shape = (2, 4096, 1280)
    yield f"gelu {shape}", [shape], lambda t, x: t.gelu(x, "none"), lambda x: F.gelu(x)
    yield f"gelu tanh {shape}", [shape], lambda t, x: t.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")
    for shape in ((2, 640, 32, 32), (2, 1280, 8, 8), (1, 256, 256, 256)):
        size = (2 * shape[2], 2 * shape[3])
        yield (
            f"nearest {shape} x2", [shape], lambda t, x, size=size: t.interpolate_nearest(x, size),
            lambda x, size=size: F.interpolate(x, size),
        )  # fmt: skip
    for batch, heads, queries, keys, size in (
        (2, 8, 4096, 4096, 40), (2, 8, 1024, 1024, 80), (2, 8, 256, 256, 160), (2, 8, 64, 64, 160),
        (2, 8, 4096, 77, 40), (2, 8, 1024, 77, 80), (2, 12, 77, 77, 64), (1, 1, 4096, 4096, 512),
    ):  # fmt: skip
        shapes = [(batch, heads, queries, size), (batch, heads, keys, size), (batch, heads, keys, size)]
        yield f"attention {batch}x{heads} {queries}x{keys}x{size}", shapes, _attention, _torch_attention
    for rows, inputs, outputs in (
        (8192, 320, 320), (8192, 320, 2560), (8192, 1280, 320), (2048, 640, 640), (2048, 640, 5120), (2048, 2560, 640),
        (512, 1280, 1280), (512, 1280, 10240), (512, 5120, 1280), (154, 768, 320), (154, 768, 1280), (77, 768, 3072),
    ):  # fmt: skip
        yield f"linear {rows}x{inputs}x{outputs}", [(rows, inputs), (outputs, inputs), (outputs,)], _linear, _torch_linear
    for batch, inputs, outputs, size, kernel, stride in (
        (2, 320, 320, 64, 3, 1), (2, 960, 320, 64, 3, 1), (2, 640, 640, 32, 3, 1), (2, 1920, 640, 32, 3, 1), (2, 1280, 1280, 16, 3, 1),
        (2, 2560, 1280, 16, 3, 1), (2, 1280, 1280, 8, 3, 1), (2, 2560, 1280, 8, 3, 1), (1, 512, 512, 64, 3, 1), (1, 512, 512, 128, 3, 1),
        (1, 256, 256, 256, 3, 1), (1, 128, 128, 512, 3, 1), (2, 320, 320, 64, 3, 2), (2, 640, 640, 32, 3, 2), (2, 1280, 1280, 16, 3, 2),
        (2, 320, 320, 64, 1, 1), (2, 960, 320, 64, 1, 1), (2, 640, 640, 32, 1, 1), (2, 1280, 1280, 16, 1, 1), (2, 2560, 1280, 8, 1, 1),
    ):  # fmt: skip
        shapes, padding = [(batch, inputs, size, size), (outputs, inputs, kernel, kernel), (outputs,)], kernel // 2
        yield (
            f"conv {kernel}x{kernel}/{stride} {batch}x{inputs}x{size}x{size} to {outputs}", shapes,
            lambda t, x, w, b, s=stride, p=padding: t.conv2d(x, w, b, (s, s), (p, p), (1, 1), 1),
            lambda x, w, b, s=stride, p=padding: F.conv2d(x, w, b, s, p),
        )  # fmt: skip


def _linear(t, x, w, b):
    return t.linear(x, w, b)


def _torch_linear(x, w, b):
    return F.linear(x, w, b)


def _attention(t, q, k, v):
    return t.attention(q, k, v, None, False, q.shape[-1] ** -0.5)


def _rounded_attention(t, q, k, v):
    return t.attention(q, k, v, None, False, q.shape[-1] ** -0.5, "native_bfloat16")


def _torch_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def _torch_geglu(x):
    hidden, gate = x.chunk(2, -1)
    return hidden * F.gelu(gate)


def _operations(shapes: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Multiplications and additions of a product or convolution, (input, weight, bias) -> output."""
    return 2 * math.prod(output) * math.prod(shapes[1][1:])


def milliseconds(function: Callable, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is run; the shortest time counts")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--bfloat16", action="store_true", help="ours and PyTorch's products, convolutions and attention in bfloat16")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'':36}{'ours':>9}{'MindSpore':>11}{'PyTorch':>9}{'MindSpore/ours':>16}{'PyTorch/ours':>14}{'GFLOP/s':>9}")
    for name, shapes, function, torch_function in cases():
        product = name.startswith(("linear", "conv"))
        if options.only not in name or options.bfloat16 and not (product or name.startswith("attention")):
            continue
        arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        tensors = [ms.Tensor(array) for array in arrays]
        runs = {"ours": (function, table, *tensors), "mindspore": (function, cpu, *tensors)}
        if torch:
            runs["torch"] = (torch_function, *map(torch.from_numpy, arrays))
        if options.bfloat16:
            halves = [tensors[0], tensors[1].astype(ms.bfloat16), *tensors[2:]]
            runs["ours"] = (function, table, *halves) if product else (_rounded_attention, table, *tensors)
            if torch:
                runs["torch"] = (torch_function, *(tensor.bfloat16() for tensor in runs["torch"][1:]))
        output = function(table, *tensors)
        best = dict.fromkeys(runs, float("inf"))
        for turn in range(options.rounds + 1):
            for key, run in runs.items():
                elapsed = milliseconds(*run)
                if turn > 0:
                    best[key] = min(best[key], elapsed)
        ours, mindspore, pytorch = best["ours"], best["mindspore"], best.get("torch", float("nan"))
        rate = f"{_operations(shapes, output.shape) / ours * 1e-6:9.0f}" if product else ""
        print(f"{name:36}{ours:9.2f}{mindspore:11.2f}{pytorch:9.2f}{mindspore / ours:16.1f}{pytorch / ours:14.2f}{rate}", flush=True)


if __name__ == "__main__":
    main()
