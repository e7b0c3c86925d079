"""Stochastic DPM-Solver++, multistep, for models conditioned on the angle of a cosine schedule (Stable Audio, arXiv 2407.14358)."""

import math
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from .arrays import Array, alike
from .scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from .scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from .tables import expect


class CosineDPMSolverMultistepScheduler(EDMDPMSolverMultistepScheduler):
    """`EDMDPMSolverMultistepScheduler`'s "sde-dpmsolver++", with timesteps 2 / pi arctan(sigma) and Brownian noise.

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        sigma_data: standard deviation of the data.
        sigma_schedule: "exponential" or "karras" (arXiv 2206.00364, equation 5).
        num_train_timesteps: number of noise levels before `set_timesteps`.
        solver_order: 1 or 2.
        prediction_type: "epsilon" or "v_prediction".
        rho: exponent of the "karras" sigmas.
        solver_type: of second-order steps, "midpoint" or "heun".
        lower_order_final: a last step of order 1 in runs of fewer than 15 steps.
        euler_at_final: a last step of order 1 in any run.
        final_sigmas_type: noise level of the finished sample: "zero" or "sigma_min" (whose last step is NaN in PyTorch diffusers).

    Raises:
        ConfigError: an unknown `sigma_schedule`, or another `solver_order`.
        UnsupportedError: an unknown `solver_type`.
    """

    _algorithm = "sde-dpmsolver++"

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.3, sigma_max: float = 500, sigma_data: float = 1.0,
        sigma_schedule: Literal["exponential", "karras"] = "exponential", num_train_timesteps: int = 1000, solver_order: int = 2,
        prediction_type: Literal["epsilon", "sample", "v_prediction"] = "v_prediction", rho: float = 7.0,
        solver_type: Literal["midpoint", "heun"] = "midpoint", lower_order_final: bool = True, euler_at_final: bool = False,
        final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
    ):  # fmt: skip
        expect("solver_order", solver_order, (1, 2))
        self._check_solver()
        self._set_ramp(num_train_timesteps, 0.0)

    def _forget(self) -> None:
        super()._forget()
        self.noise_sampler: BrownianTreeNoiseSampler | None = None

    def precondition_noise(self, sigma: float | np.ndarray) -> np.ndarray:
        """The timesteps of these noise levels, 2 / pi arctan(sigma), float32 of at least one dimension."""
        return np.arctan(np.atleast_1d(np.asarray(sigma, dtype=np.float32))) / np.float32(math.pi) * 2

    def _step_noise(self, model_output: Array, generator: Any, dtype: Any = None) -> Array | None:
        sigma, sigma_next = (float(self.sigmas[self._step_index + i]) for i in range(2))
        if self.noise_sampler is None:
            seed = None
            if generator is not None:
                seed = [one.initial_seed() for one in generator] if isinstance(generator, list) else generator.initial_seed()
            self.noise_sampler = BrownianTreeNoiseSampler(model_output, self.config.sigma_min, self.config.sigma_max, seed)
        return alike(self.noise_sampler(sigma, sigma_next), model_output) if sigma != sigma_next else None
