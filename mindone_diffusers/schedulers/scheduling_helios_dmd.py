"""Few-step sampling of Helios, distilled by distribution matching (DMD2, arXiv 2405.14867), stage by stage (arXiv 2410.05954)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, cast, on_host, per_sample, weighted_sum
from .flows import FlowStagesMixin
from .scheduling_utils import SchedulerMixin, SchedulerOutput, as_output


@dataclass
class HeliosDMDSchedulerOutput(SchedulerOutput):
    """`prev_sample` of a step; the other fields are those of `HeliosSchedulerOutput`, None here."""

    model_outputs: Any = None
    last_sample: Any = None
    this_order: int | None = None


class HeliosDMDScheduler(FlowStagesMixin, SchedulerMixin):
    """Steps to the predicted clean sample, which is noised anew to the next level.

    Args:
        num_train_timesteps: length of the training schedule.
        shift: moves all noise levels towards noise (arXiv 2403.03206, section 5.3.2); not with `use_dynamic_shifting`.
        stages: how many resolutions.
        stage_range: the parts of the training schedule that the stages cover, `stages` + 1 numbers from 0 to 1.
        gamma: how correlated the noise that is added between stages is.
        prediction_type: not read: the model predicts the flow.
        use_flow_sigmas: not read: they always are.
        use_dynamic_shifting: shift by the `mu` of `set_timesteps`.
        time_shift_type: whether `mu`, and `shift` of a flow in one stage, are the shift's logarithm, "exponential", or the shift, "linear".
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, shift: float = 1.0,
        stages: int = 3, stage_range: list[float] = [0, 1 / 3, 2 / 3, 1], gamma: float = 1 / 3, prediction_type: str = "flow_prediction",  # noqa: B006
        use_flow_sigmas: bool = True, use_dynamic_shifting: bool = False, time_shift_type: Literal["exponential", "linear"] = "linear",
    ):  # fmt: skip
        self.init_sigmas_for_each_stage()

    @staticmethod
    def _sigmas_at(timestep: Any, sigmas: Any, timesteps: Any) -> np.ndarray:
        """The sigmas of a schedule at the places nearest to some timesteps."""
        distances = abs(on_host(timesteps).reshape(1, -1) - on_host(timestep).reshape(-1, 1))
        return on_host(sigmas)[distances.argmin(axis=1)]

    def add_noise(self, original_samples: Array, noise: Array, timestep: Any, sigmas: Any, timesteps: Any) -> Array:
        """Noisy samples, (1 - sigma) original_samples + sigma noise, in the noise's dtype.

        Args:
            original_samples: clean samples, shape (batch, ...).
            noise: standard normal noise of the same shape.
            timestep: one for all or one a sample: the nearest of `timesteps` counts.
            sigmas: the schedule's.
            timesteps: the schedule's.
        """
        noise_float = cast(noise, "float32")
        sigma = per_sample(self._sigmas_at(timestep, sigmas, timesteps), noise_float)
        return cast(weighted_sum(1 - sigma, cast(original_samples, "float32"), sigma, noise_float), noise.dtype)

    def convert_flow_pred_to_x0(self, flow_pred: Array, xt: Array, timestep: Any, sigmas: Any, timesteps: Any) -> Array:
        """The clean samples that predicted flows mean, xt - sigma flow_pred, in the dtype of `flow_pred`; arguments as `add_noise`."""
        sample = cast(xt, "float32")
        sigma = per_sample(self._sigmas_at(timestep, sigmas, timesteps), sample)
        return cast(weighted_sum(1, sample, -sigma, cast(flow_pred, "float32")), flow_pred.dtype)

    def step(
        self, model_output: Array, timestep: Any = None, sample: Array = None, generator: Any = None, return_dict: bool = True,
        cur_sampling_step: int = 0,
        dmd_noisy_tensor: Array | None = None, dmd_sigmas: Any = None, dmd_timesteps: Any = None, all_timesteps: Any = None,
    ) -> HeliosDMDSchedulerOutput | tuple[Array]:  # fmt: skip
        """One step towards the clean sample, in float32. The schedule is given anew, because a stage's may be the last one's.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `all_timesteps`; as in PyTorch diffusers, its whole part is looked up.
            sample: the current sample, shape (batch, channels, frames, height, width).
            generator: not used: the noise is given.
            return_dict: return a `HeliosDMDSchedulerOutput`, else a tuple.
            cur_sampling_step: the index of `timestep` in `all_timesteps`; the last step gives the clean sample.
            dmd_noisy_tensor: the noise, shape of `sample`; its dtype is the result's.
            dmd_sigmas: the schedule's `sigmas`.
            dmd_timesteps: the schedule's `timesteps`.
            all_timesteps: the timesteps of this loop.
        """
        prev_sample = self.convert_flow_pred_to_x0(model_output, sample, int(timestep), dmd_sigmas, dmd_timesteps)
        if cur_sampling_step < len(all_timesteps) - 1:
            following = int(all_timesteps[cur_sampling_step + 1])
            prev_sample = self.add_noise(prev_sample, dmd_noisy_tensor, following, dmd_sigmas, dmd_timesteps)
        return as_output(HeliosDMDSchedulerOutput, return_dict, prev_sample)
