"""Prompts to embeddings, with one CLIP text encoder or two."""

from collections.abc import Sequence
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
    inputs = _tokens(tokenizer, prompts, max_length)
    mask = inputs.attention_mask if text_encoder.config.get("use_attention_mask") else None
    outputs = text_encoder(inputs.input_ids, attention_mask=mask, output_hidden_states=clip_skip is not None)
    if clip_skip is None:
        return outputs[0]
    return text_encoder.text_model.final_layer_norm(_state(outputs.hidden_states, clip_skip))


def _tokens(tokenizer: Any, prompts: list[str], max_length: int | None) -> Any:
    """What the tokenizer makes of prompts that are padded and cut; what is cut off is named in a warning."""
    length = max_length or tokenizer.model_max_length
    whole = tokenizer(prompts, verbose=False).input_ids
    cut = [tokenizer.decode(ids[length - 1 : -1]) for ids in whole if len(ids) > length]
    if cut:
        logger.warning(f"CLIP takes {length} tokens, start and end included; these parts of the prompts were cut off: {cut}")
    return tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="np")


def _state(states: Sequence[Tensor], clip_skip: int, last: int = 0) -> Tensor:
    """The output of the layer before the last `clip_skip`, counted from the one that is `last` before the last."""
    if not 0 <= clip_skip < len(states) - last:
        raise ConfigError(f"clip_skip is {clip_skip}; the text encoder has {len(states) - 1} layers")
    return states[-(clip_skip + last + 1)]


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


def embed_prompts_twice(
    text_encoders: Sequence[Any],
    tokenizers: Sequence[Any],
    prompts: Sequence[list[str]],
    clip_skip: int | None = None,
    max_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Embeddings of prompts by several text encoders side by side, from the layer before their last (arXiv:2307.01952).

    Args:
        text_encoders: the last is a `CLIPTextModelWithProjection`.
        tokenizers: theirs.
        prompts: the texts for each encoder, equally many.
        clip_skip: how many more layers to leave out.
        max_length: tokens a prompt, by default the tokenizer's.

    Returns:
        (prompts, tokens, sizes), and the last encoder's projection (prompts, size).

    Raises:
        ConfigError: `clip_skip` is more than the layers that are left.
    """
    states = []
    for text_encoder, tokenizer, texts in zip(text_encoders, tokenizers, prompts):
        outputs = text_encoder(_tokens(tokenizer, texts, max_length).input_ids, output_hidden_states=True)
        states.append(_state(outputs.hidden_states, clip_skip or 0, last=1))
    return F.cat(states, -1), outputs[0]


def embed_prompts_and_pool(text_encoder: Any, tokenizer: Any, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Embeddings of prompts before the text encoder's final norm, (prompts, tokens, size), and its states at their ends after it,
    (prompts, size)."""
    outputs = text_encoder(_tokens(tokenizer, prompts, None).input_ids, output_hidden_states=True)
    return outputs.hidden_states[-1], outputs.pooler_output


def embed_and_project_prompts(text_encoder: Any, tokenizer: Any, prompts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """A text encoder's projections of prompts, (prompts, size), the embeddings of their tokens, (prompts, tokens, size), and which of
    these are not padding, (prompts, tokens)."""
    inputs = _tokens(tokenizer, prompts, None)
    outputs = text_encoder(inputs.input_ids)
    return outputs.text_embeds, outputs.last_hidden_state, Tensor(inputs.attention_mask)


def check_pooled(prefix: str, embeds: Tensor | None, pooled: Tensor | None) -> None:
    """Raises ConfigError for embeddings of prompts, or with the prefix "negative_" of negative ones, without the pooled embeddings."""
    if embeds is not None and pooled is None:
        raise ConfigError(f"{prefix}prompt_embeds come without {prefix}pooled_prompt_embeds: pass both, as encode_prompt gives them")


def encode_prompt_twice(
    text_encoders: Sequence[Any],
    tokenizers: Sequence[Any],
    prompt: str | list[str] | None,
    prompt_2: str | list[str] | None = None,
    negative_prompt: str | list[str] | None = None,
    negative_prompt_2: str | list[str] | None = None,
    *,
    prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | None = None,
    pooled_prompt_embeds: Tensor | None = None,
    negative_pooled_prompt_embeds: Tensor | None = None,
    num_images_per_prompt: int = 1,
    do_classifier_free_guidance: bool = True,
    clip_skip: int | None = None,
    zeros_without_negative_prompt: bool = True,
    dtype: Any = None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Embeddings of prompts and, for guidance, of negative prompts by two text encoders, each repeated for every image.

    Args:
        text_encoders: the two; the first may be None, which then leaves `prompt` to the second and `prompt_2` unused.
        tokenizers: theirs.
        prompt: one or several, for the first encoder.
        prompt_2: as many for the second; the same by default.
        negative_prompt: one for all or as many; empty by default.
        negative_prompt_2: likewise for the second encoder; the same by default.
        prompt_embeds: what the prompts would give, (prompts, tokens, sizes), instead of them.
        negative_prompt_embeds: likewise for the negative prompts.
        pooled_prompt_embeds: the second encoder's projection of the prompts, (prompts, size).
        negative_pooled_prompt_embeds: likewise of the negative prompts.
        num_images_per_prompt: how often to repeat each.
        do_classifier_free_guidance: whether negative embeddings are needed.
        clip_skip: see `embed_prompts_twice`. As in PyTorch diffusers, it does not apply to the negative prompts.
        zeros_without_negative_prompt: without a negative prompt, its embeddings are zeros instead of an empty text's.
        dtype: of the embeddings, if there is no second encoder, whose dtype it is otherwise.

    Returns:
        The embeddings of prompts and negative prompts, (prompts * num_images_per_prompt, tokens, sizes), then the projections,
        (prompts * num_images_per_prompt, size). Without guidance, the negative ones are as they were given.

    Raises:
        ConfigError: a text encoder or tokenizer is missing, numbers of prompts differ, or embeddings come without projections.
        TypeError: negative prompts that are neither a string nor a list.
    """
    if text_encoders[-1] is not None:
        dtype = text_encoders[-1].dtype
    if text_encoders[0] is None:
        text_encoders, tokenizers = text_encoders[1:], tokenizers[1:]
    without_text = negative_prompt is None and zeros_without_negative_prompt
    negative_texts = do_classifier_free_guidance and negative_prompt_embeds is None and not without_text
    if (prompt_embeds is None or negative_texts) and any(part is None for part in (*text_encoders, *tokenizers)):
        raise ConfigError("the pipeline lacks a text encoder or tokenizer: pass embeddings, and pooled ones, instead of prompts")

    if prompt_embeds is None:
        prompts = [[texts] if isinstance(texts, str) else texts for texts in (prompt, prompt_2 or prompt)]
        if len(prompts[0]) != len(prompts[1]):
            raise ConfigError(f"{len(prompts[1])} texts in prompt_2 for {len(prompts[0])} in prompt: pass as many")
        prompt_embeds, pooled = embed_prompts_twice(text_encoders, tokenizers, prompts, clip_skip)
        pooled_prompt_embeds = pooled if pooled_prompt_embeds is None else pooled_prompt_embeds
    check_pooled("", prompt_embeds, pooled_prompt_embeds)

    if do_classifier_free_guidance:
        if negative_prompt_embeds is None and without_text:
            negative_prompt_embeds = F.zeros(prompt_embeds.shape, prompt_embeds.dtype)
            negative_pooled_prompt_embeds = F.zeros(pooled_prompt_embeds.shape, pooled_prompt_embeds.dtype)
        elif negative_prompt_embeds is None:
            batch_size, tokens = prompt_embeds.shape[:2]
            texts = [negative_prompts(None, text, batch_size) for text in (negative_prompt, negative_prompt_2 or negative_prompt)]
            negative_prompt_embeds, pooled = embed_prompts_twice(text_encoders, tokenizers, texts, max_length=tokens)
            negative_pooled_prompt_embeds = pooled if negative_pooled_prompt_embeds is None else negative_pooled_prompt_embeds
        check_pooled("negative_", negative_prompt_embeds, negative_pooled_prompt_embeds)
        negative_prompt_embeds = F.repeat_interleave(negative_prompt_embeds.astype(dtype), num_images_per_prompt, 0)
        negative_pooled_prompt_embeds = F.repeat_interleave(negative_pooled_prompt_embeds, num_images_per_prompt, 0)
    prompt_embeds = F.repeat_interleave(prompt_embeds.astype(dtype), num_images_per_prompt, 0)
    pooled_prompt_embeds = F.repeat_interleave(pooled_prompt_embeds, num_images_per_prompt, 0)
    return prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds
