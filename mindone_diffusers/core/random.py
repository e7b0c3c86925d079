"""Random numbers: `randn_tensor`, and a generator that draws what PyTorch's CPU generator draws, bit for bit."""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import dtype_name, to_numpy_dtype
from .errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    import mindspore

_default = np.random.default_rng()


def manual_seed(seed: int) -> np.random.Generator:
    """Seed what `randn_tensor` draws from when it is given no generator."""
    global _default
    _default = np.random.default_rng(seed)
    return _default


def randn_tensor(
    shape: Sequence[int],
    generator: Any = None,
    device: Any = None,
    dtype: Any = None,
    layout: Any = None,
) -> "mindspore.Tensor":
    """Standard normal numbers.

    Args:
        shape: shape of the result.
        generator: where the numbers come from.

            - `numpy.random.Generator`: `generator.standard_normal(shape)` in float64, then cast.
            - `Generator` (this module's) or a `torch.Generator`: what `torch.randn(shape, dtype=dtype)` gives.
            - a list of those, one per image: each draws `(1, *shape[1:])`.
            - None: a NumPy generator of the library's own, see `manual_seed`.
        device: accepted for ported code and not used: MindSpore places tensors itself.
        dtype: anything `core.dtypes` knows; float32 by default.
        layout: None; MindSpore tensors have no other.

    Raises:
        ConfigError: a list of generators whose length is neither 1 nor `shape[0]`.
    """
    import mindspore

    if layout is not None and "strided" not in str(layout):
        raise UnsupportedError(f"layout={layout} was asked for; MindSpore tensors are strided: leave it out")
    name, shape = dtype_name(dtype or "float32"), tuple(shape)
    if isinstance(generator, (list, tuple)):
        if len(generator) not in (1, shape[0]):
            raise ConfigError(f"{len(generator)} generators were given for a batch of {shape[0]}; expected one, or one per image")
        if len(generator) > 1:
            values = np.concatenate([_draw((1, *shape[1:]), one, name) for one in generator])
        else:
            values = _draw(shape, generator[0], name)
    else:
        values = _draw(shape, _default if generator is None else generator, name)
    return mindspore.Tensor.from_numpy(values)


def _draw(shape: tuple[int, ...], generator: Any, name: str) -> np.ndarray:
    if isinstance(generator, np.random.Generator):
        return np.asarray(generator.standard_normal(shape)).astype(to_numpy_dtype(name))
    if isinstance(generator, Generator):
        return generator.randn(shape, name)
    if type(generator).__module__.startswith("torch"):
        import torch

        values = torch.randn(shape, generator=generator, device=generator.device, dtype=getattr(torch, name)).cpu()
        return (values.float() if name == "bfloat16" else values).numpy().astype(to_numpy_dtype(name))
    raise ConfigError(
        f"generator is a {type(generator).__name__}; expected numpy.random.Generator, mindone_diffusers' Generator, or a list of them"
    )


class Generator:
    """PyTorch's CPU generator in NumPy: the same seed gives the numbers of `torch.randn(..., generator=torch.Generator())`.

    MT19937 words (Matsumoto & Nishimura 1998) and Box-Muller pairs, in the two ways of PyTorch: 16 and more numbers are made in blocks of
    16, fewer one by one in float64. float32 blocks repeat PyTorch's AVX2 polynomials and fused multiply-adds, so they agree bit for bit
    with x86 builds.
    """

    def __init__(self, device: str = "cpu"):
        if str(device) != "cpu":
            raise UnsupportedError(f"Generator(device={str(device)!r}): only PyTorch's CPU generator is reproduced; use device='cpu'")
        self.device = "cpu"
        self.manual_seed(67280421310721)  # torch's default seed

    def manual_seed(self, seed: int) -> "Generator":
        """Restart from `seed`, an integer of up to 64 bits, of which PyTorch uses the lower 32."""
        if not -(2**63) <= seed < 2**64:
            raise ConfigError(f"seed {seed} does not fit 64 bits")
        self._seed = int(seed) % 2**64
        self._words = np.random.MT19937()
        self._words.state = _seeded(self._seed)
        self._second: float | None = None  # the other number of the last float64 pair
        return self

    def seed(self) -> int:
        """Restart from a seed of the operating system's and return it."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        return self._seed

    def get_state(self) -> np.ndarray:
        """PyTorch's 5056 bytes, uint8: `torch.Generator.set_state(torch.from_numpy(state))` takes them."""
        state = self._words.state["state"]
        record = np.zeros((), _STATE)
        record["seed"], record["seeded"], record["key"] = self._seed, 1, state["key"]
        # PyTorch writes a freshly seeded generator with next = 0.
        fresh = np.array_equal(state["key"], _seeded(self._seed)["state"]["key"])
        record["left"], record["next"] = (1, 0) if fresh else (625 - state["pos"], state["pos"])
        if self._second is not None:
            record["second"], record["has_second"] = self._second, 1
        return np.frombuffer(record.tobytes(), np.uint8).copy()

    def set_state(self, state: np.ndarray) -> "Generator":
        """Continue from `get_state()`, of this class or of `torch.Generator` (`.numpy()`)."""
        data = np.asarray(state, np.uint8).tobytes()
        if len(data) != _STATE.itemsize:
            raise ConfigError(f"a generator state of {len(data)} bytes; expected {_STATE.itemsize}")
        record = np.frombuffer(data, _STATE)[0]
        self.manual_seed(int(record["seed"]))
        position = 624 if record["left"] == 1 else int(record["next"])
        self._words.state = {"bit_generator": "MT19937", "state": {"key": record["key"].astype(np.uint32), "pos": position}}
        self._second = float(record["second"]) if record["has_second"] else None
        return self

    def rand(self, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
        """`torch.rand`: uniform on [0, 1)."""
        name = dtype_name(dtype)
        size = int(np.prod(tuple(shape), dtype=np.int64))
        values = self._uniform(size, name).astype(to_numpy_dtype(name))
        return np.where(values == 1, values.dtype.type(0), values).reshape(shape)  # 1 by rounding is 0, as in PyTorch

    def randn(self, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
        """`torch.randn`: standard normal numbers in float32, float64, float16 or bfloat16, which are different draws."""
        name, shape = dtype_name(dtype), tuple(shape)
        size = int(np.prod(shape, dtype=np.int64))
        if size < 16:
            values = np.array([self._normal() for _ in range(size)], np.float64)
        else:
            whole = size // 16 * 16
            # float32 and float64 draw for every number, then again for the last block; the half formats draw block by block.
            drawn = whole if name in ("float16", "bfloat16") else size
            values = _box_muller(self._uniform(drawn, name)[:whole])
            if size % 16:  # the last 16 numbers are made again, as one block
                values = np.concatenate([values[: size - 16], _box_muller(self._uniform(16, name))])
        return values.astype(to_numpy_dtype(name)).reshape(shape)

    def _uniform(self, size: int, name: str) -> np.ndarray:
        """53 random bits from two words for float64, 24 bits of one word for the others."""
        if name == "float64":
            words = self._words.random_raw(2 * size).reshape(size, 2)
            return ((words[:, 0] << np.uint64(32) | words[:, 1]) & np.uint64(2**53 - 1)) * 2.0**-53
        if "float" not in name:
            raise ConfigError(f"random numbers of dtype {name} were asked for; expected a floating-point dtype")
        return (self._words.random_raw(size) & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)

    def _normal(self) -> float:
        if self._second is not None:
            value, self._second = self._second, None
            return value
        u1, u2 = self._uniform(2, "float64")
        radius, angle = math.sqrt(-2.0 * math.log1p(-u2)), 2.0 * math.pi * u1
        self._second = radius * math.sin(angle)
        return radius * math.cos(angle)


def _seeded(seed: int) -> dict[str, Any]:
    """The state Matsumoto's init_genrand gives."""
    return np.random.RandomState(seed % 2**32).get_state(legacy=False)


# at::CPUGeneratorImplState, little endian
_STATE = np.dtype(
    [
        ("seed", "<u8"), ("left", "<i4"), ("seeded", "<i4"), ("next", "<u8"), ("key", "<u8", 624), ("unused_x", "<f8"), ("second", "<f8"),
        ("unused_rho", "<f8"), ("has_second", "<i8"), ("float_second", "<f8"),
    ]
)  # fmt: skip


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    """Normal numbers from uniform ones, 8 cosines then 8 sines in each block of 16."""
    blocks = uniform.reshape(-1, 2, 8)
    u1, u2 = 1 - blocks[:, 0], blocks[:, 1]
    if uniform.dtype == np.float32:
        log, (sine, cosine) = _log(u1), _sincos(np.float32(2 * np.pi) * u2)
    else:
        # The C library's functions, as PyTorch; NumPy's own differ in the last place.
        log, sine, cosine = (np.vectorize(f, otypes=[float]) for f in (math.log, math.sin, math.cos))
        log, sine, cosine = log(u1), sine(2 * math.pi * u2), cosine(2 * math.pi * u2)
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
