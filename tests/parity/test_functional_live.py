"""Every function of `nn.functional` and every layer of `nn` against PyTorch: values, graph mode and gradients."""

import inspect
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers  # noqa: F401  (CPU tuning)
from mindone_diffusers import nn
from mindone_diffusers.backend import common, cpu, native
from mindone_diffusers.backend.table import table
from mindone_diffusers.nn import functional

torch = pytest.importorskip("torch")

from tests.functional_cases import CASES, Case, T, as_tuple, prepare  # noqa: E402
from tests.harness import make_input, make_state, rng_for  # noqa: E402

torch.set_num_threads(1)


# Functions that torch has under another name, or not at all.
def _geglu(input):
    hidden, gate = input.chunk(2, -1)
    return hidden * torch.nn.functional.gelu(gate)


def _attention(query, key, value, **rest):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=query.shape[1] != key.shape[1], **rest)


TORCH = {
    "geglu": _geglu,
    "batch_norm": lambda x, mean, var, weight, bias, eps=1e-5: torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.1, eps),
    "bmm": lambda input, other, transpose_b=False: input @ (other.mT if transpose_b else other),
    "arange": lambda start, end=None, **rest: torch.arange(*((start,) if end is None else (start, end)), **rest),
    "scaled_dot_product_attention": _attention,
}


def torch_outputs(case: Case, tensors: list) -> tuple:
    """What torch makes of the tensors, in the order in which `prepare` lists them."""
    tensors = iter(tensors)

    def fill(value):
        spec = value.spec
        if isinstance(spec, list):
            return [next(tensors) for _ in spec]
        return next(tensors) if isinstance(spec, tuple) else spec

    order = list(inspect.signature(getattr(functional, case.function)).parameters)
    positional = [fill(T(spec)) for spec in case.positional]
    keywords = {}
    for name in sorted(case.keywords, key=order.index):
        value = case.keywords[name]
        keywords[name] = getattr(torch, value) if name == "dtype" else fill(value) if isinstance(value, T) else value
    function = TORCH.get(case.function) or getattr(torch.nn.functional, case.function, None) or getattr(torch, case.function)
    return as_tuple(function(*positional, **keywords))


def check(actual: tuple, expected: tuple, tolerance: float) -> None:
    """Same number of tensors, dtypes, shapes and values."""
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        ours, theirs = ours.asnumpy(), theirs.detach().numpy()
        assert ours.dtype == theirs.dtype
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(ours[~finite], theirs[~finite])
        error = np.abs(np.where(finite, ours, 0).astype(np.float64) - np.where(finite, theirs, 0)).max()
        assert error <= tolerance * max(np.abs(theirs[finite]).max(initial=0), 1e-2)


@pytest.fixture(scope="module", params=["operators", "native"])
def kernels(request):
    """MindSpore's own CPU kernels, or the native ones where there are some."""
    if request.param == "native" and not native.available():
        pytest.skip("there is no C++ compiler")
    with pytest.MonkeyPatch.context() as patch:
        for name in native.NAMES:
            patch.setattr(table, name, native.entry(name) if request.param == "native" else getattr(cpu, name))
        yield request.param


def cases(*functions: str):
    return pytest.mark.parametrize("case", [case for case in CASES if not functions or case.function in functions], ids=str)


@cases()
def test_value(case, kernels):
    arrays, call = prepare(case)
    check(as_tuple(call(*map(ms.Tensor, arrays))), torch_outputs(case, list(map(torch.from_numpy, arrays))), 1e-5)


@cases()
def test_value_in_graph_mode(case, kernels):
    arrays, call = prepare(case)
    output = ms.jit(call)(*map(ms.Tensor, arrays))
    check(as_tuple(output), torch_outputs(case, list(map(torch.from_numpy, arrays))), 1e-5)


@cases()
def test_gradients(case, kernels):
    arrays, call = prepare(case)
    wanted = [index for index, array in enumerate(arrays) if array.dtype == np.float32]
    if case.function == "batch_norm":
        wanted = [0, 3, 4]  # the stored statistics are no variables
    inputs = [torch.from_numpy(array).requires_grad_(index in wanted) for index, array in enumerate(arrays)]
    outputs = torch_outputs(case, inputs)
    if not wanted or not outputs[0].requires_grad:
        pytest.skip("nothing to differentiate")
    weights = [rng_for(f"{case} {index}").standard_normal(output.shape).astype(np.float32) for index, output in enumerate(outputs)]
    sum((output * torch.from_numpy(weight)).sum() for output, weight in zip(outputs, weights)).backward()
    factors = [ms.Tensor(weight) for weight in weights]

    def loss(*tensors):
        total = 0
        for output, factor in zip(as_tuple(call(*tensors)), factors):
            total = total + (output * factor).sum()
        return total

    _, gradients = ms.value_and_grad(loss, grad_position=tuple(wanted))(*map(ms.Tensor, arrays))
    check(as_tuple(gradients), tuple(inputs[index].grad for index in wanted), 1e-4)


# Half precision

HALF = [case for case in CASES if case.function not in ("arange", "zeros", "ones", "full")]


ROUNDED_TWICE = ("normalize", "rms_norm")  # the norm too, by their definition


@pytest.mark.parametrize("case", HALF, ids=str)
def test_half_precision(case):
    """Computed in float32 and rounded once, as PyTorch does: as near to the exact result as it is itself in float16."""
    arrays, call = prepare(case)
    halves = [array.astype(np.float16) if array.dtype == np.float32 else array for array in arrays]
    if all(half is array for half, array in zip(halves, arrays)):
        pytest.skip("no floating-point tensor")
    outputs = as_tuple(call(*map(ms.Tensor, halves)))
    wide = [torch.from_numpy(half.astype(array.dtype)) for half, array in zip(halves, arrays)]
    expected = torch_outputs(case, wide)
    assert all((output.dtype == ms.float16) == theirs.is_floating_point() for output, theirs in zip(outputs, expected))
    check([output.astype(getattr(ms, str(theirs.dtype)[6:])) for output, theirs in zip(outputs, expected)], expected, 1e-3)
    if case.function not in ROUNDED_TWICE:
        for ours, theirs in zip(outputs, expected):
            ours, theirs = ours.asnumpy().astype(np.float64), theirs.numpy()
            finite = np.isfinite(theirs)
            ours, theirs = ours[finite], theirs[finite]
            assert np.square(ours - theirs).sum() <= 1.02 * np.square(theirs.astype(np.float16) - theirs.astype(np.float64)).sum()


# What the table does not say


def test_every_function_has_cases():
    own = {name: value for name, value in vars(functional).items() if inspect.isfunction(value) and value.__module__ == functional.__name__}
    public = {name for name in own if not name.startswith("_")}
    assert public - {"assign"} == {case.function for case in CASES}  # assign writes a parameter, which the step caches' tests see


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("case", [case for case in CASES if case.function == "scaled_dot_product_attention"], ids=str)
def test_attention_in_chunks_of_queries(case, jit, monkeypatch):
    monkeypatch.setattr(table, "attention", cpu.attention)
    arrays, call = prepare(case)
    batch, heads = arrays[0].shape[:2]
    monkeypatch.setattr(common, "ATTENTION_SCORE_BYTES", batch * heads * arrays[1].shape[2] * 4 * 3)
    output = (ms.jit(call) if jit else call)(*map(ms.Tensor, arrays))
    check((output,), torch_outputs(case, list(map(torch.from_numpy, arrays))), 1e-5)


def test_mask_and_causality_at_once(kernels):
    query, key = (rng_for(name).standard_normal((2, 3, 6, 8)).astype(np.float32) for name in "qk")
    keep = np.array([[True] * 4 + [False] * 2, [False] + [True] * 5])[:, None, None]
    both = torch.from_numpy(keep) & torch.ones(6, 6, dtype=torch.bool).tril()
    expected = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (query, key, key)), both)
    query, key, keep = map(ms.Tensor, (query, key, keep))
    check((functional.scaled_dot_product_attention(query, key, key, keep, is_causal=True),), (expected,), 1e-5)


def test_dropout_in_training():
    values = ms.Tensor(np.ones((100, 1000), np.float32))
    output = functional.dropout(values, 0.25).asnumpy()
    assert set(np.unique(output).round(5)) == {0, np.float32(1 / 0.75).round(5)}
    assert abs((output == 0).mean() - 0.25) < 0.01
    gradient = ms.grad(lambda values: functional.dropout(values, 0.25).sum())(values).asnumpy()
    assert set(np.unique(gradient).round(5)) == {0, np.float32(1 / 0.75).round(5)}


X = ms.Tensor(np.zeros((1, 2, 4, 4), np.float32))


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ValueError, "size or scale_factor", lambda: functional.interpolate(X)),
        (ValueError, "size or scale_factor", lambda: functional.interpolate(X, size=2, scale_factor=2.0)),
        (NotImplementedError, "area", lambda: functional.interpolate(X, size=2, mode="area")),
        (ValueError, "trilinear", lambda: functional.interpolate(X, size=2, mode="trilinear")),
        (ValueError, "mirror", lambda: functional.pad(X, (1, 1), mode="mirror")),
        (ValueError, "reflect", lambda: functional.pad(X, (4, 0), mode="reflect")),
        (ValueError, "dropout_p", lambda: functional.scaled_dot_product_attention(X, X, X, dropout_p=0.1)),
        (ValueError, "p=2", lambda: functional.normalize(X, p=1.0)),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call()


# Layers

LAYERS = [
    ("Linear", (5, 4), {}, (3, 5)),
    ("Linear", (5, 4), {"bias": False}, (2, 3, 5)),
    ("Conv1d", (4, 6, 3), {"padding": 1, "stride": 2}, (2, 4, 9)),
    ("Conv1d", (4, 6, 3), {"dilation": 2, "groups": 2, "bias": False}, (2, 4, 9)),
    ("Conv2d", (4, 6, 3), {}, (2, 4, 7, 8)),
    ("Conv2d", (4, 6, (3, 1), (2, 1), (1, 0)), {}, (2, 4, 7, 8)),
    ("Conv2d", (4, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 1, "groups": 2, "bias": False}, (2, 4, 7, 8)),
    ("Conv3d", (4, 6, (3, 1, 1)), {"padding": (1, 0, 0)}, (1, 4, 5, 6, 7)),
    ("ConvTranspose2d", (4, 6, 4, 2, 1), {}, (2, 4, 5, 6)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "bias": False}, (2, 4, 5, 6)),
    ("Embedding", (9, 4), {}, ("int", (2, 5), 9)),
    ("GroupNorm", (2, 6), {}, (2, 6, 7, 8)),
    ("GroupNorm", (3, 6), {"eps": 1e-3, "affine": False}, (2, 6, 7)),
    ("LayerNorm", (8,), {}, (2, 3, 8)),
    ("LayerNorm", ((3, 8),), {"eps": 1e-3, "bias": False}, (2, 3, 8)),
    ("LayerNorm", (8, 1e-6, False), {}, (2, 3, 8)),
    ("RMSNorm", (8,), {}, (2, 3, 8)),
    ("RMSNorm", ([3, 8],), {"eps": 1e-3, "elementwise_affine": False}, (2, 3, 8)),
    ("BatchNorm2d", (6,), {}, (2, 6, 7, 8)),
    ("BatchNorm2d", (6, 1e-3), {}, (2, 6, 7, 8)),
    ("Dropout", (0.3,), {}, (3, 5)),
    ("SiLU", (), {}, (3, 5)),
    ("GELU", (), {}, (3, 5)),
    ("GELU", (), {"approximate": "tanh"}, (3, 5)),
    ("ReLU", (), {}, (3, 5)),
    ("LeakyReLU", (), {}, (3, 5)),
    ("LeakyReLU", (0.2,), {}, (3, 5)),
    ("Mish", (), {}, (3, 5)),
    ("Sigmoid", (), {}, (3, 5)),
    ("Tanh", (), {}, (3, 5)),
    ("Identity", (), {}, (3, 5)),
    ("AvgPool2d", (2,), {}, (2, 6, 7, 8)),
    ("AvgPool2d", (3,), {"stride": 1, "padding": 1}, (2, 6, 7, 8)),
    ("Upsample", (), {"scale_factor": 2.0}, (2, 6, 7, 8)),
    ("Upsample", ((9, 9),), {"mode": "bilinear", "align_corners": True}, (2, 6, 7, 8)),
]


def layer_id(value) -> str:
    return str(value).replace(" ", "")


@pytest.mark.parametrize("name, arguments, keywords, shape", LAYERS, ids=layer_id)
def test_layer(name, arguments, keywords, shape):
    ours, theirs = getattr(nn, name)(*arguments, **keywords), getattr(torch.nn, name)(*arguments, **keywords).eval()
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in ours.parameters_and_names()} == expected
    assert all(parameter.name == key for key, parameter in ours.parameters_and_names())
    state = {key: np.abs(value) if key == "running_var" else value for key, value in make_state(expected).items()}
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
    for key, parameter in ours.parameters_and_names():
        parameter.set_data(ms.Tensor(state[key]))
    inputs = make_input("x", shape)
    ours.eval()
    expected = (theirs(torch.from_numpy(inputs)),)
    check((ours(ms.Tensor(inputs)),), expected, 1e-5)
    check((ms.jit(ours)(ms.Tensor(inputs)),), expected, 1e-5)


def test_every_layer_has_cases():
    layers = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))}
    assert layers - {"Module", "ModuleList", "Sequential"} == {name for name, *_ in LAYERS}


def test_containers_name_their_children_as_torch_does():
    def build(library):
        return library.Sequential(library.Linear(2, 3), library.ModuleList([library.Linear(3, 3), library.SiLU(), library.Linear(3, 1)]))

    ours = build(nn)
    assert [key for key, _ in ours.parameters_and_names()] == list(build(torch.nn).state_dict())
    names = [name for name, _ in build(torch.nn).named_modules()]
    assert [name for name, _ in ours.named_modules()] == names


def test_children_added_later_are_named_as_torch_does():
    def build(library):
        outer = library.ModuleList([])
        for _ in range(2):
            inner = library.ModuleList([])
            inner.append(library.Linear(2, 2))
            outer.append(inner)
        return outer

    assert [key for key, _ in build(nn).parameters_and_names()] == list(build(torch.nn).state_dict())


INITIALISED = [
    ("Linear", (64, 300), {}),
    ("Conv1d", (32, 128, 5), {}),
    ("Conv2d", (32, 128, 3), {"groups": 2}),
    ("Conv3d", (16, 64, 3), {}),
    ("ConvTranspose2d", (64, 32, 4), {}),
    ("Embedding", (500, 64), {}),
    ("GroupNorm", (2, 64), {}),
    ("LayerNorm", (64,), {}),
    ("RMSNorm", (64,), {}),
    ("BatchNorm2d", (64,), {}),
]


@pytest.mark.parametrize("name, arguments, keywords", INITIALISED, ids=layer_id)
def test_initial_distribution(name, arguments, keywords):
    torch.manual_seed(0)
    ours, theirs = getattr(nn, name)(*arguments, **keywords), getattr(torch.nn, name)(*arguments, **keywords).state_dict()
    generator = np.random.default_rng(0)
    for key, parameter in ours.parameters_and_names():
        nn.initialize(parameter, generator)
        actual, expected = parameter.asnumpy(), theirs[key].numpy()
        scale = expected.std() + np.abs(expected).max()
        assert abs(actual.mean() - expected.mean()) <= 6 * expected.std() / np.sqrt(actual.size)
        assert abs(actual.std() - expected.std()) <= 8 * expected.std() / np.sqrt(actual.size)
        tail = 0.5 if name == "Embedding" else 10 / actual.size  # a normal distribution has no bound
        assert abs(np.abs(actual).max() - np.abs(expected).max()) <= tail * scale


def test_layers_allocate_nothing():
    script = """
import psutil
from mindone_diffusers import nn
nn.Linear(4, 4)
before = psutil.Process().memory_info().rss
layer = nn.Linear(20000, 20000)
print(psutil.Process().memory_info().rss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 10e6


def test_parameter_dtype():
    with nn.parameter_dtype(ms.float16):
        layer = nn.Linear(3, 4)
    assert {parameter.dtype for parameter in layer.parameters()} == {ms.float16}
    nn.initialize(layer.weight, np.random.default_rng(0))
    assert layer.weight.dtype == ms.float16
    assert nn.Linear(3, 4).weight.dtype == ms.float32
