"""ControlNets in a pipeline, whatever the family (arXiv:2302.05543): their images, the steps they are on, what they add to the UNet."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from mindspore import Tensor
from PIL import Image

from ..core.errors import ConfigError
from ..image_processor import VaeImageProcessor
from ..models.controlnets.multicontrolnet import MultiControlNet, MultiControlNetModel
from ..models.controlnets.multicontrolnet_union import MultiControlNetUnionModel
from ..nn import functional as F


class ControlMixin:
    """What the pipelines share whose UNet is steered by a ControlNet, or by several.

    Class attributes:
        _several: the model that a list of ControlNets becomes.
        _shown: name of the prepared control images among `denoise`'s tensors.
    """

    _several: ClassVar[type[MultiControlNet]] = MultiControlNetModel
    _shown: ClassVar[str] = "control_image"
    controlnet: Any
    do_classifier_free_guidance: bool
    vae_scale_factor: int
    _conditions: Callable[[dict[str, Any]], dict[str, Tensor] | None]
    _guided_batch: Callable[[Tensor, Tensor], Tensor]

    @property
    def control_image_processor(self) -> VaeImageProcessor:
        """Prepares control images, which stay in [0, 1]."""
        return VaeImageProcessor(vae_scale_factor=self.vae_scale_factor, do_convert_rgb=True, do_normalize=False)

    @property
    def _nets(self) -> Sequence[Any]:
        return self.controlnet.nets if isinstance(self.controlnet, MultiControlNet) else (self.controlnet,)

    def _one_or_several(self, controlnet: Any) -> Any:
        """The component: of a list of models, one model of all."""
        return self._several(controlnet) if isinstance(controlnet, (list, tuple)) else controlnet

    def _guesses(self, guess_mode: bool) -> bool:
        """Whether the ControlNets are to see no negative prompts; those that pool their output are always used so."""
        return guess_mode or self._nets[0].config.global_pool_conditions

    # Checks

    def check_image(self, image: Any, prompt: Any, prompt_embeds: Tensor | None) -> None:
        """Check the image for one ControlNet, or its images: one for all prompts, or one for each.

        Raises:
            TypeError: no image.
            ConfigError: another number of images.
        """
        first = image[0] if isinstance(image, list) and image else image
        if not isinstance(first, (Image.Image, Tensor, np.ndarray)):
            raise TypeError(f"a control image is a {type(first).__name__}; expected a Pillow image, a NumPy array or a tensor, or a list")
        images = 1 if isinstance(image, Image.Image) else len(image)
        prompts = 1 if isinstance(prompt, str) else len(prompt_embeds if prompt is None else prompt)
        if images not in (1, prompts):
            raise ConfigError(
                f"{images} control images for {prompts} prompts: pass one, or one for each (arrays and tensors need a first axis for them)"
            )

    def _images_of(self, image: Any) -> list[Any]:
        """The images, one entry for each ControlNet.

        Raises:
            TypeError: no list for several ControlNets.
            ConfigError: another number of them, or lists of lists.
        """
        if not isinstance(self.controlnet, MultiControlNet):
            return [image]
        if not isinstance(image, list):
            raise TypeError(f"the control image is a {type(image).__name__}; expected a list of {len(self._nets)}, one for each ControlNet")
        if any(isinstance(one, list) for one in image):
            raise ConfigError("the control images are lists in a list; this pipeline takes one image, or batch, for each ControlNet")
        return one_for_each(self._nets, image)

    def _check_control(self, image: Any, prompt: Any, prompt_embeds: Tensor | None, scale: Any, start: Any, end: Any) -> None:
        """The part of `check_inputs` that is about the ControlNets.

        Raises:
            TypeError: what is no image, no list where there are several ControlNets, or no factor.
            ConfigError: other numbers of images, factors or ranges than of ControlNets (PyTorch diffusers ignores ranges that are too many
                for one), other numbers of images than of prompts, or ranges that are none.
        """
        if not isinstance(self.controlnet, MultiControlNet) and not isinstance(scale, float):
            raise TypeError(f"controlnet_conditioning_scale is a {type(scale).__name__}; expected a float for one ControlNet")
        self._check_each(self._images_of(image), prompt, prompt_embeds, scale, start, end)

    def _check_each(self, images: list[Any], prompt: Any, prompt_embeds: Tensor | None, scale: Any, start: Any, end: Any) -> None:
        for image in images:
            self.check_image(image, prompt, prompt_embeds)
        factors_of_steps(1, len(images), scale, start, end)

    # Steps

    def _prepare_all(
        self,
        images: list[Any],
        height: int | None,
        width: int | None,
        batch_size: int,
        num_images_per_prompt: int,
        guess_mode: bool,
        crop: tuple[int, int, int, int] | None = None,
    ) -> tuple[Any, tuple[int, int]]:
        """The control images as the ControlNet takes them, and their height and width; see `prepare_control_image`."""
        prepared = [
            prepare_control_image(
                self.control_image_processor, image, height, width, batch_size, num_images_per_prompt, self.controlnet.dtype, False, crop
            )
            for image in images
        ]
        unseen = self._unseen(prepared[0], guess_mode)
        return self._arranged([self._guided_batch(image, image)[unseen:] for image in prepared]), prepared[0].shape[2:]

    def _unseen(self, images: Tensor, guess_mode: bool) -> int:
        """How many of a guided batch of these the ControlNets do not see: in guess mode the negative prompts', which come first."""
        return images.shape[0] if guess_mode and self.do_classifier_free_guidance else 0

    def _arranged(self, values: list[Any]) -> Any:
        """Values for each image as the ControlNet's arguments."""
        return values if isinstance(self.controlnet, MultiControlNet) else values[0]

    def _control_kinds(self, batch_size: int) -> dict[str, Any]:
        """What the ControlNet is told of the kinds of its images."""
        return {}

    def _control(
        self, steps: int, count: int, scale: Any, start: Any, end: Any, guess_mode: bool
    ) -> Callable[[Tensor, float, dict[str, Any]], dict[str, Any]]:
        """Gives each step's residuals for the UNet; see `GuidedPipeline._predictor`.

        Args:
            steps, count, scale, start, end: see `factors_of_steps`.
            guess_mode: with guidance, the ControlNets do not see the negative prompts' part of the batch, and add nothing to it.
        """
        factors = factors_of_steps(steps, count, scale, start, end)

        def control(sample: Tensor, t: float, tensors: dict[str, Any]) -> dict[str, Any]:
            embeds, conditions = tensors["prompt_embeds"], self._conditions(tensors)
            unseen = self._unseen(tensors["latents"], guess_mode)
            if unseen:
                sample, embeds = sample[unseen:], embeds[unseen:]
                conditions = conditions and {name: value[unseen:] for name, value in conditions.items()}
            down, mid = self.controlnet(
                sample, t, encoder_hidden_states=embeds, controlnet_cond=tensors[self._shown], added_cond_kwargs=conditions,
                conditioning_scale=self._scales(factors[tensors["step"]]), guess_mode=guess_mode, return_dict=False,
                **self._control_kinds(sample.shape[0]),
            )  # fmt: skip
            if mid is None:  # no ControlNet is on
                return {}
            if unseen:
                down, mid = tuple(_after_zeros(unseen, state) for state in down), _after_zeros(unseen, mid)
            return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

        return control

    def _scales(self, factors: list[float]) -> Any:
        """A step's factors as the ControlNet's argument."""
        return self._arranged(factors)


class TextControlMixin(ControlMixin):
    """Of the pipelines that draw from prompts."""

    _shown = "image"

    @property
    def image_processor(self) -> VaeImageProcessor:
        """The processor that fits the VAE."""
        return VaeImageProcessor(vae_scale_factor=self.vae_scale_factor, do_convert_rgb=True)

    def prepare_image(
        self,
        image: Any,
        width: int | None,
        height: int | None,
        batch_size: int,
        num_images_per_prompt: int,
        device: Any,
        dtype: Any,
        do_classifier_free_guidance: bool = False,
        guess_mode: bool = False,
    ) -> Tensor:
        """A control image as a ControlNet takes it; see `control.prepare_control_image`. `device` is not used."""
        twice = do_classifier_free_guidance and not guess_mode
        return prepare_control_image(self.control_image_processor, image, height, width, batch_size, num_images_per_prompt, dtype, twice)


class ImageControlMixin(ControlMixin):
    """Of the pipelines that change an image."""

    image_processor = TextControlMixin.image_processor
    prepare_control_image = TextControlMixin.prepare_image

    def _start_from(
        self,
        image: Any,
        control_image: Any,
        tensors: dict[str, Any],
        images: int,
        size: tuple[int | None, int | None],
        strength: float,
        num_inference_steps: int,
        num_images_per_prompt: int,
        generator: Any,
        latents: Tensor | None,
        guess_mode: bool,
        *control: Any,
    ) -> tuple[np.ndarray, int, Callable[[Tensor, float, dict[str, Any]], dict[str, Any]]]:
        """Put the latents to start from and the control images into `denoise`'s tensors.

        Args:
            image: see `VaeImageProcessor.preprocess`.
            control_image: see `_images_of`.
            tensors: with the prompts' embeddings.
            images: images to draw.
            size: height and width, by default the images'.
            strength: the part of the steps to take.
            num_inference_steps: how many there are.
            num_images_per_prompt: images of each prompt.
            generator: draws the latents and the noise.
            latents: to start from instead, as they are.
            guess_mode, control: see `_control`; the factors and ranges.

        Returns:
            The timesteps, how many steps they are, and what gives the residuals.

        Raises:
            ConfigError: no steps are left.
        """
        controls, guess_mode = self._images_of(control_image), self._guesses(guess_mode)
        image = self.image_processor.preprocess(image, *size)
        tensors[self._shown], _ = self._prepare_all(controls, *size, images, num_images_per_prompt, guess_mode)
        timesteps, num_inference_steps = self._set_timesteps(num_inference_steps, strength)
        if latents is None:
            dtype = tensors["prompt_embeds"].dtype
            latents = self.prepare_latents(image, timesteps[:1], images, 1, dtype, None, generator)
        tensors["latents"] = latents
        return timesteps, num_inference_steps, self._control(len(timesteps), len(controls), *control, guess_mode)


class PaintControlMixin(ControlMixin):
    """Of the pipelines that paint in an image."""

    def prepare_control_image(
        self,
        image: Any,
        width: int | None,
        height: int | None,
        batch_size: int,
        num_images_per_prompt: int,
        device: Any,
        dtype: Any,
        crops_coords: tuple[int, int, int, int] | None,
        resize_mode: str,
        do_classifier_free_guidance: bool = False,
        guess_mode: bool = False,
    ) -> Tensor:
        """A control image as a ControlNet takes it; see `control.prepare_control_image`. `device` is not used."""
        twice = do_classifier_free_guidance and not guess_mode
        return prepare_control_image(
            self.control_image_processor, image, height, width, batch_size, num_images_per_prompt, dtype, twice, crops_coords, resize_mode
        )


class UnionMixin(ControlMixin):
    """Of the pipelines with ControlNets for several kinds of images: one takes several images, several take one each."""

    _several = MultiControlNetUnionModel
    _control_mode: int | list[int] | None
    """The user's `control_mode`."""

    def _images_of(self, image: Any) -> list[Any]:
        """The images, one entry for each kind."""
        return image if isinstance(image, list) else [image]

    @property
    def _modes(self) -> list[int]:
        """The kinds of the images."""
        return self._control_mode if isinstance(self._control_mode, list) else [self._control_mode]

    def _check_control(self, image: Any, prompt: Any, prompt_embeds: Tensor | None, scale: Any, start: Any, end: Any) -> None:
        """The part of `check_inputs` that is about the ControlNets.

        Raises:
            TypeError: what is no image, kind or factor.
            ConfigError: other numbers of images than of kinds, or of both, factors or ranges than of ControlNets; unknown kinds; other
                numbers of images than of prompts; or ranges that are none.
        """
        images, modes, several = self._images_of(image), self._modes, isinstance(self.controlnet, MultiControlNet)
        if not all(isinstance(mode, int) for mode in modes):
            raise TypeError(f"control_mode is {self._control_mode!r}; expected the number of the control image's kind, or a list of them")
        if len(images) != len(modes):
            raise ConfigError(f"{len(images)} control images and {len(modes)} entries of control_mode: pass as many")
        if several:
            one_for_each(self._nets, images)
        for net, mode in zip(self._nets if several else [self.controlnet] * len(modes), modes):
            if not 0 <= mode < net.config.num_control_type:
                raise ConfigError(f"control_mode has {mode}; the ControlNet has the kinds 0 to {net.config.num_control_type - 1}")
        self._check_each(images, prompt, prompt_embeds, scale, start, end)

    def _arranged(self, values: list[Any]) -> list[Any]:
        return [[value] for value in values] if isinstance(self.controlnet, MultiControlNet) else values

    def _scales(self, factors: list[float]) -> list[float]:
        return factors

    def _control_kinds(self, batch_size: int) -> dict[str, Any]:
        modes = self._arranged(self._modes)
        if isinstance(self.controlnet, MultiControlNet):
            types = [_one_hot(kinds, net, batch_size) for kinds, net in zip(modes, self._nets)]
        else:
            types = _one_hot(modes, self.controlnet, batch_size)
        return {"control_type": types, "control_type_idx": modes}


def prepare_control_image(
    processor: VaeImageProcessor,
    image: Any,
    height: int | None,
    width: int | None,
    batch_size: int,
    num_images_per_prompt: int,
    dtype: Any,
    twice: bool,
    crops_coords: tuple[int, int, int, int] | None = None,
    resize_mode: str | None = None,
) -> Tensor:
    """A control image, or one for each prompt, as a ControlNet takes it: (batch_size, channels, height, width).

    Args:
        processor: of control images.
        image: see `VaeImageProcessor.preprocess`.
        height: in pixels, by default the image's.
        width: likewise.
        batch_size: images to draw.
        num_images_per_prompt: images of each prompt.
        dtype: of the result.
        twice: repeat all, for classifier-free guidance.
        crops_coords: the part to cut out.
        resize_mode: see `VaeImageProcessor.resize`; by default "fill" for a part, and "default" otherwise.
    """
    mode = resize_mode or ("default" if crops_coords is None else "fill")
    pixels = processor.preprocess(image, height=height, width=width, resize_mode=mode, crops_coords=crops_coords).astype(dtype)
    pixels = F.repeat_interleave(pixels, batch_size if pixels.shape[0] == 1 else num_images_per_prompt, 0)
    return F.cat((pixels, pixels), 0) if twice else pixels


def factors_of_steps(
    steps: int, count: int, scale: float | list[float], start: float | list[float], end: float | list[float]
) -> list[list[float]]:
    """The factor of each control image at each step: its own, or 0 where it is off.

    Args:
        steps: number of steps.
        count: number of control images.
        scale: the factor, or one for each.
        start: the part of the steps, from 0 to 1, before which it is off; or one for each.
        end: likewise, after which.

    Raises:
        TypeError: a factor that is no float.
        ConfigError: another number of them than of images, or ranges that are none.
    """
    if not isinstance(scale, (float, list)):
        raise TypeError(f"controlnet_conditioning_scale is a {type(scale).__name__}; expected a float, or a list of them")
    names = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
    scales, starts, ends = (_as_many(count, name, value) for name, value in zip(names, (scale, start, end)))
    if any(isinstance(one, list) for one in scales):
        raise ConfigError("controlnet_conditioning_scale has lists in a list: a factor is the same for the whole batch")
    for first, last in zip(starts, ends):
        if not 0.0 <= first < last <= 1.0:
            raise ConfigError(f"control_guidance_start is {first} and control_guidance_end {last}; expected 0 <= start < end <= 1")
    return [
        [0.0 if i / steps < first or (i + 1) / steps > last else one for one, first, last in zip(scales, starts, ends)]
        for i in range(steps)
    ]


def _as_many(count: int, name: str, value: Any) -> list[Any]:
    """A value for each of the control images, from a list of them or one for all."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ConfigError(f"{name} has {len(values)} entries; expected {count}, one for each control image")
    return values


def one_for_each(nets: Sequence[Any], images: list[Any]) -> list[Any]:
    """The images, as they are; raises ConfigError for another number of them than of ControlNets."""
    if len(images) != len(nets):
        raise ConfigError(f"{len(images)} control images for {len(nets)} ControlNets: pass one for each")
    return images


def _one_hot(kinds: list[int], net: Any, batch_size: int) -> Tensor:
    """1 for each of these kinds of images and 0 for the others, a row for each image of the batch."""
    row = np.zeros(net.config.num_control_type, np.float32)
    row[kinds] = 1
    return Tensor(np.tile(row, (batch_size, 1)))


def _after_zeros(rows: int, tensor: Tensor) -> Tensor:
    return F.cat((F.zeros((rows, *tensor.shape[1:]), tensor.dtype), tensor), 0)
