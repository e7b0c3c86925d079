"""Discrete diffusion of quantised images that replaces and masks tokens: VQ-Diffusion (arXiv 2111.14822)."""

from typing import Any

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, alike
from .scheduling_utils import SchedulerMixin, SchedulerOutput, as_output
from .tokens import gumbel, log_add_exp, log_sum_exp, where

VQDiffusionSchedulerOutput = SchedulerOutput

LOG_ZERO = np.log(np.float32(1e-30))


def index_to_log_onehot(x: Array, num_classes: int) -> Array:
    """Log one-hot vectors of tokens (batch, pixels): float32 of shape (batch, classes, pixels), log(1e-30) for 0."""
    other = x[:, None] != alike(np.arange(num_classes)[:, None], x)
    return other.astype("float32") * float(LOG_ZERO)


def _linear(steps: int, start: float, end: float) -> np.ndarray:
    return np.arange(steps) / (steps - 1) * (end - start) + start


def _ratios(cumulative: np.ndarray) -> np.ndarray:
    """The factors of a cumulative product."""
    return cumulative / np.append(1, cumulative[:-1])


class VQDiffusionScheduler(SchedulerMixin):
    """Each step of the forward process keeps a token with probability a, draws it anew from all classes with b each, masks it with c.

    Args:
        num_vec_classes: number of classes, of which the last is the mask.
        num_train_timesteps: length of the schedule.
        alpha_cum_start: how likely a token is kept by the first step.
        alpha_cum_end: how likely by all steps.
        gamma_cum_start: how likely it is masked by the first step.
        gamma_cum_end: how likely by all steps.
    """

    @register_to_config
    def __init__(
        self, num_vec_classes: int, num_train_timesteps: int = 100, alpha_cum_start: float = 0.99999, alpha_cum_end: float = 0.000009,
        gamma_cum_start: float = 0.000009, gamma_cum_end: float = 0.99999,
    ):  # fmt: skip
        self.num_embed = num_vec_classes
        self.mask_class = num_vec_classes - 1
        keep = _linear(num_train_timesteps, alpha_cum_start, alpha_cum_end)
        mask = _linear(num_train_timesteps, gamma_cum_start, gamma_cum_end)
        self.log_at, self.log_bt, self.log_ct = self._logs(_ratios(keep), 1 - _ratios(1 - mask))
        # One more, at index -1: before timestep 0 nothing has happened.
        self.log_cumprod_at, self.log_cumprod_bt, self.log_cumprod_ct = self._logs(np.append(keep, 1), np.append(mask, 0))
        self.num_inference_steps: int | None = None
        self.timesteps = np.arange(num_train_timesteps)[::-1]

    def _logs(self, keep: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
        with np.errstate(divide="ignore"):
            return [np.log(p).astype(np.float32) for p in (keep, (1 - keep - mask) / self.mask_class, mask)]

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """The last `num_inference_steps` of the reverse process, all of them in practice; `device` is ignored."""
        self.num_inference_steps = num_inference_steps
        self.timesteps = np.arange(num_inference_steps)[::-1]

    def step(
        self, model_output: Array, timestep: int, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> VQDiffusionSchedulerOutput | tuple[Array]:
        """Tokens of the timestep before, drawn by the Gumbel trick from the posterior (equation 11), or at timestep 0 from the prediction.

        Args:
            model_output: log probabilities of the clean tokens, which are never masked, shape (batch, classes - 1, pixels).
            timestep: the current one of `timesteps`.
            sample: tokens, shape (batch, pixels).
            generator: draws the noise.
            return_dict: return a `VQDiffusionSchedulerOutput`, else a tuple.
        """
        log_p = model_output if timestep == 0 else self.q_posterior(model_output, sample, timestep)
        prev_sample = (log_p + gumbel(log_p.shape, generator, log_p, 1e-30)).argmax(axis=1).astype(sample.dtype)
        return as_output(VQDiffusionSchedulerOutput, return_dict, prev_sample)

    def q_posterior(self, log_p_x_0: Array, x_t: Array, t: int) -> Array:
        """Log probabilities of the tokens at t - 1: the sum over x_0 of q(x_t | x_t-1) q(x_t-1 | x_0) p(x_0) / q(x_t | x_0) (equation 11).

        Args:
            log_p_x_0: log probabilities of the clean tokens, shape (batch, classes - 1, pixels).
            x_t: tokens at t, shape (batch, pixels).
            t: the timestep.

        Returns:
            Shape (batch, classes, pixels).
        """
        log_onehot = index_to_log_onehot(x_t, self.num_embed)
        whole, single = (
            self.log_Q_t_transitioning_to_known_class(t=t, x_t=x_t, log_onehot_x_t=log_onehot, cumulative=cumulative)
            for cumulative in (True, False)
        )
        q = log_p_x_0 - whole
        total = log_sum_exp(q, axis=1)
        return self.apply_cumulative_transitions(q - total, int(t) - 1) + single + total

    def log_Q_t_transitioning_to_known_class(self, *, t: int, x_t: Array, log_onehot_x_t: Array, cumulative: bool) -> Array:
        """Log probabilities of arriving at the tokens x_t, from each class.

        Args:
            t: the timestep.
            x_t: tokens, shape (batch, pixels).
            log_onehot_x_t: `index_to_log_onehot(x_t, num_vec_classes)`.
            cumulative: by all steps up to t from a clean token, else by step t alone.

        Returns:
            Shape (batch, classes - 1, pixels) if cumulative, since clean tokens are not masked, else (batch, classes, pixels).
        """
        tables = (self.log_cumprod_at, self.log_cumprod_bt, self.log_cumprod_ct) if cumulative else (self.log_at, self.log_bt, self.log_ct)
        a, b, c = (table[int(t)] for table in tables)
        same, other = (float(np.logaddexp(log_hot + a, b)) for log_hot in (np.float32(0), LOG_ZERO))
        unmasked = x_t != self.mask_class
        others = where(unmasked, unmasked.astype("float32") * other, float(c))
        log_q = where(log_onehot_x_t[:, :-1] < 0, others[:, None], same)
        return log_q if cumulative else _with_mask_class(log_q, log_onehot_x_t[:, -1:])

    def apply_cumulative_transitions(self, q: Array, t: int) -> Array:
        """Log probabilities (batch, classes - 1, pixels) of clean tokens after all steps up to t: (batch, classes, pixels)."""
        a, b, c = (float(table[int(t)]) for table in (self.log_cumprod_at, self.log_cumprod_bt, self.log_cumprod_ct))
        return _with_mask_class(log_add_exp(q + a, b), c)


def _with_mask_class(values: Array, last: Array | float) -> Array:
    """Values (batch, classes - 1, pixels) and those of the last class."""
    batch, classes, pixels = values.shape
    result = alike(np.zeros((batch, classes + 1, pixels), np.float32), values)
    result[:, :-1] = values
    result[:, -1:] = last
    return result
