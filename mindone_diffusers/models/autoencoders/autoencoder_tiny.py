"""`AutoencoderTiny`: a small distilled autoencoder for the latents of larger ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mindspore import Tensor

from ...core.configuration import ConfigMixin, register_to_config
from ...core.errors import ConfigError
from ...core.outputs import BaseOutput
from ..modeling_utils import ModelMixin
from .vae import AutoencoderMixin, DecoderOutput, DecoderTiny, EncoderTiny, paint_tiles


@dataclass
class AutoencoderTinyOutput(BaseOutput):
    """Latents (batch, latent_channels, h, w)."""

    latents: Tensor


class AutoencoderTiny(AutoencoderMixin, ModelMixin, ConfigMixin):
    """TAESD (github.com/madebyollin/taesd): images in [-1, 1] (batch, in_channels, H, W) to latents and back, without a variance.

    Args:
        in_channels, out_channels: of the images.
        encoder_block_out_channels, num_encoder_blocks: widths and numbers of blocks, one a resolution, finest first.
        decoder_block_out_channels, num_decoder_blocks: likewise, coarsest first.
        act_fn: "relu", "silu", "mish" or "gelu".
        upsample_fn, upsampling_scaling_factor: interpolation mode, and factor between the decoder's resolutions.
        latent_channels: of the latents.
        latent_magnitude, latent_shift: `scale_latents` maps latents in +-latent_magnitude to [0, 1], 0 to `latent_shift`.
        force_upcast: accepted, and False in the config whatever is given, as upstream.
        scaling_factor, shift_factor: read by pipelines.

    Raises:
        ConfigError: lengths of the blocks' lists differ, or the activation is unknown.

    Attributes:
        spatial_scale_factor: side of the images over that of the latents.
        tile_sample_min_size, tile_latent_min_size: side of a tile of `enable_tiling` in pixels and in latents.
        tile_overlap_factor: share of a tile that its neighbour has too.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        encoder_block_out_channels: Sequence[int] = (64, 64, 64, 64),
        decoder_block_out_channels: Sequence[int] = (64, 64, 64, 64),
        act_fn: str = "relu",
        upsample_fn: str = "nearest",
        latent_channels: int = 4,
        upsampling_scaling_factor: int = 2,
        num_encoder_blocks: Sequence[int] = (1, 3, 3, 3),
        num_decoder_blocks: Sequence[int] = (3, 3, 3, 1),
        latent_magnitude: float = 3,
        latent_shift: float = 0.5,
        force_upcast: bool = False,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ):
        super().__init__()
        for side, widths, numbers in (
            ("encoder", encoder_block_out_channels, num_encoder_blocks),
            ("decoder", decoder_block_out_channels, num_decoder_blocks),
        ):
            if len(widths) != len(numbers):
                raise ConfigError(
                    f"{side}_block_out_channels has {len(widths)} entries, num_{side}_blocks has {len(numbers)}; expected the same number."
                )
        self.encoder = EncoderTiny(in_channels, latent_channels, num_encoder_blocks, encoder_block_out_channels, act_fn)
        self.decoder = DecoderTiny(
            latent_channels, out_channels, num_decoder_blocks, decoder_block_out_channels, upsampling_scaling_factor, act_fn, upsample_fn
        )
        self.latent_magnitude = latent_magnitude
        self.latent_shift = latent_shift
        self.scaling_factor = scaling_factor
        self.spatial_scale_factor = 2 ** (len(num_encoder_blocks) - 1)
        self._upsampling = upsampling_scaling_factor ** (len(num_decoder_blocks) - 1)
        self.tile_sample_min_size = 512
        self.tile_latent_min_size = self.tile_sample_min_size // self.spatial_scale_factor
        self.tile_overlap_factor = 0.125
        self.register_to_config(block_out_channels=decoder_block_out_channels, force_upcast=False)

    def scale_latents(self, x: Tensor) -> Tensor:
        """Latents to [0, 1]."""
        return (x / (2 * self.latent_magnitude) + self.latent_shift).clamp(0, 1)

    def unscale_latents(self, x: Tensor) -> Tensor:
        """[0, 1] to latents."""
        return (x - self.latent_shift) * (2 * self.latent_magnitude)

    def _quantize(self, latents: Tensor) -> Tensor:
        """Latents as they are after storage in bytes."""
        return self.unscale_latents((self.scale_latents(latents) * 255).round() / 255)

    # Tensor cores

    def _encode(self, x: Tensor) -> tuple[Tensor]:
        return (self.encoder(x),)

    def _decode(self, x: Tensor) -> tuple[Tensor]:
        return (self.decoder(x),)

    def construct(self, sample: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Decode the images' quantised latents."""
        return (self.decoder(self._quantize(self.encoder(sample))),)

    # What users call

    def __call__(self, sample: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Encode images in [-1, 1], round the latents to the 256 levels of a byte each, and decode them."""
        return self.decode(self._quantize(self.encode(sample).latents), return_dict=return_dict)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderTinyOutput | tuple[Tensor]:
        """Latents of images in [-1, 1] (batch, in_channels, H, W).

        Raises:
            TypeError: `x` is no tensor, or not of the model's dtype.
            ValueError: wrong rank or number of channels; with tiling, H or W is not a multiple of `spatial_scale_factor`.
        """
        self._check_input("x", x, self.config.in_channels, multiple=self.spatial_scale_factor if self.use_tiling else 1)
        latents = self._run_parts("_encode", x)
        return AutoencoderTinyOutput(latents=latents) if return_dict else (latents,)

    def decode(self, x: Tensor, generator: Any = None, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Images, about in [-1, 1] (not clamped), of latents (batch, latent_channels, h, w). `generator` is not used.

        Raises TypeError and ValueError as `encode`.
        """
        return self._decode_parts("x", x, return_dict)

    def _tiled(self, core: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        channels, size, scale = self.config.out_channels, self.tile_latent_min_size, {"up": self._upsampling}
        if core == "_encode":
            channels, size, scale = self.config.latent_channels, self.tile_sample_min_size, {"down": self.spatial_scale_factor}
        return paint_tiles(function, x, channels, size, int(size * self.tile_overlap_factor), **scale)
