"""The CUDA generator against published vectors and against cuRAND's own code (`tools/record_curand.py`); no GPU was at hand."""

import hashlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import safetensors

from mindone_diffusers.core.errors import ConfigError
from mindone_diffusers.core.philox import CUDAStream, philox
from mindone_diffusers.core.random import GPUS, Generator, randn_tensor

from .curand_cases import CASES, KINDS, LARGE

REFERENCE = safetensors.safe_open(Path(__file__).parents[1] / "reference" / "curand.safetensors", "numpy")


def test_known_answers():
    """Random123's kat_vectors for philox4x32, 10 rounds."""
    vectors = [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, expected in vectors:
        assert philox(np.array(counter, np.uint64), key).tolist() == list(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(CASES)))
def test_curand(number, kind):
    """Words, uniform numbers and offsets bit for bit, normal ones within 2 units in the last place of a number near 1 to 2."""
    seed, offset, (multiprocessors, threads), sizes = CASES[number]
    stream = CUDAStream(seed, multiprocessors * (threads // 256))
    stream.set_offset(offset)
    draws = {
        "words": lambda n: stream.integers(n, 2**28 - 1),
        "wide": lambda n: stream.integers(n, 2**63),
        "uniform32": lambda n: stream.uniform(n, "float32"),
        "uniform64": lambda n: stream.uniform(n, "float64"),
        "normal32": lambda n: stream.normal(n, "float32"),
        "normal64": lambda n: stream.normal(n, "float64"),
    }
    found = np.concatenate([draws[kind](n) for n in sizes])
    expected = REFERENCE.get_tensor(f"{number}/{kind}")
    assert stream.offset == REFERENCE.get_tensor(f"{number}/{kind}/offset")
    if kind.startswith("normal"):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol={"normal32": 2.5e-7, "normal64": 1e-15}[kind])
    else:
        assert np.array_equal(found, expected % {"words": 2**28 - 1, "wide": 2**63}.get(kind, 2))


def test_more_numbers_than_an_a100_has_threads():
    seed, _, _, sizes = LARGE
    stream = CUDAStream(seed, 108 * 8)
    found = np.concatenate([stream.uniform(n, "float32") for n in sizes])
    assert hashlib.sha256(found.tobytes()).hexdigest() == REFERENCE.metadata()["large"]


def test_numbers_printed_by_pytorch():
    """Of `torch.manual_seed(seed); torch.randn(..., device="cuda")`, as found printed in tutorials and issues, to 4 digits."""
    for seed, printed in (
        (0, [-0.9247, -0.4253, -2.6438, 0.1452, -0.1209]),
        (42, [0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494]),
    ):
        assert np.round(Generator("cuda").manual_seed(seed).randn((len(printed),)), 4).tolist() == np.float32(printed).tolist()


def test_order_of_threads():
    """Number i comes from thread i modulo all threads: the first 4 rounds from the 4 words of one counter, the fifth from the next."""
    threads, seed = 512, 3
    drawn = Generator("cuda", gpu=(2, 300)).manual_seed(seed).randint(0, 2**27, (threads * 4 + 20,))
    for index in (0, 5, 511, 512, 1029, 1536, 2047, 2048, 2067):
        thread, turn = index % threads, index // threads
        words = philox(np.array([turn // 4, 0, thread, 0], np.uint64), seed)
        assert drawn[index] == int(words[turn % 4]) % 2**27


def test_numbers_depend_on_the_gpu_only_beyond_its_threads():
    def latents(gpu, count):
        return Generator("cuda", gpu=gpu).manual_seed(5).randn((count,))

    smallest = min(multiprocessors * (threads // 256) * 256 for multiprocessors, threads in GPUS.values())
    assert smallest == 40960  # the T4
    assert all(np.array_equal(latents(gpu, smallest), latents("A100", smallest)) for gpu in GPUS)
    a100, h100 = latents("A100", 300_000), latents("H100", 300_000)
    assert np.array_equal(a100[:221184], h100[:221184]) and not np.array_equal(a100[221184:], h100[221184:])


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_dtypes(name):
    """Half formats are float32's draws, rounded; float64 is another draw."""
    generator = Generator("cuda:0").manual_seed(1)
    normal, uniform = generator.randn((3, 5000), name), generator.rand((20000,), name)
    assert normal.shape == (3, 5000) and str(normal.dtype) == str(uniform.dtype) == name
    uniform = uniform.astype(np.float64)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(normal.astype(np.float64).mean()) < 0.03 and abs(normal.astype(np.float64).std() - 1) < 0.03
    if name != "float64":
        assert np.array_equal(normal, Generator("cuda").manual_seed(1).randn((3, 5000)).astype(normal.dtype))
    exponential = generator.exponential((20000,), name).astype(np.float64)
    assert exponential.min() >= 0 and abs(exponential.mean() - 1) < 0.03


def test_randint():
    generator = Generator("cuda").manual_seed(0)
    for low, high, dtype in ((0, 1000, "int64"), (-5, 6, "int8"), (0, 2**28, "int64"), (-(2**63), 2**63 - 1, "int64"), (3, 4, "uint8")):
        drawn = generator.randint(low, high, (2, 100), dtype)
        assert drawn.dtype == dtype and drawn.shape == (2, 100) and low <= drawn.min() and drawn.max() < high
    assert generator.get_offset() == 20


def test_state():
    generator = Generator("cuda").manual_seed(3)
    assert generator.device == "cuda" and generator.initial_seed() == 3 and generator.get_offset() == 0
    first = generator.randn((5,))
    assert generator.get_offset() == 4
    generator.randn((0,))  # PyTorch starts no kernel
    assert generator.get_offset() == 4
    state = generator.get_state()
    assert state.dtype == np.uint8 and state.tolist() == [3, *[0] * 7, 4, *[0] * 7]
    expected = generator.rand((7,))
    assert np.array_equal(Generator("cuda").set_state(state).rand((7,)), expected)
    assert np.array_equal(Generator("cuda").manual_seed(3).set_offset(4).rand((7,)), expected)
    assert np.array_equal(Generator("cuda").set_state(state[:8]).randn((5,)), first)
    assert Generator("cuda").initial_seed() == 67280421310721
    assert generator.seed() == generator.initial_seed() != 3 and generator.get_offset() == 0


def test_randn_tensor():
    def one(seed):
        return Generator("cuda").manual_seed(seed)

    latents = randn_tensor((2, 4, 8, 8), [one(1), one(2)], dtype=ms.float16)
    assert latents.dtype == ms.float16
    for image, seed in zip(latents.asnumpy(), (1, 2)):
        assert np.array_equal(image, one(seed).randn((1, 4, 8, 8), "float16")[0])
    assert np.array_equal(randn_tensor((2, 4, 8, 8), one(1)).asnumpy(), one(1).randn((2, 4, 8, 8)))


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="'T5'; expected one of .*A100.*multiprocessors"):
        Generator("cuda", gpu="T5")
    with pytest.raises(ConfigError, match="offset is 3"):
        Generator("cuda").set_offset(3)
    with pytest.raises(ConfigError, match="expected 16"):
        Generator("cuda").set_state(np.zeros(3, np.uint8))
    with pytest.raises(ConfigError, match="low is 5 and high 5"):
        Generator("cuda").randint(5, 5, (1,))
