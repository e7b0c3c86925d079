"""A bfloat16 pipeline on the CPU beside PyTorch's, both against PyTorch in float32 with the same rounded weights."""

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.backend import native

from ..tiny_checkpoint import write_tiny_checkpoint

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.skipif(
    ms.get_context("device_target") != "CPU" or not native.available(), reason="without native kernels, bfloat16 is float32 on the CPU"
)
SETTINGS = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "np"}
MODELS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights that bfloat16 holds exactly."""
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("bfloat16") / "pipeline")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    for name in MODELS:
        getattr(pipe, name).bfloat16().float()
    pipe.save_pretrained(folder)
    return folder


def error(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest and the root mean square difference."""
    return np.abs(actual - expected).max(), np.sqrt(np.mean((actual - expected) ** 2))


@pytest.fixture(scope="module")
def latents():
    return np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)


def theirs(folder, latents, dtype) -> np.ndarray:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe("a lighthouse", latents=torch.from_numpy(latents).to(dtype), **SETTINGS).images


def test_image(folder, latents):
    exact = theirs(folder, latents, torch.float32)
    rounded = error(theirs(folder, latents, torch.bfloat16), exact)
    pipe = ours.StableDiffusionPipeline.from_pretrained(folder, mindspore_dtype=ms.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    assert {getattr(pipe, name).dtype for name in MODELS} == {ms.float32}
    assert pipe.unet.conv_in.weight.dtype == pipe.vae.decoder.conv_out.weight.dtype == ms.bfloat16
    image = pipe("a lighthouse", latents=ms.Tensor(latents), **SETTINGS).images
    largest, mean = error(image, exact)
    print(f"ours {largest:.1e}, rms {mean:.1e}; PyTorch's bfloat16 {rounded[0]:.1e}, rms {rounded[1]:.1e}")
    assert largest <= 2e-2 and largest <= rounded[0] and mean <= rounded[1]
    graphs = pipe.enable_graph_mode()("a lighthouse", latents=ms.Tensor(latents), **SETTINGS).images
    assert error(graphs, image)[0] <= 1e-5


@pytest.mark.parametrize("shape", [(2, 8, 1024, 80), (1, 2, 300, 40), (1, 1, 256, 512)])
def test_attention(shape):
    query, key, value = (np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32) for seed in range(3))
    from mindone_diffusers.backend.native import operators

    output = operators.attention(*map(ms.Tensor, (query, key, value)), None, False, shape[-1] ** -0.5, "native_bfloat16").asnumpy()
    tensors = [torch.from_numpy(array) for array in (query, key, value)]
    exact = torch.nn.functional.scaled_dot_product_attention(*(tensor.double() for tensor in tensors)).numpy()
    rounded = torch.nn.functional.scaled_dot_product_attention(*(tensor.bfloat16() for tensor in tensors)).float().numpy()
    assert error(output, exact)[1] <= error(rounded, exact)[1]
