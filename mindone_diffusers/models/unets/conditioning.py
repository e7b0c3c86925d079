"""`ConditionedModel`: what `UNet2DConditionModel` and its ControlNets make of a timestep, a class, a context and what comes with it."""

from typing import ClassVar

import mindspore as ms
from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin
from ...core.errors import ConfigError
from ...nn import functional as F
from ..attention import AttentionMixin
from ..embeddings import (
    ImageHintTimeEmbedding,
    ImageProjection,
    ImageTimeEmbedding,
    TextImageProjection,
    TextImageTimeEmbedding,
    TextTimeEmbedding,
    TimestepEmbedding,
    Timesteps,
)
from ..inputs import cast, mutable, timesteps
from ..modeling_utils import ModelMixin

Needs = dict[str, tuple[str, ...]]


class ConditionedModel(ModelMixin, AttentionMixin, ConfigMixin):
    """Base of models whose config says what is embedded besides the timestep: see `UNet2DConditionModel` for its entries.

    Class attributes:
        class_embed_types, addition_embed_types, encoder_hid_dim_types: what the entries of these names may be, besides None.
        needed_by_addition, needed_by_context: what `added_cond_kwargs` must hold, by `addition_embed_type` and by `encoder_hid_dim_type`.
        class_embeddings_concat: the class embedding is joined to the timestep's, not added.
    """

    _repeated_blocks = ("BasicTransformerBlock", "ResnetBlock2D")
    class_embed_types: ClassVar[tuple[str, ...]] = ("timestep", "identity", "projection", "simple_projection")
    addition_embed_types: ClassVar[tuple[str, ...]] = ("text", "text_image", "text_time", "image", "image_hint")
    encoder_hid_dim_types: ClassVar[tuple[str, ...]] = ("text_proj", "text_image_proj", "image_proj")
    needed_by_addition: ClassVar[Needs] = {
        "text_image": ("image_embeds",),
        "text_time": ("text_embeds", "time_ids"),
        "image": ("image_embeds",),
        "image_hint": ("image_embeds", "hint"),
    }
    needed_by_context: ClassVar[Needs] = {
        "text_image_proj": ("image_embeds",),
        "image_proj": ("image_embeds",),
        "ip_image_proj": ("image_embeds",),
    }
    class_embeddings_concat: bool = False

    def make_conditions(self, time_input_dim: int, time_embed_dim: int, class_act_fn: str = "silu") -> None:
        """Create `encoder_hid_proj`, `class_embedding`, `add_embedding` and `add_time_proj` as the config says.

        Args:
            time_input_dim, time_embed_dim: sizes of the timestep's sinusoids and of its embedding.
            class_act_fn: activation in the embedding of a class that is a number.
        """
        config = self.config
        if config.encoder_hid_dim_type is None and config.encoder_hid_dim is not None and "text_proj" in self.encoder_hid_dim_types:
            self.register_to_config(encoder_hid_dim_type="text_proj")
            config = self.config
        for name in ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type"):
            kinds = getattr(self, f"{name}s")
            if config[name] is not None and config[name] not in kinds:
                raise ConfigError(f"Unknown {name} {config[name]!r}: expected {', '.join(map(repr, (None, *kinds)))}.")
        self.encoder_hid_dim_type = config.encoder_hid_dim_type
        self.encoder_hid_proj = _context_projection(config)
        self.class_embed_type = config.class_embed_type
        self.class_embedding = _class_embedding(config, time_input_dim, time_embed_dim, class_act_fn)
        self.addition_embed_type = config.addition_embed_type
        self.add_embedding = _added_embedding(config, time_embed_dim)
        if self.addition_embed_type == "text_time":
            self.add_time_proj = Timesteps(config.addition_time_embed_dim, config.flip_sin_to_cos, config.freq_shift)

    # Checking and normalising what users give

    def check_shapes(self, sample: Tensor, encoder_hidden_states: Tensor | None) -> None:
        """Raises ValueError for a sample or a context that the model does not take."""
        channels = self.config.in_channels - (4 if self.addition_embed_type == "image_hint" else 0)
        if sample.ndim != 4 or sample.shape[1] != channels:
            raise ValueError(f"sample has the shape {sample.shape}; expected (batch, {channels}, height, width).")
        if encoder_hidden_states is None or self.encoder_hid_dim_type is not None or not isinstance(self.config.cross_attention_dim, int):
            return
        if encoder_hidden_states.ndim != 3 or encoder_hidden_states.shape[2] != self.config.cross_attention_dim:
            raise ValueError(
                f"encoder_hidden_states has the shape {encoder_hidden_states.shape}; expected (batch, tokens, "
                f"{self.config.cross_attention_dim}): is the text encoder this model's?"
            )

    def condition_inputs(
        self, batch: int, timestep: Tensor | float | int, class_labels: Tensor | None, added_cond_kwargs: dict[str, Tensor] | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor] | None]:
        """Timestep, class labels and added conditions as `construct` takes them.

        Raises:
            ValueError: one that the config asks for is missing.
        """
        if self.class_embedding is not None and class_labels is None:
            raise ValueError("This model has a class embedding (class_embed_type or num_class_embeds): give class_labels.")
        added = {name: value for name, value in (added_cond_kwargs or {}).items() if value is not None}
        needed = self.needed_by_context.get(self.encoder_hid_dim_type, ()) + self.needed_by_addition.get(self.addition_embed_type, ())
        absent = [name for name in needed if name not in added]
        if absent:
            raise ValueError(
                f"added_cond_kwargs lacks {absent}, needed by addition_embed_type={self.addition_embed_type!r} and "
                f"encoder_hid_dim_type={self.encoder_hid_dim_type!r}."
            )
        if self.class_embed_type != "timestep":
            class_labels = cast(class_labels, self.dtype)
        # time_ids are timesteps: not in the model's dtype until they are embedded.
        added = {name: cast(value, ms.float32 if name == "time_ids" else self.dtype) for name, value in added.items()}
        return timesteps(timestep, batch), class_labels, mutable(added)

    # Parts of `construct`

    def embed_time(self, timestep: Tensor, batch: int, dtype, condition: Tensor | None, class_labels: Tensor | None) -> Tensor:
        """The embedding of the timestep and the class: (batch, channels)."""
        timestep = timestep.astype(ms.float32).broadcast_to((batch,))
        emb = self.time_embedding(self.time_proj(timestep).astype(dtype), condition)
        if self.class_embedding is None:
            return emb
        if self.class_embed_type == "timestep":
            class_labels = self.time_proj(class_labels.astype(ms.float32)).astype(dtype)
        classes = self.class_embedding(class_labels).astype(dtype)
        return F.cat((emb, classes), -1) if self.class_embeddings_concat else emb + classes

    def embed_addition(self, encoder_hidden_states: Tensor, added: dict[str, Tensor], dtype) -> Tensor:
        """What `addition_embed_type` adds to the time embedding: (batch, channels)."""
        if self.addition_embed_type == "text":
            return self.add_embedding(encoder_hidden_states)
        if self.addition_embed_type == "text_image":
            return self.add_embedding(added.get("text_embeds", encoder_hidden_states), added["image_embeds"])
        if self.addition_embed_type == "text_time":
            text_embeds = added["text_embeds"]
            times = self.add_time_proj(added["time_ids"].reshape((-1,))).reshape((text_embeds.shape[0], -1))
            return self.add_embedding(F.cat((text_embeds.astype(dtype), times.astype(dtype)), -1))
        return self.add_embedding(added["image_embeds"])


def _context_projection(config) -> nn.Module | None:
    kind, encoder_hid_dim, cross_attention_dim = config.encoder_hid_dim_type, config.encoder_hid_dim, config.cross_attention_dim
    if kind is None:
        return None
    if encoder_hid_dim is None:
        raise ConfigError(f"encoder_hid_dim_type={kind!r} needs encoder_hid_dim.")
    if kind == "text_proj":
        return nn.Linear(encoder_hid_dim, cross_attention_dim)
    if kind == "text_image_proj":
        # Published models have image embeddings as wide as the context.
        return TextImageProjection(encoder_hid_dim, cross_attention_dim, cross_attention_dim)
    return ImageProjection(encoder_hid_dim, cross_attention_dim)


def _class_embedding(config, time_input_dim: int, time_embed_dim: int, act_fn: str) -> nn.Module | None:
    kind, input_dim = config.class_embed_type, config.projection_class_embeddings_input_dim
    if kind is None:
        return None if config.num_class_embeds is None else nn.Embedding(config.num_class_embeds, time_embed_dim)
    if kind == "timestep":
        return TimestepEmbedding(time_input_dim, time_embed_dim, act_fn=act_fn)
    if kind == "identity":
        return nn.Identity()
    if input_dim is None:
        raise ConfigError(f"class_embed_type={kind!r} needs projection_class_embeddings_input_dim.")
    return TimestepEmbedding(input_dim, time_embed_dim) if kind == "projection" else nn.Linear(input_dim, time_embed_dim)


def _added_embedding(config, time_embed_dim: int) -> nn.Module | None:
    kind, encoder_hid_dim, cross_attention_dim = config.addition_embed_type, config.encoder_hid_dim, config.cross_attention_dim
    if kind is None:
        return None
    if kind == "text":
        return TextTimeEmbedding(encoder_hid_dim or cross_attention_dim, time_embed_dim, config.addition_embed_type_num_heads)
    if kind == "text_image":
        return TextImageTimeEmbedding(cross_attention_dim, cross_attention_dim, time_embed_dim)
    if kind == "text_time":
        return TimestepEmbedding(config.projection_class_embeddings_input_dim, time_embed_dim)
    if kind == "image":
        return ImageTimeEmbedding(encoder_hid_dim, time_embed_dim)
    return ImageHintTimeEmbedding(encoder_hid_dim, time_embed_dim)
