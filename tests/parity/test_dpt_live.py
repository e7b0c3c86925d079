"""DPT and its backbone beside transformers'. The depth pipeline's images are compared in test_stable_diffusion_rest_live.py."""

import json

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mindone_diffusers import DPTForDepthEstimation  # noqa: E402
from mindone_diffusers.core.configuration import FrozenDict  # noqa: E402
from mindone_diffusers.core.errors import ConfigError, UnsupportedError  # noqa: E402
from mindone_diffusers.text_encoders.bit import BitBackbone, bit_config  # noqa: E402

from .. import harness, ms_side, torch_side  # noqa: E402
from ..cases.dpt import CASES  # noqa: E402

TOLERANCE = 2e-5  # of the output's scale; the hybrid's 16 group normalisations leave 6e-6
PIXELS = harness.make_input("pixel_values", (2, 3, 64, 64))
BIT = CASES["hybrid"]["config"]["backbone_config"]


@pytest.mark.parametrize("name", CASES)
def test_every_branch(name):
    mine, theirs = ms_side.build(CASES[name]), torch_side.build(CASES[name])
    assert {key: value.shape for key, value in mine.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }
    values = harness.make_inputs(CASES[name]) | {"output_hidden_states": True}
    with torch.no_grad():
        expected = theirs(**harness.map_arrays(torch.from_numpy, values))
    actual = mine(**harness.map_arrays(ms.Tensor, values))
    assert list(actual) == list(expected) == ["predicted_depth", "hidden_states"]
    pairs = [(actual.predicted_depth, expected.predicted_depth), *zip(actual.hidden_states, expected.hidden_states, strict=True)]
    for got, want in pairs:
        assert harness.relative_error(got.asnumpy(), want.numpy()) <= TOLERANCE


@pytest.mark.parametrize("config", [{}, {"is_hybrid": True}, CASES["hybrid"]["config"]])
def test_configs_and_names(config):
    given = transformers.DPTConfig(**config)
    expected = json.loads(given.to_json_string(use_diff=False))
    for mine in (DPTForDepthEstimation(**config), DPTForDepthEstimation(given)):
        written = json.loads(mine.to_json_string())
        different = {key for key in expected if key in written and written[key] != expected[key]}
        assert different <= {"architectures", "dtype", "backbone_config"}
        if given.is_hybrid:
            assert all(written["backbone_config"][key] == expected["backbone_config"][key] for key in bit_config(BIT))
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in transformers.DPTForDepthEstimation(given).named_parameters()}
    assert {key: value.shape for key, value in mine._unfilled_parameters().items()} == theirs


@pytest.mark.parametrize("name", ["vit", "hybrid"])
def test_files_go_both_ways(name, tmp_path):
    config = CASES[name]["config"] | {"use_batch_norm_in_fusion_residual": True}
    theirs = torch_side.build(CASES[name] | {"config": config})
    for key, value in theirs.named_buffers():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(np.abs(harness.make_weight(key, tuple(value.shape))) + 0.5))
    theirs.save_pretrained(tmp_path / "theirs")
    mine = DPTForDepthEstimation.from_pretrained(tmp_path / "theirs")
    pixels = harness.make_inputs(CASES[name])["pixel_values"]
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels)).predicted_depth.numpy()
    assert harness.relative_error(mine(pixels).predicted_depth.asnumpy(), expected) <= TOLERANCE
    mine.save_pretrained(tmp_path / "ours")
    again = transformers.DPTForDepthEstimation.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"global_padding": None, "embedding_dynamic_padding": False},
        {"output_stride": 8, "depths": [1, 2, 2]},
        {"output_stride": 4, "width_factor": 3, "out_features": ["stem", "stage3"]},
        {"hidden_act": "gelu", "out_features": None, "out_indices": [1, 2]},
    ],
)
def test_backbone(changes):
    values = BIT | changes
    theirs = transformers.BitBackbone(transformers.BitConfig(**values)).eval()
    state = harness.make_state({name: tuple(value.shape) for name, value in theirs.named_parameters()})
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    mine = BitBackbone(FrozenDict(bit_config(values)))
    parameters = dict(mine.parameters_and_names())
    assert parameters.keys() == state.keys()
    for name, value in state.items():
        parameters[name].set_data(ms.Tensor(value))
    pixels = PIXELS[:, :, :57, :43].copy()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels)).feature_maps
    for got, want in zip(mine(ms.Tensor(pixels)), expected, strict=True):
        assert harness.relative_error(got.asnumpy(), want.numpy()) <= TOLERANCE


def test_images_that_are_not_square():
    """Where transformers fails: the same as square ones, but for the other rows of patches."""
    mine = ms_side.build(CASES["vit"])
    assert mine(PIXELS[:, :, :32, :48]).predicted_depth.shape == (2, 64, 96)


@pytest.mark.parametrize(
    "config, error",
    [
        ({"readout_type": "mean"}, ConfigError),
        ({"readout_type": "add", "is_hybrid": True}, ConfigError),
        ({"backbone_out_indices": [0, 1, 2, 12]}, ConfigError),
        ({"is_hybrid": True, "backbone_config": BIT | {"out_features": ["stage3"]}}, ConfigError),
        ({"is_hybrid": True, "backbone_config": BIT | {"global_padding": "valid"}}, ConfigError),
        ({"is_hybrid": True, "backbone_config": BIT | {"out_features": ["stage4"]}}, ConfigError),
        ({"is_hybrid": True, "backbone_config": BIT | {"layer_type": "preactivation"}}, UnsupportedError),
        ({"backbone_config": BIT}, UnsupportedError),
        ({"num_attention_heads": 7}, ConfigError),
    ],
)
def test_refuses_configs(config, error):
    with pytest.raises(error):
        DPTForDepthEstimation(**config)


def test_refuses_images():
    hybrid = ms_side.build(CASES["hybrid"])
    with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\)"):
        hybrid(PIXELS[:, :1])
    with pytest.raises(ValueError, match=r"have \(64, 64\)"):
        hybrid(PIXELS[:, :, :32])
