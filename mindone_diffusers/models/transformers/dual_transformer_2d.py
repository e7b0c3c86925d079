"""`DualTransformer2DModel`: two transformers, one for each of two contexts (Versatile Diffusion, arXiv:2211.08332)."""

from typing import Any

from mindspore import Tensor

from ... import nn
from .transformer_2d import Transformer2DModel


class DualTransformer2DModel(nn.Module):
    """The mean of two `Transformer2DModel`s, each with its part of the context. Arguments as there.

    Attributes:
        mix_ratio: weight of the first context's transformer.
        condition_lengths: tokens of the first and the second context.
        transformer_index_for_condition: which transformer takes the first, and the second, context.
    """

    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 88,
        in_channels: int | None = None,
        num_layers: int = 1,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        cross_attention_dim: int | None = None,
        attention_bias: bool = False,
        sample_size: int | None = None,
        num_vector_embeds: int | None = None,
        activation_fn: str = "geglu",
        num_embeds_ada_norm: int | None = None,
    ):
        super().__init__()
        transformers = [
            Transformer2DModel(
                num_attention_heads,
                attention_head_dim,
                in_channels,
                num_layers=num_layers,
                dropout=dropout,
                norm_num_groups=norm_num_groups,
                cross_attention_dim=cross_attention_dim,
                attention_bias=attention_bias,
                sample_size=sample_size,
                num_vector_embeds=num_vector_embeds,
                activation_fn=activation_fn,
                num_embeds_ada_norm=num_embeds_ada_norm,
            )
            for _ in range(2)
        ]
        self.transformers = nn.ModuleList(transformers)
        self.mix_ratio = 0.5
        self.condition_lengths = [77, 257]
        self.transformer_index_for_condition = [1, 0]

    def construct(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor]:
        """`encoder_hidden_states` holds the tokens of both contexts, one after the other."""
        first, second = self.condition_lengths
        contexts = (encoder_hidden_states[:, :first], encoder_hidden_states[:, first : first + second])
        changes = ()
        for i in range(2):
            transformer = self.transformers[self.transformer_index_for_condition[i]]
            output = transformer(
                hidden_states, contexts[i], timestep=timestep, cross_attention_kwargs=cross_attention_kwargs, return_dict=False
            )
            changes += (output[0] - hidden_states,)
        return (changes[0] * self.mix_ratio + changes[1] * (1 - self.mix_ratio) + hidden_states,)
