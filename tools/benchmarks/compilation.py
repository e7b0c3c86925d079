"""How long the first call in graph mode takes: with nothing shared and kept, with blocks that share, with the graph found on disk, and with
nothing but the repeated blocks compiled (nothing on disk).

    python tools/benchmarks/compilation.py [--full-size]

Each figure is a process of its own. The models have the numbers of blocks of SD 1.5 and SDXL and few channels, because what is compiled
does not depend on the weights' sizes; `--full-size` takes SD 1.5's UNet as it is (3.4 GB).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mindone_diffusers.backend import native  # noqa: E402

MODELS = {
    "UNet, SD 1.5's blocks": "md.UNet2DConditionModel(block_out_channels=(32, 64, 96, 96), cross_attention_dim=32, norm_num_groups=8)",
    "UNet, SDXL's blocks": """md.UNet2DConditionModel(block_out_channels=(32, 64, 96), cross_attention_dim=32, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), transformer_layers_per_block=(1, 2, 10),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True)""",
    "AutoencoderKL, decoding": """md.AutoencoderKL(block_out_channels=(32, 32, 64, 64), layers_per_block=2, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)""",
    "CLIP text encoder, 12 layers": "md.CLIPTextModel(hidden_size=32, intermediate_size=64, num_attention_heads=4, vocab_size=100)",
    "DiT, 57 blocks": "md.DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=16, num_layers=57, num_embeds_ada_norm=10)",
}
FULL_SIZE = {"UNet, SD 1.5 at full size": "md.UNet2DConditionModel(cross_attention_dim=768)"}
CALLS = {
    "UNet2DConditionModel": "model(draw(2, 4, side, side), 5, draw(2, 77, model.config.cross_attention_dim)).sample",
    "DiTTransformer2DModel": "model(draw(2, 4, side, side), 5, ms.Tensor(np.array([1, 2], np.int32))).sample",
    "AutoencoderKL": "model.decode(draw(1, 4, 8, 8)).sample",
    "CLIPTextModel": "model(ms.Tensor(rng.integers(0, 100, (2, 77)).astype(np.int32))).last_hidden_state",
}
PROCESS = """
import contextlib, sys, time
import mindspore as ms, numpy as np
import mindone_diffusers as md
from mindone_diffusers.backend import compile_cache

if {alone}:
    compile_cache.shared_blocks = lambda *_: contextlib.nullcontext()
rng = np.random.default_rng(0)
side = {side}
draw = lambda *shape: ms.Tensor(rng.standard_normal(shape).astype(np.float32))
model = {model}
model.fill_parameters(0)
model.eval().{mode}()
start = time.perf_counter()
{call}.asnumpy()
print(time.perf_counter() - start)
"""


def first_call(model: str, folder: str, side: int, mode: str = "enable_graph_mode", alone: bool = False, kept: bool = True) -> float:
    """Seconds, in a process of its own."""
    code = PROCESS.format(model=model, call=CALLS[model.split("(")[0].removeprefix("md.")], mode=mode, alone=alone, side=side)
    Path(folder, "mindone_diffusers").mkdir(mode=0o700, exist_ok=True)
    for library in native.cache_folder().glob("kernels-*.so"):  # not compiled again
        target = Path(folder, "mindone_diffusers", library.name)
        if not target.exists():
            target.symlink_to(library)
    variables = {"XDG_CACHE_HOME": folder, "PYTHONPATH": str(ROOT), "MINDONE_DIFFUSERS_COMPILE_CACHE": str(int(kept))}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full-size", action="store_true")
    arguments = parser.parse_args()
    print(f"{'seconds':30s} {'each block alone':>17s} {'blocks that share':>18s} {'found on disk':>14s} {'repeated blocks':>16s}")
    for name, model in (FULL_SIZE if arguments.full_size else MODELS).items():
        side = 64 if arguments.full_size else 16
        with tempfile.TemporaryDirectory() as folder:
            alone = first_call(model, folder, side, alone=True, kept=False)
            shared, found = (first_call(model, folder, side) for _ in range(2))
        with tempfile.TemporaryDirectory() as folder:
            blocks = first_call(model, folder, side, mode="compile_repeated_blocks")
        print(f"{name:30s} {alone:17.1f} {shared:18.1f} {found:14.2f} {blocks:16.1f}", flush=True)


if __name__ == "__main__":
    main()
