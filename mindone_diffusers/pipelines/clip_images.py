"""Images to CLIP's embeddings, which take a prompt's place or stand beside it."""

from typing import Any

from mindspore import Tensor


def embed_images(image_encoder: Any, feature_extractor: Any, image: Any) -> Tensor:
    """Embeddings of images, (images, size).

    Args:
        image_encoder: `CLIPVisionModelWithProjection`.
        feature_extractor: transformers' `CLIPImageProcessor`.
        image: a Pillow image, a list of them, or a tensor as the feature extractor makes them.
    """
    if not isinstance(image, Tensor):
        image = Tensor(feature_extractor(images=image, return_tensors="np").pixel_values)
    return image_encoder(image.astype(image_encoder.dtype)).image_embeds
