"""`DDIMPipeline` (arXiv:2010.02502)."""

from typing import Any

from ...core import logging
from ...core.errors import ConfigError
from ...models.unets.unet_2d import UNet2DModel
from ...schedulers.scheduling_ddim import DDIMScheduler
from ...schedulers.scheduling_utils import SchedulerMixin
from ..pipeline_utils import ImagePipelineOutput
from ..unconditional import UnconditionalPipeline

logger = logging.get_logger(__name__)


class DDIMPipeline(UnconditionalPipeline):
    """Draws images from noise, in few steps, without further noise unless asked for.

        pipe = DDIMPipeline.from_pretrained("google/ddpm-cat-256")
        image = pipe(num_inference_steps=50, generator=np.random.default_rng(0)).images[0]

    Args:
        unet: the denoiser; its config's `sample_size` is the images' size.
        scheduler: any scheduler; a `DDIMScheduler` with its config takes its place.
    """

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin):
        self.register_modules(unet=unet, scheduler=DDIMScheduler.from_config(scheduler.config))

    def __call__(
        self,
        batch_size: int = 1,
        generator: Any = None,
        eta: float = 0.0,
        num_inference_steps: int = 50,
        use_clipped_model_output: bool | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw images.

        Args:
            batch_size: how many.
            generator: of the first noise and of the steps', or a list with one for each image; see `core.random.randn_tensor`.
            eta: how much noise a step adds, from 0 (none) to 1 (as DDPM).
            num_inference_steps: the UNet runs this often.
            use_clipped_model_output: see `DDIMScheduler.step`; None is its default.
            output_type: "pil"; "np", an array (batch, height, width, channels) in [0, 1]; "ms" or "pt", a tensor (batch, channels, height,
                width) in [0, 1]; or "latent", the same in [-1, 1], not clipped.
            return_dict: return an `ImagePipelineOutput`, else a tuple.

        Raises:
            ConfigError: another `output_type`, less than one step, not as many generators as images, or a UNet without a `sample_size`.
        """
        if not 0 <= eta <= 1:
            logger.warning(f"eta is {eta}; from 0 (DDIM) to 1 (DDPM) was expected, and the images may be wrong")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ConfigError(f"{len(generator)} generators for a batch of {batch_size} images: pass one for each image, or a single one")
        options = {} if use_clipped_model_output is None else {"use_clipped_model_output": use_clipped_model_output}
        return self._draw(batch_size, generator, num_inference_steps, output_type, return_dict, eta=eta, **options)
