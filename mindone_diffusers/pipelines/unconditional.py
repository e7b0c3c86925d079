"""Pipelines that draw pixels from noise alone, with a UNet and a scheduler."""

from typing import Any

from mindspore import Tensor

from ..core.errors import ConfigError
from ..core.random import randn_tensor
from ..image_processor import VaeImageProcessor, check_output_type
from .denoising import denoise
from .pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from .schedule import accepted_by, retrieve_timesteps


class UnconditionalPipeline(DiffusionPipeline):
    """What `DDPMPipeline` and `DDIMPipeline` share: all but their defaults and the options of a step."""

    model_cpu_offload_seq = "unet"
    interrupt = False

    def _draw(
        self, batch_size: int, generator: Any, num_inference_steps: int, output_type: str, return_dict: bool, **step_options: Any
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw images.

        Args:
            step_options: passed to those schedulers whose step takes them, like the generator.

        Raises:
            ConfigError: another `output_type`, less than one step, as many generators as neither one nor the images, or a UNet without a
                `sample_size`.
        """
        check_output_type(output_type)
        size = self.unet.config.sample_size
        if size is None:
            raise ConfigError(
                "the config of the UNet has no sample_size, so there is no size to draw: unet.register_to_config(sample_size=...)"
            )
        shape = (batch_size, self.unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
        image = randn_tensor(shape, generator=generator, dtype=self.unet.dtype)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)

        def predict(image: Tensor, t: float, tensors: dict[str, Any]) -> Tensor:
            return self.unet(image, t, return_dict=False)[0]

        options = accepted_by(self.scheduler.step, generator=generator, **step_options)
        image = denoise(self, timesteps, num_inference_steps, {"latents": image}, predict, options)
        images = VaeImageProcessor().postprocess(image, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)
