"""Every scheduler run that is compared with PyTorch: live in tests/parity, recorded in tests/reference/schedulers.safetensors.

The tables are this folder's `cases_*.py`, one a family; what a run is, is in `runner.py`.
"""

import importlib
from pathlib import Path

from .runner import Case

CASES: list[Case] = [
    case
    for path in sorted(Path(__file__).parent.glob("cases_*.py"))
    for case in importlib.import_module(f"{__package__}.{path.stem}").CASES
]
