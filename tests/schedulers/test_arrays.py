"""What steps are computed with: tensors seen as arrays, sums in one pass, and the same sums without the native library."""

import gc

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import DDIMScheduler
from mindone_diffusers.backend.native import arrays as native
from mindone_diffusers.schedulers import arrays
from mindone_diffusers.schedulers.arrays import _shared_array, clamp, numpy_on_cpu, weighted_sum

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X, Y = numbers(2, 3, 5), numbers(2, 3, 5)


@ms.jit
def _doubled(x):
    return x * 2


TENSORS = {
    "made by NumPy": lambda: ms.Tensor(X),
    "made by an operator": lambda: ms.Tensor(X) + 1,
    "a part": lambda: (ms.Tensor(X) + 1)[1:],
    "transposed": lambda: (ms.Tensor(X) + 1).swapaxes(0, 1),
    "a parameter": lambda: ms.Parameter(ms.Tensor(X)),
    "empty": lambda: ms.Tensor(X[:0]),
    "a number": lambda: ms.Tensor(3.5),
    "not yet filled": lambda: ms.common.initializer.initializer("ones", (3, 4)),
    "of integers": lambda: ms.Tensor([1, 2]),
    "computed by a graph": lambda: _doubled(ms.Tensor(X)),
}


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_a_tensor_seen_as_an_array(make) -> None:
    tensor = make()
    array = _shared_array(tensor, [])
    assert array.shape == tensor.shape
    np.testing.assert_array_equal(array, tensor.asnumpy())


def test_an_array_outlives_its_tensor() -> None:
    """Solvers keep model outputs: neither giving a tensor other memory, nor its end, may take the array's away."""
    tensor = ms.Tensor(X) + 1
    array = _shared_array(tensor, [])
    assert array.ctypes.data == tensor.data_ptr() == tensor.data.data_ptr()
    tensor.assign_value(ms.Tensor(Y))
    assert tensor.data_ptr() != array.ctypes.data
    del tensor
    gc.collect()
    others = [ms.Tensor(Y) * 2 for _ in range(50)]
    np.testing.assert_array_equal(array, X + 1)
    assert len(others) == 50


def test_what_is_given_comes_back() -> None:
    class Same:
        @numpy_on_cpu
        def step(self, sample, timestep, other=None):
            assert isinstance(sample, np.ndarray)
            return sample, sample + 1

    tensor = ms.Tensor(X)
    same, more = Same().step(tensor, ms.Tensor(5))
    assert same is tensor and isinstance(more, ms.Tensor)
    assert all(isinstance(value, np.ndarray) for value in Same().step(X, timestep=ms.Tensor([5])))


SUMS = {
    "two": lambda: ((2, X, 0.3, Y), 1.0),
    "five": lambda: ((1, X, 0.3, Y, -2.0, X, 0.1, Y, 3, X), 1.0),
    "seven": lambda: ((1, X, 0.3, Y, -2.0, X, 0.1, Y, 3, X, 0.5, Y, 0.25, X), 1.0),
    "divided": lambda: ((1, X, -0.7, Y), 0.068),
    "one a sample": lambda: ((numbers(2, 1, 1), X, numbers(2, 1, 1), Y), numbers(2, 1, 1)),
    "not in order": lambda: ((0.5, X.swapaxes(0, 1), 0.5, Y.swapaxes(0, 1)), 1.0),
    "other shapes": lambda: ((0.5, X, 0.5, Y[:1]), 1.0),
    "float64": lambda: ((0.5, X.astype(np.float64), 0.3, Y), 1.0),
    "none": lambda: ((0.5, X[:0], 0.3, Y[:0]), 2.0),
}


@pytest.mark.parametrize("make", SUMS.values(), ids=SUMS)
@pytest.mark.parametrize("library", [True, False], ids=["native", "NumPy"])
def test_weighted_sum(make, library: bool, monkeypatch) -> None:
    """Bit for bit what NumPy's operations give, one after the other."""
    if not library:
        monkeypatch.setattr(arrays, "kernel", lambda name: lambda *arguments: None)
    terms, over = make()
    expected = sum(weight * array for weight, array in zip(terms[::2], terms[1::2])) / over
    result = weighted_sum(*terms, over=over)
    assert result.dtype == expected.dtype and not any(np.shares_memory(result, array) for array in terms[1::2])
    np.testing.assert_array_equal(result, expected)
    if isinstance(over, float) and expected.dtype == np.float32 and expected.size:
        tensors = weighted_sum(*(ms.Tensor(term) if isinstance(term, np.ndarray) else term for term in terms), over=over)
        np.testing.assert_allclose(tensors.asnumpy(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("library", [True, False], ids=["native", "NumPy"])
def test_clamp(library: bool, monkeypatch) -> None:
    if not library:
        monkeypatch.setattr(arrays, "kernel", lambda name: lambda *arguments: None)
    values = np.array([-3, -1, 0.5, np.nan, np.inf, 4], np.float32)
    for kind in (np.float32, np.float16):
        result = clamp(values.astype(kind), -1.0, 2.5)
        assert result.dtype == kind
        np.testing.assert_array_equal(result, np.array([-1, -1, 0.5, np.nan, 2.5, 2.5], kind))
    assert clamp(ms.Tensor(values[:3]), -1.0, 2.5).asnumpy().tolist() == [-1.0, -1.0, 0.5]


@pytest.mark.parametrize("kind", [np.asarray, ms.Tensor])
def test_shapes_that_do_not_fit(kind) -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(5)
    for error in (RuntimeError, ValueError):  # PyTorch's, NumPy's
        with pytest.raises(error, match=r"shapes \(2, 3, 5\) and \(2, 4, 5\); expected one shape"):
            scheduler.step(kind(numbers(2, 4, 5)), scheduler.timesteps[0], kind(X))


def test_the_native_library_is_used() -> None:
    if not native.library():
        pytest.skip("there is no C++ compiler")
    functions, result = native.functions(), np.empty_like(X)
    assert functions["weighted_sum"](result, 1.0, 0.5, X, np.float32(2), Y) is result is functions["clip"](result, X, -1, 1)
    assert functions["weighted_sum"](result, 1.0, 0.5, X, 2, Y.tolist()) is None
