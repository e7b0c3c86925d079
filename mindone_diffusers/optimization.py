"""Learning-rate schedules, with which a training loop written for PyTorch diffusers reads the same:

    lr_scheduler = get_scheduler("cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=10_000)
    ...
    lr_scheduler.step()
    lr_scheduler.get_last_lr()[0]

A schedule is a function of the step that multiplies the initial learning rate. It is computed on the host, in float64, and never reads the
device. `lr_scheduler.lr_lambdas[0](step)` is that function; a number in the optimizer's place gives the schedule alone.
"""

import math
from collections.abc import Callable
from enum import Enum
from typing import Any

import mindspore as ms
import numpy as np

from .core.errors import ConfigError


class SchedulerType(Enum):
    """The names that `get_scheduler` takes."""

    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    POLYNOMIAL = "polynomial"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    PIECEWISE_CONSTANT = "piecewise_constant"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(f"{value!r} is not a learning-rate schedule; expected one of {', '.join(member.value for member in cls)}")


class LambdaLR:
    """Sets an optimizer's learning rates to their initial values times a function of the step, as `torch.optim.lr_scheduler.LambdaLR` does.

    A learning rate that is a Parameter is written in place, so that a compiled training step sees it and is not compiled again.

    Args:
        optimizer: one of

            - an optimizer with `param_groups`: ours, `mindspore.mint.optim`'s, `mindspore.experimental.optim`'s;
            - a `mindspore.nn` optimizer, or another object whose `learning_rate` or `lr` is a Parameter or a tuple of them. It is given
              `param_groups`, one a distinct Parameter, that hold "lr" and "initial_lr";
            - a number: the schedule alone, for that initial learning rate.
        lr_lambda: from the step, counted from 0, to the factor.
        last_epoch: the last step that was made, when the same optimizer goes on with a new scheduler; -1 to start.

    Raises:
        TypeError: `optimizer` has no learning rate that can be set.
        ConfigError: the `mindspore.nn` optimizer was built with a schedule of its own.
        KeyError: `last_epoch` is not -1, and no scheduler has recorded an "initial_lr" in the optimizer. To resume in another process,
            build the scheduler with -1 and call `load_state_dict`.
    """

    def __init__(self, optimizer: Any, lr_lambda: Callable[[int], float], last_epoch: int = -1):
        self._groups = _param_groups(optimizer)
        for index, group in enumerate(self._groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _to_float(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"last_epoch={last_epoch}, but param_groups[{index}] of the optimizer has no 'initial_lr': no scheduler has used it. "
                    "To resume, build the scheduler with last_epoch=-1 and call its load_state_dict()"
                )
        self.optimizer = optimizer
        self.base_lrs = [_to_float(group["initial_lr"]) for group in self._groups]
        self.lr_lambdas = [lr_lambda] * len(self._groups)
        self.last_epoch = last_epoch
        self.step()

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step, or to step `epoch`. Call it after the optimizer's own step."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set([base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas)])

    def _set(self, rates: list[float]) -> None:
        self._last_lr = rates
        for group, rate in zip(self._groups, rates, strict=True):
            if isinstance(group["lr"], ms.Tensor):
                group["lr"].copy_(ms.Tensor(rate, group["lr"].dtype))  # what compiled graphs see
            else:
                group["lr"] = rate

    def get_last_lr(self) -> list[float]:
        """The learning rates that are set now, one a group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers in lists, which JSON can hold; PyTorch's LambdaLR takes them too."""
        return {
            "base_lrs": list(self.base_lrs),
            "last_epoch": self.last_epoch,
            "_step_count": self.last_epoch + 1,
            "_last_lr": self.get_last_lr(),
            "lr_lambdas": [None] * len(self.lr_lambdas),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict()`, of this class or of PyTorch's, was taken; sets the optimizer's learning rates too.

        Raises:
            ConfigError: it is of an optimizer with another number of groups.
        """
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ConfigError(f"the state has {len(state_dict['base_lrs'])} learning rates; this optimizer has {len(self.base_lrs)}")
        self.base_lrs = list(state_dict["base_lrs"])
        self.last_epoch = state_dict["last_epoch"]
        self._set(list(state_dict["_last_lr"]))


def _param_groups(optimizer: Any) -> list[dict[str, Any]]:
    """torch's `optimizer.param_groups`; `mindspore.nn` optimizers, which have none, are given them."""
    if isinstance(optimizer, (int, float)):
        return [{"lr": float(optimizer)}]
    if not hasattr(optimizer, "param_groups"):
        rates = getattr(optimizer, "learning_rate", getattr(optimizer, "lr", None))
        rates = rates if isinstance(rates, tuple) else (rates,)
        if not all(isinstance(rate, ms.Parameter) for rate in rates):
            if getattr(optimizer, "dynamic_lr", False):
                raise ConfigError(
                    f"the {type(optimizer).__name__} was built with a learning-rate schedule of its own; build it with a number instead"
                )
            raise TypeError(
                f"a {type(optimizer).__name__} is not an optimizer: it has neither `param_groups` nor a Parameter `learning_rate` or `lr`"
            )
        # A mindspore.nn optimizer with groups lists the group's Parameter once for each of its weights.
        optimizer.param_groups = [{"lr": rate} for rate in {id(rate): rate for rate in rates}.values()]
    return optimizer.param_groups


def _default_lr(optimizer: Any) -> float:
    """The initial learning rate of groups that have none of their own; the first group's, where the optimizer does not keep it."""
    if hasattr(optimizer, "defaults"):
        return _to_float(optimizer.defaults["lr"])
    group = _param_groups(optimizer)[0]
    return _to_float(group.get("initial_lr", group["lr"]))


def _to_float(rate: Any) -> float:
    """A learning rate as a Python number; of a float32 one, the shortest number that rounds to it, which is what the user wrote."""
    return float(str(np.float32(rate.asnumpy().item()))) if isinstance(rate, ms.Tensor) else float(rate)


def _with_warmup(num_warmup_steps: int, after: Callable[[int], float]) -> Callable[[int], float]:
    """From 0 to 1 linearly, then `after` (a function of the step, not of the steps after the warmup)."""

    def factor(step: int) -> float:
        return step / max(1, num_warmup_steps) if step < num_warmup_steps else after(step)

    return factor


def _progress(step: int, num_warmup_steps: int, num_training_steps: int) -> float:
    """The part of the steps after the warmup that is done: 1 at the last step, and more beyond."""
    return (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)


def get_constant_schedule(optimizer: Any, last_epoch: int = -1) -> LambdaLR:
    """The initial learning rate, always.

    Args:
        optimizer: see `LambdaLR`.
        last_epoch: see `LambdaLR`.
    """
    return LambdaLR(optimizer, lambda step: 1.0, last_epoch)


def get_constant_schedule_with_warmup(optimizer: Any, num_warmup_steps: int, last_epoch: int = -1) -> LambdaLR:
    """From 0 up linearly to the initial learning rate, which then stays.

    Args:
        optimizer: see `LambdaLR`.
        num_warmup_steps: length of the rise.
        last_epoch: see `LambdaLR`.
    """
    return LambdaLR(optimizer, _with_warmup(num_warmup_steps, lambda step: 1.0), last_epoch)


def get_piecewise_constant_schedule(optimizer: Any, step_rules: str, last_epoch: int = -1) -> LambdaLR:
    """Multiples of the initial learning rate that change at given steps.

    Args:
        optimizer: see `LambdaLR`.
        step_rules: "1:10,0.1:20,0.01:30,0.005" is 1 before step 10, 0.1 before step 20, 0.01 before step 30, and then 0.005.
        last_epoch: see `LambdaLR`.

    Raises:
        ConfigError: `step_rules` is not of that form.
    """
    *rules, last = step_rules.split(",")
    try:
        pairs = [rule.split(":") for rule in rules]
        factors = {int(before): float(factor) for factor, before in pairs}
        last_factor = float(last)
    except ValueError as error:
        raise ConfigError(f"step_rules is {step_rules!r}; expected 'factor:step,...,factor', e.g. '1:10,0.1:20,0.01'") from error

    def factor(step: int) -> float:
        return next((factors[before] for before in sorted(factors) if step < before), last_factor)

    return LambdaLR(optimizer, factor, last_epoch)


def get_linear_schedule_with_warmup(
    optimizer: Any,
    num_warmup_steps: int,
    num_training_steps: int,
    last_epoch: int = -1,
    f_min: float = 0.0,
    f_max: float = 1.0,
) -> LambdaLR:
    """From 0 up linearly to `f_max` times the initial learning rate, then down linearly to `f_min` times it.

    Args:
        optimizer: see `LambdaLR`.
        num_warmup_steps: length of the rise.
        num_training_steps: the step at which the lowest value is reached.
        last_epoch: see `LambdaLR`.
        f_min: factor at the end.
        f_max: factor at the peak.
    """

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return f_max * step / max(1, num_warmup_steps)
        left = (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps)
        return f_min + (f_max - f_min) * max(0.0, left)

    return LambdaLR(optimizer, factor, last_epoch)


def get_cosine_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5, last_epoch: int = -1
) -> LambdaLR:
    """From 0 up linearly to the initial learning rate, then along a cosine (arXiv 1608.03983), by default half a period down to 0.

    Args:
        optimizer: see `LambdaLR`.
        num_warmup_steps: length of the rise.
        num_training_steps: the step at which the last period ends.
        num_cycles: number of periods.
        last_epoch: see `LambdaLR`.
    """

    def cosine(step: int) -> float:
        return max(0.0, 0.5 * (1 + math.cos(math.pi * num_cycles * 2 * _progress(step, num_warmup_steps, num_training_steps))))

    return LambdaLR(optimizer, _with_warmup(num_warmup_steps, cosine), last_epoch)


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1, last_epoch: int = -1
) -> LambdaLR:
    """From 0 up linearly to the initial learning rate, then half cosines from it to 0, one after the other (arXiv 1608.03983).

    Args:
        optimizer: see `LambdaLR`.
        num_warmup_steps: length of the rise.
        num_training_steps: the step at which the last of them ends; 0 from there on.
        num_cycles: number of half cosines.
        last_epoch: see `LambdaLR`.
    """

    def cosine(step: int) -> float:
        progress = _progress(step, num_warmup_steps, num_training_steps)
        return 0.0 if progress >= 1 else max(0.0, 0.5 * (1 + math.cos(math.pi * (num_cycles * progress % 1))))

    return LambdaLR(optimizer, _with_warmup(num_warmup_steps, cosine), last_epoch)


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, num_training_steps: int, lr_end: float = 1e-7, power: float = 1.0, last_epoch: int = -1
) -> LambdaLR:
    """From 0 up linearly to the initial learning rate, then down to `lr_end` as a power of the steps that are left.

    Without steps after the warmup the peak is its last step's value; PyTorch diffusers divides by zero there.

    Args:
        optimizer: see `LambdaLR`. With several learning rates, `lr_end` is reached by the optimizer's default one (by the first one, if
            the optimizer does not keep its default), and by the others in proportion.
        num_warmup_steps: length of the rise.
        num_training_steps: the step at which `lr_end` is reached; it stays from there on.
        lr_end: the last learning rate, smaller than the initial one.
        power: 1 is a straight line.
        last_epoch: see `LambdaLR`.

    Raises:
        ConfigError: `lr_end` is not smaller than the initial learning rate.
    """
    lr_init = _default_lr(optimizer)
    if not lr_init > lr_end:
        raise ConfigError(f"lr_end is {lr_end}; expected less than the initial learning rate, which is {lr_init}")

    def decay(step: int) -> float:
        if step > num_training_steps:
            return lr_end / lr_init
        left = 1 - _progress(step, num_warmup_steps, num_training_steps)
        return ((lr_init - lr_end) * left**power + lr_end) / lr_init

    return LambdaLR(optimizer, _with_warmup(num_warmup_steps, decay), last_epoch)


TYPE_TO_SCHEDULER_FUNCTION = {
    SchedulerType.LINEAR: get_linear_schedule_with_warmup,
    SchedulerType.COSINE: get_cosine_schedule_with_warmup,
    SchedulerType.COSINE_WITH_RESTARTS: get_cosine_with_hard_restarts_schedule_with_warmup,
    SchedulerType.POLYNOMIAL: get_polynomial_decay_schedule_with_warmup,
    SchedulerType.CONSTANT: get_constant_schedule,
    SchedulerType.CONSTANT_WITH_WARMUP: get_constant_schedule_with_warmup,
    SchedulerType.PIECEWISE_CONSTANT: get_piecewise_constant_schedule,
}

_WARMUP, _LENGTH = ("num_warmup_steps",), ("num_warmup_steps", "num_training_steps")
# `num_cycles` counts another thing in "cosine", which keeps its default.
_ARGUMENTS = {
    SchedulerType.LINEAR: _LENGTH,
    SchedulerType.COSINE: _LENGTH,
    SchedulerType.COSINE_WITH_RESTARTS: (*_LENGTH, "num_cycles"),
    SchedulerType.POLYNOMIAL: (*_LENGTH, "power"),
    SchedulerType.CONSTANT: (),
    SchedulerType.CONSTANT_WITH_WARMUP: _WARMUP,
    SchedulerType.PIECEWISE_CONSTANT: ("step_rules",),
}


def get_scheduler(
    name: str | SchedulerType,
    optimizer: Any,
    step_rules: str | None = None,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    num_cycles: int = 1,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """A schedule by its name. Arguments that it does not have are not used, so that a training script can pass them all.

    Args:
        name: "constant", "constant_with_warmup", "piecewise_constant", "linear", "cosine", "cosine_with_restarts" or "polynomial".
        optimizer: see `LambdaLR`.
        step_rules: of "piecewise_constant", see `get_piecewise_constant_schedule`.
        num_warmup_steps: of all but "constant" and "piecewise_constant".
        num_training_steps: of "linear", "cosine", "cosine_with_restarts" and "polynomial".
        num_cycles: of "cosine_with_restarts".
        power: of "polynomial".
        last_epoch: see `LambdaLR`.

    Raises:
        ConfigError: no such schedule, or an argument that it needs is missing.
    """
    kind = SchedulerType(name)
    given = {
        "step_rules": step_rules, "num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps,
        "num_cycles": num_cycles, "power": power,
    }  # fmt: skip
    arguments = {argument: given[argument] for argument in _ARGUMENTS[kind]}
    missing = [argument for argument, value in arguments.items() if value is None]
    if missing:
        raise ConfigError(f"the schedule {kind.value!r} needs {' and '.join(missing)}")
    return TYPE_TO_SCHEDULER_FUNCTION[kind](optimizer, **arguments, last_epoch=last_epoch)
