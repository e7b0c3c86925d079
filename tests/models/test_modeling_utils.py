"""What every model does: filling, loading, saving, dtypes, graph mode."""

import json

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mindone_diffusers import ConfigMixin, ModelMixin
from mindone_diffusers.backend import graph, native
from mindone_diffusers.core.configuration import register_to_config
from mindone_diffusers.core.errors import CheckpointError, ConfigError, UnsupportedError, WeightsMismatchError
from mindone_diffusers.nn import Linear, ModuleList, RMSNorm

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Toy(ModelMixin, ConfigMixin):
    """Two layers, of which the norm stays in float32."""

    _keep_in_fp32_modules = ("norm",)

    @register_to_config
    def __init__(self, width: int = 4, scale: float = 2.0):
        super().__init__()
        self.linear = Linear(width, width)
        self.norm = RMSNorm(width)
        self.scale = scale

    def __call__(self, sample, return_dict=True):
        output = self._run("construct", sample)
        return {"sample": output[0]} if return_dict else output

    def construct(self, sample, return_dict=False):
        return (self.norm(self.linear(sample) * self.scale),)

    def _double(self, sample):
        return (self.construct(sample)[0] * 2,)


@pytest.fixture
def saved(tmp_path):
    model = Toy(width=4)
    model.fill_parameters(seed=1)
    model.save_pretrained(tmp_path / "toy")
    return model, tmp_path / "toy"


def sample(width=4):
    return ms.Tensor(np.random.default_rng(0).standard_normal((2, width)).astype(np.float32))


def run(model):
    return model(sample())["sample"].asnumpy()


def test_parameters_are_filled_on_first_use_only():
    model = Toy(width=64)
    assert not model._filled
    first = model.state_dict()["linear.weight"].asnumpy().copy()
    assert 0.9 / 8 < np.abs(first).max() <= 1 / 8 and np.array_equal(model.state_dict()["linear.weight"].asnumpy(), first)
    assert np.array_equal(model.state_dict()["norm.weight"].asnumpy(), np.ones(64, np.float32))


def test_fill_is_seeded():
    one, two = Toy(), Toy()
    one.fill_parameters(3)
    two.fill_parameters(3)
    assert np.array_equal(run(one), run(two))


def test_save_and_load_again(saved):
    model, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", WEIGHTS]
    loaded = Toy.from_pretrained(folder)
    assert np.array_equal(run(loaded), run(model))
    assert loaded.config.width == 4 and not loaded.training


def test_dtype_arguments_and_float32_modules(saved):
    _, folder = saved
    for arguments in ({"mindspore_dtype": ms.float16}, {"dtype": "fp16"}, {"torch_dtype": "torch.float16"}):
        model = Toy.from_pretrained(folder, **arguments)
        assert model.dtype == ms.float16
        assert {name: value.dtype for name, value in model.state_dict().items()}["norm.weight"] == ms.float32
    with pytest.raises(ConfigError, match="disagree"):
        Toy.from_pretrained(folder, mindspore_dtype=ms.float16, dtype=ms.float32)


def test_sharded_and_variant_round_trip(saved):
    model, folder = saved
    model.save_pretrained(folder, max_shard_size=48, variant="fp16")
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.fp16.json").read_text())
    assert len(set(index["weight_map"].values())) == 2
    assert np.array_equal(run(Toy.from_pretrained(folder, variant="fp16")), run(model))


def test_to_casts_and_names_devices(saved):
    model, _ = saved
    assert model.to(ms.float16).dtype == ms.float16 and model.state_dict()["norm.weight"].dtype == ms.float32
    assert model.to("cpu", ms.float32).dtype == ms.float32 and model.half().float().dtype == ms.float32
    with pytest.raises(UnsupportedError, match="leave `.to\\('cuda'\\)` out"):
        model.to("cuda")
    with pytest.raises(UnsupportedError, match="set_device"):
        model.to("npu:0")


@pytest.mark.skipif(ms.get_context("device_target") != "CPU" or not native.available(), reason="the native kernels take bfloat16")
def test_bfloat16_is_that_of_weights_on_the_cpu(tmp_path):
    rng = np.random.default_rng(0)
    source = Toy(width=96)
    source.save_pretrained(tmp_path)
    sample = ms.Tensor(rng.standard_normal((64, 96)).astype(np.float32))
    plain = Toy.from_pretrained(tmp_path)
    exact = plain(sample)["sample"].asnumpy()
    model = Toy.from_pretrained(tmp_path, mindspore_dtype=ms.bfloat16)
    dtypes = {name: parameter.dtype for name, parameter in model.state_dict().items()}
    assert dtypes == {"linear.weight": ms.bfloat16, "linear.bias": ms.float32, "norm.weight": ms.float32}
    assert model.dtype == ms.float32 and model.get_memory_footprint() == source.get_memory_footprint() - 2 * 96 * 96
    output = model(sample)["sample"].asnumpy()
    assert output.dtype == np.float32
    assert 2**-14 < np.abs(output - exact).max() / np.abs(exact).max() < 2**-7
    assert np.array_equal(plain(sample)["sample"].asnumpy(), exact), "a float32 model beside it is another matter"
    assert np.array_equal(model.enable_graph_mode()(sample)["sample"].asnumpy(), output)
    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / WEIGHTS)["linear.bias"].dtype == np.float32
    for again in (Toy.from_pretrained(tmp_path / "again", dtype="bf16"), plain.bfloat16()):
        assert np.array_equal(again(sample)["sample"].asnumpy(), output)
    model.float()
    assert {parameter.dtype for parameter in model.state_dict().values()} == {ms.float32}
    assert not np.array_equal(model(sample)["sample"].asnumpy(), exact), "the weights stay rounded, and a new graph was compiled"
    kept = Toy.from_pretrained(tmp_path, mindspore_dtype=ms.float16).bfloat16()
    assert kept.dtype == ms.float32 and kept.linear.weight.dtype == ms.bfloat16


def test_graph_mode_compiles_once_a_signature_and_sees_new_weights(saved):
    model, _ = saved
    eager = run(model)
    model.enable_graph_mode()
    before = graph.compilations()
    for _ in range(3):
        assert np.allclose(run(model), eager, atol=1e-6)
    assert graph.compilations() == before + 1
    model.load_state_dict({name: value.asnumpy() * 0 for name, value in model.state_dict().items()})
    assert not run(model).any(), "a compiled graph must see weights loaded later"
    assert graph.compilations() == before + 1
    model.disable_graph_mode()
    assert not run(model).any()


def test_second_core_and_global_graph_mode(saved):
    model, _ = saved
    eager = run(model)
    assert np.allclose(model.enable_graph_mode()._run("_double", sample())[0].asnumpy(), 2 * eager, atol=1e-6)
    model.disable_graph_mode()
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        assert np.allclose(run(model), eager, atol=1e-6)
        assert np.allclose(model._run("_double", sample())[0].asnumpy(), 2 * eager, atol=1e-6)
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_jit_of_the_model_and_of_a_cell_around_it(saved):
    model, _ = saved
    eager = run(model)

    class Training(ms.nn.Cell):
        def __init__(self):
            super().__init__()
            self.model = model

        def construct(self, value):
            return self.model(value, return_dict=False)[0]

    assert np.allclose(ms.jit(Training())(sample()).asnumpy(), eager, atol=1e-6)
    assert np.allclose(ms.jit(model)(sample())[0].asnumpy(), eager, atol=1e-6)


def test_unknown_jit_level():
    with pytest.raises(ValueError, match="'O2'.*'O0' or 'O1'"):
        Toy().enable_graph_mode(jit_level="O2")


def test_gradients_reach_every_parameter(saved):
    model, _ = saved
    value, gradients = ms.value_and_grad(lambda x: model(x)["sample"].sum(), None, model.trainable_params())(sample())
    assert len(gradients) == 3 and all(np.abs(gradient.asnumpy()).max() > 0 for gradient in gradients)


def test_wrong_weights_are_all_listed(saved):
    _, folder = saved
    state = load_file(folder / WEIGHTS)
    state["linear.bias"] = np.zeros(5, np.float32)
    state["extra"] = np.zeros(1, np.float32)
    del state["norm.weight"]
    save_file(state, folder / WEIGHTS)
    with pytest.raises(WeightsMismatchError) as error:
        Toy.from_pretrained(folder)
    for part in ("linear.bias", "(5,)", "(4,)", "extra", "norm.weight"):
        assert part in str(error.value)


def test_ignored_mismatch_is_reported(saved):
    _, folder = saved
    model, info = Toy.from_pretrained(folder, width=6, ignore_mismatched_sizes=True, output_loading_info=True)
    assert sorted(info["mismatched_keys"]) == ["linear.bias", "linear.weight", "norm.weight"]
    assert model.config.width == 6 and np.isfinite(model(sample(6))["sample"].asnumpy()).all()


def test_unknown_arguments_and_pickles(saved):
    _, folder = saved
    with pytest.raises(ConfigError, match="mindspore_dtyp"):
        Toy.from_pretrained(folder, mindspore_dtyp=ms.float16)
    with pytest.raises(UnsupportedError, match="pickle"):
        Toy.from_pretrained(folder, use_safetensors=False)
    with pytest.raises(UnsupportedError, match="pickle"):
        Toy().save_pretrained(folder, safe_serialization=False)
    with pytest.raises(CheckpointError):
        Toy.from_pretrained(folder / "nowhere")


def test_interrupted_save_keeps_the_old_folder(saved, monkeypatch):
    model, folder = saved
    expected = run(model)
    monkeypatch.setattr(
        "mindone_diffusers.core.weights._write", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        Toy(width=8).save_pretrained(folder)
    monkeypatch.undo()
    assert np.array_equal(run(Toy.from_pretrained(folder)), expected)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", WEIGHTS]


def test_counts():
    model = Toy(width=4)
    assert model.num_parameters() == 24 and model.get_memory_footprint() == 96
    model.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == 0


class Nested(ModelMixin, ConfigMixin):
    """A model in a list in a module in a model."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.stages = ModuleList([ModuleList([Toy(width=4)])])

    def construct(self, sample, return_dict=False):
        return self.stages[0][0](sample, return_dict=False)


def test_a_model_inside_a_model_is_filled_with_it_and_a_model_in_a_cell_at_once(tmp_path):
    model = Nested()
    inner = model.stages[0][0]
    assert not model._filled and not inner._filled
    names = [name for name, _ in model.parameters_and_names()]
    assert names[0] == "stages.0.0.linear.weight" and inner._filled
    before = inner.state_dict()["linear.weight"].asnumpy().copy()
    inner(sample())
    assert np.array_equal(inner.state_dict()["linear.weight"].asnumpy(), before) and before.any()

    cell = ms.nn.Cell()
    cell.model = Toy()
    assert all(parameter.asnumpy().any() for parameter in cell.trainable_params())
