"""PyTorch's CUDA random numbers in NumPy: Philox4x32-10 as cuRAND and PyTorch's kernels use it."""

import math

import numpy as np

from .errors import ConfigError

_LOW = np.uint64(2**32 - 1)
_HALF = np.uint64(32)


def philox(counter: np.ndarray, key: int) -> np.ndarray:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Args:
        counter: uint64 of shape (4, ...), holding 32-bit words.
        key: 64 bits.

    Returns:
        uint64 of the same shape, holding 32-bit words.
    """
    a, b, c, d = counter
    low, high = key % 2**32, key >> 32
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (second >> _HALF) ^ b ^ np.uint64(low), second & _LOW, (first >> _HALF) ^ d ^ np.uint64(high), first & _LOW
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return np.stack([a, b, c, d])


class CUDAStream:
    """The numbers of `torch.Generator("cuda")`, flat and in the dtype in which PyTorch's kernels compute them.

    A kernel runs blocks of 256 threads, one thread a number, and no more blocks than the GPU holds at once. Each thread has its own
    sequence of the seed. Once all threads are busy, numbers beyond them go round the threads again; a thread uses all 4 words of a counter
    (2 numbers where a number takes two words) before it takes the next. A call leaves the counters behind the last one it used.

    Args:
        seed: 64 bits.
        blocks: how many blocks the GPU holds.
    """

    def __init__(self, seed: int, blocks: int):
        self.seed, self.blocks, self.offset = seed, blocks, 0

    def get_state(self) -> bytes:
        return np.array([self.seed, self.offset], "<u8").tobytes()

    def set_state(self, state: bytes) -> None:
        if len(state) not in (8, 16):
            raise ConfigError(f"a CUDA generator state of {len(state)} bytes; expected 16: seed and offset, or 8: the seed")
        self.seed, offset = (*map(int, np.frombuffer(state, "<u8")), 0)[:2]
        self.set_offset(offset)

    def set_offset(self, offset: int) -> None:
        if offset < 0 or offset % 4:
            raise ConfigError(f"offset is {offset}; expected a multiple of 4")
        self.offset = offset

    def uniform(self, size: int, name: str) -> np.ndarray:
        """On (0, 1]."""
        words = self._words(size, _per_counter(name))
        if name == "float64":
            return _in_order(_wide_uniform(words), size)
        return _in_order(_uniform(words), size)

    def normal(self, size: int, name: str) -> np.ndarray:
        words = self._words(size, _per_counter(name))
        if name == "float64":
            uniform = _wide_uniform(words)
            return _in_order(_box_muller(uniform[0], 2 * math.pi * uniform[1]), size)
        # The angle is made with one rounding, float32(2 pi / 2^32) word + float32(pi / 2^32), and the functions are those of float32.
        angle = words[1::2].astype(np.float32).astype(np.float64) * np.float32(2 * math.pi / 2**32) + np.float32(math.pi / 2**32)
        pairs = _box_muller(_uniform(words[::2]), angle.astype(np.float32))
        return _in_order(pairs.swapaxes(0, 1).reshape(words.shape), size)

    def exponential(self, size: int, name: str) -> np.ndarray:
        """With mean 1; 0 is replaced by half the dtype's epsilon."""
        uniform = self.uniform(size, name)
        epsilon = np.finfo(uniform.dtype).eps / 2
        return -np.where(uniform >= 1 - epsilon, -epsilon, np.log(uniform))

    def integers(self, size: int, span: int) -> np.ndarray:
        """uint64 below `span`, by the remainder of one word, or from 2^28 on of two."""
        words = self._words(size, 2 if span >= 2**28 else 4)
        if span >= 2**28:
            words = words[::2] << _HALF | words[1::2]
        return _in_order(words, size) % np.uint64(span)

    def _words(self, size: int, per_counter: int) -> np.ndarray:
        """The words one kernel draws, of shape (4, counters, threads), moving the offset past them.

        Args:
            size: how many numbers the kernel makes.
            per_counter: how many of them from a counter's 4 words.
        """
        threads = 256 * min(-(-size // 256), self.blocks)
        counters = -(-size // (threads * per_counter)) if size else 0
        counter = np.zeros((4, counters, threads), np.uint64)
        position = np.arange(self.offset // 4, self.offset // 4 + counters, dtype=np.uint64)[:, None]
        counter[0], counter[1], counter[2] = position & _LOW, position >> _HALF, np.arange(threads)
        self.offset += 4 * counters
        return philox(counter, self.seed)


def _per_counter(name: str) -> int:
    return 2 if name == "float64" else 4


def _in_order(values: np.ndarray, size: int) -> np.ndarray:
    """Values of shape (numbers a counter, counters, threads) as the kernel stores them."""
    return values.swapaxes(0, 1).reshape(-1)[:size]


def _uniform(words: np.ndarray) -> np.ndarray:
    """float32 on (0, 1] from one word."""
    return words.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)


def _wide_uniform(words: np.ndarray) -> np.ndarray:
    """float64 on (0, 1] from 53 bits of two words each."""
    return (words[::2] ^ words[1::2] << np.uint64(21)) * 2.0**-53 + 2.0**-54


def _box_muller(uniform: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Pairs of normal numbers, a sine and a cosine, rounded as often as by the GPU but by NumPy's functions."""

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(uniform.dtype)

    radius = np.sqrt(-2 * rounded(np.log(uniform.astype(np.float64))))
    wide = angle.astype(np.float64)
    return np.stack([radius * rounded(np.sin(wide)), radius * rounded(np.cos(wide))])
