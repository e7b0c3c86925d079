"""Run PyTorch diffusers (or transformers) on the reference cases and write `tests/reference/<table>.safetensors`.

    python tools/record_references.py [TABLE ...] [--device cpu|cuda]

The files hold outputs only: weights and inputs are made again from their names (`tests/harness.py`). The device and the
versions are in each file's metadata.
"""

import argparse
import importlib
import platform
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.cases import TABLES  # noqa: E402


def record_models(cases: dict, device: str) -> dict[str, np.ndarray]:
    """Outputs of each case's calls, by "case/call/field"."""
    from tests.torch_side import build, run

    recorded: dict[str, np.ndarray] = {}
    for name, case in cases.items():
        model = build(case, device)
        for call, outputs in run(model, case, device).items():
            recorded |= {f"{name}/{call}/{field}": value for field, value in outputs.items()}
        print(f"  {name}")
    return recorded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], help="which tables (all by default)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()

    import diffusers
    import torch
    import transformers
    from safetensors.numpy import save_file

    metadata = {
        "device": arguments.device if arguments.device == "cpu" else torch.cuda.get_device_name(),
        "torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        "numpy": np.__version__, "machine": platform.machine(),
    }  # fmt: skip
    for table in arguments.tables or TABLES:
        print(table)
        module = importlib.import_module(TABLES[table])
        recorded = module.record(arguments.device) if hasattr(module, "record") else record_models(module.CASES, arguments.device)
        target = ROOT / "tests" / "reference" / f"{table}.safetensors"
        temporary = target.with_suffix(".tmp")
        save_file({key: np.ascontiguousarray(value) for key, value in sorted(recorded.items())}, temporary, metadata)
        temporary.rename(target)
        print(f"  {len(recorded)} tensors, {target.stat().st_size / 2**20:.2f} MiB -> {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
