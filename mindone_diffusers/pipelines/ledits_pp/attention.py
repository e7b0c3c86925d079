"""Where in the image a UNet's cross-attentions look for a text: their maps, collected while it runs."""

from typing import Any

import numpy as np
from mindspore import Tensor

from ...backend.common import swap_heads_and_tokens
from ...core.errors import ConfigError
from ...models.attention import Attention, AttnProcessor
from ...nn import functional as F


class LeditsAttentionStore:
    """Keeps attention maps by place: those of the step that runs, and of steps to look at later.

    Args:
        average: keep the sum of the steps' maps, instead of each.
        batch_size: images of a batch.
        max_resolution: height and width up to which attentions are kept.
        max_size: instead of it (then pass None), the number of pixels.

    Attributes:
        step_store: maps of the step that runs by place, "down_cross" etc.; (images, concepts * heads, pixels, tokens) for each attention.
        attention_store: the same of the steps kept: the sum, or a list.

    Raises:
        ConfigError: both a resolution and a size.
    """

    def __init__(self, average: bool, batch_size: int = 1, max_resolution: int | None = 16, max_size: float | None = None):
        if max_size is not None and max_resolution is not None:
            raise ConfigError("`max_resolution` and `max_size` are both given: pass one of them, and max_resolution=None for a size")
        self.max_size = max_resolution**2 if max_size is None else max_size
        self.average, self.batch_size, self.cur_step = average, batch_size, 0
        self.step_store, self.attention_store = self.get_empty_store(), []

    @staticmethod
    def get_empty_store() -> dict[str, list[Tensor]]:
        return {f"{place}_{kind}": [] for kind in ("cross", "self") for place in ("down", "mid", "up")}

    def __call__(self, attn: Tensor, is_cross: bool, place_in_unet: str, editing_prompts: int, PnP: bool = False) -> None:
        """Keep the maps of the concepts, unless they are too large.

        Args:
            attn: (predictions * images * heads, pixels, tokens), the predictions without a concept first.
            is_cross: whether they are a cross-attention's.
            place_in_unet: "down", "mid" or "up".
            editing_prompts: number of concepts.
            PnP: whether there are two predictions without a concept.
        """
        if attn.shape[1] > self.max_size:
            return
        without = 2 if PnP else 1
        # With several images this deals an image's heads out to all of them, as PyTorch diffusers does.
        maps = attn.reshape((-1, self.batch_size) + attn.shape[1:]).swapaxes(0, 1)
        heads = maps.shape[1] // (without + editing_prompts)
        self.forward(maps[:, without * heads :], is_cross, place_in_unet)

    def forward(self, attn: Tensor, is_cross: bool, place_in_unet: str) -> None:
        """Keep these maps of the concepts."""
        self.step_store[f"{place_in_unet}_{'cross' if is_cross else 'self'}"].append(attn)

    def between_steps(self, store_step: bool = True) -> None:
        """A step is over; keep its maps for later if `store_step`."""
        if store_step:
            if not self.average:
                self.attention_store = [*self.attention_store, self.step_store]
            elif not self.attention_store:
                self.attention_store = self.step_store
            else:
                self.attention_store = {
                    place: [total + maps for total, maps in zip(totals, self.step_store[place])]
                    for place, totals in self.attention_store.items()
                }
            self.cur_step += 1
        self.step_store = self.get_empty_store()

    def get_attention(self, step: int | None) -> dict[str, list[Tensor]]:
        """The maps of a step kept, or with `average` the mean of all of those."""
        if not self.average:
            return self.attention_store[step]
        return {place: [total / self.cur_step for total in totals] for place, totals in self.attention_store.items()}

    def aggregate_attention(
        self,
        attention_maps: dict[str, list[Tensor]],
        prompts: list[str],
        res: int | tuple[int, int],
        from_where: list[str],
        is_cross: bool,
        select: int,
    ) -> Tensor:
        """The mean over heads and attentions of one concept's maps.

        Args:
            attention_maps: `step_store`, or what `get_attention` gives.
            prompts: the concepts.
            res: height and width of the attentions to take.
            from_where: their places: "down", "mid", "up".
            is_cross: cross-attentions or self-attentions.
            select: index of the concept.

        Returns:
            (images, height, width, tokens).

        Raises:
            ConfigError: there are none of this size.
        """
        height, width = (res, res) if isinstance(res, int) else res[:2]
        chosen = [
            maps.reshape((maps.shape[0], len(prompts), -1, height, width, maps.shape[3]))[:, select]
            for place in from_where
            for maps in attention_maps[f"{place}_{'cross' if is_cross else 'self'}"]
            if maps.shape[2] == height * width
        ]
        if not chosen:
            raise ConfigError(
                f"the UNet has no attention of {height} x {width} pixels {' or '.join(from_where)} to make masks of, a quarter of the "
                "latents' height and width: switch cross-attention masks off"
            )
        return F.cat(chosen, 1).mean(1)


class LEDITSCrossAttnProcessor(AttnProcessor):
    """`AttnProcessor` that shows a store what it attends to. Not in a compiled model: nothing can be kept from inside a graph.

    Args:
        attention_store: the store.
        place_in_unet: "down", "mid" or "up".
        pnp: see `LeditsAttentionStore.__call__`.
        editing_prompts: number of concepts.
    """

    def __init__(self, attention_store: LeditsAttentionStore, place_in_unet: str, pnp: bool, editing_prompts: int):
        self.attnstore, self.place_in_unet, self.pnp, self.editing_prompts = attention_store, place_in_unet, pnp, editing_prompts

    def attend(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = swap_heads_and_tokens(query, key, value)
        scores = attn.get_attention_scores(query, key, mask)
        self.attnstore(scores.reshape((-1,) + scores.shape[2:]), True, self.place_in_unet, self.editing_prompts, self.pnp)
        return F.bmm(scores, value).swapaxes(1, 2)


class LeditsGaussianSmoothing:
    """Smooths maps (batch, 1, height, width) with the 3x3 kernel exp(-distance²) / sum, to which their border is lost.

    Args:
        device: not used.
    """

    def __init__(self, device: Any = None):
        line = np.exp(-(np.arange(-1.0, 2.0, dtype=np.float32) ** 2))
        kernel = line[:, None] * line
        self.weight = Tensor(kernel[None, None] / kernel.sum())

    def __call__(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight.astype(input.dtype))
