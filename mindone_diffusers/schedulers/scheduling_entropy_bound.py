"""Block decoding of text that accepts tokens up to a bound of their joint entropy (arXiv 2505.24857)."""

from dataclasses import dataclass
from typing import Any

from ..core.configuration import register_to_config
from ..core.outputs import BaseOutput
from .arrays import Array, clamp
from .scheduling_utils import as_output
from .tokens import CountedSteps, at, categorical, gather, log, order, random_tokens, softmax, tempered, where


@dataclass
class EntropyBoundSchedulerOutput(BaseOutput):
    """What `EntropyBoundScheduler.step` returns; shapes (batch, block).

    Args:
        prev_sample: the block's tokens for the next step.
        accepted_index: which positions were accepted.
        sampled_tokens: tokens drawn from the logits.
        sampled_probs: their probabilities.
        pred_logits: the logits divided by the step's temperature, (batch, block, vocabulary).
    """

    prev_sample: Any
    accepted_index: Any
    sampled_tokens: Any
    sampled_probs: Any
    pred_logits: Any


class EntropyBoundScheduler(CountedSteps):
    """Draws every token, accepts the most certain positions as long as their mutual information is bounded, and draws the rest at random.

    Positions are accepted in order of their entropy while the sum of the entropies before is at most the bound. Entropies are float32
    for half-precision logits too, whose own PyTorch takes.

    Args:
        entropy_bound: in nats; the larger, the more tokens a step accepts.
        t_max: temperature of the first step.
        t_min: what it would reach after the last.
        num_inference_steps: how many steps at most.
    """

    @register_to_config
    def __init__(self, entropy_bound: float = 0.1, t_max: float = 0.8, t_min: float = 0.4, num_inference_steps: int = 32):
        self.set_timesteps(num_inference_steps)

    def step(
        self, model_output: Array, timestep: int, sample: Array, *, entropy_bound: float | None = None,
        generator: Any = None, return_dict: bool = True,
    ) -> EntropyBoundSchedulerOutput | tuple[Array, ...]:  # fmt: skip
        """One step.

        Args:
            model_output: logits, shape (batch, block, vocabulary).
            timestep: which step, from 0.
            sample: the block's tokens, shape (batch, block); only the shape and dtype matter.
            entropy_bound: instead of the config's.
            generator: draws the tokens, then the random ones.
            return_dict: return an `EntropyBoundSchedulerOutput`, else a tuple.
        """
        config = self.config
        bound = config.entropy_bound if entropy_bound is None else entropy_bound
        left = (self.num_inference_steps - int(timestep)) / self.num_inference_steps
        model_output = tempered(model_output, config.t_min + (config.t_max - config.t_min) * left)
        probabilities = softmax(model_output)
        tokens = categorical(probabilities, generator).astype(sample.dtype)
        entropy = -(probabilities * log(clamp(probabilities, 2**-126, 1.0))).sum(axis=-1)
        positions = order(entropy)
        ascending = gather(entropy, positions)
        accepted = gather(ascending.cumsum(-1) - ascending <= bound, order(positions))
        prev_sample = where(accepted, tokens, random_tokens(model_output.shape[-1], sample, generator))
        return as_output(EntropyBoundSchedulerOutput, return_dict, prev_sample, accepted, tokens, at(probabilities, tokens), model_output)
