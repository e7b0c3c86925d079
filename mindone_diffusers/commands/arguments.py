"""What commands' arguments have in common."""

import argparse
import os
import re

from ..core.errors import CheckpointError

SIZE_HELP = "width x height in pixels, or one number for a square (default: the model's own)"


def whole_number(text: str) -> int:
    """An argument that is a number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def size_in_pixels(text: str) -> tuple[int, int]:
    """An argument that is a width and a height."""
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is neither WIDTHxHEIGHT nor one number of pixels")
    size = int(match[1]), int(match[2] or match[1])
    if size[0] % 8 or size[1] % 8:
        raise argparse.ArgumentTypeError(f"{text!r}: width and height have to be multiples of 8")
    return size


def check_model(model: str | os.PathLike) -> None:
    """Raises CheckpointError unless it is a folder, or could be a repository's name."""
    if not os.path.isdir(model) and not re.fullmatch(r"[^/]+/[^/]+", str(model)):
        raise CheckpointError(f"there is no folder {model}, and the name of a repository on the hub is OWNER/NAME")
