"""Draw a picture with the small model that comes with the package, or with any Stable Diffusion folder.

    python examples/first_picture.py [--prompt "..."] [--model FOLDER] [--seed 0] [--output outputs/picture.png]

`mindone-diffusers generate` does the same from the shell.
"""

import argparse
from pathlib import Path

import numpy as np

from mindone_diffusers import StableDiffusionPipeline, bundled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a Stable Diffusion folder; the bundled model by default")
    parser.add_argument("--prompt", default="a large red circle on a blue background")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--graph", action="store_true", help="compile the models (MindSpore's graph mode)")
    parser.add_argument("--output", type=Path, default=Path("outputs/picture.png"))
    arguments = parser.parse_args()

    pipe = StableDiffusionPipeline.from_pretrained(arguments.model or bundled.path(), safety_checker=None)
    if arguments.graph:
        pipe.enable_graph_mode()
    guidance_scale = 7.5 if arguments.model else bundled.GUIDANCE_SCALE
    generator = np.random.default_rng(arguments.seed)
    image = pipe(arguments.prompt, num_inference_steps=arguments.steps, guidance_scale=guidance_scale, generator=generator).images[0]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    image.save(arguments.output)
    print(f"{image.width}x{image.height} picture in {arguments.output}")


if __name__ == "__main__":
    main()
