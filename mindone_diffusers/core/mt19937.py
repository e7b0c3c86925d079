"""PyTorch's CPU random numbers in NumPy: MT19937 words (Matsumoto & Nishimura 1998), and what PyTorch makes of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .errors import ConfigError

# at::CPUGeneratorImplState, little endian
_STATE = np.dtype(
    [
        ("seed", "<u8"), ("left", "<i4"), ("seeded", "<i4"), ("next", "<u8"), ("key", "<u8", 624), ("unused_x", "<f8"), ("second", "<f8"),
        ("unused_rho", "<f8"), ("has_second", "<i8"), ("float_second", "<f8"),
    ]
)  # fmt: skip


kernels: Callable[[], dict[str, Callable]] = dict
"""Gives quicker functions for the same numbers, "standard_normal", "uniform_float32", "uniform_float64" and "seed", from `backend/native`
once that is imported, if there are any. They take an array to fill, and the capsule of the words."""


class CPUStream:
    """The numbers of `torch.Generator("cpu")`, flat and in the dtype in which PyTorch computes them.

    Normal numbers are Box-Muller pairs made in PyTorch's two ways: 16 and more in blocks of 16, fewer one by one in float64. float32 blocks
    repeat its AVX2 polynomials and fused multiply-adds.

    Args:
        seed: 64 bits, of which PyTorch uses the lower 32.
    """

    def __init__(self, seed: int):
        self._words = np.random.MT19937(_NoEntropy())
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Start anew from another seed."""
        self.seed = seed
        self._second: float | None = None  # the other number of the last float64 pair
        _seed(self._words, seed)

    def get_state(self) -> bytes:
        state = self._words.state["state"]
        record = np.zeros((), _STATE)
        record["seed"], record["seeded"], record["key"] = self.seed, 1, state["key"]
        # PyTorch writes a freshly seeded generator with next = 0.
        fresh = np.array_equal(state["key"], CPUStream(self.seed)._words.state["state"]["key"])
        record["left"], record["next"] = (1, 0) if fresh else (625 - state["pos"], state["pos"])
        if self._second is not None:
            record["second"], record["has_second"] = self._second, 1
        return record.tobytes()

    def set_state(self, state: bytes) -> None:
        if len(state) != _STATE.itemsize:
            raise ConfigError(f"a CPU generator state of {len(state)} bytes; expected {_STATE.itemsize}")
        record = np.frombuffer(state, _STATE)[0]
        self.seed = int(record["seed"])
        position = 624 if record["left"] == 1 else int(record["next"])
        self._words.state = {"bit_generator": "MT19937", "state": {"key": record["key"].astype(np.uint32), "pos": position}}
        self._second = float(record["second"]) if record["has_second"] else None

    def uniform(self, size: int, name: str) -> np.ndarray:
        """On [0, 1): 53 random bits from two words for float64, 24 bits of one word for the other dtypes."""
        if name != "float64":
            name = "float32"
        values = self._filled(f"uniform_{name}", size, name)
        if values is not None:
            return values
        if name == "float64":
            return (self._pairs(size) & np.uint64(2**53 - 1)) * 2.0**-53
        return (self._words.random_raw(size) & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)

    def normal(self, size: int, name: str) -> np.ndarray:
        if size < 16:
            return np.array([self._normal() for _ in range(size)], np.float64)
        whole = size // 16 * 16
        # float32 and float64 draw for every number, then again for the last block; the half formats draw block by block.
        drawn = whole if name in ("float16", "bfloat16") else size
        values = self._blocks(whole) if name == "float32" and drawn == whole else _box_muller(self.uniform(drawn, name)[:whole])
        if size % 16:  # the last 16 numbers are made again, as one block
            values = np.concatenate([values[: size - 16], _box_muller(self.uniform(16, name))])
        return values

    def _blocks(self, size: int) -> np.ndarray:
        """Normal float32 numbers of whole blocks."""
        values = self._filled("standard_normal", size, "float32")
        return _box_muller(self.uniform(size, "float32")) if values is None else values

    def _filled(self, kernel: str, size: int, name: str) -> np.ndarray | None:
        """The numbers of a native function, if there is one."""
        function = kernels().get(kernel)
        if function is None:
            return None
        with self._words.lock:
            return function(np.empty(size, name), self._words.capsule)

    def exponential(self, size: int, name: str) -> np.ndarray:
        """With mean 1, in float64 for all dtypes."""
        values = self.uniform(size, "float64")
        values = _exactly(math.log1p, np.negative(values, out=values), name)
        return np.negative(values, out=values)

    def integers(self, size: int, span: int) -> np.ndarray:
        """uint64 below `span`, by the remainder of one word, or from 2^28 on of two."""
        words = self._pairs(size) if span >= 2**28 else self._words.random_raw(size)
        return words % np.uint64(span)

    def _pairs(self, size: int) -> np.ndarray:
        words = self._words.random_raw(2 * size).reshape(size, 2)
        return words[:, 0] << np.uint64(32) | words[:, 1]

    def _normal(self) -> float:
        if self._second is not None:
            value, self._second = self._second, None
            return value
        u1, u2 = self.uniform(2, "float64")
        radius, angle = math.sqrt(-2.0 * math.log1p(-u2)), 2.0 * math.pi * u1
        self._second = radius * math.sin(angle)
        return radius * math.cos(angle)


class _NoEntropy(np.random.bit_generator.ISeedSequence):
    """Zeros: what NumPy seeds a generator with that is seeded again at once, many times quicker than its default."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return np.zeros(n_words, dtype)


def _seed(words: np.random.MT19937, seed: int) -> None:
    """Start the words anew by Matsumoto's init_genrand."""
    function = kernels().get("seed")
    if function is None:
        np.random.RandomState(words).seed(seed % 2**32)
    else:
        function(words.capsule, seed)


def _exactly(function: Callable, values: np.ndarray, name: str) -> np.ndarray:
    """A function of float64 numbers: for float64 results the C library's as in PyTorch, since NumPy's own, quicker, may differ in the last
    place, which in the other formats does not show."""
    if name == "float64":
        return np.vectorize(function, otypes=[float])(values)
    return getattr(np, function.__name__)(values)


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    """Normal numbers from uniform ones, 8 cosines then 8 sines in each block of 16."""
    blocks = uniform.reshape(-1, 2, 8)
    u1, u2 = 1 - blocks[:, 0], blocks[:, 1]
    if uniform.dtype == np.float32:
        log, (sine, cosine) = _log(u1), _sincos(np.float32(2 * np.pi) * u2)
    else:
        angle = 2 * math.pi * u2
        log, sine, cosine = _exactly(math.log, u1, "float64"), _exactly(math.sin, angle, "float64"), _exactly(math.cos, angle, "float64")
    radius = np.sqrt(-2 * log)
    return np.stack([radius * cosine, radius * sine], axis=1).reshape(-1)


def _fma(a: np.ndarray, b: Any, c: Any) -> np.ndarray:
    """a * b + c of float32 numbers, rounded once: the product is exact in float64."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _polynomial(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = _fma(result, x, np.float32(coefficient))
    return result


def _log(x: np.ndarray) -> np.ndarray:
    """The Cephes single-precision logarithm (logf), with the multiply-adds that PyTorch's compiler fuses."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < np.float32(0.5**0.5)
    exponent = (exponent - low).astype(np.float32)
    x = mantissa - np.float32(1) + np.where(low, mantissa, np.float32(0))
    square = x * x
    tail = x * _polynomial(
        x,
        (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
         -2.4999993993e-1, 3.3333331174e-1),
    )  # fmt: skip
    tail = _fma(tail, square, exponent * np.float32(-2.12194440e-4))
    return _fma(exponent, np.float32(0.693359375), x + _fma(square, -0.5, tail))


def _sincos(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Cephes single-precision sine and cosine (sinf, cosf) of x >= 0, fused likewise."""
    octant = ((x * np.float32(4 / np.pi)).astype(np.int32) + 1) & ~1
    for part in (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8):  # x - octant * pi / 4
        x = _fma(octant.astype(np.float32), np.float32(part), x)
    square = x * x
    cosine = square * _polynomial(square, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2))
    cosine = _fma(cosine, square, square * np.float32(-0.5)) + np.float32(1)
    sine = _fma(square * _polynomial(square, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)), x, x)
    exchanged = (octant & 2) != 0
    sine, cosine = np.where(exchanged, cosine, sine), np.where(exchanged, sine, cosine)
    return np.where((octant & 4) != 0, -sine, sine), np.where(((octant - 2) & 4) == 0, -cosine, cosine)
