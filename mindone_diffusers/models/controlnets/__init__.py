"""ControlNets: what steers a denoiser with images (arXiv:2302.05543)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".controlnet": ("ControlNetModel", "ControlNetOutput"),
        ".controlnet_union": ("ControlNetUnionModel",),
        ".multicontrolnet": ("MultiControlNetModel",),
        ".multicontrolnet_union": ("MultiControlNetUnionModel",),
    },
)
