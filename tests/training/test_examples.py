"""The training scripts as their users run them: in a process of their own, on a few generated images, with a very small model."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_diffusers import DDPMPipeline, UNet2DConditionModel
from tests.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]
UNET = {
    "_class_name": "UNet2DModel", "block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1, "add_attention": False,
    "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "dropout": 0.1,
}  # fmt: skip


def start_example(script: str, **options) -> subprocess.Popen:
    """Start `examples/SCRIPT` with these options (True for a flag)."""
    command = [sys.executable, str(ROOT / "examples" / script)]
    for name, value in options.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_example(script: str, **options) -> str:
    """Run it to its end; what it printed. An error of it is a failure that shows its output."""
    process = start_example(script, **options)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


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


TEXT_TO_IMAGE = "text_to_image/train_text_to_image.py"


@pytest.mark.slow
def test_text_to_image_killed_and_resumed(tmp_path) -> None:
    model, images = write_tiny_checkpoint(tmp_path / "model"), tmp_path / "images"
    unet = UNet2DConditionModel(  # three compilations of its gradients: as few blocks as there can be
        sample_size=4, block_out_channels=(32,), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8, mid_block_type=None,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("UpBlock2D",), dropout=0.1,
    )  # fmt: skip
    unet.fill_parameters(0)
    unet.save_pretrained(model / "unet")
    images.mkdir()
    captions = []
    for index, color in enumerate(["red", "green", "blue", "white"]):
        Image.new("RGB", (32, 32), color).save(images / f"{index}.png")
        captions.append(json.dumps({"file_name": f"{index}.png", "text": f"a {color} picture"}))
    (images / "metadata.jsonl").write_text("\n".join(captions))
    options = {
        "pretrained_model_name_or_path": model, "train_data_dir": images, "resolution": 32, "train_batch_size": 2, "max_train_steps": 60,
        "learning_rate": 1e-3, "lr_scheduler": "cosine", "use_ema": True, "train_text_encoder": True, "proportion_empty_prompts": 0.2,
        "cache_latents": True, "checkpointing_steps": 10, "checkpoints_total_limit": 2, "logging_steps": 5,
    }  # fmt: skip
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert f"the model is in {straight}" in run_example(TEXT_TO_IMAGE, output_dir=straight, **options)

    process = start_example(TEXT_TO_IMAGE, output_dir=killed, **options)
    while not (killed / "checkpoint-10").is_dir():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9 and not (killed / "model_index.json").exists()
    run_example(TEXT_TO_IMAGE, output_dir=killed, resume_from_checkpoint="latest", **options)
    files = ["checkpoint-60/state.safetensors", "checkpoint-60/ema.safetensors", "unet/diffusion_pytorch_model.safetensors"]
    for file in [*files, "text_encoder/model.safetensors"]:
        assert (killed / file).read_bytes() == (straight / file).read_bytes(), file
    for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (straight / part).read_bytes() != (model / part).read_bytes(), "trained"
    assert (killed / "loss.csv").read_text() == (straight / "loss.csv").read_text()
