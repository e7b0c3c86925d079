"""The small trained model that comes with the package: PyTorch's pictures of the same noise, which show what was asked for."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from mindone_diffusers import AutoencoderTiny, StableDiffusionPipeline, bundled

from .bundled_pictures import OPTIONS, PROMPTS, latents

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools" / "bundled_model"))

from evaluate import classify  # noqa: E402


@cache
def pipeline() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(bundled.path())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(**options) -> list[Image.Image]:
    return pipeline()(list(PROMPTS), latents=Tensor(latents()), **{**OPTIONS, **options}).images


def difference(images: list[Image.Image], others: list) -> int:
    return max(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max() for one, other in zip(images, others, strict=True))


def check(images: list[Image.Image], blurred: int = 0) -> None:
    """All pictures show what was asked for, but for so many whose shape is taken for another."""
    wrong = []
    for prompt, image in zip(PROMPTS, images, strict=True):
        found = classify(image)
        assert found["color"] in prompt.split(" on ")[0] and f"{found['background']} background" in prompt, (prompt, found)
        for part, names in (("size", ("small", "large")), ("place", ("top", "bottom", "left", "right", "middle"))):
            asked = [name for name in names if name in prompt.split()]
            assert all(found[part].endswith(name) for name in asked), (prompt, found)
        if f"{found['shape']} on" not in prompt:
            wrong.append((prompt, found))
    assert len(wrong) <= blurred, wrong


def test_pictures_are_pytorchs_and_show_what_was_asked_for() -> None:
    images = draw()
    check(images)
    assert difference(images, load_file(ROOT / "tests/reference/bundled.safetensors")["images"]) <= 2


def test_tiny_decoder() -> None:
    pipe = pipeline()
    vae = pipe.vae
    try:
        pipe.vae = AutoencoderTiny.from_pretrained(bundled.path(), subfolder="vae_tiny")
        check(draw(), blurred=1)
    finally:
        pipe.vae = vae


def test_graph_mode() -> None:
    eager = draw(num_inference_steps=5)
    pipeline().enable_graph_mode()
    try:
        assert difference(draw(num_inference_steps=5), eager) <= 2
    finally:
        pipeline().disable_graph_mode()


def test_an_unknown_word_is_no_error() -> None:
    assert pipeline()("an 红 elephant", num_inference_steps=1).images[0].size == (64, 64)


@pytest.mark.parametrize("part", ["unet", "vae", "vae_tiny", "text_encoder"])
def test_weights_are_float16(part: str) -> None:
    (file,) = (bundled.path() / part).glob("*.safetensors")
    with safe_open(file, "np") as tensors:
        kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    assert set(kinds.values()) == {"F16"}


def test_size() -> None:
    assert sum(file.stat().st_size for file in bundled.path().rglob("*") if file.is_file()) < 12e6
