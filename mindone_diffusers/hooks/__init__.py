"""Floor 4: step caches, which leave out parts of a denoising step that hardly change from one to the next (docs/speed.md)."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".first_block_cache": ("FirstBlockCacheConfig", "apply_first_block_cache"),
        ".mag_cache": ("MagCacheConfig", "apply_mag_cache"),
        ".pyramid_attention_broadcast": ("PyramidAttentionBroadcastConfig", "apply_pyramid_attention_broadcast"),
        ".tea_cache": ("TeaCacheConfig", "apply_tea_cache"),
    },
)
