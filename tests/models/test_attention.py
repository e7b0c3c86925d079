"""Models with another attention backend, and with fused projections."""

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import AutoencoderKL, ConfigMixin, ModelMixin, UNet2DConditionModel
from mindone_diffusers.backend import attention as backends
from mindone_diffusers.backend import graph
from mindone_diffusers.core.configuration import register_to_config
from mindone_diffusers.models import attention
from mindone_diffusers.models.attention_dispatch import attention_backend

BEST = backends.choose("native", ms.float32, *[(2, 2, 5, 8)] * 3)


class Toy(ModelMixin, attention.AttentionMixin, ConfigMixin):
    """Self-attention with fewer key heads and biases, and attention to a context."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.attn1 = attention.Attention(12, heads=4, dim_head=8, kv_heads=2, bias=True, qk_norm="rms_norm")
        self.attn2 = attention.Attention(12, cross_attention_dim=10, heads=4, dim_head=8)

    def __call__(self, tokens, context):
        return self._run("construct", tokens, context)[0].asnumpy()

    def construct(self, tokens, context):
        return (self.attn2(self.attn1(tokens), context),)


@pytest.fixture
def toy():
    model = Toy()
    model.fill_parameters(seed=0)
    rng = np.random.default_rng(0)
    return model, [ms.Tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in ((2, 9, 12), (2, 7, 10))]


@pytest.fixture
def chosen(monkeypatch):
    """The kernels that were chosen since it was last cleared."""
    kernels, refusal = [], backends.refusal

    def note(kernel, *rest):
        kernels.append(kernel)
        return refusal(kernel, *rest)

    monkeypatch.setattr(backends, "refusal", note)
    return kernels


def test_a_models_own_backend(toy, chosen):
    model, tensors = toy
    expected = model(*tensors)
    for backend, kernel in (("math", "math"), ("_NATIVE_EFFICIENT", "chunked"), ("xformers", BEST)):
        model.set_attention_backend(backend)
        chosen.clear()
        with attention_backend("math"):
            np.testing.assert_allclose(model(*tensors), expected, atol=1e-5)
        assert kernel not in ("math", "chunked", "native") or chosen == [kernel] * 2
    model.reset_attention_backend()
    chosen.clear()
    with attention_backend("math"):
        model(*tensors)
    assert chosen == ["math"] * 2
    for backend, error in (("flash", NotImplementedError), ("sage", ValueError)):
        with pytest.raises(error, match="here there are"):
            model.set_attention_backend(backend)
    assert model.attn1.attention_backend is None
    with pytest.raises(NotImplementedError, match="'_native_npu' is Ascend's"):
        model.enable_npu_flash_attention()
    model.disable_npu_flash_attention()


def test_a_changed_backend_compiles_once(toy, chosen):
    model, tensors = toy
    model.enable_graph_mode()
    expected, first = model(*tensors), graph.compilations()

    def compiled(kernel=None):
        """Two calls agree with the first, in one more graph with this kernel, or in none."""
        nonlocal first
        chosen.clear()
        for _ in range(2):
            np.testing.assert_allclose(model(*tensors), expected, atol=1e-5)
        assert graph.compilations() - first == (kernel is not None)
        assert set(chosen) == ({kernel} if kernel else set())
        first = graph.compilations()

    compiled()
    with attention_backend("math"):
        compiled("math")
    compiled()
    with attention_backend("math"):
        compiled()
    model.set_attention_backend("chunked")
    compiled("chunked")
    model.set_attention_backend("chunked")
    compiled()
    model.reset_attention_backend()
    with attention_backend("math"):
        compiled("math")


def test_memory_efficient_attention_ends_slicing(toy):
    model, tensors = toy
    expected = model(*tensors)
    for enable in (model.enable_xformers_memory_efficient_attention, model.disable_xformers_memory_efficient_attention):
        model.set_attn_processor(attention.SlicedAttnProcessor(1))
        enable()
        assert {type(processor) for processor in model.attn_processors.values()} == {attention.AttnProcessor2_0}
        np.testing.assert_array_equal(model(*tensors), expected)
    with pytest.raises(NotImplementedError, match="attention_op"):
        model.enable_xformers_memory_efficient_attention("cutlass")


@pytest.mark.parametrize("jit", [False, True])
def test_fused_projections(toy, jit, tmp_path):
    model, tensors = toy
    if jit:
        model.enable_graph_mode()
    expected, names, stock = model(*tensors), list(model.state_dict()), model.attn_processors
    for _ in range(2):  # a second call changes nothing
        model.fuse_qkv_projections()
    assert {type(processor) for processor in model.attn_processors.values()} == {attention.FusedAttnProcessor2_0}
    np.testing.assert_allclose(model(*tensors), expected, atol=1e-5)
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(Toy.from_pretrained(tmp_path)(*tensors), expected, atol=1e-5)

    weight = model.state_dict()["attn1.to_v.weight"]
    weight.copy_(weight * 2)
    changed = model(*tensors)
    assert np.abs(changed - expected).max() > 1e-2
    model.unfuse_qkv_projections()
    assert model.attn_processors == stock
    np.testing.assert_allclose(model(*tensors), changed, atol=1e-5)


def test_gradients_of_fused_projections(toy):
    model, tensors = toy

    def gradients():
        return ms.grad(lambda *inputs: (model.construct(*inputs)[0] ** 2).sum(), None, model.trainable_params())(*tensors)

    expected = gradients()
    model.fuse_qkv_projections()
    for one, other in zip(gradients(), expected):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), atol=1e-5 * max(np.abs(other.asnumpy()).max(), 1))


def test_fused_projections_of_a_unet_and_an_autoencoder():
    rng = np.random.default_rng(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    latents, context = (ms.Tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in ((2, 4, 8, 8), (2, 5, 16)))
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    for model, call in ((unet, lambda: unet(latents, 5, context).sample), (vae, lambda: vae.decode(latents).sample)):
        model.fill_parameters(seed=0)
        expected = call().asnumpy()
        model.fuse_qkv_projections()
        np.testing.assert_allclose(call().asnumpy(), expected, atol=1e-5 * np.abs(expected).max())


def test_added_projections_are_not_fused(toy):
    model, _ = toy
    model.set_attn_processor(attention.AttnAddedKVProcessor2_0())
    with pytest.raises(ValueError, match="AttnAddedKVProcessor2_0"):
        model.fuse_qkv_projections()
