"""What autoencoders share: encoders, decoders, the posterior of the latents, slicing and tiling."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor

from ... import nn
from ...core.errors import ConfigError, UnsupportedError
from ...core.outputs import BaseOutput
from ...core.random import randn_tensor
from ...nn import functional as F
from ..activations import get_activation
from ..normalization import SpatialNorm
from ..unets.unet_2d_blocks import OLD_ATTENTION_NAMES, UNetMidBlock2D, get_down_block, get_up_block


@dataclass
class EncoderOutput(BaseOutput):
    """Latents (batch, channels, height, width)."""

    latent: Tensor


@dataclass
class DecoderOutput(BaseOutput):
    """Images (batch, channels, height, width); `commit_loss` is for vector-quantised models."""

    sample: Tensor
    commit_loss: Tensor | None = None


class Encoder(nn.Module):
    """Residual blocks that halve the resolution, then a middle block with attention (arXiv:2112.10752, appendix E).

    Images (batch, in_channels, H, W) become (batch, out_channels, H / f, W / f), f = 2 ** (blocks - 1).

    Args:
        double_z: twice as many channels come out: mean and logarithm of the variance.
        mid_block_add_attention: whether the middle block has attention.

    Raises:
        ConfigError: as many block types as `block_out_channels` are needed; unknown block types and activations.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = ("DownEncoderBlock2D",),
        block_out_channels: Sequence[int] = (64,),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        act_fn: str = "silu",
        double_z: bool = True,
        mid_block_add_attention: bool = True,
    ):
        super().__init__()
        _same_length("down_block_types", down_block_types, "block_out_channels", block_out_channels)
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [
                get_down_block(
                    kind,
                    num_layers=layers_per_block,
                    in_channels=block_out_channels[max(i - 1, 0)],
                    out_channels=channels,
                    add_downsample=i < len(block_out_channels) - 1,
                    resnet_eps=1e-6,
                    downsample_padding=0,
                    resnet_act_fn=act_fn,
                    resnet_groups=norm_num_groups,
                    attention_head_dim=channels,
                    temb_channels=None,
                )
                for i, (kind, channels) in enumerate(zip(down_block_types, block_out_channels))
            ]
        )
        self.mid_block = UNetMidBlock2D(
            in_channels=block_out_channels[-1],
            resnet_eps=1e-6,
            resnet_act_fn=act_fn,
            attention_head_dim=block_out_channels[-1],
            resnet_groups=norm_num_groups,
            temb_channels=None,
            add_attention=mid_block_add_attention,
        )
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, block_out_channels[-1], eps=1e-6)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(block_out_channels[-1], (2 if double_z else 1) * out_channels, 3, padding=1)

    def construct(self, sample: Tensor) -> Tensor:
        sample = self.conv_in(sample)
        for block in self.down_blocks:
            sample = block(sample)
        sample = self.mid_block(sample)
        return self.conv_out(self.conv_act(self.conv_norm_out(sample)))


class Decoder(nn.Module):
    """The mirror image of `Encoder`: a middle block, then residual blocks that double the resolution.

    Args:
        norm_type: "group", or "spatial" for normalisation modulated by the latents (arXiv:2209.09002), which `construct` then
            takes as `latent_embeds`.
        mid_block_add_attention: whether the middle block has attention.

    Raises:
        ConfigError: as many block types as `block_out_channels` are needed; unknown block types and activations.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        up_block_types: Sequence[str] = ("UpDecoderBlock2D",),
        block_out_channels: Sequence[int] = (64,),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        act_fn: str = "silu",
        norm_type: str = "group",
        mid_block_add_attention: bool = True,
    ):
        super().__init__()
        _same_length("up_block_types", up_block_types, "block_out_channels", block_out_channels)
        temb_channels = in_channels if norm_type == "spatial" else None
        widths = list(reversed(block_out_channels))
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.mid_block = UNetMidBlock2D(
            in_channels=widths[0],
            resnet_eps=1e-6,
            resnet_act_fn=act_fn,
            resnet_time_scale_shift="default" if norm_type == "group" else norm_type,
            attention_head_dim=widths[0],
            resnet_groups=norm_num_groups,
            temb_channels=temb_channels,
            add_attention=mid_block_add_attention,
        )
        self.up_blocks = nn.ModuleList(
            [
                get_up_block(
                    kind,
                    num_layers=layers_per_block + 1,
                    in_channels=widths[max(i - 1, 0)],
                    out_channels=channels,
                    prev_output_channel=widths[max(i - 1, 0)],
                    add_upsample=i < len(widths) - 1,
                    resnet_eps=1e-6,
                    resnet_act_fn=act_fn,
                    resnet_groups=norm_num_groups,
                    attention_head_dim=channels,
                    temb_channels=temb_channels,
                    resnet_time_scale_shift=norm_type,
                )
                for i, (kind, channels) in enumerate(zip(up_block_types, widths))
            ]
        )
        if norm_type == "spatial":
            self.conv_norm_out = SpatialNorm(widths[-1], temb_channels)
        else:
            self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[-1], eps=1e-6)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def construct(self, sample: Tensor, latent_embeds: Tensor | None = None) -> Tensor:
        sample = self.mid_block(self.conv_in(sample), latent_embeds)
        for block in self.up_blocks:
            sample = block(sample, latent_embeds)
        return self.to_images(sample, latent_embeds)

    def to_images(self, sample: Tensor, latent_embeds: Tensor | None) -> Tensor:
        """Images of what the last block gave."""
        sample = self.conv_norm_out(sample) if latent_embeds is None else self.conv_norm_out(sample, latent_embeds)
        return self.conv_out(self.conv_act(sample))


class MaskConditionEncoder(nn.Module):
    """Features of an image: two at its resolution, then at 1/2, 1/4 and 1/8 of it (arXiv:2306.04632).

    Attributes:
        sizes: the features' channels and how many times smaller than the image they are.
    """

    def __init__(self, in_channels: int, out_channels: int, res_channels: int):
        super().__init__()
        widths = [min(out_channels * 2**i, res_channels) for i in range(4)] + [res_channels]
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(before, width, 3 if i < 2 else 4, stride=1 if i < 2 else 2, padding=1)
                for i, (before, width) in enumerate(zip([in_channels, *widths], widths))
            ]
        )
        self.sizes = tuple(zip(widths, (1, 1, 2, 4, 8)))

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        features = ()
        for layer in self.layers:
            x = layer(x)
            features += (x,)
            x = F.relu(x)
        return features


class MaskConditionDecoder(Decoder):
    """A `Decoder` that takes what is outside a mask from an image's features (arXiv:2306.04632). Its arguments are the decoder's.

    Attributes:
        takes_images: whether `construct` can take an image: there is a feature of the size of what goes into each block, and of what comes
            out of the last.
    """

    def __init__(
        self, in_channels: int, out_channels: int, up_block_types: Sequence[str], block_out_channels: Sequence[int], **options: Any
    ):
        super().__init__(in_channels, out_channels, up_block_types, block_out_channels, **options)
        self.condition_encoder = MaskConditionEncoder(out_channels, block_out_channels[0], block_out_channels[-1])
        widths = list(reversed(block_out_channels))
        self.scales = tuple(2**i for i in reversed(range(len(widths)))) + (1,)
        needed = list(zip([widths[0], *widths], self.scales))
        # Of features of one size it is the last.
        place = {size: i for i, size in enumerate(self.condition_encoder.sizes)}
        self.takes_images = all(size in place for size in needed)
        self.places = tuple(place.get(size, -1) for size in needed)

    def construct(
        self, sample: Tensor, image: Tensor | None = None, mask: Tensor | None = None, latent_embeds: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            sample: latents (batch, in_channels, height, width).
            image: (batch, out_channels, H, W), the size of the result.
            mask: (batch or 1, 1, H, W), 1 where the latents decide and 0 where the image does. Without one of both, the latents do.
        """
        if image is None or mask is None:
            return Decoder.construct(self, sample, latent_embeds)
        features = self.condition_encoder((1 - mask) * image)
        sample = self.mid_block(self.conv_in(sample), latent_embeds)
        for i, block in enumerate(self.up_blocks):
            sample = block(self.outside(mask, i, features, sample), latent_embeds)
        return self.to_images(self.outside(mask, len(self.up_blocks), features, sample), latent_embeds)

    def outside(self, mask: Tensor, index: int, features: tuple[Tensor, ...], sample: Tensor) -> Tensor:
        """`sample`, what goes into block `index`, with the image's features outside of the mask."""
        step = self.scales[index]
        mask = mask[:, :, ::step, ::step]
        return sample * mask + features[self.places[index]] * (1 - mask)


class AutoencoderTinyBlock(nn.Module):
    """Three convolutions, added to the input (through a 1x1 convolution if the number of channels changes), then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, act_fn: str):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            get_activation(act_fn),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            get_activation(act_fn),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def construct(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + self.skip(x))


class EncoderTiny(nn.Module):
    """TAESD's encoder (github.com/madebyollin/taesd): `num_blocks[i]` blocks a resolution, strided convolutions between.

    Images in [-1, 1] (batch, in_channels, H, W) become (batch, out_channels, H / f, W / f), f = 2 ** (resolutions - 1).
    """

    def __init__(self, in_channels: int, out_channels: int, num_blocks: Sequence[int], block_out_channels: Sequence[int], act_fn: str):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (blocks, channels) in enumerate(zip(num_blocks, block_out_channels)):
            if i == 0:
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
            else:
                layers.append(nn.Conv2d(channels, channels, 3, padding=1, stride=2, bias=False))
            layers += [AutoencoderTinyBlock(channels, channels, act_fn) for _ in range(blocks)]
        layers.append(nn.Conv2d(block_out_channels[-1], out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def construct(self, x: Tensor) -> Tensor:
        return self.layers((x + 1) / 2)


class DecoderTiny(nn.Module):
    """TAESD's decoder: `num_blocks[i]` blocks a resolution, upsampling between. The latents are bounded to (-3, 3) smoothly.

    Args:
        upsampling_scaling_factor: factor between resolutions.
        upsample_fn: mode of the interpolation, as `nn.Upsample` takes it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: Sequence[int],
        block_out_channels: Sequence[int],
        upsampling_scaling_factor: int,
        act_fn: str,
        upsample_fn: str,
    ):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, block_out_channels[0], 3, padding=1), get_activation(act_fn)]
        for i, (blocks, channels) in enumerate(zip(num_blocks, block_out_channels)):
            layers += [AutoencoderTinyBlock(channels, channels, act_fn) for _ in range(blocks)]
            if i < len(num_blocks) - 1:
                layers.append(nn.Upsample(scale_factor=upsampling_scaling_factor, mode=upsample_fn))
                layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            else:
                layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def construct(self, x: Tensor) -> Tensor:
        return self.layers(F.tanh(x / 3) * 3) * 2 - 1


class DiagonalGaussianDistribution:
    """A normal distribution with independent components (arXiv:1312.6114).

    Args:
        parameters: (batch, 2 * channels, height, width): means, then logarithms of variances, which are clamped to [-30, 20].
        deterministic: the variance is zero.
    """

    def __init__(self, parameters: Tensor, deterministic: bool = False):
        self.parameters = parameters
        self.deterministic = deterministic
        self.mean, logvar = F.chunk(parameters, 2, 1)
        self.logvar = logvar.clamp(-30.0, 20.0)

    @property
    def std(self) -> Tensor:
        return self.mean * 0 if self.deterministic else (0.5 * self.logvar).exp()

    @property
    def var(self) -> Tensor:
        return self.mean * 0 if self.deterministic else self.logvar.exp()

    def sample(self, generator: Any = None) -> Tensor:
        """One draw, with the noise of `core.random.randn_tensor`."""
        return self.mean + self.std * randn_tensor(self.mean.shape, generator=generator, dtype=self.parameters.dtype)

    def mode(self) -> Tensor:
        return self.mean

    def kl(self, other: "DiagonalGaussianDistribution | None" = None) -> Tensor:
        """Kullback-Leibler divergence from `other`, by default the standard normal: (batch,) in nats, or (1,) zeros if deterministic."""
        if self.deterministic:
            return F.zeros((1,))
        if other is None:
            terms = self.mean**2 + self.var - 1 - self.logvar
        else:
            terms = ((self.mean - other.mean) ** 2 + self.var) / other.var - 1 - self.logvar + other.logvar
        return 0.5 * terms.sum((1, 2, 3))

    def nll(self, sample: Tensor, dims: Sequence[int] = (1, 2, 3)) -> Tensor:
        """Negative logarithm of the density at `sample`, summed over `dims`; (1,) zeros if deterministic."""
        if self.deterministic:
            return F.zeros((1,))
        return 0.5 * (math.log(2 * math.pi) + self.logvar + (sample - self.mean) ** 2 / self.var).sum(tuple(dims))


@dataclass
class AutoencoderKLOutput(BaseOutput):
    """The distribution of the latents: `latent_dist.sample(generator)`, `latent_dist.mode()`."""

    latent_dist: DiagonalGaussianDistribution


class AutoencoderMixin:
    """Slicing and tiling, which bound the memory of `encode` and `decode`.

    Attributes:
        use_slicing, use_tiling: whether they are on; None for a class that does not have them.
    """

    use_slicing: bool | None = False
    use_tiling: bool | None = False

    def enable_tiling(self) -> None:
        """Encode and decode images in overlapping tiles, whose seams are blended. The result differs a little from the untiled one.

        Raises:
            UnsupportedError: the class has no tiling.
        """
        if self.use_tiling is None:
            raise UnsupportedError(f"{type(self).__name__} has no tiling: leave enable_tiling() out, or use smaller images.")
        self.use_tiling = True

    def disable_tiling(self) -> None:
        if self.use_tiling:
            self.use_tiling = False

    def enable_slicing(self) -> None:
        """Encode and decode a batch one image at a time.

        Raises:
            UnsupportedError: the class has no slicing.
        """
        if self.use_slicing is None:
            raise UnsupportedError(f"{type(self).__name__} has no slicing: leave enable_slicing() out, or use smaller batches.")
        self.use_slicing = True

    def disable_slicing(self) -> None:
        if self.use_slicing:
            self.use_slicing = False

    def _run_parts(self, core: str, x: Tensor) -> Tensor:
        """Run the tensor core named `core` on images or latents: one at a time with slicing, in tiles with tiling."""

        def function(tile: Tensor) -> Tensor:
            return self._run(core, tile)[0]

        def whole(images: Tensor) -> Tensor:
            return self._tiled(core, function, images) if self.use_tiling else function(images)

        if self.use_slicing and x.shape[0] > 1:
            return F.cat([whole(image) for image in F.split(x, 1)])
        return whole(x)

    def _decode_parts(self, name: str, z: Tensor, return_dict: bool) -> DecoderOutput | tuple[Tensor]:
        """`decode` of a model whose core `_decode` takes latents, called `name`, alone."""
        self._check_input(name, z, self.config.latent_channels)
        sample = self._run_parts("_decode", z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _tiled(self, core: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply `function`, which is `core`, to tiles of `x` and put the results together."""
        raise NotImplementedError


class PosteriorMixin(AutoencoderMixin):
    """Autoencoders whose `encoder` and 1x1 convolution `quant_conv`, if it is not None, give a normal distribution of the latents.

    They set `_downsampling`, the side of an image over that of its latents, and call `_set_tiles` if they have tiling.

    Attributes:
        tile_sample_min_size, tile_latent_min_size: side of a tile in pixels and in latents.
        tile_overlap_factor: share of a tile that its neighbour has too.
    """

    _checkpoint_renames = OLD_ATTENTION_NAMES
    _repeated_blocks = ("ResnetBlock2D",)

    def _set_tiles(self, sample_size: int | Sequence[int]) -> None:
        self.tile_sample_min_size = sample_size[0] if isinstance(sample_size, (list, tuple)) else sample_size
        self.tile_latent_min_size = self.tile_sample_min_size // self._downsampling
        self.tile_overlap_factor = 0.25

    def __call__(
        self, sample: Tensor, sample_posterior: bool = False, return_dict: bool = True, generator: Any = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Encode and decode images.

        Args:
            sample: images (batch, in_channels, H, W), usually in [-1, 1].
            sample_posterior: decode a draw of the latents instead of their mode.
            generator: of that draw, and of `decode`'s; see `core.random.randn_tensor`.
        """
        return self.decode(self._latents(sample, sample_posterior, generator), return_dict=return_dict, generator=generator)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """The distribution of the latents of images (batch, in_channels, H, W), usually in [-1, 1].

        Raises:
            TypeError: `x` is no tensor, or not of the model's dtype.
            ValueError: wrong rank or number of channels, or images smaller than one latent.
        """
        self._check_input("x", x, self.encoder.conv_in.in_channels, self._downsampling)
        posterior = DiagonalGaussianDistribution(self._run_parts("_encode", x))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def _encode(self, x: Tensor) -> tuple[Tensor]:
        moments = self.encoder(x)
        return (moments if self.quant_conv is None else self.quant_conv(moments),)

    def _latents(self, sample: Tensor, draw: bool, generator: Any) -> Tensor:
        posterior = self.encode(sample).latent_dist
        return posterior.sample(generator) if draw else posterior.mode()

    def _tiled(self, core: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        size, result_size, least = self.tile_latent_min_size, self.tile_sample_min_size, 1
        if core == "_encode":
            size, result_size, least = result_size, size, self._downsampling
        if max(x.shape[2:]) <= size:
            return function(x)
        stride, extent = int(size * (1 - self.tile_overlap_factor)), int(result_size * self.tile_overlap_factor)
        return map_tiles(function, x, size, stride, extent, result_size - extent, least)


def blend(before: Tensor, after: Tensor, extent: int, axis: int) -> Tensor:
    """`after`, its first `extent` places along `axis` faded in linearly over the last `extent` of `before`."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    if extent == 0:
        return after
    shape = [1] * after.ndim
    shape[axis] = extent
    ramp = Tensor((np.arange(extent) / extent).reshape(shape), after.dtype)
    seam = before.narrow(axis, before.shape[axis] - extent, extent) * (1 - ramp) + after.narrow(axis, 0, extent) * ramp
    if extent == after.shape[axis]:
        return seam
    return F.cat([seam, after.narrow(axis, extent, after.shape[axis] - extent)], axis)


def map_tiles(function: Callable[[Tensor], Tensor], x: Tensor, tile: int, stride: int, extent: int, limit: int, least: int = 1) -> Tensor:
    """Apply `function` to overlapping tiles of images and put its results together.

    A result is blended over `extent` places with the one above, then with the one on its left, as these were blended themselves,
    and cut to `limit` places a side. Only their edges are kept for that.

    Args:
        x: (batch, channels, height, width).
        tile, stride: side of the tiles and distance between their starts, in places of `x`.
        extent, limit: in places of the result.
        least: tiles at the end that are smaller than this have no result, and are left out.
    """
    rows: list[Tensor] = []
    above: list[Tensor] = []
    for top in range(0, x.shape[2] - least + 1, stride):
        row, below, left = [], [], None
        for column, start in enumerate(range(0, x.shape[3] - least + 1, stride)):
            result = function(x[:, :, top : top + tile, start : start + tile])
            if above:
                result = blend(above[column], result, extent, 2)
            if left is not None:
                result = blend(left, result, extent, 3)
            left = result[:, :, :, -extent:]
            below.append(result[:, :, -extent:])
            row.append(result[:, :, :limit, :limit])
        rows.append(F.cat(row, 3))
        above = below
    return F.cat(rows, 2)


def paint_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, channels: int, tile: int, overlap: int, up: int = 1, down: int = 1
) -> Tensor:
    """Apply `function` to overlapping tiles of images and paint its results over each other, each fading in over what is there.

    Args:
        x: (batch, channels, height, width), height and width multiples of `down`.
        channels: of the results.
        tile, overlap: side of the tiles and of what neighbours share, in places of `x`.
        up, down: the results are `up / down` times as large as the tiles.
    """
    batch, _, height, width = x.shape
    scaled_overlap = overlap * up / down
    fade = (np.arange(tile * up // down) + (scaled_overlap < 1)) / max(scaled_overlap - 1, 1)
    fade = Tensor(np.minimum(fade, 1), x.dtype)
    canvas = F.zeros((batch, channels, height * up // down, width * up // down), x.dtype)
    for top in range(0, height, tile - overlap):
        for left in range(0, width, tile - overlap):
            result = function(x[:, :, top : top + tile, left : left + tile])
            rows, columns = result.shape[2:]
            y, z = top * up // down, left * up // down
            under = canvas[:, :, y : y + rows, z : z + columns]
            if top > 0 and left > 0:
                result = under + (result - under) * fade[:rows, None] * fade[:columns]
            elif top > 0:
                result = under + (result - under) * fade[:rows, None]
            elif left > 0:
                result = under + (result - under) * fade[:columns]
            canvas[:, :, y : y + rows, z : z + columns] = result
    return canvas


def _same_length(name: str, values: Sequence, other_name: str, others: Sequence) -> None:
    if len(values) != len(others):
        raise ConfigError(f"{name} has {len(values)} entries, {other_name} has {len(others)}; expected the same number.")


__all__ = [
    "AutoencoderKLOutput", "AutoencoderMixin", "AutoencoderTinyBlock", "Decoder", "DecoderOutput", "DecoderTiny",
    "DiagonalGaussianDistribution", "Encoder", "EncoderOutput", "EncoderTiny", "MaskConditionDecoder", "PosteriorMixin",
]  # fmt: skip
