"""Stable Diffusion 1.5 at full size (seeded random weights, float32, CPU): ours and PyTorch side by side in one run.

    python tools/benchmarks/text_to_image.py [import load unet vae tiny pipeline] [--runs 3] [--folder DIR]

Prints seconds and ratios to PyTorch eager. `--folder` keeps the seeded checkpoints (4 GB) for the next run.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from common import SD15_UNET, SD15_VAE, alternate, report, save_seeded  # noqa: E402

BENCHMARKS = ("import", "load", "unet", "vae", "tiny", "pipeline")


def compare(title: str, ours, theirs, runs: int) -> None:
    """Time two functions of no arguments that return NumPy arrays, and print how far apart their results are."""
    seconds = alternate(runs, ours=ours, torch=theirs)
    report(title, seconds)
    expected = theirs()
    print(f"  largest difference {np.abs(ours() - expected).max() / np.abs(expected).max():.1e} of the output's scale")


def unet(folder: Path, runs: int) -> None:
    import diffusers
    import mindspore as ms
    import torch

    import mindone_diffusers as md

    path = save_seeded(md.UNet2DConditionModel, SD15_UNET, folder / "unet")
    rng = np.random.default_rng(0)
    sample, text = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 64, 64), (2, 77, 768)))
    model = md.UNet2DConditionModel.from_pretrained(path).enable_graph_mode()
    ms_inputs = ms.Tensor(sample), 500, ms.Tensor(text)
    start = time.perf_counter()
    model(*ms_inputs)[0].asnumpy()
    print(f"UNet: first call, compilation included: {time.perf_counter() - start:.1f} s")
    reference = diffusers.UNet2DConditionModel.from_pretrained(path)
    torch_inputs = torch.from_numpy(sample), 500, torch.from_numpy(text)
    compare(
        "UNet step, SD1.5, batch 2, 64x64 latents, graph mode against PyTorch eager",
        lambda: model(*ms_inputs)[0].asnumpy(), lambda: reference(*torch_inputs)[0].numpy(), runs,
    )  # fmt: skip


def decode(title: str, ours, reference, channels: int, runs: int) -> None:
    import mindspore as ms
    import torch

    latents = np.random.default_rng(0).standard_normal((1, channels, 64, 64)).astype(np.float32)
    ours.enable_graph_mode()
    ms_latents, torch_latents = ms.Tensor(latents), torch.from_numpy(latents)
    compare(title, lambda: ours.decode(ms_latents)[0].asnumpy(), lambda: reference.decode(torch_latents)[0].numpy(), runs)


def vae(folder: Path, runs: int) -> None:
    import diffusers

    import mindone_diffusers as md

    path = save_seeded(md.AutoencoderKL, SD15_VAE, folder / "vae")
    decode(
        "AutoencoderKL decode to 512x512, graph mode against PyTorch eager",
        md.AutoencoderKL.from_pretrained(path), diffusers.AutoencoderKL.from_pretrained(path), 4, runs,
    )  # fmt: skip


def tiny(folder: Path, runs: int) -> None:
    import diffusers

    import mindone_diffusers as md

    path = save_seeded(md.AutoencoderTiny, {}, folder / "tiny")
    decode(
        "AutoencoderTiny decode to 512x512, graph mode against PyTorch eager",
        md.AutoencoderTiny.from_pretrained(path), diffusers.AutoencoderTiny.from_pretrained(path), 4, runs,
    )  # fmt: skip


TINY = "block_out_channels=(32,), down_block_types=('DownBlock2D',), up_block_types=('UpBlock2D',)"
LOAD = """
import sys, time, psutil
sys.path.insert(0, {root!r})
{imports}
{warm}
process = psutil.Process(); before = process.memory_info().rss; start = time.perf_counter()
model = {cls}.from_pretrained({path!r})
loaded = time.perf_counter() - start
{touch}
print(loaded, time.perf_counter() - start, process.memory_info().rss - before)
"""


def load(folder: Path, runs: int) -> None:
    import mindone_diffusers as md

    path = save_seeded(md.UNet2DConditionModel, SD15_UNET, folder / "unet")
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    root = str(Path(__file__).resolve().parents[2])
    sides = {
        "ours": {
            "imports": "import mindspore, mindone_diffusers as md", "cls": "md.UNet2DConditionModel",
            "warm": f"md.UNet2DConditionModel({TINY})",
            "touch": "for p in model.parameters(): p.asnumpy().sum()",
        },
        "torch": {
            "imports": "import torch, diffusers", "cls": "diffusers.UNet2DConditionModel",
            "warm": f"diffusers.UNet2DConditionModel({TINY})",
            "touch": "for p in model.parameters(): p.detach().numpy().sum()",
        },
    }  # fmt: skip
    print(f"Loading the SD1.5 UNet, a file of {size / 1e9:.2f} GB")
    for _ in range(runs):
        for name, side in sides.items():
            output = subprocess.run(
                [sys.executable, "-c", LOAD.format(root=root, path=str(path), **side)], capture_output=True, text=True, check=True
            ).stdout
            seconds, touched, added = map(float, output.split()[-3:])
            print(
                f"  {name:12s} from_pretrained {seconds:6.2f} s   with one pass over the weights {touched:6.2f} s   "
                f"memory added {added / size:4.2f} of the file",
                flush=True,
            )


def import_time(folder: Path, runs: int) -> None:
    print("Import (a process each)")
    root = str(Path(__file__).resolve().parents[2])
    for statement in ("import mindspore", "import mindone_diffusers", "import diffusers"):
        code = f"import sys, time; sys.path.insert(0, {root!r}); t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        seconds = [
            float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1])
            for _ in range(max(3, runs))
        ]
        print(f"  {statement:28s} best {min(seconds):6.3f} s   median {np.median(seconds):6.3f} s", flush=True)


PIPELINE = """
import resource, sys, time
import numpy as np
sys.path.insert(0, {root!r})
{imports}
start = time.perf_counter()
pipe = {load}
pipe.set_progress_bar_config(disable=True)
loaded = time.perf_counter() - start
latents = np.random.default_rng(0).standard_normal((1, 4, 64, 64)).astype(np.float32)
image = pipe("a lighthouse at dusk", num_inference_steps=3, latents={tensor}(latents), output_type="np").images
np.save({output!r}, image)
print(loaded, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def pipeline(folder: Path, runs: int) -> None:
    """A whole picture of 512x512, 3 steps with guidance; each side in a process of its own."""
    import mindone_diffusers as md
    from tests.tiny_checkpoint import make_tokenizer

    path = folder / "pipeline"
    if not path.exists():
        save_seeded(md.UNet2DConditionModel, SD15_UNET, folder / "unet")
        save_seeded(md.AutoencoderKL, SD15_VAE, folder / "vae")
        text_encoder = md.CLIPTextModel(hidden_size=768, intermediate_size=3072, num_attention_heads=12, bos_token_id=512, eos_token_id=513)
        text_encoder.fill_parameters(0)
        scheduler = md.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1)
        md.StableDiffusionPipeline(
            md.AutoencoderKL.from_pretrained(folder / "vae"), text_encoder, make_tokenizer(folder / "tokenizer"),
            md.UNet2DConditionModel.from_pretrained(folder / "unet"), scheduler, None, None, requires_safety_checker=False,
        ).save_pretrained(path)  # fmt: skip
    print("StableDiffusionPipeline, SD1.5 size, one 512x512 picture, 3 PNDM steps (4 UNet calls) with guidance, a process each")
    root, images = str(Path(__file__).resolve().parents[2]), {}
    load = f"StableDiffusionPipeline.from_pretrained({str(path)!r}, safety_checker=None, requires_safety_checker=False)"
    sides = {
        "ours, graph": ("import mindspore as ms, mindone_diffusers as md", f"md.{load}.enable_graph_mode()", "ms.Tensor"),
        "ours, eager": ("import mindspore as ms, mindone_diffusers as md", f"md.{load}", "ms.Tensor"),
        "torch": ("import torch, diffusers", f"diffusers.{load}", "torch.from_numpy"),
    }
    for name, (imports, loading, tensor) in sides.items():
        output = str(folder / f"{name}.npy")
        code = PIPELINE.format(root=root, imports=imports, load=loading, tensor=tensor, output=output)
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        loaded, total, peak = map(float, printed.split()[-3:])
        images[name] = np.load(output)
        difference = f"{np.abs(images[name] - images['ours, graph']).max():.1e}"
        print(
            f"  {name:12s} load {loaded:6.2f} s   all {total:7.2f} s (compilation included)   peak memory {peak:5.2f} GiB   "
            f"largest difference from ours {difference}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("benchmarks", nargs="*", help=f"which of {', '.join(BENCHMARKS)} (all by default)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the seeded checkpoints are kept; a temporary folder by default")
    arguments = parser.parse_args()
    chosen = arguments.benchmarks or BENCHMARKS
    unknown = set(chosen) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown benchmarks {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}")

    functions = {"import": import_time, "load": load, "unet": unet, "vae": vae, "tiny": tiny, "pipeline": pipeline}
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen:
            if name in ("unet", "vae", "tiny"):
                import torch

                torch.set_grad_enabled(False)
            functions[name](arguments.folder or Path(temporary), arguments.runs)


if __name__ == "__main__":
    main()
