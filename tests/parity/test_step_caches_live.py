"""Step caches beside PyTorch diffusers': the same steps are left out, and the outputs of all steps agree."""

import functools
from collections.abc import Sequence

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from tests import harness, ms_side

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers.hooks.hooks import CacheContext, HookRegistry, _set_cache_context  # noqa: E402

from tests import torch_side  # noqa: E402

DIT = {
    "class": "DiTTransformer2DModel",
    "config": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 4, "sample_size": 8, "num_embeds_ada_norm": 10},
}
UNET = {
    "class": "UNet2DConditionModel",
    "config": {
        "sample_size": 8, "block_out_channels": (8, 16, 16), "layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"), "norm_num_groups": 4,
    },
}  # fmt: skip
TIMESTEPS = [980 - 110 * step for step in range(9)]
ATTENTIONS = [r"transformer_blocks\.\d+\.attn1"]


@functools.cache
def model(kind: str, framework: str):
    case = DIT if kind == "dit" else UNET
    return (torch_side if framework == "torch" else ms_side).build(case)


def inputs(kind: str, step: int, context: str | None, size: float) -> dict[str, np.ndarray]:
    """A step's: the samples change the more the larger `size` is."""
    sample = harness.make_input(f"sample {context}", (2, 4, 8, 8)) + size * step * harness.make_input(f"change {context}", (2, 4, 8, 8))
    if kind == "dit":
        return {"hidden_states": sample, "class_labels": np.array([3, 10], np.int32)}
    return {"sample": sample, "encoder_hidden_states": harness.make_input(f"context {context}", (2, 5, 8))}


def their_steps(kind: str, contexts: Sequence[str | None], size: float, now: list[int]) -> list[np.ndarray]:
    theirs, outputs = model(kind, "torch"), []
    for step, timestep in enumerate(TIMESTEPS):
        for context in contexts:
            now[0] = timestep
            values = {name: torch.from_numpy(value) for name, value in inputs(kind, step, context, size).items()}
            _set_cache_context(theirs, None if context is None else CacheContext(context))
            with torch.no_grad():
                outputs.append(theirs(timestep=torch.tensor([timestep] * 2), return_dict=False, **values)[0].numpy())
    _set_cache_context(theirs, None)
    return outputs


def our_steps(kind: str, contexts: Sequence[str | None], size: float, now: list[int], count: int | None = None) -> list[np.ndarray]:
    mine, outputs = model(kind, "mindspore"), []
    for step, timestep in enumerate(TIMESTEPS[:count]):
        for context in contexts:
            now[0] = timestep
            mine.active_cache_context = context
            values = {name: ms.Tensor(value) for name, value in inputs(kind, step, context, size).items()}
            outputs.append(mine(timestep=timestep, return_dict=False, **values)[0].asnumpy())
    mine.active_cache_context = None
    return outputs


def compare(
    kind: str, name: str, config: dict, contexts: Sequence[str | None] = (None,), size: float = 0.02, tolerance: float = 1e-4,
    seen_by: str = "transformer_blocks.2.attn1", their_config: dict | None = None,
) -> int:  # fmt: skip
    """The same steps with a cache, of PyTorch diffusers' and, twice, of ours; and without one before and afterwards.

    Returns:
        How often theirs ran the module named `seen_by`.
    """
    theirs, mine, now = model(kind, "torch"), model(kind, "mindspore"), [0]
    timed = {"current_timestep_callback": lambda: now[0]} if name in ("pyramid_attention_broadcast", "faster_cache") else {}
    plain = our_steps(kind, contexts, size, now, 2)
    classes = {
        "first_block_cache": "FirstBlockCacheConfig", "mag_cache": "MagCacheConfig", "taylorseer_cache": "TaylorSeerCacheConfig",
        "pyramid_attention_broadcast": "PyramidAttentionBroadcastConfig", "faster_cache": "FasterCacheConfig",
    }  # fmt: skip
    upstream = getattr(diffusers, classes[name])(**config, **(their_config or {}), **timed)
    getattr(diffusers, f"apply_{name}")(theirs, upstream)
    HookRegistry.check_if_exists_or_initialize(theirs).invalidate_child_registries_cache()
    getattr(ours, f"apply_{name}")(mine, getattr(ours, classes[name])(**config, **timed))
    calls = []
    hook = dict(theirs.named_modules())[seen_by].register_forward_hook(lambda *_: calls.append(1))
    try:
        wanted = their_steps(kind, contexts, size, now)
        for _ in range(2):
            for expected, actual in zip(wanted, our_steps(kind, contexts, size, now)):
                assert harness.relative_error(actual, expected) <= tolerance
            mine._reset_stateful_cache()
    finally:
        mine.disable_cache()
        hook.remove()
        registries = [theirs._diffusers_hook, *theirs._diffusers_hook._get_child_registries()]
        for registry in registries:
            for hook_name in list(registry.hooks):
                registry.remove_hook(hook_name, recurse=False)
        theirs._diffusers_hook.invalidate_child_registries_cache()
    assert not mine.is_cache_enabled
    for expected, actual in zip(plain, our_steps(kind, contexts, size, now, 2)):
        assert np.array_equal(actual, expected)
    return len(calls)


STEPS = len(TIMESTEPS)


@pytest.mark.parametrize(("threshold", "computed"), [(0.0, STEPS), (0.65, None), (1.2, None), (9.0, 1)])
def test_first_block_cache(threshold, computed):
    for contexts in (("cond",), ("cond", "uncond")):
        count = compare("dit", "first_block_cache", {"threshold": threshold}, contexts)
        assert count == computed * len(contexts) if computed else len(contexts) < count < STEPS * len(contexts)


RATIOS = [1.0, 1.1, 1.04, 1.01, 1.0, 0.98, 0.97, 0.95, 0.9]


@pytest.mark.parametrize(
    "config",
    [
        {"mag_ratios": RATIOS},
        {"mag_ratios": RATIOS, "threshold": 0.2, "retention_ratio": 0.05},
        {"mag_ratios": RATIOS, "threshold": 0.5, "max_skip_steps": 1},
        {"mag_ratios": RATIOS[::2], "threshold": 0.3, "retention_ratio": 0.0},
        {"mag_ratios": RATIOS, "threshold": 0.2, "num_inference_steps": 6},
    ],
    ids=harness.case_id,
)
def test_mag_cache(config):
    for contexts in ((None,), ("cond", "uncond")):
        config = {"num_inference_steps": STEPS, **config}
        assert len(contexts) < compare("dit", "mag_cache", config, contexts) < STEPS * len(contexts)


def test_mag_cache_calibration(capsys):
    config = {"calibrate": True, "num_inference_steps": STEPS}
    assert compare("dit", "mag_cache", config) == STEPS
    printed = capsys.readouterr().out
    mine = [line for line in printed.splitlines() if line.startswith("MagCacheConfig")]
    theirs = [line for line in printed.splitlines() if line.startswith("[1.0")]
    assert (len(mine), len(theirs)) == (2, 1)
    np.testing.assert_allclose(eval(mine[0].split("=")[1].rstrip(")")), eval(theirs[0]), rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"cache_interval": 3, "max_order": 1},
        {"cache_interval": 4, "max_order": 2, "disable_cache_before_step": 4, "disable_cache_after_step": 8},
        {"cache_interval": 2, "max_order": 0, "disable_cache_before_step": 1},
    ],
    ids=harness.case_id,
)
def test_taylorseer(config):
    config = {"cache_identifiers": ATTENTIONS, **config}
    dtypes = {"taylor_factors_dtype": torch.float32}
    for contexts in (("cond",), ("cond", "uncond")):
        compare_taylor("dit", config, dtypes, contexts)


def compare_taylor(kind, config, their, contexts, tolerance=1e-4, **more):
    """The dtype of the factors is the framework's own."""
    upstream, mine = diffusers.TaylorSeerCacheConfig, ours.TaylorSeerCacheConfig
    try:
        diffusers.TaylorSeerCacheConfig = functools.partial(upstream, **their)
        ours.TaylorSeerCacheConfig = functools.partial(
            mine, taylor_factors_dtype={torch.float32: ms.float32, torch.bfloat16: ms.bfloat16}[their["taylor_factors_dtype"]]
        )
        return compare(kind, "taylorseer_cache", config, contexts, tolerance=tolerance, **more)
    finally:
        diffusers.TaylorSeerCacheConfig, ours.TaylorSeerCacheConfig = upstream, mine


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("dit", {"spatial_attention_block_skip_range": 2}),
        ("dit", {"spatial_attention_block_skip_range": 5, "spatial_attention_timestep_skip_range": (-1, 1000)}),
        ("dit", {}),
        ("unet", {"spatial_attention_block_skip_range": 2, "cross_attention_block_skip_range": 3}),
        ("unet", {"cross_attention_block_skip_range": 4, "cross_attention_timestep_skip_range": (200, 950)}),
    ],
    ids=harness.case_id,
)
def test_pyramid_attention_broadcast(kind, config):
    seen_by = "transformer_blocks.2.attn1" if kind == "dit" else "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    compare(kind, "pyramid_attention_broadcast", config, seen_by=seen_by)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("dit", {}),
        ("dit", {"spatial_attention_block_skip_range": 3, "unconditional_batch_skip_range": 4, "attention_weight_callback": lambda _: 0.3}),
        ("dit", {"unconditional_batch_timestep_skip_range": (-1, 901), "low_frequency_weight_callback": lambda _: 1.3}),
        ("dit", {"is_guidance_distilled": True, "spatial_attention_timestep_skip_range": (-1, 900)}),
        ("unet", {"unconditional_batch_skip_range": 3}),
    ],
    ids=harness.case_id,
)
def test_faster_cache(kind, config):
    names = ["hidden_states", "sample", "encoder_hidden_states", "class_labels", "timestep"]
    seen_by = "transformer_blocks.2.attn1" if kind == "dit" else "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    their = {"_unconditional_conditional_input_kwargs_identifiers": names}
    compare(kind, "faster_cache", {"tensor_format": "BCHW", **config}, seen_by=seen_by, their_config=their)


@pytest.mark.parametrize(("interval", "branch"), [(3, 0), (2, 1), (4, 1), (1, 0)])
def test_deep_cache(interval, branch):
    """Beside PyTorch's UNet, of which a hook replaces what a stage of the way up is given by that of an earlier step."""
    theirs, mine, now, given = model("unet", "torch"), model("unet", "mindspore"), [0], []

    def replace(module, args, kwargs):
        if len(given) % interval == 0:
            replace.kept = kwargs["hidden_states"]
        given.append(1)
        return args, kwargs | {"hidden_states": replace.kept}

    hook = theirs.up_blocks[len(theirs.up_blocks) - 1 - branch].register_forward_pre_hook(replace, with_kwargs=True)
    mine.enable_cache(ours.DeepCacheConfig(interval, branch))
    try:
        wanted = their_steps("unet", (None,), 0.02, now)
        for _ in range(2):
            for expected, actual in zip(wanted, our_steps("unet", (None,), 0.02, now)):
                assert harness.relative_error(actual, expected) <= 1e-4
            mine._reset_stateful_cache()
    finally:
        hook.remove()
        mine.disable_cache()


@pytest.mark.parametrize(
    "config", [{"threshold": 0.3}, {"threshold": 0.5, "coefficients": (0.5, 1.0, 0.0), "num_inference_steps": STEPS}], ids=harness.case_id
)
def test_tea_cache(config):
    """Beside PyTorch's blocks, run or left out as the paper has it."""
    theirs, mine, now = model("dit", "torch"), model("dit", "mindspore"), [0]
    blocks, (computed, state) = theirs.transformer_blocks, ([], {})
    estimate, last = np.poly1d(config.get("coefficients", (1.0, 0.0))), config.get("num_inference_steps")

    def run(tokens, timestep, class_labels, **_):
        modulated, *_ = blocks[0].norm1(tokens, timestep, class_labels)
        step = state["step"] = state.get("step", -1) + 1
        if step > 0:
            change = (modulated - state["input"]).abs().mean() / state["input"].abs().mean()
            state["change"] += float(estimate(float(change)))
        state["input"] = modulated
        if step == 0 or step + 1 == last or state["change"] >= config["threshold"]:
            computed.append(step)
            output, state["change"] = tokens, 0.0
            for forward in forwards:
                output = forward(output, timestep=timestep, class_labels=class_labels)
            state["added"] = output - tokens
        return tokens + state["added"]

    forwards = [block.forward for block in blocks]
    blocks[0].forward = run
    for block in blocks[1:]:
        block.forward = lambda tokens, **_: tokens
    mine.enable_cache(ours.TeaCacheConfig(**config))
    try:
        wanted = their_steps("dit", ("cond",), 0.02, now)
        assert 1 < len(computed) < STEPS
        for _ in range(2):
            for expected, actual in zip(wanted, our_steps("dit", ("cond",), 0.02, now)):
                assert harness.relative_error(actual, expected) <= 1e-4
            mine._reset_stateful_cache()
    finally:
        mine.disable_cache()
        for block in blocks:
            del block.forward
