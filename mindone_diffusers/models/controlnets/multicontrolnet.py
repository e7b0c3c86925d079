"""`MultiControlNetModel`: several ControlNets, whose outputs are added."""

from typing import Any

from mindspore import Tensor

from ..multi import MultiModel
from .controlnet import ControlNetModel, ControlNetOutput

Residuals = tuple[tuple[Tensor, ...] | None, Tensor | None]


class MultiControlNet(MultiModel):
    """Several ControlNets as one. Each runs on its own: in graph mode, each has its graph."""

    _members_name = "nets"

    def enable_graph_mode(self, jit_level: str = "O0", **options: Any) -> "MultiControlNet":
        """Compile each of the models; see `ModelMixin.enable_graph_mode`."""
        for net in self.nets:
            net.enable_graph_mode(jit_level, **options)
        return self

    def disable_graph_mode(self) -> "MultiControlNet":
        """Run them eagerly again."""
        for net in self.nets:
            net.disable_graph_mode()
        return self

    def _recompile(self) -> None:
        for net in self.nets:
            net._recompile()

    def add(self, total: Residuals, residuals: Residuals) -> Residuals:
        """Two outputs added; the first may be (None, None)."""
        if total[0] is None:
            return residuals
        states = ()
        for i, state in enumerate(residuals[0]):
            states += (total[0][i] + state,)
        return states, total[1] + residuals[1]


class MultiControlNetModel(MultiControlNet):
    """Several `ControlNetModel`s, whose outputs are added.

    Args:
        controlnets: the models.
    """

    _member_class = ControlNetModel

    def __init__(self, controlnets: list[ControlNetModel] | tuple[ControlNetModel, ...]):
        super().__init__(controlnets)

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        controlnet_cond: list[Tensor],
        conditioning_scale: list[float],
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[tuple[Tensor, ...], Tensor]:
        """
        Args:
            controlnet_cond, conditioning_scale: an image and a factor for each ControlNet.
            return_dict: return `ControlNetOutput` (PyTorch diffusers: the names of its fields), else a tuple.

        The other arguments are those of `ControlNetModel`, the same for all.

        Raises:
            ValueError: another number of images or factors than of ControlNets.
        """
        self._check_lists(controlnet_cond=controlnet_cond, conditioning_scale=conditioning_scale)
        output = self.construct(
            sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale, class_labels, timestep_cond, attention_mask,
            added_cond_kwargs, cross_attention_kwargs, guess_mode,
        )  # fmt: skip
        return ControlNetOutput(*output) if return_dict else output

    def construct(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        controlnet_cond: tuple[Tensor, ...],
        conditioning_scale: tuple[Tensor | float, ...],
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = False,
    ) -> Residuals:
        total = (None, None)
        for i, net in enumerate(self.nets):
            residuals = net(
                sample, timestep, encoder_hidden_states, controlnet_cond[i], conditioning_scale[i], class_labels, timestep_cond,
                attention_mask, added_cond_kwargs, cross_attention_kwargs, guess_mode, return_dict=False,
            )  # fmt: skip
            total = self.add(total, residuals)
        return total
