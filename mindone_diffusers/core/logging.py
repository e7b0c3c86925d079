"""Verbosity and progress bars, with the calls of `diffusers.utils.logging`.

The environment variable `DIFFUSERS_VERBOSITY` (debug, info, warning, error, critical) sets the level at import; the default is warning.
"""

import logging
import os
from collections.abc import Iterator
from functools import cache
from logging import CRITICAL, DEBUG, ERROR, FATAL, INFO, NOTSET, WARN, WARNING  # noqa: F401
from typing import Any

LIBRARY = __name__.split(".")[0]
log_levels = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR, "critical": CRITICAL}

_progress_bars = True


@cache
def _default_handler() -> logging.Handler:
    return logging.StreamHandler()


@cache
def _root() -> logging.Logger:
    root = logging.getLogger(LIBRARY)
    level = os.environ.get("DIFFUSERS_VERBOSITY") or "warning"
    root.setLevel(log_levels.get(level, WARNING))
    root.addHandler(_default_handler())
    root.propagate = False
    if level not in log_levels:
        root.warning(f"DIFFUSERS_VERBOSITY={level} is not one of {', '.join(log_levels)}: 'warning' is used")
    return root


def get_log_levels_dict() -> dict[str, int]:
    """The level names that `DIFFUSERS_VERBOSITY` takes."""
    return log_levels


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger `name`, or the library's own; its level and handlers are the library's."""
    _root()
    return logging.getLogger(name or LIBRARY)


def get_verbosity() -> int:
    """The library's current level, as an integer of `logging`."""
    return _root().getEffectiveLevel()


def set_verbosity(verbosity: int) -> None:
    """Set the library's level (`logging.INFO`, ...)."""
    _root().setLevel(verbosity)


def set_verbosity_debug() -> None:
    set_verbosity(DEBUG)


def set_verbosity_info() -> None:
    set_verbosity(INFO)


def set_verbosity_warning() -> None:
    set_verbosity(WARNING)


def set_verbosity_error() -> None:
    set_verbosity(ERROR)


def enable_default_handler() -> None:
    """Write the library's messages to standard error (the default)."""
    _root().addHandler(_default_handler())


def disable_default_handler() -> None:
    _root().removeHandler(_default_handler())


def add_handler(handler: logging.Handler) -> None:
    _root().addHandler(handler)


def remove_handler(handler: logging.Handler) -> None:
    """Remove `handler`; a ValueError if it was not added."""
    if handler not in _root().handlers:
        raise ValueError(f"{handler} is not a handler of the {LIBRARY} logger; its handlers are {_root().handlers}")
    _root().removeHandler(handler)


def enable_propagation() -> None:
    """Also hand messages to Python's root logger. Off by default; disable the default handler, or they are printed twice."""
    _root().propagate = True


def disable_propagation() -> None:
    _root().propagate = False


def enable_explicit_format() -> None:
    """Every current handler writes `[LEVEL|file:line] time >> message`."""
    for handler in _root().handlers:
        handler.setFormatter(logging.Formatter("[%(levelname)s|%(filename)s:%(lineno)s] %(asctime)s >> %(message)s"))


def reset_format() -> None:
    for handler in _root().handlers:
        handler.setFormatter(None)


class _SilentBar:
    """Takes the place of a tqdm bar while progress bars are disabled: iterates, and ignores every other call."""

    def __init__(self, iterable: Any = (), *args: Any, **kwargs: Any):
        self.iterable = iterable

    def __iter__(self) -> Iterator:
        return iter(self.iterable)

    def __enter__(self) -> "_SilentBar":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def tqdm(*args: Any, **kwargs: Any) -> Any:
    """`tqdm.auto.tqdm`, or a silent stand-in after `disable_progress_bar()`."""
    if not _progress_bars:
        return _SilentBar(*args, **kwargs)
    from tqdm.auto import tqdm as bar

    return bar(*args, **kwargs)


def is_progress_bar_enabled() -> bool:
    return _progress_bars


def enable_progress_bar() -> None:
    global _progress_bars
    _progress_bars = True


def disable_progress_bar() -> None:
    global _progress_bars
    _progress_bars = False
