"""`StableUnCLIPImageNormalizer`: the statistics of CLIP's image embeddings (arXiv:2204.06125)."""

from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...models.modeling_utils import ModelMixin


class StableUnCLIPImageNormalizer(ModelMixin, ConfigMixin):
    """Mean and standard deviation of image embeddings (batch, embedding_dim), which are noised when they are normalised.

    Args:
        embedding_dim: size of the embeddings.
    """

    @register_to_config
    def __init__(self, embedding_dim: int = 768):
        super().__init__()
        self.mean = nn.Parameter((1, embedding_dim))
        self.std = nn.Parameter((1, embedding_dim), nn.ones_init)

    def scale(self, embeds: Tensor) -> Tensor:
        """Embeddings to mean 0 and standard deviation 1."""
        return self._run("_scale", embeds)[0]

    def unscale(self, embeds: Tensor) -> Tensor:
        """The inverse of `scale`."""
        return self._run("_unscale", embeds)[0]

    def _scale(self, embeds: Tensor) -> tuple[Tensor]:
        return ((embeds - self.mean) / self.std,)

    def _unscale(self, embeds: Tensor) -> tuple[Tensor]:
        return (embeds * self.std + self.mean,)
