"""What the T2I-Adapter pipelines share (arXiv:2302.08453): control images to features, and those to the UNet."""

from collections.abc import Callable, Sequence
from typing import Any

from mindspore import Tensor
from PIL import Image

from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput, VaeImageProcessor
from ...models.adapter import MultiAdapter, T2IAdapter
from ..guided import GuidedPipeline
from ..images import repeat_to


def one_adapter(adapter: T2IAdapter | MultiAdapter | list[T2IAdapter]) -> T2IAdapter | MultiAdapter:
    """An adapter as a component: of a list, a `MultiAdapter`."""
    return MultiAdapter(list(adapter)) if isinstance(adapter, (list, tuple)) else adapter


class AdapterPipeline(GuidedPipeline):
    """Base of the pipelines whose UNet adds an adapter's features of control images to its own."""

    adapter: T2IAdapter | MultiAdapter

    def _default_height_width(self, height: int | None, width: int | None, image: Any) -> tuple[int, int]:
        """Those given; in place of others the first control image's, cut to multiples of the adapter's `downscale_factor`.

        Raises:
            ConfigError: the control image is no Pillow image or tensor.
        """
        while isinstance(image, (list, tuple)) and image:
            image = image[0]
        if not isinstance(image, (Image.Image, Tensor)):
            raise ConfigError(f"image is (or holds) a {type(image).__name__}; expected Pillow images or tensors for the adapter")
        own = (image.height, image.width) if isinstance(image, Image.Image) else image.shape[-2:]
        sides = (side - side % self.adapter.downscale_factor if given is None else given for given, side in zip((height, width), own))
        return tuple(sides)

    def _control_images(self, image: PipelineImageInput, height: int, width: int) -> Tensor:
        """(images, channels, height, width) in [0, 1]; tensors as they are."""
        first = image[0] if isinstance(image, (list, tuple)) else image
        processor = VaeImageProcessor(vae_scale_factor=1, do_resize=isinstance(first, Image.Image), do_normalize=False)
        image = processor.preprocess(image, height, width)
        if image.shape[2:] != (height, width):
            raise ConfigError(f"the control image is {image.shape[2]} x {image.shape[3]} and the picture {height} x {width}: resize one")
        return image.astype(self.adapter.dtype)

    def _features(
        self, image: Any, height: int, width: int, adapter_conditioning_scale: float | Sequence[float], images: int
    ) -> tuple[Tensor, ...]:
        """The features that the UNet adds, of all the images drawn, with guidance twice.

        Raises:
            ConfigError: control images of another size, or as many as do not divide the images drawn.
            ValueError: not one image and one scale for each adapter.
        """
        if isinstance(self.adapter, MultiAdapter):
            several = isinstance(adapter_conditioning_scale, (list, tuple))
            scales = adapter_conditioning_scale if several else [adapter_conditioning_scale] * self.adapter.num_adapter
            self.adapter._check_lists(image=image, adapter_conditioning_scale=scales)
            features = self.adapter([self._control_images(one, height, width) for one in image], scales)
        else:
            features = [state * adapter_conditioning_scale for state in self.adapter(self._control_images(image, height, width))]
        features = [repeat_to(images, state, "control images") for state in features]
        return tuple(self._guided_batch(state, state) for state in features)

    def _adapted(self, features: tuple[Tensor, ...], steps: int) -> Callable[[Tensor, float, dict[str, Any]], dict[str, Any]]:
        """`control` of `_predictor`: the features in the first `steps` steps."""
        return lambda sample, t, tensors: {"down_intrablock_additional_residuals": features if tensors["step"] < steps else None}
