"""Where dropout's masks come from: a function of what was seeded last and of how many masks were drawn since, eagerly and in graphs.

MindSpore's CPU operator counts its calls itself, from the start of the process, so that no state of a run says which mask comes next.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from .device import device_target

_STRIDE = 0x1E3779B97F4A7C15
_key = Parameter(Tensor(np.zeros(1, np.int64)), name="dropout_key", requires_grad=False)


def seed_dropout(*seeds: int) -> None:
    """The masks that are drawn from now on follow from these numbers (`seed_dropout(seed, step)`). Graphs are not compiled again."""
    key = int(np.random.default_rng(seeds).integers(2**63))
    ops.assign(_key, Tensor([key], ms.int64))
    if device_target() == "Ascend":
        ms.manual_seed(key)


def next_key() -> Tensor:
    """What the next mask is made of: (1,), int64."""
    key = _key + _STRIDE
    ops.assign(_key, key)
    return key
