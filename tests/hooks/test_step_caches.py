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
    "taylor, lite": (
        "dit", md.TaylorSeerCacheConfig(3, 2, taylor_factors_dtype=None, skip_predict_identifiers=[r"transformer_blocks\.\d+"], cache_identifiers=["proj_out_2"]), 2
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
