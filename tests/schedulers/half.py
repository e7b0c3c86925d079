"""Steps in half precision: a run of every class, in which each step begins where PyTorch's last one ended, compared step by step."""

import functools
from typing import Any

import numpy as np

from .cases import CASES as ALL
from .runner import Case, run

UNITS = {"float16": 2**-11, "bfloat16": 2**-8}
"""The relative distance of neighbouring numbers, at its largest for float16 halved."""

# RePaint without its jumps, in each of which a sample is rounded some hundred times.
_SEEN = {"RePaintScheduler": Case("RePaintScheduler", {"eta": 0.5}, {"num_inference_steps": 10, "jump_n_sample": 1})}
for _case in ALL:
    if _case.loop is None and not str(_case.config.get("variance_type")).startswith("learned"):
        _SEEN.setdefault(_case.scheduler, _case)
CASES = list(_SEEN.values())

# A step is a handful of operations, each rounded, on both sides, but not always in the same order. So they differ by some units of the
# largest of the step's samples, and by more where they take differences of larger numbers.
LIMITS = {
    "CogVideoXDPMScheduler": 8,  # extrapolates: twice the clean sample less the last one
    "DPMSolverMultistepInverseScheduler": 14,  # the first step is from a noise level of 0.03
    "HeunDiscreteScheduler": 8,  # (sample - original) / sigma where sigma is 0.03; ours is the model's output
    "KDPM2AncestralDiscreteScheduler": 13,  # likewise
    "SASolverScheduler": 6,  # weights of alternating signs
}
IN_FLOAT32 = (
    "DDPMWuerstchenScheduler", "FlowMapEulerDiscreteScheduler", "HeliosDMDScheduler", "LTXEulerAncestralRFScheduler", "PiflowScheduler"
)  # fmt: skip
"""Those whose PyTorch code converts all it is given to float32, and rounds the result."""


def record(device: str = "cpu") -> dict[str, np.ndarray]:
    """PyTorch diffusers' runs, for `tools/record_references.py`, by "dtype|case|array"."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    return {
        f"{dtype}|{case.name}|{name}": values
        for dtype in UNITS
        for case in CASES
        for name, values in reference(case, dtype, device).items()
        if name in ("samples", "outputs")
    }


def reference(case: Case, dtype: str, device: str = "cpu") -> dict[str, np.ndarray]:
    """A run of PyTorch diffusers', in float32."""
    import diffusers
    import torch

    kind = getattr(torch, dtype)
    scheduler = getattr(diffusers.schedulers, case.scheduler)(**case.config)
    scheduler.set_timesteps = functools.partial(scheduler.set_timesteps, device=device)

    def array(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, kind)

    def plain(values: Any) -> np.ndarray:
        return (values.float() if values.dtype == kind else values).cpu().numpy()

    return run(scheduler, case, array, torch.Generator().manual_seed(0), plain, follow={})


def deviation(case: Case, dtype: str, expected: dict[str, np.ndarray]) -> float:
    """How far our steps of MindSpore tensors are from PyTorch's, in units of the largest number in a step's samples."""
    import mindspore as ms

    from mindone_diffusers import Generator, schedulers

    kind = getattr(ms, dtype)

    def array(values: np.ndarray) -> ms.Tensor:
        return ms.Tensor.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).astype(kind)

    def plain(values: Any) -> np.ndarray:
        if isinstance(values, np.ndarray):
            return values
        return values.asnumpy().astype(np.float32)

    scheduler = getattr(schedulers, case.scheduler)(**case.config)
    found = run(scheduler, case, array, Generator().manual_seed(0), plain, follow=expected)["samples"]
    axes = tuple(range(1, found.ndim))
    largest = abs(expected["samples"]).max(axis=axes)
    difference = abs(found - expected["samples"]).max(axis=axes)[1:]
    return float((difference / np.maximum(largest[1:], largest[:-1])).max()) / UNITS[dtype]


def limit(case: Case) -> float:
    return 0.5 if case.scheduler in IN_FLOAT32 else LIMITS.get(case.scheduler, 3)
