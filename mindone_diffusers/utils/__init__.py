"""The import paths of `diffusers.utils`: images, outputs and logging. Pillow is only imported when an image function is first used."""

from ..core import logging
from ..core.hub import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from ..core.lazy import exports
from ..core.outputs import BaseOutput

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".loading_utils": ("load_image",),
        ".pil_utils": ("PIL_INTERPOLATION", "make_image_grid", "numpy_to_pil", "pt_to_pil"),
    },
)
__all__ += ["CONFIG_NAME", "SAFETENSORS_WEIGHTS_NAME", "WEIGHTS_NAME", "BaseOutput", "logging"]
