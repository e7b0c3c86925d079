"""PyTorch diffusers' runs of the discrete samplers, for `tools/record_references.py` and the live tests."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .runner_discrete import CASES, Case, run


def reference(case: Case, device: str = "cpu") -> dict[str, np.ndarray]:
    """What PyTorch diffusers gives for a case, numbers in float32.

    With logarithmic times RFD4-Proteina's is to run in float64 (with the noise of float32): near time 0.001 its float32 takes differences
    of large terms and is off by up to 7e-5.
    """
    import diffusers
    import torch

    wide = case.config.get("schedule_mode") == "log"

    def array(values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values).to(device)
        return tensor.double() if wide and tensor.is_floating_point() else tensor

    def plain(values: Any) -> np.ndarray:
        values = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        return values.astype(np.float32) if wide and values.dtype == np.float64 else values

    with _float64() if wide else contextlib.nullcontext():
        scheduler = getattr(diffusers, case.scheduler)(**case.config)
        scheduler.set_timesteps = functools.partial(scheduler.set_timesteps, device=device)
        return run(scheduler, case, array, lambda seed: torch.Generator().manual_seed(seed), plain)


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    import diffusers.schedulers.scheduling_rfd4_proteina as module
    import torch

    drawn = module.randn_tensor
    torch.set_default_dtype(torch.float64)
    module.randn_tensor = lambda *arguments, dtype, **options: drawn(*arguments, dtype=torch.float32, **options).double()
    try:
        yield
    finally:
        module.randn_tensor = drawn
        torch.set_default_dtype(torch.float32)


def record(device: str) -> dict[str, np.ndarray]:
    """Everything of every case, by "case|array", but the logits, which are made up."""
    return {
        f"{case.name}|{name}": values
        for case in CASES
        for name, values in reference(case, device).items()
        if not name.endswith("pred_logits")
    }
