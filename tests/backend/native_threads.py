"""Digests of what the kernels give, each on inputs that several threads share: test_native.py runs it with one and with more."""

import hashlib

import mindspore as ms
import numpy as np

import mindone_diffusers  # noqa: F401  (sets up the CPU)
from mindone_diffusers.backend import native
from mindone_diffusers.backend.table import table

ONE, NONE = (1, 1), (0, 0)


def conv(stride=ONE, padding=ONE):
    return lambda x, w, b: table.conv2d(x, w, b, stride, padding, ONE, 1)


CASES = {
    "attention": ([(2, 8, 300, 40)] * 3, lambda q, k, v: table.attention(q, k, v, None, False, 0.2)),
    "linear": ([(2, 257, 320), (960, 320), (960,)], table.linear),
    "3x3, small image": ([(2, 640, 8, 8), (320, 640, 3, 3), (320,)], conv()),
    "3x3, large image": ([(2, 64, 65, 63), (160, 64, 3, 3), (160,)], conv()),
    "3x3, few outputs": ([(1, 128, 128, 128), (3, 128, 3, 3), (3,)], conv()),
    "3x3, few channels": ([(2, 16, 64, 64), (16, 16, 3, 3), (16,)], conv()),
    "1x1": ([(2, 320, 32, 32), (640, 320, 1, 1), (640,)], conv(padding=NONE)),
    "stride": ([(2, 160, 33, 32), (160, 160, 3, 3), (160,)], conv(stride=(2, 2))),
    "group norm": ([(2, 320, 64, 64), (320,), (320,)], lambda x, w, b: table.group_norm(x, 32, w, b, 1e-5)),
    "layer norm": ([(2, 1024, 640), (640,), (640,)], lambda x, w, b: table.layer_norm(x, (640,), w, b, 1e-5)),
    "dropout": ([(2, 1024, 640)], lambda x: table.dropout(x, 0.3)),
    "geglu": ([(2, 1024, 640)], table.geglu),
    "gelu": ([(2, 1024, 640)], lambda x: table.gelu(x, "none")),
    "silu": ([(2, 1024, 640)], table.silu),
    "nearest": ([(2, 64, 64, 64)], lambda x: table.interpolate_nearest(x, (128, 128))),
}

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    print("threads", native.threads())
    for name, (shapes, function) in CASES.items():
        tensors = [ms.Tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]
        digests = {hashlib.sha256(function(*tensors).asnumpy().tobytes()).hexdigest() for _ in range(5)}
        print(name, *sorted(digests))
