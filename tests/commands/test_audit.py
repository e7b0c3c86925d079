"""`mindone-diffusers audit`: output, files, exit codes. Each run is a process of its own, because MindSpore caches what it parsed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindone_diffusers.commands import main
from tests.pipelines.test_ascend_audit import PIPELINES
from tools.config_folders import write_configs

ROOT = Path(__file__).parents[2]
LEVELS = {
    "sample_size": 8, "layers_per_block": 1, "norm_num_groups": 8, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def make_folder(folder: Path, channels: int) -> Path:
    """A pipeline whose attentions have one head of this size."""
    unet = LEVELS | {"block_out_channels": [32, channels], "attention_head_dim": channels}
    return write_configs(
        folder, "DDIMPipeline", {"unet": ("diffusers", "UNet2DModel", unet), "scheduler": ("diffusers", "DDIMScheduler", {})}
    )


def audit(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mindone_diffusers", "audit", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GLOG_v": "3", "PYTHONPATH": str(ROOT)})


def test_a_pipeline(tmp_path):
    done = audit(make_folder(tmp_path / "pipeline", 32), "--steps", 3, "--dtype", "bfloat16", "--cost", "--json", tmp_path / "facts.json")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["part", "calls", "operators", "fused", "attention", "casts", "transposes", "model"]
    assert lines[1].split()[:2] == ["unet", "3"] and "4 of 4" in lines[1] and lines[1].endswith("UNet2DModel, bfloat16, 1x3x8x8")
    assert "Ascend 910B, model, not measurement:" in lines
    assert "remark: unet: SiLU in bfloat16: MindSpore's documentation leaves it out" in lines
    assert lines[-1] == "no problems: every operator is documented for Ascend, and gets what it takes"
    (facts,) = json.loads((tmp_path / "facts.json").read_text())
    assert facts["calls"] == 3 and facts["problems"] == [] and facts["fused_attentions"] == facts["attention_layers"] == 4
    assert facts["operators"]["FlashAttentionScore"] == 4
    (costs,) = (value for name, value in facts.items() if name.startswith("cost"))
    total = next(line for line in lines if line.startswith("total"))
    assert int(total.split()[1]) == 3 * sum(cost["kernels"] for cost in costs.values())


def test_a_model_with_heads_too_large_for_fused_attention(tmp_path):
    done = audit(make_folder(tmp_path, 528) / "unet", "--size", 64)
    assert done.returncode == 1
    assert "problem: model: 0 fused attentions, but 4 layers that attend" in done.stdout.splitlines()
    assert done.stderr.splitlines()[-1] == "mindone-diffusers: error: Ascend would not run this as it is, for 1 reasons"


def test_a_batch_of_pictures_that_are_no_squares(tmp_path):
    name = "StableDiffusionControlNetImg2ImgPipeline"
    done = audit(write_configs(tmp_path, name, PIPELINES[name]), "--steps", 2, "--batch", 3, "--size", "80x48", "--dtype", "float32")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {line.split()[0]: (line.split()[1], line.split()[-1]) for line in done.stdout.splitlines()[1:6]}
    assert rows == {
        "text_encoder": ("2", "3x77"), "vae.encode": ("1", "3x3x48x80"), "controlnet": ("2", "6x4x24x40"), "unet": ("2", "6x4x24x40"),
        "vae.decode": ("1", "3x4x24x40"),
    }  # fmt: skip
    assert all(", float32, " in line and " 0 of " in line for line in done.stdout.splitlines()[1:6])


@pytest.mark.parametrize(
    ("pipeline", "part", "inputs"),
    [
        ("DiTPipeline", "transformer", [[2, 4, 8, 8], [2], [2]]),
        ("StableDiffusionControlNetPipeline", "controlnet", [[2, 4, 64, 64], [2], [2, 77, 32], [2, 3, 128, 128]]),
        ("StableDiffusionUpscalePipeline", "unet", [[2, 7, 16, 16], [2], [2, 77, 32], [2]]),
        ("StableUnCLIPImg2ImgPipeline", "unet", [[2, 4, 16, 16], [2], [2, 77, 32], [2, 64]]),
    ],
)
def test_a_model_alone(tmp_path, pipeline, part, inputs):
    folder = write_configs(tmp_path, pipeline, {part: PIPELINES[pipeline][part]})
    done = audit(folder / part, "--batch", 2, "--json", tmp_path / "facts.json")
    assert done.returncode == 0, done.stderr[-2000:]
    (facts,) = json.loads((tmp_path / "facts.json").read_text())
    assert facts["inputs"][:4] == inputs and facts["fused_attentions"] == facts["attention_layers"] > 0


@pytest.mark.parametrize(
    ("pipeline", "part", "words", "message"),
    [
        ("DDIMPipeline", "", ["--size", "64"], "the pictures of a DDIMPipeline have the size of its model: leave the size out"),
        ("DiTPipeline", "", ["--size", "64"], "the pictures of a DiTPipeline have the size of its model: leave the size out"),
        ("StableDiffusionPipeline", "text_encoder", ["--size", "64"], "a CLIPTextModel takes no pictures, or of one size only"),
        (
            "StableDiffusionXLControlNetUnionPipeline",
            "controlnet",
            [],
            "needs control_type and control_type_idx, which only its pipeline makes",
        ),
    ],
)
def test_what_cannot_be_asked_for(capsys, tmp_path, pipeline, part, words, message):
    folder = write_configs(tmp_path, pipeline, PIPELINES[pipeline])
    assert main(["audit", str(folder / part), *words]) == 1
    assert message in capsys.readouterr().err


def test_no_model(capsys, tmp_path):
    assert main(["audit", str(tmp_path / "nowhere")]) == 1
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main(["audit", str(tmp_path)]) == 1
    assert "it is no pipeline and no model" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert main(["audit", str(tmp_path)]) == 1
    assert "config.json names no class of a model" in capsys.readouterr().err
    (tmp_path / "model_index.json").write_text('{"_class_name": "NoPipeline"}')
    assert main(["audit", str(tmp_path)]) == 1
    assert "the pipeline class 'NoPipeline' is not one this library has" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--steps", "0"], ["--size", "63"], ["--dtype", "float64"]])
def test_wrong_arguments(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(["audit", "somewhere", *words])
    assert end.value.code == 2 and f"argument {words[0]}: " in capsys.readouterr().err
