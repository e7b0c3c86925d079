"""Optimisers with torch's names, arguments and results.

The state lives in Parameters, so that one compiled graph updates everything; what changes from step to step (learning rates, powers of
beta) is computed on the host and enters the graph as tensors, so that it never compiles again.
"""

from collections.abc import Iterable
from typing import Any

import mindspore as ms
import mindspore.nn
import numpy as np
from mindspore import Tensor, ops
from mindspore.common.initializer import initializer

from ..backend.precision import runnable_dtype

_adam = ops.AdamWeightDecay()
_half_square = ops.L2Loss()
_sum = ops.AddN()


def _zeros(parameter: ms.Parameter, name: str) -> ms.Parameter:
    return ms.Parameter(initializer("zeros", parameter.shape, ms.float32), name=f"{name}.{parameter.name}", requires_grad=False)


def _master(parameter: ms.Parameter) -> ms.Parameter:
    return ms.Parameter(parameter.astype(ms.float32), name=f"master.{parameter.name}", requires_grad=False)


def _approach(share: Tensor, average: ms.Parameter, parameter: ms.Parameter):
    return ops.assign_sub(average, (average - parameter.astype(average.dtype)) * share)


class MovingAverage(mindspore.nn.Cell):
    """Averages that move towards parameters, all in one compiled graph.

    Args:
        averages: one a parameter.
        parameters: those without `requires_grad` are copied instead.
    """

    def __init__(self, averages: list[ms.Parameter], parameters: list[ms.Parameter]):
        super().__init__(auto_prefix=False)
        trained = [pair for pair in zip(averages, parameters) if pair[1].requires_grad]
        frozen = [pair for pair in zip(averages, parameters) if not pair[1].requires_grad]
        self.averages, self.parameters_ = (tuple(part) for part in zip(*trained)) if trained else ((), ())
        self.copies, self.originals = (tuple(part) for part in zip(*frozen)) if frozen else ((), ())
        self._map = ops.HyperMap()
        self.step = ms.jit(self.move)

    def move(self, share: Tensor) -> Tensor:
        """average -= share * (average - parameter), with `share` a float32 tensor of rank 0."""
        if self.averages:
            self._map(ops.partial(_approach, share), self.averages, self.parameters_)
        if self.copies:
            self._map(_round, self.copies, self.originals)
        return share


def _adam_step(row: Tensor, factor: Tensor, parameter: ms.Parameter, exp_avg: ms.Parameter, exp_avg_sq: ms.Parameter, gradient: Tensor):
    return _adam(parameter, exp_avg, exp_avg_sq, row[0], row[1], row[2], row[3], row[4], gradient * factor)


def _round(parameter: ms.Parameter, master: ms.Parameter):
    return ops.assign(parameter, master.astype(parameter.dtype))


class AdamW(mindspore.nn.Cell):
    """Adam with decoupled weight decay, as `torch.optim.AdamW` computes it (arXiv 1711.05101), bias corrections included.

    Parameters in float16 or bfloat16 get a float32 copy, which is what is updated; they take its rounded value.

    Args:
        params: Parameters, or dictionaries with "params" and their own values of the other arguments.
        lr: learning rate; `param_groups[i]["lr"]` changes it.
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.
        weight_decay: each step multiplies a parameter by 1 - lr * weight_decay.

    Raises:
        ValueError: there is nothing to train, an argument is out of range, or parameters are in bfloat16 on the CPU, where MindSpore
            cannot write it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(auto_prefix=False)
        params = list(params)
        if not params:
            raise ValueError("AdamW got no parameters: pass `model.trainable_params()` of a model with requires_grad parameters")
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        self.param_groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        for group in self.param_groups:
            if not (
                group["lr"] >= 0 and group["eps"] >= 0 and group["weight_decay"] >= 0 and all(0 <= beta < 1 for beta in group["betas"])
            ):
                values = {name: value for name, value in group.items() if name != "params"}
                raise ValueError(f"AdamW got {values}; expected lr, eps, weight_decay >= 0 and 0 <= betas < 1")
        self.steps = 0
        flat = [parameter for group in self.param_groups for parameter in group["params"]]
        if any(runnable_dtype(parameter.dtype) != parameter.dtype for parameter in flat):
            raise ValueError("MindSpore cannot write bfloat16 parameters on the CPU: train in float32, after `model.to(mindspore.float32)`")
        self.params = ms.ParameterTuple(flat)
        self.exp_avg = ms.ParameterTuple([_zeros(parameter, "exp_avg") for parameter in flat])
        self.exp_avg_sq = ms.ParameterTuple([_zeros(parameter, "exp_avg_sq") for parameter in flat])
        # What is updated: the parameters themselves, or float32 copies of smaller ones.
        self.masters = ms.ParameterTuple([parameter if parameter.dtype == ms.float32 else _master(parameter) for parameter in flat])
        self._half = any(parameter.dtype != ms.float32 for parameter in flat)
        ends = np.cumsum([len(group["params"]) for group in self.param_groups]).tolist()
        self._slices = tuple(zip([0, *ends[:-1]], ends))
        self._map = ops.HyperMap()

    def hyperparameters(self) -> Tensor:
        """The next step's numbers, float32 of shape (groups, 5): learning rate, betas, eps and weight decay for MindSpore's operator.

        It knows no bias correction, which is a factor of the learning rate if eps and the weight decay are scaled against it.
        """
        self.steps += 1
        rows = []
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            root = (1 - beta2**self.steps) ** 0.5
            correction = root / (1 - beta1**self.steps)
            rows.append((group["lr"] * correction, beta1, beta2, group["eps"] * root, group["weight_decay"] / correction))
        return Tensor(np.array(rows, np.float32))

    def construct(self, gradients: tuple[Tensor, ...], hyperparameters: Tensor, factor: Tensor) -> Tensor:
        """Update every parameter.

        Args:
            gradients: float32, one a parameter.
            hyperparameters: `hyperparameters()`.
            factor: multiplies all gradients (clipping, undoing a loss scale).
        """
        for group in range(len(self._slices)):
            start, end = self._slices[group]
            self._map(
                ops.partial(_adam_step, hyperparameters[group], factor),
                self.masters[start:end],
                self.exp_avg[start:end],
                self.exp_avg_sq[start:end],
                gradients[start:end],
            )
        if self._half:
            self._map(_round, self.params, self.masters)
        return factor

    def state_dict(self) -> dict[str, Any]:
        """Moments (and float32 copies) by name, and the number of steps, as NumPy arrays."""
        return {name: parameter.asnumpy() for name, parameter in self._state().items()} | {"steps": np.array(self.steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the names are not those of this optimiser's parameters.
        """
        mine = self._state()
        different = sorted(mine.keys() ^ (state_dict.keys() - {"steps"}))
        if different:
            raise ValueError(f"the optimiser's state is of other parameters: {', '.join(different[:5])} ... are only on one side")
        for name, parameter in mine.items():
            parameter.copy_(Tensor(state_dict[name]))
        self.steps = int(state_dict["steps"])

    def _state(self) -> dict[str, ms.Parameter]:
        copies = [master for parameter, master in zip(self.params, self.masters) if master is not parameter]
        return {parameter.name: parameter for parameter in (*self.exp_avg, *self.exp_avg_sq, *copies)}


class _ScaledLoss(mindspore.nn.Cell):
    def __init__(self, loss: mindspore.nn.Cell):
        super().__init__(auto_prefix=False)
        self.loss = loss

    def construct(self, scale: Tensor, *batch: Tensor) -> Tensor:
        return self.loss(*batch) * scale


def _add(buffer: ms.Parameter, gradient: Tensor):
    return ops.assign_add(buffer, gradient.astype(ms.float32))


def _clear(buffer: ms.Parameter):
    return ops.assign(buffer, ops.zeros_like(buffer))


def _cast(gradient: Tensor):
    return gradient.astype(ms.float32)


def _assign(buffer: ms.Parameter, value: Tensor):
    return ops.assign(buffer, value)


def _mean_over_processes(factor: float, gradient: Tensor):
    return ops.AllReduce()(gradient) * factor


def _global_norm(map_over: ops.HyperMap, gradients: tuple[Tensor, ...]) -> Tensor:
    """The Euclidean norm of all gradients together."""
    return (_sum(map_over(_half_square, gradients)) * 2.0) ** 0.5


class GradientBuffers(mindspore.nn.Cell):
    """A float32 sum of gradients for each of an optimiser's parameters, and the graphs that fill and use it.

    Args:
        loss: its `construct(*batch)` returns a scalar.
        optimizer: takes the gradients.
        max_grad_norm: limit of their norm in an update, or None.
        data_parallel: average over the processes first.
    """

    def __init__(self, loss: mindspore.nn.Cell, optimizer: AdamW, max_grad_norm: float | None, data_parallel: bool):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.max_grad_norm, self.data_parallel = max_grad_norm, data_parallel
        self.buffers = ms.ParameterTuple([_zeros(parameter, "gradient") for parameter in optimizer.params])
        self._value_and_grad = ms.value_and_grad(_ScaledLoss(loss), None, optimizer.params)
        self._map = ops.HyperMap()
        self._share = 1.0
        if data_parallel:
            from mindspore.communication import get_group_size

            self._share = 1.0 / get_group_size()

    def functions(self, jit_level: str | None) -> tuple[Any, ...]:
        """`step`, `backward`, `norm`, `update` and `clear`, compiled unless the level is None."""
        found = (self.step, self.backward, self.norm, self.update, self.clear)
        return found if jit_level is None else tuple(ms.jit(function, jit_level=jit_level) for function in found)

    def step(self, hyperparameters: Tensor, one: Tensor, *batch: Tensor) -> Tensor:
        """The whole of a step that accumulates and scales nothing, without the sums; returns the loss."""
        value, gradients = self._value_and_grad(one, *batch)
        gradients = self._map(_cast, gradients)
        if self.data_parallel:
            gradients = self._map(ops.partial(_mean_over_processes, self._share), gradients)
        factor = one if self.max_grad_norm is None else self._limit(_global_norm(self._map, gradients), one)
        self.optimizer(gradients, hyperparameters, factor)
        return value

    def backward(self, scale: Tensor, *batch: Tensor) -> Tensor:
        """Add the gradients of the loss times `scale`; returns the loss."""
        value, gradients = self._value_and_grad(scale, *batch)
        self._map(_add, self.buffers, gradients)
        return value / scale

    def norm(self) -> Tensor:
        """The norm of the sums; with several processes, of their mean, which this makes of them."""
        if self.data_parallel:
            self._map(_assign, self.buffers, self._map(ops.partial(_mean_over_processes, self._share), self.buffers))
        return _global_norm(self._map, self.buffers)

    def update(self, hyperparameters: Tensor, factor: Tensor, norm: Tensor) -> Tensor:
        """The optimiser's step with the sums times `factor`, limited by what `norm()` returned; clears them."""
        if self.max_grad_norm is not None:
            factor = self._limit(norm, factor)
        self.optimizer(self.buffers, hyperparameters, factor)
        self.clear()
        return factor

    def clear(self) -> bool:
        self._map(_clear, self.buffers)
        return True

    def _limit(self, norm: Tensor, factor: Tensor) -> Tensor:
        """`factor`, or less if that makes gradients of this norm longer than the largest norm."""
        return ops.minimum(self.max_grad_norm / (norm + 1e-6), factor)
