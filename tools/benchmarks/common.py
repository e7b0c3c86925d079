"""What the benchmarks share: models of full size with seeded random weights, and timing side by side."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SD15_UNET = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "cross_attention_dim": 768, "attention_head_dim": 8,
}  # fmt: skip
SDXL_UNET = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SD15_VAE = {
    "sample_size": 512, "latent_channels": 4, "layers_per_block": 2, "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


def save_seeded(cls: type, config: dict, folder: Path, seed: int = 0) -> Path:
    """Write a model with seeded random weights, once; both sides load this folder."""
    if not (folder / "config.json").exists():
        model = cls(**config)
        model.fill_parameters(seed)
        model.save_pretrained(folder)
    return folder


def alternate(runs: int, clock: Callable[[], float] = time.perf_counter, /, **functions: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds each function takes, by a clock, run in turn so that a busy moment of the machine hits all of them. The first, unmeasured
    run of each compiles and warms up."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]], baseline: str = "torch") -> None:
    """Print each side's best and median time, and the ratio of the medians to the baseline's."""
    reference = float(np.median(seconds[baseline]))
    print(title)
    for name, values in seconds.items():
        median = float(np.median(values))
        print(f"  {name:12s} best {min(values):8.3f} s   median {median:8.3f} s   ratio {median / reference:5.2f}", flush=True)
