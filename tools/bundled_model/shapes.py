"""Drawn shapes with captions: the grammar, the drawing, and a folder of both for the training scripts.

    python tools/bundled_model/shapes.py FOLDER --count 20000 --seed 0

A caption is "a [small|large] COLOUR SHAPE on a COLOUR background[, PLACE]", such as "a large red circle on a blue background, on the left".
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 220, 50),
    "green": (50, 160, 70),
    "blue": (50, 90, 220),
    "purple": (140, 60, 170),
    "pink": (250, 150, 190),
    "white": (250, 250, 250),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
RADII = {"small": (0.18, 0.23), "large": (0.31, 0.38)}
"""Radius of the circle around the shape, as a part of the picture's side."""
PLACES = {
    "in the middle": (0.5, 0.5),
    "on the left": (0.25, 0.5),
    "on the right": (0.75, 0.5),
    "at the top": (0.5, 0.25),
    "at the bottom": (0.5, 0.75),
}
LARGE, MIDDLE = "large", "in the middle"
"""What is drawn if a caption names no size, or no place."""
SIZE = 64


@dataclass(frozen=True)
class Scene:
    """What a caption asks for. No size means large, no place the middle."""

    color: str
    shape: str
    background: str
    size: str | None = None
    place: str | None = None

    @property
    def caption(self) -> str:
        size = f"{self.size} " if self.size else ""
        place = f", {self.place}" if self.place else ""
        thing, background = f"{size}{self.color} {self.shape}", f"{self.background} background"
        return f"{_article(thing)} {thing} on {_article(background)} {background}{place}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def random_scene(rng: np.random.Generator, free: bool = False) -> Scene:
    """A scene to draw, or, with `free`, one that leaves the size or the place open half of the time and more."""
    color, background = rng.choice(list(COLORS), 2, replace=False)
    if free:
        size = str(rng.choice(list(RADII))) if rng.random() < 2 / 3 else None
        place = str(rng.choice(list(PLACES))) if rng.random() < 0.5 else None
    else:
        size, place = str(rng.choice(list(RADII))), str(rng.choice(list(PLACES)))
        size = None if size == LARGE and rng.random() < 0.5 else size
        place = None if place == MIDDLE and rng.random() < 0.5 else place
    return Scene(str(color), str(rng.choice(SHAPES)), str(background), size, place)


def outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Corners of an upright shape in a circle around (x, y); a circle is a polygon of many."""

    def ring(count: int, start: float, radii: tuple[float, ...] = (1.0,)) -> list[tuple[float, float]]:
        angles = [start + 2 * math.pi * index / count for index in range(count)]
        factors = [radius * radii[index % len(radii)] for index in range(count)]
        return [(x + factor * math.cos(angle), y + factor * math.sin(angle)) for factor, angle in zip(factors, angles)]

    if shape == "circle":
        return ring(72, 0.0, (0.9,))
    if shape == "square":
        return ring(4, math.pi / 4)
    if shape == "triangle":
        return ring(3, -math.pi / 2)
    if shape == "star":
        return ring(10, -math.pi / 2, (1.0, 0.42))
    if shape == "cross":
        arm, half = radius * 0.92, radius * 0.3
        corners = [(half, arm), (half, half), (arm, half)]
        quarters = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
        points = []
        for turn, (sx, sy) in enumerate(quarters):
            points += [(x + sx * px, y + sy * py) for px, py in (corners if turn % 2 == 0 else corners[::-1])]
        return points
    raise ValueError(f"unknown shape {shape!r}; expected one of {', '.join(SHAPES)}")


def nearest_inside(place: tuple[float, float], radius: float) -> tuple[float, ...]:
    """The centre nearest to a place at which a shape of this radius is all in the picture."""
    margin = radius + 0.02
    return tuple(min(max(center, margin), 1 - margin) for center in place)


def draw(scene: Scene, rng: np.random.Generator, size: int = SIZE, free: bool = False) -> Image.Image:
    """The scene, drawn at four times the size and reduced; with `free`, of any size and anywhere, where the caption names none."""
    low, high = RADII[scene.size or (str(rng.choice(list(RADII))) if free else LARGE)]
    radius = rng.uniform(low, high)
    place = scene.place or (str(rng.choice(list(PLACES))) if free else MIDDLE)
    x, y = (center + rng.uniform(-0.03, 0.03) for center in PLACES[place])
    x, y = nearest_inside((x, y), radius)
    large = 4 * size
    image = Image.new("RGB", (large, large), COLORS[scene.background])
    corners = [(large * px, large * py) for px, py in outline(scene.shape, x, y, radius)]
    ImageDraw.Draw(image).polygon(corners, fill=COLORS[scene.color])
    return image.resize((size, size), Image.Resampling.BOX)


def write_folder(folder: Path, count: int, seed: int, free: bool) -> None:
    """`count` pictures and their `metadata.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = []
    for index in range(count):
        scene = random_scene(rng, free)
        name = f"{index:06d}.png"
        draw(scene, rng, free=free).save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": scene.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--free", action="store_true", help="any size, anywhere, where a caption names none")
    arguments = parser.parse_args()
    write_folder(arguments.folder, arguments.count, arguments.seed, arguments.free)
    print(f"{arguments.count} pictures in {arguments.folder}")


if __name__ == "__main__":
    main()
