"""Embeddings of timesteps, positions, texts, images and boxes."""

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor

from .. import nn
from ..core.errors import ConfigError
from ..nn import functional as F
from .activations import get_activation

# Timesteps (sinusoids: arXiv:1706.03762, section 3.5)


def _frequencies(embedding_dim: int, downscale_freq_shift: float, max_period: float) -> np.ndarray:
    half = embedding_dim // 2
    exponent = np.float32(-math.log(max_period)) * np.arange(half, dtype=np.float32) / np.float32(half - downscale_freq_shift)
    return np.exp(exponent)


def _sinusoids(timesteps: Tensor, frequencies: Tensor, scale: float, flip_sin_to_cos: bool, embedding_dim: int) -> Tensor:
    angles = scale * (timesteps.astype(ms.float32).expand_dims(1) * frequencies.expand_dims(0))
    parts = (angles.cos(), angles.sin()) if flip_sin_to_cos else (angles.sin(), angles.cos())
    embedding = F.cat(parts, -1)
    return F.pad(embedding, (0, 1)) if embedding_dim % 2 == 1 else embedding


def get_timestep_embedding(
    timesteps: Tensor,
    embedding_dim: int,
    flip_sin_to_cos: bool = False,
    downscale_freq_shift: float = 1,
    scale: float = 1,
    max_period: int = 10000,
) -> Tensor:
    """Sines, then cosines of `timesteps` (batch,) times a geometric series of frequencies: (batch, embedding_dim), float32.

    Args:
        flip_sin_to_cos: cosines first.
        downscale_freq_shift: 1 for a series that ends at 1 / max_period, 0 for one that stops a step before.
        scale: factor on the angles.
    """
    if timesteps.ndim != 1:
        raise ValueError(f"timesteps has shape {timesteps.shape}: expected (batch,).")
    frequencies = ms.Tensor(_frequencies(embedding_dim, downscale_freq_shift, max_period))
    return _sinusoids(timesteps, frequencies, scale, flip_sin_to_cos, embedding_dim)


class Timesteps(nn.Module):
    """`get_timestep_embedding` with these settings."""

    def __init__(self, num_channels: int, flip_sin_to_cos: bool, downscale_freq_shift: float, scale: float = 1):
        super().__init__()
        self.num_channels, self.flip_sin_to_cos, self.scale = num_channels, flip_sin_to_cos, scale
        self.frequencies = ms.Tensor(_frequencies(num_channels, downscale_freq_shift, 10000))

    def construct(self, timesteps: Tensor) -> Tensor:
        return _sinusoids(timesteps, self.frequencies, self.scale, self.flip_sin_to_cos, self.num_channels)


class GaussianFourierProjection(nn.Module):
    """Sines, then cosines of `x` (or of its logarithm) times 2 pi times random frequencies (arXiv:2006.10739).

    Args:
        embedding_size: number of frequencies, half the size of the embedding.
        scale: standard deviation of the frequencies.
        set_W_to_weight: accepted for ported code; the frequencies are `weight` in any case.
        flip_sin_to_cos: cosines first.
    """

    def __init__(
        self, embedding_size: int = 256, scale: float = 1.0, set_W_to_weight: bool = True, log: bool = True, flip_sin_to_cos: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter((embedding_size,), nn.normal_init(scale), requires_grad=False)
        self.log, self.flip_sin_to_cos = log, flip_sin_to_cos

    def construct(self, x: Tensor) -> Tensor:
        if self.log:
            x = x.log()
        angles = x.expand_dims(1) * self.weight.expand_dims(0) * 2 * math.pi
        parts = (angles.cos(), angles.sin()) if self.flip_sin_to_cos else (angles.sin(), angles.cos())
        return F.cat(parts, -1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        in_channels, time_embed_dim: sizes before and after the first layer.
        out_dim: size after the second. Default: `time_embed_dim`.
        post_act_fn: activation at the end.
        cond_proj_dim: size of a condition that is mapped linearly and added to the input.
    """

    def __init__(
        self,
        in_channels: int,
        time_embed_dim: int,
        act_fn: str = "silu",
        out_dim: int | None = None,
        post_act_fn: str | None = None,
        cond_proj_dim: int | None = None,
        sample_proj_bias: bool = True,
    ):
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, time_embed_dim, sample_proj_bias)
        self.cond_proj = None if cond_proj_dim is None else nn.Linear(cond_proj_dim, in_channels, bias=False)
        self.act = get_activation(act_fn)
        self.linear_2 = nn.Linear(time_embed_dim, out_dim or time_embed_dim, sample_proj_bias)
        self.post_act = None if post_act_fn is None else get_activation(post_act_fn)

    def construct(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            sample = sample + self.cond_proj(condition)
        sample = self.linear_2(self.act(self.linear_1(sample)))
        return sample if self.post_act is None else self.post_act(sample)


class LabelEmbedding(nn.Module):
    """A table of class embeddings; with dropout it has one more row, for "no class"."""

    def __init__(self, num_classes: int, hidden_size: int, dropout_prob: float):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + (dropout_prob > 0), hidden_size)

    def construct(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class CombinedTimestepLabelEmbeddings(nn.Module):
    """The embeddings of a timestep and of a class, added (DiT, arXiv:2212.09748)."""

    def __init__(self, num_classes: int, embedding_dim: int, class_dropout_prob: float = 0.1):
        super().__init__()
        self.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=1)
        self.timestep_embedder = TimestepEmbedding(256, embedding_dim)
        self.class_embedder = LabelEmbedding(num_classes, embedding_dim, class_dropout_prob)

    def construct(self, timestep: Tensor, class_labels: Tensor, dtype: ms.Type) -> Tensor:
        return self.timestep_embedder(self.time_proj(timestep).astype(dtype)) + self.class_embedder(class_labels)


class SinusoidalPositionalEmbedding(nn.Module):
    """Add to token i the interleaved sines and cosines of i (arXiv:1706.03762, section 3.5), for up to `max_seq_length` tokens."""

    def __init__(self, embed_dim: int, max_seq_length: int = 32):
        super().__init__()
        self.pe = nn.Parameter((1, max_seq_length, embed_dim), _interleaved_sinusoids, requires_grad=False)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


def _interleaved_sinusoids(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    _, tokens, size = shape
    angles = np.arange(tokens)[:, None] * np.exp(np.arange(0, size, 2) * (-math.log(10000.0) / size))
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(shape).astype(np.float32)


class PatchEmbed(nn.Module):
    """An image's patches mapped linearly (arXiv:2010.11929), plus sines and cosines of the column and of the row that each is in.

    The table of the latter is that of `height // patch_size` rows and columns; images of other sizes have it stretched to theirs.

    Args:
        height: of the images it is for, like their width.
        patch_size: height and width of a patch.
        in_channels, embed_dim: channels of the image, and of a token.

    Raises:
        ConfigError: an `embed_dim` that is no multiple of 4.
    """

    def __init__(self, height: int, patch_size: int, in_channels: int, embed_dim: int):
        super().__init__()
        if embed_dim % 4:
            raise ConfigError(f"embed_dim is {embed_dim}: expected a multiple of 4, for sines and cosines of rows and of columns.")
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.patch_size, self.embed_dim, self.side = patch_size, embed_dim, height // patch_size
        self.frequencies = ms.Tensor((10000.0 ** -(np.arange(embed_dim // 4) / (embed_dim // 4))).astype(np.float32))

    def construct(self, latent: Tensor) -> Tensor:
        """(batch, in_channels, height, width) to (batch, patches, embed_dim)."""
        batch, channels, height, width = latent.shape
        size, rows, columns = self.patch_size, height // self.patch_size, width // self.patch_size
        # A convolution whose stride is its kernel's size is a product.
        patches = latent.reshape((batch, channels, rows, size, columns, size)).transpose((0, 2, 4, 1, 3, 5))
        patches = patches.reshape((batch, rows * columns, channels * size * size))
        tokens = F.linear(patches, self.proj.weight.reshape((self.embed_dim, -1)), self.proj.bias)
        shape = (rows, columns, self.embed_dim // 2)
        by_column = self.positions(columns).expand_dims(0).broadcast_to(shape)
        by_row = self.positions(rows).expand_dims(1).broadcast_to(shape)
        positions = F.cat((by_column, by_row), -1).reshape((1, rows * columns, self.embed_dim))
        return (tokens + positions).astype(tokens.dtype)

    def positions(self, count: int) -> Tensor:
        """Sines, then cosines of so many places: (count, embed_dim // 2), float32."""
        places = F.arange(0, count).astype(ms.float32) * (self.side / count)
        angles = places.expand_dims(1) * self.frequencies.expand_dims(0)
        return F.cat((angles.sin(), angles.cos()), -1)


# Texts and images


class TextImageProjection(nn.Module):
    """Tokens for cross attention: some made from an image embedding (batch, image_embed_dim), then the text's, mapped."""

    def __init__(
        self, text_embed_dim: int = 1024, image_embed_dim: int = 768, cross_attention_dim: int = 768, num_image_text_embeds: int = 10
    ):
        super().__init__()
        self.num_image_text_embeds = num_image_text_embeds
        self.image_embeds = nn.Linear(image_embed_dim, num_image_text_embeds * cross_attention_dim)
        self.text_proj = nn.Linear(text_embed_dim, cross_attention_dim)

    def construct(self, text_embeds: Tensor, image_embeds: Tensor) -> Tensor:
        image_tokens = self.image_embeds(image_embeds).reshape((text_embeds.shape[0], self.num_image_text_embeds, -1))
        return F.cat((image_tokens, self.text_proj(text_embeds)), 1)


class ImageProjection(nn.Module):
    """Tokens for cross attention made from an image embedding (batch, image_embed_dim)."""

    def __init__(self, image_embed_dim: int = 768, cross_attention_dim: int = 768, num_image_text_embeds: int = 32):
        super().__init__()
        self.num_image_text_embeds = num_image_text_embeds
        self.image_embeds = nn.Linear(image_embed_dim, num_image_text_embeds * cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)

    def construct(self, image_embeds: Tensor) -> Tensor:
        tokens = self.image_embeds(image_embeds.astype(self.norm.weight.dtype))
        return self.norm(tokens.reshape((image_embeds.shape[0], self.num_image_text_embeds, -1)))


class AttentionPooling(nn.Module):
    """One token that attends to all and to itself; its query is their mean (arXiv:2103.00020, section 2.4)."""

    def __init__(self, num_heads: int, embed_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.positional_embedding = nn.Parameter((1, embed_dim), nn.normal_init(embed_dim**-0.5))
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)

    def construct(self, x: Tensor) -> Tensor:
        batch, tokens, size = x.shape
        token = x.mean(1, keep_dims=True) + self.positional_embedding
        x = F.cat((token, x), 1)
        query = self.q_proj(token).reshape((batch, 1, self.num_heads, -1)).transpose((0, 2, 1, 3))
        key = self.k_proj(x).reshape((batch, tokens + 1, self.num_heads, -1)).transpose((0, 2, 1, 3))
        value = self.v_proj(x).reshape((batch, tokens + 1, self.num_heads, -1)).transpose((0, 2, 1, 3))
        return F.scaled_dot_product_attention(query, key, value).reshape((batch, size))


class TextTimeEmbedding(nn.Module):
    """A text (batch, tokens, encoder_dim) pooled into a time embedding."""

    def __init__(self, encoder_dim: int, time_embed_dim: int, num_heads: int = 64):
        super().__init__()
        self.norm1 = nn.LayerNorm(encoder_dim)
        self.pool = AttentionPooling(num_heads, encoder_dim)
        self.proj = nn.Linear(encoder_dim, time_embed_dim)
        self.norm2 = nn.LayerNorm(time_embed_dim)

    def construct(self, hidden_states: Tensor) -> Tensor:
        return self.norm2(self.proj(self.pool(self.norm1(hidden_states))))


class TextImageTimeEmbedding(nn.Module):
    """A time embedding from one vector of a text and one of an image (Kandinsky 2.1)."""

    def __init__(self, text_embed_dim: int = 768, image_embed_dim: int = 768, time_embed_dim: int = 1536):
        super().__init__()
        self.text_proj = nn.Linear(text_embed_dim, time_embed_dim)
        self.text_norm = nn.LayerNorm(time_embed_dim)
        self.image_proj = nn.Linear(image_embed_dim, time_embed_dim)

    def construct(self, text_embeds: Tensor, image_embeds: Tensor) -> Tensor:
        return self.image_proj(image_embeds) + self.text_norm(self.text_proj(text_embeds))


class ImageTimeEmbedding(nn.Module):
    """A time embedding from one vector of an image (Kandinsky 2.2)."""

    def __init__(self, image_embed_dim: int = 768, time_embed_dim: int = 1536):
        super().__init__()
        self.image_proj = nn.Linear(image_embed_dim, time_embed_dim)
        self.image_norm = nn.LayerNorm(time_embed_dim)

    def construct(self, image_embeds: Tensor) -> Tensor:
        return self.image_norm(self.image_proj(image_embeds))


class ImageHintTimeEmbedding(ImageTimeEmbedding):
    """As `ImageTimeEmbedding`, and a hint (batch, 3, 8 height, 8 width) made into 4 channels of the latents' size."""

    def __init__(self, image_embed_dim: int = 768, time_embed_dim: int = 1536):
        super().__init__(image_embed_dim, time_embed_dim)
        channels = (3, 16, 16, 32, 32, 96, 96, 256)
        layers = []
        for i, (before, after) in enumerate(zip(channels, channels[1:])):
            layers += [nn.Conv2d(before, after, 3, padding=1, stride=2 if i in (2, 4, 6) else 1), nn.SiLU()]
        self.input_hint_block = nn.Sequential(*layers, nn.Conv2d(256, 4, 3, padding=1))

    def construct(self, image_embeds: Tensor, hint: Tensor) -> tuple[Tensor, Tensor]:
        return self.image_norm(self.image_proj(image_embeds)), self.input_hint_block(hint)


# Boxes


class GLIGENTextBoundingboxProjection(nn.Module):
    """Grounding tokens from boxes and what is in them (GLIGEN, arXiv:2301.07093).

    Args:
        positive_len: size of the embeddings of phrases and images.
        out_dim: size of the tokens.
        feature_type: "text-only", or "text-image" for tokens of phrases, then of images.
        fourier_freqs: frequencies in a box's embedding.
    """

    def __init__(self, positive_len: int, out_dim: int, feature_type: str = "text-only", fourier_freqs: int = 8):
        super().__init__()
        position_dim = fourier_freqs * 2 * 4
        self.frequencies = ms.Tensor((100 ** (np.arange(fourier_freqs) / fourier_freqs)).astype(np.float32))

        def layers() -> nn.Sequential:
            first = nn.Linear(positive_len + position_dim, 512)
            return nn.Sequential(first, nn.SiLU(), nn.Linear(512, 512), nn.SiLU(), nn.Linear(512, out_dim))

        if feature_type == "text-only":
            self.linears = layers()
            self.null_positive_feature = nn.Parameter((positive_len,))
        else:
            self.linears_text, self.linears_image = layers(), layers()
            self.null_text_feature = nn.Parameter((positive_len,))
            self.null_image_feature = nn.Parameter((positive_len,))
        self.null_position_feature = nn.Parameter((position_dim,))

    def construct(
        self,
        boxes: Tensor,
        masks: Tensor,
        positive_embeddings: Tensor | None = None,
        phrases_masks: Tensor | None = None,
        image_masks: Tensor | None = None,
        phrases_embeddings: Tensor | None = None,
        image_embeddings: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            boxes: (batch, boxes, 4): left, top, right, bottom, in 0..1.
            masks, phrases_masks, image_masks: (batch, boxes), 1 for what is there, 0 for padding.
            positive_embeddings, phrases_embeddings, image_embeddings: (batch, boxes, positive_len); the first for "text-only".
        """
        angles = boxes.expand_dims(-1) * self.frequencies.astype(boxes.dtype)
        waves = F.stack((angles.sin(), angles.cos()), -1).transpose((0, 1, 3, 4, 2))
        position = _or_null(waves.reshape(boxes.shape[:2] + (-1,)), masks, self.null_position_feature)
        if positive_embeddings is not None:
            return self.linears(F.cat((_or_null(positive_embeddings, masks, self.null_positive_feature), position), -1))
        phrases = _or_null(phrases_embeddings, phrases_masks, self.null_text_feature)
        images = _or_null(image_embeddings, image_masks, self.null_image_feature)
        texts = self.linears_text(F.cat((phrases, position), -1))
        return F.cat((texts, self.linears_image(F.cat((images, position), -1))), 1)


def _or_null(values: Tensor, mask: Tensor, null: Tensor) -> Tensor:
    mask = mask.expand_dims(-1)
    return values * mask + (1 - mask) * null
