"""Names and modules that are loaded when first used, so that importing the package stays cheap."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def exports(
    package: str, table: Mapping[str, tuple[str, ...]], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that exports names of its modules.

    Args:
        package: the package's `__name__`.
        table: module (relative to the package) to the names it defines.
        modules: modules of the package that are its attributes without having been imported.
    """
    module_of = {name: module for module, names in table.items() for name in names}
    names = sorted(module_of)

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module_of[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: names, names


class _Alias(ModuleType):
    """A module under another name."""

    def __init__(self, name: str, target: str):
        super().__init__(name, f"The same as `{target}`.")
        self.__dict__["_target"] = target
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self._target), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self._target))


def register_aliases(package: str, aliases: Mapping[str, str]) -> None:
    """Make each `package.alias` importable as `package.target`; the target is loaded when a name of it is first used."""
    for alias, target in aliases.items():
        name = f"{package}.{alias}"
        sys.modules[name] = _Alias(name, f"{package}.{target}" if target else package)


def when_imported(name: str, function: Callable[[], None]) -> None:
    """Call `function` as soon as the module `name` is imported, by whomever: at once if it is already, else right after its import."""
    if name in sys.modules:
        function()
    else:
        sys.meta_path.insert(0, _Announcing(name, function))


class _Announcing:
    """A finder for one module, which finds it as Python does and calls `function` once it was executed."""

    def __init__(self, name: str, function: Callable[[], None]):
        self.name, self.function = name, function

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == self.name else None
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(self)
                self.function()

            spec.loader.exec_module = exec_module
        return spec
