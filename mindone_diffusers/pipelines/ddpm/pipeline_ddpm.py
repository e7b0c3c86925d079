"""`DDPMPipeline` (arXiv:2006.11239)."""

from typing import Any

from ...models.unets.unet_2d import UNet2DModel
from ...schedulers.scheduling_utils import SchedulerMixin
from ..pipeline_utils import ImagePipelineOutput
from ..unconditional import UnconditionalPipeline


class DDPMPipeline(UnconditionalPipeline):
    """Draws images from noise.

        pipe = DDPMPipeline.from_pretrained("google/ddpm-cat-256")
        image = pipe(generator=np.random.default_rng(0)).images[0]

    Args:
        unet: the denoiser; its config's `sample_size` is the images' size.
        scheduler: a `DDPMScheduler`, or another that needs no scaled input (`DDIMScheduler`, `DPMSolverMultistepScheduler`, ...).
    """

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin):
        self.register_modules(unet=unet, scheduler=scheduler)

    def __call__(
        self,
        batch_size: int = 1,
        generator: Any = None,
        num_inference_steps: int = 1000,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw images.

        Args:
            batch_size: how many.
            generator: of the first noise and of the steps', or a list with one for each image; see `core.random.randn_tensor`.
            num_inference_steps: the UNet runs this often.
            output_type: "pil"; "np", an array (batch, height, width, channels) in [0, 1]; "ms" or "pt", a tensor (batch, channels, height,
                width) in [0, 1]; or "latent", the same in [-1, 1], not clipped.
            return_dict: return an `ImagePipelineOutput`, else a tuple.

        Raises:
            ConfigError: another `output_type`, less than one step, as many generators as neither one nor the images, or a UNet without a
                `sample_size`.
        """
        return self._draw(batch_size, generator, num_inference_steps, output_type, return_dict)
