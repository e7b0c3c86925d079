"""`DiTTransformer2DModel`: a transformer over an image's patches, conditioned on a timestep and a class (DiT, arXiv:2212.09748)."""

from typing import Any, ClassVar

from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...core.errors import UnsupportedError
from ...nn import functional as F
from ..attention import AttentionMixin, transformer_blocks
from ..cache_utils import BlockCacheMixin
from ..embeddings import PatchEmbed
from ..inputs import cast, mutable, timesteps
from .transformer_2d import Transformer2DModelOutput


class DiTTransformer2DModel(BlockCacheMixin, AttentionMixin, ConfigMixin):
    """Patches, transformer blocks whose norms the timestep and the class scale, shift and gate (adaLN-Zero), patches again.

    Args:
        num_attention_heads, attention_head_dim: number and size of the heads; their product is the blocks' width, a multiple of 4.
        in_channels, out_channels: of the sample, and of the output (by default the same; twice as many where variances are predicted too).
        num_layers: number of blocks.
        dropout: in the blocks, when training.
        norm_num_groups: not used here, nor by PyTorch diffusers.
        attention_bias, activation_fn, upcast_attention, norm_elementwise_affine, norm_eps: see `BasicTransformerBlock`.
        sample_size: height and width of the samples it was trained on, to which the patches' positions are scaled.
        patch_size: height and width of a patch.
        num_embeds_ada_norm: number of classes; one more stands for "no class".
        norm_type: "ada_norm_zero".

    Raises:
        UnsupportedError: another `norm_type`.
        ConfigError: no `num_embeds_ada_norm`, or a width that is no multiple of 4.
    """

    _repeated_blocks: ClassVar[tuple[str, ...]] = ("BasicTransformerBlock",)

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int | None = None,
        num_layers: int = 28,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        attention_bias: bool = True,
        sample_size: int = 32,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int | None = 1000,
        upcast_attention: bool = False,
        norm_type: str = "ada_norm_zero",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        if norm_type != "ada_norm_zero":
            raise UnsupportedError(f"norm_type is {norm_type!r}; DiTTransformer2DModel is for 'ada_norm_zero' only.")
        width = num_attention_heads * attention_head_dim
        self.out_channels = in_channels if out_channels is None else out_channels
        self.patch_size, self.num_blocks = patch_size, num_layers
        self.pos_embed = PatchEmbed(sample_size, patch_size, in_channels, width)
        self.transformer_blocks = transformer_blocks(self.config)
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, patch_size * patch_size * self.out_channels)

    def __call__(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float | int | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """
        Args:
            hidden_states: (batch, in_channels, side, side), the side a multiple of `patch_size`. Cast to the model's dtype.
            timestep: a number, or a tensor of one or of `batch`.
            class_labels: (batch,) integers below `num_embeds_ada_norm`, or that number for "no class".
            cross_attention_kwargs: for the attention processors.
            return_dict: return `Transformer2DModelOutput`, else a tuple.

        Raises:
            ValueError: no timestep or class labels, or samples of another shape.
        """
        if timestep is None or class_labels is None:
            raise ValueError("DiTTransformer2DModel needs a timestep and class_labels.")
        hidden_states = cast(hidden_states, self.dtype)
        self._check_input("hidden_states", hidden_states, self.config.in_channels, self.patch_size, self.patch_size)
        if hidden_states.shape[2] != hidden_states.shape[3]:
            raise ValueError(f"hidden_states are {hidden_states.shape[2]} x {hidden_states.shape[3]}; expected squares.")
        output = self._run(
            "construct", hidden_states, timesteps(timestep, hidden_states.shape[0]), class_labels,
            mutable(cast(cross_attention_kwargs, self.dtype)),
        )  # fmt: skip
        return Transformer2DModelOutput(sample=output[0]) if return_dict else output

    def construct(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        class_labels: Tensor,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        states, conditions = self.before_blocks(hidden_states, timestep, class_labels, cross_attention_kwargs)
        return (self.after_blocks(self.run_blocks(states, conditions, 0, self.num_blocks), conditions),)

    def before_blocks(
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor, cross_attention_kwargs: dict[str, Any] | None
    ) -> tuple[tuple[Tensor], tuple]:
        """See `BlockCacheMixin`: the states are the tokens alone."""
        # Here and not where it is needed: MindSpore copies weights that are read again after a view.
        embedding = self.transformer_blocks[0].norm1.emb(timestep, class_labels, hidden_states.dtype)
        return (self.pos_embed(hidden_states),), (timestep, class_labels, cross_attention_kwargs, embedding)

    def run_blocks(self, states: tuple[Tensor], conditions: tuple, start: int, stop: int) -> tuple[Tensor]:
        tokens = states[0]
        timestep, class_labels, kwargs, _ = conditions
        for i in range(start, stop):
            tokens = self.transformer_blocks[i](
                tokens, timestep=timestep, cross_attention_kwargs=kwargs, class_labels=class_labels
            )  # fmt: skip
        return (tokens,)

    def after_blocks(self, states: tuple[Tensor], conditions: tuple) -> Tensor:
        tokens = states[0]
        shift, scale = F.chunk(self.proj_out_1(F.silu(conditions[3])).expand_dims(1), 2, 2)
        tokens = self.norm_out(tokens) * (1 + scale) + shift
        patches = self.proj_out_2(tokens)
        side, size, channels = int(patches.shape[1] ** 0.5), self.patch_size, self.out_channels
        patches = patches.reshape((-1, side, side, size, size, channels)).transpose((0, 5, 1, 3, 2, 4))
        return patches.reshape((-1, channels, side * size, side * size))

    def modulated_input(self, states: tuple[Tensor], conditions: tuple) -> Tensor:
        return self.transformer_blocks[0].norm1(states[0], conditions[0], conditions[1])[0]
