"""`UNet2DModel` against PyTorch diffusers, side by side."""

import json

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from mindone_diffusers import UNet2DModel  # noqa: E402
from mindone_diffusers.backend import graph  # noqa: E402
from mindone_diffusers.core.errors import ConfigError  # noqa: E402

from .. import harness, ms_side, torch_side  # noqa: E402
from ..cases.unet_2d import CASES  # noqa: E402

TOLERANCE = 5e-6  # of the output's scale


def build(name):
    """Both models of a case, our inputs and their output."""
    case = CASES[name]
    torch_model = torch_side.build(case)
    inputs = harness.map_arrays(ms.Tensor, harness.make_inputs(case))
    return ms_side.build(case), torch_model, inputs, torch_side.run(torch_model, case)["__call__"]["sample"]


def error(output, want):
    return harness.relative_error(output.astype(ms.float32).asnumpy(), want)


@pytest.mark.parametrize("name", CASES)
def test_eager(name):
    model, _, inputs, want = build(name)
    assert error(model(**inputs).sample, want) <= TOLERANCE


@pytest.mark.parametrize(
    "name", ["class_table", pytest.param("ddpm", marks=pytest.mark.slow), pytest.param("skip", marks=pytest.mark.slow)]
)
def test_graph_mode_compiles_once(name):
    model, _, inputs, want = build(name)
    model.enable_graph_mode()
    before = graph.compilations()
    for _ in range(2):
        assert error(model(**inputs).sample, want) <= TOLERANCE
    model(**{**inputs, "timestep": 3})
    model(**{**inputs, "timestep": ms.Tensor([2.5])})
    assert graph.compilations() == before + 1


def test_outputs():
    model, _, inputs, want = build("no_middle")
    output = model(**inputs)
    assert output[0] is output.sample
    assert error(model(**inputs, return_dict=False)[0], want) <= TOLERANCE
    assert error(model(inputs["sample"][:1], 601).sample, want[:1]) <= TOLERANCE
    for timestep in (601.0, np.int64(601), ms.Tensor(601), ms.Tensor([601]), ms.Tensor([601, 601]), ms.Tensor([601.0], ms.float16)):
        assert error(model(inputs["sample"], timestep).sample, want) <= TOLERANCE


def test_files_go_both_ways(tmp_path):
    model, torch_model, inputs, want = build("ncsnpp")
    torch_model.save_pretrained(tmp_path / "theirs")
    loaded, info = UNet2DModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert error(loaded(**inputs).sample, want) <= TOLERANCE
    loaded.save_pretrained(tmp_path / "ours")
    again = type(torch_model).from_pretrained(tmp_path / "ours")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in torch_model.state_dict().items())
    theirs, ours = (json.loads((tmp_path / side / "config.json").read_text()) for side in ("theirs", "ours"))
    assert {key: value for key, value in ours.items() if key != "_name_or_path"} == theirs


def test_checkpoints_with_the_attentions_old_names(tmp_path):
    model, torch_model, inputs, want = build("ddpm")
    torch_model.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = load_file(file)
    for new, old in names.items():
        state = {name.replace(new, old): value for name, value in state.items()}
    assert len(load_file(file).keys() - state.keys()) == 8 * 6  # weights and biases of 6 attentions
    save_file(state, file, {"format": "pt"})
    assert np.array_equal(torch_side.run(type(torch_model).from_pretrained(tmp_path), CASES["ddpm"])["__call__"]["sample"], want)
    assert error(UNet2DModel.from_pretrained(tmp_path)(**inputs).sample, want) <= TOLERANCE


def test_config_of_every_case_is_the_same():
    for name, case in CASES.items():
        theirs = dict(torch_side.find_class(case["class"])(**case["config"]).config)
        ours = dict(UNet2DModel(**case["config"]).config)
        for config in (theirs, ours):
            config["_use_default_values"] = sorted(config["_use_default_values"])
        assert ours == theirs, name


def test_default_config():
    with torch.device("meta"):
        theirs = {name: tuple(value.shape) for name, value in torch_side.find_class("UNet2DModel")().named_parameters()}
    model = UNet2DModel()
    model._mark_filled()  # nobody needs the values
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == theirs


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"up_block_types": ("UpBlock2D",)}, r"up_block_types is \('UpBlock2D',\): expected 2 entries"),
        ({"block_out_channels": (16, 16, 16)}, "block_out_channels is .* expected 2 entries"),
        ({"down_block_types": ("DownBlock2D", "NoBlock")}, "Unknown down block type 'NoBlock'"),
        ({"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}, "cross_attention_dim must be given for CrossAttnDownBlock2D"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "Unknown mid_block_type"),
        ({"downsample_type": "pool"}, "Unknown downsample_type 'pool'"),
        ({"upsample_type": "pool"}, "Unknown upsample_type 'pool'"),
        ({"time_embedding_type": "none"}, "Unknown time_embedding_type 'none'"),
        ({"time_embedding_type": "learned"}, "needs num_train_timesteps"),
        ({"class_embed_type": "projection"}, "Unknown class_embed_type 'projection'"),
    ],
)
def test_config_errors(config, message):
    with pytest.raises(ConfigError, match=message):
        UNet2DModel(**{**CASES["no_middle"]["config"], **config})


def test_input_errors():
    model, sample = ms_side.build(CASES["no_middle"]), ms.Tensor(np.zeros((1, 3, 8, 8), np.float32))
    for wrong in (sample[0], sample[:, :2], sample[:, :, :7], sample[:, :, :, :5]):
        with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\), both sizes multiples of 2"):
            model(wrong, 1)
    with pytest.raises(ValueError, match="no class embedding"):
        model(sample, 1, class_labels=ms.Tensor([1]))
    with pytest.raises(ValueError, match="give class_labels"):
        ms_side.build(CASES["class_table"])(sample, 1)


def test_a_number_with_a_fraction():
    """PyTorch diffusers drops a Python number's fraction here, and keeps a tensor's."""
    model, torch_model, inputs, _ = build("no_middle")
    sample = torch.from_numpy(inputs["sample"].asnumpy())
    with torch.no_grad():
        want = torch_model(sample, torch.tensor(10.5)).sample.numpy()
        assert np.abs(torch_model(sample, 10.5).sample.numpy() - torch_model(sample, 10).sample.numpy()).max() == 0
    assert error(model(inputs["sample"], 10.5).sample, want) <= TOLERANCE
