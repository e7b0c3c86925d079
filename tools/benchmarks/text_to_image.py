"""Stable Diffusion 1.5 and XL at full size (seeded random weights, CPU): ours and PyTorch side by side in one run.

    python tools/benchmarks/text_to_image.py [import load unet sdxl vae tiny pipeline] [--dtype bfloat16] [--torch-compile] [--folder DIR]

Prints seconds and ratios to PyTorch eager. `--folder` keeps the seeded checkpoints (4 GB; with XL's UNet 14 GB) for the next run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mindspore as ms
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from common import SD15_UNET, SD15_VAE, SDXL_UNET, alternate, report, save_seeded  # noqa: E402

import mindone_diffusers as md  # noqa: E402

BENCHMARKS = ("import", "load", "unet", "sdxl", "vae", "tiny", "pipeline")


def printed(code: str) -> str:
    """What a process of its own prints. It gets the environment as Python knows it, without the OMP_NUM_THREADS=1 of `import mindspore`."""
    return subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True).stdout


def compare(title: str, ours, theirs, options: argparse.Namespace) -> None:
    """Time two functions of no arguments that return NumPy arrays, and print how far apart their results are.

    `theirs` takes whether it is compiled by `torch.compile`.
    """
    sides = {"ours": ours, "torch": lambda: theirs(False)}
    if options.torch_compile:
        start = time.perf_counter()
        theirs(True)
        print(f"torch.compile: first call {time.perf_counter() - start:.1f} s")
        sides["compiled"] = lambda: theirs(True)
    report(title, alternate(options.runs, **sides))
    expected = theirs(False)
    print(f"  largest difference {np.abs(ours() - expected).max() / np.abs(expected).max():.1e} of the output's scale")


def unet(folder: Path, options: argparse.Namespace) -> None:
    compare_unets("SD1.5", save_seeded(md.UNet2DConditionModel, SD15_UNET, folder / "unet"), options)


def sdxl(folder: Path, options: argparse.Namespace) -> None:
    """At 512x512, because the attention of 1024x1024 takes minutes."""
    compare_unets("SDXL", save_seeded(md.UNet2DConditionModel, SDXL_UNET, folder / "unet_xl"), options)


def compare_unets(name: str, path: Path, options: argparse.Namespace) -> None:
    import diffusers
    import torch

    model = md.UNet2DConditionModel.from_pretrained(path, dtype=options.dtype).enable_graph_mode()
    rng = np.random.default_rng(0)
    shapes = {"sample": (2, 4, 64, 64), "text": (2, 77, model.config.cross_attention_dim)}
    if model.config.addition_embed_type == "text_time":
        shapes |= {"text_embeds": (2, 1280), "time_ids": (2, 6)}
    arrays = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}

    def arguments(tensor):
        sample, text, *added = (tensor(array) for array in arrays.values())
        return (sample, 500, text), {"added_cond_kwargs": dict(zip(("text_embeds", "time_ids"), added)) if added else None}

    args, kwargs = arguments(lambda array: ms.Tensor(array, model.dtype))
    start = time.perf_counter()
    model(*args, **kwargs)[0].asnumpy()
    print(f"{name} UNet: first call, its compilation (or what is on disk of it) included: {time.perf_counter() - start:.1f} s")
    reference = diffusers.UNet2DConditionModel.from_pretrained(path, torch_dtype=getattr(torch, options.dtype))
    modules = {False: reference, True: torch.compile(reference)}
    torch_args, torch_kwargs = arguments(lambda array: torch.from_numpy(array).to(reference.dtype))
    compare(
        f"UNet step, {name}, {options.dtype}, batch 2, 64x64 latents, graph mode against PyTorch eager",
        lambda: model(*args, **kwargs)[0].asnumpy(),
        lambda compiled: modules[compiled](*torch_args, **torch_kwargs)[0].float().numpy(), options,
    )  # fmt: skip


def vae(folder: Path, options: argparse.Namespace) -> None:
    decode(md.AutoencoderKL, save_seeded(md.AutoencoderKL, SD15_VAE, folder / "vae"), options)


def tiny(folder: Path, options: argparse.Namespace) -> None:
    decode(md.AutoencoderTiny, save_seeded(md.AutoencoderTiny, {}, folder / "tiny"), options)


def decode(kind: type, path: Path, options: argparse.Namespace) -> None:
    import diffusers
    import torch

    ours = kind.from_pretrained(path, dtype=options.dtype).enable_graph_mode()
    reference = getattr(diffusers, kind.__name__).from_pretrained(path, torch_dtype=getattr(torch, options.dtype))
    latents = np.random.default_rng(0).standard_normal((1, 4, 64, 64)).astype(np.float32)
    ms_latents, torch_latents = ms.Tensor(latents, ours.dtype), torch.from_numpy(latents).to(reference.dtype)
    decoders = {False: reference.decode, True: torch.compile(reference.decode)}
    compare(
        f"{kind.__name__} decode to 512x512, {options.dtype}, graph mode against PyTorch eager",
        lambda: ours.decode(ms_latents)[0].asnumpy(), lambda compiled: decoders[compiled](torch_latents)[0].float().numpy(), options,
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


def load(folder: Path, options: argparse.Namespace) -> None:
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
    for _ in range(options.runs):
        for name, side in sides.items():
            seconds, touched, added = map(float, printed(LOAD.format(root=root, path=str(path), **side)).split()[-3:])
            print(
                f"  {name:12s} from_pretrained {seconds:6.2f} s   with one pass over the weights {touched:6.2f} s   "
                f"memory added {added / size:4.2f} of the file",
                flush=True,
            )


def import_time(folder: Path, options: argparse.Namespace) -> None:
    print("Import (a process each)")
    root = str(Path(__file__).resolve().parents[2])
    for statement in ("import mindspore", "import mindone_diffusers", "import diffusers"):
        code = f"import sys, time; sys.path.insert(0, {root!r}); t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        seconds = [float(printed(code).split()[-1]) for _ in range(max(3, options.runs))]
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
image = pipe("a lighthouse at dusk", num_inference_steps={steps}, latents={latents}, output_type="np").images
np.save({output!r}, image)
print(loaded, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def pipeline(folder: Path, options: argparse.Namespace) -> None:
    """A whole picture of 512x512 with guidance; each side in a process of its own."""
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
    print(f"StableDiffusionPipeline, SD1.5 size, {options.dtype}, one 512x512 picture, {options.steps} PNDM steps, a process each")
    root, images = str(Path(__file__).resolve().parents[2]), {}
    load = f"StableDiffusionPipeline.from_pretrained({str(path)!r}, safety_checker=None, requires_safety_checker=False, torch_dtype="
    ours, latents = f"md.{load}{options.dtype!r})", "ms.Tensor(latents, pipe.unet.dtype)"
    sides = {
        "ours, graph": ("import mindspore as ms, mindone_diffusers as md", f"{ours}.enable_graph_mode()", latents),
        "ours, eager": ("import mindspore as ms, mindone_diffusers as md", ours, latents),
        "torch": ("import torch, diffusers", f"diffusers.{load}torch.{options.dtype})", "torch.from_numpy(latents).to(pipe.unet.dtype)"),
    }
    for name, (imports, loading, given) in sides.items():
        output = str(folder / f"{name}.npy")
        code = PIPELINE.format(root=root, imports=imports, load=loading, latents=given, output=output, steps=options.steps)
        loaded, total, peak = map(float, printed(code).split()[-3:])
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
    parser.add_argument("--steps", type=int, default=3, help="of the whole picture")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of both sides' models")
    parser.add_argument("--torch-compile", action="store_true", help="compare with torch.compile too")
    parser.add_argument("--folder", type=Path, help="where the seeded checkpoints are kept; a temporary folder by default")
    arguments = parser.parse_args()
    chosen = arguments.benchmarks or BENCHMARKS
    unknown = set(chosen) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown benchmarks {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}")

    functions = {"import": import_time, "load": load, "unet": unet, "sdxl": sdxl, "vae": vae, "tiny": tiny, "pipeline": pipeline}
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen:
            if name in ("unet", "sdxl", "vae", "tiny"):
                import torch

                torch.set_grad_enabled(False)
            functions[name](arguments.folder or Path(temporary), arguments)


if __name__ == "__main__":
    main()
