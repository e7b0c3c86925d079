"""What every scheduler has: saving and loading, the classes it can be exchanged with, and its outputs."""

import functools
import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..core.configuration import ConfigMixin
from ..core.hub import PushToHubMixin
from ..core.outputs import BaseOutput
from .arrays import numpy_on_cpu

SCHEDULER_CONFIG_NAME = "scheduler_config.json"

_ON_ARRAYS = (
    "step", "step_pred", "step_correct", "step_prk", "step_plms", "undo_step", "batch_step_no_noise", "scale_model_input", "add_noise",
    "add_noise_to_input", "scale_noise", "get_velocity", "precondition_inputs", "precondition_outputs",
)  # fmt: skip
"""The methods that take and return samples."""


class KarrasDiffusionSchedulers(Enum):
    """The schedulers that understand each other's configs and can be swapped in a Stable Diffusion pipeline."""

    DDIMScheduler = 1
    DDPMScheduler = 2
    PNDMScheduler = 3
    LMSDiscreteScheduler = 4
    EulerDiscreteScheduler = 5
    HeunDiscreteScheduler = 6
    EulerAncestralDiscreteScheduler = 7
    DPMSolverMultistepScheduler = 8
    DPMSolverSinglestepScheduler = 9
    KDPM2DiscreteScheduler = 10
    KDPM2AncestralDiscreteScheduler = 11
    DEISMultistepScheduler = 12
    UniPCMultistepScheduler = 13
    DPMSolverSDEScheduler = 14
    EDMEulerScheduler = 15


AysSchedules = {
    "StableDiffusionTimesteps": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24],
    "StableDiffusionSigmas": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0],
    "StableDiffusionXLTimesteps": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13],
    "StableDiffusionXLSigmas": [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.0],
    "StableDiffusionVideoSigmas": [700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.0],
}
"""Ten-step grids of "Align Your Steps" (arXiv 2404.14507), for `set_timesteps(timesteps=...)` or `set_timesteps(sigmas=...)`."""


@dataclass
class SchedulerOutput(BaseOutput):
    """What `step` returns.

    Args:
        prev_sample: the sample at the next, less noisy, timestep; shape of the sample given.
    """

    prev_sample: Any


@dataclass
class DenoisedSchedulerOutput(SchedulerOutput):
    """What `step` of a scheduler that also predicts the clean sample returns.

    Args:
        prev_sample: the sample at the next, less noisy, timestep; shape of the sample given.
        pred_original_sample: the clean sample predicted at this step, for previews or guidance.
    """

    pred_original_sample: Any = None


def as_output(output: type[BaseOutput], return_dict: bool, *values: Any) -> Any:
    """What `step` returns: these values as an output, or, without `return_dict`, as a tuple."""
    return output(*values) if return_dict else values


class UnscaledInputMixin:
    """Schedulers whose samples are what the model takes."""

    def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
        """The sample itself: this scheduler's samples are what the model takes."""
        return sample


class SchedulerMixin(PushToHubMixin, ConfigMixin):
    """Base of all schedulers. A scheduler has no weights: its config is all there is to save.

    `timesteps` and `sigmas` are NumPy arrays on the host. `step` multiplies and adds the arrays it is given, MindSpore tensors or NumPy
    arrays, with Python floats, so it never reads the device; where the device is the CPU, tensors are computed with as NumPy arrays.
    """

    config_name = SCHEDULER_CONFIG_NAME
    has_compatibles = True
    _compatibles: list[str] = []
    order = 1
    num_inference_steps: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _ON_ARRAYS:
            method = getattr(cls, name, None)
            if method not in (None, UnscaledInputMixin.scale_model_input) and not hasattr(method, "__wrapped__"):
                setattr(cls, name, numpy_on_cpu(method))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, subfolder: str | None = None, return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Build a scheduler from a saved config, its own or a compatible class's.

        Args:
            pretrained_model_name_or_path: a folder with `scheduler_config.json`, that file, or a repository on the hub.
            subfolder: where in it; "scheduler" in a pipeline.
            return_unused_kwargs: also return the keyword arguments that nothing took.
            kwargs: the hub's (`revision`, `token`, `cache_dir`, `local_files_only`, ...), or entries that override the config's.

        Raises:
            CheckpointError: no such file or repository, or it is not JSON.
        """
        config, kwargs = cls.load_config(pretrained_model_name_or_path, subfolder=subfolder, return_unused_kwargs=True, **kwargs)
        return cls.from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Write `scheduler_config.json`, which PyTorch diffusers reads too, into `save_directory`."""
        self.save_config(save_directory)

    def _option(self, name: str, otherwise: Any = None) -> Any:
        """A config entry that only some classes have: `from_config` keeps other classes' entries too, and those are not this one's."""
        return self.config[name] if name in self._own_options() else otherwise

    @classmethod
    @functools.cache
    def _own_options(cls) -> frozenset[str]:
        return frozenset(cls._get_init_keys(cls))

    def _require_timesteps(self) -> None:
        if self.num_inference_steps is None:
            raise ValueError("`num_inference_steps` is None: call `set_timesteps` before `step`")

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def __bool__(self) -> bool:
        return True  # also of those that have no length
