"""Schedulers that PyTorch diffusers keeps for old checkpoints."""

from ...core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".scheduling_karras_ve": ("KarrasVeScheduler",),
        ".scheduling_sde_vp": ("ScoreSdeVpScheduler",),
    },
)
