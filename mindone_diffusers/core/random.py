"""Random numbers: `randn_tensor`, and a generator that draws what PyTorch's CPU and CUDA generators draw."""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import dtype_name, to_numpy_dtype
from .errors import ConfigError, UnsupportedError
from .mt19937 import CPUStream
from .philox import CUDAStream

if TYPE_CHECKING:
    import mindspore


def manual_seed(seed: int) -> "Generator":
    """Seed what is drawn from when no generator is given: its numbers are those of PyTorch's CPU after `torch.manual_seed(seed)`."""
    return _default.manual_seed(seed)


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
            - `Generator` (this module's) or a `torch.Generator`: what `torch.randn(shape, dtype=dtype)` gives on the generator's device.
            - a list of those, one per image: each draws `(1, *shape[1:])`.
            - None: a `Generator("cpu")` of the library's own, see `manual_seed`.
        device: accepted for ported code and not used: MindSpore places tensors itself.
        dtype: anything `core.dtypes` knows; float32 by default.
        layout: None; MindSpore tensors have no other.

    Raises:
        ConfigError: a list of generators whose length is neither 1 nor `shape[0]`.
    """
    import mindspore

    if layout is not None and "strided" not in str(layout):
        raise UnsupportedError(f"layout={layout} was asked for; MindSpore tensors are strided: leave it out")
    return mindspore.Tensor.from_numpy(randn_array(shape, generator, dtype))


def randn_array(shape: Sequence[int], generator: Any = None, dtype: Any = None) -> np.ndarray:
    """`randn_tensor` in NumPy."""
    shape = tuple(shape)
    if not isinstance(generator, (list, tuple)):
        return random_array("normal", shape, generator, dtype)
    if len(generator) not in (1, shape[0]):
        raise ConfigError(f"{len(generator)} generators were given for a batch of {shape[0]}; expected one, or one per image")
    if len(generator) == 1:
        return random_array("normal", shape, generator[0], dtype)
    return np.concatenate([random_array("normal", (1, *shape[1:]), one, dtype) for one in generator])


def random_array(distribution: str, shape: Sequence[int], generator: Any = None, dtype: Any = None) -> np.ndarray:
    """Random numbers in NumPy.

    Args:
        distribution: "normal" (mean 0, variance 1), "uniform" (on [0, 1)) or "exponential" (mean 1).
        shape: shape of the result.
        generator: one of `randn_tensor`'s; of NumPy's, `standard_normal`, `random` or `standard_exponential` draws in float64, of PyTorch's
            and ours, `torch.randn`, `torch.rand` or `Tensor.exponential_` in the dtype.
        dtype: float32 by default.
    """
    name, shape = dtype_name(dtype or "float32"), tuple(shape)
    generator = _default if generator is None else generator
    if isinstance(generator, np.random.Generator):
        draw = {"normal": generator.standard_normal, "uniform": generator.random, "exponential": generator.standard_exponential}[
            distribution
        ]
        return np.asarray(draw(shape)).astype(to_numpy_dtype(name))
    if isinstance(generator, Generator):
        draw = {"normal": generator.randn, "uniform": generator.rand, "exponential": generator.exponential}[distribution]
        return draw(shape, name)
    _check_torch(generator)
    import torch

    values = torch.empty(shape, device=generator.device, dtype=getattr(torch, name))
    {"normal": values.normal_, "uniform": values.uniform_, "exponential": values.exponential_}[distribution](generator=generator)
    values = values.cpu()
    return (values.float() if name == "bfloat16" else values).numpy().astype(to_numpy_dtype(name))


def random_integers(low: int, high: int, shape: Sequence[int], generator: Any = None) -> np.ndarray:
    """int64 from `low` to `high - 1`: `generator.integers` of NumPy's generators, `torch.randint` of PyTorch's and ours."""
    generator, shape = _default if generator is None else generator, tuple(shape)
    if isinstance(generator, np.random.Generator):
        return generator.integers(low, high, shape)
    if isinstance(generator, Generator):
        return generator.randint(low, high, shape)
    _check_torch(generator)
    import torch

    return torch.randint(low, high, shape, generator=generator, device=generator.device).cpu().numpy()


def _check_torch(generator: Any) -> None:
    if not type(generator).__module__.startswith("torch"):
        raise ConfigError(
            f"generator is a {type(generator).__name__}; expected numpy.random.Generator, mindone_diffusers' Generator, torch.Generator, "
            "or a list of them"
        )


GPUS = {"V100": (80, 2048), "T4": (40, 1024), "A100": (108, 2048), "RTX 3090": (82, 1536), "RTX 4090": (128, 1536), "H100": (132, 2048)}
"""Multiprocessors of some GPUs (H100: SXM), and how many threads each holds."""


class Generator:
    """PyTorch's generators in NumPy: the same seed gives the numbers of `torch.randn(..., generator=torch.Generator(device))`.

    "cpu" agrees bit for bit with PyTorch 2.13's x86 builds, in every dtype, size and call order (tests/parity/test_random_live.py).

    "cuda" was written from cuRAND's and PyTorch's headers, with no GPU at hand. Tested against cuRAND's code compiled for the CPU: words,
    uniform numbers, integers and the order of threads, bit for bit. Not tested on a GPU: its sine, cosine and `exponential`'s logarithm are
    approximate units, so expect normal numbers in float32 within some 1e-6 of PyTorch's, not bit for bit; the rest is to be equal.
    Up to 256 x multiprocessors x (threads each / 256) numbers a call, 221,184 on an A100, are the same on every larger GPU; more depend on
    the GPU. Draws of 2 GiB and more, which PyTorch splits, differ.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        gpu: the GPU to be like, for large "cuda" draws: one of `GPUS`, or (multiprocessors, threads a multiprocessor), which
            `torch.cuda.get_device_properties` calls `multi_processor_count` and `max_threads_per_multi_processor`.

    Raises:
        UnsupportedError: another device.
        ConfigError: an unknown GPU.
    """

    def __init__(self, device: str = "cpu", gpu: str | tuple[int, int] = "A100"):
        self.device = str(device)
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise UnsupportedError(f"Generator(device={self.device!r}): only PyTorch's CPU and CUDA generators are reproduced")
        if isinstance(gpu, str) and gpu not in GPUS:
            raise ConfigError(f"gpu is {gpu!r}; expected one of {', '.join(GPUS)}, or (multiprocessors, threads a multiprocessor)")
        self.gpu = GPUS[gpu] if isinstance(gpu, str) else gpu
        self._stream: CPUStream | CUDAStream | None = None
        self.manual_seed(67280421310721)  # torch's default seed

    @property
    def _is_cuda(self) -> bool:
        return self.device != "cpu"

    def manual_seed(self, seed: int) -> "Generator":
        """Restart from `seed`, an integer of up to 64 bits, of which PyTorch's CPU generator uses the lower 32."""
        if not -(2**63) <= seed < 2**64:
            raise ConfigError(f"seed {seed} does not fit 64 bits")
        seed = int(seed) % 2**64
        if self._is_cuda:
            multiprocessors, threads = self.gpu
            self._stream = CUDAStream(seed, multiprocessors * (threads // 256))
        elif self._stream is None:
            self._stream = CPUStream(seed)
        else:
            self._stream.restart(seed)
        return self

    def seed(self) -> int:
        """Restart from a seed of the operating system's and return it."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self.initial_seed()

    def initial_seed(self) -> int:
        return self._stream.seed

    def get_state(self) -> np.ndarray:
        """PyTorch's bytes, uint8, 5056 on the CPU and 16 for CUDA: `torch.Generator.set_state(torch.from_numpy(state))` takes them."""
        return np.frombuffer(self._stream.get_state(), np.uint8).copy()

    def set_state(self, state: np.ndarray) -> "Generator":
        """Continue from `get_state()`, of this class or of `torch.Generator` (`.numpy()`) on the same kind of device."""
        self._stream.set_state(np.asarray(state, np.uint8).tobytes())
        return self

    def get_offset(self) -> int:
        """How many words of each thread's sequence are behind: of "cuda" generators."""
        self._needs_offset()
        return self._stream.offset

    def set_offset(self, offset: int) -> "Generator":
        """Continue from an offset, a multiple of 4: of "cuda" generators."""
        self._needs_offset()
        self._stream.set_offset(offset)
        return self

    def _needs_offset(self) -> None:
        if not self._is_cuda:
            raise UnsupportedError("a CPU generator has no offset; use get_state and set_state")

    def rand(self, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
        """`torch.rand`: uniform on [0, 1)."""
        values = self._floats("uniform", shape, dtype)
        zero, one = values.dtype.type(0), values.dtype.type(1)
        return values if values.dtype.itemsize > 2 else np.where(values == one, zero, values)  # 1 by rounding is 0, as in PyTorch

    def randn(self, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
        """`torch.randn`: standard normal numbers in float32, float64, float16 or bfloat16, which can be different draws."""
        return self._floats("normal", shape, dtype)

    def exponential(self, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
        """`Tensor.exponential_`: exponentially distributed numbers with mean 1."""
        return self._floats("exponential", shape, dtype)

    def randint(self, low: int, high: int, shape: Sequence[int], dtype: Any = "int64") -> np.ndarray:
        """`torch.randint`: integers from `low` to `high - 1`.

        Raises:
            ConfigError: no such integers, or they do not fit the dtype.
        """
        numbers = np.dtype(dtype_name(dtype))
        if numbers.kind not in "iu":
            raise ConfigError(f"integers of dtype {numbers} were asked for; expected an integer dtype")
        limits = np.iinfo(numbers)
        if not limits.min <= low < high <= limits.max + 1 or high >= 2**63:
            raise ConfigError(f"low is {low} and high {high}; expected low < high, within {numbers}")
        values = self._stream.integers(_size(shape), high - low) + np.uint64(low % 2**64)
        return values.view(np.int64).astype(numbers).reshape(shape)

    def _floats(self, distribution: str, shape: Sequence[int], dtype: Any) -> np.ndarray:
        name = dtype_name(dtype)
        if "float" not in name:
            raise ConfigError(f"random numbers of dtype {name} were asked for; expected a floating-point dtype")
        values = getattr(self._stream, distribution)(_size(shape), name)
        if name != "float64":
            values = values.astype(np.float32, copy=False)  # float64 becomes float16 or bfloat16 by two roundings, as in PyTorch
        return values.astype(to_numpy_dtype(name), copy=False).reshape(shape)


def _size(shape: Sequence[int]) -> int:
    return math.prod(map(int, shape))


_default = Generator()
_default.seed()
