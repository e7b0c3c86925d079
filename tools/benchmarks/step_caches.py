"""What step caches save, and what they change.

    python tools/benchmarks/step_caches.py pictures [--prompts 40] [--steps 25] [--guidance-scale 2.5] [--graph]
    python tools/benchmarks/step_caches.py unet [--side 64] [--steps 12] [--runs 1] [--eager]

`pictures` draws with the model that comes with the package, with each cache and without: the peak signal-to-noise ratio against those
without, how many have the colour and the shape that was asked for, and the seconds. `unet` times the steps of a UNet of SD 1.5's size
(3.4 GB) with seeded random weights, whose outputs mean nothing.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from mindspore import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "benchmarks"), str(ROOT / "tools" / "bundled_model")]

from common import SD15_UNET, save_seeded  # noqa: E402
from evaluate import scenes, score  # noqa: E402

import mindone_diffusers as md  # noqa: E402
from mindone_diffusers.models.cache_utils import CacheConfig  # noqa: E402


def caches(current_timestep) -> dict[str, CacheConfig | None]:
    """Settings for a UNet, by what the table calls them."""
    now = {"current_timestep_callback": current_timestep}
    everywhere = (-1, 1001)
    return {
        "none": None,
        "DeepCache, 2": md.DeepCacheConfig(2),
        "DeepCache, 3": md.DeepCacheConfig(3),
        "DeepCache, 5": md.DeepCacheConfig(5),
        "PAB, cross 2": md.PyramidAttentionBroadcastConfig(
            cross_attention_block_skip_range=2, cross_attention_timestep_skip_range=everywhere, **now
        ),
        "PAB, spatial 2, cross 3": md.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, cross_attention_block_skip_range=3, spatial_attention_timestep_skip_range=everywhere,
            cross_attention_timestep_skip_range=everywhere, **now,
        ),
        "FasterCache": md.FasterCacheConfig(tensor_format="BCHW", **now),
        "TaylorSeer, attentions, 3": md.TaylorSeerCacheConfig(
            3, 3, taylor_factors_dtype=None, cache_identifiers=[r".*transformer_blocks\.\d+\.attn\d"]
        ),
    }  # fmt: skip


def pictures(prompts: int, steps: int, guidance_scale: float, graph: bool) -> None:
    asked = scenes(prompts, 1234)
    pipe = md.StableDiffusionPipeline.from_pretrained(md.bundled.path(), safety_checker=None)
    latents = np.random.default_rng(1234).standard_normal((prompts, *latent_shape(pipe.unet))).astype(np.float32)
    pipe.set_progress_bar_config(disable=True)
    if graph:
        pipe.enable_graph_mode()
    print(f"{prompts} prompts, {steps} steps, guidance {guidance_scale:g}")
    print(f"{'cache':28s} {'PSNR':>6s} {'colour':>7s} {'shape':>7s} {'seconds':>8s}")
    plain = None
    for name, config in caches(lambda: pipe.current_timestep).items():
        if config is not None:
            pipe.unet.enable_cache(config)
        for _ in (False, True) if graph else (True,):  # compile first
            start, drawn = time.perf_counter(), []
            for part in range(0, prompts, 10):
                with pipe.unet.cache_context("cond_uncond"):
                    drawn += pipe(
                        [scene.caption for scene in asked[part : part + 10]], num_inference_steps=steps, guidance_scale=guidance_scale,
                        latents=Tensor(latents[part : part + 10]),
                    ).images  # fmt: skip
        seconds = time.perf_counter() - start
        if config is not None:
            pipe.unet.disable_cache()
        arrays = np.stack([np.asarray(image, np.float32) for image in drawn]) / 255
        plain = arrays if plain is None else plain
        error = np.square(arrays - plain).mean()
        ratio = "exact" if error == 0 else f"{-10 * np.log10(error):.1f}"
        right = score(asked, drawn)
        print(f"{name:28s} {ratio:>6s} {right['color']:7.0%} {right['shape']:7.0%} {seconds:8.1f}", flush=True)


def latent_shape(unet: md.UNet2DConditionModel) -> tuple[int, int, int]:
    return unet.config.in_channels, unet.config.sample_size, unet.config.sample_size


def unet(folder: Path, side: int, steps: int, runs: int, eager: bool) -> None:
    path = save_seeded(md.UNet2DConditionModel, SD15_UNET, folder / "unet")
    model = md.UNet2DConditionModel.from_pretrained(path)
    if not eager:
        model.enable_graph_mode()
    rng = np.random.default_rng(0)
    sample, text = (Tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((2, 4, side, side), (2, 77, 768)))
    timesteps, now = np.linspace(999, 0, steps).round().astype(int).tolist(), [0]
    print(f"UNet of SD 1.5's size, batch 2, {side}x{side} latents, {steps} steps, {'eager' if eager else 'graph mode'}")
    print(f"{'cache':28s} {'s a drawing':>12s} {'s a step':>9s}")
    for name, config in caches(lambda: now[0]).items():
        if config is not None:
            model.enable_cache(config)
        best = np.inf
        for run in range(runs + 1):  # the first compiles
            start = time.perf_counter()
            for now[0] in timesteps:
                with model.cache_context("cond_uncond"):
                    output = model(sample, now[0], text, return_dict=False)[0]
            output.asnumpy()
            model._reset_stateful_cache()
            best = min(best, time.perf_counter() - start if run else np.inf)
        if config is not None:
            model.disable_cache()
        print(f"{name:28s} {best:12.1f} {best / steps:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("pictures", "unet"))
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance-scale", type=float, default=2.5)
    parser.add_argument("--graph", action="store_true", help="pictures in graph mode (the UNet is in any case)")
    parser.add_argument("--eager", action="store_true", help="the UNet without graph mode")
    parser.add_argument("--side", type=int, default=64, help="of the UNet's latents")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps the UNet for the next run")
    arguments = parser.parse_args()
    if arguments.what == "pictures":
        pictures(arguments.prompts, arguments.steps or 25, arguments.guidance_scale, arguments.graph)
        return
    with tempfile.TemporaryDirectory() as temporary:
        unet(arguments.folder or Path(temporary), arguments.side, arguments.steps or 12, arguments.runs, arguments.eager)


if __name__ == "__main__":
    main()
