"""`UNet2DConditionModel` and what it is made of against PyTorch diffusers, side by side."""

import json

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
import diffusers.models.attention as their_attention  # noqa: E402
import diffusers.models.attention_processor as their_processors  # noqa: E402
import diffusers.models.embeddings as their_embeddings  # noqa: E402
import diffusers.models.resnet as their_resnet  # noqa: E402
import diffusers.models.transformers.dual_transformer_2d as their_dual  # noqa: E402
import diffusers.models.unets.unet_2d_blocks as their_blocks  # noqa: E402

from mindone_diffusers import UNet2DConditionModel, nn  # noqa: E402
from mindone_diffusers.backend import graph  # noqa: E402
from mindone_diffusers.core.errors import ConfigError  # noqa: E402
from mindone_diffusers.models import attention, embeddings, resnet  # noqa: E402
from mindone_diffusers.models.modeling_utils import ModelMixin  # noqa: E402
from mindone_diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel  # noqa: E402
from mindone_diffusers.models.transformers.transformer_2d import Transformer2DModel  # noqa: E402
from mindone_diffusers.models.unets import unet_2d_blocks as blocks  # noqa: E402
from mindone_diffusers.nn import functional as F  # noqa: E402

from .. import harness, torch_side  # noqa: E402
from ..cases.unet import CASES  # noqa: E402

TOLERANCE = 5e-6  # of the output's scale; the largest deviation seen is 1.7e-6


def copy_weights(module, torch_module):
    """Strictly the same names and shapes."""
    theirs = {name: value.detach().numpy() for name, value in torch_module.named_parameters()}
    theirs |= {name: value.numpy() for name, value in torch_module.named_buffers() if name in torch_module.state_dict()}
    for part in module.modules():
        if isinstance(part, ModelMixin):
            part._mark_filled()
    ours = dict(module.parameters_and_names())
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    for name, parameter in ours.items():
        parameter.set_data(ms.Tensor(theirs[name]))
    return module


def build(name, dtype=None):
    """Both models of a case, our inputs and their output."""
    case = CASES[name]
    torch_model = torch_side.build(case)
    model = UNet2DConditionModel(**case["config"])
    model.load_state_dict({name: value.detach().numpy() for name, value in torch_model.named_parameters()})
    if dtype is not None:
        model.to(dtype)
    return model, torch_model, inputs(name), torch_side.run(torch_model, case)["__call__"]["sample"]


def inputs(name):
    return harness.map_arrays(ms.Tensor, harness.make_inputs(CASES[name]))


def error(output, want):
    return harness.relative_error(output.astype(ms.float32).asnumpy(), want)


# The model


@pytest.mark.parametrize("name", CASES)
def test_eager(name):
    model, _, arguments, want = build(name)
    assert error(model(**arguments).sample, want) <= TOLERANCE


# One graph compiles in 4 to 10 s.
_FAST_GRAPHS = ("class_table", "kandinsky22", "controlnet")


@pytest.mark.parametrize("name", [name if name in _FAST_GRAPHS else pytest.param(name, marks=pytest.mark.slow) for name in CASES])
def test_graph_mode_compiles_once(name):
    model, _, arguments, want = build(name)
    model.enable_graph_mode()
    before = graph.compilations()
    for _ in range(2):
        assert error(model(**arguments).sample, want) <= TOLERANCE
    model(**{**arguments, "timestep": 3})
    model(**{**arguments, "timestep": ms.Tensor([2.5])})
    assert graph.compilations() == before + 1


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_float16(name):
    model, _, arguments, want = build(name, ms.float16)
    output = model(**arguments).sample
    assert output.dtype == ms.float16
    assert error(output, want) <= 5e-3


@pytest.mark.slow
def test_a_jitted_cell_around_it_and_its_gradient():
    model, torch_model, arguments, want = build("class_table")
    arguments["timestep"] = ms.Tensor([601.0, 601.0])

    class Loss(nn.Module):
        def __init__(self, unet):
            super().__init__()
            self.unet = unet

        def construct(self, sample, timestep, encoder_hidden_states, class_labels):
            output = self.unet(sample, timestep, encoder_hidden_states, class_labels, return_dict=False)[0]
            return (output * output).mean(), output

    loss = Loss(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    (value, output), gradients = ms.jit(ms.value_and_grad(loss, None, parameters, has_aux=True))(*arguments.values())
    assert error(output, want) <= TOLERANCE

    torch_inputs = harness.map_arrays(torch.from_numpy, harness.make_inputs(CASES["class_table"]))
    torch_value = (torch_model(**torch_inputs).sample ** 2).mean()
    torch_value.backward()
    assert abs(float(value) - torch_value.item()) <= 1e-5 * torch_value.item()
    theirs = dict(torch_model.named_parameters())
    for (name, _), gradient in zip(model.named_parameters(), gradients):
        assert error(gradient, theirs[name].grad.numpy()) <= 2e-4, name


def test_outputs():
    model, _, arguments, want = build("plain_middle")
    output = model(**arguments)
    assert output[0] is output.sample
    assert error(model(**arguments, return_dict=False)[0], want) <= TOLERANCE
    first = {key: value[:1] if isinstance(value, ms.Tensor) else value for key, value in arguments.items()}
    assert error(model(**first).sample, want[:1]) <= TOLERANCE
    for timestep in (601.0, np.int64(601), ms.Tensor(601), ms.Tensor([601]), ms.Tensor([601, 601]), ms.Tensor([601.0], ms.float16)):
        assert error(model(**{**arguments, "timestep": timestep}).sample, want) <= TOLERANCE


def test_files_go_both_ways(tmp_path):
    model, torch_model, arguments, want = build("sdxl")
    torch_model.save_pretrained(tmp_path / "theirs")
    loaded, info = UNet2DConditionModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert error(loaded(**arguments).sample, want) <= TOLERANCE
    loaded.save_pretrained(tmp_path / "ours")
    again = type(torch_model).from_pretrained(tmp_path / "ours")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in torch_model.state_dict().items())
    theirs, ours = (json.loads((tmp_path / side / "config.json").read_text()) for side in ("theirs", "ours"))
    assert {key: value for key, value in ours.items() if key != "_name_or_path"} == theirs


def test_config_of_every_case_is_the_same():
    for name, case in CASES.items():
        theirs = dict(torch_side.find_class(case["class"])(**case["config"]).config)
        ours = dict(UNet2DConditionModel(**case["config"]).config)
        for config in (theirs, ours):
            config["_use_default_values"] = sorted(config["_use_default_values"])
        assert ours == theirs, name


def test_dual_cross_attention(monkeypatch):
    """PyTorch diffusers passes its dual transformers a mask that they do not take."""
    forward = their_dual.DualTransformer2DModel.forward

    def without_mask(self, *args, encoder_attention_mask=None, **kwargs):
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(their_dual.DualTransformer2DModel, "forward", without_mask)
    case = {**CASES["sd21"], "config": {**CASES["sd21"]["config"], "dual_cross_attention": True, "use_linear_projection": False}}
    case["inputs"] = {**case["inputs"], "encoder_hidden_states": (2, 90, 16)}
    torch_model = torch_side.build(case)
    model = copy_weights(UNet2DConditionModel(**case["config"]), torch_model)
    want = torch_side.run(torch_model, case)["__call__"]["sample"]
    assert error(model(**harness.map_arrays(ms.Tensor, harness.make_inputs(case))).sample, want) <= TOLERANCE


# Attention processors


class Doubled:
    """A user's processor: takes one keyword argument and no others."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, factor=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        value = attn.head_to_batch_dim(attn.to_v(context))
        mask = attn.prepare_attention_mask(attention_mask, context.shape[1], hidden_states.shape[0])
        output = F.bmm(attn.get_attention_scores(query, key, mask), value)
        output = attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(output)))
        return output if factor is None else output * factor


class Learned(nn.Module):
    """A processor with a parameter."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter((1,))
        self.inner = attention.AttnProcessor2_0()

    def construct(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask) * self.gain


@pytest.mark.parametrize("name", ["masks", "simple_cross_attention", "simple_cross_attention_only", "sd21", "self_attention", "unclip"])
def test_every_stock_processor(name):
    model, torch_model, arguments, want = build(name)
    assert list(model.attn_processors) == list(torch_model.attn_processors)
    for key, processor in torch_model.attn_processors.items():
        assert type(model.attn_processors[key]).__name__ == type(processor).__name__
    kinds = {type(processor) for processor in model.attn_processors.values()}
    if len(kinds) == 1:
        model.set_default_attn_processor()
        assert {type(p) for p in model.attn_processors.values()} <= {attention.AttnProcessor, attention.AttnAddedKVProcessor}
        assert error(model(**arguments).sample, want) <= TOLERANCE
    else:
        with pytest.raises(ValueError, match="set_attn_processor"):
            model.set_default_attn_processor()
    for size in ("max", "auto", 1, [1] * len(model.attn_processors)):
        model.set_attention_slice(size)
        torch_model.set_attention_slice(size)
        for key, processor in torch_model.attn_processors.items():
            ours = model.attn_processors[key]
            assert (type(ours).__name__, ours.slice_size) == (type(processor).__name__, processor.slice_size)
        assert error(model(**arguments).sample, want) <= TOLERANCE
    model.set_attention_slice(None)
    assert error(model(**arguments).sample, want) <= TOLERANCE


def test_setting_processors():
    model, torch_model, arguments, want = build("masks")
    stock = model.attn_processors
    model.set_attn_processor(Doubled())
    assert error(model(**arguments).sample, want) <= TOLERANCE
    doubled = model(**arguments, cross_attention_kwargs={"factor": ms.Tensor(2.0), "another": 1}).sample
    assert error(doubled, want) > 1e-2
    model.set_attn_processor(stock)
    assert error(model(**arguments, cross_attention_kwargs={"factor": ms.Tensor(2.0)}).sample, want) <= TOLERANCE
    assert model.attn_processors == stock

    key = "mid_block.attentions.0.transformer_blocks.0.attn2.processor"
    model.set_attn_processor({**stock, key: Learned()})
    gain = model.state_dict()[key + ".gain"]
    gain.set_data(ms.Tensor([1.0]))
    assert error(model(**arguments).sample, want) <= TOLERANCE
    gain.set_data(ms.Tensor([0.0]))
    assert error(model(**arguments).sample, want) > 1e-3
    model.set_attn_processor(attention.AttnProcessor())
    assert key + ".gain" not in model.state_dict()
    assert error(model(**arguments).sample, want) <= TOLERANCE

    with pytest.raises(ValueError, match="1 processors for 8 attentions"):
        model.set_attn_processor({key: Doubled()})
    with pytest.raises(ValueError, match="2 entries, but there are 8"):
        model.set_attention_slice([1, 1])
    with pytest.raises(ValueError, match="slice_size is 5, but an attention has 4 heads"):
        model.set_attention_slice(5)


def test_added_projections_are_not_fused():
    for one in build("simple_cross_attention")[:2]:
        with pytest.raises(ValueError, match="fuse_qkv_projections"):
            one.fuse_qkv_projections()


@pytest.mark.slow
def test_processors_in_graph_mode():
    model, _, arguments, want = build("no_middle")
    model.enable_graph_mode()
    assert error(model(**arguments).sample, want) <= TOLERANCE
    model.set_attn_processor(Doubled())
    before = graph.compilations()
    for factor in (1.0, 2.0, 3.0):
        output = model(**arguments, cross_attention_kwargs={"factor": ms.Tensor(factor)}).sample
        assert (error(output, want) <= TOLERANCE) == (factor == 1)
    assert graph.compilations() == before + 1


# Parts that no case reaches


def both(theirs, ours, *args, call=(), jit=False, **kwargs):
    """Outputs of both modules, with the same weights, for the arrays and values `call`."""
    torch_module = theirs(*args, **kwargs).eval()
    state = harness.make_state({name: value.shape for name, value in torch_module.named_parameters()})
    with torch.no_grad():
        for name, parameter in torch_module.named_parameters():
            parameter.copy_(torch.from_numpy(state[name]))
    module = copy_weights(ours(*args, **kwargs), torch_module)
    arguments = [harness.make_input(str(i), spec) for i, spec in enumerate(call)]
    with torch.no_grad():
        want = torch_module(*harness.map_arrays(torch.from_numpy, arguments))
    run = ms.jit(module.construct) if jit else module
    return run(*harness.map_arrays(ms.Tensor, arguments)), want


def agree(got, want):
    got, want = (value if isinstance(value, tuple) else (value,) for value in (got, want))
    assert len(got) == len(want)
    for one, other in zip(got, want):
        if isinstance(other, tuple):
            agree(one, other)
        else:
            assert error(one, other.numpy()) <= TOLERANCE


MAP, TEMB, TOKENS = (2, 32, 8, 6), (2, 12), (2, 7, 32)
_RESNET = {"in_channels": 32, "temb_channels": 12, "groups": 8}


@pytest.mark.parametrize(
    "options",
    [
        {"out_channels": 16, "groups_out": 4, "conv_shortcut_bias": False},
        {"up": True}, {"down": True, "out_channels": 64}, {"up": True, "kernel": "fir"}, {"down": True, "kernel": "fir"},
        {"use_in_shortcut": True, "output_scale_factor": 2.0, "eps": 0.1}, {"conv_2d_out_channels": 24, "non_linearity": "mish"},
        {"time_embedding_norm": "scale_shift", "skip_time_act": True}, {"temb_channels": None},
    ],
)  # fmt: skip
def test_resnet_block(options):
    call = (MAP, None) if options.get("temb_channels", 1) is None else (MAP, TEMB)
    agree(*both(their_resnet.ResnetBlock2D, resnet.ResnetBlock2D, **{**_RESNET, **options}, call=call))


@pytest.mark.parametrize("options", [{"up": True}, {"down": True, "out_channels": 64}, {"time_embedding_norm": "spatial"}])
def test_resnet_block_with_conditioned_norms(options):
    call = (MAP, (2, 12, 4, 3)) if "time_embedding_norm" in options else (MAP, TEMB)
    agree(*both(their_resnet.ResnetBlockCondNorm2D, resnet.ResnetBlockCondNorm2D, **{**_RESNET, **options}, call=call))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Downsample2D", {}), ("Downsample2D", {"use_conv": True, "name": "op", "padding": 0, "out_channels": 16, "bias": False}),
        ("Downsample2D", {"use_conv": True, "name": "op", "norm_type": "rms_norm", "eps": 1e-3, "elementwise_affine": True}),
        ("Downsample2D", {"use_conv": True, "name": "op", "norm_type": "ln_norm", "eps": 1e-3, "elementwise_affine": True}),
        ("Upsample2D", {}), ("Upsample2D", {"use_conv": True, "name": "op", "out_channels": 16, "kernel_size": 1, "padding": 0}),
        ("Upsample2D", {"use_conv_transpose": True, "norm_type": "ln_norm", "eps": 1e-3, "elementwise_affine": False}),
        ("Upsample2D", {"use_conv": True, "interpolate": False}),
    ],
)  # fmt: skip
def test_resampling(name, options):
    agree(*both(getattr(their_resnet, name), getattr(resnet, name), 32, **options, call=(MAP,)))


def test_upsampling_to_a_size():
    torch_module = their_resnet.Upsample2D(32, use_conv=True)
    module = copy_weights(resnet.Upsample2D(32, use_conv=True), torch_module)
    array = harness.make_input("map", MAP)
    with torch.no_grad():
        agree(module(ms.Tensor(array), (15, 13)), torch_module(torch.from_numpy(array), (15, 13)))


_ATTENTION = {"query_dim": 32, "heads": 4, "dim_head": 8}


@pytest.mark.parametrize(
    "options",
    [
        {"qk_norm": "layer_norm"}, {"qk_norm": "rms_norm", "bias": True}, {"qk_norm": "fp32_layer_norm"}, {"qk_norm": "l2"},
        {"qk_norm": "rms_norm", "elementwise_affine": False}, {"out_dim": 16}, {"scale_qk": False, "upcast_softmax": True},
        {"rescale_output_factor": 2.0, "residual_connection": True, "norm_num_groups": 4, "out_bias": False},
    ],
)  # fmt: skip
def test_attention(options):
    agree(*both(their_processors.Attention, attention.Attention, **_ATTENTION, **options, call=(TOKENS,)))


def test_attention_with_a_context():
    options = {**_ATTENTION, "cross_attention_dim": 16, "cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 4}
    mask = ("array", np.float32([[[0, -1e4, 0]], [[-1, 0, 0.5]]]).tolist())
    for call in ((TOKENS, (2, 3, 16)), (MAP, (2, 3, 16))):
        agree(*both(their_processors.Attention, attention.Attention, **options, call=call))
    got, want = both(their_processors.Attention, attention.Attention, **options, call=(TOKENS, (2, 3, 16)))
    agree(got, want)
    torch_module = their_processors.Attention(**options)
    module = copy_weights(attention.Attention(**options), torch_module)
    arrays = [harness.make_input("q", TOKENS), harness.make_input("k", (2, 3, 16)), np.float32(harness.make_input("m", mask))]
    for extra in (arrays[2], np.repeat(arrays[2], 7, 1), np.repeat(arrays[2], 4, 0)):
        with torch.no_grad():
            want = torch_module(*(torch.from_numpy(value) for value in (*arrays[:2], extra)))
        agree(module(*(ms.Tensor(value) for value in (*arrays[:2], extra))), want)
        for out_dim in (3, 4):
            if out_dim == 4 and extra.shape[0] == 8:
                continue
            theirs = torch_module.prepare_attention_mask(torch.from_numpy(extra), 3, 2, out_dim)
            agree(module.prepare_attention_mask(ms.Tensor(extra), 3, 2, out_dim), theirs)


def test_attention_of_joint_families_has_their_parameters():
    options = {**_ATTENTION, "added_kv_proj_dim": 24, "context_pre_only": False, "qk_norm": "rms_norm"}
    copy_weights(attention.Attention(**options), their_processors.Attention(**options))
    options = {**_ATTENTION, "kv_heads": 2, "qk_norm": "rms_norm_across_heads", "pre_only": True}
    copy_weights(attention.Attention(**options), their_processors.Attention(**options))


@pytest.mark.parametrize("activation", ["gelu", "gelu-approximate", "geglu", "geglu-approximate", "swiglu", "linear-silu"])
def test_feed_forward(activation):
    options = {"dim": 32, "dim_out": 20, "activation_fn": activation, "final_dropout": True, "bias": activation != "geglu"}
    agree(*both(their_attention.FeedForward, attention.FeedForward, **options, call=(TOKENS,)))


_BLOCK = {"dim": 32, "num_attention_heads": 4, "attention_head_dim": 8, "cross_attention_dim": 16}
_CONTEXT = (2, 3, 16)
_STEP = ("array", 7)
_CALL = (TOKENS, None, _CONTEXT, None)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"double_self_attention": True, "attention_bias": True, "activation_fn": "gelu"}, (TOKENS, None, None)),
        ({"cross_attention_dim": None, "norm_elementwise_affine": False, "ff_inner_dim": 20, "ff_bias": False}, (TOKENS,)),
        ({"positional_embeddings": "sinusoidal", "num_positional_embeddings": 9, "attention_out_bias": False}, _CALL),
        ({"norm_type": "ada_norm", "num_embeds_ada_norm": 10}, (*_CALL, _STEP)),
        ({"norm_type": "ada_norm_zero", "num_embeds_ada_norm": 10}, (*_CALL, ("int", (2,), 10), None, ("int", (2,), 10))),
        ({"norm_type": "ada_norm_single"}, (*_CALL, (2, 192))),
        ({"norm_type": "ada_norm_single", "cross_attention_dim": None}, (TOKENS, None, None, None, (2, 192))),
        (
            {"norm_type": "ada_norm_continuous", "ada_norm_continous_conditioning_embedding_dim": 12, "ada_norm_bias": True},
            (*_CALL, None, None, None, {"pooled_text_emb": TEMB}),
        ),
    ],
)
def test_transformer_block(options, call, jit):
    agree(*both(their_attention.BasicTransformerBlock, attention.BasicTransformerBlock, **{**_BLOCK, **options}, call=call, jit=jit))


def test_transformer_over_a_map():
    from diffusers import Transformer2DModel as Theirs

    options = {"num_attention_heads": 4, "attention_head_dim": 4, "in_channels": 32, "norm_num_groups": 8, "num_layers": 2}
    torch_module = Theirs(**options, attention_bias=True)
    module = copy_weights(Transformer2DModel(**options, attention_bias=True), torch_module)
    array = harness.make_input("map", MAP)
    mask = (np.arange(48) % 5 > 0)[None].repeat(2, 0).astype(np.float32)
    with torch.no_grad():
        want = torch_module(torch.from_numpy(array), attention_mask=torch.from_numpy(mask)).sample
    agree(module(ms.Tensor(array), attention_mask=ms.Tensor(mask)).sample, want)
    with pytest.raises(ConfigError, match="in_channels"):
        Transformer2DModel()
    with pytest.raises(NotImplementedError, match="patch_size"):
        Transformer2DModel(in_channels=4, patch_size=2, norm_type="ada_norm_single")
    dual = {"num_attention_heads": 4, "attention_head_dim": 4, "in_channels": 32, "norm_num_groups": 8, "cross_attention_dim": 16}
    theirs = their_dual.DualTransformer2DModel(**dual)
    ours = copy_weights(DualTransformer2DModel(**dual), theirs)
    context = harness.make_input("context", (2, 8, 16))
    theirs.condition_lengths = ours.condition_lengths = [3, 5]
    with torch.no_grad():
        agree(ours(ms.Tensor(array), ms.Tensor(context))[0], theirs(torch.from_numpy(array), torch.from_numpy(context)).sample)


_STAGE = {"in_channels": 32, "out_channels": 32, "num_layers": 2, "resnet_groups": 8}
_SPATIAL = {"resnet_time_scale_shift": "spatial", "temb_channels": 12}


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "options", "call"),
    [
        ("DownEncoderBlock2D", {"out_channels": 64, "downsample_padding": 0}, (MAP,)),
        ("AttnDownEncoderBlock2D", {"attention_head_dim": 8, "add_downsample": False}, (MAP,)),
        ("UpDecoderBlock2D", {"out_channels": 64}, (MAP, None)),
        ("UpDecoderBlock2D", _SPATIAL, (MAP, (2, 12, 4, 3))),
        ("AttnUpDecoderBlock2D", {"attention_head_dim": 16}, (MAP, None)),
        ("AttnUpDecoderBlock2D", {**_SPATIAL, "attention_head_dim": 8}, (MAP, (2, 12, 4, 3))),
        ("AttnDownBlock2D", {"attention_head_dim": 8, "downsample_type": "resnet", "temb_channels": 12}, (MAP, TEMB)),
        ("AttnDownBlock2D", {"attention_head_dim": None, "downsample_type": None, "temb_channels": 12}, (MAP, TEMB)),
        ("UNetMidBlock2D", {"attention_head_dim": 8, "temb_channels": None}, (MAP, None)),
        ("UNetMidBlock2D", {"attention_head_dim": 8, **_SPATIAL}, (MAP, (2, 12, 4, 3))),
        ("UNetMidBlock2D", {"add_attention": False, "temb_channels": 12, "resnet_time_scale_shift": "scale_shift"}, (MAP, TEMB)),
        ("UNetMidBlock2D", {"attn_groups": 4, "temb_channels": 12, "output_scale_factor": 1.5}, (MAP, TEMB)),
        ("UNetMidBlock2DCrossAttn", {"cross_attention_dim": 16, "temb_channels": 12, "num_layers": 2}, (MAP, TEMB, _CONTEXT)),
    ],
)
def test_stage(name, options, call, jit):
    options = {**_STAGE, **options}
    if "Mid" in name:
        del options["out_channels"]
    agree(*both(getattr(their_blocks, name), getattr(blocks, name), **options, call=call, jit=jit))


def test_stage_up_by_a_residual_block():
    options = {**_STAGE, "prev_output_channel": 16, "temb_channels": 12, "upsample_type": "resnet", "attention_head_dim": 8}
    call = ((2, 16, 8, 6), [(2, 32, 8, 6), (2, 32, 8, 6)], TEMB)
    agree(*both(their_blocks.AttnUpBlock2D, blocks.AttnUpBlock2D, **options, call=call))


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("options", [{}, {"flip_sin_to_cos": True, "downscale_freq_shift": 0, "scale": 2.0, "max_period": 500}])
def test_timestep_embedding(size, options):
    steps = np.float32([0, 1, 17.5, 999])
    want = their_embeddings.get_timestep_embedding(torch.from_numpy(steps), size, **options).numpy()
    assert error(embeddings.get_timestep_embedding(ms.Tensor(steps), size, **options), want) <= 1e-4  # sine of up to 2000
    with pytest.raises(ValueError, match="expected"):
        embeddings.get_timestep_embedding(ms.Tensor(3), size)


def test_projections():
    # One unit in the last place of the logarithm, times 2 pi times a frequency.
    got, want = both(their_embeddings.GaussianFourierProjection, embeddings.GaussianFourierProjection, 6, call=(("uniform", (5,)),))
    assert error(got, want.numpy()) <= 2e-5
    for name, options, call in [
        ("ImageProjection", {"image_embed_dim": 12, "cross_attention_dim": 16, "num_image_text_embeds": 4}, (TEMB,)),
        ("TimestepEmbedding", {"in_channels": 12, "time_embed_dim": 20, "out_dim": 6, "sample_proj_bias": False}, (TEMB,)),
    ]:
        agree(*both(getattr(their_embeddings, name), getattr(embeddings, name), **options, call=call))


# Errors


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"up_block_types": ("UpBlock2D",)}, "up_block_types.*expected 2"),
        ({"block_out_channels": (16,)}, "block_out_channels.*expected 2"),
        ({"only_cross_attention": (True,)}, "only_cross_attention.*expected 2"),
        ({"attention_head_dim": (4, 4, 4)}, "attention_head_dim.*expected 2"),
        ({"cross_attention_dim": [16]}, "cross_attention_dim.*expected 2"),
        ({"layers_per_block": (1,)}, "layers_per_block.*expected 2"),
        ({"transformer_layers_per_block": [1, [1, 2]]}, "reverse_transformer_layers_per_block"),
        ({"num_attention_heads": 4}, "num_attention_heads"),
        ({"time_embedding_type": "fourier", "time_embedding_dim": 33}, "time_embedding_dim is 33"),
        ({"time_embedding_type": "learned"}, "time_embedding_type 'learned'"),
        ({"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim"),
        ({"encoder_hid_dim_type": "audio", "encoder_hid_dim": 8}, "encoder_hid_dim_type 'audio'"),
        ({"class_embed_type": "projection"}, "projection_class_embeddings_input_dim"),
        ({"class_embed_type": "simple_projection"}, "projection_class_embeddings_input_dim"),
        ({"addition_embed_type": "audio"}, "addition_embed_type 'audio'"),
        ({"mid_block_type": "MidBlock"}, "mid block type 'MidBlock'"),
        ({"down_block_types": ("DownBlock3D", "DownBlock2D")}, "down block type 'DownBlock3D'"),
        ({"up_block_types": ("UpBlock3D", "UpBlock2D")}, "up block type 'UpBlock3D'"),
        ({"cross_attention_dim": None}, "cross_attention_dim must be given for CrossAttnDownBlock2D"),
        ({"act_fn": "tan"}, "activation function 'tan'"),
        ({"resnet_time_scale_shift": "ada_group"}, "ResnetBlockCondNorm2D"),
        ({"resnet_time_scale_shift": "shift"}, "time_embedding_norm 'shift'"),
        ({**CASES["simple_cross_attention"]["config"], "cross_attention_norm": "batch"}, "cross_attention_norm 'batch'"),
    ],
)
def test_bad_configs(config, message):
    merged = {**CASES["plain_middle"]["config"], "mid_block_type": "UNetMidBlock2DCrossAttn", **config}
    with pytest.raises(ConfigError, match=message):
        UNet2DConditionModel(**merged)
    with pytest.raises((ValueError, TypeError)):  # PyTorch diffusers refuses them as well
        torch_side.find_class("UNet2DConditionModel")(**merged)


@pytest.mark.parametrize(
    ("name", "absent", "message"),
    [
        ("class_table", "class_labels", "class_labels"),
        ("sdxl", "added_cond_kwargs", "text_embeds.*time_ids"),
        ("kandinsky21", "added_cond_kwargs", "image_embeds"),
        ("kandinsky22", "added_cond_kwargs", "image_embeds"),
        ("kandinsky22_controlnet", "added_cond_kwargs", "hint"),
    ],
)
def test_missing_inputs(name, absent, message):
    model = UNet2DConditionModel(**CASES[name]["config"])
    with pytest.raises(ValueError, match=message):
        model(**{key: value for key, value in inputs(name).items() if key != absent})


def test_other_bad_inputs():
    model = UNet2DConditionModel(**CASES["controlnet"]["config"])
    arguments = inputs("controlnet")
    arguments["down_block_additional_residuals"].pop()
    with pytest.raises(ValueError, match="3 down_block_additional_residuals, expected 4"):
        model(**arguments)
    with pytest.raises(TypeError, match="guidance"):
        model(**inputs("plain_middle"), guidance=3.0)
    for bad, message in [
        ({"only_cross_attention": True}, "added_kv_proj_dim"), ({"qk_norm": "batch"}, "qk_norm 'batch'"),
        ({"cross_attention_norm": "batch"}, "cross_attention_norm 'batch'"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            attention.Attention(32, **bad)
    with pytest.raises(ConfigError, match="activation_fn 'relu'"):
        attention.FeedForward(8, activation_fn="relu")
    for bad, message in [
        ({"norm_type": "ada_norm"}, "num_embeds"), ({"norm_type": "no"}, "'no'"), ({"positional_embeddings": "sinusoidal"}, "num_pos"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            attention.BasicTransformerBlock(8, 1, 8, **bad)
    with pytest.raises(TypeError, match="cross_attention"):
        blocks.DownBlock2D(8, 8, 8, cross_attention_dim=4)
