"""T2I-Adapters, what surrounds them in pipelines, and the normaliser of stable unCLIP next to PyTorch diffusers."""

import warnings

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindone_diffusers import IPAdapterMaskProcessor, MultiAdapter, T2IAdapter, callbacks
from mindone_diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

from .. import harness, ms_side
from ..cases.adapters import CASES

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
from diffusers import callbacks as their_callbacks  # noqa: E402
from diffusers.image_processor import IPAdapterMaskProcessor as TheirMaskProcessor  # noqa: E402
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer as TheirNormalizer  # noqa: E402

from .. import torch_side  # noqa: E402

KINDS = ("full", "xl", "light")


def close(actual: ms.Tensor, expected: "torch.Tensor", tolerance: float = 1e-4) -> None:
    error = harness.relative_error(actual.astype(ms.float32).asnumpy(), expected.detach().float().numpy())
    assert error <= tolerance, error


def tensors(name: str, spec: tuple) -> tuple[ms.Tensor, "torch.Tensor"]:
    array = harness.make_input(name, spec)
    return ms.Tensor(array), torch.from_numpy(array)


def both(name: str, count: int):
    """`count` adapters of a case with different weights, here and there."""
    ours, theirs = [], []
    for index in range(count):
        ours.append(ms_side.build(CASES[name]))
        theirs.append(torch_side.build(CASES[name]))
        scale = 1 + 0.3 * index
        ours[-1].load_state_dict({key: value * scale for key, value in ours[-1].state_dict().items()})
        theirs[-1].load_state_dict({key: value * scale for key, value in theirs[-1].state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("name", CASES)
def test_names_config_and_factors(name):
    ours, theirs = ms_side.build(CASES[name]), torch_side.build(CASES[name])
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }
    assert {key: value for key, value in ours.config.items() if key[0] != "_"} == {
        key: value for key, value in theirs.config.items() if key[0] != "_"
    }
    assert (ours.downscale_factor, ours.total_downscale_factor) == (theirs.downscale_factor, theirs.total_downscale_factor)


@pytest.mark.parametrize("name", KINDS)
def test_files_of_both_libraries(name, tmp_path):
    ours, theirs = ms_side.build(CASES[name]), torch_side.build(CASES[name])
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    x, y = tensors("x", CASES[name]["inputs"]["x"])
    with torch.no_grad():
        for a, b in zip(T2IAdapter.from_pretrained(tmp_path / "theirs")(x), theirs(y), strict=True):
            close(a, b)
        for a, b in zip(ours(x), diffusers.T2IAdapter.from_pretrained(tmp_path / "ours")(y), strict=True):
            close(a, b)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("weights", [None, [0.7, 0.2, 1.5]])
def test_multi_adapter(name, weights):
    ours, theirs = both(name, 3)
    pairs = [tensors(f"image {index}", CASES[name]["inputs"]["x"]) for index in range(3)]
    with torch.no_grad():
        expected = diffusers.MultiAdapter(theirs)([y for _, y in pairs], weights)
    multi = MultiAdapter(ours)
    for model in (multi, multi.enable_graph_mode()):
        for a, b in zip(model([x for x, _ in pairs], weights), expected, strict=True):
            close(a, b)
    half = multi.disable_graph_mode().to(ms.float16)
    for a, b in zip(half([x.astype(ms.float16) for x, _ in pairs], weights), expected, strict=True):
        assert a.dtype == ms.float16
        close(a, b, 2e-2)


def test_multi_adapter_files(tmp_path):
    ours, theirs = both("full", 3)
    (x, y), weights = tensors("x", CASES["full"]["inputs"]["x"]), [0.7, 0.2, 1.5]
    MultiAdapter(ours).save_pretrained(tmp_path / "ours")
    diffusers.MultiAdapter(theirs[:2]).save_pretrained(str(tmp_path / "theirs"))
    with torch.no_grad():
        read = diffusers.MultiAdapter.from_pretrained(str(tmp_path / "ours"))
        for a, b in zip(MultiAdapter(ours)([x] * 3, weights), read([y] * 3, weights), strict=True):
            close(a, b)
        expected = diffusers.MultiAdapter(theirs[:2])([y] * 2, weights[:2])
    for a, b in zip(MultiAdapter.from_pretrained(tmp_path / "theirs")([x] * 2, weights[:2]), expected, strict=True):
        close(a, b)


# Masks of IP-Adapters


def masks() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 64), dtype=np.uint8)
    return [Image.fromarray(plane).resize((64, 96), Image.Resampling.BOX, box=(0, 0, 9, 13)) for plane in noise]


@pytest.mark.parametrize("options", [{}, {"do_binarize": False, "vae_scale_factor": 16}, {"resample": "nearest"}], ids=str)
@pytest.mark.parametrize("size", [{}, {"height": 48, "width": 32}, {"height": 80, "width": 80}], ids=str)
def test_masks_are_prepared(options, size):
    ours, theirs = IPAdapterMaskProcessor(**options), TheirMaskProcessor(**options)
    assert {key: value for key, value in ours.config.items() if key[0] != "_"} == {
        key: value for key, value in theirs.config.items() if key[0] != "_"
    }
    for image in (masks(), masks()[0]):
        np.testing.assert_array_equal(ours.preprocess(image, **size).asnumpy(), theirs.preprocess(image, **size).numpy())


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize(
    "height, width, queries",
    [(64, 64, 256), (96, 64, 24), (96, 64, 96), (64, 96, 384), (64, 64, 255), (64, 64, 12), (100, 60, 77), (8, 8, 256), (64, 96, 23)],
)
def test_masks_are_downsampled(batch, height, width, queries):
    mask, there = tensors("mask", ("uniform", (1, height, width)))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        expected = TheirMaskProcessor.downsample(there, batch, queries, 5)
    theirs = [warning for warning in found if "aspect ratio" in str(warning.message)]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        actual = IPAdapterMaskProcessor.downsample(mask, batch, queries, 5)
    ours = [warning for warning in found if "aspect ratio" in str(warning.message)]
    assert [warning.category for warning in ours] == [warning.category for warning in theirs]
    close(actual, expected, 1e-5)


# Callbacks


@pytest.mark.parametrize(
    "name",
    [
        "SDCFGCutoffCallback", "SDXLCFGCutoffCallback", "SDXLControlnetCFGCutoffCallback", "SD3CFGCutoffCallback",
        "IPAdapterScaleCutoffCallback",
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [{"cutoff_step_ratio": 0.35}, {"cutoff_step_ratio": None, "cutoff_step_index": 4}], ids=str)
def test_callbacks(name, options):
    class Pipeline:
        num_timesteps, _guidance_scale, scale = 9, 7.5, 1.0

        def set_ip_adapter_scale(self, scale):
            self.scale = scale

    results = []
    for module in (callbacks, their_callbacks):
        callback, pipeline = getattr(module, name)(**options), Pipeline()
        state, seen = {key: np.arange(6).reshape(3, 2) for key in [*callback.tensor_inputs, "latents"]}, []
        for step in range(9):
            state = callback(pipeline, step, 0, state)
            seen.append((pipeline._guidance_scale, pipeline.scale, {key: value.tolist() for key, value in state.items()}))
        results.append((callback.tensor_inputs, seen))
    assert results[0] == results[1] and results[0][1][0] != results[0][1][-1]


# Stable unCLIP


def test_image_normalizer(tmp_path):
    ours, theirs = StableUnCLIPImageNormalizer(embedding_dim=6), TheirNormalizer(embedding_dim=6)
    assert ours.mean.asnumpy().tolist() == [[0.0] * 6] and ours.state_dict()["std"].asnumpy().tolist() == [[1.0] * 6]
    state = {"mean": harness.make_input("mean", (1, 6)), "std": harness.make_input("std", ("uniform", (1, 6))) + 0.5}
    ours.load_state_dict(state)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    x, y = tensors("embeds", (3, 6))
    models = (
        ours,
        StableUnCLIPImageNormalizer.from_pretrained(tmp_path / "theirs"),
        StableUnCLIPImageNormalizer.from_pretrained(tmp_path / "ours"),
    )
    for model in (*models, ours.enable_graph_mode()):
        close(model.scale(x), theirs.scale(y), 1e-6)
        close(model.unscale(x), theirs.unscale(y), 1e-6)
    close(ours.scale(x), TheirNormalizer.from_pretrained(tmp_path / "ours").scale(y), 1e-6)
    half = StableUnCLIPImageNormalizer.from_pretrained(tmp_path / "ours", mindspore_dtype=ms.float16)
    close(half.unscale(half.scale(x.astype(ms.float16))), y, 2e-2)
