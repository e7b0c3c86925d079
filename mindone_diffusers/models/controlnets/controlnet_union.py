"""`ControlNetUnionModel`: one ControlNet for several kinds of images (ControlNet++ of xinsir: https://github.com/xinsir6/ControlNetPlus)."""

import math
from typing import Any

import mindspore as ms
from mindspore import Tensor

from ... import nn
from ...core.configuration import register_to_config
from ...core.errors import ConfigError
from ...nn import functional as F
from ..activations import quick_gelu
from ..embeddings import TimestepEmbedding, Timesteps
from ..inputs import cast, mutable, tensor
from ..unets.unet_2d_condition import UNet2DConditionModel
from .controlnet import ControlNetBase, ControlNetOutput, zero_module


class SelfAttention(nn.Module):
    """Attention of (tokens, batch, channels) to itself, with torch's one `in_proj_weight` for queries, keys and values."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter((3 * embed_dim, embed_dim), nn.uniform_init(math.sqrt(6 / (4 * embed_dim))))
        self.in_proj_bias = nn.Parameter((3 * embed_dim,))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.zeros_(self.out_proj.bias)

    def construct(self, x: Tensor) -> Tensor:
        tokens, batch, channels = x.shape
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias).reshape((tokens, batch, 3, self.num_heads, -1))
        projected = projected.transpose((2, 1, 3, 0, 4))
        query, key, value = projected[0], projected[1], projected[2]
        # One token attends to itself. (Besides, MindSpore's jit computes wrong gradients after one of a softmax over one value.)
        attended = F.scaled_dot_product_attention(query, key, value) if tokens > 1 else value
        return self.out_proj(attended.transpose((2, 0, 1, 3)).reshape((tokens, batch, channels)))


class ResidualAttentionMlp(nn.Module):
    """Two linear layers with a `quick_gelu` between them."""

    def __init__(self, d_model: int):
        super().__init__()
        self.c_fc = nn.Linear(d_model, d_model * 4)
        self.c_proj = nn.Linear(d_model * 4, d_model)

    def construct(self, x: Tensor) -> Tensor:
        return self.c_proj(quick_gelu(self.c_fc(x)))


class ResidualAttentionBlock(nn.Module):
    """CLIP's transformer block (arXiv:2103.00020) over the first axis of (tokens, batch, channels)."""

    def __init__(self, d_model: int, n_head: int):
        super().__init__()
        self.attn = SelfAttention(d_model, n_head)
        self.ln_1 = nn.LayerNorm(d_model)
        self.mlp = ResidualAttentionMlp(d_model)
        self.ln_2 = nn.LayerNorm(d_model)

    def construct(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class ControlNetUnionModel(ControlNetBase):
    """A ControlNet for `num_control_type` kinds of images, of which a call may give several.

    A transformer sees the means of the images' embeddings, each with the vector of its kind, and of the sample, and says how much of each
    is added to the sample. As in the published models, and PyTorch diffusers, its attention is over the *batch*, not over the images.

    The arguments are `ControlNetModel`'s, but for these:

    Args:
        encoder_hid_dim_type: must be None.
        addition_time_embed_dim: size of the embedding of each kind's 0 or 1, which is needed for any `addition_embed_type`.
        controlnet_conditioning_channel_order: must be "rgb".
        num_control_type: number of kinds.
        num_trans_channel, num_trans_head, num_trans_layer: channels, heads and blocks of the transformer.
        num_proj_channel: channels of what it says. Like `num_trans_channel`, those of the first stage.

    Raises:
        ConfigError: an unknown name, tuples of different lengths, or a missing argument that another one needs.
    """

    encoder_hid_dim_types = ()
    channel_orders = ("rgb",)

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        conditioning_channels: int = 3,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        only_cross_attention: bool | tuple[bool, ...] = False,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1280,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        encoder_hid_dim: int | None = None,
        encoder_hid_dim_type: str | None = None,
        attention_head_dim: int | tuple[int, ...] = 8,
        num_attention_heads: int | tuple[int, ...] | None = None,
        use_linear_projection: bool = False,
        class_embed_type: str | None = None,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int | None = None,
        num_class_embeds: int | None = None,
        upcast_attention: bool = False,
        resnet_time_scale_shift: str = "default",
        projection_class_embeddings_input_dim: int | None = None,
        controlnet_conditioning_channel_order: str = "rgb",
        conditioning_embedding_out_channels: tuple[int, ...] | None = (48, 96, 192, 384),
        global_pool_conditions: bool = False,
        addition_embed_type_num_heads: int = 64,
        num_control_type: int = 6,
        num_trans_channel: int = 320,
        num_trans_head: int = 8,
        num_trans_layer: int = 1,
        num_proj_channel: int = 320,
    ):
        super().__init__()
        self.make_encoder("UNetMidBlock2DCrossAttn")
        channels = block_out_channels[0]
        if addition_time_embed_dim is None:
            raise ConfigError("ControlNetUnionModel needs addition_time_embed_dim, the size of the embedding of a kind's 0 or 1.")
        for name, value in (("num_trans_channel", num_trans_channel), ("num_proj_channel", num_proj_channel)):
            if value != channels:
                raise ConfigError(f"{name} is {value}: expected {channels}, the first of block_out_channels.")
        self.task_embedding = nn.Parameter((num_control_type, num_trans_channel), nn.normal_init(num_trans_channel**0.5))
        # The name, with its missing letter, is that of the published weights.
        self.transformer_layes = nn.ModuleList([ResidualAttentionBlock(num_trans_channel, num_trans_head) for _ in range(num_trans_layer)])
        self.spatial_ch_projs = zero_module(nn.Linear(num_trans_channel, num_proj_channel))
        self.control_type_proj = Timesteps(addition_time_embed_dim, flip_sin_to_cos, freq_shift)
        self.control_add_embedding = TimestepEmbedding(addition_time_embed_dim * num_control_type, channels * 4)

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        controlnet_conditioning_channel_order: str = "rgb",
        conditioning_embedding_out_channels: tuple[int, ...] | None = (16, 32, 96, 256),
        load_weights_from_unet: bool = True,
    ) -> "ControlNetUnionModel":
        """As `ControlNetModel.from_unet`. The weights of `addition_embed_type` are copied too, and the transformer has the UNet's first
        number of channels; in PyTorch diffusers they are not, and it has 320."""
        return cls.copy_of(
            unet,
            load_weights_from_unet,
            controlnet_conditioning_channel_order=controlnet_conditioning_channel_order,
            conditioning_embedding_out_channels=conditioning_embedding_out_channels,
            num_trans_channel=unet.config.block_out_channels[0],
            num_proj_channel=unet.config.block_out_channels[0],
        )

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        controlnet_cond: list[Tensor],
        control_type: Tensor,
        control_type_idx: list[int],
        conditioning_scale: float | list[float] = 1.0,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        from_multi: bool = False,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[tuple[Tensor, ...], Tensor]:
        """
        Args:
            sample, timestep, encoder_hidden_states, class_labels, timestep_cond, attention_mask, added_cond_kwargs, cross_attention_kwargs,
                guess_mode: as for `ControlNetModel`.
            controlnet_cond: the images, each (batch, conditioning_channels, 8 height, 8 width) for the default embedding.
            control_type: (batch, num_control_type), 1 for the kinds that are given.
            control_type_idx: the kind of each image.
            conditioning_scale: a factor for each image, or one for all. Of a single image, it is the output's.
            from_multi: the first factor is the output's also of several images; the others have no effect.
            return_dict: return `ControlNetOutput`, else a tuple.

        Raises:
            ValueError: an input that the configuration needs is missing, or one has another shape or length than the model takes.
        """
        dtype, batch, images = self.dtype, sample.shape[0], len(controlnet_cond)
        self.check_shapes(sample, encoder_hidden_states)
        for image in controlnet_cond:
            self.check_condition(image, sample, (batch,))
        kinds = self.config.num_control_type
        if tuple(control_type.shape) != (batch, kinds):
            raise ValueError(f"control_type has the shape {control_type.shape}; expected {(batch, kinds)}: 0 or 1 for each kind of image.")
        if len(control_type_idx) != images or not all(0 <= index < kinds for index in control_type_idx):
            raise ValueError(f"control_type_idx is {control_type_idx}; expected {images} of 0 to {kinds - 1}, one for each image.")
        if not isinstance(conditioning_scale, (list, tuple)):
            conditioning_scale = [conditioning_scale] * images
        if len(conditioning_scale) != images:
            raise ValueError(f"conditioning_scale has {len(conditioning_scale)} entries; expected {images}, one for each image.")
        timestep, class_labels, added = self.condition_inputs(batch, timestep, class_labels, added_cond_kwargs)
        output = self._run(
            "construct",
            cast(sample, dtype),
            timestep,
            cast(encoder_hidden_states, dtype),
            mutable(cast(controlnet_cond, dtype)),
            control_type.astype(ms.float32),
            tuple(control_type_idx),
            tensor(conditioning_scale, dtype),
            class_labels,
            cast(timestep_cond, dtype),
            attention_mask,
            added,
            mutable(cast(cross_attention_kwargs, dtype)),
            bool(from_multi),
            bool(guess_mode),
        )
        return ControlNetOutput(*output) if return_dict else output

    def construct(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        controlnet_cond: tuple[Tensor, ...],
        control_type: Tensor,
        control_type_idx: tuple[int, ...],
        conditioning_scale: Tensor | tuple[float, ...],
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        from_multi: bool = False,
        guess_mode: bool = False,
        return_dict: bool = False,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        kinds = self.control_type_proj(control_type.reshape((-1,))).reshape((sample.shape[0], -1)).astype(sample.dtype)
        emb = self.embed(sample, timestep, encoder_hidden_states, class_labels, timestep_cond, added_cond_kwargs)
        emb = emb + self.control_add_embedding(kinds)

        sample = self.conv_in(sample)
        scales_output = from_multi or len(control_type_idx) == 1
        images, means = (), ()
        for i, kind in enumerate(control_type_idx):
            image = self.controlnet_cond_embedding(controlnet_cond[i])
            mean = image.mean((2, 3)) + self.task_embedding[kind]
            images += (image if scales_output else image * conditioning_scale[i],)
            means += (mean if scales_output else mean * conditioning_scale[i],)
        tokens = F.stack(means + (sample.mean((2, 3)),), 1)
        for layer in self.transformer_layes:
            tokens = layer(tokens)
        for i, image in enumerate(images):
            shift = self.spatial_ch_projs(tokens[:, i])
            shift = shift if scales_output else shift * conditioning_scale[i]
            sample = sample + image + shift.expand_dims(-1).expand_dims(-1)

        residuals = self.run_encoder(sample, emb, encoder_hidden_states, attention_mask, cross_attention_kwargs)
        return self.scale(residuals, conditioning_scale[0] if scales_output else 1.0, guess_mode)
