"""ControlNets against PyTorch diffusers, side by side."""

import json

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
import diffusers  # noqa: E402
import diffusers.models.controlnets as their_controlnets  # noqa: E402

import mindone_diffusers  # noqa: E402
from mindone_diffusers import ControlNetModel, ControlNetUnionModel, UNet2DConditionModel, nn  # noqa: E402
from mindone_diffusers.core.errors import ConfigError  # noqa: E402

from .. import harness, ms_side, torch_side  # noqa: E402
from ..cases import unet  # noqa: E402
from ..cases.controlnets import CASES  # noqa: E402

TOLERANCE = 5e-6  # of the output's scale


def agree(ours, theirs):
    for got, want in zip((*ours[0], ours[1]), (*theirs[0], theirs[1]), strict=True):
        assert harness.relative_error(got.asnumpy(), want.numpy()) <= TOLERANCE


def both(name, **changes):
    """Both models of a case and its inputs for them, but for `changes`."""
    values = {**harness.make_inputs(CASES[name]), **changes}
    return (
        ms_side.build(CASES[name]), torch_side.build(CASES[name]), harness.map_arrays(ms.Tensor, values),
        harness.map_arrays(torch.from_numpy, values),
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_eager(name):
    ours, theirs, inputs, their_inputs = both(name)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }
    with torch.no_grad():
        agree(ours(**inputs), theirs(**their_inputs, return_dict=False))


def test_config_of_every_case_is_the_same():
    for name, case in CASES.items():
        theirs = dict(torch_side.find_class(case["class"])(**case["config"]).config)
        ours = dict(getattr(mindone_diffusers, case["class"])(**case["config"]).config)
        for config in (theirs, ours):
            config["_use_default_values"] = sorted(config["_use_default_values"])
        assert ours == theirs, name


@pytest.mark.parametrize("name", ["ControlNetModel", "ControlNetUnionModel"])
def test_default_config(name):
    options = {"addition_time_embed_dim": 256} if name == "ControlNetUnionModel" else {}
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in getattr(diffusers, name)(**options).named_parameters()}
    model = getattr(mindone_diffusers, name)(**options)
    assert {key: value.shape for key, value in model._unfilled_parameters().items()} == theirs


@pytest.mark.parametrize("name", ["sdxl", "union"])
def test_files_go_both_ways(name, tmp_path):
    _, theirs, inputs, their_inputs = both(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, info = getattr(mindone_diffusers, type(theirs).__name__).from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        agree(ours(**inputs), theirs(**their_inputs, return_dict=False))
    ours.save_pretrained(tmp_path / "ours")
    again = type(theirs).from_pretrained(tmp_path / "ours")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in theirs.state_dict().items())
    configs = [json.loads((tmp_path / side / "config.json").read_text()) for side in ("theirs", "ours")]
    assert {key: value for key, value in configs[1].items() if key != "_name_or_path"} == configs[0]


@pytest.mark.parametrize("name, kind", [("scaled", "MultiControlNetModel"), ("union_from_multi", "MultiControlNetUnionModel")])
def test_multi(name, kind, tmp_path):
    ours, theirs, inputs, their_inputs = both(name, conditioning_scale=[0.3, 1.1])
    multi, their_multi = getattr(mindone_diffusers, kind)([ours, ours]), getattr(their_controlnets, kind)([theirs, theirs])
    for arguments in (inputs, their_inputs):
        arguments.pop("from_multi", None)
        for key in ("controlnet_cond", "control_type", "control_type_idx"):
            if key in arguments:
                arguments[key] = [arguments[key]] * 2
    with torch.no_grad():
        for guess_mode in (False, True):
            agree(multi(**inputs, guess_mode=guess_mode), their_multi(**their_inputs, guess_mode=guess_mode, return_dict=False))
        their_multi.save_pretrained(str(tmp_path / "theirs"))
        agree(type(multi).from_pretrained(tmp_path / "theirs")(**inputs), their_multi(**their_inputs, return_dict=False))
        multi.save_pretrained(tmp_path / "ours")
        again = type(their_multi).from_pretrained(str(tmp_path / "ours"))
        agree(multi(**inputs), again(**their_inputs, return_dict=False))


@pytest.mark.parametrize("name", ["self_attention", "resnets", "union_three"])
def test_attention_processors(name):
    ours, theirs, inputs, their_inputs = both(name)
    assert list(ours.attn_processors) == list(theirs.attn_processors)
    ours.set_attention_slice("max")
    with torch.no_grad():
        agree(ours(**inputs), theirs(**their_inputs, return_dict=False))


@pytest.mark.parametrize("name", ["sd15", "sdxl", "unclip", "class_table", "text_projection", "plain_middle", "only_cross_attention_some"])
def test_from_unet(name):
    case = unet.CASES[name]
    theirs = diffusers.ControlNetModel.from_unet(torch_side.build(case))
    ours = ControlNetModel.from_unet(ms_side.build(case))
    left = ("_use_default_values", "addition_embed_type_num_heads")  # which PyTorch diffusers forgets
    assert {k: v for k, v in ours.config.items() if k not in left} == {k: v for k, v in theirs.config.items() if k not in left}
    state, own = ours.state_dict(), ("controlnet_cond_embedding", "encoder_hid_proj")
    assert state.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        if not key.startswith(own):
            np.testing.assert_array_equal(state[key].asnumpy(), value.numpy())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"block_out_channels": (16,)}, "block_out_channels.*expected 2"),
        ({"only_cross_attention": (True,)}, "only_cross_attention.*expected 2"),
        ({"num_attention_heads": (4, 4, 4)}, "num_attention_heads.*expected 2"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "Unknown mid_block_type 'UNetMidBlock2DSimpleCrossAttn'"),
        ({"mid_block_type": None}, "Unknown mid_block_type None"),
        ({"down_block_types": ("DownBlock3D", "DownBlock2D")}, "down block type 'DownBlock3D'"),
        ({"encoder_hid_dim_type": "text_proj"}, "needs encoder_hid_dim"),
        ({"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 8}, "expected None, 'text_proj', 'text_image_proj'"),
        ({"class_embed_type": "projection"}, "projection_class_embeddings_input_dim"),
        ({"addition_embed_type": "image"}, "expected None, 'text', 'text_image', 'text_time'"),
    ],
)
def test_bad_configs(config, message):
    merged = {**CASES["scaled"]["config"], **config}
    with pytest.raises(ConfigError, match=message):
        ControlNetModel(**merged)
    with pytest.raises(ValueError):
        diffusers.ControlNetModel(**merged)


def test_bad_channel_orders_and_unions():
    config = {**CASES["scaled"]["config"], "controlnet_conditioning_channel_order": "grb"}
    with pytest.raises(ConfigError, match="channel_order 'grb': expected 'rgb' or 'bgr'"):
        ControlNetModel(**config)
    with pytest.raises(ConfigError, match="Unknown class_embed_type 'simple_projection'"):
        ControlNetModel(**{**CASES["scaled"]["config"], "class_embed_type": "simple_projection"})
    for change, message in [
        ({"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 16}, "Unknown encoder_hid_dim_type 'text_proj': expected None"),
        ({"controlnet_conditioning_channel_order": "bgr"}, "channel_order 'bgr': expected 'rgb'"),
        ({"addition_time_embed_dim": None}, "needs addition_time_embed_dim"),
        ({"num_trans_channel": 32}, "num_trans_channel is 32: expected 16"),
        ({"num_proj_channel": 8}, "num_proj_channel is 8: expected 16"),
    ]:
        with pytest.raises(ConfigError, match=message):
            ControlNetUnionModel(**{**CASES["union_pooled"]["config"], **change})


# Training


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "jit"])
def test_gradients_through_the_unet(jit):
    """Of every parameter of the ControlNet, for the UNet's prediction, as a training script has it."""
    case = unet.CASES["controlnet"]
    shared, image = {"timestep": np.array([601, 7])}, harness.make_input("image", (2, 3, 16, 16))
    shared |= {name: harness.make_input(name, case["inputs"][name]) for name in ("sample", "encoder_hidden_states")}
    order = [shared["sample"], shared["timestep"], shared["encoder_hidden_states"]]

    controlnet, net = torch_side.build(CASES["bgr"]), torch_side.build(case)
    inputs = [torch.from_numpy(value) for value in order]
    states, middle = controlnet(*inputs, torch.from_numpy(image), return_dict=False)
    output = net(*inputs, down_block_additional_residuals=states, mid_block_additional_residual=middle).sample
    value = (output**2).mean()
    value.backward()

    class Loss(nn.Module):
        def __init__(self, controlnet, unet):
            super().__init__()
            self.controlnet, self.unet = controlnet, unet

        def construct(self, sample, timestep, context, image):
            states, middle = self.controlnet(sample, timestep, context, image, return_dict=False)
            output = self.unet(
                sample, timestep, context, down_block_additional_residuals=states, mid_block_additional_residual=middle, return_dict=False
            )[0]
            return (output * output).mean()

    model = ms_side.build(CASES["bgr"])
    compute = ms.value_and_grad(Loss(model, ms_side.build(case)), None, list(model.parameters()))
    ours, gradients = (ms.jit(compute) if jit else compute)(*map(ms.Tensor, order), ms.Tensor(image))
    assert abs(float(ours.asnumpy()) - value.item()) <= 1e-5 * value.item()
    theirs = {name: parameter.grad.numpy() for name, parameter in controlnet.named_parameters()}
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    for name, gradient in zip(model.state_dict(), gradients, strict=True):
        assert np.abs(gradient.asnumpy() - theirs[name]).max() <= 2e-5 * np.abs(theirs[name]).max() + 1e-7 * largest, name


def test_a_unet_takes_what_a_controlnet_gives():
    ours, theirs, inputs, their_inputs = both("bgr")
    case = unet.CASES["controlnet"]
    names = ("sample", "timestep", "encoder_hidden_states")
    states, middle = ours(**inputs).to_tuple()
    model = ms_side.build(case)
    assert isinstance(model, UNet2DConditionModel)
    got = model(
        **{name: inputs[name] for name in names}, down_block_additional_residuals=states, mid_block_additional_residual=middle
    ).sample
    with torch.no_grad():
        states, middle = theirs(**their_inputs, return_dict=False)
        want = torch_side.build(case)(
            **{name: their_inputs[name] for name in names}, down_block_additional_residuals=states, mid_block_additional_residual=middle
        ).sample
    assert harness.relative_error(got.asnumpy(), want.numpy()) <= TOLERANCE
