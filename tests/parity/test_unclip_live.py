"""`PriorTransformer` beside PyTorch diffusers', and the pipeline that it is in with other schedulers. Its images under all arguments are
compared in test_stable_diffusion_rest_live.py."""

import json

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindone_diffusers as ours  # noqa: E402
from mindone_diffusers.core.errors import ConfigError  # noqa: E402
from mindone_diffusers.models.attention import AttnProcessor  # noqa: E402

from .. import harness, ms_side, torch_side  # noqa: E402
from ..cases.transformers import CASES  # noqa: E402
from .test_stable_diffusion_rest_live import PLAIN, assert_same, load, sd, sdxl  # noqa: E402, F401  (fixtures)

TOLERANCE = 5e-6  # of the output's scale


def both(name: str, **changes):
    """Our model of a case and PyTorch's, and their outputs."""
    mine, theirs = ms_side.build(CASES[name]), torch_side.build(CASES[name])
    values = harness.make_inputs(CASES[name]) | changes
    with torch.no_grad():
        expected = theirs(**harness.map_arrays(torch.from_numpy, values))
    return mine, theirs, mine(**harness.map_arrays(ms.Tensor, values)), expected


def assert_equal(actual, expected):
    assert type(actual).__name__ == type(expected).__name__ and list(actual) == list(expected)
    for key, value in expected.items():
        assert harness.relative_error(actual[key].asnumpy(), value.numpy()) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_every_branch(name):
    mine, theirs, actual, expected = both(name)
    assert_equal(actual, expected)
    assert {key: value.shape for key, value in mine.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }
    configs = [dict(model.config) | {"_use_default_values": sorted(model.config["_use_default_values"])} for model in (mine, theirs)]
    assert configs[0] == configs[1]


def test_masks_of_numbers_and_a_tuple():
    mask = np.array(CASES["prior"]["inputs"]["attention_mask"][1])
    outputs = [both("prior", attention_mask=mask.astype(kind)) for kind in (np.int64, np.float32)]
    for _, _, actual, expected in outputs:
        assert_equal(actual, expected)
    mine, inputs = outputs[0][0], harness.map_arrays(ms.Tensor, harness.make_inputs(CASES["prior"]))
    (only,) = mine(**inputs, return_dict=False)
    np.testing.assert_array_equal(only.asnumpy(), outputs[0][2].predicted_image_embedding.asnumpy())


def test_default_config():
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in diffusers.PriorTransformer().named_parameters()}
    assert {key: value.shape for key, value in ours.PriorTransformer()._unfilled_parameters().items()} == theirs


def test_latents_after_the_prior():
    mine, theirs, *_ = both("prior_sizes")
    latents = harness.make_input("latents", (3, 6))
    with torch.no_grad():
        expected = theirs.post_process_latents(torch.from_numpy(latents)).numpy()
    for model in (mine, mine.enable_graph_mode()):
        assert harness.relative_error(model.post_process_latents(ms.Tensor(latents)).asnumpy(), expected) <= 1e-6


def test_processors():
    mine, theirs, actual, _ = both("prior")
    assert list(mine.attn_processors) == list(theirs.attn_processors)
    mine.set_default_attn_processor()
    assert {type(processor) for processor in mine.attn_processors.values()} == {AttnProcessor}
    again = mine(**harness.map_arrays(ms.Tensor, harness.make_inputs(CASES["prior"])))
    assert harness.relative_error(again[0].asnumpy(), actual[0].asnumpy()) <= TOLERANCE


def test_files_go_both_ways(tmp_path):
    mine, theirs, _, expected = both("prior_sizes")
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = ours.PriorTransformer.from_pretrained(tmp_path / "theirs")
    assert_equal(loaded(**harness.map_arrays(ms.Tensor, harness.make_inputs(CASES["prior_sizes"]))), expected)
    loaded.save_pretrained(tmp_path / "ours")
    again = diffusers.PriorTransformer.from_pretrained(tmp_path / "ours")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in theirs.state_dict().items())
    configs = [json.loads((tmp_path / side / "config.json").read_text()) for side in ("theirs", "ours")]
    assert {key: value for key, value in configs[1].items() if key != "_name_or_path"} == configs[0]


@pytest.mark.parametrize("name", ["norm_in_type", "embedding_proj_norm_type", "encoder_hid_proj_type", "added_emb_type"])
def test_refuses_unknown_types(name):
    for model, error in ((diffusers.PriorTransformer, ValueError), (ours.PriorTransformer, ConfigError)):
        with pytest.raises(error, match=name):
            model(**CASES["prior"]["config"], **{name: "group"})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder_hidden_states": None}, "encoder_hidden_states is None"),
        ({"encoder_hidden_states": harness.make_input("text", (2, 6, 12))}, "10 tokens, 1 of them .* positions for 11"),
        ({"attention_mask": np.ones((2, 8), bool)}, r"attention_mask has the shape \(2, 8\)"),
        ({"attention_mask": np.ones((3, 7), bool)}, r"attention_mask has the shape \(3, 7\)"),
    ],
)
def test_refuses_inputs_that_do_not_fit(changes, message):
    inputs = harness.make_inputs(CASES["prior"]) | changes
    with pytest.raises(ValueError, match=message):
        ms_side.build(CASES["prior"])(**harness.map_arrays(ms.Tensor, inputs))
    with pytest.raises((ValueError, RuntimeError, IndexError)), torch.no_grad():
        torch_side.build(CASES["prior"])(**harness.map_arrays(torch.from_numpy, inputs))


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"])
def test_other_schedulers_of_the_prior(load, name):  # noqa: F811
    pair = load("prior")
    previous = [pipe.prior_scheduler for pipe in pair]
    try:
        for pipe, library in zip(pair, (diffusers, ours)):
            pipe.prior_scheduler = getattr(library, name)(beta_schedule="scaled_linear")
        assert_same(pair, **PLAIN["prior"], eta=0.5)
    finally:
        for pipe, scheduler in zip(pair, previous):
            pipe.prior_scheduler = scheduler


def test_the_prior_in_graph_mode(load):  # noqa: F811
    pair = load("prior")
    pair[1].prior.enable_graph_mode()
    try:
        assert_same(pair, **PLAIN["prior"])
    finally:
        pair[1].prior.disable_graph_mode()
