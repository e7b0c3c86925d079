"""Prompts to embeddings, with a CLIP text encoder."""

from typing import Any

from mindspore import Tensor

from ..core import logging
from ..core.errors import ConfigError
from ..nn import functional as F

logger = logging.get_logger(__name__)


def embed_prompts(
    text_encoder: Any, tokenizer: Any, prompts: list[str], clip_skip: int | None = None, max_length: int | None = None
) -> Tensor:
    """Embeddings of prompts, which are padded and cut to a common length; what is cut off is named in a warning.

    Args:
        text_encoder: `CLIPTextModel`.
        tokenizer: transformers' `CLIPTokenizer`.
        prompts: texts.
        clip_skip: how many of the last layers to leave out; the final norm is applied in any case.
        max_length: tokens a prompt, by default the tokenizer's.

    Returns:
        (prompts, tokens, size).

    Raises:
        ConfigError: `clip_skip` is not below the number of layers.
    """
    length = max_length or tokenizer.model_max_length
    inputs = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="np")
    whole = tokenizer(prompts, verbose=False).input_ids
    cut = [tokenizer.decode(ids[length - 1 : -1]) for ids in whole if len(ids) > length]
    if cut:
        logger.warning(f"CLIP takes {length} tokens, start and end included; these parts of the prompts were cut off: {cut}")
    mask = inputs.attention_mask if text_encoder.config.get("use_attention_mask") else None
    outputs = text_encoder(inputs.input_ids, attention_mask=mask, output_hidden_states=clip_skip is not None)
    if clip_skip is None:
        return outputs[0]
    states = outputs.hidden_states
    if not 0 <= clip_skip < len(states):
        raise ConfigError(f"clip_skip is {clip_skip}; the text encoder has {len(states) - 1} layers")
    return text_encoder.text_model.final_layer_norm(states[-(clip_skip + 1)])


def negative_prompts(prompt: str | list[str] | None, negative_prompt: str | list[str] | None, batch_size: int) -> list[str]:
    """A negative prompt for each prompt, or one for all; empty texts by default.

    Raises:
        TypeError: prompt and negative prompt are not both strings or both lists.
        ConfigError: lists of different lengths.
    """
    if negative_prompt is None:
        return [""] * batch_size
    if prompt is not None and type(prompt) is not type(negative_prompt):
        raise TypeError(
            f"negative_prompt is a {type(negative_prompt).__name__} and prompt a {type(prompt).__name__}: pass two strings or two lists"
        )
    if isinstance(negative_prompt, str):
        return [negative_prompt] * batch_size
    if len(negative_prompt) != batch_size:
        raise ConfigError(f"{len(negative_prompt)} negative prompts for {batch_size} prompts: pass as many")
    return negative_prompt


def encode_prompt(
    text_encoder: Any,
    tokenizer: Any,
    prompt: str | list[str] | None,
    negative_prompt: str | list[str] | None = None,
    *,
    prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | None = None,
    num_images_per_prompt: int = 1,
    do_classifier_free_guidance: bool = True,
    clip_skip: int | None = None,
    dtype: Any = None,
) -> tuple[Tensor, Tensor | None]:
    """Embeddings of the prompts and, for guidance, of the negative prompts, each repeated for every image.

    Args:
        text_encoder: `CLIPTextModel`; None if all embeddings needed are given.
        tokenizer: transformers' `CLIPTokenizer`.
        prompt: one or several.
        negative_prompt: likewise; empty by default.
        prompt_embeds: what the prompt would give, (prompts, tokens, size), instead of it.
        negative_prompt_embeds: likewise for the negative prompt.
        num_images_per_prompt: how often to repeat each.
        do_classifier_free_guidance: whether negative embeddings are needed.
        clip_skip: see `embed_prompts`. As in PyTorch diffusers, it does not apply to the negative prompt.
        dtype: of the result; by default the text encoder's.

    Returns:
        Two tensors (prompts * num_images_per_prompt, tokens, size); without guidance, the second is `negative_prompt_embeds`.
    """
    needs_encoder = prompt_embeds is None or (do_classifier_free_guidance and negative_prompt_embeds is None)
    if needs_encoder and (text_encoder is None or tokenizer is None):
        raise ConfigError("the pipeline has no text encoder or tokenizer: pass `prompt_embeds` and `negative_prompt_embeds`")
    if text_encoder is not None:
        dtype = text_encoder.dtype
    if prompt_embeds is None:
        prompt_embeds = embed_prompts(text_encoder, tokenizer, [prompt] if isinstance(prompt, str) else prompt, clip_skip)
    batch_size, tokens = prompt_embeds.shape[:2]
    if do_classifier_free_guidance:
        if negative_prompt_embeds is None:
            texts = negative_prompts(prompt, negative_prompt, batch_size)
            negative_prompt_embeds = embed_prompts(text_encoder, tokenizer, texts, max_length=tokens)
        negative_prompt_embeds = F.repeat_interleave(negative_prompt_embeds.astype(dtype), num_images_per_prompt, 0)
    return F.repeat_interleave(prompt_embeds.astype(dtype), num_images_per_prompt, 0), negative_prompt_embeds
