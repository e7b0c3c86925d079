"""UniPC: a predictor and a corrector of any order for diffusion ODEs (arXiv 2302.04867)."""

import math
from itertools import chain
from typing import Any, Literal

import numpy as np

from ..core.configuration import register_to_config
from ..core.errors import ConfigError
from .arrays import Array, weighted_sum
from .flows import TimeShiftMixin
from .scheduling_utils import SchedulerMixin, SchedulerOutput
from .solvers import LogSNRScheduler
from .tables import shift_flow, sigmas_of, stretch_shift_to_terminal


class UniPCMultistepScheduler(TimeShiftMixin, LogSNRScheduler):
    """Exponential-integrator steps (UniP) whose result is corrected when the next model output is known (UniC).

    Args:
        num_train_timesteps: length of the training schedule.
        beta_start: first beta.
        beta_end: last beta.
        beta_schedule: "linear", "scaled_linear" or "squaredcos_cap_v2".
        trained_betas: betas that replace the schedule.
        solver_order: any from 1; 2 for guided and 3 for unconditional sampling. The corrector adds one.
        prediction_type: "epsilon", "sample", "v_prediction", or, with `predict_x0`, "flow_prediction".
        thresholding: dynamic thresholding, for pixel-space models (arXiv 2205.11487), with `predict_x0`.
        dynamic_thresholding_ratio: its quantile.
        sample_max_value: the largest threshold.
        predict_x0: integrate the predicted clean sample; else the predicted noise, which needs final_sigmas_type "sigma_min" (in PyTorch
            diffusers the last step is NaN otherwise).
        solver_type: B(h): "bh1" for few steps of unconditional sampling, else "bh2". (PyTorch diffusers' last "bh1" step to zero is NaN.)
        lower_order_final: orders no higher than the number of steps left. A last step to a noise level of zero is of order 1 anyway.
        disable_corrector: steps whose result is not corrected.
        solver_p: a scheduler that predicts instead of UniP.
        use_karras_sigmas: sigmas evenly spaced in sigma^(1/7) (arXiv 2206.00364); with flow sigmas, sigma / (1 + sigma) of these.
        use_exponential_sigmas: sigmas evenly spaced in log(sigma).
        use_beta_sigmas: sigmas at quantiles of a beta distribution (arXiv 2407.12173).
        use_flow_sigmas: sigmas of rectified flow: x_t = (1 - sigma) x_0 + sigma noise.
        flow_shift: their shift towards noise.
        timestep_spacing: "linspace", "leading" or "trailing" (arXiv 2305.08891, table 2).
        steps_offset: added to "leading" timesteps.
        final_sigmas_type: the finished sample's noise level, "zero" or "sigma_min".
        rescale_betas_zero_snr: make the last timestep (nearly) pure noise (arXiv 2305.08891).
        use_dynamic_shifting: take the flow's shift from `set_timesteps(mu=...)`.
        time_shift_type: of dynamic shifting, "exponential" (the shift is exp(mu)) or "linear" (it is mu).
        sigma_min: smallest of the Karras, exponential or beta sigmas.
        sigma_max: largest of them.
        shift_terminal: what the last flow sigma is stretched to.

    Raises:
        ConfigError: options that exclude each other.
        UnsupportedError: an unknown `solver_type` or `beta_schedule`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None, solver_order: int = 2,
        prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] = "epsilon",
        thresholding: bool = False, dynamic_thresholding_ratio: float = 0.995, sample_max_value: float = 1.0, predict_x0: bool = True,
        solver_type: Literal["bh1", "bh2"] = "bh2", lower_order_final: bool = True, disable_corrector: list[int] = [],  # noqa: B006
        solver_p: SchedulerMixin | None = None,
        use_karras_sigmas: bool = False, use_exponential_sigmas: bool = False, use_beta_sigmas: bool = False,
        use_flow_sigmas: bool = False, flow_shift: float = 1.0,
        timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace", steps_offset: int = 0,
        final_sigmas_type: Literal["zero", "sigma_min"] = "zero", rescale_betas_zero_snr: bool = False,
        use_dynamic_shifting: bool = False, time_shift_type: Literal["exponential", "linear"] = "exponential",
        sigma_min: float | None = None, sigma_max: float | None = None, shift_terminal: float | None = None,
    ):  # fmt: skip
        if shift_terminal is not None and not use_flow_sigmas:
            raise ConfigError("`shift_terminal` stretches flow sigmas: it needs use_flow_sigmas=True")
        if not predict_x0 and final_sigmas_type == "zero":
            raise ConfigError("final_sigmas_type 'zero' does not go with predict_x0=False; use 'sigma_min'")
        self._accept_solver()
        self.predict_x0, self.disable_corrector, self.solver_p = predict_x0, disable_corrector, solver_p
        self._set_tables(flow_alone=False)

    def _accept_solver(self) -> None:
        self._accept("solver_type", ("bh2", "bh1"), foreign=("midpoint", "heun", "logrho"))  # a DPM-Solver's or a DEIS's config

    def _forget(self) -> None:
        super()._forget()
        self.last_sample: Array | None = None

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: list[float] | None = None, mu: float | None = None
    ) -> None:
        """Choose timesteps and sigmas.

        Args:
            num_inference_steps: how many; replaced by the number of `sigmas`.
            device: ignored, timesteps stay on the host.
            sigmas: flow sigmas before their shift, descending, without the last; of Karras sigmas, only how many and between what ends.
            mu: the flow's shift, or its logarithm (`time_shift_type`), with `use_dynamic_shifting`.

        Raises:
            ConfigError: `sigmas` without flow sigmas, or with exponential or beta sigmas; no `mu` for dynamic shifting; flow sigmas not
                below 1; an unknown name in the config.
        """
        config = self.config
        if config.use_dynamic_shifting and mu is None:
            raise ConfigError("use_dynamic_shifting=True takes the shift from `set_timesteps(mu=...)`: pass `mu`")
        if sigmas is not None:
            if not config.use_flow_sigmas or config.use_exponential_sigmas or config.use_beta_sigmas:
                raise ConfigError("`sigmas` are flow sigmas: they need use_flow_sigmas=True, and no exponential or beta sigmas")
            sigmas, num_inference_steps = np.asarray(sigmas), len(sigmas)
        elif num_inference_steps is None:
            raise ConfigError("pass `num_inference_steps` or `sigmas` to `set_timesteps`")

        length = config.num_train_timesteps
        if not config.use_flow_sigmas or config.use_exponential_sigmas or config.use_beta_sigmas:
            sigmas, timesteps = self._schedule(num_inference_steps)
        else:
            if config.use_karras_sigmas:
                table = sigmas_of(self.alphas_cumprod) if sigmas is None else sigmas
                sigmas = self._optional_sigmas(table[-1].item(), table[0].item(), num_inference_steps)
                sigmas = sigmas / (sigmas + 1)
            else:
                if sigmas is None:
                    sigmas = np.linspace(1, 1 / length, num_inference_steps + 1)[:-1]
                sigmas = self.time_shift(mu, 1.0, sigmas) if config.use_dynamic_shifting else shift_flow(sigmas, config.flow_shift)
                if config.shift_terminal:
                    sigmas = self.stretch_shift_to_terminal(sigmas)
                if abs(sigmas[0] - 1) < 1e-6:
                    sigmas[0] -= 1e-6  # lambda is infinite at 1
            timesteps = sigmas * length
        if config.use_flow_sigmas and max(sigmas) >= 1:
            raise ConfigError(f"the largest flow sigma is {max(sigmas)}; it has to be below 1: pass other sigmas, or set `sigma_max`")
        self._begin_run(sigmas, self._last_sigma(self._sigma_beyond(sigmas)), timesteps)
        if self.solver_p is not None:
            self.solver_p.set_timesteps(self.num_inference_steps)

    def stretch_shift_to_terminal(self, t: np.ndarray) -> np.ndarray:
        """Descending flow noise levels, stretched about 1 so that the last is `shift_terminal`."""
        return stretch_shift_to_terminal(t, self.config.shift_terminal)

    def convert_model_output(self, model_output: Array, *, sample: Array) -> Array:
        """What the solver integrates: the predicted clean sample, or, without `predict_x0`, the predicted noise.

        Args:
            model_output: the model's prediction.
            sample: the current sample.

        Raises:
            ConfigError: a `prediction_type` that is unknown or needs `predict_x0`.
        """
        return (self._predict_original if self.predict_x0 else self._predict_noise)(model_output, sample)

    def multistep_uni_p_bh_update(self, model_output: Array, *, sample: Array, order: int) -> Array:
        """The predictor's step, or that of `solver_p`.

        Args:
            model_output: the model's prediction, not converted; only `solver_p` takes it.
            sample: the current sample.
            order: how many of the last converted model outputs to use.
        """
        if self.solver_p is not None:
            return self.solver_p.step(model_output, self.timesteps[self._step_index], sample).prev_sample
        return self._bh_update(sample, order, self._levels_at(self._step_index), self._levels_at(self._step_index + 1))

    def multistep_uni_c_bh_update(self, this_model_output: Array, *, last_sample: Array, this_sample: Array, order: int) -> Array:
        """The last step again, with the model output at its end.

        Args:
            this_model_output: the converted output at the current step.
            last_sample: the sample of the last step, corrected.
            this_sample: what the predictor made of it; not used.
            order: the predictor's.
        """
        levels = self._levels_at(self._step_index - 1), self._levels_at(self._step_index)
        return self._bh_update(last_sample, order, *levels, this_model_output)

    def _corrects(self) -> bool:
        return self.last_sample is not None and self._step_index > 0 and self._step_index - 1 not in self.disable_corrector

    def _order(self) -> int:
        order = min(self.config.solver_order, self.lower_order_nums + 1)
        if self._levels_at(self._step_index + 1)[2] == math.inf:
            return 1
        return min(order, len(self.timesteps) - self._step_index) if self.config.lower_order_final else order

    def _bh_update(
        self, sample: Array, order: int, start: tuple[float, ...], end: tuple[float, ...], corrected: Array | None = None
    ) -> Array:
        """From one noise level to another, with a polynomial through the last outputs (and the one at the end).

        The weights of the outputs' differences solve a Vandermonde system (theorem 3.1), but the predictor's of order 2 and the
        corrector's of order 1 are 1/2 (section 3.3).
        """
        (alpha_s, sigma_s, lambda_s), (alpha, sigma, lambda_t) = start, end
        h = lambda_t - lambda_s
        if h == 0:  # the last step may be between equal noise levels; PyTorch's is NaN if not of order 1
            return sample
        z, keep, factor = (-h, sigma / sigma_s, -alpha) if self.predict_x0 else (h, alpha / alpha_s, -sigma)
        phi = math.expm1(z)
        index = self._step_index - (corrected is not None)
        places = [(self._levels_at(index - i)[2] - lambda_s) / h for i in range(1, order)]
        outputs = [self.model_outputs[-1 - i] for i in range(1, order)]
        if corrected is not None:
            places, outputs = [*places, 1.0], [*outputs, corrected]
        scale = z if self.config.solver_type == "bh1" else phi
        weights = [0.5] * len(places)
        if len(places) > 1:
            targets, term = [], phi / z - 1
            for k in range(1, len(places) + 1):
                targets.append(term * math.factorial(k) / scale)
                term = term / z - 1 / math.factorial(k + 1)
            weights = np.linalg.solve(np.vander(places, increasing=True).T, targets)
        weights = [float(factor * scale * weight / place) for weight, place in zip(weights, places, strict=True)]
        of_last = factor * phi - sum(weights)  # the others weigh the differences from it
        return weighted_sum(keep, sample, of_last, self.model_outputs[-1], *chain(*zip(weights, outputs, strict=True)))

    def step(self, model_output: Array, timestep: int, sample: Array, return_dict: bool = True) -> SchedulerOutput | tuple[Array]:
        """One step towards the clean sample.

        Args:
            model_output: the model's prediction, shape of `sample`.
            timestep: the current one of `timesteps`.
            sample: the current sample, shape (batch, ...).
            return_dict: return a `SchedulerOutput`, else a tuple.

        Raises:
            ValueError: no `set_timesteps` before, or a `prediction_type` that is unknown or needs `predict_x0`.
        """
        self._begin_step(timestep)
        converted = self.convert_model_output(model_output, sample=sample)
        if self._corrects():
            sample = self.multistep_uni_c_bh_update(converted, last_sample=self.last_sample, this_sample=sample, order=self.this_order)
        self._remember(converted)
        self.this_order, self.last_sample = self._order(), sample
        prev_sample = self.multistep_uni_p_bh_update(model_output, sample=sample, order=self.this_order)
        return self._end_step(SchedulerOutput, return_dict, prev_sample)
