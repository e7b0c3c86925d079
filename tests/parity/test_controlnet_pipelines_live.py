"""The pipelines of Stable Diffusion 1 with ControlNets beside PyTorch diffusers', on a checkpoint of `test_stable_diffusion_live`."""

import inspect

import numpy as np
import pytest

import mindone_diffusers as ours
from tests import harness

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from .test_stable_diffusion_images_live import mask, picture, with_unet  # noqa: E402
from .test_stable_diffusion_live import EMBEDS, PROMPTS, load_pair  # noqa: E402
from .test_stable_diffusion_xl_live import call  # noqa: E402

TEXT, IMAGE, PAINT = (f"StableDiffusionControlNet{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))
MULTI = [f"{kind} with two" for kind in (TEXT, IMAGE, PAINT)]


def control_models(make, unet, seed: str, **options):
    """A ControlNet for their UNet and the same of ours, with weights that depend on `seed`; `make` is the name of their class."""
    config = getattr(diffusers, make).from_unet(unet, load_weights_from_unet=False).config
    config = {name: value for name, value in config.items() if not name.startswith("_")} | options
    theirs, mine = (getattr(library, make)(**config) for library in (diffusers, ours))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.from_numpy(harness.make_weight(f"{seed}.{name}", tuple(parameter.shape))))
    mine.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return theirs.eval(), mine


def embedding(**options):
    return {"conditioning_embedding_out_channels": (16, 32)} | options


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return load_pair("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def nets(pair):
    unet = pair[0].unet
    return {
        "first": control_models("ControlNetModel", unet, "first", **embedding()),
        "second": control_models("ControlNetModel", unet, "second", **embedding(controlnet_conditioning_channel_order="bgr")),
        "pooled": control_models("ControlNetModel", unet, "pooled", **embedding(global_pool_conditions=True)),
    }


@pytest.fixture(scope="module")
def make(pair, nets):
    """Pairs of pipelines (theirs, ours) of a class with these ControlNets."""
    made = {}

    def get(kind: str, *names: str):
        key = (kind, *names)
        if key not in made:
            pipes = []
            for index, (pipe, library) in enumerate(zip(pair, (diffusers, ours))):
                models = [nets[name][index] for name in names]
                pipes.append(getattr(library, kind)(**pipe.components, controlnet=models[0] if len(models) == 1 else models))
                pipes[-1].scheduler = library.DDIMScheduler.from_config(pipe.scheduler.config)
            made[key] = pipes
        return made[key]

    return get


def assert_same(pipes, tolerance: float = 1e-3, **arguments):
    theirs, mine = (call(pipe, **arguments) for pipe in pipes)
    theirs, mine = theirs[0], mine[0]
    if arguments.get("output_type") == "latent":
        assert harness.relative_error(mine.asnumpy(), theirs.numpy()) <= 1e-4
    elif arguments.get("output_type") == "pil":
        assert all(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1 for a, b in zip(theirs, mine, strict=True))
    else:
        assert mine.shape == theirs.shape and np.isfinite(mine).all() and mine.std() > 0.05
        difference = np.abs(mine - theirs).max()
        assert difference <= tolerance, difference
    return mine


def inputs(kind: str) -> dict:
    """What a pipeline needs beside a prompt, for one ControlNet."""
    arguments = {"image": picture(), "num_inference_steps": 4}
    if kind != TEXT:
        arguments["control_image"] = picture(1)
    if kind == PAINT:
        arguments["mask_image"] = mask()
    return arguments


def control(kind: str, value) -> dict:
    return {"image" if kind == TEXT else "control_image": value}


KINDS = [TEXT, IMAGE, PAINT]
OPTIONS = {
    "plain": {},
    "scale": {"controlnet_conditioning_scale": 0.3},
    "off at first": {"control_guidance_start": 0.3, "control_guidance_end": 0.8},
    "ranges": {"control_guidance_start": [0.5]},
    "guess": {"guess_mode": True},
    "guess without guidance": {"guess_mode": True, "guidance_scale": 1.0},
    "no guidance": {"guidance_scale": 1.0},
    "one for two prompts": {"prompt": PROMPTS, "num_images_per_prompt": 2, "num_inference_steps": 2, "strength": 1.0},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
    "embeds": {"prompt": None, "prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[::-1].copy(), "guess_mode": True},
    "negative, eta, clip_skip": {"negative_prompt": "green", "eta": 0.5, "clip_skip": 1},
    # With strong guidance, rounding grows a hundredfold in four steps: torch's float32 is then 1e-4 from its own float64.
    "latent": {"output_type": "latent", "guidance_scale": 2.0},
    "latents": {"latents": harness.make_input("latents", (1, 4, 16, 16))},
    "other size": {"height": 40, "width": 48},
    "weak": {"strength": 0.5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_one(make, kind, name):
    arguments = inputs(kind) | OPTIONS[name]
    if kind == TEXT:
        arguments.pop("strength", None)
    assert_same(make(kind, "first"), **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_each_prompt(make, kind):
    pictures = [picture(0), picture(1)]
    arguments = inputs(kind) | {"prompt": PROMPTS, "num_inference_steps": 2, "num_images_per_prompt": 2}
    assert_same(make(kind, "first"), **arguments | control(kind, pictures))
    assert_same(make(kind, "first"), **arguments | control(kind, np.random.default_rng(3).random((2, 3, 32, 32), np.float32)))


TWO = {
    "plain": {},
    "scales": {"controlnet_conditioning_scale": [0.2, 0.9]},
    "ranges": {"control_guidance_start": [0.0, 0.5], "control_guidance_end": 0.9},
    "both ranges": {"control_guidance_start": [0.0, 0.5], "control_guidance_end": [0.6, 1.0], "guess_mode": True},
    "two prompts": {"prompt": PROMPTS, "guidance_scale": 1.0, "num_inference_steps": 2, "strength": 1.0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TWO)
def test_two(make, kind, name):
    arguments = inputs(kind) | control(kind, [picture(1), picture(2)]) | TWO[name]
    if kind == TEXT:
        arguments.pop("strength", None)
    assert_same(make(kind, "first", "second"), **arguments)


def test_two_images_of_each_prompt(make):
    images = [[picture(1), picture(2)], [picture(3), picture(4)]]
    assert_same(make(TEXT, "first", "second"), prompt=PROMPTS, image=images)


@pytest.mark.parametrize("kind", KINDS)
def test_pooled_outputs_are_always_guesses(make, kind):
    assert_same(make(kind, "pooled"), **inputs(kind))
    images = control(kind, [picture(1), picture(2)])
    assert_same(make(kind, "pooled", "pooled"), **inputs(kind) | images | {"controlnet_conditioning_scale": [1.0, 0.5]})


PAINTED = {
    "crop": {"image": picture(2, (64, 64)), "control_image": picture(3, (64, 64)), "mask_image": mask((20, 20, 40, 36), (64, 64)),
             "height": 32, "width": 32, "padding_mask_crop": 4, "output_type": "pil"},
    "crop at its size": {"padding_mask_crop": 2, "output_type": "pil"},
    "weak": {"strength": 0.6, "num_inference_steps": 5},
    "masks": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "mask_image": [mask(), mask((0, 0, 10, 30))]},
}  # fmt: skip


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("name", PAINTED)
def test_painting(make, nets, name, channels):
    pipes = make(PAINT, "first")
    if channels == 9:
        pipes = [type(pipe)(**pipe.components) for pipe in pipes]
        with_unet(pipes, in_channels=9)
    assert_same(pipes, **inputs(PAINT) | PAINTED[name])


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_see_and_change_the_same(make, kind):
    pipes, seen = make(kind, "first"), []
    names = type(pipes[0])._callback_tensor_inputs
    assert sorted(names) == sorted(type(pipes[1])._callback_tensor_inputs)
    shown = "image" if kind == TEXT else "control_image"

    def change(pipe, step, timestep, tensors):
        seen.append({name: tuple(value.shape) for name, value in tensors.items()})
        return {shown: tensors[shown] * 0.5, "latents": tensors["latents"] * 0.9}

    assert_same(pipes, **inputs(kind), callback_on_step_end=change, callback_on_step_end_tensor_inputs=names)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


@pytest.mark.slow
@pytest.mark.parametrize("names", [("first",), ("first", "second")])
def test_graph_mode(make, names):
    pipes = make(TEXT, *names)
    pipes[1].enable_graph_mode()
    try:
        images = picture(1) if len(names) == 1 else [picture(1), picture(2)]
        assert_same(pipes, image=images, control_guidance_end=0.6)
        assert_same(pipes, image=images, guess_mode=True)
    finally:
        pipes[1].disable_graph_mode()


@pytest.mark.parametrize("names", [("first",), ("first", "second")])
def test_files_go_both_ways(make, tmp_path, names):
    theirs, mine = make(TEXT, *names)
    images = picture(1) if len(names) == 1 else [picture(1), picture(2)]
    mine.save_pretrained(tmp_path / "mine")
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = [getattr(library, TEXT).from_pretrained(tmp_path / folder) for library, folder in ((diffusers, "mine"), (ours, "theirs"))]
    assert type(loaded[1].controlnet).__name__ == type(theirs.controlnet).__name__
    assert_same(loaded, image=images)


def test_auto_pipelines(make, pair, nets):
    path, net = pair[1].name_or_path, nets["first"][1]
    text = ours.AutoPipelineForText2Image.from_pretrained(path, controlnet=net)
    assert type(text).__name__ == TEXT and text.controlnet is net
    paint = ours.AutoPipelineForInpainting.from_pipe(text)
    assert type(paint).__name__ == PAINT and paint.unet is text.unet and paint.controlnet is net
    several = ours.AutoPipelineForImage2Image.from_pipe(pair[1], controlnet=[net, nets["second"][1]])
    assert type(several).__name__ == IMAGE and isinstance(several.controlnet, ours.MultiControlNetModel)
    assert several.vae is pair[1].vae
    plain = ours.AutoPipelineForText2Image.from_pipe(several, controlnet=None)
    assert type(plain).__name__ == "StableDiffusionPipeline" and plain.unet is pair[1].unet


REFUSED = {
    "no image": (1, None, {}),
    "text": (1, "picture.png", {}),
    "an array without a first axis": (1, np.zeros((32, 32, 3), np.float32), {}),
    "two images for one prompt": (1, [picture(1), picture(2)], {}),
    "a list of factors for one": (1, picture(1), {"controlnet_conditioning_scale": [1.0]}),
    "a whole number": (1, picture(1), {"controlnet_conditioning_scale": 1}),
    "one image for two": (2, picture(1), {}),
    "three images for two": (2, [picture(1)] * 3, {}),
    "lists of factors": (2, [picture(1)] * 2, {"controlnet_conditioning_scale": [[1.0, 1.0], [1.0, 1.0]]}),
    "starts and ends": (2, [picture(1)] * 2, {"control_guidance_start": [0.0, 0.1], "control_guidance_end": [0.5]}),
    "three ranges": (2, [picture(1)] * 2, {"control_guidance_start": [0.0, 0.1, 0.2]}),
    "start after end": (1, picture(1), {"control_guidance_start": 0.6, "control_guidance_end": 0.5}),
    "negative start": (1, picture(1), {"control_guidance_start": -0.1}),
    "late end": (1, picture(1), {"control_guidance_end": 1.1}),
    "no prompt": (1, picture(1), {"prompt": None}),
    "callback tensor": (1, picture(1), {"callback_on_step_end_tensor_inputs": ["noise"]}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_upstream_refuses_is_refused(make, kind, name):
    count, image, options = REFUSED[name]
    for pipe in make(kind, *["first", "second"][:count]):
        with pytest.raises((TypeError, ValueError)) as error:
            call(pipe, **inputs(kind) | control(kind, image) | options)
    wrong_type = ("no image", "text", "one image for two", "a list of factors for one", "a whole number")
    assert isinstance(error.value, TypeError) == (name in wrong_type)


def test_more_is_refused(make):
    several, one = make(TEXT, "first", "second")[1], make(TEXT, "first")[1]
    with pytest.raises(ValueError, match="scale has 3 entries; expected 2"):
        several(PROMPTS[0], [picture(1)] * 2, controlnet_conditioning_scale=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="start has 2 entries; expected 1"):
        one(PROMPTS[0], picture(1), control_guidance_start=[0.0, 0.1])
    for kind in (IMAGE, PAINT):
        pipe = make(kind, "first")[1]
        with pytest.raises(ValueError, match="strength is 1.5"):
            pipe(PROMPTS[0], **inputs(kind), strength=1.5)
        with pytest.raises(ValueError, match="leaves none of the steps"):
            pipe(PROMPTS[0], **inputs(kind), strength=0.1)
    nested = [[picture(1), picture(2)]]
    for kind in (IMAGE, PAINT):
        for pipe in make(kind, "first", "second"):
            with pytest.raises(ValueError):
                call(pipe, **inputs(kind) | control(kind, nested))
    for pipe in make(PAINT, "first"):
        with pytest.raises(ValueError):
            call(pipe, **inputs(PAINT), height=33)
        with pytest.raises(ValueError):
            call(pipe, **inputs(PAINT), padding_mask_crop=4)  # arrays come out


METHODS = ("__init__", "__call__", "check_inputs", "check_image", "encode_prompt", "prepare_latents", "prepare_image",
           "prepare_control_image", "prepare_mask_latents", "get_timesteps", "run_safety_checker")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_methods_have_the_same_arguments(kind):
    same_methods(kind)


def same_methods(kind: str, extra=()):
    theirs, mine = getattr(diffusers, kind), getattr(ours, kind)
    for method in METHODS:
        if hasattr(theirs, method):
            signatures = [inspect.signature(getattr(owner, method)).parameters for owner in (theirs, mine)]
            listed = [[(p.name, p.default) for p in parameters.values() if p.kind is not p.VAR_KEYWORD] for parameters in signatures]
            assert listed[1][: len(listed[0])] == listed[0], method
            assert [name for name, _ in listed[1][len(listed[0]) :]] == [name for owner, name in extra if owner == method]
