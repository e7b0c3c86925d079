"""Floor 4: step caches, which leave out parts of a denoising step that hardly change from one to the next (docs/speed.md)."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".deep_cache": ("DeepCacheConfig", "apply_deep_cache"),
        ".faster_cache": ("FasterCacheConfig", "apply_faster_cache"),
        ".first_block_cache": ("FirstBlockCacheConfig", "apply_first_block_cache"),
        ".mag_cache": ("MagCacheConfig", "apply_mag_cache"),
        ".pyramid_attention_broadcast": ("PyramidAttentionBroadcastConfig", "apply_pyramid_attention_broadcast"),
        ".taylorseer_cache": ("TaylorSeerCacheConfig", "apply_taylorseer_cache"),
        ".tea_cache": ("TeaCacheConfig", "apply_tea_cache"),
    },
)
