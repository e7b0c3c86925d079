"""Guidance: from the model's predictions with and without the prompt to one."""

import math
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..nn import functional as F


def classifier_free_guidance(noise_pred: Tensor, guidance_scale: float, guidance_rescale: float = 0.0) -> Tensor:
    """Classifier-free guidance (arXiv:2207.12598; the scale is Imagen's, arXiv:2205.11487, where 1 means none).

    Args:
        noise_pred: predictions without the prompt, then with it, (2 * batch, ...).
        guidance_scale: how far to go from the one towards the other.
        guidance_rescale: see `rescale_noise_cfg`.

    Returns:
        (batch, ...).
    """
    without, with_prompt = F.chunk(noise_pred, 2)
    guided = without + guidance_scale * (with_prompt - without)
    return rescale_noise_cfg(guided, with_prompt, guidance_rescale) if guidance_rescale > 0.0 else guided


def perturbed_attention_guidance(
    noise_pred: Tensor, pag_scale: float, guidance_scale: float | None, guidance_rescale: float = 0.0
) -> Tensor:
    """Guidance away from what the model predicts with perturbed self-attention (arXiv:2403.17377), beside classifier-free
    guidance or alone.

    Args:
        noise_pred: predictions without the prompt, with it, and perturbed with it, (3 * batch, ...); without classifier-free guidance the
            last two.
        pag_scale: how far to go away from the perturbed prediction.
        guidance_scale: see `classifier_free_guidance`; None for none.
        guidance_rescale: see `rescale_noise_cfg`; only with classifier-free guidance.

    Returns:
        (batch, ...).
    """
    if guidance_scale is None:
        with_prompt, perturbed = F.chunk(noise_pred, 2)
        return with_prompt + pag_scale * (with_prompt - perturbed)
    without, with_prompt, perturbed = F.chunk(noise_pred, 3)
    guided = without + guidance_scale * (with_prompt - without) + pag_scale * (with_prompt - perturbed)
    return rescale_noise_cfg(guided, with_prompt, guidance_rescale) if guidance_rescale > 0.0 else guided


def instruct_pix2pix_guidance(
    noise_pred: Tensor, guidance_scale: float, image_guidance_scale: float, guidance_rescale: float = 0.0
) -> Tensor:
    """Guidance by an instruction and by an image (arXiv:2211.09800, equation 3).

    Args:
        noise_pred: predictions with both, with the image alone, and with neither, (3 * batch, ...).
        guidance_scale: how far to go towards the instruction.
        image_guidance_scale: how far to go towards the image.
        guidance_rescale: see `rescale_noise_cfg`.

    Returns:
        (batch, ...).
    """
    with_both, with_image, without = F.chunk(noise_pred, 3)
    guided = without + guidance_scale * (with_both - with_image) + image_guidance_scale * (with_image - without)
    return rescale_noise_cfg(guided, with_both, guidance_rescale) if guidance_rescale > 0.0 else guided


def rescale_noise_cfg(noise_cfg: Tensor, noise_pred_text: Tensor, guidance_rescale: float = 0.0) -> Tensor:
    """Bring each image's standard deviation back to that of the prediction with the prompt (arXiv:2305.08891, section 3.4).

    Args:
        noise_cfg: the guided prediction, (batch, ...).
        noise_pred_text: the prediction with the prompt.
        guidance_rescale: how much of the rescaled prediction to take, from 0 (none) to 1.
    """
    ratio = (_standard_deviation(noise_pred_text) / _standard_deviation(noise_cfg)).astype(noise_cfg.dtype)
    return guidance_rescale * (noise_cfg * ratio) + (1 - guidance_rescale) * noise_cfg


def _standard_deviation(images: Tensor) -> Tensor:
    """Of each image, in float32, (batch, 1, ...)."""
    axes, images = tuple(range(1, images.ndim)), images.astype(ms.float32)
    centred = images - images.mean(axes, keep_dims=True)
    return ((centred * centred).sum(axes, keepdims=True) / (math.prod(images.shape[1:]) - 1)).sqrt()


def guidance_scale_embedding(w: Any, embedding_dim: int = 512, dtype: Any = ms.float32) -> Tensor:
    """Sinusoidal embedding of guidance scales, for models distilled with them (arXiv:2310.04378).

    Args:
        w: guidance scales minus 1, (batch,).
        embedding_dim: size of the result's last axis.
        dtype: of the result.

    Returns:
        (batch, embedding_dim).
    """
    w = np.asarray(w.asnumpy() if isinstance(w, Tensor) else w, dtype=np.float32) * np.float32(1000)
    half = embedding_dim // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -(np.log(np.float32(10000)) / np.float32(half - 1)))
    angles = w[:, None] * frequencies
    embedding = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((len(w), embedding_dim % 2), np.float32)], axis=1)
    return Tensor(embedding).astype(dtype)
