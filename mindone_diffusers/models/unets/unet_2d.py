"""`UNet2DModel`: the denoiser of unconditional models of images (DDPM, arXiv:2006.11239; NCSN++, arXiv:2011.13456)."""

from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...core.errors import ConfigError
from ...core.outputs import BaseOutput
from ..embeddings import GaussianFourierProjection, TimestepEmbedding, Timesteps
from ..inputs import timesteps
from ..modeling_utils import ModelMixin
from .unet_2d_blocks import OLD_ATTENTION_NAMES, SkipDownBlock2D, SkipUpBlock2D, UNetMidBlock2D, get_down_blocks, get_up_block, per_stage


@dataclass
class UNet2DOutput(BaseOutput):
    """
    Args:
        sample: (batch, out_channels, height, width): the predicted noise, or what the model was trained to predict.
    """

    sample: Tensor


class UNet2DModel(ModelMixin, ConfigMixin):
    """A UNet (arXiv:1505.04597) over (batch, in_channels, height, width), conditioned on a timestep and maybe on a class.

    Arguments that are tuples hold one entry for each stage of the way down; the way up has the same in reverse.

    Args:
        sample_size: height and width of the samples it was trained on, which pipelines draw; not used here.
        in_channels, out_channels: of the sample, and of the output.
        center_input_sample: map samples in 0..1 to -1..1 first.
        time_embedding_type: "positional"; "fourier", for noise levels (above 0), by which the output is divided; or "learned", a table of
            `num_train_timesteps` rows.
        time_embedding_dim: size of the time embedding, by default 4 times the first channels.
        freq_shift, flip_sin_to_cos: of "positional", see `Timesteps`.
        down_block_types, up_block_types: names of stages without context, see `unet_2d_blocks`.
        mid_block_type: "UNetMidBlock2D" or None.
        block_out_channels: channels of the stages.
        layers_per_block: residual blocks in each stage; those of the way up have one more.
        mid_block_scale_factor: `output_scale_factor` of the middle stage.
        downsample_padding: of the convolutions that halve the resolution; see `Downsample2D`.
        downsample_type, upsample_type: "conv" or "resnet", of the stages with attention.
        dropout, act_fn, norm_num_groups, norm_eps: of the stages; None for `norm_num_groups` is for stages that choose themselves.
        attention_head_dim: size of the attention's heads; None for one head.
        attn_norm_num_groups: groups of the middle attention's normalisation; by default `norm_num_groups`, and no normalisation if
            `resnet_time_scale_shift` is not "default".
        resnet_time_scale_shift: see `ResnetBlock2D`.
        add_attention: whether the middle stage has attention.
        class_embed_type: None (with `num_class_embeds`: a table), "timestep" or "identity". The embedding is added to the timestep's.

    Raises:
        ConfigError: an unknown name (PyTorch diffusers ignores those of `class_embed_type` and `mid_block_type`), tuples of different
            lengths, or "learned" without `num_train_timesteps`.
    """

    _checkpoint_renames = OLD_ATTENTION_NAMES

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        center_input_sample: bool = False,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",
        up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels: tuple[int, ...] = (224, 448, 672, 896),
        layers_per_block: int = 2,
        mid_block_scale_factor: float = 1,
        downsample_padding: int = 1,
        downsample_type: str | None = "conv",
        upsample_type: str | None = "conv",
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,
        norm_num_groups: int | None = 32,
        attn_norm_num_groups: int | None = None,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "default",
        add_attention: bool = True,
        class_embed_type: str | None = None,
        num_class_embeds: int | None = None,
        num_train_timesteps: int | None = None,
    ):
        super().__init__()
        stages = len(down_block_types)
        _, channels, head_dims = per_stage(
            down_block_types, up_block_types=up_block_types, block_out_channels=block_out_channels, attention_head_dim=attention_head_dim
        )
        if mid_block_type not in ("UNetMidBlock2D", None):
            raise ConfigError(f"Unknown mid_block_type {mid_block_type!r}: expected 'UNetMidBlock2D' or None.")
        for name, kind in (("downsample_type", downsample_type), ("upsample_type", upsample_type)):
            if kind not in ("conv", "resnet", None):
                raise ConfigError(f"Unknown {name} {kind!r}: expected 'conv', which None is too, or 'resnet'.")

        self.center_input_sample = center_input_sample
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.time_embedding_type = time_embedding_type
        time_input_dim, time_embed_dim = channels[0], time_embedding_dim or channels[0] * 4
        if time_embedding_type == "fourier":
            time_input_dim = 2 * channels[0]
            self.time_proj = GaussianFourierProjection(channels[0], scale=16)
        elif time_embedding_type == "positional":
            self.time_proj = Timesteps(channels[0], flip_sin_to_cos, freq_shift)
        elif time_embedding_type == "learned":
            if num_train_timesteps is None:
                raise ConfigError("time_embedding_type='learned' needs num_train_timesteps, the number of rows of its table.")
            self.time_proj = nn.Embedding(num_train_timesteps, channels[0])
        else:
            raise ConfigError(f"Unknown time_embedding_type {time_embedding_type!r}: expected 'positional', 'fourier' or 'learned'.")
        self.time_embedding = TimestepEmbedding(time_input_dim, time_embed_dim)
        self.class_embed_type = class_embed_type
        self.class_embedding = None
        if class_embed_type == "timestep":
            self.class_embedding = TimestepEmbedding(time_input_dim, time_embed_dim)
        elif class_embed_type == "identity":
            self.class_embedding = nn.Identity()
        elif class_embed_type is not None:
            raise ConfigError(f"Unknown class_embed_type {class_embed_type!r}: expected None, 'timestep' or 'identity'.")
        elif num_class_embeds is not None:
            self.class_embedding = nn.Embedding(num_class_embeds, time_embed_dim)

        common = {
            "temb_channels": time_embed_dim, "dropout": dropout, "resnet_eps": norm_eps, "resnet_act_fn": act_fn,
            "resnet_groups": norm_num_groups, "resnet_time_scale_shift": resnet_time_scale_shift,
        }  # fmt: skip
        self.down_blocks = get_down_blocks(
            down_block_types,
            channels,
            {"attention_head_dim": head_dims},
            num_layers=layers_per_block,
            downsample_padding=downsample_padding,
            downsample_type=downsample_type,
            **common,
        )
        up_blocks = []
        for i, name in enumerate(up_block_types):
            level = stages - 1 - i
            up_block = get_up_block(
                name,
                num_layers=layers_per_block + 1,
                in_channels=channels[max(level - 1, 0)],
                out_channels=channels[level],
                prev_output_channel=channels[min(level + 1, stages - 1)],
                add_upsample=level > 0,
                resolution_idx=i,
                attention_head_dim=attention_head_dim or channels[level],
                upsample_type=upsample_type,
                **common,
            )
            up_blocks.append(up_block)
        self.up_blocks = nn.ModuleList(up_blocks)
        self.down_skips = tuple(isinstance(block, SkipDownBlock2D) for block in self.down_blocks)
        self.up_skips = tuple(isinstance(block, SkipUpBlock2D) for block in up_blocks)
        self.mid_block = None
        if mid_block_type is not None:
            self.mid_block = UNetMidBlock2D(
                in_channels=channels[-1],
                output_scale_factor=mid_block_scale_factor,
                attention_head_dim=attention_head_dim or channels[-1],
                attn_groups=attn_norm_num_groups,
                add_attention=add_attention,
                **common,
            )
        self.conv_norm_out = nn.GroupNorm(norm_num_groups or min(channels[0] // 4, 32), channels[0], norm_eps)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(channels[0], out_channels, 3, padding=1)

    def __call__(
        self, sample: Tensor, timestep: Tensor | float | int, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """
        Args:
            sample: (batch, in_channels, height, width), both sizes multiples of 2 ** (stages - 1). Cast to the model's dtype.
            timestep: a number (whose fraction counts; PyTorch diffusers drops it), or a tensor of one or of `batch`.
            class_labels: (batch,) integers for a table, (batch,) numbers for "timestep", (batch, channels) for "identity".
            return_dict: return `UNet2DOutput`, else a tuple.

        Raises:
            ValueError: a sample of another shape, or class labels for a model without classes, or none for one with.
        """
        in_channels, multiple = self.config.in_channels, 2 ** (len(self.down_blocks) - 1)
        if sample.ndim != 4 or sample.shape[1] != in_channels or sample.shape[2] % multiple or sample.shape[3] % multiple:
            raise ValueError(
                f"sample has the shape {sample.shape}; expected (batch, {in_channels}, height, width), both sizes multiples of {multiple}."
            )
        if class_labels is None and self.class_embedding is not None:
            raise ValueError("This model has a class embedding (class_embed_type or num_class_embeds): give class_labels.")
        if class_labels is not None and self.class_embedding is None:
            raise ValueError("This model has no class embedding (class_embed_type or num_class_embeds): leave class_labels out.")
        dtype = self.dtype
        if self.class_embed_type == "identity":
            class_labels = class_labels.astype(dtype)
        output = self._run("construct", sample.astype(dtype), timesteps(timestep, sample.shape[0]), class_labels)
        return UNet2DOutput(sample=output[0]) if return_dict else output

    def construct(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = False) -> tuple[Tensor]:
        if self.center_input_sample:
            sample = 2 * sample - 1.0
        timestep = timestep.astype(ms.float32).broadcast_to((sample.shape[0],))
        emb = self.time_embedding(self.project(timestep).astype(sample.dtype))
        if self.class_embedding is not None:
            if self.class_embed_type == "timestep":
                class_labels = self.project(class_labels).astype(sample.dtype)
            emb = emb + self.class_embedding(class_labels).astype(sample.dtype)

        skip_sample = sample
        sample = self.conv_in(sample)
        states = (sample,)
        for i, block in enumerate(self.down_blocks):
            if self.down_skips[i]:
                sample, block_states, skip_sample = block(sample, emb, skip_sample)
            else:
                sample, block_states = block(sample, emb)
            states += block_states
        if self.mid_block is not None:
            sample = self.mid_block(sample, emb)
        skip_sample = None
        for i, block in enumerate(self.up_blocks):
            taken = len(block.resnets)
            block_states, states = states[-taken:], states[:-taken]
            if self.up_skips[i]:
                sample, skip_sample = block(sample, block_states, emb, skip_sample)
            else:
                sample = block(sample, block_states, emb)
        sample = self.conv_out(self.conv_act(self.conv_norm_out(sample)))
        if skip_sample is not None:
            sample = sample + skip_sample
        if self.time_embedding_type == "fourier":
            sample = (sample.astype(ms.float32) / timestep.reshape((-1, 1, 1, 1))).astype(sample.dtype)
        return (sample,)

    def project(self, timestep: Tensor) -> Tensor:
        """Timesteps (batch,) as vectors that the time embedding takes."""
        return self.time_proj(timestep.astype(ms.int32 if self.time_embedding_type == "learned" else ms.float32))
