"""Callbacks for `callback_on_step_end`: they see, and may change, what a pipeline holds after each denoising step."""

from collections.abc import Sequence
from typing import Any

from .core.configuration import ConfigMixin, register_to_config
from .core.errors import ConfigError
from .core.hub import CONFIG_NAME


class PipelineCallback(ConfigMixin):
    """Base of callbacks that act at one step. A subclass sets `tensor_inputs` and defines `callback_fn`.

    Args:
        cutoff_step_ratio: the step, as a part of all steps between 0.0 and 1.0.
        cutoff_step_index: the step's number, with `cutoff_step_ratio=None`.

    Class attributes:
        tensor_inputs: names of the pipeline's tensors that the callback needs; they are among its `_callback_tensor_inputs`.

    Raises:
        ConfigError: both or neither are given, or the ratio is not a float between 0.0 and 1.0.
    """

    config_name = CONFIG_NAME

    @register_to_config
    def __init__(self, cutoff_step_ratio: float | None = 1.0, cutoff_step_index: int | None = None):
        if (cutoff_step_ratio is None) == (cutoff_step_index is None):
            raise ConfigError(
                f"cutoff_step_ratio={cutoff_step_ratio} and cutoff_step_index={cutoff_step_index}: give one of them, the other as None"
            )
        if cutoff_step_ratio is not None and not (isinstance(cutoff_step_ratio, float) and 0.0 <= cutoff_step_ratio <= 1.0):
            raise ConfigError(f"cutoff_step_ratio is {cutoff_step_ratio!r}; expected a float between 0.0 and 1.0")

    @property
    def tensor_inputs(self) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} does not set `tensor_inputs`")

    def callback_fn(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} does not define `callback_fn`")

    def is_cutoff(self, pipeline: Any, step_index: int) -> bool:
        """Whether this is the chosen step."""
        cutoff = self.config.cutoff_step_index
        return step_index == (int(pipeline.num_timesteps * self.config.cutoff_step_ratio) if cutoff is None else cutoff)

    def __call__(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        return self.callback_fn(pipeline, step_index, timestep, callback_kwargs)


class MultiPipelineCallbacks:
    """Several callbacks, called in order; each gets what the one before returned."""

    def __init__(self, callbacks: Sequence[PipelineCallback]):
        self.callbacks = callbacks

    @property
    def tensor_inputs(self) -> list[str]:
        return [name for callback in self.callbacks for name in callback.tensor_inputs]

    def __call__(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        for callback in self.callbacks:
            callback_kwargs = callback(pipeline, step_index, timestep, callback_kwargs)
        return callback_kwargs


class SDCFGCutoffCallback(PipelineCallback):
    """Switches classifier-free guidance off from the chosen step on, by setting the pipeline's guidance scale to 0.

    Of each tensor only the last row is kept: it is for one prompt and one image at a time.
    """

    tensor_inputs = ["prompt_embeds"]

    def callback_fn(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.is_cutoff(pipeline, step_index):
            pipeline._guidance_scale = 0.0
            callback_kwargs |= {name: callback_kwargs[name][-1:] for name in self.tensor_inputs}
        return callback_kwargs


class SDXLCFGCutoffCallback(SDCFGCutoffCallback):
    """The same for Stable Diffusion XL."""

    tensor_inputs = ["prompt_embeds", "add_text_embeds", "add_time_ids"]


class SDXLControlnetCFGCutoffCallback(SDCFGCutoffCallback):
    """The same for Stable Diffusion XL with a ControlNet, whose image is there twice."""

    tensor_inputs = ["prompt_embeds", "add_text_embeds", "add_time_ids", "image"]


class SD3CFGCutoffCallback(SDCFGCutoffCallback):
    """The same for Stable Diffusion 3."""

    tensor_inputs = ["prompt_embeds", "pooled_prompt_embeds"]


class IPAdapterScaleCutoffCallback(PipelineCallback):
    """Switches the IP-Adapters off from the chosen step on, with `pipeline.set_ip_adapter_scale(0.0)`."""

    tensor_inputs: list[str] = []

    def callback_fn(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.is_cutoff(pipeline, step_index):
            pipeline.set_ip_adapter_scale(0.0)
        return callback_kwargs
