"""Floor 3: text and vision encoders, with transformers' config entries and parameter names."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".clip": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModel", "CLIPVisionModelWithProjection"),
        ".dpt": ("DPTForDepthEstimation",),
        ".modeling_utils": ("PreTrainedModel",),
    },
)
