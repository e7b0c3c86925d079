"""Brownian noise: torchsde's path, and what makes it a path."""

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers.core.errors import ConfigError
from mindone_diffusers.core.random import manual_seed
from mindone_diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTree, BrownianTreeNoiseSampler, DPMSolverSDEScheduler

# BrownianTreeNoiseSampler(torch.zeros(1, 4), 0.03, 14.6, seed=7) of PyTorch diffusers with torchsde 0.2.6
EXPECTED = {
    (14.6, 7.0): [1.6863068, -1.5215225, 0.49028954, -1.6156656],
    (7.0, 3.21): [1.3013699, -0.016119182, 0.026225084, -2.6915696],
    (3.21, 0.5): [0.50622016, -2.848242, -1.0860915, -1.3720944],
    (0.5, 0.0301): [-0.45471179, -0.71607131, 0.85086209, 0.44222009],
}


@pytest.mark.parametrize("sigmas", EXPECTED)
def test_torchsde_numbers(sigmas: tuple[float, float]) -> None:
    noise = BrownianTreeNoiseSampler(np.zeros((1, 4), np.float32), 0.03, 14.6, seed=7)(*sigmas)
    np.testing.assert_allclose(noise[0], EXPECTED[sigmas], rtol=2**-22, atol=0)


def test_increments_add_up_in_any_order() -> None:
    def tree() -> BrownianTree:
        return BrownianTree(0.5, 9.0, (3, 4), "float64", 1)

    times = [0.5, 0.8, 2.345678, 2.345679, 6.0, 9.0]
    steps = [tree()(*ends) for ends in zip(times, times[1:])]
    np.testing.assert_allclose(np.sum(steps, axis=0), tree()(0.5, 9.0), rtol=1e-12)
    one = tree()
    backwards = [one(*ends) for ends in reversed(list(zip(times, times[1:])))]
    np.testing.assert_array_equal(backwards[::-1], steps)
    np.testing.assert_array_equal(one(0.0, 6.0), one(0.5, 6.0))  # times before the path are its start
    np.testing.assert_array_equal(one(2.0, 2.0 + 1e-7), np.zeros((3, 4)))


def test_increments_are_those_of_a_brownian_path() -> None:
    tree = BrownianTree(0.0, 10.0, (200, 200), "float32", 2)
    increments = np.stack([tree(0.3, 0.7), tree(0.7, 4.0), tree(4.0, 9.0)]).reshape(3, -1)
    covariance = np.cov(increments)
    np.testing.assert_allclose(covariance, np.diag([0.4, 3.3, 5.0]), atol=0.1)
    np.testing.assert_allclose(covariance[0, 0], 0.4, atol=0.01)


def test_sampler_kinds_and_seeds() -> None:
    x = np.zeros((2, 3), np.float32)
    noise = BrownianTreeNoiseSampler(x, 0.1, 9.0, seed=[4, 5])(6.0, 2.0)
    for seed, row in zip((4, 5), noise):
        np.testing.assert_array_equal(BrownianTreeNoiseSampler(x[0], 0.1, 9.0, seed=seed)(6.0, 2.0), row)
    same = BrownianTreeNoiseSampler(ms.Tensor(x), 0.1, 9.0, seed=[4, 5])(6.0, 2.0)
    assert isinstance(same, ms.Tensor)
    np.testing.assert_array_equal(same.asnumpy(), noise)
    half = BrownianTreeNoiseSampler(x.astype(np.float16), 0.1, 9.0, seed=[4, 5])(6.0, 2.0)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(BrownianTreeNoiseSampler(x, 0.1, 9.0, seed=[4, 5])(2.0, 6.0), -noise)
    logs = BrownianTreeNoiseSampler(x, 0.1, 9.0, seed=3, transform=lambda sigma: -np.log(sigma))
    path = BrownianTree(float(-np.log(np.float32(9))), float(-np.log(np.float32(0.1))), x.shape, "float32", 3)
    start, end = (float(-np.log(np.float32(sigma))) for sigma in (6.0, 2.0))
    np.testing.assert_allclose(logs(6.0, 2.0), -path(start, end) / np.sqrt(end - start), rtol=1e-6)
    with pytest.raises(ConfigError, match="3 seeds for a batch of 2"):
        BrownianTreeNoiseSampler(x, 0.1, 9.0, seed=[1, 2, 3])


def test_unseeded_noise_is_the_library_seeds() -> None:
    def draw(seed: int) -> np.ndarray:
        manual_seed(seed)
        return BrownianTreeNoiseSampler(np.zeros((1, 4), np.float32), 0.1, 9.0)(5.0, 1.0)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).all()


def test_scheduler_seed() -> None:
    def loop(seed: int) -> np.ndarray:
        scheduler = DPMSolverSDEScheduler(noise_sampler_seed=seed)
        scheduler.set_timesteps(3)
        x = np.ones((1, 2, 4, 4), np.float32)
        for timestep in scheduler.timesteps:
            x = scheduler.step(np.sin(x), timestep, x).prev_sample
        return x

    np.testing.assert_array_equal(loop(0), loop(0))
    assert np.abs(loop(0) - loop(1)).max() > 0.1
