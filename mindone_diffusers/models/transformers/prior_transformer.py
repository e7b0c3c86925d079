"""`PriorTransformer`: the prior of unCLIP, which predicts the CLIP embedding of an image from that of its caption (arXiv:2204.06125)."""

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...core.errors import ConfigError
from ...core.outputs import BaseOutput
from ...nn import functional as F
from ..attention import AttentionMixin, transformer_blocks
from ..embeddings import TimestepEmbedding, Timesteps
from ..inputs import cast, timesteps
from ..modeling_utils import ModelMixin
from .transformer_2d import additive_mask

_TYPES = {"norm_in_type": "layer", "embedding_proj_norm_type": "layer", "encoder_hid_proj_type": "linear", "added_emb_type": "prd"}
"""What these entries of the config may be, besides None."""


@dataclass
class PriorTransformerOutput(BaseOutput):
    """
    Args:
        predicted_image_embedding: (batch, clip_embed_dim); without a "prd" token (batch, tokens, clip_embed_dim).
    """

    predicted_image_embedding: Tensor


class PriorTransformer(ModelMixin, AttentionMixin, ConfigMixin):
    """A transformer over the tokens of a caption, its embedding, the timestep, the noisy image embedding and a last one that is read out.

    Args:
        num_attention_heads, attention_head_dim: number and size of the heads; their product is the blocks' width.
        num_layers: number of blocks.
        embedding_dim: size of the noisy embedding, and of the caption's tokens.
        num_embeddings, additional_embeddings: tokens of the caption, and those beside them; their sum is the number of learned positions.
        dropout: in the blocks, when training.
        time_embed_act_fn: activation in the timestep's embedding.
        norm_in_type: "layer" to normalise before the blocks.
        embedding_proj_norm_type: "layer" to normalise the caption's embedding.
        encoder_hid_proj_type: "linear" to map the caption's tokens to the blocks' width, which they have otherwise.
        added_emb_type: "prd" for the last token; None to read out the noisy embeddings' own (Shap-E, arXiv:2305.02463).
        time_embed_dim: width within the timestep's embedding, by default the blocks'.
        embedding_proj_dim, clip_embed_dim: size of the caption's embedding, and of the output; by default `embedding_dim`.

    Raises:
        ConfigError: another type.
    """

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 32,
        attention_head_dim: int = 64,
        num_layers: int = 20,
        embedding_dim: int = 768,
        num_embeddings: int = 77,
        additional_embeddings: int = 4,
        dropout: float = 0.0,
        time_embed_act_fn: str = "silu",
        norm_in_type: str | None = None,
        embedding_proj_norm_type: str | None = None,
        encoder_hid_proj_type: str | None = "linear",
        added_emb_type: str | None = "prd",
        time_embed_dim: int | None = None,
        embedding_proj_dim: int | None = None,
        clip_embed_dim: int | None = None,
    ):
        super().__init__()
        for name, kind in _TYPES.items():
            if self.config[name] not in (None, kind):
                raise ConfigError(f"Unknown {name} {self.config[name]!r}: expected None or {kind!r}.")
        width, positions = num_attention_heads * attention_head_dim, num_embeddings + additional_embeddings
        embedding_proj_dim, clip_embed_dim = embedding_proj_dim or embedding_dim, clip_embed_dim or embedding_dim
        self.num_positions, self.additional_embeddings = positions, additional_embeddings

        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, time_embed_dim or width, time_embed_act_fn, out_dim=width)
        self.proj_in = nn.Linear(embedding_dim, width)
        self.embedding_proj_norm = None if embedding_proj_norm_type is None else nn.LayerNorm(embedding_proj_dim)
        self.embedding_proj = nn.Linear(embedding_proj_dim, width)
        self.encoder_hidden_states_proj = None if encoder_hid_proj_type is None else nn.Linear(embedding_dim, width)
        self.positional_embedding = nn.Parameter((1, positions, width))
        self.prd_embedding = None if added_emb_type is None else nn.Parameter((1, 1, width))
        self.transformer_blocks = transformer_blocks(self.config, activation_fn="gelu", attention_bias=True)
        self.norm_in = None if norm_in_type is None else nn.LayerNorm(width)
        self.norm_out = nn.LayerNorm(width)
        self.proj_to_clip_embeddings = nn.Linear(width, clip_embed_dim)
        self.causal_attention_mask = Tensor(np.triu(np.full((1, positions, positions), -10000.0, np.float32), 1))
        self.clip_mean = nn.Parameter((1, clip_embed_dim))
        self.clip_std = nn.Parameter((1, clip_embed_dim))

    def __call__(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float | int,
        proj_embedding: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> PriorTransformerOutput | tuple[Tensor]:
        """
        Args:
            hidden_states: noisy embeddings, (batch, embedding_dim) or (batch, tokens, embedding_dim). Floating inputs are cast to the
                model's dtype.
            timestep: a number, or a tensor of one or of `batch`.
            proj_embedding: the caption's embedding, (batch, embedding_proj_dim) or (batch, tokens, embedding_proj_dim).
            encoder_hidden_states: the caption's tokens, (batch, num_embeddings, embedding_dim).
            attention_mask: (batch, num_embeddings), 1 for the caption's tokens and 0 for padding. With it attention is causal as well.
            return_dict: return `PriorTransformerOutput`, else a tuple.

        Raises:
            ValueError: no `encoder_hidden_states` for their projection, a mask of another shape, or as many tokens as there are no
                positions for.
        """
        if self.encoder_hidden_states_proj is not None and encoder_hidden_states is None:
            raise ValueError("encoder_hidden_states is None: a model with encoder_hid_proj_type='linear' needs the caption's tokens.")
        batch, noisy = hidden_states.shape[0], _tokens(hidden_states)
        before = _tokens(proj_embedding) + 1 + (0 if encoder_hidden_states is None else encoder_hidden_states.shape[1])
        tokens = before + noisy + (self.prd_embedding is not None)
        if self.num_positions not in (tokens, noisy):
            raise ValueError(
                f"The inputs make {tokens} tokens, {noisy} of them noisy embeddings; the model has positions for {self.num_positions} in "
                "all: pad the caption to num_embeddings."
            )
        masked = (batch, tokens - self.additional_embeddings)
        if attention_mask is not None and (attention_mask.shape != masked or tokens != self.num_positions):
            raise ValueError(f"attention_mask has the shape {attention_mask.shape}; expected one entry for each caption token: {masked}.")
        dtype = self.dtype
        output = self._run(
            "construct", cast(hidden_states, dtype), timesteps(timestep, batch), cast(proj_embedding, dtype),
            cast(encoder_hidden_states, dtype), attention_mask,
        )  # fmt: skip
        return PriorTransformerOutput(predicted_image_embedding=output[0]) if return_dict else output

    def construct(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        proj_embedding: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        batch, dtype = hidden_states.shape[0], hidden_states.dtype
        time = self.time_embedding(self.time_proj(timestep).astype(dtype)).expand_dims(1)
        if self.embedding_proj_norm is not None:
            proj_embedding = self.embedding_proj_norm(proj_embedding)
        proj_embedding, hidden_states = self.embedding_proj(proj_embedding), self.proj_in(hidden_states)
        if proj_embedding.ndim == 2:
            proj_embedding = proj_embedding.expand_dims(1)
        if hidden_states.ndim == 2:
            hidden_states = hidden_states.expand_dims(1)

        before = (proj_embedding, time)
        if encoder_hidden_states is not None:
            if self.encoder_hidden_states_proj is not None:
                encoder_hidden_states = self.encoder_hidden_states_proj(encoder_hidden_states)
            before = (encoder_hidden_states, proj_embedding, time)
        before = F.cat(before, 1)
        tokens = (before, hidden_states)
        if self.prd_embedding is not None:
            tokens = (before, hidden_states, self.prd_embedding.broadcast_to((batch, 1, hidden_states.shape[2])))
        first, tokens = before.shape[1], F.cat(tokens, 1)
        positions = self.positional_embedding
        if self.num_positions < tokens.shape[1]:  # those of the noisy embeddings only
            positions = F.pad(positions, (0, 0, first, tokens.shape[1] - first - self.num_positions))
        tokens = tokens + positions

        mask = additive_mask(attention_mask, dtype)
        if mask is not None:
            mask = F.pad(mask, (0, self.additional_embeddings)) + self.causal_attention_mask.astype(dtype)
        if self.norm_in is not None:
            tokens = self.norm_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, mask)
        tokens = self.norm_out(tokens)
        return (self.proj_to_clip_embeddings(tokens[:, first:] if self.prd_embedding is None else tokens[:, -1]),)

    def post_process_latents(self, prior_latents: Tensor) -> Tensor:
        """Denoised embeddings in CLIP's units: `clip_mean` and `clip_std` are those of the embeddings it was trained on."""
        return self._run("_post_process_latents", prior_latents)[0]

    def _post_process_latents(self, prior_latents: Tensor) -> tuple[Tensor]:
        return (prior_latents * self.clip_std + self.clip_mean,)


def _tokens(embeddings: Tensor) -> int:
    return 1 if embeddings.ndim == 2 else embeddings.shape[1]
