"""`MultiModel`: several models of one kind as one component of a pipeline."""

import itertools
import os
from typing import Any, ClassVar

from .. import nn
from ..core.errors import ConfigError
from .modeling_utils import ModelMixin


class MultiModel(ModelMixin):
    """Base of models that hold a list of models and no config of their own. They are saved as folders `path`, `path_1`, `path_2`, ...

    Class attributes:
        _member_class: the class of the models.
        _members_name: name of the attribute that holds them.
    """

    _member_class: ClassVar[type[ModelMixin]]
    _members_name: ClassVar[str]

    def __init__(self, models: list[ModelMixin]):
        super().__init__()
        setattr(self, self._members_name, nn.ModuleList(models))

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Write each model into its folder. The arguments are those of the models' own `save_pretrained`."""
        for index, model in enumerate(getattr(self, self._members_name)):
            model.save_pretrained(_folder(save_directory, index), *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load the models of the folders `pretrained_model_path`, `..._1`, `..._2`, ... as far as there are any.

        Args:
            kwargs: arguments of the models' own `from_pretrained`.

        Raises:
            ConfigError: there is no folder `pretrained_model_path`.
        """
        models = [cls._member_class.from_pretrained(folder, **kwargs) for folder in _folders(pretrained_model_path)]
        if not models:
            raise ConfigError(
                f"{pretrained_model_path} is no folder; expected one with a {cls._member_class.__name__}, and the others beside it as "
                f"{_folder(pretrained_model_path, 1)}, ..."
            )
        return cls(models)

    @classmethod
    def _build(cls, path: str | os.PathLike, overrides: dict[str, Any], files: dict[str, Any]) -> "MultiModel":
        return cls([cls._member_class._build(folder, overrides, files) for folder in _folders(path)])

    def _check_lists(self, **values: Any) -> None:
        """Refuse arguments that are not one for each model. (PyTorch diffusers leaves out the models that have none.)"""
        count = len(getattr(self, self._members_name))
        for name, value in values.items():
            if not isinstance(value, (list, tuple)) or len(value) != count:
                got = f"{len(value)} entries" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"
                raise ValueError(f"{name} is {got}; expected a list of {count}, one for each {self._member_class.__name__}")


def _folders(path: str | os.PathLike) -> list[str]:
    """The folders that are there."""
    return list(itertools.takewhile(os.path.isdir, (_folder(path, index) for index in itertools.count())))


def _folder(path: str | os.PathLike, index: int) -> str:
    return os.fspath(path) + (f"_{index}" if index else "")
