"""How long a newcomer waits: one picture of the bundled model from the shell, import, loading and drawing included.

    python tools/benchmarks/first_picture.py [--repeats 5] [--steps 25]

Each row is a process of its own, `mindone-diffusers generate` with other options, by turns; the first run of each is not counted (it
compiles the CPU's kernels and fills the disk's cache). The last column is what the command itself says the drawing took. Then, in this
process, the bundled model's two decoders alone.
"""

import argparse
import functools
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from common import alternate  # noqa: E402

PROMPT = "a large red circle on a blue background"
OPTIONS = {"AutoencoderKL": [], "tiny decoder": ["--tiny-decoder"], "graph mode": ["--graph"], "one step": ["--steps", "1"]}


def generate(options: list[str], steps: int, folder: str, drawing: list[float]) -> None:
    command = [sys.executable, "-m", "mindone_diffusers", "generate", PROMPT, "--seed", "0", "--steps", str(steps), *options]
    done = subprocess.run([*command, "--output", f"{folder}/picture.png"], capture_output=True, text=True, check=True)
    drawing.append(float(re.search(r" steps?, ([\d.]+) s", done.stdout).group(1)))


def decoders(repeats: int) -> None:
    import mindspore as ms
    import numpy as np

    from mindone_diffusers import AutoencoderKL, AutoencoderTiny, bundled

    latents = ms.Tensor(np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32))
    models = {
        "AutoencoderKL": AutoencoderKL.from_pretrained(bundled.path(), subfolder="vae"),
        "tiny decoder": AutoencoderTiny.from_pretrained(bundled.path(), subfolder="vae_tiny"),
    }
    seconds = alternate(repeats, **{name: lambda model=model: model.decode(latents).sample.asnumpy() for name, model in models.items()})
    large, tiny = (1e3 * statistics.median(seconds[name]) for name in models)
    print(f"decoding alone: AutoencoderKL {large:.1f} ms, tiny decoder {tiny:.1f} ms: {large / tiny:.1f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    arguments = parser.parse_args()
    print(f"{'seconds':16s} {'from the shell':>14s} {'drawing':>8s}")
    drawing = {name: [] for name in OPTIONS}
    with tempfile.TemporaryDirectory() as folder:
        draw = functools.partial(generate, steps=arguments.steps, folder=folder)
        seconds = alternate(arguments.repeats, **{n: functools.partial(draw, o, drawing=drawing[n]) for n, o in OPTIONS.items()})
    for name in OPTIONS:
        print(f"{name:16s} {statistics.median(seconds[name]):14.2f} {statistics.median(drawing[name][1:]):8.2f}", flush=True)
    decoders(20)


if __name__ == "__main__":
    main()
