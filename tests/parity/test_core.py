"""core/ against torch, safetensors and diffusers, side by side."""

import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindspore as ms  # noqa: E402
import safetensors.torch  # noqa: E402

from mindone_diffusers.core import configuration, hub, weights  # noqa: E402
from mindone_diffusers.core.configuration import ConfigMixin, register_to_config  # noqa: E402
from mindone_diffusers.core.random import Generator, randn_tensor  # noqa: E402

SMALL_UNET = {"block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 8, "cross_attention_dim": 16, "norm_num_groups": 8}
SMALL_UNET |= {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
CASES = [
    ("UNet2DConditionModel", SMALL_UNET),
    ("AutoencoderKL", {"block_out_channels": [8], "norm_num_groups": 4, "latents_mean": [0.5, 1.5]}),
    ("DDIMScheduler", {"beta_schedule": "scaled_linear", "clip_sample": False, "trained_betas": np.array([0.1, 0.2])}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
]


def ours(name):
    """A class of ours with the signature of PyTorch's, and nothing in it."""
    theirs = getattr(diffusers, name)

    def init(self, *args, **kwargs):
        pass

    init.__signature__ = inspect.signature(theirs.__init__)
    body = {
        "config_name": theirs.config_name,
        "has_compatibles": theirs.has_compatibles,
        "_compatibles": [getattr(c, "name", c) for c in getattr(theirs, "_compatibles", [])],
        "__init__": register_to_config(init),
    }
    return type(name, (ConfigMixin,), body)


@pytest.fixture
def stubs(monkeypatch):
    classes = {name: ours(name) for name, _ in CASES}
    monkeypatch.setattr(configuration, "_library", lambda: SimpleNamespace(**classes))
    return classes


@pytest.mark.parametrize("name, arguments", CASES)
def test_configs_go_both_ways(tmp_path, stubs, name, arguments):
    theirs, mine = getattr(diffusers, name), stubs[name]
    reference, candidate = theirs(**arguments), mine(**arguments)
    assert candidate.to_json_string() == reference.to_json_string()
    reference.save_config(tmp_path / "theirs")
    candidate.save_config(tmp_path / "ours")
    file = theirs.config_name
    assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()

    from_theirs = mine.from_config(mine.load_config(tmp_path / "theirs"))
    back = theirs.from_config(theirs.load_config(tmp_path / "ours"))
    assert from_theirs.to_json_string() == back.to_json_string() == reference.to_json_string()
    assert {k: v for k, v in from_theirs.config.items() if k[0] != "_"} == {k: v for k, v in back.config.items() if k[0] != "_"}


@pytest.mark.parametrize("source, target", [("DDIMScheduler", "PNDMScheduler"), ("PNDMScheduler", "DDIMScheduler")])
def test_from_one_scheduler_to_another(stubs, source, target):
    def go(library):
        first = library[source](num_train_timesteps=50, prediction_type="v_prediction", steps_offset=1)
        second, unused = library[target].from_config(first.config, return_unused_kwargs=True, beta_end=0.5, unknown=1)
        return first, second, unused, library[source].from_config(second.config)

    theirs = go({name: getattr(diffusers, name) for name in (source, target)})
    mine = go(stubs)
    for reference, candidate in zip(theirs, mine):
        if isinstance(reference, dict):
            assert candidate == reference
        else:
            assert candidate.to_json_string() == reference.to_json_string()
            assert set(candidate.config.get("_use_default_values", ())) == set(reference.config.get("_use_default_values", ()))


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", ["10GB", "100KB"])
def test_models_go_both_ways(tmp_path, variant, dtype, size):
    model = diffusers.UNet2DConditionModel(**SMALL_UNET).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size, variant=variant)
    files, index = hub.find_weights(tmp_path / "theirs", variant=variant)
    assert (index is None) == (size == "10GB") and len(files) >= (1 if index is None else 2)
    state = weights.load_state_dict(files, index)
    reference = model.state_dict()
    assert set(state) == set(reference)
    for name, tensor in reference.items():
        assert state[name].shape == tuple(tensor.shape) and state[name].numpy().tobytes() == tensor.view(torch.uint8).numpy().tobytes()

    # ours, from MindSpore tensors in the order of the model, is theirs byte for byte
    tensors = {name: weights.to_parameter_data(state[name]) for name in reference}
    assert {str(t.dtype).lower() for t in tensors.values()} == {dtype}
    weights.save_state_dict(tensors, tmp_path / "ours", hub.SAFETENSORS_WEIGHTS_NAME, max_shard_size=size, variant=variant)
    written = {p.name: p.read_bytes() for p in (tmp_path / "ours").iterdir()}
    expected = {p.name: p.read_bytes() for p in (tmp_path / "theirs").iterdir() if p.name != "config.json"}
    assert written == expected
    model.save_config(tmp_path / "ours")
    again = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "ours", variant=variant, torch_dtype=getattr(torch, dtype))
    assert all(torch.equal(value, reference[name]) for name, value in again.state_dict().items())


def test_every_dtype_reads_in_torch(tmp_path):
    names = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    state = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names} | {"scalar": torch.tensor(3.5)}
    safetensors.torch.save_file(state, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    read = weights.open_safetensors(tmp_path / "theirs.safetensors")
    weights.save_state_dict(read, tmp_path, "ours.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    again = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(again[name], tensor) and again[name].dtype == tensor.dtype for name, tensor in state.items())


CASTS = [("float32", "float16"), ("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "float32"), ("float64", "float32"),
         ("bfloat16", "float16"), ("float16", "bfloat16")]  # fmt: skip


@pytest.mark.parametrize("source, target", CASTS)
def test_casts_are_torchs(tmp_path, source, target):
    """Bit for bit, over values that cover every exponent, infinities and not-a-number."""
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32)
    tensor = torch.from_numpy(bits.view(np.float32)).to(getattr(torch, source))
    tensor[:3] = torch.tensor([float("inf"), -float("inf"), 0.0])
    safetensors.torch.save_file({"x": tensor}, tmp_path / "m.safetensors")
    ours = weights.to_parameter_data(weights.open_safetensors(tmp_path / "m.safetensors")["x"], target)
    assert ours.dtype == getattr(ms, target)
    reference = tensor.to(getattr(torch, target)).float().numpy()
    assert np.array_equal(ours.asnumpy().astype(np.float32), reference, equal_nan=True)


# ---- random numbers

SIZES = [1, 5, 15, 16, 17, 31, 32, 100, 4 * 64 * 64, (2, 4, 8, 8), 3, (1, 4, 17, 19), 7, 1]


def same_state(generator, reference):
    return np.array_equal(generator.get_state(), reference.get_state().numpy())


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("seed", [0, 11, 2**32 + 5, 2**64 - 1, -1])
def test_randn_is_torchs_bit_for_bit(name, seed):
    generator, reference = Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    assert generator.initial_seed() == reference.initial_seed()
    assert same_state(generator, reference)
    for size in SIZES:
        shape = size if isinstance(size, tuple) else (size,)
        expected = torch.randn(shape, generator=reference, dtype=getattr(torch, name))
        assert generator.randn(shape, name).tobytes() == expected.view(torch.uint8).numpy().tobytes()
        assert same_state(generator, reference)
        expected = torch.rand(shape, generator=reference, dtype=getattr(torch, name))
        assert generator.rand(shape, name).tobytes() == expected.view(torch.uint8).numpy().tobytes()


def test_randn_over_a_million_numbers():
    expected = torch.randn(2**20 + 3, generator=torch.Generator().manual_seed(7)).numpy()
    assert np.array_equal(Generator().manual_seed(7).randn((2**20 + 3,)), expected)


def test_states_go_both_ways():
    generator, reference = Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for count in (0, 1, 4, 700, 624, 16):
        generator.randn((count,))
        torch.randn(count, generator=reference)
        continued, taken = Generator().set_state(reference.get_state().numpy()), torch.Generator()
        taken.set_state(torch.from_numpy(generator.get_state()))
        for size in (3, 33):
            assert np.array_equal(continued.randn((size,)), torch.randn(size, generator=taken).numpy())


def test_default_seed():
    assert Generator().initial_seed() == torch.Generator().initial_seed()


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_randn_tensor_is_diffusers(name):
    from diffusers.utils.torch_utils import randn_tensor as reference

    dtype = getattr(torch, name)
    for make in (lambda make_one: make_one(5), lambda make_one: [make_one(s) for s in (5, 6)], lambda make_one: [make_one(5)]):
        expected = reference((2, 4, 8, 8), make(lambda s: torch.Generator().manual_seed(s)), dtype=dtype).float().numpy()
        for make_one in (lambda s: Generator().manual_seed(s), lambda s: torch.Generator().manual_seed(s)):
            found = randn_tensor((2, 4, 8, 8), make(make_one), dtype=dtype)
            assert found.dtype == getattr(ms, name) and np.array_equal(found.asnumpy().astype(np.float32), expected)


def test_config_of_a_torch_dtype():
    class Thing(ConfigMixin):
        config_name = "config.json"

        @register_to_config
        def __init__(self, dtype=torch.bfloat16):
            pass

    assert json.loads(Thing().to_json_string())["dtype"] == "bfloat16"
