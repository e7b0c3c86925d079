"""What the pipelines with ControlNets share of each family: their components."""

from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.controlnets.controlnet import ControlNetModel
from ...models.controlnets.multicontrolnet import MultiControlNet
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from ..clip_prompts import check_pooled
from ..control import ControlMixin
from ..stable_diffusion.base import StableDiffusionBase
from ..stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from ..stable_diffusion_xl.base import StableDiffusionXLBase, StableDiffusionXLImageBase

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer

ControlNets = ControlNetModel | list[ControlNetModel] | tuple[ControlNetModel, ...] | MultiControlNet


class StableDiffusionControlNetBase(ControlMixin, StableDiffusionBase):
    """Base of the pipelines of Stable Diffusion 1 and 2 with ControlNets.

    Args:
        controlnet: steers the UNet; of a list, the outputs are added.

    The other components are `StableDiffusionBase`'s.
    """

    _scheduler_corrections = {}

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        controlnet: ControlNets,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker,
        feature_extractor: "CLIPImageProcessor",
        image_encoder: CLIPVisionModelWithProjection | None = None,
        requires_safety_checker: bool = True,
    ):
        super().__init__(
            vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor, image_encoder, requires_safety_checker
        )
        self.register_modules(controlnet=self._one_or_several(controlnet))


class StableDiffusionXLControlNetBase(ControlMixin, StableDiffusionXLBase):
    """Base of the pipelines of Stable Diffusion XL with ControlNets.

    Args:
        controlnet: steers the UNet; of a list, the outputs are added.

    The other components and arguments are `StableDiffusionXLBase`'s.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: "CLIPTokenizer",
        tokenizer_2: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        controlnet: ControlNets,
        scheduler: KarrasDiffusionSchedulers,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
        feature_extractor: "CLIPImageProcessor | None" = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
    ):
        self._set_up(
            force_zeros_for_empty_prompt, add_watermarker, vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2,
            tokenizer=tokenizer, tokenizer_2=tokenizer_2, unet=unet, controlnet=self._one_or_several(controlnet), scheduler=scheduler,
            feature_extractor=feature_extractor, image_encoder=image_encoder,
        )  # fmt: skip

    def _check(
        self,
        prompt: Any,
        prompt_2: Any,
        image: Any,
        callback_steps: int | None,
        negative_prompt: Any,
        negative_prompt_2: Any,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        pooled_prompt_embeds: Tensor | None,
        negative_pooled_prompt_embeds: Tensor | None,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: Any,
        controlnet_conditioning_scale: Any,
        control_guidance_start: Any,
        control_guidance_end: Any,
        callback_on_step_end_tensor_inputs: list[str] | None,
    ) -> None:
        """The part of `check_inputs` that all have; `image` is the control image.

        Raises:
            TypeError: what is no image, no list where there are several ControlNets, or no factor.
            ConfigError: the cases of `ControlMixin._check_control`, and of `StableDiffusionXLPipeline.check_inputs` but for sizes.
            UnsupportedError: IP-Adapter arguments.
        """
        self._check_both_prompts(
            prompt, prompt_2, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_pooled("", prompt_embeds, pooled_prompt_embeds)
        check_pooled("negative_", negative_prompt_embeds, negative_pooled_prompt_embeds)
        self._check_control(image, prompt, prompt_embeds, controlnet_conditioning_scale, control_guidance_start, control_guidance_end)


class StableDiffusionXLControlNetImageBase(StableDiffusionXLControlNetBase, StableDiffusionXLImageBase):
    """Base of those that start from an image.

    Args:
        requires_aesthetics_score: the UNet takes an aesthetic score instead of a target size, as the refiner's does.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: "CLIPTokenizer",
        tokenizer_2: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        controlnet: ControlNets,
        scheduler: KarrasDiffusionSchedulers,
        requires_aesthetics_score: bool = False,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
        feature_extractor: "CLIPImageProcessor | None" = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
    ):
        super().__init__(
            vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, controlnet, scheduler, force_zeros_for_empty_prompt,
            add_watermarker, feature_extractor, image_encoder,
        )  # fmt: skip
        self.register_to_config(requires_aesthetics_score=requires_aesthetics_score)
