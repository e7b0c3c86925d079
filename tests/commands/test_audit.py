"""`mindone-diffusers audit`: output, files, exit codes. Each run is a process of its own, because MindSpore caches what it parsed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindone_diffusers.commands import main
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


def test_no_model(capsys, tmp_path):
    assert main(["audit", str(tmp_path / "nowhere")]) == 1
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main(["audit", str(tmp_path)]) == 1
    assert "it is no pipeline and no model" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--steps", "0"], ["--size", "63"], ["--dtype", "float64"]])
def test_wrong_arguments(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(["audit", "somewhere", *words])
    assert end.value.code == 2 and f"argument {words[0]}: " in capsys.readouterr().err
