"""Inpainting with Stable Diffusion XL and ControlNets (arXiv:2302.05543, arXiv:2201.09865)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..control import PaintControlMixin
from ..guidance import rescale_noise_cfg  # noqa: F401  (where PyTorch diffusers has it)
from ..images import check_steps, check_steps_left, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..inpainting import check_mask_crop, preprocess_with_mask
from ..schedule import end_early, retrieve_timesteps
from ..stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from ..stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import StableDiffusionXLInpaintPipeline
from .base import StableDiffusionXLControlNetImageBase


class StableDiffusionXLControlNetInpaintPipeline(PaintControlMixin, StableDiffusionXLControlNetImageBase, StableDiffusionXLInpaintPipeline):
    """Paints the masked part of an image as a prompt says, steered by other images. Components and arguments are described at
    `StableDiffusionXLControlNetBase`; the UNet and the latents are as of `StableDiffusionXLInpaintPipeline`.

    A UNet that takes the guidance scale as an input is given it, and callbacks may replace all tensors that they are given; PyTorch
    diffusers leaves the one out here, and ignores the pooled embeddings, sizes and masks of the others.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _callback_tensor_inputs = [
        *StableDiffusionXLInpaintPipeline._callback_tensor_inputs, "negative_prompt_embeds", "negative_pooled_prompt_embeds",
        "add_neg_time_ids", "control_image",
    ]  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
        mask_image: PipelineImageInput = None,
        control_image: PipelineImageInput | list[PipelineImageInput] = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 0.9999,
        num_inference_steps: int = 50,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[Tensor] | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        guess_mode: bool = False,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        guidance_rescale: float = 0.0,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Draw images; arguments that are not named here are those of `StableDiffusionXLInpaintPipeline` and
        `StableDiffusionControlNetInpaintPipeline`.

        Args:
            height: in pixels, by default the image's. Cut to a multiple of `vae_scale_factor`.
            width: likewise.
            guess_mode: see `StableDiffusionControlNetPipeline`. `global_pool_conditions` has no effect on it here, as in PyTorch diffusers.

        Raises:
            ConfigError: arguments that do not fit together, a strength that leaves no steps, or a UNet of neither 4 nor 9 channels.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs, guidance_rescale
        )
        self._set_range(denoising_start, denoising_end)
        check_steps(strength, num_inference_steps)
        check_mask_crop(padding_mask_crop, control_image, mask_image, output_type)
        self._check(
            prompt, prompt_2, control_image, None, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(
            prompt, prompt_2, negative_prompt, negative_prompt_2, num_images_per_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        controls = self._images_of(control_image)
        _, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)
        timesteps, num_inference_steps = self.get_timesteps(num_inference_steps, strength, self.device, denoising_start)
        check_steps_left(len(timesteps), strength)

        pixels, mask, masked, crop = preprocess_with_mask(self.vae_scale_factor, image, mask_image, None, height, width, padding_mask_crop)
        tensors["control_image"], _ = self._prepare_all(controls, *mask.shape[2:], images, num_images_per_prompt, guess_mode, crop)
        control = self._control(
            len(timesteps), len(controls), controlnet_conditioning_scale, control_guidance_start, control_guidance_end, guess_mode
        )
        noise, clean = self._start_painting(
            tensors, images, pixels, mask, masked, generator, latents, timesteps[:1], strength == 1.0, add_noise=denoising_start is None
        )
        tensors["add_time_ids"] = self._micro_conditions(
            tensors, images, original_size, crops_coords_top_left, target_size, None, crops_coords_top_left, None, aesthetic_score,
            negative_aesthetic_score,
        )  # fmt: skip
        tensors["add_neg_time_ids"] = tensors["add_time_ids"][:images]  # for callbacks; it has no effect

        timesteps, num_inference_steps = end_early(self.scheduler, timesteps, num_inference_steps, denoising_end)
        self._num_timesteps = len(timesteps)
        latents = self._paint(
            timesteps, num_inference_steps, tensors, clean, noise, self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end,
            callback_on_step_end_tensor_inputs, control,
        )  # fmt: skip
        return self._finish(self._put_back(self._decode(latents, output_type), image, mask_image, crop), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        prompt_2: Any,
        image: Any,
        mask_image: Any,
        strength: float,
        num_inference_steps: int,
        callback_steps: int | None,
        output_type: str | None,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        padding_mask_crop: int | None = None,
    ) -> None:
        """Check the arguments of `__call__`, with the control image as `image`.

        Raises:
            TypeError: see `StableDiffusionXLControlNetBase._check`.
            ConfigError: a strength outside of [0, 1], no whole number of steps, `padding_mask_crop` with other than Pillow images in and
                out, and likewise.
            UnsupportedError: IP-Adapter arguments.
        """
        check_steps(strength, num_inference_steps)
        check_mask_crop(padding_mask_crop, image, mask_image, output_type)
        self._check(
            prompt, prompt_2, image, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
