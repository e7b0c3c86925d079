"""`VaeImageProcessor`: user's images to tensors in [-1, 1], and a VAE's tensors to images; `IPAdapterMaskProcessor`: their masks.

Preparing images is host work: it is done in NumPy and Pillow, and the result goes to the device once.
"""

import math
import warnings
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from PIL import Image, ImageFilter, ImageOps

from .core.configuration import ConfigMixin, register_to_config
from .core.errors import ConfigError
from .core.hub import CONFIG_NAME
from .nn import functional as F
from .utils.pil_utils import PIL_INTERPOLATION, numpy_to_pil

PipelineImageInput = Image.Image | np.ndarray | Tensor | list[Image.Image] | list[np.ndarray] | list[Tensor]
PipelineDepthInput = PipelineImageInput

OUTPUT_TYPES = ("pil", "np", "ms", "pt", "latent")


def is_valid_image(image: Any) -> bool:
    """Whether `image` is a Pillow image, or an array or tensor of two or three axes."""
    return isinstance(image, Image.Image) or (isinstance(image, (np.ndarray, Tensor)) and image.ndim in (2, 3))


def is_valid_image_imagelist(images: Any) -> bool:
    """Whether `images` is one image, a list of images, or an array or tensor of four axes."""
    if isinstance(images, list):
        return all(is_valid_image(image) for image in images)
    return is_valid_image(images) or (isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4)


def check_output_type(output_type: str) -> None:
    """Raises ConfigError for an `output_type` that pipelines do not have."""
    if output_type not in OUTPUT_TYPES:
        raise ConfigError(f"output_type is {output_type!r}; expected one of {', '.join(map(repr, OUTPUT_TYPES))}")


class VaeImageProcessor(ConfigMixin):
    """Prepares images for a VAE and makes images of what it decodes.

    Args:
        do_resize: scale images, by default to the next smaller multiples of `vae_scale_factor`.
        vae_scale_factor: pixels a latent.
        vae_latent_channels: tensors with this many channels are latents and pass `preprocess` unchanged.
        resample: Pillow filter: "lanczos", "bicubic", "bilinear" ("linear") or "nearest".
        reducing_gap: Pillow's speed-up for large reductions.
        do_normalize: bring [0, 1] to [-1, 1], and back.
        do_binarize: round to 0 and 1, for masks.
        do_convert_rgb: make Pillow images RGB.
        do_convert_grayscale: make Pillow images grey.

    Raises:
        ConfigError: both conversions.
    """

    config_name = CONFIG_NAME

    @register_to_config
    def __init__(
        self,
        do_resize: bool = True,
        vae_scale_factor: int = 8,
        vae_latent_channels: int = 4,
        resample: str = "lanczos",
        reducing_gap: int | None = None,
        do_normalize: bool = True,
        do_binarize: bool = False,
        do_convert_rgb: bool = False,
        do_convert_grayscale: bool = False,
    ):
        if do_convert_rgb and do_convert_grayscale:
            raise ConfigError("do_convert_rgb and do_convert_grayscale are both True: an image is made RGB or grey, set one of them")

    # Between formats

    numpy_to_pil = staticmethod(numpy_to_pil)

    @staticmethod
    def pil_to_numpy(images: Image.Image | list[Image.Image]) -> np.ndarray:
        """Pillow images of one size as an array in [0, 1], (batch, height, width[, channels])."""
        images = images if isinstance(images, list) else [images]
        return np.stack([np.asarray(image, dtype=np.float32) / 255 for image in images])

    @staticmethod
    def numpy_to_ms(images: np.ndarray) -> Tensor:
        """(batch, height, width[, channels]) as a tensor (batch, channels, height, width)."""
        return _to_tensor(_channels_first(images))

    numpy_to_pt = numpy_to_ms

    @staticmethod
    def ms_to_numpy(images: Tensor) -> np.ndarray:
        """(batch, channels, height, width) as a float32 array (batch, height, width, channels)."""
        return images.asnumpy().transpose(0, 2, 3, 1).astype(np.float32)

    pt_to_numpy = ms_to_numpy

    @staticmethod
    def normalize(images: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """[0, 1] to [-1, 1]."""
        return 2.0 * images - 1.0

    @staticmethod
    def denormalize(images: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """[-1, 1] to [0, 1], clipped."""
        return (images * 0.5 + 0.5).clip(0, 1)

    @staticmethod
    def convert_to_rgb(image: Image.Image) -> Image.Image:
        return image.convert("RGB")

    @staticmethod
    def convert_to_grayscale(image: Image.Image) -> Image.Image:
        return image.convert("L")

    # Masks

    @staticmethod
    def binarize(image: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """1 where the value is at least 0.5, else 0."""
        return (image >= 0.5).astype(image.dtype)

    @staticmethod
    def blur(image: Image.Image, blur_factor: int = 4) -> Image.Image:
        """Gaussian blur of radius `blur_factor` pixels."""
        return image.filter(ImageFilter.GaussianBlur(blur_factor))

    @staticmethod
    def get_crop_region(mask_image: Image.Image, width: int, height: int, pad: int = 0) -> tuple[int, int, int, int]:
        """The box around a mask's nonzero pixels, extended by `pad` and then to the aspect ratio `width : height`.

        Returns:
            Left, top, right, bottom, inside the image.

        Raises:
            ConfigError: the mask is zero everywhere.
        """
        mask = np.asarray(mask_image.convert("L"))
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        if rows.size == 0:
            raise ConfigError("the mask is zero everywhere, there is no region to crop to: paint the part to change, or leave out the crop")
        rows_limit, columns_limit = mask.shape
        left, right = max(int(columns[0]) - pad, 0), min(int(columns[-1]) + 1 + pad, columns_limit)
        top, bottom = max(int(rows[0]) - pad, 0), min(int(rows[-1]) + 1 + pad, rows_limit)
        aspect = width / height
        if (right - left) / (bottom - top) > aspect:
            top, bottom = _extended(top, bottom, int((right - left) / aspect), rows_limit)
        else:
            left, right = _extended(left, right, int((bottom - top) * aspect), columns_limit)
        return left, top, right, bottom

    def apply_overlay(
        self, mask: Image.Image, init_image: Image.Image, image: Image.Image, crop_coords: tuple[int, int, int, int] | None = None
    ) -> Image.Image:
        """`image` where `mask` is white, `init_image` where it is black.

        Args:
            mask: grey, the size of `init_image`.
            init_image: the original.
            image: what was generated, of that size or, with `crop_coords`, of any.
            crop_coords: left, top, right, bottom of the place in the original that `image` belongs to.
        """
        kept = Image.new("RGBa", init_image.size)
        kept.paste(init_image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
        if crop_coords is not None:
            left, top, right, bottom = crop_coords
            whole = Image.new("RGBA", init_image.size)
            whole.paste(self.resize(image, height=bottom - top, width=right - left, resize_mode="crop"), (left, top))
            image = whole.convert("RGB")
        image = image.convert("RGBA")
        image.alpha_composite(kept.convert("RGBA"))
        return image.convert("RGB")

    # Sizes

    def resize(
        self, image: Image.Image | np.ndarray | Tensor, height: int, width: int, resize_mode: str = "default"
    ) -> Image.Image | np.ndarray | Tensor:
        """Scale an image.

        Args:
            image: a Pillow image, an array (batch, height, width[, channels]) or a tensor (batch, channels, height, width). Arrays and
                tensors take their nearest pixels.
            height: in pixels.
            width: in pixels.
            resize_mode: "default" stretches. For Pillow images also "fill", which fits the image inside and repeats its edges
                around it, and "crop", which fits it around and cuts what is outside.

        Raises:
            ConfigError: another mode, or one that is for Pillow images only.
        """
        if resize_mode not in ("default", "fill", "crop"):
            raise ConfigError(f"resize_mode is {resize_mode!r}; expected 'default', 'fill' or 'crop'")
        if isinstance(image, Image.Image):
            if resize_mode != "default":
                return self._resize_and_centre(image, width, height, fill=resize_mode == "fill")
            filter = PIL_INTERPOLATION[self.config.resample]
            return image.resize((width, height), resample=filter, reducing_gap=self.config.reducing_gap)
        if resize_mode != "default":
            raise ConfigError(f"resize_mode={resize_mode!r} is for Pillow images; got a {type(image).__name__}")
        if isinstance(image, Tensor):
            return _to_tensor(_nearest(image.asnumpy(), height, width))
        return _nearest(_channels_first(image), height, width).transpose(0, 2, 3, 1)

    def _resize_and_centre(self, image: Image.Image, width: int, height: int, fill: bool) -> Image.Image:
        """Scale to fit inside (`fill`) or around width x height, keeping the aspect ratio, and paste in the middle."""
        aspect, image_aspect = width / height, image.width / image.height
        by_width = aspect < image_aspect if fill else aspect > image_aspect
        new_width = width if by_width else image.width * height // image.height
        new_height = image.height * width // image.width if by_width else height
        scaled = image.resize((new_width, new_height), resample=PIL_INTERPOLATION[self.config.resample])
        left, top = width // 2 - new_width // 2, height // 2 - new_height // 2
        canvas = Image.new("RGB", (width, height))
        canvas.paste(scaled, (left, top))
        if fill and by_width and top > 0:
            canvas.paste(scaled.resize((width, top), box=(0, 0, width, 0)), (0, 0))
            canvas.paste(scaled.resize((width, top), box=(0, new_height, width, new_height)), (0, top + new_height))
        elif fill and not by_width and left > 0:
            canvas.paste(scaled.resize((left, height), box=(0, 0, 0, height)), (0, 0))
            canvas.paste(scaled.resize((left, height), box=(new_width, 0, new_width, height)), (left + new_width, 0))
        return canvas

    def get_default_height_width(
        self, image: Image.Image | np.ndarray | Tensor, height: int | None = None, width: int | None = None
    ) -> tuple[int, int]:
        """Height and width, by default the image's, as multiples of `vae_scale_factor` (the next smaller ones).

        `image` is a Pillow image, an array (batch, height, width[, channels]) or a tensor (batch, channels, height, width).
        """
        if isinstance(image, Image.Image):
            own_height, own_width = image.height, image.width
        else:
            first = 2 if isinstance(image, Tensor) else 1
            own_height, own_width = image.shape[first : first + 2]
        return self._multiples(height or own_height, width or own_width)

    def _multiples(self, height: int, width: int) -> tuple[int, int]:
        factor = self.config.vae_scale_factor
        return height - height % factor, width - width % factor

    # The whole way

    def preprocess(
        self,
        image: PipelineImageInput,
        height: int | None = None,
        width: int | None = None,
        resize_mode: str = "default",
        crops_coords: tuple[int, int, int, int] | None = None,
    ) -> Tensor:
        """Images as a tensor for a VAE, (batch, channels, height, width), in [-1, 1] if `do_normalize`.

        Args:
            image: one or a list of Pillow images, arrays (height, width[, channels]) or tensors (channels, height, width), or a batch as
                one array (batch, height, width, channels) or tensor (batch, channels, height, width). Arrays and tensors are in [0, 1];
                a tensor with `vae_latent_channels` channels is taken for latents and returned as it is.
            height: in pixels, by default the image's. Cut to a multiple of `vae_scale_factor`.
            width: likewise.
            resize_mode: see `resize`.
            crops_coords: left, top, right, bottom that Pillow images are cropped to first.

        Raises:
            ConfigError: none of these formats.
        """
        if self.config.do_convert_grayscale and isinstance(image, (np.ndarray, Tensor)) and image.ndim == 3:
            channels_last = isinstance(image, np.ndarray) and image.shape[-1] == 1
            image = image[None] if channels_last else image[:, None] if isinstance(image, Tensor) else image[..., None]
        if isinstance(image, list) and image and isinstance(image[0], (np.ndarray, Tensor)) and image[0].ndim == 4:
            image = np.concatenate(image) if isinstance(image[0], np.ndarray) else F.cat(image, 0)
        images = image if isinstance(image, list) else [image]
        if not images or not is_valid_image_imagelist(image):
            kind = f"a list of {[type(item).__name__ for item in image]}" if isinstance(image, list) else f"a {type(image).__name__}"
            raise ConfigError(
                f"image is {kind}; expected Pillow images, NumPy arrays or MindSpore tensors of 2 or 3 axes, one or a list of one kind, "
                "or one array or tensor of 4 axes"
            )

        if isinstance(images[0], Image.Image):
            pixels = _channels_first(self._prepare_pil(images, height, width, resize_mode, crops_coords))
        else:
            batch = images[0] if images[0].ndim == 4 else None
            if isinstance(images[0], Tensor):
                batch = F.stack(images, 0) if batch is None else batch
                batch = batch[:, None] if batch.ndim == 3 and self.config.do_convert_grayscale else batch
                if batch.shape[1] == self.config.vae_latent_channels:
                    return batch
                pixels = batch.asnumpy()
            else:
                pixels = _channels_first(np.stack(images) if batch is None else batch)
            if self.config.do_resize:
                pixels = _nearest(pixels, *self._multiples(height or pixels.shape[2], width or pixels.shape[3]))
            if np.issubdtype(pixels.dtype, np.integer):
                pixels = pixels.astype(np.float32)

        if self.config.do_normalize:
            if pixels.min() < 0:
                warnings.warn(
                    f"image has values from {pixels.min()} to {pixels.max()}, so it is taken to be in [-1, 1] already; pass arrays and "
                    "tensors in [0, 1]",
                    FutureWarning,
                    stacklevel=2,
                )
            else:
                pixels = self.normalize(pixels)
        return _to_tensor(self.binarize(pixels) if self.config.do_binarize else pixels)

    def _prepare_pil(
        self,
        images: list[Image.Image],
        height: int | None,
        width: int | None,
        resize_mode: str,
        crop: tuple[int, int, int, int] | None,
    ) -> np.ndarray:
        if crop is not None:
            images = [image.crop(crop) for image in images]
        if self.config.do_resize:
            height, width = self.get_default_height_width(images[0], height, width)
            images = [self.resize(image, height, width, resize_mode) for image in images]
        if self.config.do_convert_rgb:
            images = [self.convert_to_rgb(image) for image in images]
        elif self.config.do_convert_grayscale:
            images = [self.convert_to_grayscale(image) for image in images]
        return self.pil_to_numpy(images)

    def postprocess(
        self, image: Tensor, output_type: str = "pil", do_denormalize: list[bool] | None = None
    ) -> list[Image.Image] | np.ndarray | Tensor:
        """What a VAE decoded, (batch, channels, height, width), as images.

        Args:
            image: the tensor.
            output_type: "pil" (a list of Pillow images), "np" (an array (batch, height, width, channels)), "ms" or "pt" (a tensor), or
                "latent" (`image` itself).
            do_denormalize: for each image, whether to bring [-1, 1] to [0, 1]. Default: all or none, as `do_normalize` says.

        Raises:
            ConfigError: not a tensor, or another `output_type`.
        """
        if not isinstance(image, Tensor):
            raise ConfigError(f"postprocess takes a MindSpore tensor, not a {type(image).__name__}")
        check_output_type(output_type)
        if output_type == "latent":
            return image
        image = self._denormalize_conditionally(image, do_denormalize)
        if output_type in ("ms", "pt"):
            return image
        array = self.ms_to_numpy(image)
        return array if output_type == "np" else numpy_to_pil(array)

    def _denormalize_conditionally(self, images: Tensor, do_denormalize: list[bool] | None = None) -> Tensor:
        if do_denormalize is None:
            do_denormalize = [self.config.do_normalize]
        if all(do_denormalize):
            return self.denormalize(images)
        if not any(do_denormalize):
            return images
        return F.stack([self.denormalize(image) if chosen else image for image, chosen in zip(images, do_denormalize)], 0)


class IPAdapterMaskProcessor(VaeImageProcessor):
    """Prepares masks of where the images of an IP-Adapter act, as (masks, 1, height, width) of 0 and 1. The arguments are
    `VaeImageProcessor`'s."""

    @register_to_config
    def __init__(
        self,
        do_resize: bool = True,
        vae_scale_factor: int = 8,
        resample: str = "lanczos",
        do_normalize: bool = False,
        do_binarize: bool = True,
        do_convert_grayscale: bool = True,
    ):
        super().__init__(
            do_resize=do_resize,
            vae_scale_factor=vae_scale_factor,
            resample=resample,
            do_normalize=do_normalize,
            do_binarize=do_binarize,
            do_convert_grayscale=do_convert_grayscale,
        )

    @staticmethod
    def downsample(mask: Tensor, batch_size: int, num_queries: int, value_embed_dim: int) -> Tensor:
        """Masks as factors of an attention's output.

        Args:
            mask: (masks, height, width), of the generated image's aspect ratio. With another one, zeros may follow at the end.
            batch_size: of the output; fewer masks are repeated so many times.
            num_queries: of the attention: pixels of a map of some height and width.
            value_embed_dim: channels of the output.

        Returns:
            (masks or masks * batch_size, num_queries, value_embed_dim), not clipped: the cubic interpolation goes beyond 0 and 1.
        """
        height, width = mask.shape[1:]
        rows = int(math.sqrt(num_queries / (width / height)))
        rows += num_queries % rows != 0
        columns = num_queries // rows
        small = F.interpolate(mask.expand_dims(0), size=(rows, columns), mode="bicubic")[0].reshape((mask.shape[0], rows * columns))
        if small.shape[0] < batch_size:
            small = small.tile((batch_size, 1))
        if rows * columns < num_queries:
            warnings.warn(
                f"a mask of {height} x {width} does not fit an attention map of {num_queries} pixels and leaves its last ones out: make "
                "masks of the image's aspect ratio",
                UserWarning,
                stacklevel=2,
            )
            small = F.pad(small, (0, num_queries - rows * columns))
        return small.expand_dims(-1).tile((1, 1, value_embed_dim))


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    return images.transpose(0, 3, 1, 2)


def _to_tensor(array: np.ndarray) -> Tensor:
    return ms.Tensor.from_numpy(np.ascontiguousarray(array))


def _nearest(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """(batch, channels, rows, columns) scaled by taking the pixel at floor(i * old / new), the ratio in float32 as in torch."""

    def indices(old: int, new: int) -> np.ndarray:
        return np.minimum((np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(np.int64), old - 1)

    if images.shape[2:] == (height, width):
        return images
    return images[:, :, indices(images.shape[2], height)[:, None], indices(images.shape[3], width)]


def _extended(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """Extend [start, end) on both sides to `length`, then move and cut it to fit [0, limit)."""
    extra = length - (end - start)
    start, end = start - extra // 2, end + extra - extra // 2
    if end > limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, min(end - start, limit)
    return start, end
