"""PyTorch diffusers' runs of the scheduler cases, for `tools/record_references.py`."""

import functools

import numpy as np

from .cases import CASES
from .runner import run


def record(device: str) -> dict[str, np.ndarray]:
    """Timesteps, sigmas and samples of every case, by "case|array"."""
    import diffusers
    import torch

    diffusers.utils.logging.set_verbosity_error()
    recorded = {}
    for case in CASES:
        scheduler = getattr(diffusers.schedulers, case.scheduler)(**case.config)
        scheduler.set_timesteps = functools.partial(scheduler.set_timesteps, device=device)
        result = run(
            scheduler,
            case,
            array=lambda values: torch.from_numpy(values).to(device),
            generator=torch.Generator().manual_seed(0),
            plain=lambda tensor: tensor.cpu().numpy(),
        )
        recorded |= {f"{case.name}|{name}": values for name, values in result.items() if name != "originals"}
    return recorded
