"""`BaseOutput`: what models, schedulers and pipelines return with `return_dict=True`."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NoReturn


class BaseOutput(dict):
    """Base of output dataclasses: a field is read as an attribute, by name, or by position among the fields that are not None.

    ```python
    @dataclass
    class UNet2DConditionOutput(BaseOutput):
        sample: Tensor

    out = UNet2DConditionOutput(sample=x)
    out.sample is out["sample"] is out[0] is out.to_tuple()[0]
    ```

    As a mapping it holds the fields that are not None, in the order they are declared. Setting an attribute or an item sets both.
    Iterating gives names, as for any mapping: unpack `out.to_tuple()`.
    """

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():  # the fields, in their order
            if value is not None:
                dict.__setitem__(self, name, value)

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.__dict__:
            self._refuse()
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self and value is not None:
            dict.__setitem__(self, name, value)
        self.__dict__[name] = value

    def __reduce__(self) -> tuple:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not None, in field order."""
        return tuple(self.values())

    def replace_each(self, function: Callable[[Any], Any]) -> None:
        """Replace every value that is not None by what a function makes of it."""
        for name, value in self.items():
            value = function(value)
            dict.__setitem__(self, name, value)
            self.__dict__[name] = value

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"the fields of a {type(self).__name__} are fixed: none can be added or removed; set one with `output.name = value`"
        )

    __delitem__ = setdefault = pop = popitem = clear = update = _refuse
