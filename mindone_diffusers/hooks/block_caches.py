"""What the caches that leave out most of a model's blocks share."""

from mindspore import Tensor

from ..core.errors import ConfigError
from ..models.cache_utils import BlockCacheMixin, CacheMixin


def check_blocks(model: CacheMixin, least: int, cache: str) -> None:
    """Raises ConfigError unless the model is a sequence of at least so many blocks."""
    if not isinstance(model, BlockCacheMixin):
        raise ConfigError(
            f"{cache} is for models that are a sequence of blocks, such as DiTTransformer2DModel; got {type(model).__name__}."
        )
    if model.num_blocks < least:
        raise ConfigError(f"{cache} needs at least {least} blocks; this {type(model).__name__} has {model.num_blocks}.")


def relative_change(new: Tensor, old: Tensor) -> float:
    """The mean absolute difference over the mean absolute value: one number is read from the device."""
    return float(((new - old).abs().mean() / old.abs().mean()).asnumpy())
