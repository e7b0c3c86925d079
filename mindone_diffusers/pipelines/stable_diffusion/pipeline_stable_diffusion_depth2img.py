"""Image to image that keeps an image's depth, with Stable Diffusion 2 (arXiv:2112.10752, arXiv:2108.01073)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel
from ...text_encoders.dpt import DPTForDepthEstimation
from ..denoising import denoise
from ..images import check_strength, repeat_to
from ..pipeline_utils import ImagePipelineOutput
from .base import StableDiffusionImageBase, StableDiffusionUncheckedBase, correct_early_configs

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, DPTImageProcessor


class StableDiffusionDepth2ImgPipeline(StableDiffusionUncheckedBase, StableDiffusionImageBase):
    """Changes an image as a prompt says and keeps its depth, which the UNet is shown beside the latents (5 channels).

    Args:
        depth_estimator: gives the depth of images without a depth map; may be None, and then these are needed.
        feature_extractor: prepares images for it; may be None.

    The other components are `StableDiffusionBase`'s.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["depth_estimator", "feature_extractor"]
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds", "depth_mask"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        depth_estimator: DPTForDepthEstimation,
        feature_extractor: "DPTImageProcessor",
    ):
        correct_early_configs(None, unet, {})
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler, depth_estimator=depth_estimator,
            feature_extractor=feature_extractor,
        )  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        depth_map: Tensor | None = None,
        strength: float = 0.8,
        num_inference_steps: int | None = 50,
        guidance_scale: float | None = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float | None = 0.0,
        generator: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> ImagePipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionImg2ImgPipeline`'s.

        Args:
            image: what to start from, as `StableDiffusionImg2ImgPipeline` takes it. (PyTorch diffusers fails for latents, and for arrays
                that are not square.)
            depth_map: how near each pixel is, in any unit and size, (1 or images, height, width); by default the `depth_estimator`'s.

        Raises:
            ConfigError: no image, neither a depth map nor a depth estimator, arguments that do not fit together, or a strength that leaves
                no steps.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self.check_inputs(
            prompt, strength, None, negative_prompt, prompt_embeds, negative_prompt_embeds, callback_on_step_end_tensor_inputs
        )
        check_output_type(output_type)
        if image is None:
            raise ConfigError("image is None: pass the image to change")

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        dtype = tensors["prompt_embeds"].dtype
        tensors["depth_mask"] = self.prepare_depth_map(image, depth_map, images, self.do_classifier_free_guidance, dtype, self.device)
        timesteps, num_inference_steps = self._set_timesteps(num_inference_steps, strength)
        image = self.image_processor.preprocess(image)
        tensors["latents"] = self.prepare_latents(image, timesteps[:1], images, 1, dtype, self.device, generator)
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(lambda tensors: (tensors["depth_mask"],)),
            self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, None), return_dict)

    def prepare_depth_map(
        self, image: Any, depth_map: Tensor | None, batch_size: int, do_classifier_free_guidance: bool, dtype: Any, device: Any
    ) -> Tensor:
        """A depth map as the UNet is shown it: of the latents' size, each image's from -1 (its least value) to 1.

        Args:
            image: what the depth is of, in any format that `__call__` takes.
            depth_map: (1 or images, height, width); by default the depth estimator's.
            batch_size: images to draw.
            do_classifier_free_guidance: twice.
            dtype: of the result.
            device: not used.

        Returns:
            (batch_size or twice that, 1, h, w).

        Raises:
            ConfigError: neither a depth map nor a depth estimator, or depth maps that do not divide the batch.
        """
        pixels = self.image_processor.preprocess(image)
        scale = 1 if pixels.shape[1] == self.vae.config.latent_channels else self.vae_scale_factor
        if depth_map is None:
            if self.depth_estimator is None:
                raise ConfigError(
                    "there is no depth_map, a tensor (1 or images, height, width), and no depth_estimator to make one: pass it"
                )
            shown = self.feature_extractor(images=_readable(image), return_tensors="np").pixel_values
            depth_map = self.depth_estimator(Tensor(shown).astype(dtype)).predicted_depth
        size = (pixels.shape[2] // scale, pixels.shape[3] // scale)
        depth = F.interpolate(depth_map.astype(dtype)[:, None], size=size, mode="bicubic")
        least, most = depth.min((1, 2, 3), keepdims=True), depth.max((1, 2, 3), keepdims=True)
        depth = repeat_to(batch_size, 2.0 * (depth - least) / (most - least) - 1.0, "depth maps")
        return F.cat((depth, depth), 0) if do_classifier_free_guidance else depth

    def check_inputs(
        self,
        prompt: Any,
        strength: float,
        callback_steps: int | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`; raises as `StableDiffusionImg2ImgPipeline.check_inputs`."""
        check_strength(strength)
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, None, None, callback_on_step_end_tensor_inputs
        )


def _readable(image: Any) -> Any:
    """Images with arrays for tensors, which transformers' image processors do not know."""
    if isinstance(image, list):
        return [_readable(one) for one in image]
    return image.asnumpy() if isinstance(image, Tensor) else image
