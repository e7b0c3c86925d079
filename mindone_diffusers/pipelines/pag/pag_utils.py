"""Perturbed attention guidance (arXiv:2403.17377), for any pipeline that is guided in `GuidedPipeline`'s way.

A PAG pipeline is its plain pipeline with one more prediction a step: that of a UNet in some of whose layers each token attends to itself
alone. The result is guided away from it.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mindspore import Tensor

from ...core.errors import ConfigError
from ...models.attention import Attention, PAGCFGIdentitySelfAttnProcessor2_0, PAGIdentitySelfAttnProcessor2_0
from ...nn import functional as F
from ..guidance import perturbed_attention_guidance

PROCESSORS = (PAGCFGIdentitySelfAttnProcessor2_0(), PAGIdentitySelfAttnProcessor2_0())


class PAGMixin:
    """What makes a PAG pipeline of a plain one; comes before it among the base classes.

    Arguments added to the constructor:
        pag_applied_layers: see `set_pag_applied_layers`.

    Arguments added to the call:
        pag_scale: how far to go away from the perturbed prediction; 0 for not at all.
        pag_adaptive_scale: how much less of that for each timestep below 1000, down to nothing; 0 for always the same.
    """

    def set_pag_applied_layers(self, pag_applied_layers: str | list[str], pag_attn_processors: tuple[Any, Any] | None = PROCESSORS) -> None:
        """Choose the self-attention layers to perturb.

        Args:
            pag_applied_layers: regular expressions, each of which is to be found in a layer's name: "mid", "up_blocks.0",
                "down_blocks.(1|2)".
            pag_attn_processors: what perturbs them with classifier-free guidance, and without.

        Raises:
            ConfigError: not two processors, or layers that are not named by strings.
        """
        layers = pag_applied_layers if isinstance(pag_applied_layers, list) else [pag_applied_layers]
        if pag_attn_processors is not None and not (isinstance(pag_attn_processors, tuple) and len(pag_attn_processors) == 2):
            raise ConfigError(f"pag_attn_processors is {pag_attn_processors!r}; expected two, for guidance by prompt and without")
        if not all(isinstance(layer, str) for layer in layers):
            raise ConfigError(f"pag_applied_layers is {pag_applied_layers!r}; expected a string or a list of strings")
        self.pag_applied_layers, self._pag_attn_processors = layers, pag_attn_processors

    def _perturbing_processors(self) -> dict[str, Any]:
        """A processor for each of the chosen layers, by name.

        Raises:
            ConfigError: `pag_applied_layers` has one that no self-attention fits, or there are no processors.
        """
        if self._pag_attn_processors is None:
            raise ConfigError("there are no processors for perturbed attention: call set_pag_applied_layers with two")
        layers = [name for name, cell in self.unet.cells_and_names() if isinstance(cell, Attention) and not cell.is_cross_attention]
        chosen = []
        for pattern in self.pag_applied_layers:
            # As in PyTorch diffusers, a pattern does not fit a name when both end in the same number.
            number = pattern.split(".")[-1]
            found = [name for name in layers if re.search(pattern, name) and not (number.isnumeric() and name.split(".")[-1] == number)]
            if not found:
                raise ConfigError(f"pag_applied_layers has {pattern!r}, which fits none of the UNet's self-attentions: {layers}")
            chosen += found
        processor = self._pag_attn_processors[0 if self.do_classifier_free_guidance else 1]
        return {f"{name}.processor": processor for name in chosen}

    @contextmanager
    def _perturbing(self, pag_scale: float, pag_adaptive_scale: float, guidance_scale: float) -> Iterator[None]:
        """Meanwhile, the UNet's last predictions of each batch are perturbed, if these scales ask for it."""
        self._pag_scale, self._pag_adaptive_scale, self._guidance_scale = pag_scale, pag_adaptive_scale, guidance_scale
        with self.unet.replaced_attn_processors(self._perturbing_processors() if self.do_perturbed_attention_guidance else {}):
            yield

    def _guided_batch(self, positive: Tensor, negative: Tensor) -> Tensor:
        batch = super()._guided_batch(positive, negative)
        return F.cat((batch, positive), 0) if self.do_perturbed_attention_guidance else batch

    def _guide(self, noise_pred: Tensor, t: float) -> Tensor:
        if not self.do_perturbed_attention_guidance:
            return super()._guide(noise_pred, t)
        scale = self.guidance_scale if self.do_classifier_free_guidance else None
        return perturbed_attention_guidance(noise_pred, self._get_pag_scale(t), scale, self.guidance_rescale)

    def _get_pag_scale(self, t: float) -> float:
        """The scale at timestep `t`."""
        return max(self.pag_scale - self.pag_adaptive_scale * (1000 - t), 0) if self.do_pag_adaptive_scaling else self.pag_scale

    @property
    def pag_scale(self) -> float:
        return self._pag_scale

    @property
    def pag_adaptive_scale(self) -> float:
        return self._pag_adaptive_scale

    @property
    def do_pag_adaptive_scaling(self) -> bool:
        return self._pag_adaptive_scale > 0 and self.do_perturbed_attention_guidance

    @property
    def do_perturbed_attention_guidance(self) -> bool:
        return self._pag_scale > 0 and len(self.pag_applied_layers) > 0

    @property
    def pag_attn_processors(self) -> dict[str, Any]:
        """The processors in the UNet that perturb, by name: some during a call, else none."""
        kinds = {type(processor) for processor in self._pag_attn_processors or ()}
        return {name: processor for name, processor in self.unet.attn_processors.items() if type(processor) in kinds}


class UnguessedPAGMixin(PAGMixin):
    """The same of a pipeline with ControlNets that has no guess mode with perturbed attention, as in PyTorch diffusers."""

    def _guesses(self, guess_mode: bool) -> bool:
        return False


def with_pag_layers(init: Callable) -> Callable:
    """A plain pipeline's `__init__` with the argument `pag_applied_layers`."""

    def run(arguments: dict[str, Any], pag_applied_layers: str | list[str]) -> None:
        init(**arguments)
        arguments["self"].set_pag_applied_layers(pag_applied_layers)

    return _with_arguments(init, run, pag_applied_layers="mid")


def with_pag_scales(call: Callable, without: Sequence[str] = ()) -> Callable:
    """A plain pipeline's `__call__` with the arguments `pag_scale` and `pag_adaptive_scale`, and without some of its own."""

    def run(arguments: dict[str, Any], pag_scale: float, pag_adaptive_scale: float) -> Any:
        with arguments["self"]._perturbing(pag_scale, pag_adaptive_scale, arguments["guidance_scale"]):
            return call(**arguments)

    return _with_arguments(call, run, without, pag_scale=3.0, pag_adaptive_scale=0.0)


def _with_arguments(method: Callable, run: Callable, without: Sequence[str] = (), **added: Any) -> Callable:
    """A method with the arguments of another, some left out, and more.

    Args:
        method: the other.
        run: does what it is to do: `run(arguments of method, **those of added)`.
        without: names of the arguments to leave out.
        added: defaults by name.
    """
    signature = inspect.signature(method)
    kept = [parameter for name, parameter in signature.parameters.items() if name not in without]
    more = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value) for name, value in added.items()]
    signature = signature.replace(parameters=[*kept, *more])

    def extended(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        return run(arguments, **{name: arguments.pop(name) for name in added})

    extended.__name__, extended.__module__ = method.__name__, method.__module__
    extended.__doc__ = f"`{method.__qualname__}` with the arguments {', '.join(added)}; see `PAGMixin`."
    extended.__signature__ = signature
    return extended
