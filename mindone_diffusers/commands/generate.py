"""Draw pictures of a prompt and write them as PNG files.

The picture goes to outputs/NUMBER-PROMPT.png, or where --output says; its text
chunks say how it was made. With --num-images N that file is a grid of N
pictures, and each alone is beside it as NAME-1.png, NAME-2.png, ... Their seeds
are SEED, SEED + 1, ...: with its own --seed a picture of a grid can be drawn
again alone, the same to the last bit.
"""

import argparse
import contextlib
import itertools
import math
import os
import re
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindone_diffusers

from .. import bundled
from ..core import logging
from ..core.errors import CheckpointError, FileMissingError
from ..core.files import replaced_file
from .arguments import SIZE_HELP, check_model, size_in_pixels, whole_number

if TYPE_CHECKING:
    from PIL import Image

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "deis": "DEISMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "dpm++-sde": "DPMSolverSDEScheduler",
    "dpm++-single": "DPMSolverSinglestepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "kdpm2": "KDPM2DiscreteScheduler",
    "kdpm2-a": "KDPM2AncestralDiscreteScheduler",
    "lcm": "LCMScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "sa": "SASolverScheduler",
    "tcd": "TCDScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names. Those whose class the package does not export are not offered."""

GUIDANCE_SCALE = 7.5
OUTPUTS = Path("outputs")
TINY_DECODER = "vae_tiny"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help="what to draw")
    add(
        "--model",
        metavar="DIR_OR_REPO",
        help="a pipeline's folder, or repository on the hub (default: the small model that comes with the package)",
    )
    add("--negative-prompt", metavar="TEXT", help="what not to draw")
    add("--steps", type=whole_number, default=25, metavar="N", help="denoising steps (default: %(default)s)")
    add(
        "--guidance-scale",
        type=float,
        metavar="X",
        help=f"how strictly to follow the prompt; 1: not at all (default: {GUIDANCE_SCALE:g}; bundled model: {bundled.GUIDANCE_SCALE:g})",
    )
    add("--seed", type=_seed, metavar="N", help="random seed, with PyTorch's numbers (default: a random one, which is printed)")
    add("--num-images", type=whole_number, default=1, metavar="N", help="how many pictures (default: %(default)s)")
    add("--size", type=size_in_pixels, metavar="WxH|N", help=SIZE_HELP)
    add(
        "--scheduler",
        type=_scheduler,
        metavar="NAME",
        help=f"{', '.join(_aliases())}, or the name of a scheduler class (default: the model's own)",
    )
    add(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="what to compute in; on a CPU bfloat16 is fastest and float16 slowest (default: %(default)s)",
    )
    add("--graph", action="store_true", help="compile the models first: pays off for many steps or pictures of a large model")
    add(
        "--tiny-decoder", action="store_true", help=f"decode with the AutoencoderTiny in the model's {TINY_DECODER} folder, which is faster"
    )
    add("--output", type=_png, metavar="FILE.png", help="where to write, instead of the next free name in outputs/; replaces what is there")


def run(arguments: argparse.Namespace) -> None:
    """Draw, write, and print where the pictures are and how to draw them again."""
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    with _target(arguments) as target:
        pipe = _load(arguments)
        facts, pictures, start = _facts(arguments, pipe), [], time.perf_counter()
        for number in range(arguments.num_images):
            pictures.append(_draw(arguments, pipe, seed + number))
            alone = target if arguments.num_images == 1 else target.with_stem(f"{target.stem}-{number + 1}")
            _save(pictures[-1], alone, facts | {"seed": seed + number})
        seconds = time.perf_counter() - start
        if len(pictures) > 1:
            _save(_grid(pictures), target, facts | {"seed": seed, "num_images": len(pictures)})
    what = f"{len(pictures)} pictures of " if len(pictures) > 1 else ""
    steps = f"{arguments.steps} steps" if arguments.steps > 1 else "1 step"
    print(f"{target}: {what}{pictures[0].width}x{pictures[0].height}, {steps}, {seconds:.1f} s")
    if len(pictures) > 1:
        print(f"each alone: {target.with_stem(f'{target.stem}-1')} to {alone.name}")
    print(f"again: {_command(arguments, seed)}")


def _load(arguments: argparse.Namespace) -> Any:
    """The pipeline, as the arguments want it."""
    model = arguments.model or bundled.path()
    check_model(model)
    components = {}
    if arguments.tiny_decoder:
        try:
            components["vae"] = mindone_diffusers.AutoencoderTiny.from_pretrained(
                model, subfolder=TINY_DECODER, mindspore_dtype=arguments.dtype
            )
        except FileMissingError as error:
            raise CheckpointError(f"this model has no {TINY_DECODER} folder, leave out --tiny-decoder: {error}") from error
    pipe = mindone_diffusers.DiffusionPipeline.from_pretrained(model, mindspore_dtype=arguments.dtype, **components)
    if arguments.scheduler is not None:
        pipe.scheduler = getattr(mindone_diffusers, arguments.scheduler).from_config(pipe.scheduler.config)
    return pipe.enable_graph_mode() if arguments.graph else pipe


def _draw(arguments: argparse.Namespace, pipe: Any, seed: int) -> "Image.Image":
    """One picture. They are drawn one by one because in a batch they would differ in the last bits, and so that a large model's fit into
    memory and those that are done survive an interruption."""
    pipe.set_progress_bar_config(desc=f"seed {seed}")
    width, height = arguments.size or (None, None)
    return pipe(
        arguments.prompt, width=width, height=height, num_inference_steps=arguments.steps, guidance_scale=_guidance_scale(arguments),
        negative_prompt=arguments.negative_prompt, generator=mindone_diffusers.Generator("cpu").manual_seed(seed),
    ).images[0]  # fmt: skip


def _grid(pictures: list["Image.Image"]) -> "Image.Image":
    """The pictures in rows, about as many as columns; what is left of the last row is black."""
    from PIL import Image

    from ..utils import make_image_grid

    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    blank = Image.new("RGB", pictures[0].size)
    return make_image_grid(pictures + [blank] * (rows * columns - len(pictures)), rows, columns)


def _facts(arguments: argparse.Namespace, pipe: Any) -> dict[str, Any]:
    """What a picture's file says about how it was made, but for the seed. Of a local model its folder's name: pictures are passed on."""
    import mindspore

    model = "bundled" if arguments.model is None else arguments.model
    facts = {
        "prompt": arguments.prompt, "negative_prompt": arguments.negative_prompt or "", "steps": arguments.steps,
        "guidance_scale": _guidance_scale(arguments), "scheduler": type(pipe.scheduler).__name__,
        "model": Path(model).resolve().name if os.path.isdir(model) else model,
        "dtype": str(pipe.dtype).lower(), "mode": "graph" if arguments.graph else "eager",
        "mindone_diffusers": mindone_diffusers.__version__, "mindspore": mindspore.__version__,
    }  # fmt: skip
    return facts | ({"decoder": TINY_DECODER} if arguments.tiny_decoder else {})


def _save(picture: "Image.Image", target: Path, facts: dict[str, Any]) -> None:
    """Write a PNG whole or not at all, with `facts` as its text chunks."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, value in facts.items():
        info.add_text(name, str(value))
    with replaced_file(target) as path:
        picture.save(path, format="PNG", pnginfo=info)


@contextlib.contextmanager
def _target(arguments: argparse.Namespace) -> Iterator[Path]:
    """The file to write, in a folder that was found to take files: to learn that after an hour of drawing would be late.

    Without --output, it is outputs/NUMBER-PROMPT.png with a number above all there are. An empty file holds the name against other
    processes; it is removed if nothing was drawn.

    Raises:
        CheckpointError: files cannot be written there.
    """
    path = arguments.output
    folder = OUTPUTS if path is None else path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path is None:
            path = _next_free(folder, arguments.prompt)
        else:
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CheckpointError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        yield path
    finally:
        if arguments.output is None and path.stat().st_size == 0:
            path.unlink()


def _next_free(folder: Path, prompt: str) -> Path:
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40].strip("-") or "picture"
    numbers = [int(match[0]) for match in (re.match(r"\d+", path.name) for path in folder.iterdir()) if match]
    for number in itertools.count(max(numbers, default=0) + 1):
        path = folder / f"{number:04d}-{words}.png"
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path


def _command(arguments: argparse.Namespace, seed: int) -> str:
    """The command line that draws the same again: the options that are not the defaults, but not where to write."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["mindone-diffusers", "generate"]
    for name, default in vars(parser.parse_args([""])).items():
        value = seed if name == "seed" else getattr(arguments, name)
        if name not in ("prompt", "output") and value != default:
            option, text = f"--{name.replace('_', '-')}", "{}x{}".format(*value) if name == "size" else str(value)
            words += [option] if value is True else [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join([*words, "--", arguments.prompt] if arguments.prompt.startswith("-") else [*words, arguments.prompt])


def _guidance_scale(arguments: argparse.Namespace) -> float:
    if arguments.guidance_scale is not None:
        return arguments.guidance_scale
    return bundled.GUIDANCE_SCALE if arguments.model is None else GUIDANCE_SCALE


def _aliases() -> list[str]:
    return [alias for alias, name in SCHEDULERS.items() if name in mindone_diffusers.__all__]


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**63 - 1}")
    return int(text)


def _scheduler(text: str) -> str:
    name = SCHEDULERS.get(text, text)
    if not name.endswith("Scheduler") or name not in mindone_diffusers.__all__:
        raise argparse.ArgumentTypeError(f"there is no scheduler {text!r}, but {', '.join(_aliases())} and the package's scheduler classes")
    return name


def _png(text: str) -> Path:
    if not text.lower().endswith(".png") or os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a .png file")
    return Path(text)
