"""What a component's entry in `model_index.json`, [library, class name], means here.

The entries are PyTorch diffusers' own, so that each library loads the other's folders. Only classes in this package's tables, and the
tokenizers and processors of transformers, are ever looked up: a module path that a file names is never imported.
"""

import importlib
import sys
from typing import Any

from .. import text_encoders
from ..core.errors import ConfigError, UnsupportedError
from ..models.modeling_utils import ModelMixin
from ..schedulers.scheduling_utils import SchedulerMixin

PACKAGE = __name__.split(".")[0]
FOLDERS = ("stable_diffusion",)
"""Folders of `pipelines/` whose classes are named by the folder instead of a library."""

_RENAMED = {"CLIPFeatureExtractor": "CLIPImageProcessor", "DPTFeatureExtractor": "DPTImageProcessor"}
"""Names in old checkpoints that transformers 5 no longer has."""

_PROCESSORS = ("PreTrainedTokenizerBase", "FeatureExtractionMixin", "ImageProcessingMixin", "ProcessorMixin")

Entry = tuple[str | None, str | None]


def component_class(library: str, name: str) -> type:
    """The class that the entry `[library, name]` stands for.

    Raises:
        UnsupportedError: no class of ours, and no tokenizer or processor of transformers.
    """
    if not isinstance(name, str):
        found = None
    elif library == "diffusers":
        found = _exported(sys.modules[PACKAGE], name, (ModelMixin, SchedulerMixin))
    elif library == "transformers":
        found = _exported(text_encoders, name, (ModelMixin,)) or _processor_class(name)
    elif library in FOLDERS:
        found = _exported(importlib.import_module(f".{library}", __package__), name, (ModelMixin,))
    else:
        found = None
    if found is None:
        raise UnsupportedError(
            f"the component class {name!r} of {library!r} is not one this library loads; load it yourself and pass it by its keyword, "
            "or pass None if the pipeline works without it"
        )
    return found


def component_entry(component: Any) -> Entry:
    """The entry for an object; `(None, None)` for None.

    Raises:
        ConfigError: it is no component of ours, e.g. a PyTorch model.
    """
    if component is None:
        return None, None
    module, name = type(component).__module__.split("."), type(component).__name__
    if module[0] == "transformers" and _is_processor(type(component)):
        return "transformers", name.removesuffix("Pil")
    if not isinstance(component, (ModelMixin, SchedulerMixin)):
        raise ConfigError(
            f"a {'.'.join(module)}.{name} cannot be a component here; expected a model or scheduler of {PACKAGE}, or a tokenizer or "
            "processor of transformers"
        )
    if module[0] != PACKAGE:
        return ".".join(module), name
    if module[1] == "text_encoders":
        return "transformers", name
    return (module[2] if module[1] == "pipelines" else "diffusers"), name


def pipeline_class(name: Any, base: type) -> type:
    """The pipeline class called `name`, a subclass of `base`.

    Raises:
        UnsupportedError: there is none, or `name` names a file with custom code.
    """
    found = _exported(sys.modules[PACKAGE], name, (base,)) if isinstance(name, str) else None
    if found is None:
        raise UnsupportedError(f"the pipeline class {name!r} is not one this library has; code that comes with a checkpoint is never run")
    return found


def _exported(module: Any, name: str, bases: tuple[type, ...]) -> type | None:
    found = getattr(module, name) if name in module.__all__ else None
    return found if isinstance(found, type) and issubclass(found, bases) else None


def _is_processor(kind: type) -> bool:
    """Whether it is a tokenizer or processor of transformers. Its bases are told by their names: to import them is to import torch, where
    that is installed, which takes seconds."""
    return any(base.__name__ in _PROCESSORS and base.__module__.split(".")[0] == "transformers" for base in kind.__mro__)


def _processor_class(name: str) -> type | None:
    """A tokenizer or processor of transformers; the image processors are those on Pillow and NumPy, which need no torch."""
    import transformers

    name = _RENAMED.get(name, name)
    for candidate in (f"{name.removesuffix('Pil')}Pil", name):
        found = getattr(transformers, candidate, None)
        if isinstance(found, type) and _is_processor(found):
            return found
    return None
