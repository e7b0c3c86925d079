import hashlib

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers.core import random
from mindone_diffusers.core.errors import ConfigError, UnsupportedError
from mindone_diffusers.core.random import Generator, randn_tensor


def test_numpy_generator_draws_float64_then_casts():
    """Users' pictures depend on these numbers."""
    drawn = np.random.default_rng(42).standard_normal((2, 4, 8, 8))
    for dtype, expected in ((None, np.float32), (ms.float32, np.float32), (ms.float16, np.float16), ("float64", np.float64)):
        tensor = randn_tensor((2, 4, 8, 8), np.random.default_rng(42), dtype=dtype)
        assert tensor.asnumpy().dtype == expected and np.array_equal(tensor.asnumpy(), drawn.astype(expected))
    bf16 = randn_tensor((2, 4, 8, 8), np.random.default_rng(42), dtype=ms.bfloat16)
    assert bf16.dtype == ms.bfloat16 and np.abs(bf16.asnumpy().astype(np.float64) - drawn).max() < 2**-7
    first = randn_tensor((4,), np.random.default_rng(42)).asnumpy()
    assert first.tolist() == np.float32([0.30471708, -1.0399841, 0.7504512, 0.9405647]).tolist()


def test_a_list_draws_one_image_each():
    generators = [np.random.default_rng(s) for s in (1, 2)]
    batch = randn_tensor((2, 3, 4), generators).asnumpy()
    for image, seed in zip(batch, (1, 2)):
        assert np.array_equal(image, np.random.default_rng(seed).standard_normal((1, 3, 4)).astype(np.float32)[0])
    one = randn_tensor((2, 3), [np.random.default_rng(1)]).asnumpy()
    assert np.array_equal(one, np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32))
    with pytest.raises(ValueError, match="2 generators were given for a batch of 3"):
        randn_tensor((3, 3), generators)


def test_no_generator():
    a, b = randn_tensor((100,)).asnumpy(), randn_tensor((100,)).asnumpy()
    assert not np.array_equal(a, b)
    for seed in (5, 6):
        assert random.manual_seed(seed).initial_seed() == seed
        for size in (3, 100):
            assert np.array_equal(randn_tensor((size,)).asnumpy(), Generator().manual_seed(seed).randn((size,)))
            random.manual_seed(seed)


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="generator is a int"):
        randn_tensor((1,), 3)
    with pytest.raises(UnsupportedError, match="strided"):
        randn_tensor((1,), layout="sparse")
    with pytest.raises(UnsupportedError, match="mps"):
        Generator(device="mps")
    for call in (lambda: Generator().get_offset(), lambda: Generator().set_offset(4)):
        with pytest.raises(UnsupportedError, match="no offset"):
            call()
    with pytest.raises(ConfigError, match="within uint8"):
        Generator().randint(0, 257, (1,), "uint8")
    with pytest.raises(ConfigError, match="integer dtype"):
        Generator().randint(0, 2, (1,), "float32")
    with pytest.raises(ConfigError, match="floating"):
        Generator().manual_seed(0).rand((2,), "int32")
    with pytest.raises(ConfigError, match="64 bits"):
        Generator().manual_seed(2**64)
    with pytest.raises(ConfigError, match="expected 5056"):
        Generator().set_state(np.zeros(3, np.uint8))


# torch 2.13.0: sha256 of the bytes of consecutive torch.randn(n, generator=torch.Generator().manual_seed(11), dtype=...)
SIZES = (1, 5, 15, 16, 17, 31, 32, 100, 512, 3, 16384, 7)
TORCH = {
    "float32": [
        "5ad64ce6429c2b5b",
        "75ea9f333f3738ef",
        "9d8155d151fbf937",
        "e2072acbdb6d6ce6",
        "4a996418bdddfa14",
        "a3effa0458006e68",
        "96353398dd1b7c69",
        "42d7d2b64da5fa40",
        "a39da60d158a525b",
        "0054bc50b2593857",
        "74117448961b3baa",
        "8d20a2f715e7ad31",
    ],
    "float64": [
        "decdd8785dcc1094",
        "9a2cbe56f4e7682c",
        "14ef6583041c5f5b",
        "8c80041fd34870e7",
        "9858dd172ac22604",
        "6921518005d957f5",
        "a6b96ddc33a1669d",
        "a8a13deeeba3127f",
        "15954c0a83ac437b",
        "904f5f1df3b073f0",
        "edf5783c34994b41",
        "b4bbed953e89fc1b",
    ],
    "float16": [
        "985e23be7fdb8094",
        "bd4fe5be19e6076c",
        "db6e6e2ca5135447",
        "4e9593bb3c7f0858",
        "6a2ae71017d4eaf8",
        "296ba43ded79bf2e",
        "41fbc40cde161a99",
        "0d12204f183ae439",
        "4c18a3b541a8a138",
        "9cb9c874eeafb880",
        "da667221a6785e2d",
        "9791ec9f2dc82182",
    ],
    "bfloat16": [
        "40cc045dc51257f5",
        "637a36a38caf4f9d",
        "f867c33ab69c497d",
        "fe359986dd4a5f2b",
        "7a5d396bb50b90a1",
        "198fbdacf6a6356b",
        "8cc959b70031fa38",
        "89e783044270865d",
        "5fee7c12a84a475a",
        "220c0225d36ee38f",
        "d291ecccf7af3ee9",
        "14e9f6ce0b1938a5",
    ],
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_numbers(name):
    generator = Generator().manual_seed(11)
    found = [hashlib.sha256(generator.randn((n,), name).tobytes()).hexdigest()[:16] for n in SIZES]
    assert found == TORCH[name]


def test_torch_latents():
    latents = randn_tensor((1, 4, 8, 8), Generator().manual_seed(0)).asnumpy()
    assert latents.reshape(-1)[:4].tolist() == [-1.1258398294448853, -1.152360200881958, -0.2505785822868347, -0.4338788092136383]
    assert randn_tensor((2,), Generator().manual_seed(0), dtype=ms.float16).dtype == ms.float16


def test_state():
    generator = Generator().manual_seed(3)
    assert generator.initial_seed() == 3 and generator.device == "cpu"
    generator.randn((5,))  # an odd number: a second one is kept
    state = generator.get_state()
    expected = [generator.randn((n,)) for n in (4, 20, 1)]
    other = Generator().set_state(state)
    assert all(np.array_equal(other.randn((n,)), e) for n, e in zip((4, 20, 1), expected))
    assert np.array_equal(Generator().manual_seed(9).set_state(state).get_state(), state)
    assert generator.seed() == generator.initial_seed() != 3
