"""Pipelines by task: the class that does a task with a checkpoint's components, or with another pipeline's."""

import os
import re
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ..core.configuration import ConfigMixin
from ..core.errors import ConfigError
from ..core.hub import MODEL_INDEX_NAME

FAMILIES = ("StableDiffusionXL", "StableDiffusion", "LatentConsistencyModel")
_NAME = re.compile(rf"({'|'.join(FAMILIES)})(ControlNetUnion|ControlNet|)(PAG|)(Img2Img|Inpaint|)Pipeline")
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


@dataclass(frozen=True)
class _Name:
    """A pipeline's class name, taken apart."""

    family: str
    control: str
    guidance: str
    task: str

    def __str__(self) -> str:
        return f"{self.family}{self.control}{self.guidance}{self.task}Pipeline"

    def pipeline_class(self) -> type:
        from .. import pipelines

        found = getattr(pipelines, str(self), None)
        if found is None:
            raise ConfigError(
                f"there is no {self}: use another class, or leave out what asks for it (a controlnet, enable_pag); in from_pipe, "
                "controlnet=None and enable_pag=False leave out what the pipeline has"
            )
        return found


def _parts(name: str) -> _Name:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"AutoPipeline has no other tasks for a {name}; it has for the pipelines of {', '.join(FAMILIES)}")
    return _Name(*match.groups())


def _with_options(name: _Name, options: dict[str, Any]) -> _Name:
    """The class that these arguments ask for, of which `enable_pag` is removed."""
    if "controlnet" in options:
        control = options["controlnet"]
        kind = "ControlNetUnion" if type(control).__name__ == "ControlNetUnionModel" else "ControlNet"
        name = replace(name, control=kind if control is not None else "")
    if "enable_pag" in options:
        name = replace(name, guidance="PAG" if options.pop("enable_pag") else "")
    return name


class _AutoPipeline(ConfigMixin):
    """Base of the three tasks; only its class methods are used."""

    config_name = MODEL_INDEX_NAME
    _task: str

    def __init__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise OSError(f"{type(self).__name__} makes pipelines of other classes: use its from_pretrained(folder) or from_pipe(pipeline)")

    @classmethod
    def from_pretrained(cls, pretrained_model_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load the pipeline of this task that fits a checkpoint.

        Args:
            pretrained_model_or_path: a folder, or a repository on the hub.
            kwargs: `from_pretrained`'s of the pipeline. A `controlnet` makes it one with ControlNet, `enable_pag=True` one with perturbed
                attention guidance.

        Raises:
            ConfigError: the checkpoint's family has no pipeline for this task.
        """
        config = cls.load_config(pretrained_model_or_path, **{name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs})
        name = replace(_parts(config["_class_name"]), task=cls._task)
        return _with_options(name, kwargs).pipeline_class().from_pretrained(pretrained_model_or_path, **kwargs)

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> Any:
        """A pipeline of this task with another pipeline's components, which are shared, not copied.

        Args:
            pipeline: where they come from.
            kwargs: components and options that replace `pipeline`'s; `controlnet=None` and `enable_pag=False` remove what it had.

        Raises:
            ConfigError: the pipeline's family has no pipeline for this task.
        """
        kind = _with_options(replace(_parts(type(pipeline).__name__), task=cls._task), kwargs).pipeline_class()
        if kwargs.get("controlnet", ...) is None:
            del kwargs["controlnet"]
        return kind.from_pipe(pipeline, **kwargs)


class AutoPipelineForText2Image(_AutoPipeline):
    """Text to image, with any checkpoint that can do it."""

    _task = ""


class AutoPipelineForImage2Image(_AutoPipeline):
    """Image to image, with any checkpoint that can do it."""

    _task = "Img2Img"


class AutoPipelineForInpainting(_AutoPipeline):
    """Inpainting, with any checkpoint that can do it."""

    _task = "Inpaint"
