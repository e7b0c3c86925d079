"""DDIM inversion: from a clean sample to the noise that DDIM makes it from (arXiv 2010.02502, section 4.3)."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array
from .cores import clip
from .scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput, transfer_levels
from .scheduling_utils import as_output


class DDIMInverseScheduler(DDIMScheduler):
    """DDIM backwards, with ascending timesteps.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        clip_sample: clip the predicted clean sample to +-`clip_sample_range`.
        set_alpha_to_one: the first step starts at a clean sample, instead of at timestep 0.
        steps_offset: added to "leading" timesteps.
        prediction_type: "epsilon", "sample" or "v_prediction".
        clip_sample_range: see `clip_sample`.
        timestep_spacing: "leading" or "trailing" (arXiv 2305.08891, table 2).
        rescale_betas_zero_snr: make the last timestep pure noise (arXiv 2305.08891).
        set_alpha_to_zero: an old name of `set_alpha_to_one`, which it replaces.
    """

    _compatibles = []
    _limit = staticmethod(clip)
    ignore_for_config = ["set_alpha_to_zero"]

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02,
        beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear",
        trained_betas: np.ndarray | list[float] | None = None, clip_sample: bool = True, set_alpha_to_one: bool = True,
        steps_offset: int = 0, prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon", clip_sample_range: float = 1.0,
        timestep_spacing: Literal["leading", "trailing"] = "leading", rescale_betas_zero_snr: bool = False,
        set_alpha_to_zero: bool | None = None,
    ):  # fmt: skip
        self._set_betas()
        if set_alpha_to_zero is not None:
            self.final_alpha_cumprod = 1.0 if set_alpha_to_zero else float(self.alphas_cumprod[0])
        self.initial_alpha_cumprod = self.final_alpha_cumprod
        self.timesteps = self.timesteps[::-1]

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: more steps than the training schedule has, or a `timestep_spacing` that is neither "leading" nor "trailing".
        """
        if self.config.timestep_spacing == "linspace":
            raise ConfigError("timestep_spacing is 'linspace'; DDIMInverseScheduler takes 'leading' or 'trailing'")
        super().set_timesteps(num_inference_steps)
        self.timesteps = self.timesteps[::-1]

    def step(
        self, model_output: Array, timestep: int, sample: Array, return_dict: bool = True
    ) -> DDIMSchedulerOutput | tuple[Array, Array]:
        """One step towards noise: DDIM's equation 12, from the noise level below to that of `timestep`.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `DDIMSchedulerOutput`, else a tuple.

        Raises:
            ConfigError: unknown `prediction_type`; or "sample" with `set_alpha_to_one`, which is NaN in PyTorch diffusers: a clean sample
                has no noise to be read off.
            ValueError: no `set_timesteps` before.
        """
        alpha = self._alpha_cumprod(min(self._next_timestep(timestep), len(self) - 1))
        if alpha == 1 and self.config.prediction_type == "sample":
            raise ConfigError("with 'sample' there is no noise to read off the clean sample of the first step: set set_alpha_to_one=False")
        levels = transfer_levels(alpha, self._alpha_cumprod(int(timestep)))
        prev_sample, original = self._transfer(model_output, sample, levels)
        return as_output(DDIMSchedulerOutput, return_dict, prev_sample, original)
