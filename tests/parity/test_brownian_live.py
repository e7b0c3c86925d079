"""Brownian noise and the solver of the SDE against torchsde, with the same seeds."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchsde")
upstream = pytest.importorskip("diffusers.schedulers.scheduling_dpmsolver_sde")

from mindone_diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler, DPMSolverSDEScheduler  # noqa: E402
from tests.schedulers.runner import SD, model  # noqa: E402


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape, seed", [((1, 2, 4, 4), 0), ((2, 4, 8, 8), 2**62 + 5), ((3, 5), [5, 6, 7]), ((1, 4, 32, 32), 1)])
def test_sampler(shape: tuple[int, ...], seed, dtype: str) -> None:
    x = np.zeros(shape, dtype)
    ours = BrownianTreeNoiseSampler(x, 0.0292, 14.61, seed)
    theirs = upstream.BrownianTreeNoiseSampler(torch.from_numpy(x), 0.0292, 14.61, seed)
    sigmas = [14.61, *np.sort(np.random.default_rng(0).uniform(0.0292, 14.61, 8))[::-1].tolist(), 0.02925]
    for sigma, sigma_next in zip(sigmas, sigmas[1:]):
        got, expected = ours(sigma, sigma_next), theirs(sigma, sigma_next).numpy()
        assert got.dtype == expected.dtype
        if dtype == "float16":  # PyTorch adds up in float16
            np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=0, atol=0.1)
        else:  # equal but for the last bit of PyTorch's float32 root of the time between, and the rounding after it
            np.testing.assert_allclose(got, expected, rtol=2**-22, atol=0)


@pytest.mark.parametrize("steps", [5, 20])
def test_whole_loops_with_a_seed(steps: int) -> None:
    """As the class says: to 1e-3, for a last bit of a float32 logarithm moves the times the path is asked for."""
    results = []
    for scheduler, kind in ((DPMSolverSDEScheduler(**SD, noise_sampler_seed=4), np.asarray),
                            (upstream.DPMSolverSDEScheduler(**SD, noise_sampler_seed=4), torch.from_numpy)):  # fmt: skip
        scheduler.set_timesteps(steps)
        x = kind(np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32) * np.float32(scheduler.init_noise_sigma))
        samples = []
        for timestep in scheduler.timesteps:
            scaled = np.asarray(scheduler.scale_model_input(x, timestep))
            x = scheduler.step(kind(model(scaled, float(timestep), 2)), timestep, x).prev_sample
            samples.append(np.asarray(x))
        results.append(np.stack(samples))
    difference = np.abs(results[0] - results[1]).max(axis=(1, 2, 3, 4)) / np.abs(results[1]).max(axis=(1, 2, 3, 4))
    assert difference.max() < 1e-3
