"""Put a trained model into the package, in float16.

python tools/bundled_model/bundle.py MODEL TINY_DECODER
"""

import argparse
import json
import shutil
from pathlib import Path

import mindspore as ms

from mindone_diffusers import AutoencoderTiny, StableDiffusionPipeline

BUNDLED = Path(__file__).parents[2] / "mindone_diffusers" / "bundled" / "shapes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="the pipeline's folder")
    parser.add_argument("tiny_decoder", type=Path, help="the folder of the AutoencoderTiny")
    parser.add_argument("--to", type=Path, default=BUNDLED)
    arguments = parser.parse_args()
    pipe = StableDiffusionPipeline.from_pretrained(arguments.model, mindspore_dtype=ms.float16, safety_checker=None)
    pipe.register_to_config(requires_safety_checker=False)
    for part in ("unet", "vae", "text_encoder", "vae_tiny"):
        shutil.rmtree(arguments.to / part, ignore_errors=True)
    pipe.save_pretrained(arguments.to)
    AutoencoderTiny.from_pretrained(arguments.tiny_decoder, mindspore_dtype=ms.float16).save_pretrained(arguments.to / "vae_tiny")
    for file in arguments.to.rglob("*.json"):  # where it was trained is nobody's business
        config = json.loads(file.read_text())
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    files = [file for file in arguments.to.rglob("*") if file.is_file()]
    print(f"{sum(file.stat().st_size for file in files) / 1e6:.2f} MB in {len(files)} files in {arguments.to}")


if __name__ == "__main__":
    main()
