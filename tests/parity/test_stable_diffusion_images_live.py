"""The other pipelines of Stable Diffusion 1 beside PyTorch diffusers', on the checkpoints of `test_stable_diffusion_live`."""

import inspect

import numpy as np
import pytest
from PIL import Image, ImageDraw

import mindone_diffusers as ours
from tests import harness

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from .test_stable_diffusion_live import (  # noqa: E402
    EMBEDS,
    PROMPTS,
    SCHEDULERS,
    assert_same,
    call,
    load_pair,
    seeded,
    with_scheduler,
)

CLASSES = (
    "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionInstructPix2PixPipeline",
    "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
)  # fmt: skip


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def mask(box: tuple[int, int, int, int] = (8, 4, 24, 20), size: tuple[int, int] = (32, 32)) -> Image.Image:
    image = Image.new("L", size)
    ImageDraw.Draw(image).rectangle(box, fill=255)
    return image


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return load_pair("sd1", tmp_path_factory.mktemp("sd1"))


def as_class(pair, name: str):
    """Both pipelines' components in another class; the path stays, for `with_scheduler`."""
    result = []
    for pipe, library in zip(pair, (diffusers, ours)):
        other = getattr(library, name)(**pipe.components)
        other.register_to_config(_name_or_path=pipe.name_or_path)
        result.append(other)
    return tuple(result)


@pytest.fixture(scope="module")
def img2img(pair):
    return as_class(pair, "StableDiffusionImg2ImgPipeline")


@pytest.fixture(scope="module")
def inpaint(pair):
    return as_class(pair, "StableDiffusionInpaintPipeline")


@pytest.fixture(scope="module")
def nine(pair):
    """Inpainting with a UNet that is shown the mask."""
    return with_unet(as_class(pair, "StableDiffusionInpaintPipeline"), in_channels=9)


def with_unet(pipes, **changes):
    """Exchange both UNets for seeded ones with these entries of the config changed."""
    theirs, mine = pipes
    config = {**theirs.unet.config, **changes}
    theirs.register_modules(unet=seeded(diffusers.UNet2DConditionModel.from_config(config)))
    unet = ours.UNet2DConditionModel.from_config(config)
    unet.load_state_dict({name: value.numpy() for name, value in theirs.unet.state_dict().items()})
    mine.register_modules(unet=unet)
    return theirs, mine


IMAGE = np.random.default_rng(3).random((2, 32, 32, 3), np.float32)
IMG2IMG = {
    "plain": {},
    "weak": {"strength": 0.4},
    "full": {"strength": 1.0},
    "batch": {"prompt": PROMPTS, "image": [picture(0), picture(1)]},
    "one image for a batch": {"prompt": PROMPTS, "num_images_per_prompt": 2},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
    "array": {"prompt": PROMPTS, "image": IMAGE},
    "latents": {"image": harness.make_input("latents", (1, 4, 16, 16))},
    "other size": {"image": picture(2, (48, 40))},
    "no guidance": {"guidance_scale": 1.0},
    "negative": {"negative_prompt": "green", "eta": 0.5},
    "embeds": {"prompt": None, "prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[::-1].copy()},
    "clip_skip": {"clip_skip": 1},
}


@pytest.mark.parametrize("name", IMG2IMG)
def test_img2img(img2img, name):
    with_scheduler(img2img, "DDIMScheduler")
    arguments = {"image": picture(), "num_inference_steps": 5} | IMG2IMG[name]
    if name == "array":
        arguments["image"] = list(arguments["image"])  # a list of arrays stays one
    assert_same(img2img, **arguments)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_img2img_with_every_scheduler(img2img, name):
    with_scheduler(img2img, name, **SCHEDULERS[name])
    assert_same(img2img, image=picture(), num_inference_steps=6, strength=0.6)


def test_img2img_with_custom_timesteps(img2img):
    with_scheduler(img2img, "EulerDiscreteScheduler")
    assert_same(img2img, image=picture(), timesteps=[999, 700, 300, 20], strength=0.5)


INPAINT = {
    "plain": {},
    "weak": {"strength": 0.6},
    "batch": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "mask_image": [mask(), mask((0, 0, 10, 30))]},
    "one image for a batch": {"prompt": PROMPTS, "num_images_per_prompt": 2, "num_inference_steps": 2},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4], "strength": 0.7},
    "other size": {"image": picture(2, (48, 40)), "mask_image": mask(size=(48, 40)), "height": 40, "width": 48},
    "no guidance": {"guidance_scale": 1.0},
    "latents": {"latents": harness.make_input("latents", (1, 4, 16, 16)), "strength": 0.8},
    "crop": {"image": picture(2, (64, 64)), "mask_image": mask((20, 20, 40, 36), (64, 64)), "padding_mask_crop": 4, "output_type": "pil"},
}


def same_images(pair, **arguments):
    if arguments.get("output_type") != "pil":
        return assert_same(pair, **arguments)
    theirs, mine = (call(pipe, **arguments).images for pipe in pair)
    assert all(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1 for a, b in zip(theirs, mine, strict=True))
    return mine


@pytest.mark.parametrize("name", INPAINT)
def test_inpaint(inpaint, name):
    with_scheduler(inpaint, "DDIMScheduler")
    same_images(inpaint, **{"image": picture(), "mask_image": mask(), "num_inference_steps": 5} | INPAINT[name])


@pytest.mark.parametrize("name", INPAINT)
def test_inpaint_of_nine_channels(nine, name):
    with_scheduler(nine, "DDIMScheduler")
    same_images(nine, **{"image": picture(), "mask_image": mask(), "num_inference_steps": 3} | INPAINT[name])


def test_masked_image_latents(nine):
    with_scheduler(nine, "PNDMScheduler")
    latents = harness.make_input("masked_image_latents", (1, 4, 16, 16))
    assert_same(nine, image=picture(), mask_image=mask(), masked_image_latents=latents)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_inpaint_with_every_scheduler(inpaint, name):
    with_scheduler(inpaint, name, **SCHEDULERS[name])
    assert_same(inpaint, image=picture(), mask_image=mask(), num_inference_steps=6, strength=0.6)


def test_callbacks_see_the_mask(nine):
    with_scheduler(nine, "DDIMScheduler")

    def callback(pipe, step, timestep, tensors):
        return tensors | {"mask": tensors["mask"] * 0.5}

    names = ["latents", "mask", "masked_image_latents"]
    assert_same(
        nine, image=picture(), mask_image=mask(), callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["img2img", "inpaint", "nine"])
def test_graph_mode(request, name):
    pipes = with_scheduler(request.getfixturevalue(name), "DDIMScheduler")
    masks = {} if name == "img2img" else {"mask_image": mask()}
    pipes[1].enable_graph_mode()
    try:
        assert_same(pipes, image=picture(), **masks)
    finally:
        pipes[1].disable_graph_mode()


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_signatures(name):
    methods = ("__call__", "__init__", "check_inputs", "prepare_latents", "get_timesteps", "prepare_mask_latents", "prepare_image_latents")
    for method in methods:
        if not hasattr(getattr(diffusers, name), method):
            continue
        theirs, mine = (inspect.signature(getattr(getattr(library, name), method)).parameters for library in (diffusers, ours))
        assert list(mine) == [argument for argument in theirs if argument != "kwargs"], method
        assert {argument: mine[argument].default for argument in mine} == {argument: theirs[argument].default for argument in mine}, method


@pytest.fixture(scope="module")
def instruct(pair):
    return with_unet(as_class(pair, "StableDiffusionInstructPix2PixPipeline"), in_channels=8)


INSTRUCT = {
    "plain": {},
    "batch": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "negative_prompt": ["", "blurry"]},
    "one image for a batch": {"prompt": PROMPTS, "num_images_per_prompt": 2},
    "no guidance": {"guidance_scale": 1.0},
    "no image guidance": {"image_guidance_scale": 0.5},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4], "eta": 0.5},
    "latents": {"image": harness.make_input("latents", (1, 4, 16, 16)), "latents": harness.make_input("noise", (1, 4, 16, 16))},
}


@pytest.mark.parametrize("name", INSTRUCT)
def test_instruct_pix2pix(instruct, name):
    with_scheduler(instruct, "EulerAncestralDiscreteScheduler" if "eta" not in INSTRUCT[name] else "DDIMScheduler")
    assert_same(instruct, **{"image": picture(), "num_inference_steps": 3} | INSTRUCT[name])


def test_instruct_pix2pix_refuses_what_upstream_refuses(instruct, inpaint):
    for pipe in instruct:
        for arguments in ({"image": None}, {"prompt": None}, {"image": picture(), "callback_on_step_end_tensor_inputs": ["sigmas"]}):
            with pytest.raises(ValueError):
                call(pipe, **{"image": picture()} | arguments)
    other = ours.StableDiffusionInstructPix2PixPipeline(**inpaint[1].components)
    with pytest.raises(ValueError, match="the UNet takes 4"):
        call(other, image=picture())


@pytest.fixture(scope="module", params=["LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"])
def consistency(pair, request):
    return with_unet(as_class(pair, request.param), time_cond_proj_dim=32)


LCM = {
    "plain": {},
    "batch": {"prompt": PROMPTS, "num_images_per_prompt": 2, "guidance_scale": 4.0},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
    "one step": {"num_inference_steps": 1},
    "original steps": {"num_inference_steps": 3, "original_inference_steps": 20},
    "timesteps": {"timesteps": [800, 500, 100]},
    "embeds": {"prompt": None, "prompt_embeds": EMBEDS, "clip_skip": 1},
    "latents": {"latents": harness.make_input("latents", (1, 4, 16, 16))},
    "output": {"output_type": "np", "cross_attention_kwargs": None},
}


@pytest.mark.parametrize("name", LCM)
def test_latent_consistency(consistency, name):
    pipes = with_scheduler(consistency, "LCMScheduler")
    changes = "Img2Img" in type(pipes[1]).__name__
    if name == "timesteps" and changes:
        pytest.skip("upstream passes a strength with custom timesteps too")
    assert_same(pipes, **({"image": picture()} if changes else {}), **LCM[name])


def test_latent_consistency_callbacks(consistency):
    pipes = with_scheduler(consistency, "LCMScheduler")

    def callback(pipe, step, timestep, tensors):
        assert sorted(tensors) == ["denoised", "latents", "w_embedding"]
        return tensors | {"denoised": tensors["denoised"] * 0.5, "w_embedding": tensors["w_embedding"] * 0.9}

    arguments = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["latents", "denoised", "w_embedding"]}
    assert_same(pipes, **({"image": picture()} if "Img2Img" in type(pipes[1]).__name__ else {}), **arguments)


AUTO = {"AutoPipelineForText2Image": "", "AutoPipelineForImage2Image": "Img2Img", "AutoPipelineForInpainting": "Inpaint"}


@pytest.mark.parametrize("name", AUTO)
def test_auto_pipelines(pair, name):
    theirs, mine = (getattr(library, name).from_pretrained(pair[1].name_or_path) for library in (diffusers, ours))
    assert type(theirs).__name__ == type(mine).__name__ == f"StableDiffusion{AUTO[name]}Pipeline"
    theirs, mine = (getattr(library, name).from_pipe(pipe) for library, pipe in zip((diffusers, ours), pair))
    assert type(theirs).__name__ == type(mine).__name__
    assert all(mine.components[part] is pair[1].components[part] for part in ("unet", "vae", "text_encoder")), "shared"
    arguments = {} if not AUTO[name] else {"image": picture()}
    with_scheduler((theirs, mine), "DDIMScheduler")
    assert_same((theirs, mine), **arguments, **({"mask_image": mask()} if AUTO[name] == "Inpaint" else {}))


def test_auto_pipelines_refuse_what_upstream_refuses(pair, instruct, consistency):
    for library, index in ((diffusers, 0), (ours, 1)):
        with pytest.raises(EnvironmentError):
            library.AutoPipelineForText2Image()
        with pytest.raises(ValueError):
            library.AutoPipelineForInpainting.from_pipe(instruct[index])
        with pytest.raises(ValueError):
            library.AutoPipelineForInpainting.from_pipe(consistency[index])
        same = library.AutoPipelineForText2Image.from_pipe(consistency[index])
        assert type(same).__name__ == "LatentConsistencyModelPipeline"


REFUSED = {
    "strength above 1": {"strength": 1.1},
    "negative strength": {"strength": -0.1},
    "no prompt": {"prompt": None},
    "prompt and embeds": {"prompt_embeds": EMBEDS},
    "unknown tensor": {"callback_on_step_end_tensor_inputs": ["sigmas"]},
    "images that do not divide": {"prompt": ["a"] * 3, "image": [picture(0), picture(1)]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_img2img_refuses_what_upstream_refuses(img2img, name):
    for pipe in with_scheduler(img2img, "DDIMScheduler"):
        with pytest.raises(ValueError):
            call(pipe, **{"image": picture()} | REFUSED[name])


@pytest.mark.parametrize(
    "arguments",
    [
        *REFUSED.values(),
        {"height": 33},
        {"padding_mask_crop": 4},
        {"padding_mask_crop": 4, "image": IMAGE, "output_type": "pil"},
        {"strength": 0.01},
    ],
    ids=harness.case_id,
)
def test_inpaint_refuses_what_upstream_refuses(inpaint, arguments):
    for pipe in with_scheduler(inpaint, "DDIMScheduler"):
        with pytest.raises((ValueError, RuntimeError)):
            call(pipe, **{"image": picture(), "mask_image": mask()} | arguments)
