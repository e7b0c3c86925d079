"""`AsymmetricAutoencoderKL`: an autoencoder whose larger decoder keeps what is outside of an inpainting mask."""

from collections.abc import Sequence
from typing import Any

from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...nn import functional as F
from ..modeling_utils import ModelMixin
from .vae import DecoderOutput, Encoder, MaskConditionDecoder, PosteriorMixin


class AsymmetricAutoencoderKL(PosteriorMixin, ModelMixin, ConfigMixin):
    """As `AutoencoderKL`, with an encoder and a decoder of different sizes, and a decoder that can take the image and the mask of an
    inpainting (arXiv:2306.04632). It has no tiling and no slicing.

    Args:
        in_channels, out_channels: of the images.
        down_block_types, down_block_out_channels, layers_per_down_block: kinds, widths and depth of the encoder's blocks.
        up_block_types, up_block_out_channels, layers_per_up_block: the decoder's.
        act_fn: "silu", "mish", "gelu" or "relu".
        latent_channels: of the latents.
        norm_num_groups: groups of the normalisations.
        sample_size: side of the images it was trained on; not used.
        scaling_factor: read by pipelines, which see latents as `latents * scaling_factor`.

    Raises:
        ConfigError: lengths of the blocks' lists differ, or a block type or activation is unknown.
    """

    use_slicing = use_tiling = None

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = ("DownEncoderBlock2D",),
        down_block_out_channels: Sequence[int] = (64,),
        layers_per_down_block: int = 1,
        up_block_types: Sequence[str] = ("UpDecoderBlock2D",),
        up_block_out_channels: Sequence[int] = (64,),
        layers_per_up_block: int = 1,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 32,
        scaling_factor: float = 0.18215,
    ):
        super().__init__()
        shared = {"act_fn": act_fn, "norm_num_groups": norm_num_groups}
        self.encoder = Encoder(
            in_channels, latent_channels, down_block_types, down_block_out_channels, layers_per_block=layers_per_down_block, **shared
        )
        self.decoder = MaskConditionDecoder(
            latent_channels, out_channels, up_block_types, up_block_out_channels, layers_per_block=layers_per_up_block, **shared
        )
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self._downsampling = 2 ** (len(down_block_out_channels) - 1)
        self.register_to_config(block_out_channels=up_block_out_channels, force_upcast=False)

    def _decode(self, z: Tensor, image: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor]:
        return (self.decoder(self.post_quant_conv(z), image, mask),)

    def construct(self, sample: Tensor, mask: Tensor | None = None, return_dict: bool = False) -> tuple[Tensor]:
        """Decode the mode of the images' latents, outside of the mask with the images' features."""
        (moments,) = self._encode(sample)
        return self._decode(F.chunk(moments, 2, 1)[0], sample, mask)

    def __call__(
        self,
        sample: Tensor,
        mask: Tensor | None = None,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: Any = None,
    ) -> DecoderOutput | tuple[Tensor]:
        """Encode and decode images.

        Args:
            sample: images (batch, in_channels, H, W), usually in [-1, 1].
            mask: see `decode`, whose `image` the images are.
            sample_posterior: decode a draw of the latents instead of their mode.
            generator: of that draw, see `core.random.randn_tensor`.
        """
        return self.decode(self._latents(sample, sample_posterior, generator), generator, sample, mask, return_dict)

    def decode(
        self,
        z: Tensor,
        generator: Any = None,
        image: Tensor | None = None,
        mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> DecoderOutput | tuple[Tensor]:
        """Images of latents (batch, latent_channels, h, w).

        Args:
            generator: not used; other autoencoders draw numbers here.
            image: what to keep outside of the mask, (batch, out_channels, H, W), the size of the result. Cast to the model's dtype.
            mask: (batch or 1, 1, H, W): 1 where the latents decide, 0 where the image is kept. Cast likewise. Without an image or a mask,
                the latents decide everywhere.

        Raises:
            TypeError: `z` is no tensor, or not of the model's dtype.
            ValueError: wrong shapes, or an image and a mask for `up_block_out_channels` that the condition encoder's features do not fit
                (PyTorch diffusers raises a KeyError for these).
        """
        self._check_input("z", z, self.config.latent_channels)
        if image is None or mask is None:
            image = mask = None
        else:
            self._check_condition(z, image, mask)
            image, mask = image.astype(z.dtype), mask.astype(z.dtype)
        (sample,) = self._run("_decode", z, image, mask)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _check_condition(self, z: Tensor, image: Tensor, mask: Tensor) -> None:
        widths, scale = self.config.up_block_out_channels, 2 ** (len(self.decoder.up_blocks) - 1)
        if not self.decoder.takes_images:
            raise ValueError(
                f"The condition encoder's features do not fit a decoder with up_block_out_channels={widths}: leave out image and mask. "
                "It takes up to four widths, each twice the one before or, once the last one's is reached, the same."
            )
        (batch, _, height, width), channels = z.shape, self.config.out_channels
        if image.shape != (batch, channels, scale * height, scale * width):
            raise ValueError(f"image has the shape {image.shape}; expected {(batch, channels, scale * height, scale * width)}.")
        if mask.shape not in ((batch, 1, *image.shape[2:]), (1, 1, *image.shape[2:])):
            raise ValueError(f"mask has the shape {mask.shape}; expected ({batch} or 1, 1, {image.shape[2]}, {image.shape[3]}).")
