"""Configurations: the arguments a model, scheduler or pipeline was built with, saved as JSON that PyTorch diffusers reads and writes."""

import functools
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from . import logging
from .dtypes import dtype_name
from .errors import CheckpointError, ConfigError, UnsupportedError
from .files import replaced_file

logger = logging.get_logger(__name__)

DIFFUSERS_VERSION = "0.42.1"
"""The PyTorch diffusers version whose configurations these are; written as `_diffusers_version`."""

_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
_NOT_SAVED = ("_ignore_files", "_use_default_values", "_pre_quantization_dtype")


class FrozenDict(dict):
    """A dictionary that cannot change and whose keys are also attributes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # As real attributes, so that a look-up costs no call. A key may be a number, as in `id2label`.
        vars(self).update((name, value) for name, value in self.items() if isinstance(name, str) and not hasattr(dict, name))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no {name!r}; it has {', '.join(map(str, self))}") from None

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ConfigError("a config cannot be changed in place: use register_to_config(name=value), or from_config(config, name=value)")

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = __ior__ = setdefault = pop = popitem = clear = update = _refuse

    def __reduce__(self) -> tuple:
        return FrozenDict, (dict(self),)


class ConfigMixin:
    """Base of everything that has a config: `self.config` holds the arguments of `__init__` (see `register_to_config`).

    Class attributes:
        config_name: name of the JSON file.
        ignore_for_config: arguments of `__init__` that are not part of the config.
        has_compatibles: whether configs of the classes named in `_compatibles` are accepted.
    """

    config_name: str | None = None
    ignore_for_config: ClassVar[list[str]] = []
    has_compatibles: bool = False
    _compatibles: ClassVar[list[str]] = []
    _auto_class: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # mindspore.nn.Cell.__getattr__ does not call super(): whatever the order of the bases, ours has to be found first.
        if "__getattr__" not in cls.__dict__ and cls.__getattr__ is not ConfigMixin.__getattr__:
            cls.__getattr__ = ConfigMixin.__getattr__

    def __getattr__(self, name: str) -> Any:
        for owner in type(self).__mro__:
            getter = owner.__dict__.get("__getattr__")
            if getter not in (None, ConfigMixin.__getattr__):
                try:
                    return getter(self, name)
                except AttributeError:
                    break
        kind = type(self).__name__
        # Not during __init__: Cell refuses to add a parameter whose name hasattr() already finds.
        if name in self.__dict__.get("_internal_dict", ()) and "_initialising" not in self.__dict__:
            warnings.warn(f"`{kind}.{name}` is deprecated: read it as `.config.{name}`", FutureWarning, stacklevel=2)
            return self._internal_dict[name]
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoModel") -> None:
        """Saved configs get an `auto_map` entry, so that `AutoModel.from_pretrained` finds this custom class."""
        if auto_class != "AutoModel":
            raise ConfigError(f"auto_class is {auto_class!r}; only 'AutoModel' is supported")
        cls._auto_class = auto_class

    @property
    def config(self) -> FrozenDict:
        """The arguments this object was built with."""
        return self._internal_dict

    def register_to_config(self, **kwargs: Any) -> None:
        """Add or replace entries of the config."""
        if self.config_name is None:
            raise UnsupportedError(f"{type(self).__name__} defines no `config_name`")
        # Not through Cell.__setattr__, which may not be called before Cell.__init__.
        object.__setattr__(self, "_internal_dict", FrozenDict({**self.__dict__.get("_internal_dict", {}), **kwargs}))

    # ---- writing

    def to_json_string(self) -> str:
        """The config as PyTorch diffusers writes it: keys sorted, two spaces, a newline at the end."""
        config = {k: v for k, v in self.__dict__.get("_internal_dict", {}).items() if k not in _NOT_SAVED}
        config |= {"_class_name": type(self).__name__, "_diffusers_version": DIFFUSERS_VERSION}
        if self._auto_class is not None:
            module = type(self).__module__.split(".")[-1]
            config["auto_map"] = {**config.get("auto_map", {}), self._auto_class: f"{module}.{type(self).__name__}"}
        return json.dumps(config, indent=2, sort_keys=True, default=_to_json) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike) -> None:
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")

    def save_config(self, save_directory: str | os.PathLike) -> None:
        """Write the config as `config_name` into `save_directory`, which is created if needed."""
        if os.path.isfile(save_directory):
            raise ConfigError(f"{save_directory} is a file; save_config wants a directory")
        os.makedirs(save_directory, exist_ok=True)
        with replaced_file(Path(save_directory, self.config_name)) as path:
            self.to_json_file(path)

    # ---- reading

    @classmethod
    def load_config(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        return_unused_kwargs: bool = False,
        return_commit_hash: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Read a config's JSON.

        Args:
            pretrained_model_name_or_path: the JSON file itself, a folder that holds `config_name`, or a repository on the hub.
            return_unused_kwargs: also return the keyword arguments that are not the hub's.
            return_commit_hash: also return the hash of the snapshot the file was found in, or None.
            kwargs: `subfolder`, `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.

        Returns:
            The dictionary, or a tuple that starts with it.

        Raises:
            CheckpointError: no such file or repository, or the file is not JSON.
        """
        from .hub import resolve_file

        if cls.config_name is None:
            raise ConfigError(f"{cls.__name__} defines no `config_name`: call load_config on a subclass that does")
        hub = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
        if kwargs and not return_unused_kwargs:
            raise TypeError(f"load_config() got unknown arguments {sorted(kwargs)}; it takes {', '.join(_HUB_ARGUMENTS)}")
        if os.path.isfile(pretrained_model_name_or_path):
            path = Path(pretrained_model_name_or_path)
        else:
            path = resolve_file(pretrained_model_name_or_path, cls.config_name, **hub)
        try:
            config = cls._dict_from_json_file(path)
        except ValueError as error:
            raise CheckpointError(f"{path} is not a valid JSON file: {error}") from error
        result = (config,)
        if return_unused_kwargs:
            result += (kwargs,)
        if return_commit_hash:
            commit = re.search(r"/snapshots/([0-9a-f]{40})/", path.as_posix())
            result += (commit and commit[1],)
        return result if len(result) > 1 else config

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> Any:
        """The old name of `load_config`."""
        warnings.warn("get_config_dict is deprecated: use load_config", FutureWarning, stacklevel=2)
        return cls.load_config(*args, **kwargs)

    @staticmethod
    def _dict_from_json_file(json_file: str | os.PathLike) -> dict[str, Any]:
        return json.loads(Path(json_file).read_text(encoding="utf-8"))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Build an object from a config.

        Args:
            config: the config of this class or of a compatible one.
            return_unused_kwargs: also return what `__init__` did not take.
            kwargs: override entries of the config.

        Entries that no compatible class knows are ignored with a warning. Entries that only compatible classes know are kept in the new
        object's config, so that going from one scheduler to another and back loses nothing.
        """
        if config is None or isinstance(config, (str, os.PathLike)):
            raise ConfigError(f"from_config wants a dictionary, not {config!r}: read it with {cls.__name__}.load_config(path)")
        arguments, unused, hidden = cls.extract_init_dict(config, **kwargs)
        self = cls(**arguments)
        if "_class_name" in hidden:
            hidden["_class_name"] = cls.__name__
        self.register_to_config(**hidden)
        return (self, {**unused, **hidden}) if return_unused_kwargs else self

    @classmethod
    def extract_init_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> tuple[dict, dict, dict]:
        """Split a config, overridden by `kwargs`, into (arguments of `__init__`, unused entries, hidden entries).

        Hidden entries are those the original config holds and `__init__` does not take; values that were only another class's defaults
        (`_use_default_values`) are left out, so that this class's own defaults apply.
        """
        defaults = {"_use_default_values", *config_dict.get("_use_default_values", ())}
        original = {k: v for k, v in config_dict.items() if k not in defaults}
        origin = original.get("_class_name", cls.__name__)
        if not isinstance(origin, (str, list, tuple)):
            raise ConfigError(f"`_class_name` is {origin!r}; expected a class name, or [module, class name] for a custom pipeline")

        own = cls._get_init_keys(cls)
        expected = [k for k in own if k not in cls.ignore_for_config]
        known_elsewhere = set()
        if cls.has_compatibles:
            known_elsewhere = {k for c in cls._get_compatibles() for k in cls._get_init_keys(c)} - set(own)
        origin_class = getattr(_library(), origin, None) if isinstance(origin, str) and origin != cls.__name__ else None
        if origin_class is not None:
            known_elsewhere |= set(cls._get_init_keys(origin_class)) - set(expected)

        rest = {k: v for k, v in original.items() if not k.startswith("_") and k not in known_elsewhere and k != "quantization_config"}
        arguments = {}
        for key in expected:
            found = rest.pop(key, inspect.Parameter.empty)
            value = kwargs.pop(key, found)
            if value is not inspect.Parameter.empty:
                arguments[key] = value
        if rest:
            logger.warning(f"{cls.__name__} does not know the config attributes {rest}, they are ignored: check {cls.config_name}")
        absent = [k for k in expected if k not in arguments]
        if absent:
            logger.info(f"{cls.__name__}: {absent} not in the config, the defaults are used")
        hidden = {k: v for k, v in original.items() if k not in arguments}
        return arguments, {**rest, **kwargs}, hidden

    @staticmethod
    def _get_init_keys(input_class: type) -> list[str]:
        """Names of the arguments of a class's `__init__`, in order."""
        return [k for k in inspect.signature(input_class.__init__).parameters if k not in ("self", "args", "kwargs")]

    @property
    def compatibles(self) -> list[type]:
        """The classes that can be built from this object's config."""
        return self._get_compatibles()

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        names = dict.fromkeys([cls.__name__, *cls._compatibles])
        return [getattr(_library(), name) for name in names if hasattr(_library(), name)]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def register_to_config(init: Callable) -> Callable:
    """Decorate the `__init__` of a `ConfigMixin`: its arguments, defaults included, become the config before the body runs.

    The names left at their defaults are noted in `_use_default_values`. Keyword arguments that start with an underscore go to the config
    only, not to `__init__`.
    """
    parameters = [p for p in list(inspect.signature(init).parameters.values())[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]

    @functools.wraps(init)
    def wrapper(self: ConfigMixin, *args: Any, **kwargs: Any) -> None:
        if not isinstance(self, ConfigMixin):
            raise RuntimeError(f"@register_to_config decorates __init__ of {type(self).__name__}, which is not a ConfigMixin")
        private = {k: v for k, v in kwargs.items() if k.startswith("_")}
        public = {k: v for k, v in kwargs.items() if not k.startswith("_")}
        given = {p.name: value for p, value in zip(parameters, args)} | public
        values = {p.name: given.get(p.name, p.default) for p in parameters if p.name not in self.ignore_for_config}
        missing = [name for name, value in values.items() if value is inspect.Parameter.empty]
        if not missing:  # otherwise the call below raises Python's own TypeError
            left = [name for name in values if name not in given]
            self.register_to_config(**private, **values, **({"_use_default_values": left} if left else {}))
        if "_initialising" in self.__dict__:  # called by a derived class's __init__
            init(self, *args, **public)
            return
        object.__setattr__(self, "_initialising", True)
        try:
            init(self, *args, **public)
        finally:
            object.__delattr__(self, "_initialising")

    return wrapper


def _library() -> Any:
    return sys.modules[__name__.split(".")[0]]


def _to_json(value: Any) -> Any:
    """What `json` cannot write itself."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    if callable(getattr(value, "to_dict", None)):
        return value.to_dict()
    if isinstance(value, np.dtype) or type(value).__module__.startswith(("mindspore", "torch")):
        return dtype_name(value)
    raise ConfigError(f"a {type(value).__name__} cannot be saved in a config: {value!r}")
