"""Euler's method for models in EDM's formulation (arXiv 2206.00364)."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, cast, on_host, weighted_sum
from .cores import EDMMixin, SigmaScheduler
from .scheduling_utils import DenoisedSchedulerOutput

EDMEulerSchedulerOutput = DenoisedSchedulerOutput


class EDMEulerScheduler(EDMMixin, SigmaScheduler):
    """Euler steps between noise levels, with EDM's preconditioning and optionally some noise added before each ("churn").

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        sigma_data: standard deviation of the data.
        sigma_schedule: "karras" (arXiv 2206.00364, equation 5) or "exponential".
        num_train_timesteps: number of noise levels before `set_timesteps`.
        prediction_type: "epsilon" or "v_prediction".
        rho: exponent of the "karras" sigmas.
        final_sigmas_type: noise level of the finished sample: "zero" or "sigma_min".

    Raises:
        ConfigError: an unknown `sigma_schedule` or `final_sigmas_type`.
    """

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5,
        sigma_schedule: Literal["karras", "exponential"] = "karras", num_train_timesteps: int = 1000,
        prediction_type: Literal["epsilon", "v_prediction"] = "epsilon", rho: float = 7.0,
        final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
    ):  # fmt: skip
        self._set_ramp(np.arange(num_train_timesteps + 1) / num_train_timesteps)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: np.ndarray | list[float] | None = None
    ) -> None:
        """Choose timesteps and sigmas: give `num_inference_steps` or `sigmas`.

        Args:
            num_inference_steps: how many steps, evenly spaced on the schedule.
            device: ignored, timesteps stay on the host.
            sigmas: as in PyTorch diffusers no noise levels, but places on the schedule: 0 is `sigma_max`, 1 is `sigma_min`. The
                "exponential" schedule looks only at how many there are.
        """
        self.num_inference_steps = num_inference_steps
        self._set_ramp(np.linspace(0, 1, num_inference_steps) if sigmas is None else on_host(sigmas).astype(np.float64))

    def _set_ramp(self, ramp: np.ndarray) -> None:
        self._set_edm_tables(ramp)
        self._restart()

    def step(
        self, model_output: Array, timestep: float, sample: Array,
        s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = float("inf"), s_noise: float = 1.0,
        generator: Any = None, return_dict: bool = True, pred_original_sample: Array | None = None,
    ) -> EDMEulerSchedulerOutput | tuple[Array, Array]:  # fmt: skip
        """One step towards the clean sample, in float32.

        Args:
            model_output: the model's prediction, shape of `sample`; its dtype is the result's.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            s_churn: how much noise is added in all, where `s_tmin <= sigma <= s_tmax`.
            s_tmin: see `s_churn`.
            s_tmax: see `s_churn`.
            s_noise: standard deviation of that noise.
            generator: draws it.
            return_dict: return an `EDMEulerSchedulerOutput`, else a tuple.
            pred_original_sample: the clean sample, if it is known already; `model_output` then only gives the dtype.

        Raises:
            ValueError: an integer timestep, or an unknown `prediction_type`.
            TimestepError: `timestep` is not in the schedule.
        """
        self._refuse_integer(timestep)
        index = self._begin_step(timestep)
        sample, sigma_hat = self._churn(model_output, cast(sample, "float32"), s_churn, s_tmin, s_tmax, s_noise, generator, index)
        original = pred_original_sample
        if original is None:
            original = self.precondition_outputs(sample, model_output, sigma_hat)
        kept = float(self.sigmas[index + 1]) / sigma_hat
        prev_sample = cast(weighted_sum(kept, sample, 1 - kept, original), model_output.dtype)

        return self._end_step(EDMEulerSchedulerOutput, return_dict, prev_sample, original)
