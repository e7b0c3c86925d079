"""Denoising diffusion implicit models (arXiv:2010.02502)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {".pipeline_ddim": ("DDIMPipeline",)})
