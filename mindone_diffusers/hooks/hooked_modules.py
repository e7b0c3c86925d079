"""Modules whose calls a cache replaces while the model runs a step, eagerly or as a part of its graph."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor

from .. import nn
from ..backend.description import describe_arguments, digest
from ..models.cache_utils import CacheMixin


class Hook:
    """What a module is meanwhile, beside what it was. Subclasses have a `construct`, which a graph can hold.

    Attributes:
        step_action: what the cache has decided for this step; another one is another graph.
        step_state_0, step_state_1, ...: what is kept from step to step: parameters, so that graphs can write them.
        step_number_0, step_number_1, ...: scalars that change from step to step without another graph: parameters, too.
        step_shape, step_dtype: of the module's output.
        unhooked: the module's own `construct`, to be given the module.
    """

    step_action: str
    step_shape: tuple[int, ...]
    step_dtype: ms.Type
    unhooked: Callable[..., Tensor]


class _Measure(Hook):
    """Runs the module, and notes its output."""

    step_outputs: dict[str, Tensor]

    def construct(self, *args: Any, **kwargs: Any) -> Tensor:
        output = self.unhooked(self, *args, **kwargs)
        self.step_outputs[self.step_action] = output
        return output


class Number:
    """A scalar that graphs read and the host writes."""

    def __init__(self, name: str):
        self.parameter, self._value = _parameter(Tensor(0.0, ms.float32), name), 0.0

    def write(self, value: float) -> None:
        if value != self._value:
            self.parameter.copy_(Tensor(value, ms.float32))
            self._value = value


class HookedModules:
    """The modules of a model that a cache hooks, and their states: one set for each context and for inputs of each shape.

    Args:
        modules: by their names in the model.
        hook: what is done to them.
        first_states: the states after a module's first output.
        numbers: the numbers of each module.
        constants: further attributes of the hook.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        hook: type[Hook],
        first_states: Callable[[str, Tensor], tuple[Tensor, ...]],
        numbers: Mapping[str, Sequence[Number]] | None = None,
        constants: Mapping[str, Any] | None = None,
    ):
        self._modules, self._hook, self._first_states = modules, hook, first_states
        self._numbers, self._constants = dict.fromkeys(modules, ()) if numbers is None else numbers, constants or {}
        self._attributes: dict[str, dict[str, dict[str, Any]]] = {}

    def run(self, model: CacheMixin, args: tuple, actions: Mapping[str, str], like: tuple | None = None) -> tuple:
        """A step of the model. The first with inputs of a shape runs eagerly, and every module computes: only then the shapes of the
        states are known.

        Args:
            args: of `construct`.
            actions: each module's.
            like: arguments of a step that had the same states, if these are not of one shape.
        """
        key = digest((repr(model.active_cache_context), describe_arguments(args if like is None else like)))
        if key not in self._attributes:
            outputs: dict[str, Tensor] = {}
            with self._hooked(_Measure, {name: {"step_action": name, "step_outputs": outputs} for name in self._modules}):
                result = model.run_eagerly(*args)
            self._attributes[key] = {name: self._attributes_after(name, output) for name, output in outputs.items()}
            return result
        attributes = {name: {**own, "step_action": actions[name]} for name, own in self._attributes[key].items()}
        with model.cached_variant(key, tuple(actions.values())), self._hooked(self._hook, attributes):
            return model.run_uncached(*args)

    def copy_state(self, source: int, target: int) -> None:
        """In all modules, give one state the value of another one."""
        for attributes in self._attributes.values():
            for own in attributes.values():
                own[f"step_state_{target}"].copy_(own[f"step_state_{source}"])

    def _attributes_after(self, name: str, output: Tensor) -> dict[str, Any]:
        states = [_parameter(value, f"{name}.step_state_{i}") for i, value in enumerate(self._first_states(name, output))]
        numbers = [number.parameter for number in self._numbers[name]]
        named = {f"step_{kind}_{i}": value for kind, values in (("state", states), ("number", numbers)) for i, value in enumerate(values)}
        return {**named, **self._constants, "step_shape": output.shape, "step_dtype": output.dtype}

    def _hooked(self, hook: type[Hook], attributes: Mapping[str, Mapping[str, Any]]) -> contextlib.AbstractContextManager[None]:
        """Within the context, the modules are hooked, and have these attributes."""
        modules = {self._modules[name]: own for name, own in attributes.items()}
        return nn.overridden(hook, {module: {"unhooked": type(module).construct, **own} for module, own in modules.items()})


def _parameter(value: Tensor, name: str) -> ms.Parameter:
    """A parameter with a copy of the value, made on the device."""
    with nn.parameter_dtype(value.dtype):
        parameter = nn.Parameter(value.shape, requires_grad=False)
    parameter.name = name
    parameter.set_data(value.copy())
    return parameter
