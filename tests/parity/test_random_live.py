"""The generators beside a live PyTorch: every kind of draw, bit for bit. `tests/core/test_random_cuda.py` has the CUDA generator."""

import itertools

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mindone_diffusers.utils.torch_utils import randn_tensor  # noqa: E402

from mindone_diffusers.core.random import Generator, random_array, random_integers  # noqa: E402

SEEDS = [0, 11, 2**32 + 5, 2**64 - 1]
FLOATS = ["float32", "float64", "float16", "bfloat16"]
SHAPES = [(), (0,), *((n,) for n in range(1, 40)), (2, 4, 8, 8), (1, 4, 17, 19), (3,), (5000,), (2, 0, 3)]


def pair(seed=0):
    return Generator().manual_seed(seed), torch.Generator().manual_seed(seed)


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def same_state(ours, theirs):
    return np.array_equal(ours.get_state(), theirs.get_state().numpy())


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("seed", SEEDS)
def test_floats(name, seed):
    """randn, rand and exponential_ in turn, at every size of the three ways of making normal numbers, with the states after each."""
    ours, theirs = pair(seed)
    dtype = getattr(torch, name)
    for shape in SHAPES:
        for found, expected in (
            (ours.randn(shape, name), torch.randn(shape, dtype=dtype, generator=theirs)),
            (ours.rand(shape, name), torch.rand(shape, dtype=dtype, generator=theirs)),
            (ours.exponential(shape, name), torch.empty(shape, dtype=dtype).exponential_(generator=theirs)),
        ):
            assert found.shape == shape and str(found.dtype) == name and found.tobytes() == bits(expected)
        assert same_state(ours, theirs)


def test_float16_never_rounds_up_to_one():
    ours, theirs = pair()
    for name in FLOATS[1:]:
        assert ours.rand((200_000,), name).tobytes() == bits(torch.rand(200_000, dtype=getattr(torch, name), generator=theirs))


EDGES = [2**28 - 1, 2**28, 2**28 + 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**48, 2**63 - 1]
RANGES = [(0, 1), (0, 2), (0, 1000), (-7, 12), (5, 6), *((0, high) for high in EDGES), (-(2**63), -(2**63) + 9), (-(2**63), 2**63 - 1),
          (-(2**27), 2**27), (-(2**27), 2**27 - 1), (-(2**40), 3)]  # fmt: skip


@pytest.mark.parametrize("low, high", RANGES)
def test_randint(low, high):
    ours, theirs = pair(7)
    for shape in ((), (0,), (1,), (17,), (3, 5), (1000,)):
        found, expected = ours.randint(low, high, shape), torch.randint(low, high, shape, generator=theirs)
        assert found.dtype == np.int64 and np.array_equal(found, expected.numpy()) and same_state(ours, theirs)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "int32", "int64"])
def test_randint_dtypes(name):
    ours, theirs = pair(7)
    limits = torch.iinfo(getattr(torch, name))
    for low, high in ((0, 100), (limits.min, limits.max), (limits.min, min(limits.max + 1, 2**63 - 1)), (limits.max - 1, limits.max)):
        found = ours.randint(low, high, (50,), name)
        assert found.dtype == name and np.array_equal(found, torch.randint(low, high, (50,), dtype=getattr(torch, name), generator=theirs))
    for low, high in ((3, 3), (4, 3), (limits.min - 1, 0), (0, limits.max + 2)):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            torch.randint(low, high, (2,), dtype=getattr(torch, name))
        with pytest.raises(ValueError):
            ours.randint(low, high, (2,), name)


def test_kinds_mixed_and_states_exchanged():
    """A random walk over all kinds of draws, each side continuing from the other's state now and then."""
    ours, theirs = pair(5)
    choose = np.random.default_rng(0)
    for turn in range(300):
        size, name = int(choose.integers(0, 60)), FLOATS[choose.integers(4)]
        kind = choose.integers(4)
        if kind == 0:
            found, expected = ours.randn((size,), name), torch.randn(size, dtype=getattr(torch, name), generator=theirs)
        elif kind == 1:
            found, expected = ours.rand((size,), name), torch.rand(size, dtype=getattr(torch, name), generator=theirs)
        elif kind == 2:
            found, expected = ours.exponential((size,), name), torch.empty(size, dtype=getattr(torch, name)).exponential_(generator=theirs)
        else:
            high = int(choose.choice([10, 2**28, 2**50]))
            found, expected = ours.randint(0, high, (size,)), torch.randint(0, high, (size,), generator=theirs)
        assert found.tobytes() == bits(expected)
        if turn % 10 == 0:
            state = theirs.get_state()
            theirs = torch.Generator().set_state(torch.from_numpy(ours.get_state()))
            ours = Generator().set_state(state.numpy())


def test_a_torch_generator_draws_what_torch_draws():
    for name, distribution in itertools.product(FLOATS, ("normal", "uniform", "exponential")):
        ours, theirs = pair(3)
        found, expected = random_array(distribution, (3, 17), theirs, name), random_array(distribution, (3, 17), ours, name)
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
    ours, theirs = pair(3)
    assert np.array_equal(random_integers(-3, 50, (9,), theirs), random_integers(-3, 50, (9,), ours))


@pytest.mark.parametrize("name", FLOATS)
def test_randn_tensor_with_torch_generators(name):
    from diffusers.utils.torch_utils import randn_tensor as reference

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (5, 6)]

    expected = reference((2, 4, 9, 8), generators(), device=torch.device("cpu"), dtype=getattr(torch, name), layout=torch.strided)
    for given in (generators(), [Generator().manual_seed(seed) for seed in (5, 6)]):
        found = randn_tensor((2, 4, 9, 8), given, device="cpu", dtype=getattr(torch, name), layout=torch.strided)
        assert found.dtype == getattr(ms, name) and np.array_equal(found.asnumpy().astype(np.float64), expected.double().numpy())


def test_offsets_are_refused_alike():
    with pytest.raises(RuntimeError):
        torch.Generator().get_offset()
    with pytest.raises(NotImplementedError):
        Generator().get_offset()
