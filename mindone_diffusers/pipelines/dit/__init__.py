"""Diffusion transformers conditioned on a class (arXiv:2212.09748)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {".pipeline_dit": ("DiTPipeline",)})
