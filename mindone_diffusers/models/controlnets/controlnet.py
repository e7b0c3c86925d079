"""`ControlNetModel`: a copy of a UNet's way down and middle that an image steers (arXiv:2302.05543)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from mindspore import Tensor

from ... import nn
from ...core import weights
from ...core.configuration import register_to_config
from ...core.errors import ConfigError
from ...core.outputs import BaseOutput
from ...nn import functional as F
from ..embeddings import TimestepEmbedding, Timesteps
from ..inputs import cast, mutable, tensor
from ..transformers.transformer_2d import additive_mask
from ..unets.conditioning import ConditionedModel
from ..unets.unet_2d_blocks import get_down_blocks, get_mid_block, per_stage
from ..unets.unet_2d_condition import UNet2DConditionModel


@dataclass
class ControlNetOutput(BaseOutput):
    """
    Args:
        down_block_res_samples: one for each state of the UNet's way down, of its shape; (batch, channels, 1, 1) with
            `global_pool_conditions`.
        mid_block_res_sample: the same for the middle.
    """

    down_block_res_samples: tuple[Tensor, ...]
    mid_block_res_sample: Tensor


def zero_module(module: nn.Module) -> nn.Module:
    """`module`, with all its parameters zero: what follows it is unchanged until it is trained."""
    for parameter in module.parameters():
        nn.zeros_(parameter)
    return module


class ControlNetConditioningEmbedding(nn.Module):
    """Convolutions that take an image (batch, conditioning_channels, height, width) to the latents' size and channels.

    Args:
        conditioning_embedding_channels: of the output.
        conditioning_channels: of the image.
        block_out_channels: channels on the way; each step from one to the next halves the size.
    """

    def __init__(
        self,
        conditioning_embedding_channels: int,
        conditioning_channels: int = 3,
        block_out_channels: tuple[int, ...] = (16, 32, 96, 256),
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(conditioning_channels, block_out_channels[0], 3, padding=1)
        blocks = []
        for before, after in zip(block_out_channels, block_out_channels[1:]):
            blocks += [nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 3, padding=1, stride=2)]
        self.blocks = nn.ModuleList(blocks)
        self.conv_out = zero_module(nn.Conv2d(block_out_channels[-1], conditioning_embedding_channels, 3, padding=1))

    def construct(self, conditioning: Tensor) -> Tensor:
        embedding = F.silu(self.conv_in(conditioning))
        for block in self.blocks:
            embedding = F.silu(block(embedding))
        return self.conv_out(embedding)


class ControlNetBase(ConditionedModel):
    """What all ControlNets of a UNet share: its way down and middle, each state followed by a convolution that starts at zero.

    Class attributes:
        channel_orders: what `controlnet_conditioning_channel_order` may be.
    """

    class_embed_types = ("timestep", "identity", "projection")
    addition_embed_types = ("text", "text_image", "text_time")
    encoder_hid_dim_types = ("text_proj", "text_image_proj")
    needed_by_addition = {"text_time": ConditionedModel.needed_by_addition["text_time"]}
    needed_by_context = {}
    channel_orders: ClassVar[tuple[str, ...]] = ("rgb", "bgr")

    def make_encoder(self, mid_block_type: str) -> None:
        """Create all that the UNet has as well, the convolutions, and the image's embedding, as the config says."""
        config = self.config
        if config.controlnet_conditioning_channel_order not in self.channel_orders:
            raise ConfigError(
                f"Unknown controlnet_conditioning_channel_order {config.controlnet_conditioning_channel_order!r}: expected "
                f"{' or '.join(map(repr, self.channel_orders))}."
            )
        if mid_block_type not in ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"):
            raise ConfigError(f"Unknown mid_block_type {mid_block_type!r}: expected 'UNetMidBlock2DCrossAttn' or 'UNetMidBlock2D'.")
        channels, only_cross, heads, head_dims, contexts, layers, depths = per_stage(
            config.down_block_types,
            block_out_channels=config.block_out_channels,
            only_cross_attention=config.only_cross_attention,
            num_attention_heads=config.num_attention_heads or config.attention_head_dim,
            attention_head_dim=config.attention_head_dim,
            cross_attention_dim=config.cross_attention_dim,
            layers_per_block=config.layers_per_block,
            transformer_layers_per_block=config.transformer_layers_per_block,
        )
        time_embed_dim = channels[0] * 4
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_proj = Timesteps(channels[0], config.flip_sin_to_cos, config.freq_shift)
        self.time_embedding = TimestepEmbedding(channels[0], time_embed_dim, act_fn=config.act_fn)
        self.make_conditions(channels[0], time_embed_dim)
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            channels[0], config.conditioning_channels, config.conditioning_embedding_out_channels
        )
        common = {
            "temb_channels": time_embed_dim, "dropout": 0.0, "resnet_eps": config.norm_eps, "resnet_act_fn": config.act_fn,
            "resnet_groups": config.norm_num_groups, "resnet_time_scale_shift": config.resnet_time_scale_shift,
            "use_linear_projection": config.use_linear_projection, "upcast_attention": config.upcast_attention,
        }  # fmt: skip
        self.down_blocks = get_down_blocks(
            config.down_block_types,
            channels,
            {
                "num_layers": layers, "transformer_layers_per_block": depths, "cross_attention_dim": contexts, "num_attention_heads": heads,
                "attention_head_dim": head_dims, "only_cross_attention": only_cross,
            },
            downsample_padding=config.downsample_padding,
            **common,
        )  # fmt: skip
        self.mid_block = get_mid_block(
            mid_block_type,
            in_channels=channels[-1],
            output_scale_factor=config.mid_block_scale_factor,
            transformer_layers_per_block=depths[-1],
            num_attention_heads=heads[-1],
            cross_attention_dim=contexts[-1],
            **common,
        )
        states = [channels[0]]  # channels of each: the first convolution's, every layer's, every downsampler's
        for i, count in enumerate(channels):
            states += [count] * (layers[i] + (i < len(channels) - 1))
        self.controlnet_down_blocks = nn.ModuleList([zero_module(nn.Conv2d(count, count, 1)) for count in states])
        self.controlnet_mid_block = zero_module(nn.Conv2d(channels[-1], channels[-1], 1))
        # From a tenth at the first state to one at the middle.
        self.guess_scales = tuple(np.logspace(-1, 0, len(states) + 1).tolist())
        self.global_pool_conditions = config.global_pool_conditions

    @classmethod
    def copy_of(cls, unet: UNet2DConditionModel, load_weights_from_unet: bool, **arguments: Any) -> "ControlNetBase":
        """A ControlNet with the UNet's config and, if asked for, the weights they share; `arguments` are for the constructor."""
        names = [name for name in cls._get_init_keys(cls) if name in unet.config]
        controlnet = cls(**{name: unet.config[name] for name in names}, **arguments)
        if load_weights_from_unet:
            parts = ("conv_in.", "time_proj.", "time_embedding.", "class_embedding.", "add_embedding.", "down_blocks.", "mid_block.")
            shared, rng = {}, np.random.default_rng()
            for name, parameter in controlnet._unfilled_parameters().items():
                if name.startswith(parts):
                    shared[name] = parameter
                else:
                    nn.initialize(parameter, rng)
            # Copies: both models may be trained.
            state = {name: np.array(value.asnumpy()) for name, value in unet.state_dict().items() if name.startswith(parts)}
            weights.bind(shared, state, where=f"{cls.__name__}.from_unet")
            controlnet._mark_filled()
        return controlnet

    # Checking what users give

    def check_condition(self, image: Tensor, sample: Tensor, batches: tuple[int, ...]) -> None:
        """Raises ValueError for an image that cannot be added to a sample."""
        (batch, _, height, width), channels = sample.shape, self.config.conditioning_channels
        factor = 2 ** (len(self.config.conditioning_embedding_out_channels) - 1)
        fits = image.ndim == 4 and image.shape[0] in batches and image.shape[1] == channels
        if not fits or (-(-image.shape[2] // factor), -(-image.shape[3] // factor)) != (height, width):
            expected = (batch, channels, height * factor, width * factor)
            raise ValueError(f"controlnet_cond has the shape {image.shape}; expected {expected} for a sample of the shape {sample.shape}.")

    # Parts of `construct`

    def embed(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, class_labels: Tensor | None, timestep_cond: Tensor | None,
        added_cond_kwargs: dict[str, Tensor] | None,
    ) -> Tensor:  # fmt: skip
        """The embedding of all but the image: (batch, channels)."""
        dtype = sample.dtype
        emb = self.embed_time(timestep, sample.shape[0], dtype, timestep_cond, class_labels)
        # As in PyTorch diffusers, the weights of "text_image" are there and have no effect.
        if self.add_embedding is None or self.addition_embed_type == "text_image":
            return emb
        return emb + self.embed_addition(encoder_hidden_states, added_cond_kwargs, dtype)

    def run_encoder(
        self, sample: Tensor, emb: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None,
        cross_attention_kwargs: dict[str, Any] | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Every state of the way down and the middle's, after its convolution."""
        attention_mask = additive_mask(attention_mask, sample.dtype)
        states = (sample,)
        for block in self.down_blocks:
            sample, block_states = block(sample, emb, encoder_hidden_states, attention_mask, cross_attention_kwargs)
            states += block_states
        sample = self.mid_block(sample, emb, encoder_hidden_states, attention_mask, cross_attention_kwargs)
        residuals = ()
        for i, convolution in enumerate(self.controlnet_down_blocks):
            residuals += (convolution(states[i]),)
        return residuals + (self.controlnet_mid_block(sample),)

    def scale(self, residuals: tuple[Tensor, ...], scale: Tensor | float, guess_mode: bool) -> tuple[tuple[Tensor, ...], Tensor]:
        """The output: residuals times `scale` (in guess mode, more the deeper they are), and pooled if the config says so."""
        scaled = ()
        for i, residual in enumerate(residuals):
            residual = residual * (scale * self.guess_scales[i] if guess_mode and not self.global_pool_conditions else scale)
            if self.global_pool_conditions:
                residual = residual.mean((2, 3), keep_dims=True)
            scaled += (residual,)
        return scaled[:-1], scaled[-1]


class ControlNetModel(ControlNetBase):
    """The way down and the middle of a `UNet2DConditionModel`, steered by an image (arXiv:2302.05543).

    The arguments are the UNet's, but for these:

    Args:
        conditioning_channels: of the image.
        down_block_types: stages that keep one state for each layer and one for the downsampler.
        mid_block_type: "UNetMidBlock2DCrossAttn" or "UNetMidBlock2D".
        num_attention_heads: of the transformers; by default `attention_head_dim`, which is otherwise the size of the heads.
        encoder_hid_dim, encoder_hid_dim_type: None, "text_proj" or "text_image_proj", whose weights are there for checkpoints and have no
            effect, as in PyTorch diffusers: the context has `cross_attention_dim` channels.
        class_embed_type: not "simple_projection", which PyTorch diffusers ignores here.
        addition_embed_type: None, "text", "text_time", or "text_image", which has no effect either.
        controlnet_conditioning_channel_order: "rgb", or "bgr" to reverse the image's channels first.
        conditioning_embedding_out_channels: see `ControlNetConditioningEmbedding`.
        global_pool_conditions: the output is averaged over height and width, and guess mode does not scale it.

    Raises:
        ConfigError: an unknown name, tuples of different lengths, or a missing argument that another one needs.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        conditioning_channels: int = 3,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2DCrossAttn",
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
        conditioning_embedding_out_channels: tuple[int, ...] | None = (16, 32, 96, 256),
        global_pool_conditions: bool = False,
        addition_embed_type_num_heads: int = 64,
    ):
        super().__init__()
        self.make_encoder(mid_block_type)
        self.reverses_channels = controlnet_conditioning_channel_order == "bgr"

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        controlnet_conditioning_channel_order: str = "rgb",
        conditioning_embedding_out_channels: tuple[int, ...] | None = (16, 32, 96, 256),
        load_weights_from_unet: bool = True,
        conditioning_channels: int = 3,
    ) -> "ControlNetModel":
        """A ControlNet to train: with the UNet's config and, unless told otherwise, a copy of its weights; it changes nothing yet.

        Args:
            controlnet_conditioning_channel_order, conditioning_embedding_out_channels, conditioning_channels: see the class.

        Raises:
            ConfigError: the UNet has a kind of embedding that ControlNets have not.
            WeightsMismatchError: it has weights that the ControlNet has not, as for `time_cond_proj_dim`.
        """
        return cls.copy_of(
            unet,
            load_weights_from_unet,
            controlnet_conditioning_channel_order=controlnet_conditioning_channel_order,
            conditioning_embedding_out_channels=conditioning_embedding_out_channels,
            conditioning_channels=conditioning_channels,
        )

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: float = 1.0,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[tuple[Tensor, ...], Tensor]:
        """
        Args:
            sample, timestep, encoder_hidden_states, class_labels, timestep_cond, added_cond_kwargs, cross_attention_kwargs: as for a UNet.
            controlnet_cond: the image, (batch or 1, conditioning_channels, 8 height, 8 width) for the default embedding.
            conditioning_scale: factor on the output.
            attention_mask: (batch, keys), 1 to keep and 0 to leave out, for self-attention.
            guess_mode: the output is the weaker the nearer it is to the UNet's input, for prompts that say nothing.
            return_dict: return `ControlNetOutput`, else a tuple.

        Raises:
            ValueError: an input that the configuration needs is missing, or one has another shape than the model takes.
        """
        dtype, batch = self.dtype, sample.shape[0]
        self.check_shapes(sample, encoder_hidden_states)
        self.check_condition(controlnet_cond, sample, (1, batch))
        timestep, class_labels, added = self.condition_inputs(batch, timestep, class_labels, added_cond_kwargs)
        output = self._run(
            "construct",
            cast(sample, dtype),
            timestep,
            cast(encoder_hidden_states, dtype),
            cast(controlnet_cond, dtype),
            tensor(conditioning_scale, dtype),
            class_labels,
            cast(timestep_cond, dtype),
            attention_mask,
            added,
            mutable(cast(cross_attention_kwargs, dtype)),
            bool(guess_mode),
        )
        return ControlNetOutput(*output) if return_dict else output

    def construct(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: Tensor | float = 1.0,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = False,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        emb = self.embed(sample, timestep, encoder_hidden_states, class_labels, timestep_cond, added_cond_kwargs)
        if self.reverses_channels:
            controlnet_cond = F.cat(F.split(controlnet_cond, 1, 1)[::-1], 1)
        sample = self.conv_in(sample) + self.controlnet_cond_embedding(controlnet_cond)
        residuals = self.run_encoder(sample, emb, encoder_hidden_states, attention_mask, cross_attention_kwargs)
        return self.scale(residuals, conditioning_scale, guess_mode)
