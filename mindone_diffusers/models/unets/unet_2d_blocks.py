"""The stages of a UNet: residual blocks, each followed by an attention or not, then a change of resolution.

There is one implementation of a way down, one of a way up and one of the middle. What follows a residual block is a mix-in
(`_SelfAttention`, `_CrossAttention`, `_SimpleCrossAttention`), and so is an image that runs alongside (`_Skip`). k-diffusion's stages,
which differ in most of this, follow at the end.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from mindspore import Tensor

from ... import nn
from ...core.errors import ConfigError
from ...nn import functional as F
from ..attention import Attention, AttnAddedKVProcessor2_0
from ..freeu import apply_freeu
from ..normalization import AdaGroupNorm
from ..resnet import (
    Downsample2D,
    FirDownsample2D,
    FirUpsample2D,
    KDownsample2D,
    KUpsample2D,
    ResnetBlock2D,
    ResnetBlockCondNorm2D,
    Upsample2D,
)
from ..transformers.dual_transformer_2d import DualTransformer2DModel
from ..transformers.transformer_2d import Transformer2DModel

Kwargs = dict[str, Any] | None

# The names that `_SelfAttention`'s parameters had before diffusers 0.12, and have in checkpoints from then.
OLD_ATTENTION_NAMES = (
    (r"\.query\.(weight|bias)$", r".to_q.\1"),
    (r"\.key\.(weight|bias)$", r".to_k.\1"),
    (r"\.value\.(weight|bias)$", r".to_v.\1"),
    (r"\.proj_attn\.(weight|bias)$", r".to_out.0.\1"),
)


class _Stage(nn.Module):
    """What all stages share: how residual blocks are made, and what follows one of them (here: nothing).

    Class attributes:
        has_cross_attention: the stage takes a context.
        options: what `get_down_block`, `get_mid_block` and `get_up_block` pass on.
        resampling: "conv", or "resnet" for a residual block that changes the resolution.
    """

    has_cross_attention: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = (
        "num_layers", "in_channels", "out_channels", "dropout", "resnet_eps", "resnet_act_fn", "resnet_groups", "resnet_time_scale_shift",
    )  # fmt: skip
    resampling: ClassVar[str] = "conv"

    def resnet_options(
        self,
        temb_channels: int | None,
        dropout: float,
        resnet_eps: float,
        resnet_time_scale_shift: str,
        resnet_act_fn: str,
        resnet_groups: int,
        output_scale_factor: float,
        skip_time_act: bool = False,
    ) -> dict[str, Any]:
        """Arguments of `resnet` that are the same for all blocks of the stage."""
        options = {
            "temb_channels": temb_channels, "dropout": dropout, "eps": resnet_eps, "time_embedding_norm": resnet_time_scale_shift,
            "non_linearity": resnet_act_fn, "groups": resnet_groups, "output_scale_factor": output_scale_factor,
        }  # fmt: skip
        return options | {"skip_time_act": True} if skip_time_act else options

    def resnet(self, in_channels: int, out_channels: int, **options: Any) -> nn.Module:
        block = ResnetBlockCondNorm2D if options["time_embedding_norm"] == "spatial" else ResnetBlock2D
        return block(in_channels=in_channels, out_channels=out_channels, **options)

    def make_attentions(self, channels: list[int], resnet: dict[str, Any]) -> list[nn.Module] | None:
        """The attention after each residual block with so many channels, or None."""
        return None

    def attend(
        self, index: int, hidden_states: Tensor, temb: Tensor | None, encoder_hidden_states: Tensor | None, attention_mask: Tensor | None,
        cross_attention_kwargs: Kwargs, encoder_attention_mask: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """What follows residual block `index`."""
        return hidden_states


class _SelfAttention:
    """Attention of the pixels to themselves."""

    options = ("attention_head_dim",)

    def make_attentions(self, channels: list[int], resnet: dict[str, Any], attention_head_dim: int | None = 1) -> list[nn.Module]:
        return [self.attention(count, attention_head_dim, resnet["groups"], resnet) for count in channels]

    def attention(self, channels: int, head_dim: int | None, groups: int | None, resnet: dict[str, Any]) -> Attention:
        head_dim = head_dim or channels
        return Attention(
            channels,
            heads=channels // head_dim,
            dim_head=head_dim,
            rescale_output_factor=resnet["output_scale_factor"],
            eps=resnet["eps"],
            norm_num_groups=groups,
            spatial_norm_dim=resnet["temb_channels"] if resnet["time_embedding_norm"] == "spatial" else None,
            residual_connection=True,
            bias=True,
            upcast_softmax=True,
            _from_deprecated_attn_block=True,
        )

    def attend(
        self, index, hidden_states, temb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
    ) -> Tensor:
        return hidden_states if self.attentions is None else self.attentions[index](hidden_states, temb=temb)


class _CrossAttention:
    """A transformer: attention of the pixels to themselves and to a context."""

    has_cross_attention = True
    options = (
        "transformer_layers_per_block", "num_attention_heads", "cross_attention_dim", "dual_cross_attention", "use_linear_projection",
        "only_cross_attention", "upcast_attention", "attention_type",
    )  # fmt: skip

    def make_attentions(
        self,
        channels: list[int],
        resnet: dict[str, Any],
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int = 1,
        cross_attention_dim: int = 1280,
        dual_cross_attention: bool = False,
        use_linear_projection: bool = False,
        only_cross_attention: bool = False,
        upcast_attention: bool = False,
        attention_type: str = "default",
    ) -> list[nn.Module]:
        if isinstance(transformer_layers_per_block, int):
            transformer_layers_per_block = [transformer_layers_per_block] * len(channels)
        transformers = []
        for i, count in enumerate(channels):
            common = {
                "num_attention_heads": num_attention_heads, "attention_head_dim": count // num_attention_heads, "in_channels": count,
                "cross_attention_dim": cross_attention_dim, "norm_num_groups": resnet["groups"],
            }  # fmt: skip
            if dual_cross_attention:
                transformers.append(DualTransformer2DModel(**common))
            else:
                transformers.append(
                    Transformer2DModel(
                        num_layers=transformer_layers_per_block[i],
                        use_linear_projection=use_linear_projection,
                        only_cross_attention=only_cross_attention,
                        upcast_attention=upcast_attention,
                        attention_type=attention_type,
                        **common,
                    )
                )
        self.dual_cross_attention = dual_cross_attention
        return transformers

    def attend(
        self, index, hidden_states, temb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
    ) -> Tensor:
        if self.dual_cross_attention:
            return self.attentions[index](hidden_states, encoder_hidden_states, None, cross_attention_kwargs)[0]
        return self.attentions[index](
            hidden_states,
            encoder_hidden_states,
            cross_attention_kwargs=cross_attention_kwargs,
            attention_mask=attention_mask,
            encoder_attention_mask=encoder_attention_mask,
            return_dict=False,
        )[0]


class _SimpleCrossAttention:
    """One attention of the pixels to a context and themselves together (unCLIP, IF)."""

    has_cross_attention = True
    options = (
        "cross_attention_dim", "attention_head_dim", "skip_time_act", "output_scale_factor", "only_cross_attention", "cross_attention_norm",
    )  # fmt: skip

    def make_attentions(
        self,
        channels: list[int],
        resnet: dict[str, Any],
        attention_head_dim: int = 1,
        cross_attention_dim: int = 1280,
        only_cross_attention: bool = False,
        cross_attention_norm: str | None = None,
    ) -> list[nn.Module]:
        return [
            Attention(
                query_dim=count,
                cross_attention_dim=count,
                heads=count // attention_head_dim,
                dim_head=attention_head_dim,
                added_kv_proj_dim=cross_attention_dim,
                norm_num_groups=resnet["groups"],
                bias=True,
                upcast_softmax=True,
                only_cross_attention=only_cross_attention,
                cross_attention_norm=cross_attention_norm,
                processor=AttnAddedKVProcessor2_0(),
            )
            for count in channels
        ]

    def attend(
        self, index, hidden_states, temb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
    ) -> Tensor:
        mask = attention_mask
        if mask is None and encoder_hidden_states is not None:
            mask = encoder_attention_mask
        kwargs = {} if cross_attention_kwargs is None else cross_attention_kwargs
        return self.attentions[index](hidden_states, encoder_hidden_states=encoder_hidden_states, attention_mask=mask, **kwargs)


# Ways down


class _Down(_Stage):
    """Residual blocks; every output is kept for the way up, and so is that of the downsampler."""

    options = (*_Stage.options, "temb_channels", "add_downsample")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int | None,
        dropout: float = 0.0,
        num_layers: int = 1,
        resnet_eps: float = 1e-6,
        resnet_time_scale_shift: str = "default",
        resnet_act_fn: str = "swish",
        resnet_groups: int = 32,
        output_scale_factor: float = 1.0,
        add_downsample: bool = True,
        downsample_padding: int = 1,
        skip_time_act: bool = False,
        resampling: str | None = None,
        **attention: Any,
    ):
        super().__init__()
        options = self.resnet_options(
            temb_channels, dropout, resnet_eps, resnet_time_scale_shift, resnet_act_fn, resnet_groups, output_scale_factor, skip_time_act
        )
        resnets = [self.resnet(out_channels if i else in_channels, out_channels, **options) for i in range(num_layers)]
        attentions = self.make_attentions([out_channels] * num_layers, options, **attention)
        self.attentions = None if attentions is None else nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(resnets)
        self.by_resnet = (resampling or self.resampling) == "resnet"
        self.downsamplers = None
        if add_downsample:
            self.add_downsampler(out_channels, downsample_padding, options)

    def add_downsampler(self, channels: int, padding: int, resnet: dict[str, Any]) -> None:
        if self.by_resnet:
            downsampler = self.resnet(channels, channels, down=True, **resnet)
        else:
            downsampler = Downsample2D(channels, use_conv=True, padding=padding, name="op")
        self.downsamplers = nn.ModuleList([downsampler])

    def construct(
        self,
        hidden_states: Tensor,
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: Kwargs = None,
        encoder_attention_mask: Tensor | None = None,
        additional_residuals: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """
        Args:
            hidden_states: (batch, in_channels, height, width).
            temb: (batch, temb_channels).
            encoder_hidden_states: the context, (batch, keys, channels).
            attention_mask, encoder_attention_mask: (batch, 1, keys), added to the scores.
            additional_residuals: added to the output of the last attention or, in a stage without context, of the stage.

        Returns:
            The output, and the states that are kept for the way up.
        """
        states = ()
        for i, resnet in enumerate(self.resnets):
            hidden_states = resnet(hidden_states, temb)
            hidden_states = self.attend(
                i, hidden_states, temb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
            )
            if additional_residuals is not None and i == len(self.resnets) - 1 and (self.has_cross_attention or self.downsamplers is None):
                hidden_states = hidden_states + additional_residuals
            states += (hidden_states,)
        if self.downsamplers is not None:
            hidden_states = self.downsamplers[0](hidden_states, temb) if self.by_resnet else self.downsamplers[0](hidden_states)
            if additional_residuals is not None and not self.has_cross_attention:
                hidden_states = hidden_states + additional_residuals
            states += (hidden_states,)
        return hidden_states, states


class DownBlock2D(_Down):
    """Residual blocks, then a convolution of stride 2."""

    options = (*_Down.options, "downsample_padding")


class AttnDownBlock2D(_SelfAttention, _Down):
    """As `DownBlock2D`, with self-attention after each block. `downsample_type` is "conv", "resnet" or None."""

    options = (*_Down.options, *_SelfAttention.options, "downsample_padding", "downsample_type")

    def __init__(self, *args: Any, downsample_type: str | None = "conv", add_downsample: bool = True, **kwargs: Any):
        super().__init__(*args, add_downsample=add_downsample and downsample_type is not None, resampling=downsample_type, **kwargs)


class CrossAttnDownBlock2D(_CrossAttention, _Down):
    """As `DownBlock2D`, with a transformer after each block."""

    options = (*_Down.options, *_CrossAttention.options, "downsample_padding")


class ResnetDownsampleBlock2D(_Down):
    """Residual blocks, then one that halves the resolution."""

    options = (*_Down.options, "skip_time_act", "output_scale_factor")
    resampling = "resnet"


class SimpleCrossAttnDownBlock2D(_SimpleCrossAttention, _Down):
    """As `ResnetDownsampleBlock2D`, with an attention after each block."""

    options = (*_Down.options, *_SimpleCrossAttention.options)
    resampling = "resnet"


class DownEncoderBlock2D(_Down):
    """As `DownBlock2D`, without a time embedding; returns the output only (autoencoders)."""

    options = (*_Stage.options, "add_downsample", "downsample_padding")

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0, num_layers: int = 1, **kwargs: Any):
        super().__init__(in_channels, out_channels, None, dropout, num_layers, **kwargs)

    def construct(self, hidden_states: Tensor) -> Tensor:
        # By name: in a graph, a bare super() is that of the object's class, and a subclass would call itself for ever.
        return _Down.construct(self, hidden_states)[0]


class AttnDownEncoderBlock2D(_SelfAttention, DownEncoderBlock2D):
    """As `DownEncoderBlock2D`, with self-attention after each block."""

    options = (*DownEncoderBlock2D.options, *_SelfAttention.options)


# The middle


class _Middle(_Stage):
    """A residual block, then pairs of an attention and a residual block."""

    options = (
        "in_channels", "temb_channels", "dropout", "resnet_eps", "resnet_act_fn", "resnet_groups", "resnet_time_scale_shift",
        "output_scale_factor",
    )  # fmt: skip

    def __init__(
        self,
        in_channels: int,
        temb_channels: int | None,
        out_channels: int | None = None,
        dropout: float = 0.0,
        num_layers: int = 1,
        resnet_eps: float = 1e-6,
        resnet_time_scale_shift: str = "default",
        resnet_act_fn: str = "swish",
        resnet_groups: int | None = 32,
        resnet_groups_out: int | None = None,
        output_scale_factor: float = 1.0,
        skip_time_act: bool = False,
        **attention: Any,
    ):
        super().__init__()
        out_channels = out_channels or in_channels
        resnet_groups = resnet_groups or min(in_channels // 4, 32)
        options = self.resnet_options(
            temb_channels, dropout, resnet_eps, resnet_time_scale_shift, resnet_act_fn, resnet_groups, output_scale_factor, skip_time_act
        )
        first = self.resnet(in_channels, out_channels, groups_out=resnet_groups_out, **options)
        options["groups"] = resnet_groups_out or resnet_groups
        attentions = self.make_attentions([out_channels] * num_layers, options, **attention)
        self.attentions = None if attentions is None else nn.ModuleList(attentions)
        self.resnets = nn.ModuleList([first] + [self.resnet(out_channels, out_channels, **options) for _ in range(num_layers)])

    def construct(
        self,
        hidden_states: Tensor,
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: Kwargs = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Arguments as for the stages of the way down."""
        hidden_states = self.resnets[0](hidden_states, temb)
        for i in range(len(self.resnets) - 1):
            hidden_states = self.attend(
                i, hidden_states, temb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
            )
            hidden_states = self.resnets[i + 1](hidden_states, temb)
        return hidden_states


class UNetMidBlock2D(_SelfAttention, _Middle):
    """Residual blocks with self-attention (none if not `add_attention`) between them.

    `attn_groups` is of the attention's normalisation; by default `resnet_groups` if `resnet_time_scale_shift` is "default", else there
    is none.
    """

    options = _Middle.options

    def make_attentions(
        self,
        channels: list[int],
        resnet: dict[str, Any],
        attention_head_dim: int | None = 1,
        add_attention: bool = True,
        attn_groups: int | None = None,
    ) -> list[nn.Module] | None:
        if not add_attention:
            return None
        if attn_groups is None and resnet["time_embedding_norm"] == "default":
            attn_groups = resnet["groups"]
        return [self.attention(count, attention_head_dim, attn_groups, resnet) for count in channels]


class UNetMidBlock2DCrossAttn(_CrossAttention, _Middle):
    """Residual blocks with transformers between them."""

    options = (*_Middle.options, *_CrossAttention.options)


class UNetMidBlock2DSimpleCrossAttn(_SimpleCrossAttention, _Middle):
    """Residual blocks with attentions between them."""

    options = (*_Middle.options, *_SimpleCrossAttention.options)


# Ways up


class _Up(_Stage):
    """Residual blocks; each takes the last of the states kept on the way down as additional channels (if `joins_states`)."""

    options = (*_Stage.options, "prev_output_channel", "temb_channels", "resolution_idx", "add_upsample")
    joins_states: ClassVar[bool] = True
    freeu: tuple[float, float] | None = None
    """The scales of `apply_freeu`."""

    def __init__(
        self,
        in_channels: int,
        prev_output_channel: int,
        out_channels: int,
        temb_channels: int | None,
        resolution_idx: int | None = None,
        dropout: float = 0.0,
        num_layers: int = 1,
        resnet_eps: float = 1e-6,
        resnet_time_scale_shift: str = "default",
        resnet_act_fn: str = "swish",
        resnet_groups: int = 32,
        output_scale_factor: float = 1.0,
        add_upsample: bool = True,
        skip_time_act: bool = False,
        resampling: str | None = None,
        **attention: Any,
    ):
        super().__init__()
        options = self.resnet_options(
            temb_channels, dropout, resnet_eps, resnet_time_scale_shift, resnet_act_fn, resnet_groups, output_scale_factor, skip_time_act
        )
        resnets = []
        for i in range(num_layers):
            before = out_channels if i else prev_output_channel
            state = in_channels if i == num_layers - 1 else out_channels
            resnets.append(self.joining_resnet(before, state if self.joins_states else 0, out_channels, **options))
        attentions = self.make_attentions([out_channels] * num_layers, options, **attention)
        self.attentions = None if attentions is None else nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(resnets)
        self.by_resnet = (resampling or self.resampling) == "resnet"
        self.upsamplers = None
        if add_upsample:
            self.add_upsampler(out_channels, options)
        self.resolution_idx = resolution_idx

    def joining_resnet(self, in_channels: int, state_channels: int, out_channels: int, **options: Any) -> nn.Module:
        """A residual block that takes a state of the way down as well."""
        return self.resnet(in_channels + state_channels, out_channels, **options)

    def add_upsampler(self, channels: int, resnet: dict[str, Any]) -> None:
        upsampler = self.resnet(channels, channels, up=True, **resnet) if self.by_resnet else Upsample2D(channels, use_conv=True)
        self.upsamplers = nn.ModuleList([upsampler])

    def construct(
        self,
        hidden_states: Tensor,
        res_hidden_states_tuple: tuple[Tensor, ...],
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        cross_attention_kwargs: Kwargs = None,
        upsample_size: tuple[int, int] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            hidden_states: (batch, prev_output_channel, height, width).
            res_hidden_states_tuple: one state of the way down for each residual block, the last one for the first.
            upsample_size: (height, width) to reach; default: twice the input's.
        """
        for i, resnet in enumerate(self.resnets):
            if self.joins_states:
                state = res_hidden_states_tuple[-1 - i]
                if self.freeu is not None:
                    hidden_states, state = apply_freeu(hidden_states, state, self.freeu[0], self.freeu[1])
                hidden_states = F.cat((hidden_states, state), 1)
            hidden_states = resnet(hidden_states, temb)
            hidden_states = self.attend(
                i, hidden_states, temb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
            )
        if self.upsamplers is None:
            return hidden_states
        return self.upsamplers[0](hidden_states, temb) if self.by_resnet else self.upsamplers[0](hidden_states, upsample_size)


class UpBlock2D(_Up):
    """Residual blocks, then values repeated and convolved."""


class AttnUpBlock2D(_SelfAttention, _Up):
    """As `UpBlock2D`, with self-attention after each block. `upsample_type` is "conv", "resnet" or None."""

    options = (*_Up.options, *_SelfAttention.options, "upsample_type")

    def __init__(self, *args: Any, upsample_type: str | None = "conv", add_upsample: bool = True, **kwargs: Any):
        super().__init__(*args, add_upsample=add_upsample and upsample_type is not None, resampling=upsample_type, **kwargs)


class CrossAttnUpBlock2D(_CrossAttention, _Up):
    """As `UpBlock2D`, with a transformer after each block."""

    options = (*_Up.options, *_CrossAttention.options)


class ResnetUpsampleBlock2D(_Up):
    """Residual blocks, then one that doubles the resolution."""

    options = (*_Up.options, "skip_time_act", "output_scale_factor")
    resampling = "resnet"


class SimpleCrossAttnUpBlock2D(_SimpleCrossAttention, _Up):
    """As `ResnetUpsampleBlock2D`, with an attention after each block."""

    options = (*_Up.options, *_SimpleCrossAttention.options)
    resampling = "resnet"


class UpDecoderBlock2D(_Up):
    """As `UpBlock2D`, without states from a way down (autoencoders)."""

    options = (*_Stage.options, "temb_channels", "resolution_idx", "add_upsample")
    joins_states = False

    def __init__(self, in_channels: int, out_channels: int, *args: Any, temb_channels: int | None = None, **kwargs: Any):
        super().__init__(in_channels, in_channels, out_channels, temb_channels, *args, **kwargs)

    def construct(self, hidden_states: Tensor, temb: Tensor | None = None) -> Tensor:
        # By name: in a graph, a bare super() is that of the object's class, and a subclass would call itself for ever.
        return _Up.construct(self, hidden_states, (), temb)


class AttnUpDecoderBlock2D(_SelfAttention, UpDecoderBlock2D):
    """As `UpDecoderBlock2D`, with self-attention after each block."""

    options = (*UpDecoderBlock2D.options, *_SelfAttention.options)

    def attention(self, channels: int, head_dim: int | None, groups: int | None, resnet: dict[str, Any]) -> Attention:
        groups = None if resnet["time_embedding_norm"] == "spatial" else groups
        return super().attention(channels, head_dim, groups, resnet)


# NCSN++'s stages (arXiv:2011.13456, section 4.1: the "input skip" and the "output skip")


class _Skip:
    """An image of 3 channels runs alongside; on the way down it is added to the states, on the way up it is made of them.

    A normalisation's groups follow its channels: a quarter of them, at most 32; an attention's are 32. The image, and the residual blocks
    that change the resolution, are resampled with a blur.
    """

    resampled: ClassVar[bool] = False

    def __init__(self, *args: Any, output_scale_factor: float = 2**0.5, **kwargs: Any):
        super().__init__(*args, output_scale_factor=output_scale_factor, **kwargs)

    def resnet(self, in_channels: int, out_channels: int, **options: Any) -> nn.Module:
        groups = {"groups": min(in_channels // 4, 32), "groups_out": min(out_channels // 4, 32)}
        return super().resnet(in_channels, out_channels, **options | groups)


class SkipDownBlock2D(_Skip, _Down):
    """Residual blocks, then one that halves the resolution, to which the halved image is added."""

    options = tuple(option for option in _Down.options if option != "resnet_groups")

    def add_downsampler(self, channels: int, padding: int, resnet: dict[str, Any]) -> None:
        self.resampled = True
        self.resnet_down = self.resnet(channels, channels, down=True, kernel="fir", use_in_shortcut=True, **resnet)
        self.skip_conv = nn.Conv2d(3, channels, 1)
        self.blur = FirDownsample2D()

    def construct(
        self, hidden_states: Tensor, temb: Tensor | None = None, skip_sample: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """
        Args:
            skip_sample: the image, (batch, 3, height, width).

        Returns:
            The output, the states that are kept for the way up, and the image at the output's resolution.
        """
        hidden_states, states = _Down.construct(self, hidden_states, temb)
        if self.resampled:
            skip_sample = self.blur(skip_sample)
            hidden_states = self.resnet_down(hidden_states, temb) + self.skip_conv(skip_sample)
            states += (hidden_states,)
        return hidden_states, states, skip_sample


class AttnSkipDownBlock2D(_SelfAttention, SkipDownBlock2D):
    """As `SkipDownBlock2D`, with self-attention after each block."""

    options = (*SkipDownBlock2D.options, *_SelfAttention.options)


class SkipUpBlock2D(_Skip, _Up):
    """Residual blocks, then one that doubles the resolution. The image is doubled, and what the states say is added to it."""

    options = tuple(option for option in _Up.options if option != "resnet_groups")

    def add_upsampler(self, channels: int, resnet: dict[str, Any]) -> None:
        self.resampled = True
        self.resnet_up = self.resnet(channels, channels, up=True, kernel="fir", use_in_shortcut=True, **resnet)
        self.skip_norm = nn.GroupNorm(min(channels // 4, 32), channels, resnet["eps"])
        self.skip_conv = nn.Conv2d(channels, 3, 3, padding=1)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.blur = FirUpsample2D()

    def construct(
        self,
        hidden_states: Tensor,
        res_hidden_states_tuple: tuple[Tensor, ...],
        temb: Tensor | None = None,
        skip_sample: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            skip_sample: the image that the stages before made, of half this stage's resolution; None in the first one.

        Returns:
            The output, and the image at this stage's resolution.
        """
        hidden_states = _Up.construct(self, hidden_states, res_hidden_states_tuple, temb)
        if skip_sample is not None:
            skip_sample = self.blur(skip_sample)
        if self.resampled:
            image = self.skip_conv(F.silu(self.skip_norm(hidden_states)))
            skip_sample = image if skip_sample is None else skip_sample + image
            hidden_states = self.resnet_up(hidden_states, temb)
        return hidden_states, skip_sample


class AttnSkipUpBlock2D(_SelfAttention, SkipUpBlock2D):
    """As `SkipUpBlock2D`, with one self-attention after the last block."""

    options = (*SkipUpBlock2D.options, *_SelfAttention.options)

    def joining_resnet(self, in_channels: int, state_channels: int, out_channels: int, **options: Any) -> nn.Module:
        # Not a quarter of the sum: published checkpoints depend on it.
        groups = {"groups": min(in_channels + state_channels // 4, 32), "groups_out": min(out_channels // 4, 32)}
        return _Stage.resnet(self, in_channels + state_channels, out_channels, **options | groups)

    def make_attentions(self, channels: list[int], resnet: dict[str, Any], **attention: Any) -> list[nn.Module]:
        return super().make_attentions(channels[-1:], resnet, **attention)

    def attend(
        self, index, hidden_states, temb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
    ) -> Tensor:
        return self.attentions[0](hidden_states) if index == len(self.resnets) - 1 else hidden_states


# k-diffusion's stages (arXiv:2206.00364), as the upscaler of latents has them

K_GROUP_SIZE = 32


class KAttentionBlock(nn.Module):
    """Self-attention (if `add_self_attention`) and attention to a context, each after a group norm that the time embedding controls."""

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        dropout: float = 0.0,
        cross_attention_dim: int | None = None,
        attention_bias: bool = False,
        upcast_attention: bool = False,
        temb_channels: int = 768,
        add_self_attention: bool = False,
        cross_attention_norm: str | None = None,
        group_size: int = K_GROUP_SIZE,
    ):
        super().__init__()
        common = {"heads": num_attention_heads, "dim_head": attention_head_dim, "dropout": dropout, "bias": attention_bias}
        groups = max(1, dim // group_size)
        self.add_self_attention = add_self_attention
        if add_self_attention:
            self.norm1 = AdaGroupNorm(temb_channels, dim, groups)
            self.attn1 = Attention(dim, **common)
        self.norm2 = AdaGroupNorm(temb_channels, dim, groups)
        self.attn2 = Attention(
            dim, cross_attention_dim, upcast_attention=upcast_attention, cross_attention_norm=cross_attention_norm, **common
        )

    def construct(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        emb: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: Kwargs = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        kwargs = {} if cross_attention_kwargs is None else cross_attention_kwargs
        if self.add_self_attention:
            hidden_states = hidden_states + self.attn1(self.norm1(hidden_states, emb), attention_mask=attention_mask, **kwargs)
        mask = attention_mask if encoder_hidden_states is None else encoder_attention_mask
        normed = self.norm2(hidden_states, emb)
        return hidden_states + self.attn2(normed, encoder_hidden_states=encoder_hidden_states, attention_mask=mask, **kwargs)


def _k_resnet(in_channels: int, out_channels: int, norm_channels: int, last_channels: int | None = None, **options: Any) -> nn.Module:
    return ResnetBlockCondNorm2D(
        in_channels=in_channels,
        out_channels=out_channels,
        conv_2d_out_channels=last_channels,
        groups=in_channels // K_GROUP_SIZE,
        groups_out=norm_channels // K_GROUP_SIZE,
        time_embedding_norm="ada_group",
        conv_shortcut_bias=False,
        **options,
    )


_K_OPTIONS = ("num_layers", "in_channels", "out_channels", "temb_channels", "dropout", "resnet_eps", "resnet_act_fn")


class KDownBlock2D(nn.Module):
    """Residual blocks, then a blur and every second value. The states kept for the way up are the residual blocks'."""

    has_cross_attention: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = (*_K_OPTIONS, "add_downsample")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        dropout: float = 0.0,
        num_layers: int = 4,
        resnet_eps: float = 1e-5,
        resnet_act_fn: str = "gelu",
        add_downsample: bool = False,
    ):
        super().__init__()
        options = {"temb_channels": temb_channels, "dropout": dropout, "eps": resnet_eps, "non_linearity": resnet_act_fn}
        channels = [in_channels] + [out_channels] * num_layers
        self.resnets = nn.ModuleList([_k_resnet(before, out_channels, out_channels, **options) for before in channels[:-1]])
        self.attentions = None
        self.downsamplers = nn.ModuleList([KDownsample2D()]) if add_downsample else None

    def construct(
        self,
        hidden_states: Tensor,
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: Kwargs = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Arguments as for the other stages."""
        states = ()
        for i, resnet in enumerate(self.resnets):
            hidden_states = resnet(hidden_states, temb)
            if self.attentions is not None:
                hidden_states = self.attentions[i](
                    hidden_states, encoder_hidden_states, temb, attention_mask, cross_attention_kwargs, encoder_attention_mask
                )
            states += (None if self.has_cross_attention and self.downsamplers is None else hidden_states,)
        if self.downsamplers is not None:
            hidden_states = self.downsamplers[0](hidden_states)
        return hidden_states, states


class KCrossAttnDownBlock2D(KDownBlock2D):
    """As `KDownBlock2D`, with attention after each block. Without a downsampler it keeps no states: the way up begins with its output."""

    has_cross_attention = True
    options = (*KDownBlock2D.options, "cross_attention_dim", "attention_head_dim", "add_self_attention")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        cross_attention_dim: int,
        dropout: float = 0.0,
        num_layers: int = 4,
        add_downsample: bool = True,
        attention_head_dim: int = 64,
        add_self_attention: bool = False,
        resnet_eps: float = 1e-5,
        resnet_act_fn: str = "gelu",
    ):
        super().__init__(in_channels, out_channels, temb_channels, dropout, num_layers, resnet_eps, resnet_act_fn, add_downsample)
        attentions = [
            KAttentionBlock(
                out_channels,
                out_channels // attention_head_dim,
                attention_head_dim,
                cross_attention_dim=cross_attention_dim,
                temb_channels=temb_channels,
                attention_bias=True,
                add_self_attention=add_self_attention,
                cross_attention_norm="layer_norm",
            )
            for _ in range(num_layers)
        ]
        self.attentions = nn.ModuleList(attentions)


class KUpBlock2D(nn.Module):
    """Residual blocks, the first of which takes the last state of the way down as well; then zeros between the values and a blur."""

    has_cross_attention: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = (*_K_OPTIONS, "resolution_idx", "add_upsample")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        resolution_idx: int,
        dropout: float = 0.0,
        num_layers: int = 5,
        resnet_eps: float = 1e-5,
        resnet_act_fn: str = "gelu",
        add_upsample: bool = True,
    ):
        super().__init__()
        options = {"temb_channels": temb_channels, "dropout": dropout, "eps": resnet_eps, "non_linearity": resnet_act_fn}
        self.resnets = nn.ModuleList(self.make_resnets(in_channels, out_channels, num_layers - 1, options))
        self.attentions = None
        self.upsamplers = nn.ModuleList([KUpsample2D()]) if add_upsample else None
        self.resolution_idx = resolution_idx

    def make_resnets(self, in_channels: int, out_channels: int, layers: int, options: dict[str, Any]) -> list[nn.Module]:
        before = [2 * out_channels] + [out_channels] * (layers - 1)
        after = [out_channels] * (layers - 1) + [in_channels]
        return [_k_resnet(before[i], after[i], out_channels, **options) for i in range(layers)]

    def construct(
        self,
        hidden_states: Tensor,
        res_hidden_states_tuple: tuple[Tensor | None, ...],
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        cross_attention_kwargs: Kwargs = None,
        upsample_size: tuple[int, int] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Arguments as for the other stages; `upsample_size` has no effect."""
        state = res_hidden_states_tuple[-1]
        if state is not None:
            hidden_states = F.cat((hidden_states, state), 1)
        for i, resnet in enumerate(self.resnets):
            hidden_states = resnet(hidden_states, temb)
            if self.attentions is not None:
                hidden_states = self.attentions[i](
                    hidden_states, encoder_hidden_states, temb, attention_mask, cross_attention_kwargs, encoder_attention_mask
                )
        return hidden_states if self.upsamplers is None else self.upsamplers[0](hidden_states)


class KCrossAttnUpBlock2D(KUpBlock2D):
    """As `KUpBlock2D`, with attention after each block. The first stage of the way up (all channels equal) joins no state."""

    has_cross_attention = True
    options = (*KUpBlock2D.options, "cross_attention_dim", "attention_head_dim")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        resolution_idx: int,
        dropout: float = 0.0,
        num_layers: int = 4,
        resnet_eps: float = 1e-5,
        resnet_act_fn: str = "gelu",
        attention_head_dim: int = 1,
        cross_attention_dim: int = 768,
        add_upsample: bool = True,
        upcast_attention: bool = False,
    ):
        self_attention = in_channels == out_channels == temb_channels
        super().__init__(
            in_channels, out_channels, temb_channels, resolution_idx, dropout, num_layers, resnet_eps, resnet_act_fn, add_upsample
        )
        attentions = [
            KAttentionBlock(
                channels,
                channels // attention_head_dim,
                attention_head_dim,
                cross_attention_dim=cross_attention_dim,
                temb_channels=temb_channels,
                attention_bias=True,
                add_self_attention=self_attention,
                cross_attention_norm="layer_norm",
                upcast_attention=upcast_attention,
            )
            for channels in [out_channels] * (num_layers - 2) + [in_channels]
        ]
        self.attentions = nn.ModuleList(attentions)

    def make_resnets(self, in_channels: int, out_channels: int, layers: int, options: dict[str, Any]) -> list[nn.Module]:
        first = out_channels if in_channels == out_channels == options["temb_channels"] else 2 * out_channels
        before = [first] + [out_channels] * (layers - 1)
        last = [None] * (layers - 1) + [in_channels if in_channels != out_channels else None]
        return [_k_resnet(before[i], out_channels, out_channels, last[i], **options) for i in range(layers)]


# By name

_DOWN_BLOCKS = {
    block.__name__: block
    for block in (
        AttnDownBlock2D, AttnDownEncoderBlock2D, AttnSkipDownBlock2D, CrossAttnDownBlock2D, DownBlock2D, DownEncoderBlock2D,
        KCrossAttnDownBlock2D, KDownBlock2D, ResnetDownsampleBlock2D, SimpleCrossAttnDownBlock2D, SkipDownBlock2D,
    )
}  # fmt: skip
_MID_BLOCKS = {block.__name__: block for block in (UNetMidBlock2D, UNetMidBlock2DCrossAttn, UNetMidBlock2DSimpleCrossAttn)}
_UP_BLOCKS = {
    block.__name__: block
    for block in (
        AttnSkipUpBlock2D, AttnUpBlock2D, AttnUpDecoderBlock2D, CrossAttnUpBlock2D, KCrossAttnUpBlock2D, KUpBlock2D,
        ResnetUpsampleBlock2D, SimpleCrossAttnUpBlock2D, SkipUpBlock2D, UpBlock2D, UpDecoderBlock2D,
    )
}  # fmt: skip


def get_down_block(
    down_block_type: str,
    *,
    num_attention_heads: int | None = None,
    attention_head_dim: int | None = None,
    resnet_skip_time_act: bool = False,
    resnet_out_scale_factor: float = 1.0,
    downsample_type: str | None = None,
    **options: Any,
) -> nn.Module:
    """The stage of the way down with this name.

    Args:
        options: what any stage takes: `num_layers`, `in_channels`, `out_channels`, `temb_channels`, `dropout`, `resnet_eps`, ...; a stage
            gets those that concern it.

    Raises:
        ConfigError: an unknown name, or no `cross_attention_dim` where one is needed.
    """
    options |= {
        "num_attention_heads": num_attention_heads,
        "attention_head_dim": num_attention_heads if attention_head_dim is None else attention_head_dim,
        "skip_time_act": resnet_skip_time_act,
        "output_scale_factor": resnet_out_scale_factor,
        "downsample_type": downsample_type or "conv",
        "add_self_attention": not options.get("add_downsample"),
    }
    return _make(_DOWN_BLOCKS, "down", down_block_type, options)


def get_down_blocks(
    down_block_types: Sequence[str], block_out_channels: Sequence[int], each: dict[str, Sequence], **options: Any
) -> nn.ModuleList:
    """The stages of a way down, of which all but the last halve the resolution.

    Args:
        each: options of `get_down_block` that differ from stage to stage, with one entry for each; of `attention_head_dim`, None is for
            one head.
        options: those that do not.
    """
    blocks = []
    for i, name in enumerate(down_block_types):
        channels = block_out_channels[i]
        own = {option: values[i] for option, values in each.items()}
        if own["attention_head_dim"] is None:
            own["attention_head_dim"] = channels
        before = block_out_channels[max(i - 1, 0)]
        more = i < len(down_block_types) - 1
        blocks.append(get_down_block(name, in_channels=before, out_channels=channels, add_downsample=more, **own, **options))
    return nn.ModuleList(blocks)


def per_stage(down_block_types: Sequence[str], **values: Any) -> list[list]:
    """Each of `values` as a list with one entry for each of the stages.

    Raises:
        ConfigError: a tuple or list of another length.
    """
    stages, lists = len(down_block_types), []
    for name, value in values.items():
        if not isinstance(value, (tuple, list)):
            value = [value] * stages
        if len(value) != stages:
            raise ConfigError(f"{name} is {value}: expected {stages} entries, one for each of the down_block_types {down_block_types}.")
        lists.append(list(value))
    return lists


def get_mid_block(
    mid_block_type: str | None, *, mid_block_only_cross_attention: bool = False, resnet_skip_time_act: bool = False, **options: Any
) -> nn.Module | None:
    """The middle stage with this name, or None for None. Arguments and errors as for `get_down_block`."""
    if mid_block_type is None:
        return None
    options |= {"skip_time_act": resnet_skip_time_act, "only_cross_attention": mid_block_only_cross_attention}
    if mid_block_type == "UNetMidBlock2D":
        return UNetMidBlock2D(num_layers=0, add_attention=False, **{name: options[name] for name in UNetMidBlock2D.options})
    if mid_block_type == "UNetMidBlock2DCrossAttn":
        del options["only_cross_attention"]
    return _make(_MID_BLOCKS, "mid", mid_block_type, options)


def get_up_block(
    up_block_type: str,
    *,
    num_attention_heads: int | None = None,
    attention_head_dim: int | None = None,
    resnet_skip_time_act: bool = False,
    resnet_out_scale_factor: float = 1.0,
    upsample_type: str | None = None,
    **options: Any,
) -> nn.Module:
    """The stage of the way up with this name. Arguments and errors as for `get_down_block`."""
    options |= {
        "num_attention_heads": num_attention_heads,
        "attention_head_dim": num_attention_heads if attention_head_dim is None else attention_head_dim,
        "skip_time_act": resnet_skip_time_act,
        "output_scale_factor": resnet_out_scale_factor,
        "upsample_type": upsample_type or "conv",
    }
    return _make(_UP_BLOCKS, "up", up_block_type, options)


def _make(blocks: dict[str, type], kind: str, name: str, options: dict[str, Any]) -> nn.Module:
    block = blocks.get(name.removeprefix("UNetRes"))
    if block is None:
        raise ConfigError(f"Unknown {kind} block type {name!r}: expected one of {', '.join(sorted(blocks))}.")
    if "cross_attention_dim" in block.options and options.get("cross_attention_dim") is None:
        raise ConfigError(f"cross_attention_dim must be given for {block.__name__}.")
    return block(**{option: options[option] for option in block.options if option in options})
