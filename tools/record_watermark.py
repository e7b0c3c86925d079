"""Write what PyTorch diffusers' watermarker makes of an image to `tests/reference/watermark.safetensors`.

    python tools/record_watermark.py

It needs the `parity` extra and `pip install invisible-watermark`.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion_xl.watermark import StableDiffusionXLWatermarker
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.harness import make_input  # noqa: E402

SHAPE = (1, 3, 259, 270)
"""Neither multiples of 4 nor of 8."""


def main() -> None:
    image = torch.from_numpy(make_input("watermark", ("uniform", SHAPE))) * 2.4 - 1.2  # some of it beyond what can be shown
    marked = StableDiffusionXLWatermarker().apply_watermark(image)[0]
    # Blue changes most; of red and green some columns do.
    file = ROOT / "tests" / "reference" / "watermark.safetensors"
    versions = {name: version(name) for name in ("diffusers", "torch", "invisible-watermark")}
    save_file({"blue": marked[2].contiguous(), "columns": marked[:2, :, ::16].contiguous()}, file, versions)


if __name__ == "__main__":
    main()
