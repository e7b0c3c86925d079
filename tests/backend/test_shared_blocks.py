"""Blocks that are alike share a compilation, and are still each their own."""

import inspect
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DiTTransformer2DModel,
    FirstBlockCacheConfig,
    TaylorSeerCacheConfig,
    UNet2DConditionModel,
    attention_backend,
    compile_model,
)
from mindone_diffusers.backend import graph, native
from mindone_diffusers.backend.shared_blocks import shared_blocks
from mindone_diffusers.core.errors import UnsupportedError
from mindone_diffusers.models.attention import AttnProcessor, BasicTransformerBlock
from mindone_diffusers.models.resnet import ResnetBlock2D
from mindone_diffusers.text_encoders import CLIPTextModel, CLIPVisionModelWithProjection
from mindone_diffusers.text_encoders.clip import CLIPEncoderLayer

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


def dit(layers: int) -> DiTTransformer2DModel:
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=layers, num_embeds_ada_norm=5, sample_size=4, norm_elementwise_affine=False
    )
    model.fill_parameters(0)
    return model.eval()


@pytest.fixture
def inputs() -> tuple:
    rng = np.random.default_rng(0)
    return ms.Tensor(rng.standard_normal((2, 4, 4, 4)).astype(np.float32)), 5, ms.Tensor(np.array([1, 2], np.int32))


def kept(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("mindone_diffusers/graphs/*.mindir")}


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """An empty one."""
    native.library()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_one_compilation_for_all_blocks(store, inputs) -> None:
    model = dit(4)
    names, kinds = [parameter.name for parameter in model.parameters()], [type(block) for block in model.transformer_blocks]
    eager = model(*inputs).sample.asnumpy()
    model.compile_repeated_blocks()
    np.testing.assert_array_equal(model(*inputs).sample.asnumpy(), eager)
    assert len(kept(store)) == 1
    assert [parameter.name for parameter in model.parameters()] == names
    assert [type(block) for block in model.transformer_blocks] == kinds

    # Each block has its own weights, also new ones, and nothing is compiled again.
    compiled = graph.compilations()
    other = dit(4)
    other.fill_parameters(1)
    eager = other(*inputs).sample.asnumpy()
    model.load_state_dict({name: parameter.asnumpy() for name, parameter in other.state_dict().items()})
    np.testing.assert_array_equal(model(*inputs).sample.asnumpy(), eager)
    np.testing.assert_array_equal(model(inputs[0], 9, inputs[2]).sample.asnumpy(), other(inputs[0], 9, inputs[2]).sample.asnumpy())
    assert graph.compilations() == compiled

    # A model of another depth finds the same graph; another backend, and other sizes, are others.
    deeper = dit(6)
    eager = deeper(*inputs).sample.asnumpy()
    deeper.compile_repeated_blocks()
    np.testing.assert_array_equal(deeper(*inputs).sample.asnumpy(), eager)
    assert len(kept(store)) == 1
    with attention_backend("math"):
        np.testing.assert_allclose(deeper(*inputs).sample.asnumpy(), eager, atol=1e-5)
    assert len(kept(store)) == 2
    compiled = graph.compilations()
    np.testing.assert_array_equal(deeper(*inputs).sample.asnumpy(), eager)
    assert graph.compilations() == compiled
    larger = ms.ops.ones((2, 4, 8, 8))
    compiled = deeper(larger, *inputs[1:]).sample.asnumpy()
    assert len(kept(store)) == 3
    np.testing.assert_array_equal(compiled, deeper.disable_graph_mode()(larger, *inputs[1:]).sample.asnumpy())


def test_blocks_that_differ_are_compiled_each(store, inputs) -> None:
    model = dit(3)
    model.transformer_blocks[1].attn1.set_processor(AttnProcessor())
    model.transformer_blocks[2].norm1.norm.eps = 1e-3
    eager = model(*inputs).sample.asnumpy()
    model.compile_repeated_blocks()
    np.testing.assert_array_equal(model(*inputs).sample.asnumpy(), eager)
    assert len(kept(store)) == 3


def test_compiled_blocks_and_gradients(inputs) -> None:
    model = dit(2)

    def loss(sample: ms.Tensor) -> ms.Tensor:
        return (model(sample, *inputs[1:]).sample ** 2).sum()

    value, gradient = ms.value_and_grad(loss)(inputs[0])
    model.compile_repeated_blocks()
    model(*inputs)
    compiled = ms.value_and_grad(loss)(inputs[0])
    np.testing.assert_array_equal(compiled[0].asnumpy(), value.asnumpy())
    np.testing.assert_array_equal(compiled[1].asnumpy(), gradient.asnumpy())


@pytest.mark.parametrize(
    "config",
    [FirstBlockCacheConfig(threshold=0.5), TaylorSeerCacheConfig(cache_interval=2, taylor_factors_dtype=ms.float32)],
    ids=lambda config: type(config).__name__,
)
def test_compiled_blocks_under_a_step_cache(config, inputs) -> None:
    model = dit(3)

    def steps() -> list[np.ndarray]:
        model.enable_cache(config)
        with model.cache_context("cond"):
            outputs = [model(inputs[0] * (1 + 0.1 * step), 5 - step, inputs[2]).sample.asnumpy() for step in range(5)]
        model.disable_cache()
        return outputs

    eager = steps()
    model.compile_repeated_blocks()
    np.testing.assert_array_equal(steps(), eager)
    np.testing.assert_array_equal(steps(), eager)


def test_where_graphs_are_not_kept_the_whole_model_is_compiled(monkeypatch, inputs) -> None:
    monkeypatch.setenv("MINDONE_DIFFUSERS_COMPILE_CACHE", "0")
    model = dit(3)
    eager = model(*inputs).sample.asnumpy()
    model.compile_repeated_blocks()
    compiled = graph.compilations()
    np.testing.assert_allclose(model(*inputs).sample.asnumpy(), eager, atol=1e-6)
    assert graph.compilations() == compiled + 1


def test_every_repeated_block_can_be_called_alone() -> None:
    """With positional arguments, which is how its graph is called."""
    models = [AutoencoderKL, CLIPTextModel, CLIPVisionModelWithProjection, ControlNetModel, DiTTransformer2DModel, UNet2DConditionModel]
    blocks = {block for model in models for block in model._repeated_blocks}
    assert blocks == {"BasicTransformerBlock", "ResnetBlock2D", "CLIPEncoderLayer"}
    for block in (BasicTransformerBlock, ResnetBlock2D, CLIPEncoderLayer):
        kinds = {parameter.kind for parameter in inspect.signature(block.construct).parameters.values()}
        assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
