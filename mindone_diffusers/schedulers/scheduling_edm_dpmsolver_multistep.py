"""DPM-Solver++ (arXiv 2211.01095), multistep, for models in EDM's formulation (arXiv 2206.00364)."""

from typing import Any, Literal

from ..core.configuration import register_to_config
from .arrays import Array
from .cores import EDMMixin
from .scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from .scheduling_utils import SchedulerOutput
from .tables import linspace_float32


class EDMDPMSolverMultistepScheduler(EDMMixin, DPMSolverMultistepScheduler):
    """`DPMSolverMultistepScheduler`'s steps on samples x_0 + sigma noise, with EDM's sigmas and preconditioning.

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        sigma_data: standard deviation of the data.
        sigma_schedule: "karras" (arXiv 2206.00364, equation 5) or "exponential".
        num_train_timesteps: number of noise levels before `set_timesteps`.
        prediction_type: "epsilon" or "v_prediction".
        rho: exponent of the "karras" sigmas.
        solver_order: 1, 2 (for guided sampling) or 3 (for unconditional sampling; PyTorch diffusers has none for "sde-dpmsolver++").
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487).
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        algorithm_type: "dpmsolver++", or its stochastic variant "sde-dpmsolver++".
        solver_type: of second-order steps, "midpoint" or "heun".
        lower_order_final: steps of order 2 and 1 at the end of runs of fewer than 15 steps.
        euler_at_final: a last step of order 1 in any run.
        final_sigmas_type: noise level of the finished sample: "zero" or "sigma_min".

    Raises:
        ConfigError: an unknown `sigma_schedule`.
        UnsupportedError: an unknown `algorithm_type` or `solver_type`.
    """

    _in_float32 = False

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5,
        sigma_schedule: Literal["karras", "exponential"] = "karras", num_train_timesteps: int = 1000,
        prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon", rho: float = 7.0, solver_order: int = 2,
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, sample_max_value: float = 1.0,
        algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++", solver_type: Literal["midpoint", "heun"] = "midpoint",
        lower_order_final: bool = True, euler_at_final: bool = False, final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
    ):  # fmt: skip
        self._check_solver("dpmsolver++", "sde-dpmsolver++")
        self._set_ramp(num_train_timesteps, 0.0)

    def _set_ramp(self, num: int, last: float) -> None:
        self._set_edm_tables(linspace_float32(0, 1, num), last)
        self._forget()

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many.
            device: ignored, timesteps stay on the host.

        Raises:
            ConfigError: an unknown `final_sigmas_type`.
        """
        self.num_inference_steps = num_inference_steps
        self._set_ramp(num_inference_steps, self._last_sigma(self.config.sigma_min))

    def _sigma_to_alpha_sigma_t(self, sigma: Any) -> tuple[Any, Any]:
        return sigma**0, sigma

    def convert_model_output(self, model_output: Array, sample: Array) -> Array:
        """The predicted clean sample, limited if the config says so.

        Args:
            model_output: the model's prediction.
            sample: the current sample.

        Raises:
            ConfigError: `prediction_type` is neither "epsilon" nor "v_prediction".
        """
        return self._limited(self.precondition_outputs(sample, model_output, float(self.sigmas[self._step_index])))

    def step(
        self, model_output: Array, timestep: float, sample: Array, generator: Any = None, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            generator: draws the noise of a stochastic variant.
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or an unknown `prediction_type`.
        """
        return super().step(model_output, timestep, sample, generator, return_dict=return_dict)
