"""Text to image with Stable Diffusion 1 and 2 and ControlNets (arXiv:2302.05543)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ...models.controlnets.multicontrolnet import MultiControlNetModel
from ..control import TextControlMixin, one_for_each
from ..denoising import denoise
from ..schedule import retrieve_timesteps
from ..stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from ..stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from .base import StableDiffusionControlNetBase


class StableDiffusionControlNetPipeline(TextControlMixin, StableDiffusionControlNetBase, StableDiffusionPipeline):
    """Draws images of prompts, steered by images; the components are `StableDiffusionControlNetBase`'s."""

    _callback_tensor_inputs = [*StableDiffusionPipeline._callback_tensor_inputs, "image"]

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[Tensor] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        guess_mode: bool = False,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            image: what steers the ControlNet: images in any of `VaeImageProcessor.preprocess`'s formats, one or as many as prompts. Of
                several ControlNets, a list of one entry for each; or for each prompt a list of one image for each ControlNet.
            height: in pixels, by default the image's. Cut to a multiple of `vae_scale_factor`.
            width: likewise.
            controlnet_conditioning_scale: how strong the ControlNet is; of several, one for all or a list.
            guess_mode: for prompts that say nothing: with guidance the ControlNet is used for the prompt only, and the UNet's early
                layers follow it less. ControlNets with `global_pool_conditions` are always used so.
            control_guidance_start: the part of the steps, from 0 to 1, before which the ControlNet is off; of several, one for all or a
                list.
            control_guidance_end: likewise, after which.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self.check_inputs(
            prompt, image, None, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            controlnet_conditioning_scale, control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        dtype, guess_mode, controls = tensors["prompt_embeds"].dtype, self._guesses(guess_mode), self._images_of(image)
        tensors["image"], size = self._prepare_all(controls, height, width, images, num_images_per_prompt, guess_mode)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        self._num_timesteps = len(timesteps)
        control = self._control(
            len(timesteps), len(controls), controlnet_conditioning_scale, control_guidance_start, control_guidance_end, guess_mode
        )
        tensors["latents"] = self.prepare_latents(images, self.unet.config.in_channels, *size, dtype, self.device, generator, latents)
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(control=control),
            self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, generator), return_dict)

    def _images_of(self, image: Any) -> list[Any]:
        several = isinstance(self.controlnet, MultiControlNetModel)
        if several and isinstance(image, list) and image and all(isinstance(one, list) for one in image):  # one for each prompt
            return one_for_each(self._nets, [list(ones) for ones in zip(*image)])
        return super()._images_of(image)

    def check_inputs(
        self,
        prompt: Any,
        image: Any,
        callback_steps: int | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            TypeError: what is no image, no list where there are several ControlNets, or no factor.
            ConfigError: other numbers of images, factors or ranges than of ControlNets, other numbers of images than of prompts, ranges
                that are none, and the cases of `StableDiffusionPipeline.check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        self._check_control(image, prompt, prompt_embeds, controlnet_conditioning_scale, control_guidance_start, control_guidance_end)
