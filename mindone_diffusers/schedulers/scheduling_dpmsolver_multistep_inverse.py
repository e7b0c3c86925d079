"""DPM-Solver and DPM-Solver++ run backwards, from a clean sample to noise."""

from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import on_host
from .scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler


class DPMSolverMultistepInverseScheduler(DPMSolverMultistepScheduler):
    """DPM-Solver (arXiv 2206.00927, 2211.01095) steps towards noise: `DPMSolverMultistepScheduler` with ascending sigmas.

    Flow sigmas descend, as PyTorch diffusers' do. Ascending sigmas have no stochastic steps: PyTorch's are NaN, here they are refused.

    Args:
        num_train_timesteps: as `DPMSolverMultistepScheduler`, like all others.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        solver_order: 1, 2 or 3.
        prediction_type: "epsilon", "sample", "v_prediction", or, with the "++" algorithms, "flow_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487).
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        algorithm_type: "dpmsolver", "dpmsolver++", "sde-dpmsolver" or "sde-dpmsolver++".
        solver_type: of second-order steps, "midpoint" or "heun".
        lower_order_final: steps of order 2 and 1 at the end of runs of fewer than 15 steps.
        euler_at_final: a last step of order 1 in any run.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364).
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        use_flow_sigmas: sigmas of rectified flow: x_t = (1 - sigma) x_0 + sigma noise.
        flow_shift: their shift towards noise.
        lambda_min_clipped: timesteps with a smaller lambda are not used.
        variance_type: "learned" or "learned_range" if the model also predicts a variance, after the mean's three channels.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.

    Raises:
        ConfigError: options that exclude each other.
        UnsupportedError: an unknown `algorithm_type`, `solver_type` or `beta_schedule`.
    """

    _in_float32 = False

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02,
        beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear",
        trained_betas: np.ndarray | list[float] | None = None, solver_order: int = 2,
        prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] = "epsilon",
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, sample_max_value: float = 1.0,
        algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"] = "dpmsolver++",
        solver_type: Literal["midpoint", "heun"] = "midpoint", lower_order_final: bool = True, euler_at_final: bool = False,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        use_flow_sigmas: bool = False, flow_shift: float = 1.0,
        lambda_min_clipped: float = -float("inf"), variance_type: Literal["learned", "learned_range"] | None = None,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace", steps_offset: int = 0,
    ):  # fmt: skip
        self._check_solver("dpmsolver++", "dpmsolver", "sde-dpmsolver", "sde-dpmsolver++")
        if self.config.algorithm_type.startswith("sde") and not use_flow_sigmas:
            raise ConfigError(
                f"algorithm_type {algorithm_type!r} has no noise to add in steps towards noise: use 'dpmsolver++' or 'dpmsolver'"
            )
        self._set_tables()
        self.timesteps = self.timesteps[::-1]

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Choose timesteps and sigmas, ascending.

        Args:
            num_inference_steps: how many; equal ones are left out.
            device: ignored, timesteps stay on the host.
        """
        sigmas, timesteps = self._schedule(num_inference_steps, flow_shift=self.config.flow_shift)
        self.noisiest_timestep = self._used_timesteps() - 1
        last = self._sigma_beyond(sigmas, self.noisiest_timestep)
        if self.config.use_karras_sigmas:
            timesteps = timesteps.astype(np.int64)
        _, first = np.unique(timesteps, return_index=True)
        self._begin_run(sigmas, last, timesteps[np.sort(first)])

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Any = None) -> int:
        """Where a timestep is in the schedule: its first place, where PyTorch's is the second, or the last index if it is not there.

        Timesteps are truncated, so that the first two may well be 0: PyTorch then starts at the second and fails at the end.
        """
        schedule = self.timesteps if schedule_timesteps is None else on_host(schedule_timesteps)
        return int(np.append(np.flatnonzero(schedule == on_host(timestep)), len(schedule) - 1)[0])

    def _optional_sigmas(self, sigma_max: float, sigma_min: float, num: int) -> np.ndarray | None:
        return super()._optional_sigmas(sigma_min, sigma_max, num)

    def _rounds_timesteps(self) -> bool:
        return self.config.use_karras_sigmas

    def _timestep_grid(self, num_inference_steps: int) -> np.ndarray:
        if self.config.timestep_spacing == "trailing":
            return super()._timestep_grid(num_inference_steps)[::-1]
        return super()._timestep_grid(num_inference_steps + 1, extra=0)[:0:-1]  # dropped at the noisy end
