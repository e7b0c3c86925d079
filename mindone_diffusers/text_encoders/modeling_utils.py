"""`PreTrainedModel`: encoders whose config and weights are transformers' files."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mindspore import Tensor

from ..core import hub
from ..core.configuration import ConfigMixin, FrozenDict
from ..core.dtypes import dtype_name
from ..core.errors import ConfigError
from ..core.outputs import BaseOutput
from ..models.activations import quick_gelu
from ..models.modeling_utils import ModelMixin
from ..nn import functional as F

TRANSFORMERS_VERSION = "5.23.0"
"""The transformers version whose configs and parameter names these are; written as `transformers_version`."""


@dataclass
class BaseModelOutputWithPooling(BaseOutput):
    """
    Args:
        last_hidden_state: (batch, tokens, hidden_size).
        pooler_output: (batch, hidden_size).
        hidden_states: the embeddings and every layer's output, if asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class PreTrainedModel(ModelMixin, ConfigMixin):
    """Base of the encoders that transformers defines: `config.json` and `model.safetensors` are read and written in its format.

    Args:
        config: the model's config: a mapping (what `config.json` holds) or one of transformers' config objects. Absent entries have
            transformers' defaults. A config that nests this model's (CLIP's text and vision halves) is accepted too.
        values: entries that override the config's.

    Raises:
        ConfigError: a name in `values` is not an entry of the config.

    Class attributes:
        config_defaults: the config's entries with transformers' default values.
        base_config_key: under which name a config of several models nests this one's.
    """

    weights_name = hub.TRANSFORMERS_WEIGHTS_NAME
    config_defaults: ClassVar[Mapping[str, Any]] = {}
    base_config_key: ClassVar[str | None] = None

    def __init__(self, config: Any = None, **values: Any):
        super().__init__()
        config = self._complete_config(config.to_dict() if hasattr(config, "to_dict") else dict(config or {}))
        unknown = sorted(values.keys() - config.keys())
        if unknown:
            raise ConfigError(f"{type(self).__name__} got {unknown}: the entries of its config are {sorted(config)}")
        self.register_to_config(**_freeze(config | values))

    @classmethod
    def _complete_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        """This model's config with every entry, from what a file holds."""
        config = {"output_hidden_states": False, **cls.config_defaults, **config.get(cls.base_config_key, config)}
        return {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}  # the parameters tell

    @classmethod
    def from_config(cls, config: Any, **values: Any) -> "PreTrainedModel":
        """A model of this config, its entries overridden by `values`."""
        return cls(config, **values)

    @classmethod
    def _build(cls, path: str | os.PathLike, overrides: dict[str, Any], files: dict[str, Any]) -> "PreTrainedModel":
        return cls(cls.load_config(path, **files), **overrides)

    def to_json_string(self) -> str:
        """The config as transformers writes it."""
        config = {key: value for key, value in self.config.items() if not key.startswith("_")}
        config |= {"architectures": [type(self).__name__], "dtype": dtype_name(self.dtype), "transformers_version": TRANSFORMERS_VERSION}
        return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _freeze(value: Any) -> Any:
    return FrozenDict({key: _freeze(item) for key, item in value.items()}) if isinstance(value, Mapping) else value


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Multi-head attention (arXiv:1706.03762) of (batch, tokens, size) to the same; see `nn.functional.scaled_dot_product_attention`."""
    batch, tokens, size = query.shape
    heads = (batch, tokens, num_heads, size // num_heads)
    query, key, value = query.reshape(heads), key.reshape(heads), value.reshape(heads)
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, layout="BSND").reshape((batch, tokens, size))


def check_heads(config: FrozenDict) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(f"hidden_size ({config.hidden_size}) is not a multiple of num_attention_heads ({config.num_attention_heads})")


def _gelu_tanh(input: Tensor) -> Tensor:
    return F.gelu(input, "tanh")


_ACTIVATIONS = {
    "gelu": F.gelu, "gelu_new": _gelu_tanh, "gelu_pytorch_tanh": _gelu_tanh, "quick_gelu": quick_gelu, "relu": F.relu, "silu": F.silu,
}  # fmt: skip


def get_activation(name: str) -> Any:
    """The function a transformers config calls `name`.

    Raises:
        ConfigError: no such function.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(f"the activation {name!r} is unknown; expected one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
