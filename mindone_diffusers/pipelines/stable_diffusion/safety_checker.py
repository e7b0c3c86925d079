"""The classifier that blacks out unsafe images of Stable Diffusion (arXiv:2210.04610 describes how it decides)."""

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ... import nn
from ...core import logging
from ...nn import functional as F
from ...text_encoders.clip import TEXT_DEFAULTS, VISION_DEFAULTS, CLIPVisionModel
from ...text_encoders.modeling_utils import PreTrainedModel

logger = logging.get_logger(__name__)

CONCEPTS, SPECIAL_CARE_CONCEPTS = 17, 3


class StableDiffusionSafetyChecker(PreTrainedModel):
    """Compares an image's CLIP embedding with those of fixed concepts; each concept has its own threshold for the cosine."""

    config_defaults = {"model_type": "clip", "projection_dim": 512, "logit_scale_init_value": 2.6592, "initializer_factor": 1.0}
    _checkpoint_renames = ((r"^vision_model\.vision_model\.", "vision_model."),)  # transformers before 5.6
    _keys_to_ignore_on_load_unexpected = (r"(^|\.)position_ids$",)

    def __init__(self, config: Any = None, **values: Any):
        super().__init__(config, **values)
        size = self.config.projection_dim
        self.vision_model = CLIPVisionModel(self.config.vision_config)
        self.visual_projection = nn.Linear(self.config.vision_config.hidden_size, size, bias=False)
        self.concept_embeds = nn.Parameter((CONCEPTS, size), nn.ones_init, requires_grad=False)
        self.special_care_embeds = nn.Parameter((SPECIAL_CARE_CONCEPTS, size), nn.ones_init, requires_grad=False)
        self.concept_embeds_weights = nn.Parameter((CONCEPTS,), nn.ones_init, requires_grad=False)
        self.special_care_embeds_weights = nn.Parameter((SPECIAL_CARE_CONCEPTS,), nn.ones_init, requires_grad=False)

    @classmethod
    def _complete_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        config = super()._complete_config(config)
        for name, defaults in (("text_config", TEXT_DEFAULTS), ("vision_config", VISION_DEFAULTS)):
            # Early configs have a second dictionary, which replaces the first with defaults of its own.
            given = {**config.get(name, {}), **defaults, **config[f"{name}_dict"]} if config.get(f"{name}_dict") else config.get(name)
            config[name] = {**defaults, **(given or {})}
        return config

    def __call__(self, clip_input: Tensor | np.ndarray, images: Any) -> tuple[Any, list[bool]]:
        """
        Args:
            clip_input: the images as CLIPImageProcessor gives them, (batch, 3, image_size, image_size).
            images: the same images as a NumPy array, a tensor, or a list of either; one each along the first axis.

        Returns:
            The images, with unsafe ones black, and for each whether it was unsafe.
        """
        clip_input = clip_input if isinstance(clip_input, Tensor) else Tensor(np.asarray(clip_input))
        special, concepts = self._run("construct", clip_input.astype(self.dtype))
        special_scores = _scores(special, self.special_care_embeds_weights)
        # An image near a special-care concept is judged a little more strictly on all the others.
        adjustment = np.where((special_scores > 0).any(axis=1, keepdims=True), 0.01, 0.0)
        unsafe = (_scores(concepts, self.concept_embeds_weights, adjustment) > 0).any(axis=1)
        if unsafe.any():
            logger.warning("Images that may not be safe for work were found and replaced by black ones: try another prompt or seed.")
            images = _blacken(images, unsafe)
        return images, unsafe.tolist()

    def construct(self, clip_input: Tensor, return_dict: bool = False) -> tuple[Tensor, Tensor]:
        """Cosines of the images with the special-care concepts and with the concepts, (batch, concepts) each."""
        embeds = self.visual_projection(self.vision_model.construct(clip_input)[1])
        return _cosines(embeds, self.special_care_embeds), _cosines(embeds, self.concept_embeds)


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    return F.linear(F.normalize(left.astype(ms.float32)), F.normalize(right.astype(ms.float32)))


def _scores(cosines: Tensor, thresholds: ms.Parameter, adjustment: Any = 0.0) -> np.ndarray:
    # Three decimals: the published thresholds were chosen with this rounding.
    wide = (tensor.astype(ms.float32).asnumpy().astype(np.float64) for tensor in (cosines, thresholds))
    return np.round(np.subtract(*wide) + adjustment, 3)


def _blacken(images: Any, unsafe: np.ndarray) -> Any:
    if isinstance(images, list):
        return [_blacken(image[None], unsafe[i : i + 1])[0] for i, image in enumerate(images)]
    unsafe = unsafe.reshape((-1,) + (1,) * (images.ndim - 1))
    if isinstance(images, Tensor):
        return F.where(Tensor(unsafe), F.zeros(images.shape, images.dtype), images)
    return np.where(unsafe, images.dtype.type(0), images)
