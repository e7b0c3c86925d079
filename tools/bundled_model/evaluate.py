"""How well a model draws what the captions ask for: colours by their mean, shapes by their geometry, nothing by eye.

    python tools/bundled_model/evaluate.py FOLDER [--prompts 200] [--guidance-scale 2.5 1] [--framework mindspore|torch|both]

With `--framework both`, PyTorch diffusers draws the same prompts from the same latents, and the largest difference of the pictures is
printed too.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from shapes import COLORS, LARGE, MIDDLE, PLACES, RADII, SHAPES, Scene, nearest_inside, outline, random_scene

PALETTE = np.array(list(COLORS.values()), np.float32)


def nearest_color(pixel: np.ndarray) -> str:
    """The palette's colour nearest to an RGB value."""
    return list(COLORS)[int(((PALETTE - pixel) ** 2).sum(1).argmin())]


def classify(image: Image.Image) -> dict[str, str]:
    """Colour, shape, background, size and place of the one object in a picture."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    side = pixels.shape[0]
    edges = (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:])
    background = np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)
    distance = np.sqrt(((pixels - background) ** 2).sum(2))
    mask = distance > max(0.5 * float(np.quantile(distance, 0.995)), 12.0)
    if mask.sum() < 20:
        return {"background": nearest_color(background)}
    color = np.median(pixels[distance > 0.85 * float(np.quantile(distance[mask], 0.9))], axis=0)
    rows, columns = np.nonzero(mask)
    scores = {shape: overlap(mask, shape, rows, columns) for shape in SHAPES}
    shape = max(scores, key=scores.get)
    corners = np.array(outline(shape, 0.0, 0.0, 1.0))
    low, high = corners.min(0), corners.max(0)
    radius = max(np.ptp(columns) + 1, np.ptp(rows) + 1) / side / (high - low).max()
    center = np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2 / side - radius * (low + high) / 2
    places = {place: np.square(center - nearest_inside(asked, radius)).sum() for place, asked in PLACES.items()}
    return {
        "color": nearest_color(color),
        "shape": shape,
        "background": nearest_color(background),
        "size": "large" if radius > (RADII["small"][1] + RADII["large"][0]) / 2 else "small",
        "place": min(places, key=places.get),
    }


def overlap(mask: np.ndarray, shape: str, rows: np.ndarray, columns: np.ndarray) -> float:
    """Intersection over union of a mask and the shape drawn over its bounding box."""
    corners = np.array(outline(shape, 0.0, 0.0, 1.0))
    low, high = corners.min(0), corners.max(0)
    start, extent = np.array([columns.min(), rows.min()]), np.array([np.ptp(columns) + 1, np.ptp(rows) + 1])
    placed = (corners - low) / (high - low) * extent + start - 0.5
    drawn = Image.new("1", mask.shape[::-1])
    ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in placed.tolist()], fill=1)
    drawn = np.asarray(drawn)
    return float((mask & drawn).sum() / (mask | drawn).sum())


def scenes(count: int, seed: int) -> list[Scene]:
    """Prompts that the seed draws from the captions' grammar."""
    rng = np.random.default_rng(seed)
    return [random_scene(rng) for _ in range(count)]


def score(asked: list[Scene], images: list[Image.Image]) -> dict[str, float]:
    """The part of pictures in which each thing asked for is right."""
    wanted = [vars(scene) | {"size": scene.size or LARGE, "place": scene.place or MIDDLE} for scene in asked]
    found = [classify(image) for image in images]
    return {part: float(np.mean([want[part] == got.get(part) for want, got in zip(wanted, found)])) for part in wanted[0]}


def draw(framework: str, folder: Path, prompts: list[str], latents: np.ndarray, steps: int, guidance_scale: float, batch: int) -> list:
    """Pictures of the prompts from the given initial latents, (count, channels, h, w)."""
    if framework == "torch":
        import torch
        from diffusers import StableDiffusionPipeline

        tensor, options = torch.from_numpy, {"torch_dtype": torch.float32}
    else:
        from mindspore import Tensor as tensor

        from mindone_diffusers import StableDiffusionPipeline

        options = {}
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, **options)
    pipe.set_progress_bar_config(disable=True)
    if framework == "mindspore":
        pipe.enable_graph_mode()
    images = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        images += pipe(
            prompts[part], num_inference_steps=steps, guidance_scale=guidance_scale, latents=tensor(latents[part])
        ).images  # fmt: skip
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, nargs="*", default=[2.5, 1.0])
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--framework", choices=("mindspore", "torch", "both"), default="mindspore")
    parser.add_argument("--grid", type=Path, help="save the first 40 pictures here")
    arguments = parser.parse_args()

    asked = scenes(arguments.prompts, arguments.seed)
    prompts = [scene.caption for scene in asked]
    unet = json.loads((arguments.folder / "unet" / "config.json").read_text())
    shape = (len(prompts), unet["in_channels"], unet["sample_size"], unet["sample_size"])
    latents = np.random.default_rng(arguments.seed).standard_normal(shape).astype(np.float32)
    frameworks = ("mindspore", "torch") if arguments.framework == "both" else (arguments.framework,)
    for guidance_scale in arguments.guidance_scale:
        drawn = {}
        for framework in frameworks:
            start = time.perf_counter()
            drawn[framework] = draw(framework, arguments.folder, prompts, latents, arguments.steps, guidance_scale, arguments.batch)
            figures = ", ".join(f"{part} {value:.1%}" for part, value in score(asked, drawn[framework]).items())
            print(f"guidance {guidance_scale:g}, {framework}: {figures}; {time.perf_counter() - start:.0f} s", flush=True)
        if len(frameworks) == 2:
            differences = [
                np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16)).max() for ours, theirs in zip(*drawn.values())
            ]  # fmt: skip
            print(f"guidance {guidance_scale:g}: the pictures differ by at most {max(differences)} / 255")
        if arguments.grid is not None and guidance_scale == arguments.guidance_scale[0]:
            images = next(iter(drawn.values()))[:40]
            width, height = images[0].size
            grid = Image.new("RGB", (8 * width, -(-len(images) // 8) * height))
            for index, image in enumerate(images):
                grid.paste(image, (index % 8 * width, index // 8 * height))
            grid.save(arguments.grid)


if __name__ == "__main__":
    main()
