"""Denoising diffusion probabilistic models (arXiv:2006.11239)."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {".pipeline_ddpm": ("DDPMPipeline",)})
