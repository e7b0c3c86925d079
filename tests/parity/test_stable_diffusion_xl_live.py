"""The Stable Diffusion XL pipelines side by side with PyTorch diffusers, on tiny checkpoints that it writes."""

import inspect
import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

import mindone_diffusers as ours
from tests import harness
from tests.tiny_checkpoint import make_tokenizer

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from .test_stable_diffusion_live import PROMPTS, seeded  # noqa: E402

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "timestep_spacing": "leading"}
UNET = {
    "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": (2, 4), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2), "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
}  # fmt: skip
BOTH = {"cross_attention_dim": 32 + 48, "projection_class_embeddings_input_dim": 6 * 8 + 40}
VAE = {"block_out_channels": (32, 64), "sample_size": 32, "scaling_factor": 0.13025}
# As SSD-1B (arXiv:2401.02677): of the transformers of each layer some are left out, and all of the middle.
FEWER = {
    "block_out_channels": (32, 64, 64), "attention_head_dim": (2, 4, 4), "layers_per_block": 2, "mid_block_type": "UNetMidBlock2D",
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, [2, 2], [1, 2]], "reverse_transformer_layers_per_block": [[1, 1, 2], [2, 1, 1], 1],
}  # fmt: skip
STATISTICS = {"latents_mean": [-1.6, 1.1, 3.3, -0.1], "latents_std": [8.4, 5.9, 7.1, 5.1], "scaling_factor": 0.5}
TEXTS = (
    {"hidden_size": 32, "num_hidden_layers": 3, "hidden_act": "quick_gelu"},
    {"hidden_size": 48, "num_hidden_layers": 4, "hidden_act": "gelu", "projection_dim": 40},
)
BASE, IMAGE_TO_IMAGE = "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"
INPAINT, EDIT = "StableDiffusionXLInpaintPipeline", "StableDiffusionXLInstructPix2PixPipeline"
CHECKPOINTS = {
    "base": (BASE, UNET | BOTH, VAE, {}),
    "statistics": (BASE, UNET | BOTH, VAE | STATISTICS, {"force_zeros_for_empty_prompt": False}),
    "distilled": (BASE, UNET | BOTH | {"time_cond_proj_dim": 20}, VAE, {}),
    "fewer layers": (BASE, UNET | BOTH | FEWER, VAE, {}),
    "refiner": (
        IMAGE_TO_IMAGE, UNET | {"cross_attention_dim": 48, "projection_class_embeddings_input_dim": 5 * 8 + 40}, VAE,
        {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
    ),
    "inpaint": (INPAINT, UNET | BOTH | {"in_channels": 9}, VAE, {}),
    "edit": (EDIT, UNET | BOTH | {"in_channels": 8}, VAE, {}),
}  # fmt: skip


def write_checkpoint(name: str, folder: Path) -> str:
    """Save a pipeline of PyTorch diffusers; returns its class."""
    kind, unet, vae, options = CHECKPOINTS[name]
    tokenizers = [make_tokenizer(folder / f"tokenizer files {index}") for index in range(2)]
    tokenizers[1].pad_token = "!"  # as in Stable Diffusion XL, the second pads otherwise
    encoders = []
    for config, tokenizer, encoder in zip(TEXTS, tokenizers, (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection)):
        config = transformers.CLIPTextConfig(
            **config, vocab_size=len(tokenizer), intermediate_size=64, num_attention_heads=4, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        encoders.append(seeded(encoder(config)))
    refiner = name == "refiner"
    pipe = getattr(diffusers, kind)(
        vae=seeded(diffusers.AutoencoderKL(**vae, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)),
        text_encoder=None if refiner else encoders[0], tokenizer=None if refiner else tokenizers[0], text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1], unet=seeded(diffusers.UNet2DConditionModel(**unet)),
        scheduler=diffusers.EulerDiscreteScheduler(**SCHEDULER), **options,
    )  # fmt: skip
    pipe.save_pretrained(folder / "checkpoint")
    return kind


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folders of checkpoints by name, each written once."""
    root, written = tmp_path_factory.mktemp("sdxl"), {}

    def get(name: str) -> tuple[str, Path]:
        if name not in written:
            written[name] = write_checkpoint(name, root / name)
        return written[name], root / name / "checkpoint"

    return get


@pytest.fixture(scope="module")
def load(checkpoint):
    """Pairs of pipelines (theirs, ours) of a checkpoint, each loaded once, and of other classes on the same components."""
    pairs = {}

    def get(name: str, kind: str | None = None):
        own, folder = checkpoint(name)
        if name not in pairs:
            pairs[name] = {own: [getattr(library, own).from_pretrained(folder) for library in (diffusers, ours)]}
        kind = kind or own
        if kind not in pairs[name]:
            pairs[name][kind] = [getattr(library, kind).from_pipe(pipe) for library, pipe in zip((diffusers, ours), pairs[name][own])]
        pair = pairs[name][kind]
        return with_scheduler(pair, folder, "EulerDiscreteScheduler")

    return get


def with_scheduler(pair, folder: Path, name: str, **options):
    for pipe, library in zip(pair, (diffusers, ours)):
        saved = library.EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
        pipe.scheduler = getattr(library, name).from_config(saved.config, **options)
    return pair


def call(pipe, **arguments):
    """Call either pipeline; see `run`."""
    return run(pipe, **{"prompt": PROMPTS[0], "num_inference_steps": 4, "output_type": "np"} | arguments)


def run(pipe, **arguments):
    """Call either pipeline: NumPy arrays become its tensors, `seed` and `seeds` its generators."""
    is_ours = isinstance(pipe, ours.DiffusionPipeline)
    generator = ours.Generator if is_ours else torch.Generator
    arguments = harness.map_arrays(ms.Tensor if is_ours else torch.from_numpy, arguments)
    if "seeds" in arguments:
        arguments["generator"] = [generator().manual_seed(seed) for seed in arguments.pop("seeds")]
    else:
        arguments["generator"] = generator().manual_seed(arguments.pop("seed", 0))
    return pipe(**arguments)


def assert_same(pair, tolerance: float = 1e-3, **arguments):
    theirs, mine = (call(pipe, **arguments)[0] for pipe in pair)
    if arguments.get("output_type") == "latent":
        assert harness.relative_error(mine.asnumpy(), theirs.numpy()) <= 1e-4
        return theirs, mine
    theirs, mine = (np.stack([np.asarray(image, np.float32) / (255 if isinstance(image, Image.Image) else 1) for image in images])
                    for images in (theirs, mine))  # fmt: skip
    assert mine.shape == theirs.shape and np.isfinite(mine).all()
    assert mine.std() > 0.05, "an image with something in it"
    difference = np.abs(mine - theirs).max()
    if arguments.get("output_type") == "pil":
        tolerance = max(tolerance, 1.01 / 255)
    assert difference <= tolerance, difference
    return theirs, mine


def picture(width: int, height: int, mode: str = "RGB", seed: str = "") -> Image.Image:
    pixels = harness.make_input(f"picture {width} {height} {seed}", ("uniform", (height // 8, width // 8, 3))) * 255
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height)).convert(mode)


def mask(width: int, height: int, left: int = 10, top: int = 6, right: int = 26, bottom: int = 20) -> Image.Image:
    pixels = np.zeros((height, width), np.uint8)
    pixels[top:bottom, left:right] = 255
    return Image.fromarray(pixels)


EMBEDS = {
    "prompt": None, "prompt_embeds": harness.make_input("prompt_embeds", (2, 77, 80)),
    "pooled_prompt_embeds": harness.make_input("pooled", (2, 40)),
}  # fmt: skip
NEGATIVE_EMBEDS = {
    "negative_prompt_embeds": harness.make_input("negative_prompt_embeds", (2, 77, 80)),
    "negative_pooled_prompt_embeds": harness.make_input("negative pooled", (2, 40)),
}
LATENTS = harness.make_input("latents", (1, 4, 16, 16))
CLEAN = 0.8 * harness.make_input("clean latents", (1, 4, 16, 16))
SIZES = {"original_size": (64, 48), "crops_coords_top_left": (4, 12), "target_size": (40, 32)}
NEGATIVE_SIZES = {"negative_original_size": (16, 20), "negative_crops_coords_top_left": (3, 5), "negative_target_size": (8, 24)}


# Text to image

TEXT_OPTIONS = {
    "batch": {"prompt": PROMPTS},
    "images of a prompt": {"prompt": PROMPTS, "num_images_per_prompt": 2, "num_inference_steps": 2},
    "prompt_2": {"prompt_2": "a green square"},
    "prompts_2": {"prompt": PROMPTS, "prompt_2": PROMPTS[::-1]},
    "negative": {"negative_prompt": "green", "prompt": PROMPTS},
    "empty negative": {"negative_prompt": ""},
    "negative_2": {"negative_prompt": "green", "negative_prompt_2": "blurry"},
    "negative_2 alone": {"negative_prompt_2": "blurry"},
    "negatives": {"negative_prompt": ["green", ""], "negative_prompt_2": ["", "blurry"], "prompt": PROMPTS},
    "no guidance": {"guidance_scale": 1.0, "negative_prompt": "x"},
    "strong guidance": {"guidance_scale": 15.0, "guidance_rescale": 0.7, "negative_prompt": "x"},
    "clip_skip 1": {"clip_skip": 1, "negative_prompt": "x"},
    "clip_skip 2": {"clip_skip": 2},
    "embeds": EMBEDS | NEGATIVE_EMBEDS,
    "embeds and zeros": EMBEDS,
    "embeds and texts": EMBEDS | {"negative_prompt": "green", "num_images_per_prompt": 2, "num_inference_steps": 2},
    "pooled embeds": {"pooled_prompt_embeds": EMBEDS["pooled_prompt_embeds"][:1]},
    "latents": {"latents": LATENTS},
    "other size": {"height": 48, "width": 24},
    "only height": {"height": 48},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
    "sizes": SIZES | {"prompt": PROMPTS},
    "negative sizes": SIZES | NEGATIVE_SIZES,
    "negative sizes of a batch": SIZES | NEGATIVE_SIZES | {"prompt": PROMPTS},
    "half of the negative sizes": {"negative_original_size": (16, 20)},
    "denoising_end": {"denoising_end": 0.6, "output_type": "latent"},
    "denoising_end 1": {"denoising_end": 1.0},
    "long prompt": {"prompt": "a very long prompt " * 20},
    "one step": {"num_inference_steps": 1},
    "timesteps": {"timesteps": [999, 700, 300, 20]},
    "sigmas": {"sigmas": [14.0, 5.0, 1.0, 0.0]},
}
SCHEDULERS = {
    "DDIMScheduler": {}, "EulerAncestralDiscreteScheduler": {}, "HeunDiscreteScheduler": {}, "PNDMScheduler": {"skip_prk_steps": True},
    "DPMSolverMultistepScheduler": {"use_karras_sigmas": True}, "LCMScheduler": {}, "UniPCMultistepScheduler": {},
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_OPTIONS)
def test_text_to_image(load, name):
    assert_same(load("base"), **TEXT_OPTIONS[name])


@pytest.mark.parametrize("name", ["statistics", "distilled"])
def test_other_checkpoints(load, name):
    assert_same(load(name), prompt=PROMPTS)
    assert_same(load(name), negative_prompt="green", denoising_end=0.5)


@pytest.mark.parametrize("kind", [BASE, IMAGE_TO_IMAGE, INPAINT])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(load, checkpoint, name, kind):
    arguments = {BASE: {}, IMAGE_TO_IMAGE: {"image": picture(32, 32), "strength": 0.6},
                 INPAINT: {"image": picture(32, 32), "mask_image": mask(32, 32), "strength": 0.6}}[kind]  # fmt: skip
    pair = with_scheduler(load("base", kind), checkpoint("base")[1], name, **SCHEDULERS[name])
    assert_same(pair, num_inference_steps=5, **arguments)
    if name in ("HeunDiscreteScheduler", "DDIMScheduler"):
        assert_same(pair, num_inference_steps=6, denoising_end=0.7, **arguments)
    if name in ("HeunDiscreteScheduler", "DDIMScheduler", "PNDMScheduler") and kind != BASE:
        assert_same(pair, num_inference_steps=6, **arguments | {"denoising_start": 0.5, "image": CLEAN})


def test_eta(load, checkpoint):
    assert_same(with_scheduler(load("base"), checkpoint("base")[1], "DDIMScheduler"), eta=0.6)


def test_output_types(load):
    pair = load("base")
    assert_same(pair, output_type="pil")
    for name in ("ms", "pt"):
        theirs, mine = call(pair[0], output_type="pt"), call(pair[1], output_type=name)
        assert np.abs(theirs.images.numpy() - mine.images.asnumpy()).max() <= 1e-3
    theirs, mine = (call(pipe, return_dict=False) for pipe in pair)
    assert len(theirs) == len(mine) == 1


def test_encode_prompt_is_the_same(load):
    for name in ("base", "statistics", "refiner"):
        pair = load(name)
        for arguments in (
            {"prompt": PROMPTS, "num_images_per_prompt": 2},
            {"prompt": PROMPTS[0], "prompt_2": "x", "negative_prompt": "y", "clip_skip": 1},
            {"prompt": "a", "do_classifier_free_guidance": False},
        ):
            theirs, mine = (pipe.encode_prompt(**arguments) for pipe in pair)
            for one, other in zip(theirs, mine):
                assert (one is None) == (other is None)
                if one is not None:
                    assert harness.relative_error(other.asnumpy(), one.detach().numpy()) <= 1e-5


# Image to image

IMAGE_OPTIONS = {
    "default": {},
    "strength 0.8": {"strength": 0.8},
    "strength 1": {"strength": 1.0},
    "array": {"image": np.asarray(picture(32, 32), np.float32).transpose(2, 0, 1)[None] / 255, "strength": 0.5},
    "other size": {"image": picture(50, 43), "strength": 0.5},
    "latents": {"image": CLEAN, "strength": 0.5},
    "images": {"image": [picture(32, 32), picture(32, 32, seed="b")], "prompt": PROMPTS, "strength": 0.5},
    "one image for two": {"prompt": PROMPTS, "strength": 0.5},
    "one image, generators": {"prompt": PROMPTS, "strength": 0.5, "seeds": [3, 4]},
    "two images for four": {
        "image": [picture(32, 32), picture(32, 32, seed="b")], "prompt": PROMPTS, "num_images_per_prompt": 2, "strength": 0.5,
    },
    "noisy latents": {"latents": 3 * LATENTS, "strength": 0.5},
    "no guidance": {"guidance_scale": 0.0, "strength": 0.5},
    "rescale": {"guidance_rescale": 0.5, "strength": 0.5, "negative_prompt": "x"},
    "sizes": SIZES | NEGATIVE_SIZES | {"strength": 0.5, "prompt": PROMPTS},
    "denoising_start": {"denoising_start": 0.4, "image": CLEAN},
    "denoising_start of pixels": {"denoising_start": 0.4},
    "denoising_start 1": {"denoising_start": 1.0, "strength": 0.5},
    "both ends": {"denoising_start": 0.2, "denoising_end": 0.7, "image": CLEAN, "num_inference_steps": 8},
    "denoising_end": {"denoising_end": 0.8, "strength": 0.9, "output_type": "latent"},
    "timesteps": {"timesteps": [900, 600, 300, 20], "strength": 0.5},
    "sigmas": {"sigmas": [14.0, 5.0, 1.0, 0.0], "strength": 0.8},
    "embeds": EMBEDS | NEGATIVE_EMBEDS | {"strength": 0.5},
}  # fmt: skip
REFINER_OPTIONS = {
    "scores": {"aesthetic_score": 8.5, "negative_aesthetic_score": 1.25, "strength": 0.5, "prompt": PROMPTS},
    "sizes": SIZES | NEGATIVE_SIZES | {"strength": 0.5},
    "prompt_2 is not used": {"prompt_2": "x", "negative_prompt": "y", "negative_prompt_2": "z", "strength": 0.5},
}


@pytest.mark.parametrize("name", IMAGE_OPTIONS)
def test_image_to_image(load, name):
    assert_same(load("base", IMAGE_TO_IMAGE), **{"image": picture(32, 32), "num_inference_steps": 6} | IMAGE_OPTIONS[name])


@pytest.mark.parametrize("name", REFINER_OPTIONS)
def test_refiner(load, name):
    assert_same(load("refiner"), **{"image": picture(32, 32)} | REFINER_OPTIONS[name])


def test_base_and_refiner_share_the_steps(load):
    latents = assert_same(load("base"), num_inference_steps=8, denoising_end=0.7, output_type="latent")
    refined = [call(pipe, num_inference_steps=8, denoising_start=0.7, image=image).images for pipe, image in zip(load("refiner"), latents)]
    assert np.abs(refined[0] - refined[1]).max() <= 1e-3


def test_latents_with_statistics_from_images(load):
    assert_same(load("statistics", IMAGE_TO_IMAGE), image=picture(32, 32), strength=0.5)


# Inpainting

PAINT_OPTIONS = {
    "default": {},
    "strength 0.5": {"strength": 0.5},
    "strength 1": {"strength": 1.0},
    "batch": {"prompt": PROMPTS, "strength": 0.7},
    "images of a prompt": {"prompt": PROMPTS, "num_images_per_prompt": 2, "strength": 0.7, "num_inference_steps": 3},
    "generators": {"prompt": PROMPTS, "strength": 0.7, "seeds": [3, 4]},
    "images and masks": {
        "image": [picture(32, 32), picture(32, 32, seed="b")], "mask_image": [mask(32, 32), mask(32, 32, 0, 0, 12, 32)],
        "prompt": PROMPTS, "strength": 0.7,
    },
    "arrays": {
        "image": np.asarray(picture(32, 32), np.float32).transpose(2, 0, 1)[None] / 255,
        "mask_image": np.asarray(mask(32, 32), np.float32)[None, None] / 255, "strength": 0.7,
    },
    "other sizes": {"image": picture(50, 43), "mask_image": mask(50, 43), "height": 48, "width": 24, "strength": 0.7},
    "crop": {"image": picture(64, 48), "mask_image": mask(64, 48), "padding_mask_crop": 4, "output_type": "pil", "strength": 0.7},
    "latents": {"latents": LATENTS},
    "latents and strength 1": {"latents": LATENTS, "strength": 1.0},
    "masked_image_latents": {"masked_image_latents": CLEAN, "strength": 0.7},
    "image and masked image are latents": {"image": 0.5 * LATENTS, "masked_image_latents": CLEAN, "strength": 0.7},
    "no guidance": {"guidance_scale": 1.0, "strength": 0.7},
    "rescale": {"guidance_rescale": 0.5, "strength": 0.7},
    "denoising_start": {"denoising_start": 0.4, "image": CLEAN, "masked_image_latents": CLEAN},
    "denoising_start of pixels": {"denoising_start": 0.4},
    "both ends": {"denoising_start": 0.2, "denoising_end": 0.7, "num_inference_steps": 8},
    "denoising_end": {"denoising_end": 0.6, "strength": 0.9, "output_type": "latent"},
    "sizes": SIZES | NEGATIVE_SIZES | {"strength": 0.7, "prompt": PROMPTS},
    "embeds": EMBEDS | NEGATIVE_EMBEDS | {"strength": 0.7},
}  # fmt: skip


@pytest.mark.parametrize("checkpoint_name", ["base", "inpaint"])
@pytest.mark.parametrize("name", PAINT_OPTIONS)
def test_inpainting(load, name, checkpoint_name):
    arguments = {"image": picture(32, 32), "mask_image": mask(32, 32), "num_inference_steps": 5} | PAINT_OPTIONS[name]
    assert_same(load(checkpoint_name, INPAINT), **arguments)


def test_an_image_of_latents_is_kept(load):
    assert_same(load("base", INPAINT), image=CLEAN, mask_image=mask(32, 32), strength=0.7)


def test_inpainting_keeps_colours_with_statistics(load, monkeypatch):
    theirs, mine = load("statistics", INPAINT)
    mean, std = (torch.tensor(STATISTICS[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
    encode = theirs._encode_vae_image
    # What PyTorch diffusers leaves out, and StableDiffusionXLImg2ImgPipeline does.
    monkeypatch.setattr(theirs, "_encode_vae_image", lambda image, generator: (encode(image, generator) - 0.5 * mean) / std)
    assert_same((theirs, mine), image=picture(32, 32), mask_image=mask(32, 32), strength=0.5)


def test_callbacks_change_the_mask(load):
    def callback(pipe, step, timestep, tensors):
        if step == 1:
            tensors["mask"] = tensors["mask"] * 0.5
            tensors["masked_image_latents"] = tensors["masked_image_latents"] * 0.5
        return tensors

    for name in ("base", "inpaint"):
        assert_same(
            load(name, INPAINT), image=picture(32, 32), mask_image=mask(32, 32), callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=["latents", "mask", "masked_image_latents"],
        )  # fmt: skip


# Editing

EDIT_OPTIONS = {
    "default": {},
    "no guidance": {"guidance_scale": 1.0},
    "no image guidance": {"image_guidance_scale": 0.5},
    "rescale": {"guidance_rescale": 0.6, "image_guidance_scale": 2.5, "negative_prompt": "x"},
    "batch": {"prompt": PROMPTS, "prompt_2": PROMPTS[::-1], "negative_prompt": ["x", "y"], "num_images_per_prompt": 2},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
    "image of latents": {"image": CLEAN},
    "other size": {"image": picture(50, 43), "height": 40, "width": 24},
    "embeds": EMBEDS | NEGATIVE_EMBEDS,
    "latents": {"latents": LATENTS},
    "sizes": SIZES,
    "denoising_end": {"denoising_end": 0.5},
}


@pytest.mark.parametrize("name", EDIT_OPTIONS)
@pytest.mark.filterwarnings("ignore:.*len.prompt.*:FutureWarning")
def test_editing(load, name):
    assert_same(load("edit"), **{"image": picture(32, 32)} | EDIT_OPTIONS[name])


def test_editing_with_scaled_latents(load):
    pair = load("edit")
    for pipe in pair:
        pipe.is_cosxl_edit = True
    try:
        assert_same(pair, image=picture(32, 32))
        assert pair[1].config.is_cosxl_edit
    finally:
        for pipe in pair:
            pipe.is_cosxl_edit = False


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "PNDMScheduler", "HeunDiscreteScheduler"])
def test_editing_callback(load, checkpoint, scheduler):
    pair, seen = with_scheduler(load("edit"), checkpoint("edit")[1], scheduler), []
    for pipe in pair:
        calls = []
        call(pipe, image=picture(32, 32), callback=lambda step, t, latents, calls=calls: calls.append((step, float(t), latents.shape)),
             callback_steps=2)  # fmt: skip
        seen.append(calls)
    assert seen[0] and len(seen[0]) == len(seen[1])
    for one, other in zip(*seen):
        assert one[0] == other[0] and tuple(one[2]) == tuple(other[2])
        np.testing.assert_allclose(other[1], one[1], rtol=1e-6)


# All of them

CALLS = {
    "base": (BASE, {}),
    "image to image": (IMAGE_TO_IMAGE, {"image": picture(32, 32), "strength": 0.6}),
    "refiner": (IMAGE_TO_IMAGE, {"image": picture(32, 32), "strength": 0.6}),
    "paint": (INPAINT, {"image": picture(32, 32), "mask_image": mask(32, 32), "strength": 0.6}),
    "inpaint": (INPAINT, {"image": picture(32, 32), "mask_image": mask(32, 32), "strength": 0.6}),
    "edit": (EDIT, {"image": picture(32, 32)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_graph_mode(load, name):
    kind, arguments = CALLS[name]
    pair = load(name if name in CHECKPOINTS else "base", kind)
    pair[1].enable_graph_mode()
    try:
        assert_same(pair, **arguments)
    finally:
        pair[1].disable_graph_mode()


@pytest.mark.parametrize("name", ["base", "image to image", "paint"])
def test_callbacks_see_and_change_the_same(load, name):
    kind, arguments = CALLS[name]
    pair = load("base", kind)
    seen = {pipe: [] for pipe in map(id, pair)}

    def callback(pipe, step, timestep, tensors):
        seen[id(pipe)].append((step, float(timestep), {name: tuple(tensor.shape) for name, tensor in tensors.items()}))
        if step == 1:
            tensors = {name: tensor * 0.5 for name, tensor in tensors.items()}
        if step == 2:
            pipe._interrupt = True
        return tensors

    names = ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"]
    arguments = {"num_inference_steps": 8} | arguments
    assert_same(pair, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names, prompt=PROMPTS, **arguments)
    theirs, mine = seen.values()
    assert [(entry[0], entry[2]) for entry in mine] == [(entry[0], entry[2]) for entry in theirs] and len(mine) == 3
    np.testing.assert_allclose([entry[1] for entry in mine], [entry[1] for entry in theirs], rtol=1e-6)
    assert pair[0].num_timesteps == pair[1].num_timesteps


def test_guidance_cutoff_callback(load):
    images = []
    for pipe, library in zip(load("base"), (diffusers.callbacks, ours.callbacks)):
        images.append(call(pipe, callback_on_step_end=library.SDXLCFGCutoffCallback(cutoff_step_ratio=0.5)).images)
    assert np.abs(images[0] - images[1]).max() <= 1e-3


def test_autoencoder_tiny_takes_the_vaes_place(load):
    config = {"encoder_block_out_channels": (16, 16), "decoder_block_out_channels": (16, 16), "num_encoder_blocks": (1, 2),
              "num_decoder_blocks": (2, 1)}  # fmt: skip
    tiny = [seeded(diffusers.AutoencoderTiny(**config)), ours.AutoencoderTiny(**config)]
    tiny[1].load_state_dict({name: value.numpy() for name, value in tiny[0].state_dict().items()})
    for kind, arguments in (CALLS["base"], CALLS["image to image"], CALLS["paint"]):
        pair = [getattr(library, kind)(**pipe.components | {"vae": vae}) for library, pipe, vae in
                zip((diffusers, ours), load("base", kind), tiny)]  # fmt: skip
        assert_same(pair, **arguments)


@pytest.mark.parametrize("kind", [BASE, IMAGE_TO_IMAGE, INPAINT, EDIT])
def test_methods_have_the_same_arguments(kind):
    for method in ("__init__", "check_inputs", "encode_prompt", "get_guidance_scale_embedding", "get_timesteps", "prepare_latents",
                   "prepare_image_latents", "prepare_mask_latents", "prepare_extra_step_kwargs", "upcast_vae"):  # fmt: skip
        if hasattr(getattr(diffusers, kind), method):
            theirs, mine = (list(inspect.signature(getattr(getattr(library, kind), method)).parameters) for library in (diffusers, ours))
            assert [name for name in mine if (kind, name) != (EDIT, "clip_skip")] == theirs, method


@pytest.mark.parametrize("name", ["base", "refiner", "inpaint", "edit"])
def test_our_folder_loads_there(load, tmp_path, name):
    pair = load(name)
    pair[1].save_pretrained(tmp_path / "ours")
    pair[0].save_pretrained(tmp_path / "theirs")
    mine, theirs = ({path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")} for name in ("ours", "theirs"))
    assert mine == theirs
    index, expected = (json.loads((tmp_path / name / "model_index.json").read_text()) for name in ("ours", "theirs"))
    if name == "edit":
        assert index.pop("is_cosxl_edit") is False  # which PyTorch diffusers forgets
    assert index == expected
    kind = CHECKPOINTS[name][0]
    arguments = next(arguments for other, arguments in CALLS.values() if other == kind)
    loaded = getattr(diffusers, kind).from_pretrained(tmp_path / "ours")
    np.testing.assert_array_equal(call(loaded, **arguments).images, call(pair[0], **arguments).images)


BAD = {
    BASE: (
        {"height": 20},
        {"prompt": None},
        {"prompt": 3},
        {"prompt_2": 3},
        {"prompt_2": "a"} | EMBEDS,
        {"prompt_embeds": EMBEDS["prompt_embeds"]},
        {"prompt": None, "prompt_embeds": EMBEDS["prompt_embeds"]},
        {"negative_prompt": "a"} | NEGATIVE_EMBEDS,
        {"negative_prompt_2": "a"} | NEGATIVE_EMBEDS,
        {"negative_prompt_embeds": NEGATIVE_EMBEDS["negative_prompt_embeds"]},
        EMBEDS | NEGATIVE_EMBEDS | {"negative_prompt_embeds": EMBEDS["prompt_embeds"][:, :3]},
        {"callback_on_step_end_tensor_inputs": ["negative_prompt_embeds"]},
        {"prompt": PROMPTS, "negative_prompt": ["a"]},
        {"prompt": PROMPTS, "seeds": [1, 2, 3]},
        {"original_size": (1, 2, 3)},
        {"timesteps": [9], "sigmas": [1.0]},
    ),
    IMAGE_TO_IMAGE: (
        {"strength": 1.1},
        {"strength": -0.1},
        {"num_inference_steps": 0},
        {"num_inference_steps": 2.5},
        {"image": None},
        {"prompt": PROMPTS + PROMPTS[:1], "image": [picture(32, 32)] * 2},
        {"prompt": PROMPTS, "seeds": [1, 2, 3]},
        {"denoising_start": 0.5, "denoising_end": 0.5},
    ),
    INPAINT: (
        {"strength": 1.1},
        {"strength": 0.1},
        {"height": 20},
        {"padding_mask_crop": 4},
        {"padding_mask_crop": 4, "image": CLEAN, "output_type": "pil"},
        {"padding_mask_crop": 4, "mask_image": CLEAN, "output_type": "pil"},
        {"denoising_start": 0.6, "denoising_end": 0.5},
        {"prompt": PROMPTS, "seeds": [1, 2, 3]},
        {"mask_image": [mask(32, 32)] * 2, "prompt": PROMPTS + PROMPTS[:1]},
    ),
    EDIT: ({"image": None}, {"prompt": None}, {"callback_steps": 0}, {"prompt": PROMPTS + PROMPTS[:1], "image": [picture(32, 32)] * 2}),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_upstream_refuses_is_refused(load, kind):
    pair = load("edit" if kind == EDIT else "base", kind)
    arguments = next(arguments for other, arguments in CALLS.values() if other == kind)
    for changed in BAD[kind]:
        for pipe in pair:
            with pytest.raises((ValueError, TypeError)):
                call(pipe, **arguments | changed)
