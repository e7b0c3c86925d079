"""DDIM as CogVideoX uses it (arXiv 2408.06072): shifted signal-to-noise ratios, and nothing clipped."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array
from .scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from .tables import cumulative_product, zero_terminal_snr


class CogVideoXDDIMScheduler(DDIMScheduler):
    """Deterministic DDIM on a schedule whose signal-to-noise ratios are divided by `snr_shift_scale`.

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" (in float64) or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        clip_sample: not used, as `clip_sample_range` and `sample_max_value`: they are only kept in the config.
        set_alpha_to_one: the last step ends at a clean sample, instead of at timestep 0.
        steps_offset: added to "leading" timesteps.
        prediction_type: "epsilon", "sample" or "v_prediction".
        clip_sample_range: not used.
        sample_max_value: not used.
        timestep_spacing: "leading", "trailing" or "linspace" (arXiv 2305.08891, table 2).
        rescale_betas_zero_snr: make the last timestep pure noise (arXiv 2305.08891); `betas` stay as they are.
        snr_shift_scale: see above.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.0120,
        beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear",
        trained_betas: np.ndarray | list[float] | None = None, clip_sample: bool = True, set_alpha_to_one: bool = True,
        steps_offset: int = 0, prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon", clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0, timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading",
        rescale_betas_zero_snr: bool = False, snr_shift_scale: float = 3.0,
    ):  # fmt: skip
        self.betas = self._make_betas()
        if beta_schedule == "scaled_linear" and trained_betas is None:
            self.betas = np.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2
        self.alphas = 1 - self.betas
        alphas_cumprod = cumulative_product(self.alphas)
        self.alphas_cumprod = alphas_cumprod / (snr_shift_scale + (1 - snr_shift_scale) * alphas_cumprod)
        if rescale_betas_zero_snr:
            self.alphas_cumprod = zero_terminal_snr(self.alphas_cumprod)
        self._set_training_timesteps()

    def step(
        self, model_output: Array, timestep: int, sample: Array, eta: float = 0.0, use_clipped_model_output: bool = False,
        generator: Any = None, variance_noise: Array | None = None, return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """One step towards the clean sample: DDIM's equation 12 without noise.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            eta: not used, as `use_clipped_model_output`, `generator` and `variance_noise`: steps are deterministic.
            use_clipped_model_output: not used.
            generator: not used.
            variance_noise: not used.
            return_dict: return a `DDIMSchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or an unknown `prediction_type`.
        """
        return super().step(model_output, timestep, sample, return_dict=return_dict)

    @staticmethod
    def _limit(pred_original_sample: Array, config: Any) -> Array:
        return pred_original_sample
