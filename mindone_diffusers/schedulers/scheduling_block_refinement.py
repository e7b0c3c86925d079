"""Block-wise text generation that commits the tokens it is most confident of, as LLaDA 2 does it (block diffusion: arXiv 2503.09573)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.dtypes import dtype_name
from ..core.errors import ConfigError
from ..core.outputs import BaseOutput
from ..core.random import random_array
from .arrays import Array, alike
from .scheduling_utils import SchedulerMixin, as_output
from .tokens import LARGEST, at, categorical, check_steps, check_temperature, gather, order, random_tokens, softmax, tempered, where


@dataclass
class BlockRefinementSchedulerOutput(BaseOutput):
    """What `BlockRefinementScheduler.step` returns; shapes (batch, block).

    Args:
        prev_sample: the block's tokens for the next step.
        transfer_index: which positions were committed.
        editing_transfer_index: which committed tokens were replaced.
        sampled_tokens: tokens drawn from the logits.
        sampled_probs: their probabilities.
        pred_logits: the logits given, (batch, block, vocabulary).
    """

    prev_sample: Any
    transfer_index: Any
    editing_transfer_index: Any
    sampled_tokens: Any
    sampled_probs: Any
    pred_logits: Any


class BlockRefinementScheduler(SchedulerMixin):
    """Draws every token of a block, and commits at each step at least its share of the block, most confident first.

    Args:
        block_length: tokens of a block.
        num_inference_steps: steps a block.
        threshold: tokens more probable than this are committed beyond the step's share (with a mask token: if they are enough for it).
        editing_threshold: committed tokens are replaced by other tokens more probable than this; None does not.
        minimal_topk: accepted, and unused as in PyTorch diffusers.
    """

    @register_to_config
    def __init__(
        self, block_length: int = 32, num_inference_steps: int = 32,
        threshold: float = 0.95, editing_threshold: float | None = None, minimal_topk: int = 1,
    ):  # fmt: skip
        self.num_inference_steps = num_inference_steps
        self.timesteps = np.arange(num_inference_steps)[::-1]
        self._transfer_schedule: np.ndarray | None = None
        self._committed: Array | None = None  # which positions, where no mask token tells

    def set_timesteps(self, num_inference_steps: int, device: Any = None, block_length: int | None = None) -> None:
        """Choose the steps of a block.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.
            block_length: instead of the config's.

        Raises:
            ConfigError: one of them is not positive.
        """
        check_steps(num_inference_steps)
        if block_length is not None and block_length <= 0:
            raise ConfigError(f"block_length is {block_length}; expected 1 or more")
        self.num_inference_steps = num_inference_steps
        self.timesteps = np.arange(num_inference_steps)[::-1]
        self._transfer_schedule = self.get_num_transfer_tokens(block_length or self.config.block_length, num_inference_steps)
        self._committed = None

    def get_num_transfer_tokens(self, block_length: int, num_inference_steps: int) -> np.ndarray:
        """How many tokens each step commits: as evenly as possible, the first steps more."""
        return (block_length + num_inference_steps - 1 - np.arange(num_inference_steps)) // max(num_inference_steps, 1)

    def step(
        self, model_output: Array, timestep: int, sample: Array, *, mask_token_id: int | None = None,
        temperature: float = 0.0, top_p: float | None = None, top_k: int | None = None, sampling_method: str = "auto",
        threshold: float | None = None, editing_threshold: float | None = None, minimal_topk: int | None = None,
        prompt_mask: Array | None = None, generator: Any = None, return_dict: bool = True,
    ) -> BlockRefinementSchedulerOutput | tuple[Array, ...]:  # fmt: skip
        """One refinement of a block.

        Of equally confident tokens the first are committed (PyTorch's choice is not defined).

        Args:
            model_output: logits, shape (batch, block, vocabulary).
            timestep: the step within the block, from 0.
            sample: the block's tokens, shape (batch, block).
            mask_token_id: the token of positions that are not committed. None: such positions hold random tokens, drawn anew at each
                step, and the scheduler remembers which they are, from step 0 on.
            temperature: of the draw; 0 takes the likeliest tokens.
            top_p: draw from the likeliest tokens that together are as probable as this.
            top_k: draw from so many likeliest tokens.
            sampling_method: "multinomial" draws, "greedy" takes the likeliest, "auto" draws if the temperature is not 0.
            threshold: instead of the config's.
            editing_threshold: instead of the config's.
            minimal_topk: unused.
            prompt_mask: positions that are not edited, booleans of shape (block,).
            generator: draws the tokens, then the random ones.
            return_dict: return a `BlockRefinementSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: a negative temperature, or `top_p` of 0 or less.
        """
        config = self.config
        threshold = float(config.threshold if threshold is None else threshold)
        editing_threshold = config.editing_threshold if editing_threshold is None else editing_threshold
        check_temperature(temperature)
        if temperature == 0 or sampling_method not in ("auto", "multinomial"):
            tokens, probabilities = model_output.argmax(axis=-1), softmax(model_output)
        else:
            probabilities = softmax(_likeliest(tempered(model_output, temperature), top_k, top_p))
            tokens = categorical(probabilities, generator)
        probabilities, tokens = at(probabilities, tokens), tokens.astype(sample.dtype)

        if mask_token_id is None:
            editable, transfer = self._commit_remembered(sample, probabilities, int(timestep), threshold)
            editing = editing_threshold is not None
        else:
            editable = sample != mask_token_id
            transfer = self._commit_masked(~editable, probabilities, int(timestep), threshold)
            editing = editing_threshold is not None and editing_threshold > 0
            editable = editable if prompt_mask is None else editable & ~prompt_mask[None]
        edited = editable & (tokens != sample) & (probabilities > float(editing_threshold)) if editing else transfer & ~transfer
        prev_sample = where(transfer | edited, tokens, sample)
        if mask_token_id is None:
            prev_sample = where(self._committed, prev_sample, random_tokens(model_output.shape[-1], sample, generator))
        return as_output(
            BlockRefinementSchedulerOutput, return_dict, prev_sample, transfer, edited, tokens, probabilities, model_output
        )  # fmt: skip

    def _commit_masked(self, active: Array, confidence: Array, step: int, threshold: float) -> Array:
        """The sure ones of the masked positions if they are the step's share, else that share; none before `set_timesteps`, as upstream."""
        if self._transfer_schedule is None:
            return active & ~active
        share = int(self._transfer_schedule[min(step, len(self._transfer_schedule) - 1)])
        confidence = where(active, confidence, -math.inf)
        sure = confidence > threshold
        enough = sure.sum(axis=-1, keepdims=True) >= share
        return (sure & enough) | (active & (_ranks(confidence) < share) & ~enough)

    def _commit_remembered(self, sample: Array, confidence: Array, step: int, threshold: float) -> tuple[Array, Array]:
        """Which positions were committed before, and which are now: the sure ones, and what the steps so far owe."""
        if step == 0 or self._committed is None or self._committed.shape != sample.shape:
            self._committed = sample != sample
        committed = self._committed
        owed = -(-(step + 1) * sample.shape[1] // self.num_inference_steps) - committed.sum(axis=-1, keepdims=True)
        transfer = ~committed & ((_ranks(where(~committed, confidence, -math.inf)) < owed) | (confidence > threshold))
        self._committed = committed | transfer
        return committed, transfer

    @staticmethod
    def check_eos_finished(
        cur_x: Array, sampled_tokens: Array, final_transfer: Array, finished: Array, eos_token_id: int, mask_token_id: int,
        prompt_length: int,
    ) -> Array:  # fmt: skip
        """Which samples have ended: an end token was committed now, and no mask is left before the sample's first end token.

        Args:
            cur_x: the whole sequences, shape (batch, length).
            sampled_tokens: the step's tokens, shape (batch, block).
            final_transfer: which of them were committed or edited.
            finished: which samples had ended before, booleans of shape (batch,); it is not changed.
            eos_token_id: the end token.
            mask_token_id: the mask token.
            prompt_length: how many tokens are the prompt; a first end token in it ends nothing.
        """
        ends = cur_x == eos_token_id
        generated = alike(np.arange(cur_x.shape[1]) >= prompt_length, ends)
        before = ends.astype("int64").cumsum(-1) == 0
        waiting = (before & generated & (cur_x == mask_token_id)) | (ends & ~generated)
        now = (final_transfer & (sampled_tokens == eos_token_id)).any(-1)
        return finished | (now & ends.any(-1) & ~waiting.any(-1))

    def check_block_should_continue(
        self, step_idx: int, masks_remaining: bool, editing_enabled: bool, editing_transfer_index: Array, post_steps: int,
        max_post_steps: int, finished: Array,
    ) -> bool:  # fmt: skip
        """Whether the block needs another step; reads `finished` and, once no mask is left, `editing_transfer_index` from the device.

        Args:
            step_idx: how many steps were made.
            masks_remaining: whether the block has masks.
            editing_enabled: whether committed tokens are edited.
            editing_transfer_index: what the last step edited.
            post_steps: how many steps were made since the last mask went.
            max_post_steps: how many may be.
            finished: which samples have ended.
        """
        if finished.all():
            return False
        if masks_remaining:
            return step_idx < self.num_inference_steps
        return editing_enabled and bool(editing_transfer_index.any()) and post_steps <= max_post_steps

    def add_noise(
        self, original_samples: Array, attention_mask: Array, *, prompt_length: int, block_length: int, mask_token_id: int,
        generator: Any = None,
    ) -> tuple[Array, Array, Array, Array]:  # fmt: skip
        """Training samples: each block after the prompt with a random part of its tokens masked, and with the other part masked.

        Args:
            original_samples: tokens, shape (batch, length).
            attention_mask: 1 for tokens, 0 for padding, which is not masked.
            prompt_length: how many tokens are the prompt, which is not masked.
            block_length: tokens of a block.
            mask_token_id: the mask token.
            generator: draws each block's part, then its tokens.

        Returns:
            Both samples, and which positions are masked in each.
        """
        batch, length = original_samples.shape
        drawn = np.zeros((batch, length), bool)
        for start in range(prompt_length, length, block_length):
            part = random_array("uniform", (batch, 1), generator)
            drawn[:, start : start + block_length] = random_array("uniform", (batch, min(block_length, length - start)), generator) < part
        valid = attention_mask.astype("bool") & alike(np.arange(length) >= prompt_length, attention_mask, "bool")
        chosen = alike(drawn, valid)
        masked, masked_reverse = valid & chosen, valid & ~chosen
        noisy, noisy_reverse = (where(~m, original_samples, mask_token_id) for m in (masked, masked_reverse))
        return noisy, noisy_reverse, masked, masked_reverse


def _ranks(values: Array) -> Array:
    """The place of each value in descending order."""
    return order(order(values, descending=True))


def _likeliest(logits: Array, top_k: int | None, top_p: float | None) -> Array:
    """Logits, the lowest number in place of those that `top_k`, then `top_p` exclude; half-precision ones are summed up in float32.

    Raises:
        ConfigError: `top_p` of 0 or less.
    """
    lowest = -LARGEST[dtype_name(logits.dtype)]
    if top_k is not None and 0 < top_k < logits.shape[-1]:
        least = gather(logits, order(logits, descending=True)[..., top_k - 1 : top_k])
        logits = where(logits >= least, logits, lowest)
    if top_p is not None and top_p < 1:
        if top_p <= 0:
            raise ConfigError(f"top_p is {top_p}; expected more than 0, and 1 or None for all tokens")
        places = order(logits, descending=True)
        # A token goes if those before it exceed top_p.
        kept = (softmax(gather(logits, places)).cumsum(-1) <= top_p).sum(axis=-1, keepdims=True)
        logits = where(order(places) <= kept, logits, lowest)
    return logits
