"""The small trained model that comes with the package."""

import importlib.resources
from pathlib import Path

from ..core.errors import FileMissingError

NAME = "shapes"


def path() -> Path:
    """The model's folder, for `StableDiffusionPipeline.from_pretrained`.

    Raises:
        FileMissingError: this installation came without it.
    """
    folder = Path(str(importlib.resources.files(__name__) / NAME))
    if not (folder / "model_index.json").is_file():
        raise FileMissingError(f"the bundled model {NAME!r} is not part of this version: name a folder or repository with --model")
    return folder
