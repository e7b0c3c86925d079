"""What the pipelines with a UNet that prompts guide share, of whatever text encoders: the state of a call, a step, checks."""

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..callbacks import MultiPipelineCallbacks, PipelineCallback
from ..core.errors import ConfigError, UnsupportedError
from ..nn import functional as F
from .denoising import Predict
from .guidance import classifier_free_guidance, guidance_scale_embedding
from .images import check_steps_left, encode_image
from .latents import prepare_latents
from .pipeline_utils import DiffusionPipeline, StableDiffusionMixin
from .schedule import accepted_by, retrieve_timesteps


class GuidedPipeline(DiffusionPipeline, StableDiffusionMixin):
    """Base of the pipelines with classifier-free guidance (arXiv:2207.12598)."""

    def _begin(
        self,
        guidance_scale: float,
        clip_skip: int | None,
        cross_attention_kwargs: dict[str, Any] | None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None,
        tensor_inputs: list[str],
        guidance_rescale: float = 0.0,
    ) -> list[str]:
        """Set what callbacks read and may change while drawing.

        Returns:
            The tensors that the callback is given: those that it asks for itself, if it can.
        """
        self._guidance_scale, self._guidance_rescale = guidance_scale, guidance_rescale
        self._clip_skip, self._cross_attention_kwargs = clip_skip, cross_attention_kwargs
        self._interrupt = False
        own = isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks))
        return callback_on_step_end.tensor_inputs if own else tensor_inputs

    def _scale_embedding(self, images: int, dtype: Any) -> Tensor | None:
        """The guidance scale for a distilled UNet, which takes it as an input; of others None."""
        size = self.unet.config.time_cond_proj_dim
        if size is None:
            return None
        embedding = self.get_guidance_scale_embedding(np.full(images, self.guidance_scale - 1), size).astype(dtype)
        return self._guided_batch(embedding, embedding)

    def _conditions(self, tensors: dict[str, Any]) -> dict[str, Tensor] | None:
        """What the UNet is told beside the embedded prompt, from `denoise`'s tensors: its `added_cond_kwargs`."""

    def _guided_batch(self, positive: Tensor, negative: Tensor) -> Tensor:
        """One batch of what the UNet takes for each of the predictions that guidance needs: the negative prompts' first."""
        return F.cat((negative, positive), 0) if self.do_classifier_free_guidance else positive

    def _guide(self, noise_pred: Tensor, t: float) -> Tensor:
        """One prediction from those of such a batch."""
        if not self.do_classifier_free_guidance:
            return noise_pred
        return classifier_free_guidance(noise_pred, self.guidance_scale, self.guidance_rescale)

    def _predictor(
        self,
        extra_channels: Callable[[dict[str, Any]], tuple[Tensor, ...]] | None = None,
        control: Callable[[Tensor, float, dict[str, Any]], dict[str, Any]] | None = None,
    ) -> Predict:
        """The prediction of a step, for `denoise`: the UNet's, guided. A callback may switch guidance off on the way.

        Args:
            extra_channels: gives, from `denoise`'s tensors, what the UNet takes beside the latents.
            control: gives, from the UNet's scaled latents, the timestep and `denoise`'s tensors, further arguments of the UNet: the
                residuals of ControlNets or adapters.
        """

        def predict(latents: Tensor, t: float, tensors: dict[str, Any]) -> Tensor:
            sample = self.scheduler.scale_model_input(self._guided_batch(latents, latents), t)
            noise_pred = self.unet(
                sample if extra_channels is None else F.cat((sample, *extra_channels(tensors)), 1),
                t,
                encoder_hidden_states=tensors["prompt_embeds"],
                timestep_cond=tensors["w_embedding"],
                cross_attention_kwargs=self.cross_attention_kwargs,
                added_cond_kwargs=self._conditions(tensors),
                return_dict=False,
                **({} if control is None else control(sample, t, tensors)),
            )[0]
            return self._guide(noise_pred, t)

        return predict

    def _check_shown(self, image: Tensor, kind: str) -> None:
        """Raises ConfigError unless the UNet, of this kind of model, has the channels of latents and of the image shown beside them."""
        channels, expected = self.vae.config.latent_channels, self.unet.config.in_channels
        if channels + image.shape[1] != expected:
            raise ConfigError(
                f"latents and image have {channels} and {image.shape[1]} channels; the UNet takes {expected}: pass other images, or use "
                f"the UNet of an {kind}"
            )

    def _set_timesteps(
        self, num_inference_steps: int, strength: float, timesteps: list[int] | None = None, sigmas: list[float] | None = None
    ) -> tuple[np.ndarray, int]:
        """The scheduler's timesteps that the strength leaves, and how many steps they are; of the pipelines with a `get_timesteps`.

        Raises:
            ConfigError: none are left.
        """
        _, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        timesteps, num_inference_steps = self.get_timesteps(num_inference_steps, strength, self.device)
        check_steps_left(len(timesteps), strength)
        self._num_timesteps = len(timesteps)
        return timesteps, num_inference_steps

    def _encode(self, image: Tensor, generator: Any, sample_mode: str = "sample") -> Tensor:
        """See `images.encode_image`."""
        return encode_image(self.vae, image, generator, sample_mode)

    def _check_prompts(
        self,
        prompt: Any,
        callback_steps: int | None,
        negative_prompt: Any,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: Any,
        callback_on_step_end_tensor_inputs: list[str] | None,
    ) -> None:
        """The part of `check_inputs` that all pipelines have.

        Raises:
            ConfigError: an unknown callback tensor, both or neither of a prompt and its embeddings, a prompt of another type, or
                embeddings of different shapes.
            UnsupportedError: IP-Adapter arguments.
        """
        if callback_steps is not None:
            check_callback_steps(callback_steps)
        self._check_callback_inputs(callback_on_step_end_tensor_inputs)
        if prompt is not None and prompt_embeds is not None:
            raise ConfigError("`prompt` and `prompt_embeds` are both given: pass one of them")
        if prompt is None and prompt_embeds is None:
            raise ConfigError("neither `prompt` nor `prompt_embeds` is given: pass one of them")
        if prompt is not None and not isinstance(prompt, (str, list)):
            raise ConfigError(f"prompt is a {type(prompt).__name__}; expected a string or a list of strings")
        if negative_prompt is not None and negative_prompt_embeds is not None:
            raise ConfigError("`negative_prompt` and `negative_prompt_embeds` are both given: pass one of them")
        if prompt_embeds is not None and negative_prompt_embeds is not None and prompt_embeds.shape != negative_prompt_embeds.shape:
            raise ConfigError(
                f"prompt_embeds has shape {prompt_embeds.shape} and negative_prompt_embeds {negative_prompt_embeds.shape}: they have to "
                "be equal"
            )
        check_ip_adapter(ip_adapter_image, ip_adapter_image_embeds)

    def _check_callback_inputs(self, names: list[str] | None) -> None:
        unknown = [name for name in names or () if name not in self._callback_tensor_inputs]
        if unknown:
            raise ConfigError(f"callback_on_step_end_tensor_inputs has {unknown}; expected names among {self._callback_tensor_inputs}")

    def _default_size(self) -> tuple[int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * self.vae_scale_factor, width * self.vae_scale_factor

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: Any,
        device: Any,
        generator: Any,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Latents for images of height x width pixels; see `latents.prepare_latents`. `device` is not used."""
        shape = (batch_size, num_channels_latents, int(height) // self.vae_scale_factor, int(width) // self.vae_scale_factor)
        return prepare_latents(shape, dtype, generator, latents, self.scheduler.init_noise_sigma)

    def prepare_extra_step_kwargs(self, generator: Any, eta: float) -> dict[str, Any]:
        """Those of the two that the scheduler's `step` takes."""
        return accepted_by(self.scheduler.step, eta=eta, generator=generator)

    def get_guidance_scale_embedding(self, w: Any, embedding_dim: int = 512, dtype: Any = ms.float32) -> Tensor:
        """See `guidance.guidance_scale_embedding`."""
        return guidance_scale_embedding(w, embedding_dim, dtype)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def guidance_rescale(self) -> float:
        return self._guidance_rescale

    @property
    def clip_skip(self) -> int | None:
        return self._clip_skip

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the UNet runs with and without the prompt: for scales above 1, unless it takes the scale as an input."""
        return self._guidance_scale > 1 and self.unet.config.time_cond_proj_dim is None

    @property
    def cross_attention_kwargs(self) -> dict[str, Any] | None:
        return self._cross_attention_kwargs

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt


def check_callback_steps(callback_steps: Any) -> None:
    if not isinstance(callback_steps, int) or callback_steps <= 0:
        raise ConfigError(f"callback_steps is {callback_steps!r}; expected a positive integer")


def check_size(height: int, width: int, multiple: int = 8) -> None:
    if height % multiple or width % multiple:
        raise ConfigError(f"height and width are {height} and {width}; expected multiples of {multiple}")


def check_ip_adapter(image: Any, image_embeds: Any = None) -> None:
    if image is not None or image_embeds is not None:
        raise UnsupportedError("IP-Adapters are not there yet: leave out ip_adapter_image and ip_adapter_image_embeds.")


def check_lora_scale(lora_scale: float | None) -> None:
    if lora_scale is not None:
        raise UnsupportedError("LoRA is not there yet: leave out lora_scale, and 'scale' in cross_attention_kwargs.")
