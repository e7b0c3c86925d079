"""Noise schedules and step grids: pure functions from numbers to NumPy tables on the host.

PyTorch diffusers builds its betas, cumulative products and sigmas in float32, and every later number depends on their last bits. So these
tables are rounded to float32 at the same places; everything computed from them is float64.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core.errors import ConfigError, UnsupportedError


def expect(name: str, value: Any, expected: Iterable, error: type[Exception] = ConfigError) -> None:
    """Refuse a value of an argument that is none of the expected.

    Raises:
        ConfigError: it is none of them, or the other error given.
    """
    if value not in expected:
        raise error(f"{name} is {value!r}; expected one of {', '.join(map(str, expected))}")


def linspace_float32(start: float, end: float, num: int) -> np.ndarray:
    """`torch.linspace` to the last bit: float32 steps with a fused multiply-add, counted from the nearer end."""
    start, end = np.float32(start), np.float32(end)
    step = np.float64((end - start) / np.float32(max(num - 1, 1)))
    index = np.arange(num)
    return np.where(index < max(num // 2, 1), start + step * index, end - step * (num - 1 - index)).astype(np.float32)


# ---- betas


def _cosine(t: np.ndarray) -> np.ndarray:
    return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2


def _exponential(t: np.ndarray) -> np.ndarray:
    return np.exp(-12.0 * t)


def _laplace(t: np.ndarray) -> np.ndarray:
    snr = np.exp(-0.5 * np.copysign(1, 0.5 - t) * np.log(1 - 2 * np.abs(0.5 - t) + 1e-6))
    return np.sqrt(snr / (1 + snr))


_ALPHA_BARS = {"cosine": _cosine, "exp": _exponential, "laplace": _laplace}


def betas_for_alpha_bar(num_diffusion_timesteps: int, max_beta: float = 0.999, alpha_transform_type: str = "cosine") -> np.ndarray:
    """Betas whose cumulative product of (1 - beta) follows a function of time in [0, 1].

    Args:
        num_diffusion_timesteps: how many.
        max_beta: upper bound of a beta.
        alpha_transform_type: "cosine" (arXiv 2102.09672), "exp" or "laplace" (arXiv 2407.03297).

    Raises:
        ConfigError: unknown alpha_transform_type.
    """
    expect("alpha_transform_type", alpha_transform_type, _ALPHA_BARS)
    alpha_bar = _ALPHA_BARS[alpha_transform_type](np.arange(num_diffusion_timesteps + 1) / num_diffusion_timesteps)
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta).astype(np.float32)


_BETAS = {
    "linear": linspace_float32,
    "scaled_linear": lambda start, end, num: linspace_float32(start**0.5, end**0.5, num) ** 2,
    "squaredcos_cap_v2": lambda start, end, num: betas_for_alpha_bar(num),
    "exp": lambda start, end, num: betas_for_alpha_bar(num, alpha_transform_type="exp"),
    "laplace": lambda start, end, num: betas_for_alpha_bar(num, alpha_transform_type="laplace"),
    "sigmoid": lambda start, end, num: (1 / (1 + np.exp(-linspace_float32(-6, 6, num)))) * np.float32(end - start) + np.float32(start),
}


def make_betas(
    schedule: str, start: float, end: float, num: int, trained_betas: np.ndarray | list[float] | None, supported: tuple[str, ...]
) -> np.ndarray:
    """The float32 betas of a config: `trained_betas`, or `num` of them on a named schedule from `start` to `end`.

    Raises:
        UnsupportedError: the schedule is not one of `supported`.
    """
    if trained_betas is not None:
        return np.asarray(trained_betas, dtype=np.float32)
    expect("beta_schedule", schedule, supported, UnsupportedError)
    return _BETAS[schedule](start, end, num)


def cumulative_product(alphas: np.ndarray) -> np.ndarray:
    """`torch.cumprod` of float32 numbers to the last bit: accumulated in float64, in the dtype given."""
    return np.cumprod(alphas, dtype=np.float64).astype(alphas.dtype)


def zero_terminal_snr(alphas_cumprod: np.ndarray) -> np.ndarray:
    """Cumulative products whose roots are shifted and scaled so that the last is 0 and the first stays (arXiv 2305.08891)."""
    root = np.sqrt(alphas_cumprod)
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))) ** 2


def rescale_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Betas changed so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1)."""
    alphas_cumprod = zero_terminal_snr(cumulative_product(1 - betas))
    return 1 - np.concatenate([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])


def sigmas_of(alphas_cumprod: np.ndarray) -> np.ndarray:
    """Noise over signal, sqrt((1 - a) / a). PyTorch's own square root (MKL) may differ in the last bit."""
    return np.sqrt((1 - alphas_cumprod) / alphas_cumprod)


# ---- timesteps


def timestep_grid(
    spacing: str, num_inference_steps: int, num_train_timesteps: int, steps_offset: int = 0, last_timestep: int | None = None,
    extra: int = 0,
) -> np.ndarray:  # fmt: skip
    """Descending timesteps (arXiv 2305.08891, table 2), in float64: "linspace" is not rounded.

    Args:
        spacing: "linspace", "leading" or "trailing".
        num_inference_steps: how many.
        num_train_timesteps: the length of the training schedule.
        steps_offset: added to "leading" timesteps.
        last_timestep: the end of the range that is used; all of it by default.
        extra: points that "linspace" and "leading" count and drop at the clean end (1 in the DPM-Solver family).

    Raises:
        ConfigError: unknown spacing.
    """
    expect("timestep_spacing", spacing, ("linspace", "leading", "trailing"))
    last_timestep = num_train_timesteps if last_timestep is None else last_timestep
    points = num_inference_steps + extra
    if spacing == "linspace":
        return np.linspace(0, last_timestep - 1, points)[::-1][:num_inference_steps]
    if spacing == "leading":
        return (np.arange(points) * (last_timestep // points))[::-1][:num_inference_steps] + float(steps_offset)
    return np.arange(last_timestep, 0, -num_train_timesteps / num_inference_steps).round() - 1


# ---- sigmas


def karras_sigmas(sigma_max: float, sigma_min: float, num: int, rho: float = 7.0) -> np.ndarray:
    """From `sigma_max` down to `sigma_min`, evenly spaced in sigma^(1/rho) (arXiv 2206.00364, equation 5)."""
    return karras_sigmas_at(np.linspace(0, 1, num), sigma_max, sigma_min, rho)


def karras_sigmas_at(ramp: np.ndarray, sigma_max: float, sigma_min: float, rho: float = 7.0) -> np.ndarray:
    """`karras_sigmas` at these fractions of the way from `sigma_max` to `sigma_min`, in their dtype."""
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (start + ramp * (end - start)) ** rho


def exponential_sigmas(sigma_max: float, sigma_min: float, num: int) -> np.ndarray:
    """From `sigma_max` down to `sigma_min`, evenly spaced in log(sigma)."""
    return np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), num))


def beta_sigmas(sigma_max: float, sigma_min: float, num: int, alpha: float = 0.6, beta: float = 0.6) -> np.ndarray:
    """From `sigma_max` down to `sigma_min` at the quantiles of a Beta(alpha, beta) distribution (arXiv 2407.12173)."""
    from scipy.special import betaincinv  # MindSpore requires SciPy; it is slow to import

    return sigma_min + betaincinv(alpha, beta, 1 - np.linspace(0, 1, num)) * (sigma_max - sigma_min)


def lu_sigmas(sigma_max: float, sigma_min: float, num: int) -> np.ndarray:
    """From `sigma_max` down to `sigma_min`, evenly spaced in log signal-to-noise ratio (arXiv 2206.00927)."""
    start, end = np.log(np.float32(sigma_max)).item(), np.log(np.float32(sigma_min)).item()
    return np.exp(start + np.linspace(0, 1, num) * (end - start))


def flow_sigmas(num: int, num_train_timesteps: int, shift: float) -> np.ndarray:
    """Rectified-flow noise levels in (0, 1), shifted towards noise by `shift`."""
    return shift_flow(1.0 - np.linspace(1, 1 / num_train_timesteps, num + 1), shift)[::-1][:-1]


def shift_flow(sigmas: np.ndarray, shift: float) -> np.ndarray:
    """Flow noise levels in [0, 1], moved towards noise by a factor `shift` of sigma / (1 - sigma) (arXiv 2403.03206, section 5.3.2)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


TIME_SHIFTS = {"exponential": math.exp, "linear": float}
"""What a `time_shift_type` makes of `mu`: the factor of `shift_flow`."""


def time_shift(kind: str, mu: float, sigma: float, t: np.ndarray) -> np.ndarray:
    """Flow noise levels, shifted by an amount that depends on the resolution (arXiv 2403.03206, section 5.3.2).

    Args:
        kind: "exponential" or "linear": whether `mu` is the logarithm of the factor or the factor.
        mu: how much; larger images want more.
        sigma: exponent of (1 - t) / t.
        t: noise levels in [0, 1].
    """
    factor = TIME_SHIFTS[kind](mu)
    with np.errstate(divide="ignore"):  # no noise stays no noise: factor / (factor + inf)
        return factor / (factor + (1 / t - 1) ** sigma)


def stretch_shift_to_terminal(t: np.ndarray, terminal: float) -> np.ndarray:
    """Descending flow noise levels, stretched about 1 so that the last is `terminal` (LTX-Video, arXiv 2501.00103)."""
    remaining = 1 - t
    return 1 - remaining / (remaining[-1] / (1 - terminal))


SIGMA_OPTIONS = {"use_karras_sigmas": karras_sigmas, "use_exponential_sigmas": exponential_sigmas, "use_beta_sigmas": beta_sigmas}
"""The config entries, of which at most one may be set, that replace the sigmas at the timesteps by others over the same range."""


def sigma_to_timestep(sigmas: np.ndarray, log_table: np.ndarray) -> np.ndarray:
    """Fractional timesteps at which an ascending float32 table of log sigmas, interpolated linearly, has the values `sigmas`.

    The weights are float32, as PyTorch diffusers' are with NumPy 1: the ends of the table then give whole timesteps, which matters to
    schedulers that truncate them.
    """
    log_sigmas = np.log(np.maximum(np.asarray(sigmas, dtype=np.float64), 1e-10)).astype(np.float32)
    low = (np.searchsorted(log_table, log_sigmas, side="right") - 1).clip(0, len(log_table) - 2)
    weight = ((log_table[low] - log_sigmas) / (log_table[low] - log_table[low + 1])).clip(0, 1)
    return (1 - weight) * low + weight * (low + 1)


# ---- resizing


RESIZE_MODES = ("nearest", "nearest-exact", "area", "linear", "bilinear", "trilinear", "bicubic")


def resize_matrix(source: int, target: int, mode: str) -> np.ndarray:
    """What an axis of length `source` is multiplied by to have length `target`, shape (source, target), one of `RESIZE_MODES`.

    "area" takes means; the others weigh the places near a target's centre, by a triangle or by Keys' cubic with a = -0.75 (IEEE
    TASSP-29, 1981), and repeat the ends.
    """
    place, column = np.arange(target), np.arange(target)
    matrix = np.zeros((source, target))
    if mode.startswith("nearest"):  # PyTorch's float32 (and fused multiply-add), which decide on which side of a border a place is
        scale = np.float32(source / target)
        centre = place.astype(np.float32) * scale
        if mode == "nearest-exact":
            centre = ((place + 0.5) * float(scale) - 0.5).astype(np.float32).clip(0) + np.float32(0.5)
        row = np.floor(centre).astype(int)
        matrix[row.clip(max=source - 1), column] = 1
    elif mode == "area":
        first, last = place * source // target, -(-(place + 1) * source // target)
        row = np.arange(source)[:, None]
        matrix[:] = ((row >= first) & (row < last)) / (last - first)
    else:
        centre = (place + 0.5) * (source / target) - 0.5
        for row in np.floor(centre).astype(int) + np.arange(-1, 3)[:, None]:
            distance = abs(centre - row)
            weight = _cubic(distance) if mode == "bicubic" else (1 - distance).clip(0)
            np.add.at(matrix, (row.clip(0, source - 1), column), weight)
    return matrix


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    return np.where(x < 1, ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a)


# ---- integrals over a step


def exponential_moment(rate: float, power: int, start: float, end: float) -> float:
    """The integral of exp(rate x) x^power from `start` to `end`."""

    def antiderivative(x: float) -> float:
        terms = ((-1) ** k * math.perm(power, k) * x ** (power - k) / rate ** (k + 1) for k in range(power + 1))
        return math.exp(rate * x) * sum(terms)

    return antiderivative(end) - antiderivative(start)


def lagrange_basis(nodes: list[float]) -> list[np.ndarray]:
    """For each node, the coefficients, highest power first, of the polynomial that is 1 there and 0 at the others."""
    others = [nodes[:i] + nodes[i + 1 :] for i in range(len(nodes))]
    return [np.atleast_1d(np.poly(rest)) / math.prod(node - other for other in rest) for node, rest in zip(nodes, others, strict=True)]


def adams_weights(rate: float, nodes: list[float], start: float, end: float) -> list[float]:
    """What the values of a function at these nodes weigh in the integral of exp(rate x) times the polynomial through them."""
    moments = [exponential_moment(rate, power, start, end) for power in reversed(range(len(nodes)))]
    return [float(polynomial @ moments) for polynomial in lagrange_basis(nodes)]
