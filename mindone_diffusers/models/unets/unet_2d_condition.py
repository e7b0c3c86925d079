"""`UNet2DConditionModel`: the denoiser of Stable Diffusion and its relatives (arXiv:2112.10752)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mindspore import Tensor

from ... import nn
from ...core.configuration import register_to_config
from ...core.errors import ConfigError
from ...core.outputs import BaseOutput
from ...nn import functional as F
from ..activations import get_activation
from ..cache_utils import CacheMixin
from ..embeddings import GaussianFourierProjection, GLIGENTextBoundingboxProjection, TimestepEmbedding, Timesteps
from ..inputs import cast, mutable
from ..transformers.transformer_2d import additive_mask
from .conditioning import ConditionedModel
from .unet_2d_blocks import CrossAttnUpBlock2D, UpBlock2D, get_down_blocks, get_mid_block, get_up_block, per_stage


@dataclass
class UNet2DConditionOutput(BaseOutput):
    """
    Args:
        sample: (batch, out_channels, height, width): the predicted noise, or what the model was trained to predict.
    """

    sample: Tensor


class UNet2DConditionModel(CacheMixin, ConditionedModel):
    """A UNet (arXiv:1505.04597) over (batch, in_channels, height, width), conditioned on a timestep and on a context of tokens.

    Arguments that are tuples hold one entry for each stage of the way down; the way up has the same in reverse.

    Args:
        sample_size: height and width of the samples it was trained on; not used here.
        in_channels, out_channels: of the sample, and of the output.
        center_input_sample: map samples in 0..1 to -1..1 first.
        flip_sin_to_cos, freq_shift: see `Timesteps`.
        down_block_types, mid_block_type, up_block_types: names of stages, see `unet_2d_blocks`; the middle one may be None.
        only_cross_attention: transformers attend to the context in both attentions.
        block_out_channels: channels of the stages.
        layers_per_block: residual blocks in each stage; those of the way up have one more.
        downsample_padding, dropout, act_fn, norm_num_groups, norm_eps: of the stages; without `norm_num_groups` there is no last norm.
        mid_block_scale_factor, resnet_out_scale_factor: `output_scale_factor` of the residual blocks.
        cross_attention_dim: channels of the context.
        transformer_layers_per_block: blocks in each transformer; an entry may be a list, one for each transformer of the stage.
        reverse_transformer_layers_per_block: the same for the way up, if it is not the reverse of `transformer_layers_per_block`.
        encoder_hid_dim, encoder_hid_dim_type: the context is first made from inputs of `encoder_hid_dim` channels: "text_proj",
            "text_image_proj" or "image_proj".
        attention_head_dim: the *number* of heads of the transformers (a historical misnomer), and the size of the heads elsewhere.
        num_attention_heads: must be None.
        dual_cross_attention: two contexts, see `DualTransformer2DModel`.
        use_linear_projection: see `Transformer2DModel`.
        class_embed_type: None (with `num_class_embeds`: a table), "timestep", "identity", "projection" or "simple_projection" (both of
            `projection_class_embeddings_input_dim` channels). The embedding is added to the timestep's, or joined to it if
            `class_embeddings_concat`.
        addition_embed_type: what else is added: "text", "text_image", "text_time", "image" or "image_hint", from `added_cond_kwargs`.
        addition_time_embed_dim: size of the embedding of each of the "text_time" numbers, `projection_class_embeddings_input_dim` that of
            all of them and the text. `addition_embed_type_num_heads`: for "text".
        upcast_attention, cross_attention_norm: see `Attention`.
        resnet_time_scale_shift, resnet_skip_time_act: see `ResnetBlock2D`.
        time_embedding_type: "positional" or "fourier". `time_embedding_dim`: its size, by default 4 (or 2) times the first channels.
        time_embedding_act_fn: activation of the finished embedding. `timestep_post_act`: of the timestep's part.
        time_cond_proj_dim: size of `timestep_cond`.
        conv_in_kernel, conv_out_kernel: of the first and the last convolution.
        attention_type: "default", or "gated" and "gated-text-image" for GLIGEN (arXiv:2301.07093).
        mid_block_only_cross_attention: `only_cross_attention` of the middle stage.

    Raises:
        ConfigError: an unknown name, tuples of different lengths, or a missing argument that another one needs.
    """

    _repeated_blocks: ClassVar[tuple[str, ...]] = ("BasicTransformerBlock",)

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        center_input_sample: bool = False,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2DCrossAttn",
        up_block_types: tuple[str, ...] = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        only_cross_attention: bool | tuple[bool, ...] = False,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int | tuple[int, ...] = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        dropout: float = 0.0,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int | tuple[int, ...] = 1280,
        transformer_layers_per_block: int | tuple[int, ...] | tuple[tuple[int, ...], ...] = 1,
        reverse_transformer_layers_per_block: tuple[tuple[int, ...], ...] | None = None,
        encoder_hid_dim: int | None = None,
        encoder_hid_dim_type: str | None = None,
        attention_head_dim: int | tuple[int, ...] = 8,
        num_attention_heads: int | tuple[int, ...] | None = None,
        dual_cross_attention: bool = False,
        use_linear_projection: bool = False,
        class_embed_type: str | None = None,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int | None = None,
        num_class_embeds: int | None = None,
        upcast_attention: bool = False,
        resnet_time_scale_shift: str = "default",
        resnet_skip_time_act: bool = False,
        resnet_out_scale_factor: float = 1.0,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,
        time_embedding_act_fn: str | None = None,
        timestep_post_act: str | None = None,
        time_cond_proj_dim: int | None = None,
        conv_in_kernel: int = 3,
        conv_out_kernel: int = 3,
        projection_class_embeddings_input_dim: int | None = None,
        attention_type: str = "default",
        class_embeddings_concat: bool = False,
        mid_block_only_cross_attention: bool | None = None,
        cross_attention_norm: str | None = None,
        addition_embed_type_num_heads: int = 64,
    ):
        super().__init__()
        if num_attention_heads is not None:
            raise ConfigError("num_attention_heads cannot be given: attention_head_dim is the number of heads.")
        _, channels, only_cross, heads, contexts, layers, depths = per_stage(
            down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            only_cross_attention=only_cross_attention,
            attention_head_dim=attention_head_dim,
            cross_attention_dim=cross_attention_dim,
            layers_per_block=layers_per_block,
            transformer_layers_per_block=transformer_layers_per_block,
        )
        stages = len(down_block_types)
        nested = not isinstance(transformer_layers_per_block, int) and any(not isinstance(n, int) for n in transformer_layers_per_block)
        if nested and reverse_transformer_layers_per_block is None:
            raise ConfigError("transformer_layers_per_block has lists in it: give reverse_transformer_layers_per_block for the way up.")

        self.center_input_sample = center_input_sample
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], conv_in_kernel, padding=(conv_in_kernel - 1) // 2)
        if time_embedding_type == "fourier":
            time_embed_dim = time_input_dim = time_embedding_dim or block_out_channels[0] * 2
            if time_embed_dim % 2:
                raise ConfigError(f"time_embedding_dim is {time_embed_dim}: expected an even number for time_embedding_type='fourier'.")
            self.time_proj = GaussianFourierProjection(time_embed_dim // 2, log=False, flip_sin_to_cos=flip_sin_to_cos)
        elif time_embedding_type == "positional":
            time_embed_dim, time_input_dim = time_embedding_dim or block_out_channels[0] * 4, block_out_channels[0]
            self.time_proj = Timesteps(time_input_dim, flip_sin_to_cos, freq_shift)
        else:
            raise ConfigError(f"Unknown time_embedding_type {time_embedding_type!r}: expected 'positional' or 'fourier'.")
        self.time_embedding = TimestepEmbedding(
            time_input_dim, time_embed_dim, act_fn=act_fn, post_act_fn=timestep_post_act, cond_proj_dim=time_cond_proj_dim
        )

        self.class_embeddings_concat = class_embeddings_concat
        self.make_conditions(time_input_dim, time_embed_dim, class_act_fn=act_fn)
        self.time_embed_act = None if time_embedding_act_fn is None else get_activation(time_embedding_act_fn)

        if mid_block_only_cross_attention is None:
            mid_block_only_cross_attention = only_cross_attention if isinstance(only_cross_attention, bool) else False
        up_depths = reverse_transformer_layers_per_block or depths[::-1]
        common = {
            "temb_channels": time_embed_dim * 2 if class_embeddings_concat else time_embed_dim, "dropout": dropout, "resnet_eps": norm_eps,
            "resnet_act_fn": act_fn, "resnet_groups": norm_num_groups, "resnet_time_scale_shift": resnet_time_scale_shift,
            "resnet_skip_time_act": resnet_skip_time_act, "dual_cross_attention": dual_cross_attention,
            "use_linear_projection": use_linear_projection, "upcast_attention": upcast_attention, "attention_type": attention_type,
            "cross_attention_norm": cross_attention_norm,
        }  # fmt: skip
        self.down_blocks = get_down_blocks(
            down_block_types,
            channels,
            {
                "num_layers": layers, "transformer_layers_per_block": depths, "cross_attention_dim": contexts, "num_attention_heads": heads,
                "attention_head_dim": heads, "only_cross_attention": only_cross,
            },
            downsample_padding=downsample_padding,
            resnet_out_scale_factor=resnet_out_scale_factor,
            **common,
        )  # fmt: skip
        up_blocks = []
        for i, name in enumerate(up_block_types):
            level = stages - 1 - i
            up_block = get_up_block(
                name,
                num_layers=layers[level] + 1,
                transformer_layers_per_block=up_depths[i],
                in_channels=channels[max(level - 1, 0)],
                out_channels=channels[level],
                prev_output_channel=channels[min(level + 1, stages - 1)],
                add_upsample=level > 0,
                resolution_idx=i,
                cross_attention_dim=contexts[level],
                num_attention_heads=heads[level],
                # Not reversed: published checkpoints depend on it.
                attention_head_dim=channels[level] if heads[i] is None else heads[i],
                only_cross_attention=only_cross[level],
                resnet_out_scale_factor=resnet_out_scale_factor,
                **common,
            )
            up_blocks.append(up_block)
        self.up_blocks = nn.ModuleList(up_blocks)
        self.mid_block = get_mid_block(
            mid_block_type,
            in_channels=channels[-1],
            output_scale_factor=mid_block_scale_factor,
            transformer_layers_per_block=depths[-1],
            num_attention_heads=heads[-1],
            cross_attention_dim=contexts[-1],
            mid_block_only_cross_attention=mid_block_only_cross_attention,
            attention_head_dim=heads[-1],
            **common,
        )
        self.num_upsamplers = stages - 1
        self.conv_norm_out = self.conv_act = None
        if norm_num_groups is not None:
            self.conv_norm_out = nn.GroupNorm(norm_num_groups, channels[0], norm_eps)
            self.conv_act = get_activation(act_fn)
        self.conv_out = nn.Conv2d(channels[0], out_channels, conv_out_kernel, padding=(conv_out_kernel - 1) // 2)
        self.position_net = None
        if attention_type in ("gated", "gated-text-image"):
            feature_type = "text-only" if attention_type == "gated" else "text-image"
            self.position_net = GLIGENTextBoundingboxProjection(contexts[0], contexts[0], feature_type)

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor | None,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        down_block_additional_residuals: tuple[Tensor, ...] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        down_intrablock_additional_residuals: tuple[Tensor, ...] | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """
        Args:
            sample: (batch, in_channels, height, width). Floating inputs are cast to the model's dtype.
            timestep: a number, or a tensor of one or of `batch`.
            encoder_hidden_states: the context, (batch, tokens, channels).
            class_labels: (batch,) integers for a table; (batch,) numbers for "timestep"; else (batch, channels).
            timestep_cond: (batch, time_cond_proj_dim), added to the timestep's sinusoids.
            attention_mask, encoder_attention_mask: (batch, keys), 1 to keep and 0 to leave out; for self-attention and for the context.
            cross_attention_kwargs: for the attention processors; "gligen" holds the arguments of `GLIGENTextBoundingboxProjection`.
            added_cond_kwargs: "text_embeds" (batch, channels), "time_ids" (batch, numbers), "image_embeds" (batch, channels), "hint"
                (batch, 3, 8 height, 8 width), as `addition_embed_type` and `encoder_hid_dim_type` need them.
            down_block_additional_residuals, mid_block_additional_residual: a ControlNet's: one for each state the way up takes, and one.
            down_intrablock_additional_residuals: a T2I-Adapter's: one for each stage of the way down, and maybe one for the middle.
            return_dict: return `UNet2DConditionOutput`, else a tuple.

        Raises:
            ValueError: an input that the configuration needs is missing, or one has another shape than the model takes.
        """
        dtype = self.dtype
        self.check_shapes(sample, encoder_hidden_states)
        timestep, class_labels, added = self.condition_inputs(sample.shape[0], timestep, class_labels, added_cond_kwargs)
        residuals, intrablock = down_block_additional_residuals, down_intrablock_additional_residuals
        if residuals is not None and mid_block_additional_residual is None and intrablock is None:
            residuals, intrablock = None, residuals  # the older way to call with a T2I-Adapter
        output = self._run(
            "construct",
            cast(sample, dtype),
            timestep,
            cast(encoder_hidden_states, dtype),
            class_labels,
            cast(timestep_cond, dtype),
            attention_mask,
            mutable(cast(cross_attention_kwargs, dtype)),
            added,
            mutable(cast(residuals, dtype)),
            cast(mid_block_additional_residual, dtype),
            mutable(cast(intrablock, dtype)),
            encoder_attention_mask,
        )
        return UNet2DConditionOutput(sample=output[0]) if return_dict else output

    def construct(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        down_block_additional_residuals: tuple[Tensor, ...] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        down_intrablock_additional_residuals: tuple[Tensor, ...] | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        output = self.denoise(
            None, 0, sample, timestep, encoder_hidden_states, class_labels, timestep_cond, attention_mask, cross_attention_kwargs,
            added_cond_kwargs, down_block_additional_residuals, mid_block_additional_residual, down_intrablock_additional_residuals,
            encoder_attention_mask,
        )[0]  # fmt: skip
        return (output,)

    def denoise(
        self,
        deep: Tensor | None,
        outer: int,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        down_block_additional_residuals: tuple[Tensor, ...] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        down_intrablock_additional_residuals: tuple[Tensor, ...] | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`construct`, in two parts for caches: the outer stages of the way down and up, and the deep ones between them.

        Args:
            deep: what the deep stages give to the outer ones; None to compute it.
            outer: how many stages are outer ones.

        Returns:
            The output, and what the deep stages gave.
        """
        dtype = sample.dtype
        attention_mask = additive_mask(attention_mask, dtype)
        encoder_attention_mask = additive_mask(encoder_attention_mask, dtype)
        sizes_halve = sample.shape[2] % 2**self.num_upsamplers == 0 and sample.shape[3] % 2**self.num_upsamplers == 0
        if self.center_input_sample:
            sample = 2 * sample - 1.0

        emb = self.embed_time(timestep, sample.shape[0], dtype, timestep_cond, class_labels)
        if self.addition_embed_type == "image_hint":
            added, hint = self.add_embedding(added_cond_kwargs["image_embeds"], added_cond_kwargs["hint"])
            sample = F.cat((sample, hint), 1)
            emb = emb + added
        elif self.add_embedding is not None:
            emb = emb + self.embed_addition(encoder_hidden_states, added_cond_kwargs, dtype)
        if self.time_embed_act is not None:
            emb = self.time_embed_act(emb)
        if self.encoder_hid_proj is not None:
            encoder_hidden_states = self.project_context(encoder_hidden_states, added_cond_kwargs)
        if self.position_net is not None and cross_attention_kwargs is not None and "gligen" in cross_attention_kwargs:
            kwargs = {"gligen": {"objs": self.position_net(**cross_attention_kwargs["gligen"])}}
            for name in cross_attention_kwargs:
                if name != "gligen":
                    kwargs[name] = cross_attention_kwargs[name]
            cross_attention_kwargs = kwargs

        intrablock = () if down_intrablock_additional_residuals is None else down_intrablock_additional_residuals
        sample = self.conv_in(sample)
        states = (sample,)
        for i in range(len(self.down_blocks) if deep is None else outer):
            if i < len(intrablock):
                sample, block_states = self.down_blocks[i](
                    sample, emb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask, intrablock[i]
                )
            else:
                sample, block_states = self.down_blocks[i](
                    sample, emb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask
                )
            states += block_states
        if deep is not None:
            states = states[:-1]  # the last one is for the deep stages
        if down_block_additional_residuals is not None:
            if deep is None and len(down_block_additional_residuals) != len(states):
                raise ValueError(f"Got {len(down_block_additional_residuals)} down_block_additional_residuals, expected {len(states)}.")
            controlled = ()
            for i in range(len(states)):
                controlled += (states[i] + down_block_additional_residuals[i],)
            states = controlled

        if deep is not None:
            sample = deep
        elif self.mid_block is not None:
            sample = self.mid_block(sample, emb, encoder_hidden_states, attention_mask, cross_attention_kwargs, encoder_attention_mask)
            stages = len(self.down_blocks)
            if len(intrablock) > stages and intrablock[stages].shape == sample.shape:
                sample = sample + intrablock[stages]
        if deep is None and mid_block_additional_residual is not None:
            sample = sample + mid_block_additional_residual

        first_outer = len(self.up_blocks) - outer
        for i in range(0 if deep is None else first_outer, len(self.up_blocks)):
            block = self.up_blocks[i]
            if i == first_outer:
                deep = sample
            taken = len(block.resnets)
            block_states, states = states[-taken:], states[:-taken]
            # Sizes that were rounded on the way down are given on the way up.
            size = None if sizes_halve or block.upsamplers is None else states[-1].shape[2:]
            sample = block(
                sample, block_states, emb, encoder_hidden_states, cross_attention_kwargs, size, attention_mask, encoder_attention_mask
            )
        if self.conv_norm_out is not None:
            sample = self.conv_act(self.conv_norm_out(sample))
        return self.conv_out(sample), sample if deep is None else deep

    def enable_freeu(self, s1: float, s2: float, b1: float, b2: float) -> None:
        """FreeU (arXiv:2309.11497) from now on, where the first two stages of the way up are `UpBlock2D` or `CrossAttnUpBlock2D`; see
        `models.freeu`.

        Args:
            s1, s2: scales of the skip connections' low frequencies in the first stage and in the second, below 1 for less.
            b1, b2: scales of half of the backbone's channels, above 1 for more. If one of the four is 0, nothing is changed.
        """
        self._set_freeu(((b1, s1), (b2, s2)) if s1 and s2 and b1 and b2 else (None, None))

    def disable_freeu(self) -> None:
        """No FreeU any more."""
        self._set_freeu((None, None))

    def _set_freeu(self, scales: tuple[tuple[float, float] | None, ...]) -> None:
        for block, pair in zip(self.up_blocks, scales):
            if type(block) in (UpBlock2D, CrossAttnUpBlock2D):
                block.freeu = pair
        self._recompile()

    def project_context(self, encoder_hidden_states: Tensor, added: dict[str, Tensor]) -> Tensor:
        """The context that `encoder_hid_dim_type` makes."""
        if self.encoder_hid_dim_type == "text_proj":
            return self.encoder_hid_proj(encoder_hidden_states)
        if self.encoder_hid_dim_type == "text_image_proj":
            return self.encoder_hid_proj(encoder_hidden_states, added["image_embeds"])
        return self.encoder_hid_proj(added["image_embeds"])
