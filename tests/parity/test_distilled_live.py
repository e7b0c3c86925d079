"""Distilled checkpoints beside PyTorch diffusers: UNets with fewer layers, and small autoencoders in the VAE's place, all from files."""

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from tests.tiny_checkpoint import make_tokenizer

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from . import test_stable_diffusion_xl_live as xl  # noqa: E402
from .test_controlnet_pipelines_live import control_models, embedding  # noqa: E402
from .test_stable_diffusion_images_live import as_class, picture  # noqa: E402
from .test_stable_diffusion_live import CHECKPOINTS, PROMPTS, assert_same, call, seeded, torch_pipeline, with_scheduler  # noqa: E402
from .test_stable_diffusion_xl_live import checkpoint, load  # noqa: E402, F401  (fixtures)

# BK-SDM (arXiv:2305.15798) leaves out the second of each pair of layers; "small" the middle too; "tiny", and SD-Tiny, the innermost level.
BASE = {
    **CHECKPOINTS["sd1"]["unet"], "layers_per_block": 1, "block_out_channels": (32, 32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
UNETS = {
    "base": BASE,
    "small": BASE | {"mid_block_type": None},
    "tiny": BASE | {"mid_block_type": None, "block_out_channels": (32, 32, 64), "down_block_types": ("CrossAttnDownBlock2D",) * 3,
                    "up_block_types": ("CrossAttnUpBlock2D",) * 3},
}  # fmt: skip
TINY_VAE = {
    "encoder_block_out_channels": (16, 16),
    "decoder_block_out_channels": (16, 16),
    "num_encoder_blocks": (1, 2),
    "num_decoder_blocks": (2, 1),
}
LIBRARIES = (diffusers, ours)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """Pairs of pipelines (theirs, ours) by name of the UNet, from one folder."""
    root, pairs = tmp_path_factory.mktemp("distilled"), {}

    def get(name: str):
        if name not in pairs:
            theirs = torch_pipeline(CHECKPOINTS["sd1"] | {"unet": UNETS[name]}, make_tokenizer(root / name / "tokenizer files"))
            theirs.save_pretrained(root / name / "checkpoint")
            pairs[name] = [library.StableDiffusionPipeline.from_pretrained(root / name / "checkpoint") for library in LIBRARIES]
        return with_scheduler(pairs[name], "PNDMScheduler", skip_prk_steps=True)

    return get


@pytest.fixture(scope="module")
def tiny_vae(tmp_path_factory):
    """The folder of a small autoencoder."""
    folder = tmp_path_factory.mktemp("vae")
    seeded(diffusers.AutoencoderTiny(**TINY_VAE)).save_pretrained(folder)
    return folder


def with_vae(pipes, folder):
    """As users exchange it, in other pipelines of the same models."""
    pipes = [type(pipe)(**pipe.components) for pipe in pipes]
    for pipe, library in zip(pipes, LIBRARIES):
        pipe.vae = library.AutoencoderTiny.from_pretrained(folder)
    return pipes


@pytest.mark.parametrize("name", UNETS)
def test_unets_with_fewer_layers(distilled, name):
    theirs, mine = distilled(name)
    assert (mine.unet.mid_block is None) == (theirs.unet.mid_block is None) == (name != "base")
    assert mine.unet.num_parameters() == theirs.unet.num_parameters()
    assert_same((theirs, mine), prompt=PROMPTS, negative_prompt=["", "blurry"])


def test_tiny_autoencoders(distilled, tiny_vae):
    pipes = with_vae(distilled("small"), tiny_vae)
    assert_same(pipes, prompt=PROMPTS, height=40)
    assert_same(as_class(pipes, "StableDiffusionImg2ImgPipeline"), image=picture(), strength=0.6)


def test_float16(distilled, tiny_vae, tmp_path):
    """Small and tiny at once, from one folder, with a low guidance scale; see `test_pag_live`."""
    theirs, mine = with_vae(distilled("small"), tiny_vae)
    mine.save_pretrained(tmp_path)
    half = ours.StableDiffusionPipeline.from_pretrained(tmp_path, mindspore_dtype=ms.float16)
    assert type(half.vae) is ours.AutoencoderTiny and half.vae.dtype == half.unet.dtype == ms.float16
    arguments = {"guidance_scale": 1.0, "num_inference_steps": 3}
    assert np.abs(call(half, **arguments).images - call(theirs, **arguments).images).max() <= 2e-2


def test_control_without_a_middle(distilled):
    """A ControlNet of the larger UNet: what it adds to the middle is added where that would be."""
    net = control_models("ControlNetModel", distilled("base")[0].unet, "net", **embedding())
    pipes = []
    for pipe, library, model in zip(distilled("small"), LIBRARIES, net):
        pipes.append(library.StableDiffusionControlNetPipeline(**pipe.components, controlnet=model))
        with pytest.raises(ValueError, match="mid_block_type"):
            library.ControlNetModel.from_unet(pipe.unet)
    xl.assert_same(pipes, image=picture(1))


def test_perturbed_attention_without_a_middle(distilled):
    pipes = as_class(distilled("small"), "StableDiffusionPAGPipeline")
    original = pipes[0].unet.attn_processors
    for pipe in pipes:
        with pytest.raises(ValueError, match="mid"):
            call(pipe)
        pipe.set_pag_applied_layers("up_blocks.1")
    pipes[0].unet.set_attn_processor(original)
    assert_same(with_scheduler(pipes, "DDIMScheduler"))


def test_sdxl_with_fewer_layers(load, tiny_vae):  # noqa: F811
    pipes = load("fewer layers")
    assert pipes[1].unet.num_parameters() == pipes[0].unet.num_parameters()
    xl.assert_same(pipes, prompt=PROMPTS)
    xl.assert_same(with_vae(pipes, tiny_vae), output_type="pil")
