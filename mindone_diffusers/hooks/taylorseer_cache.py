"""TaylorSeer (arXiv:2503.06923): between the steps that compute them, outputs of modules are predicted by Taylor series over the steps."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Tensor

from ..backend.precision import runnable_dtype
from ..core.errors import ConfigError
from ..core.logging import get_logger
from ..models.cache_utils import CacheConfig, CacheMixin, StepCache
from ..nn import functional as F
from .hooked_modules import Hook, HookedModules, Number

logger = get_logger(__name__)

ATTENTIONS = ("^blocks.*attn", "^transformer_blocks.*attn", "^single_transformer_blocks.*attn", "^temporal_transformer_blocks.*attn")
BLOCKS = (r"^[^.]*block[^.]*\.[^.]+$",)
OUTPUT_PROJECTION = ("^proj_out$",)


@dataclass
class TaylorSeerCacheConfig(CacheConfig):
    """
    Args:
        cache_interval: from one computation to the next.
        disable_cache_before_step: everything is computed at so many first steps, which the series need.
        disable_cache_after_step: everything is computed from this step on; None for no such step.
        max_order: of the series.
        taylor_factors_dtype: what their coefficients are kept in; None for the outputs' own. (The CPU has no bfloat16: float32 there.)
        skip_predict_identifiers: patterns that match the whole names of modules that give zeros when they are not computed.
        cache_identifiers: of modules that are predicted; by default those whose names end in "attn".
        use_lite_mode: instead of both, blocks give zeros, and the output projection (`proj_out`) is predicted.
    """

    cache_interval: int = 5
    disable_cache_before_step: int = 3
    disable_cache_after_step: int | None = None
    max_order: int = 1
    taylor_factors_dtype: Any = ms.bfloat16
    skip_predict_identifiers: list[str] | None = None
    cache_identifiers: list[str] | None = None
    use_lite_mode: bool = False

    def make_cache(self, model: CacheMixin) -> StepCache:
        return _TaylorSeerCache(model, self)


def apply_taylorseer_cache(module: CacheMixin, config: TaylorSeerCacheConfig) -> None:
    """`module.enable_cache(config)`, as a function."""
    module.enable_cache(config)


class _Predicted(Hook):
    """States: the output's divided differences of order 0, 1, ... Numbers: the series' coefficients, and the reciprocals of the steps
    between two computations, 0 for differences that need more of them."""

    step_orders: int

    def construct(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.step_action == "zeros":
            return F.zeros(self.step_shape, self.step_dtype)
        if self.step_action == "predict":
            output = F.zeros(self.step_shape, self.step_dtype)
            for i in range(self.step_orders):
                coefficient = getattr(self, f"step_number_{i}").astype(self.step_dtype)
                output = output + getattr(self, f"step_state_{i}").astype(self.step_dtype) * coefficient
            return output
        output = self.unhooked(self, *args, **kwargs)
        if self.step_action == "compute":
            difference, differences = output, (output,)
            for i in range(1, self.step_orders):
                scale = getattr(self, f"step_number_{self.step_orders + i - 1}").astype(output.dtype)
                difference = (difference - getattr(self, f"step_state_{i - 1}").astype(output.dtype)) * scale
                differences += (difference,)
            for i in range(self.step_orders):
                state = getattr(self, f"step_state_{i}")
                F.assign(state, differences[i].astype(state.dtype))
        return output


@dataclass
class _State:
    """Steps so far, the last computed one, and how many differences it had."""

    step: int = 0
    computed: int | None = None
    orders: int = 0


class _TaylorSeerCache(StepCache):
    """Nothing is read from the device. In graph mode there are two graphs a context: one computes, one predicts."""

    def __init__(self, model: CacheMixin, config: TaylorSeerCacheConfig):
        super().__init__()
        zeros, predicted = config.skip_predict_identifiers or [], config.cache_identifiers or ATTENTIONS
        if config.use_lite_mode:
            if config.skip_predict_identifiers or config.cache_identifiers:
                logger.warning("use_lite_mode takes the place of skip_predict_identifiers and cache_identifiers.")
            zeros, predicted = BLOCKS, OUTPUT_PROJECTION
        modules = {name: module for name, module in model.cells_and_names() if _matches(name, [*zeros, *predicted])}
        if not modules:
            logger.warning("TaylorSeer caches nothing: no module of the model has a name that cache_identifiers match.")
        self.config, self.zeros = config, {name for name in modules if _matches(name, zeros)}
        self.numbers = [Number(f"step_number_{i}") for i in range(2 * config.max_order + 1)]
        self.computing = {name: "let" if name in self.zeros else "compute" for name in modules}
        self.predicting = {name: "zeros" if name in self.zeros else "predict" for name in modules}
        numbers = dict.fromkeys(modules, self.numbers)
        self.hooked = HookedModules(modules, _Predicted, self._first, numbers, {"step_orders": config.max_order + 1})

    def _first(self, name: str, output: Tensor) -> tuple[Tensor, ...]:
        if name in self.zeros:
            return ()
        factors = output.astype(runnable_dtype(self.config.taylor_factors_dtype) or output.dtype)
        return (factors,) + (F.zeros(factors.shape, factors.dtype),) * self.config.max_order

    def run(self, model: CacheMixin, *args: Any) -> tuple:
        state, config = self.state(model, _State), self.config
        computes = (
            state.step < config.disable_cache_before_step
            or (state.step - config.disable_cache_before_step - 1) % config.cache_interval == 0
            or (config.disable_cache_after_step is not None and state.step >= config.disable_cache_after_step)
        )
        if state.computed is None and not computes:
            raise ConfigError("TaylorSeer cannot predict the first step: disable_cache_before_step has to be 1 or more.")
        since = 0 if state.computed is None else state.step - state.computed
        coefficients = [since**order / math.factorial(order) for order in range(config.max_order + 1)]
        scales = [1 / since if order < state.orders else 0.0 for order in range(config.max_order)]
        for number, value in zip(self.numbers, coefficients + scales):
            number.write(value)
        output = self.hooked.run(model, args, self.computing if computes else self.predicting)
        if computes:
            state.computed, state.orders = state.step, state.orders + 1
        state.step += 1
        return output


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
