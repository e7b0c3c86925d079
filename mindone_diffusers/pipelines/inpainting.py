"""Painting the masked part of an image, whatever the family.

An inpainting UNet (9 input channels) is shown the mask and the rest of the image. With any other (4 channels), the rest is replaced by the
noised image after each step (arXiv:2201.09865).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor
from PIL import Image

from ..core.errors import ConfigError
from ..core.random import randn_tensor
from ..image_processor import VaeImageProcessor
from ..nn import functional as F
from .denoising import denoise
from .images import Encode, repeat_to
from .latents import check_generators, prepare_latents


def make_mask_processor(vae_scale_factor: int) -> VaeImageProcessor:
    """Makes masks of 0 and 1."""
    return VaeImageProcessor(vae_scale_factor=vae_scale_factor, do_normalize=False, do_binarize=True, do_convert_grayscale=True)


class InpaintMixin:
    """Methods of PyTorch diffusers' pipelines that paint in an image."""

    _encode: Encode
    _guided_batch: Callable[[Tensor, Tensor], Tensor]
    vae_scale_factor: int

    @property
    def mask_processor(self) -> VaeImageProcessor:
        """Makes masks of 0 and 1."""
        return make_mask_processor(self.vae_scale_factor)

    def prepare_mask_latents(
        self,
        mask: Tensor,
        masked_image: Tensor | None,
        batch_size: int,
        height: int,
        width: int,
        dtype: Any,
        device: Any,
        generator: Any,
        do_classifier_free_guidance: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """See `inpainting.prepare_mask_latents`. `device` is not used."""
        size = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        return prepare_mask_latents(self._encode, mask, masked_image, batch_size, size, dtype, generator, do_classifier_free_guidance)

    def _start_painting(
        self,
        tensors: dict[str, Any],
        images: int,
        pixels: Tensor,
        mask: Tensor,
        masked_image: Tensor | None,
        generator: Any,
        latents: Tensor | None,
        timestep: np.ndarray,
        from_noise: bool,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Put the latents, the mask and what it leaves of the image into `denoise`'s tensors.

        Args:
            tensors: with the prompts' embeddings.
            images: images to draw.
            pixels, mask, masked_image: see `preprocess_with_mask`.
            generator, latents, timestep, from_noise, options: see `start_latents`.

        Returns:
            The noise, and of a UNet that is not shown the mask the image's latents, else None.
        """
        channels, unet_channels = self.vae.config.latent_channels, self.unet.config.in_channels
        (height, width), dtype = mask.shape[2:], tensors["prompt_embeds"].dtype
        tensors["latents"], noise, *clean = self.prepare_latents(
            images, channels, height, width, dtype, self.device, generator, latents, pixels, timestep, from_noise, return_noise=True,
            return_image_latents=unet_channels == 4, **options,
        )  # fmt: skip
        masks = self.prepare_mask_latents(mask, masked_image, images, height, width, dtype, self.device, generator, False)
        tensors["mask"], tensors["masked_image_latents"] = (None if one is None else self._guided_batch(one, one) for one in masks)
        check_channels(unet_channels, channels, tensors["mask"], tensors["masked_image_latents"])
        return noise, clean[0] if clean else None

    def _paint(
        self,
        timesteps: np.ndarray,
        num_inference_steps: int,
        tensors: dict[str, Any],
        clean: Tensor | None,
        noise: Tensor,
        step_kwargs: dict[str, Any],
        callback_on_step_end: Callable | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
        control: Callable[[Tensor, float, dict[str, Any]], dict[str, Any]] | None = None,
    ) -> Tensor:
        """`denoise`, with the UNet shown the mask, or the rest of the image put back after each step.

        Args:
            clean, noise: what `_start_painting` gave.
            control: see `GuidedPipeline._predictor`.

        The other arguments are `denoise`'s.
        """
        shown = clean is None
        return denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(mask_and_rest if shown else None, control), step_kwargs,
            callback_on_step_end, callback_on_step_end_tensor_inputs,
            None if shown else keep_unmasked(self.scheduler, timesteps, clean, noise),
        )  # fmt: skip

    def _put_back(self, painted: Any, image: Any, mask_image: Any, crop: tuple[int, int, int, int] | None) -> Any:
        """The images that were painted, in their place of the whole image where a part of it was cut out."""
        return painted if crop is None else [self.image_processor.apply_overlay(mask_image, image, one, crop) for one in painted]


def check_mask_crop(padding_mask_crop: int | None, image: Any, mask_image: Any, output_type: str | None) -> None:
    if padding_mask_crop is None:
        return
    for name, value in (("image", image), ("mask_image", mask_image)):
        if not isinstance(value, Image.Image):
            raise ConfigError(f"{name} is a {type(value).__name__}; with padding_mask_crop, pass a Pillow image")
    if output_type != "pil":
        raise ConfigError(f"output_type is {output_type!r}; padding_mask_crop gives Pillow images only: pass 'pil'")


def preprocess_with_mask(
    vae_scale_factor: int,
    image: Any,
    mask_image: Any,
    masked_image_latents: Tensor | None,
    height: int | None,
    width: int | None,
    padding_mask_crop: int | None,
) -> tuple[Tensor, Tensor, Tensor | None, tuple[int, int, int, int] | None]:
    """An image and its mask at the same size, what the mask leaves of it, and the part of them that is painted.

    Args:
        vae_scale_factor: pixels a latent.
        image: see `VaeImageProcessor.preprocess`.
        mask_image: likewise; white where to paint.
        masked_image_latents: instead of what the mask leaves.
        height: in pixels, by default the image's.
        width: likewise.
        padding_mask_crop: cut both to the mask's bounding box, with this margin.

    Returns:
        (images, channels, height, width), (masks, 1, height, width) of 0 and 1, like the first (of latents None), and the box, if they
        were cut.
    """
    masks, crop, resize_mode = make_mask_processor(vae_scale_factor), None, "default"
    processor = VaeImageProcessor(vae_scale_factor=vae_scale_factor)
    if padding_mask_crop is not None:
        height, width = processor.get_default_height_width(image, height, width)
        crop, resize_mode = masks.get_crop_region(mask_image, width, height, pad=padding_mask_crop), "fill"
    options = {"crops_coords": crop, "resize_mode": resize_mode}
    pixels = processor.preprocess(image, height, width, **options)
    mask = masks.preprocess(mask_image, height or pixels.shape[2], width or pixels.shape[3], **options)
    masked = masked_image_latents
    if masked is None and pixels.shape[1] != processor.config.vae_latent_channels:
        masked = pixels * (mask < 0.5).astype(pixels.dtype)
    return pixels, mask, masked, crop


def start_latents(
    encode: Encode,
    scheduler: Any,
    shape: tuple[int, ...],
    dtype: Any,
    generator: Any = None,
    latents: Any = None,
    image: Tensor | None = None,
    timestep: Any = None,
    from_noise: bool = True,
    add_noise: bool = True,
    with_image: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Latents to start from: noise, the image's with noise, or the image's.

    Args:
        encode: from images to latents.
        scheduler: adds the noise.
        shape: of the latents.
        dtype: of the results.
        generator: draws from the latents' distribution, then the noise; or a list with one for each image.
        latents: the noise, instead of drawn numbers.
        image: (images, 3, height, width) in [-1, 1], or latents.
        timestep: how noisy the image is to be: one of the scheduler's timesteps.
        from_noise: start from noise alone.
        add_noise: False to start from the image's latents.
        with_image: the image's latents are wanted.

    Returns:
        The latents, the noise, and the image's latents where they were needed.

    Raises:
        ConfigError: neither noise alone nor an image and a timestep, or as many generators as images were not given.
    """
    check_generators(generator, shape[0])
    if not from_noise and (image is None or timestep is None):
        raise ConfigError("a strength below 1 starts from an image and a timestep: pass both")
    clean = None
    if with_image or not add_noise or (latents is None and not from_noise):
        clean = repeat_to(shape[0], encode(image.astype(dtype), generator), "images").astype(dtype)
    if latents is None or not add_noise:
        noise = randn_tensor(shape, generator=generator, dtype=dtype)
    else:
        noise = prepare_latents(shape, dtype, latents=latents)
    if not add_noise:
        return clean, noise, clean
    if latents is None and not from_noise:
        return scheduler.add_noise(clean, noise, timestep), noise, clean
    return noise * float(scheduler.init_noise_sigma), noise, clean


def prepare_mask_latents(
    encode: Encode,
    mask: Tensor,
    masked_image: Tensor | None,
    batch_size: int,
    size: tuple[int, int],
    dtype: Any,
    generator: Any,
    guided: bool,
) -> tuple[Tensor, Tensor | None]:
    """A mask and the latents of what it leaves of an image, as inputs of an inpainting UNet.

    Args:
        encode: from images to latents.
        mask: (masks, 1, height, width), 1 where the image is to be painted.
        masked_image: (images, 3, height, width), or its latents; None gives None.
        batch_size: images to draw.
        size: the latents' height and width.
        dtype: of the results.
        generator: draws from the latents' distribution; see `images.encode_image`.
        guided: both twice, for classifier-free guidance.
    """
    results = [repeat_to(batch_size, F.interpolate(mask, size=size).astype(dtype), "masks"), None]
    if masked_image is not None:
        results[1] = repeat_to(batch_size, encode(masked_image.astype(dtype), generator), "masked images").astype(dtype)
    return tuple(F.cat((tensor, tensor), 0) if guided and tensor is not None else tensor for tensor in results)


def check_channels(unet_channels: int, latents: int, mask: Tensor, masked_image_latents: Tensor | None) -> None:
    """Raises ConfigError for a UNet of neither 4 nor 9 channels, or other inputs than 9 channels for one of those."""
    if unet_channels not in (4, 9):
        raise ConfigError(f"the UNet takes {unet_channels} channels; expected 4, or 9 of an inpainting UNet")
    if unet_channels == 9 and masked_image_latents is None:
        raise ConfigError("image holds latents, which cannot be masked for an inpainting UNet: pass masked_image_latents too")
    if unet_channels == 9 and latents + mask.shape[1] + masked_image_latents.shape[1] != 9:
        raise ConfigError(
            f"latents, mask and masked image have {latents}, {mask.shape[1]} and {masked_image_latents.shape[1]} channels; the UNet takes "
            "9: check mask_image and image"
        )


def mask_and_rest(tensors: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What an inpainting UNet takes beside the latents."""
    return tensors["mask"], tensors["masked_image_latents"]


def keep_unmasked(scheduler: Any, timesteps: np.ndarray, clean: Tensor, noise: Tensor) -> Callable[[int, dict[str, Any]], Tensor]:
    """What `denoise` does after each step for a UNet that is not shown the mask: outside of it, put the image with the next step's noise.

    Args:
        scheduler: adds the noise.
        timesteps: of the steps.
        clean: the image's latents, (batch, ...).
        noise: of the same shape.
    """

    def keep(step: int, tensors: dict[str, Any]) -> Tensor:
        kept = clean if step == len(timesteps) - 1 else scheduler.add_noise(clean, noise, timesteps[step + 1 : step + 2])
        mask = tensors["mask"][: clean.shape[0]]  # which is there twice with guidance
        return (1 - mask) * kept + mask * tensors["latents"]

    return keep
