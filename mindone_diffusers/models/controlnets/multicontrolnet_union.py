"""`MultiControlNetUnionModel`: several ControlNets of several kinds of images, whose outputs are added."""

from typing import Any

from mindspore import Tensor

from .controlnet import ControlNetOutput
from .controlnet_union import ControlNetUnionModel
from .multicontrolnet import MultiControlNet, Residuals


class MultiControlNetUnionModel(MultiControlNet):
    """Several `ControlNetUnionModel`s, whose outputs are added.

    Args:
        controlnets: the models.
    """

    _member_class = ControlNetUnionModel

    def __init__(self, controlnets: list[ControlNetUnionModel] | tuple[ControlNetUnionModel, ...]):
        super().__init__(controlnets)

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        controlnet_cond: list[list[Tensor]],
        control_type: list[Tensor],
        control_type_idx: list[list[int]],
        conditioning_scale: list[float],
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[tuple[Tensor, ...] | None, Tensor | None]:
        """
        Args:
            controlnet_cond, control_type, control_type_idx: what each ControlNet is given.
            conditioning_scale: a factor for each; those of 0 do not run, and if none does, the output is None and None.
            return_dict: return `ControlNetOutput` (PyTorch diffusers: the names of its fields), else a tuple.

        The other arguments are those of `ControlNetUnionModel`, the same for all.

        Raises:
            ValueError: another number of entries than of ControlNets.
        """
        self._check_lists(
            controlnet_cond=controlnet_cond, control_type=control_type, control_type_idx=control_type_idx,
            conditioning_scale=conditioning_scale,
        )  # fmt: skip
        output = self.construct(
            sample, timestep, encoder_hidden_states, controlnet_cond, control_type, control_type_idx, conditioning_scale, class_labels,
            timestep_cond, attention_mask, added_cond_kwargs, cross_attention_kwargs, guess_mode,
        )  # fmt: skip
        return ControlNetOutput(*output) if return_dict else output

    def construct(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        controlnet_cond: tuple[tuple[Tensor, ...], ...],
        control_type: tuple[Tensor, ...],
        control_type_idx: tuple[tuple[int, ...], ...],
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
            if isinstance(conditioning_scale[i], (int, float)) and conditioning_scale[i] == 0:
                continue
            scales = (conditioning_scale[i],) * len(control_type_idx[i])
            residuals = net(
                sample, timestep, encoder_hidden_states, controlnet_cond[i], control_type[i], control_type_idx[i], scales, class_labels,
                timestep_cond, attention_mask, added_cond_kwargs, cross_attention_kwargs, True, guess_mode, return_dict=False,
            )  # fmt: skip
            total = self.add(total, residuals)
        return total
