"""`AutoencoderKL`: the autoencoder of latent diffusion models."""

from collections.abc import Sequence
from typing import Any

from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...nn import functional as F
from ..attention import AttentionMixin
from ..modeling_utils import ModelMixin
from .vae import AutoencoderKLOutput, Decoder, DecoderOutput, Encoder, PosteriorMixin

__all__ = ["AutoencoderKL", "AutoencoderKLOutput"]


class AutoencoderKL(AttentionMixin, PosteriorMixin, ModelMixin, ConfigMixin):
    """Variational autoencoder between images (batch, in_channels, H, W) and latents (batch, latent_channels, H / f, W / f),
    f = 2 ** (number of blocks - 1) (arXiv:2112.10752; arXiv:1312.6114).

    Args:
        in_channels, out_channels: of the images.
        down_block_types, up_block_types, block_out_channels: kinds and widths of the blocks, one a resolution.
        layers_per_block: residual blocks of an encoder block; a decoder block has one more.
        act_fn: "silu", "mish", "gelu" or "relu".
        latent_channels: of the latents.
        norm_num_groups: groups of the normalisations.
        sample_size: side of a tile of `enable_tiling`, in pixels.
        scaling_factor, shift_factor, latents_mean, latents_std, force_upcast: read by pipelines, which see latents as
            `(latents - shift_factor) * scaling_factor`, or by the channel with the mean and standard deviation.
        use_quant_conv, use_post_quant_conv: whether there is a 1x1 convolution after the encoder and before the decoder.
        mid_block_add_attention: whether the middle blocks have attention.

    Raises:
        ConfigError: lengths of the blocks' lists differ, or a block type or activation is unknown.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = ("DownEncoderBlock2D",),
        up_block_types: Sequence[str] = ("UpDecoderBlock2D",),
        block_out_channels: Sequence[int] = (64,),
        layers_per_block: int = 1,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 32,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        force_upcast: bool = True,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
        mid_block_add_attention: bool = True,
    ):
        super().__init__()
        shared = {
            "block_out_channels": block_out_channels, "layers_per_block": layers_per_block, "act_fn": act_fn,
            "norm_num_groups": norm_num_groups, "mid_block_add_attention": mid_block_add_attention,
        }  # fmt: skip
        self.encoder = Encoder(in_channels, latent_channels, down_block_types, **shared)
        self.decoder = Decoder(latent_channels, out_channels, up_block_types, **shared)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1) if use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1) if use_post_quant_conv else None
        self._downsampling = 2 ** (len(block_out_channels) - 1)
        self._set_tiles(sample_size)

    def _decode(self, z: Tensor) -> tuple[Tensor]:
        return (self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z)),)

    def construct(self, sample: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Decode the mode of the images' latents."""
        (moments,) = self._encode(sample)
        return self._decode(F.chunk(moments, 2, 1)[0])

    def decode(self, z: Tensor, return_dict: bool = True, generator: Any = None) -> DecoderOutput | tuple[Tensor]:
        """Images of latents (batch, latent_channels, h, w).

        Args:
            generator: not used; other autoencoders draw numbers here.

        Raises:
            TypeError: `z` is no tensor, or not of the model's dtype.
            ValueError: wrong rank or number of channels.
        """
        return self._decode_parts("z", z, return_dict)
