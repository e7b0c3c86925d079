"""ControlNets: what the reference cases do not show."""

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers
from mindone_diffusers import ControlNetModel, ControlNetUnionModel, MultiControlNetModel, MultiControlNetUnionModel, UNet2DConditionModel
from mindone_diffusers.backend import graph
from mindone_diffusers.core.errors import ConfigError, WeightsMismatchError
from mindone_diffusers.models.controlnets.controlnet import ControlNetOutput, zero_module

from .. import harness, ms_side
from ..cases import controlnets, unet

CASES = controlnets.CASES
SMALL, UNION = CASES["scaled"], CASES["union_from_multi"]


def inputs(name, **changes):
    arguments = harness.map_arrays(ms.Tensor, harness.make_inputs(CASES[name]))
    return {**{key: value for key, value in arguments.items() if key != "from_multi"}, **changes}


def build(case, factor=1.0):
    """A model of the case whose parameters are `factor` times the case's."""
    model = ms_side.build(case)
    model.load_state_dict({name: factor * parameter.asnumpy() for name, parameter in model.state_dict().items()})
    return model


def arrays(output):
    return [tensor.asnumpy() for tensor in (*output[0], output[1])]


def values(model):
    return {name: parameter.asnumpy().copy() for name, parameter in model.state_dict().items()}


# New models


@pytest.mark.parametrize("name", ["scaled", "union_from_multi"])
def test_a_new_controlnet_changes_nothing(name):
    model = getattr(mindone_diffusers, CASES[name]["class"])(**CASES[name]["config"])
    output = model(**inputs(name))
    assert len(output.down_block_res_samples) == 4 and not any(array.any() for array in arrays(output))
    assert values(model)["conv_in.weight"].any()


def test_zero_module():
    model = ms_side.build(SMALL)
    assert values(model.conv_in)["weight"].any()
    assert zero_module(model.conv_in) is model.conv_in
    assert not any(value.any() for value in values(model.conv_in).values())


def test_from_unet():
    net = ms_side.build(unet.CASES["plain_middle"], ms.float16)
    model = ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(4, 8), conditioning_channels=1)
    assert model.config.mid_block_type == "UNetMidBlock2D" and model.config.conditioning_channels == 1 and model.dtype == ms.float32
    theirs, ours = values(net), values(model)
    shared = [name for name in ours if name in theirs]
    assert len(shared) == len([name for name in ours if not name.startswith("controlnet_")]) > 40
    for name in shared:
        np.testing.assert_array_equal(ours[name], theirs[name].astype(np.float32))
    assert ours["controlnet_cond_embedding.conv_in.weight"].any() and not ours["controlnet_down_blocks.1.weight"].any()
    # They are copies.
    for parameter in model.parameters():
        parameter.copy_(parameter * 2)
    for name, value in values(net).items():
        np.testing.assert_array_equal(value, theirs[name])

    empty = ControlNetModel.from_unet(net, load_weights_from_unet=False)
    assert not np.array_equal(values(empty)["conv_in.weight"], theirs["conv_in.weight"])


def test_from_unet_for_a_union():
    net = ms_side.build(unet.CASES["sdxl"])
    model = ControlNetUnionModel.from_unet(net)
    ours, theirs = values(model), values(net)
    for name in ("add_embedding.linear_1.weight", "down_blocks.1.resnets.0.conv1.weight", "mid_block.resnets.0.conv1.bias"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert model.config.num_trans_channel == 16 and not ours["spatial_ch_projs.weight"].any() and ours["task_embedding"].any()


def test_from_a_unet_that_has_more():
    with pytest.raises(WeightsMismatchError, match="unexpected: time_embedding.cond_proj.weight"):
        ControlNetModel.from_unet(UNet2DConditionModel(**unet.CASES["time_condition"]["config"]))
    with pytest.raises(ConfigError, match="Unknown addition_embed_type 'image'"):
        ControlNetModel.from_unet(
            UNet2DConditionModel(**{**unet.CASES["plain_middle"]["config"], "addition_embed_type": "image", "encoder_hid_dim": 16})
        )


# Calls


def test_what_a_scale_is():
    model, arguments = ms_side.build(SMALL), inputs("scaled")
    one = arrays(model(**{**arguments, "conditioning_scale": 1.0}))
    for scale in (0.3, np.float64(0.3), ms.Tensor(0.3)):
        for got, want in zip(arrays(model(**{**arguments, "conditioning_scale": scale})), one):
            np.testing.assert_allclose(got, 0.3 * want, rtol=1e-6, atol=0)
    guessed = arrays(model(**{**arguments, "conditioning_scale": 1, "guess_mode": True}))
    for got, want, scale in zip(guessed, one, np.logspace(-1, 0, 5)):
        np.testing.assert_allclose(got, scale * want, rtol=1e-6, atol=0)


def test_outputs():
    model, arguments = ms_side.build(SMALL), inputs("scaled")
    output = model(**arguments)
    states, middle = model(**arguments, return_dict=False)
    assert isinstance(output, ControlNetOutput) and output[1] is output.mid_block_res_sample
    for got, want in zip(arrays(output), arrays((states, middle))):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ["scaled", "union_one"])
def test_scales_and_timesteps_compile_nothing(name):
    model, arguments = ms_side.build(CASES[name]).enable_graph_mode(), inputs(name)
    eager = ms_side.build(CASES[name])
    before = graph.compilations()
    for change in ({}, {"conditioning_scale": 0.9}, {"timestep": 3}, {"conditioning_scale": 0.0}):
        for got, want in zip(arrays(model(**{**arguments, **change})), arrays(eager(**{**arguments, **change}))):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    assert graph.compilations() == before + 1


# Several


def test_multi_of_configs_alone(tmp_path):
    """As an audit makes it, which reads no weights."""
    for name in ("controlnet", "controlnet_1"):
        ControlNetModel(**SMALL["config"]).save_config(tmp_path / name)
    multi = MultiControlNetModel._build(tmp_path / "controlnet", {}, {})
    assert [type(net) for net in multi.nets] == [ControlNetModel] * 2 and not multi._filled


def test_multi_is_the_sum():
    nets, arguments = [build(SMALL), build(SMALL, 0.9)], inputs("scaled")
    images = [arguments["controlnet_cond"], ms.Tensor(harness.make_input("another", (2, 3, 16, 16)))]
    multi = MultiControlNetModel(nets)
    for guess_mode in (False, True):
        arguments["guess_mode"] = guess_mode
        each = [
            arrays(net(**{**arguments, "controlnet_cond": image, "conditioning_scale": scale}))
            for net, image, scale in zip(nets, images, (0.3, 1.1))
        ]
        output = multi(**{**arguments, "controlnet_cond": images, "conditioning_scale": [0.3, 1.1]})
        for got, one, other in zip(arrays(output), *each):
            np.testing.assert_array_equal(got, one + other)
    before = graph.compilations()
    compiled = multi.enable_graph_mode()(**{**arguments, "controlnet_cond": images, "conditioning_scale": [0.3, 1.1]}, return_dict=False)
    assert graph.compilations() == before + 2
    for got, want in zip(arrays(compiled), arrays(output)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    multi.disable_graph_mode()
    assert not any(net._graph_options for net in nets)


def test_multi_union():
    nets = [build(UNION), build(UNION, 0.9), build(UNION, 1.1)]
    multi, arguments = MultiControlNetUnionModel(nets), inputs("union_from_multi")
    given = {name: [arguments[name]] * 3 for name in ("controlnet_cond", "control_type", "control_type_idx")}
    output = multi(**{**arguments, **given, "conditioning_scale": [0.3, 0.0, 1.1]})
    each = [arrays(net(**{**arguments, "conditioning_scale": scale}, from_multi=True)) for net, scale in zip(nets[::2], (0.3, 1.1))]
    for got, one, other in zip(arrays(output), *each):
        np.testing.assert_array_equal(got, one + other)
    assert multi(**{**arguments, **given, "conditioning_scale": [0.0, 0, 0.0]}, return_dict=False) == (None, None)


@pytest.mark.slow
def test_multi_in_a_jitted_cell():
    nets = [build(SMALL), build(SMALL, 0.9)]
    multi, arguments = MultiControlNetModel(nets), inputs("scaled", timestep=ms.Tensor([601.0, 601.0]))
    images = (arguments["controlnet_cond"], arguments["controlnet_cond"])

    class Sum(ms.nn.Cell):
        def __init__(self, multi):
            super().__init__()
            self.multi = multi

        def construct(self, sample, timestep, context, first, second):
            states, middle = self.multi(sample, timestep, context, (first, second), (0.3, 1.1), return_dict=False)
            return states[0], middle

    state, middle = ms.jit(Sum(multi).construct)(arguments["sample"], arguments["timestep"], arguments["encoder_hidden_states"], *images)
    want = multi(**{**arguments, "controlnet_cond": images, "conditioning_scale": (0.3, 1.1)})
    np.testing.assert_allclose(state.asnumpy(), want.down_block_res_samples[0].asnumpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(middle.asnumpy(), want.mid_block_res_sample.asnumpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case, kind", [(SMALL, MultiControlNetModel), (UNION, MultiControlNetUnionModel)])
def test_multi_files(case, kind, tmp_path):
    nets = [build(case), build(case, 0.5), build(case, 0.25)]
    kind(nets).save_pretrained(tmp_path / "controlnet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["controlnet", "controlnet_1", "controlnet_2"]
    loaded = kind.from_pretrained(tmp_path / "controlnet", mindspore_dtype=ms.float16)
    assert len(loaded.nets) == 3 and loaded.dtype == ms.float16
    state = values(loaded)  # does not fill them again
    for i, net in enumerate(nets):
        for name, value in values(net).items():
            np.testing.assert_array_equal(state[f"nets.{i}.{name}"], value.astype(np.float16))
    assert {net.dtype for net in loaded.to(ms.float32).nets} == {ms.float32}
    with pytest.raises(ValueError, match="nothing is no folder"):
        kind.from_pretrained(tmp_path / "nothing")


def test_multi_of_new_models():
    multi = MultiControlNetModel([ControlNetModel(**SMALL["config"]), ControlNetModel(**SMALL["config"])])
    state = values(multi)
    assert state["nets.0.conv_in.weight"].any() and state["nets.1.conv_in.weight"].any()
    assert not state["nets.1.controlnet_mid_block.weight"].any()


# Errors


@pytest.mark.parametrize(
    "change, message",
    [
        ({"controlnet_cond": (2, 3, 15, 14)}, r"expected \(2, 3, 16, 16\) for a sample of the shape \(2, 4, 8, 8\)"),
        ({"controlnet_cond": (3, 3, 16, 16)}, r"has the shape \(3, 3, 16, 16\)"),
        ({"controlnet_cond": (2, 1, 16, 16)}, r"has the shape \(2, 1, 16, 16\)"),
        ({"controlnet_cond": (3, 16, 16)}, r"has the shape \(3, 16, 16\)"),
        ({"sample": (2, 3, 8, 8)}, r"sample has the shape \(2, 3, 8, 8\)"),
        ({"encoder_hidden_states": (2, 5, 12)}, "is the text encoder this model's"),
    ],
)
def test_bad_inputs(change, message):
    with pytest.raises(ValueError, match=message):
        ms_side.build(SMALL)(**inputs("scaled", **harness.map_arrays(ms.Tensor, {k: harness.make_input(k, v) for k, v in change.items()})))


@pytest.mark.parametrize(
    "name, absent, message",
    [("class_table", "class_labels", "give class_labels"), ("sdxl", "added_cond_kwargs", "text_embeds.*time_ids")],
)
def test_missing_inputs(name, absent, message):
    arguments = inputs(name)
    del arguments[absent]
    with pytest.raises(ValueError, match=message):
        ms_side.build(CASES[name])(**arguments)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"control_type": ms.Tensor(np.zeros((2, 4), np.float32))}, r"control_type has the shape \(2, 4\); expected \(2, 3\)"),
        ({"control_type_idx": [0]}, r"control_type_idx is \[0\]; expected 2 of 0 to 2"),
        ({"control_type_idx": [0, 3]}, "expected 2 of 0 to 2"),
        ({"conditioning_scale": [1.0]}, "conditioning_scale has 1 entries; expected 2"),
        ({"controlnet_cond": [ms.Tensor(np.zeros((1, 3, 16, 16), np.float32))] * 2}, r"expected \(2, 3, 16, 16\)"),
    ],
)
def test_bad_union_inputs(change, message):
    with pytest.raises(ValueError, match=message):
        ms_side.build(UNION)(**inputs("union_from_multi", **change))


def test_bad_multi_inputs():
    multi, arguments = MultiControlNetModel([ms_side.build(SMALL)]), inputs("scaled", conditioning_scale=[1.0])
    with pytest.raises(ValueError, match="controlnet_cond is a Tensor; expected a list of 1"):
        multi(**arguments)
    with pytest.raises(ValueError, match="controlnet_cond is 2 entries; expected a list of 1"):
        multi(**{**arguments, "controlnet_cond": [arguments["controlnet_cond"]] * 2})
