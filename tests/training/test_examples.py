"""The training scripts as their users run them: in a process of their own, on a few generated images, with a very small model."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_diffusers import DDPMPipeline

ROOT = Path(__file__).parents[2]
UNET = {
    "_class_name": "UNet2DModel", "block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1, "add_attention": False,
    "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2,
}  # fmt: skip


def run_example(script: str, **options) -> str:
    """Run `examples/SCRIPT` with these options (True for a flag); what it printed. An error of it is a failure that shows its output."""
    command = [sys.executable, str(ROOT / "examples" / script)]
    for name, value in options.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_inputs(folder: Path) -> dict[str, object]:
    """8 images of 16x16 pixels and the config of a model below `folder`: options of `train_unconditional.py` that train on them."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for index in range(8):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / "images" / f"{index}.png")
    (folder / "config.json").write_text(json.dumps(UNET))
    return {
        "train_data_dir": folder / "images", "model_config_name_or_path": folder, "resolution": 16, "train_batch_size": 4,
        "learning_rate": 1e-3, "lr_warmup_steps": 1, "logging_steps": 1, "checkpointing_steps": 2,
    }  # fmt: skip


UNCONDITIONAL = "unconditional_image_generation/train_unconditional.py"


@pytest.mark.slow
def test_unconditional_and_resumed(tmp_path) -> None:
    options = make_inputs(tmp_path) | {
        "max_train_steps": 4, "use_ema": True, "random_flip": True, "eval_batch_size": 2, "save_images_steps": 2,
        "ddpm_num_inference_steps": 2,
    }  # fmt: skip
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert f"the DDPMPipeline is in {straight}" in run_example(UNCONDITIONAL, output_dir=straight, **options)

    names = {path.name for path in straight.iterdir()} - {"logs"}
    steps = {f"{kind}-{step}{end}" for step in (2, 4) for kind, end in (("checkpoint", ""), ("samples", ".png"))}
    assert names == steps | {"loss.csv", "model_index.json", "scheduler", "unet"}
    rows = list(csv.DictReader((straight / "loss.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert all(0.5 < float(row["loss"]) < 2 for row in rows)  # the noise's variance is 1, and the model knows nothing yet
    assert Image.open(straight / "samples-4.png").size == (2 * 16, 16)
    pipe = DDPMPipeline.from_pretrained(straight)
    assert pipe.unet.config.sample_size == 16 and pipe.scheduler.config.num_train_timesteps == 1000
    pipe.set_progress_bar_config(disable=True)
    image = pipe(num_inference_steps=2, generator=np.random.default_rng(0), output_type="np").images
    assert image.shape == (1, 16, 16, 3) and np.isfinite(image).all()

    # What the run would have left had it been killed in its third step.
    shutil.copytree(straight / "checkpoint-2", killed / "checkpoint-2")
    run_example(UNCONDITIONAL, output_dir=killed, resume_from_checkpoint="latest", **options)
    files = [f"checkpoint-4/{name}.safetensors" for name in ("state", "ema")] + ["unet/diffusion_pytorch_model.safetensors"]
    for file in files:
        assert (killed / file).read_bytes() == (straight / file).read_bytes(), file
    assert (killed / files[0]).read_bytes() != (straight / "checkpoint-2/state.safetensors").read_bytes()
