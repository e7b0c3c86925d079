"""`DiTPipeline` (arXiv:2212.09748)."""

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ...core.errors import ConfigError
from ...image_processor import VaeImageProcessor, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.transformers.dit_transformer_2d import DiTTransformer2DModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import SchedulerMixin
from ..denoising import denoise
from ..guidance import classifier_free_guidance
from ..latents import prepare_latents
from ..pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from ..schedule import retrieve_timesteps


class DiTPipeline(DiffusionPipeline):
    """Draws images of classes, with a diffusion transformer.

        pipe = DiTPipeline.from_pretrained("facebook/DiT-XL-2-256", mindspore_dtype=ms.float16)
        image = pipe(pipe.get_label_ids(["white shark"]), num_inference_steps=25).images[0]

    With schedulers that scale the model's input (Euler's and others), PyTorch diffusers starts from noise that is not scaled and steps from
    the scaled sample; here they are used as they are meant to be.

    Args:
        transformer: the denoiser.
        vae: the latents' autoencoder.
        scheduler: of the denoising steps.
        id2label: the names of each class, separated by commas.
    """

    model_cpu_offload_seq = "transformer->vae"
    interrupt = False

    def __init__(
        self, transformer: DiTTransformer2DModel, vae: AutoencoderKL, scheduler: SchedulerMixin, id2label: dict[int, str] | None = None
    ):
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler)
        self.register_to_config(id2label=id2label)
        names = {name.strip(): int(number) for number, labels in (id2label or {}).items() for name in labels.split(",")}
        self.labels = dict(sorted(names.items()))

    def get_label_ids(self, label: str | list[str]) -> list[int]:
        """The classes of these names.

        Raises:
            ConfigError: there is no class of one of the names.
        """
        labels = [label] if isinstance(label, str) else label
        unknown = [name for name in labels if name not in self.labels]
        if unknown:
            raise ConfigError(f"there are no classes {unknown}; those there are: {', '.join(self.labels)}")
        return [self.labels[name] for name in labels]

    def __call__(
        self,
        class_labels: list[int],
        guidance_scale: float = 4.0,
        generator: Any = None,
        num_inference_steps: int = 50,
        output_type: str | None = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw an image of each class.

        Args:
            class_labels: the classes' numbers.
            guidance_scale: how far to go from the prediction without a class to that with it; guidance is off up to 1.
            generator: of the first noise, or a list with one for each image; see `core.random.randn_tensor`.
            num_inference_steps: the transformer runs this often.
            output_type: "pil"; "np", an array (batch, height, width, channels) in [0, 1]; "ms" or "pt", a tensor (batch, channels, height,
                width) in [0, 1]; or "latent", what the VAE decoded, in [-1, 1].
            return_dict: return an `ImagePipelineOutput`, else a tuple.

        Raises:
            ConfigError: another `output_type`, less than one step, or as many generators as neither one nor the images.
        """
        check_output_type(output_type)
        config, guided = self.transformer.config, guidance_scale > 1
        shape = (len(class_labels), config.in_channels, config.sample_size, config.sample_size)
        latents = prepare_latents(shape, self.transformer.dtype, generator, init_noise_sigma=self.scheduler.init_noise_sigma)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)
        no_class = [config.num_embeds_ada_norm] * len(class_labels) if guided else []
        classes = Tensor(np.array([*no_class, *class_labels], np.int32))

        def predict(latents: Tensor, t: float, tensors: dict[str, Any]) -> Tensor:
            sample = self.scheduler.scale_model_input(F.cat((latents, latents), 0) if guided else latents, t)
            with self.transformer.cache_context("cond_uncond"):
                prediction = self.transformer(sample, timestep=t, class_labels=classes, return_dict=False)[0]
            if self.transformer.out_channels == 2 * config.in_channels:  # the second half is the variances
                prediction = prediction[:, : config.in_channels]
            return classifier_free_guidance(prediction, guidance_scale) if guided else prediction

        latents = denoise(self, timesteps, num_inference_steps, {"latents": latents}, predict, {})
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        images = VaeImageProcessor().postprocess(decoded.astype(ms.float32), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)
