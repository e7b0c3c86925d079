"""Blocks that are alike share a compilation, and are still each their own."""

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import AutoencoderTiny, UNet2DConditionModel, compile_model
from mindone_diffusers.backend.shared_blocks import shared_blocks
from mindone_diffusers.core.errors import UnsupportedError

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")


def unet() -> UNet2DConditionModel:
    """Two stages of the same width, of which MindSpore must not take one for the other: their samples are not of one size."""
    model = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 16), layers_per_block=2, cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        transformer_layers_per_block=2,
    )  # fmt: skip
    model.fill_parameters(0)
    return model.eval()


def marks(model: UNet2DConditionModel) -> dict[str, str]:
    return {name: vars(cell)["_cell_init_args"] for name, cell in model.cells_and_names() if "_cell_init_args" in vars(cell)}


def test_which_share() -> None:
    model = unet()
    with shared_blocks(model, BLOCKS):
        found = marks(model)
    assert marks(model) == {} and not any("no_inline" in vars(cell) for _, cell in model.cells_and_names())
    blocks = [f"down_blocks.0.attentions.{attention}.transformer_blocks.{block}" for attention in (0, 1) for block in (0, 1)]
    assert len({found[block] for block in blocks}) == 1
    assert found["down_blocks.1.attentions.0.transformer_blocks.0"] != found[blocks[0]]
    assert found["mid_block.resnets.0"] == found["mid_block.resnets.1"]
    assert "down_blocks.1.downsamplers.0" not in found

    # Another processor in one of them, and it is on its own.
    model.down_blocks[0].attentions[1].transformer_blocks[1].attn1.processor = object()
    with shared_blocks(model, BLOCKS):
        assert set(blocks) - marks(model).keys() == {blocks[3]}


def test_eager_and_compiled_are_the_same_to_the_bit() -> None:
    model = unet()
    rng = np.random.default_rng(0)
    sample = ms.Tensor(rng.standard_normal((2, 4, 8, 8)).astype(np.float32))
    context = ms.Tensor(rng.standard_normal((2, 3, 8)).astype(np.float32))
    eager = model(sample, 5, context).sample.asnumpy()
    model.compile_repeated_blocks(fullgraph=True)
    np.testing.assert_array_equal(model(sample, 5, context).sample.asnumpy(), eager)


def test_compile_model() -> None:
    model = AutoencoderTiny(
        encoder_block_out_channels=(8,), decoder_block_out_channels=(8,), num_encoder_blocks=(1,), num_decoder_blocks=(1,)
    )
    model.fill_parameters(0)
    latents = ms.Tensor(np.ones((1, 4, 4, 4), np.float32))
    eager = model.decode(latents).sample.asnumpy()
    assert compile_model(model, disable=True) is model and not model.runs_compiled
    assert compile_model(model, mode="max-autotune", fullgraph=True, dynamic=True) is model and model.runs_compiled
    np.testing.assert_allclose(model.decode(latents).sample.asnumpy(), eager, atol=1e-6)
    with pytest.raises(UnsupportedError, match="dynamic graphs are not possible"):
        model.enable_graph_mode(dynamic=1)
    with pytest.raises(ValueError, match="mode is 'fast'; expected 'default'"):
        compile_model(model, mode="fast")
    with pytest.raises(ValueError, match="backend is 'cudagraphs'"):
        compile_model(model, backend="cudagraphs")
    with pytest.raises(ValueError, match="AutoencoderTiny has no repeated blocks"):
        model.compile_repeated_blocks()
