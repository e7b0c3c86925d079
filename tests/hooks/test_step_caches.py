"""Step caches in graph mode, how often they compile and read from the device, what they leave as it was, and their errors.

`tests/parity/test_step_caches_live.py` compares them with PyTorch diffusers'.
"""

import functools

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as md
from mindone_diffusers.backend import graph
from tests import harness, ms_side

DIT = {
    "class": "DiTTransformer2DModel",
    "config": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 10},
}
UNET = {
    "class": "UNet2DConditionModel",
    "config": {
        "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 4,
    },
}  # fmt: skip
TIMESTEPS = (900, 600, 560, 520, 480, 440, 400)
NOW = {"current_timestep_callback": lambda: now}
now = 0


@functools.cache
def model(kind: str):
    return ms_side.build(DIT if kind == "dit" else UNET).eval()


def run(kind: str, contexts: tuple[str, ...] = ("cond",), size: int = 8) -> list[np.ndarray]:
    """The outputs of a drawing's steps."""
    global now
    outputs = []
    for step, now in enumerate(TIMESTEPS):
        for context in contexts:
            sample = harness.make_input(context, (2, 4, size, size)) * (1 - 0.01 * step)
            with model(kind).cache_context(context):
                if kind == "dit":
                    classes = ms.Tensor(np.array([3, 10], np.int32))
                    output = model(kind)(ms.Tensor(sample), now, classes)
                else:
                    output = model(kind)(ms.Tensor(sample), now, ms.Tensor(harness.make_input("context", (2, 5, 8))))
            outputs.append(output.sample.asnumpy())
    model(kind)._reset_stateful_cache()
    return outputs


CACHES = {
    "first block": ("dit", md.FirstBlockCacheConfig(1.0), 3),
    "tea": ("dit", md.TeaCacheConfig(0.3, num_inference_steps=len(TIMESTEPS)), 3),
    "mag": ("dit", md.MagCacheConfig(num_inference_steps=len(TIMESTEPS), mag_ratios=[1.0] * 7), 2),
    "pyramid": ("dit", md.PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=3, **NOW), 2),
    "taylor": (
        "dit", md.TaylorSeerCacheConfig(3, 2, max_order=2, taylor_factors_dtype=ms.float32, cache_identifiers=[r".*\.attn1"]), 2
    ),
    "taylor, zeros": (
        "dit",
        md.TaylorSeerCacheConfig(
            3, 2, taylor_factors_dtype=None, cache_identifiers=["proj_out_2"], skip_predict_identifiers=[r"transformer_blocks\.\d+"]
        ),
        2,
    ),
    "faster": ("dit", md.FasterCacheConfig(**NOW), 3),
    "deep": ("unet", md.DeepCacheConfig(3), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
def test_graph_mode(name: str) -> None:
    kind, config, graphs = CACHES[name]
    plain = run(kind)
    model(kind).enable_cache(config)
    try:
        assert model(kind).is_cache_enabled
        eager = run(kind)
        assert all(np.array_equal(*pair) for pair in zip(eager, run(kind))), "a drawing depends on the one before"
        different = [not np.array_equal(*pair) for pair in zip(eager, plain)]
        assert not different[0] and any(different)

        model(kind).enable_graph_mode()
        before = graph.compilations()
        for _ in range(2):
            for compiled, expected in zip(run(kind), eager):
                assert harness.relative_error(compiled, expected) <= 1e-5
        assert graph.compilations() - before == graphs
    finally:
        model(kind).disable_graph_mode()
        model(kind).disable_cache()
    assert not model(kind).is_cache_enabled
    assert all(np.array_equal(*pair) for pair in zip(plain, run(kind)))


READS = {"first block": len(TIMESTEPS) - 1, "tea": len(TIMESTEPS) - 2}


@pytest.mark.parametrize("name", CACHES)
def test_what_is_read_from_the_device(name: str, monkeypatch) -> None:
    """One number at each step but the first (and TeaCache's last) where the decision depends on the data, else nothing."""
    kind, config, _ = CACHES[name]
    arguments = (
        [ms.Tensor(np.array([3, 10], np.int32))] if kind == "dit" else [ms.Tensor(harness.make_input("context", (2, 5, 8)))]
    )  # fmt: skip
    sample, reads = ms.Tensor(harness.make_input("cond", (2, 4, 8, 8))), ms_side.count_host_reads(monkeypatch)
    model(kind).enable_cache(config)
    try:
        global now
        for now in TIMESTEPS:
            with model(kind).cache_context("cond"):
                model(kind)(sample, now, *arguments)
    finally:
        model(kind).disable_cache()
    assert len(reads) == READS.get(name, 0)


def test_two_predictions_have_a_cache_each() -> None:
    model("dit").enable_cache(md.FirstBlockCacheConfig(1.0))
    try:
        together, alone = run("dit", ("cond", "uncond")), run("dit", ("cond",))
    finally:
        model("dit").disable_cache()
    assert all(np.array_equal(*pair) for pair in zip(together[::2], alone))


def test_other_sizes_and_dtypes_have_their_own_states() -> None:
    cache = md.PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, cross_attention_block_skip_range=3, **NOW)
    model("unet").enable_cache(cache)
    try:
        first, other, again = run("unet"), run("unet", size=16), run("unet")
    finally:
        model("unet").disable_cache()
    assert all(np.array_equal(*pair) for pair in zip(first, again)) and other[1].shape == (2, 4, 16, 16)


def test_the_model_is_itself_between_steps() -> None:
    names = list(model("dit").state_dict())
    model("dit").enable_cache(CACHES["pyramid"][1])
    try:
        run("dit")
        assert list(model("dit").state_dict()) == names
        assert not any(name.startswith("step_") for _, cell in model("dit").cells_and_names() for name in vars(cell))
    finally:
        model("dit").disable_cache()
    assert not model("dit")._other_variants


def test_deep_cache_at_every_step_is_none() -> None:
    plain = run("unet")
    model("unet").enable_cache(md.DeepCacheConfig(1))
    try:
        assert all(np.array_equal(*pair) for pair in zip(plain, run("unet")))
    finally:
        model("unet").disable_cache()


def test_errors() -> None:
    dit = model("dit")
    cases = [
        (lambda: md.MagCacheConfig(), "MagCache needs mag_ratios"),
        (lambda: dit.enable_cache(md.PyramidAttentionBroadcastConfig(2)), "current_timestep_callback is needed"),
        (lambda: dit.enable_cache(md.FasterCacheConfig()), "current_timestep_callback is needed"),
        (lambda: dit.enable_cache(md.FasterCacheConfig(tensor_format="BSC", **NOW)), "tensor_format is 'BSC'; expected one of"),
        (lambda: dit.enable_cache(md.DeepCacheConfig()), "DeepCache is for UNet2DConditionModel; got DiTTransformer2DModel"),
        (lambda: model("unet").enable_cache(md.FirstBlockCacheConfig()), "First Block Cache is for models that are a sequence of blocks"),
        (lambda: model("unet").enable_cache(md.DeepCacheConfig(3, 1)), "cache_branch_id is 1, expected 0 to 0"),
        (lambda: dit.enable_cache({"threshold": 1}), "Cache config <class 'dict'> is not supported"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
        assert not dit.is_cache_enabled
    one = md.DiTTransformer2DModel(1, 8, num_layers=1, sample_size=8)
    with pytest.raises(ValueError, match="needs at least 2 blocks; this DiTTransformer2DModel has 1"):
        md.apply_first_block_cache(one, md.FirstBlockCacheConfig())

    inputs = ms.Tensor(harness.make_input("cond", (2, 4, 8, 8))), 5, ms.Tensor(np.array([3, 10], np.int32))
    for config, message in (
        (md.FirstBlockCacheConfig(), "No cache context is set"),
        (md.TaylorSeerCacheConfig(disable_cache_before_step=0), "disable_cache_before_step has to be 1 or more"),
    ):
        dit.enable_cache(config)
        try:
            with pytest.raises(ValueError, match="A .*Config is enabled already: call disable_cache"):
                dit.enable_cache(config)
            with pytest.raises(ValueError, match=message):
                if isinstance(config, md.TaylorSeerCacheConfig):
                    with dit.cache_context("cond"):
                        dit(*inputs)
                else:
                    dit(*inputs)
        finally:
            dit.disable_cache()
