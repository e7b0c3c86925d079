"""Discrete diffusion of text that replaces tokens by random ones (D3PM, arXiv 2107.03006), with a Gibbs corrector (arXiv 2605.22765)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from ..core.outputs import BaseOutput
from .arrays import Array, alike, largest
from .scheduling_utils import as_output
from .tokens import (
    CountedSteps,
    at,
    categorical,
    exp,
    gumbel,
    log_add_exp,
    log_sum_exp,
    one_hot,
    order,
    random_tokens,
    sample_tokens,
    uniform,
    where,
)  # fmt: skip


@dataclass
class DiscreteDDIMSchedulerOutput(BaseOutput):
    """What `step` and `step_correct` return.

    Args:
        prev_sample: the block's tokens for the next step, shape (batch, block).
        sampled_tokens: tokens drawn from the logits, shape (batch, block), or by the corrector (batch, corrector_k).
        sampled_probs: their probabilities.
        pred_logits: the logits given, (batch, block, vocabulary).
    """

    prev_sample: Any
    sampled_tokens: Any
    sampled_probs: Any
    pred_logits: Any


class DiscreteDDIMScheduler(CountedSteps):
    """The exact posterior of the uniform kernel, under which a clean token has survived until time t with probability 1 - t.

    Args:
        num_inference_steps: how many steps.
        corrector_steps: how many corrector sweeps (`step_correct`) the pipeline makes after each step.
        corrector_k: positions that a sweep draws anew.
        corrector_selection: the positions it prefers: those whose token is least likely against the likeliest other
            ("lowest_log_margin"), by itself ("lowest_current_prob"), whose likeliest token is least likely ("lowest_maxprob"), or "random".
        corrector_selection_tau: temperature of that choice; the lower, the stricter.
    """

    @register_to_config
    def __init__(
        self, num_inference_steps: int = 32, corrector_steps: int = 0, corrector_k: int = 1, corrector_selection: str = "lowest_log_margin",
        corrector_selection_tau: float = 1.0,
    ):  # fmt: skip
        self.set_timesteps(num_inference_steps)

    def step(
        self, model_output: Array, timestep: int, sample: Array, *, temperature: float = 0.0,
        generator: Any = None, return_dict: bool = True,
    ) -> DiscreteDDIMSchedulerOutput | tuple[Array, ...]:  # fmt: skip
        """Each token becomes the predicted clean one, stays, or becomes a random one, as the posterior of D3PM (equation 3) says.

        Args:
            model_output: logits, shape (batch, block, vocabulary).
            timestep: which step, from 0.
            sample: the block's tokens, shape (batch, block).
            temperature: of the draw of clean tokens; 0 takes the likeliest.
            generator: draws the clean tokens, which of the three happens, and the random tokens.
            return_dict: return a `DiscreteDDIMSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: a negative temperature.
        """
        tokens, probabilities = sample_tokens(model_output, temperature, generator)
        tokens = tokens.astype(sample.dtype)
        classes, step = model_output.shape[-1], int(timestep)
        before, after = step / self.num_inference_steps, (step + 1) / self.num_inference_steps
        survival = before / after
        masses = np.array([after * (1 - survival), survival * (1 - after), (1 - survival) * (1 - after)]) / classes
        agrees = (sample == tokens).astype("float32")[..., None]
        routes = alike(masses.astype(np.float32), agrees) + agrees * alike(np.float32([before, 0, 0]), agrees)
        routes = categorical(routes / routes.sum(axis=-1, keepdims=True), generator)
        prev_sample = where(routes == 0, tokens, sample)
        prev_sample = where(routes != 2, prev_sample, random_tokens(classes, sample, generator))
        return as_output(DiscreteDDIMSchedulerOutput, return_dict, prev_sample, tokens, probabilities, model_output)

    def step_correct(
        self, model_output: Array, timestep: int, sample: Array, *, generator: Any = None, return_dict: bool = True
    ) -> DiscreteDDIMSchedulerOutput | tuple[Array, ...]:
        """Draw `corrector_k` positions of each sample anew, given all others; the distribution of samples stays as it is.

        Args:
            model_output: logits for `sample` itself, shape (batch, block, vocabulary).
            timestep: the step just made, not the last, after which nothing is random.
            sample: the block's tokens, shape (batch, block).
            generator: draws the positions, then the tokens.
            return_dict: return a `DiscreteDDIMSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: after the last step, or an unknown `corrector_selection`.
        """
        alpha, classes = (int(timestep) + 1) / self.num_inference_steps, model_output.shape[-1]
        if alpha >= 1:
            raise ConfigError(f"timestep is {timestep}; after the last of {self.num_inference_steps} steps there is nothing to correct")
        current = one_hot(sample, classes)
        # What the model has seen of the token itself is taken out (arXiv 2605.22765, equation 13). In float64, as upstream.
        logits = model_output.astype("float64") - current.astype("float64") * math.log1p(classes * alpha / (1 - alpha))
        conditional = log_add_exp(math.log(alpha) + logits - log_sum_exp(logits), math.log1p(-alpha) - math.log(classes))
        positions = self._select_positions(sample, conditional, current, generator)
        rows = alike(np.arange(sample.shape[0])[:, None], positions)
        chosen = exp(conditional[rows, positions])
        tokens = categorical(chosen, generator)
        prev_sample = sample.copy()
        tokens, probabilities = tokens.astype(sample.dtype), at(chosen, tokens)
        prev_sample[rows, positions] = tokens
        return as_output(DiscreteDDIMSchedulerOutput, return_dict, prev_sample, tokens, probabilities, model_output)

    def _select_positions(self, sample: Array, conditional: Array, current: Array, generator: Any) -> Array:
        selection = self.config.corrector_selection
        count = min(max(1, int(self.config.corrector_k)), sample.shape[1])
        if selection == "random":
            keys = uniform(sample.shape, generator, sample)
        else:
            own, likeliest = at(conditional, sample), largest(conditional)[..., 0]
            if selection == "lowest_maxprob":
                doubt = -likeliest
            elif selection == "lowest_current_prob":
                doubt = -own
            elif selection == "lowest_log_margin":
                doubt = largest(where(~current, conditional, -math.inf))[..., 0] - own
            else:
                raise ConfigError(
                    f"corrector_selection is {selection!r}; "
                    "expected 'lowest_log_margin', 'lowest_maxprob', 'lowest_current_prob' or 'random'"
                )
            keys = doubt / float(self.config.corrector_selection_tau) + gumbel(sample.shape, generator, sample, 1e-12)
        return order(keys, descending=True)[:, :count]
