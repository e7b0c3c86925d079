"""Graphs kept on disk: found by later processes whatever they compile first, and only if nothing they depend on has changed."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import AutoencoderTiny, UNet2DConditionModel, nn
from mindone_diffusers.backend import compile_cache, native
from mindone_diffusers.backend.description import Indescribable, describe, digest

ROOT = Path(__file__).parents[2]
PROCESS = """
import json, sys
import mindspore as ms, numpy as np
from mindone_diffusers import DDIMScheduler, AutoencoderTiny  # first what might give the cache a copy of MindSpore's module

results = []
for activation, seed, size in json.loads(sys.argv[1]):
    model = AutoencoderTiny(
        act_fn=["relu", "silu"][activation], encoder_block_out_channels=(8,) * 2, decoder_block_out_channels=(8,) * 2,
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    model.fill_parameters(seed)
    latents = ms.Tensor(np.random.default_rng(0).standard_normal((1, 4, size, size)).astype(np.float32))
    eager = model.decode(latents).sample.asnumpy()
    compiled = model.enable_graph_mode().decode(latents).sample.asnumpy()
    again = model.decode(latents).sample.asnumpy()
    results.append([float(np.abs(eager - compiled).max()), float(np.abs(compiled - again).max()), float(np.abs(eager).max())])
print(json.dumps(results))
"""


def run(folder: Path, *models: tuple[int, int, int], **environment: str) -> tuple[list, set[str], str]:
    """Decode with small autoencoders of (activation, seed of the weights, size), compiled in this order in a process of its own.

    Returns the differences from eager mode, the names of the graphs in the store afterwards, and the error output.
    """
    kernels = native.library()
    if kernels is not None:  # built already
        (folder / "mindone_diffusers").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(kernels, folder / "mindone_diffusers")
    variables = os.environ | {"XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run([sys.executable, "-c", PROCESS, json.dumps(models)], env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), {file.stem for file in folder.glob("mindone_diffusers/graphs/*.mindir")}, done.stderr


def check(results: list) -> None:
    for from_eager, from_first, scale in results:
        assert from_eager <= 1e-5 * scale and from_first == 0


@pytest.mark.slow
def test_processes_find_each_others_graphs_in_any_order(tmp_path) -> None:
    results, first, errors = run(tmp_path, (0, 0, 4), (1, 0, 4))
    check(results)
    assert len(first) == 2 and "WARNING" not in errors
    times = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("mindone_diffusers/graphs/*")}
    # Other weights, the other order, and one signature more.
    results, second, errors = run(tmp_path, (1, 1, 4), (0, 2, 6), (0, 3, 4))
    check(results)
    assert first < second and len(second) == 3 and "WARNING" not in errors
    used = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("mindone_diffusers/graphs/*")}
    assert all(used[name] > time for name, time in times.items())  # found, which is what keeps them from being the oldest
    # A damaged file is compiled again, and does no harm to the others.
    (tmp_path / "mindone_diffusers/graphs" / f"{min(first)}.mindir").write_bytes(b"nothing")
    results, third, _ = run(tmp_path, (0, 5, 4), (1, 6, 4))
    check(results)
    assert third == second


def test_turned_off(tmp_path) -> None:
    results, graphs, _ = run(tmp_path, (0, 0, 4), MINDONE_DIFFUSERS_COMPILE_CACHE="0")
    check(results)
    assert graphs == set()


def unet(**config) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 2,
            "norm_num_groups": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        } | config
    )  # fmt: skip


def key(model: nn.Module) -> str:
    return digest(describe(model))


def test_what_a_digest_depends_on(tmp_path) -> None:
    model = unet()
    model.fill_parameters(0)
    first = key(model)
    same = unet()
    same.fill_parameters(1)
    assert key(same) == first
    model.save_pretrained(tmp_path / "model")
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "model")
    assert key(loaded) == key(same.eval())
    assert key(unet(act_fn="gelu")) != first
    assert key(unet(norm_eps=1e-6)) != first  # not to be seen in any parameter
    half = unet()
    half.fill_parameters(0)
    assert key(half.half()) != first


def test_compiling_and_running_do_not_change_it() -> None:
    model = unet().enable_graph_mode().eval()
    model.fill_parameters(0)
    before = key(model)
    sample = ms.Tensor(np.ones((1, 4, 8, 8), np.float32))
    model(sample, 1, ms.Tensor(np.ones((1, 2, 8), np.float32)))
    assert key(model) == before


class Processor:
    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        return hidden_states


def test_what_has_no_description() -> None:
    model = unet()
    model.fill_parameters(0)
    model.set_attn_processor(Processor())
    with pytest.raises(Indescribable, match=r"it holds tests\..*test_compile_cache.Processor, and what that depends on is not known"):
        key(model)

    model = AutoencoderTiny(encoder_block_out_channels=(8,) * 2, decoder_block_out_channels=(8,) * 2, num_encoder_blocks=(1, 1),
                            num_decoder_blocks=(1, 1))  # fmt: skip
    model.fill_parameters(0)
    model.eval()
    model.secret = threading.Lock()
    with pytest.raises(Indescribable, match="it holds a _thread.lock"):
        list(describe(model))
    latents = ms.Tensor(np.ones((1, 4, 4, 4), np.float32))
    eager = model.decode(latents).sample.asnumpy()
    np.testing.assert_allclose(model.enable_graph_mode().decode(latents).sample.asnumpy(), eager, atol=1e-5)


def test_the_oldest_go(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(compile_cache, "GRAPHS", 2)
    for age, name in enumerate("abcd"):
        (tmp_path / f"{name}.mindir").touch()
        os.utime(tmp_path / f"{name}.mindir", (100 - age, 100 - age))
    compile_cache._prune(tmp_path)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["a", "b"]
