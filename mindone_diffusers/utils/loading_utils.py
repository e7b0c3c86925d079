"""Reading images."""

import io
import os
from collections.abc import Callable

from PIL import Image, ImageOps

from ..core.errors import CheckpointError, ConfigError

TIMEOUT_SECONDS = 60


def load_image(image: str | os.PathLike | Image.Image, convert_method: Callable[[Image.Image], Image.Image] | None = None) -> Image.Image:
    """An image, turned upright as its EXIF data says.

    Args:
        image: a path, a URL (http or https), or a Pillow image.
        convert_method: what to do with it; by default it becomes RGB.

    Raises:
        ConfigError: neither of those, or no such file.
        CheckpointError: the URL cannot be read.
    """
    if isinstance(image, (str, os.PathLike)):
        image = Image.open(_download(image) if str(image).startswith(("http://", "https://")) else _existing(image))
    elif not isinstance(image, Image.Image):
        raise ConfigError(f"load_image got a {type(image).__name__}; expected a path, a URL, or a Pillow image")
    image = ImageOps.exif_transpose(image)
    return image.convert("RGB") if convert_method is None else convert_method(image)


def _existing(path: str | os.PathLike) -> str | os.PathLike:
    if not os.path.isfile(path):
        raise ConfigError(f"{path} is not a file, nor a URL that starts with http:// or https://")
    return path


def _download(url: str) -> io.BytesIO:
    import huggingface_hub

    try:
        response = huggingface_hub.get_session().get(url, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
    except Exception as error:  # the session's library is huggingface_hub's choice, and so are its exceptions
        raise CheckpointError(f"{url} could not be read: {error}") from error
    return io.BytesIO(response.content)
