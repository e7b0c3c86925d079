"""The Stable Diffusion XL pipelines with ControlNets beside PyTorch diffusers', on checkpoints of `test_stable_diffusion_xl_live`."""

import numpy as np
import pytest

import mindone_diffusers as ours
from tests import harness

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from .test_controlnet_pipelines_live import assert_same, control_models, embedding, same_methods  # noqa: E402
from .test_stable_diffusion_images_live import mask, picture  # noqa: E402
from .test_stable_diffusion_live import PROMPTS  # noqa: E402
from .test_stable_diffusion_xl_live import call, checkpoint, load  # noqa: E402, F401

TEXT, IMAGE, PAINT = (f"StableDiffusionXLControlNet{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))
UNION_TEXT, UNION_IMAGE, UNION_PAINT = (f"StableDiffusionXLControlNetUnion{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))
PLAIN, UNION = (TEXT, IMAGE, PAINT), (UNION_TEXT, UNION_IMAGE, UNION_PAINT)
KINDS = PLAIN + UNION
SMALL = {"num_trans_channel": 32, "num_proj_channel": 32}
NETS = {
    "first": ("ControlNetModel", {}),
    "second": ("ControlNetModel", {}),
    "pooled": ("ControlNetModel", {"global_pool_conditions": True}),
    "union": ("ControlNetUnionModel", SMALL),
    "other union": ("ControlNetUnionModel", SMALL | {"num_control_type": 8}),
}
EMBEDS = {"prompt_embeds": (2, 77, 80), "pooled_prompt_embeds": (2, 40), "negative_prompt_embeds": (2, 77, 80),
          "negative_pooled_prompt_embeds": (2, 40)}  # fmt: skip


@pytest.fixture(scope="module")
def make(load):  # noqa: F811
    """Pairs of pipelines (theirs, ours) of a class with these ControlNets, on a checkpoint."""
    nets, made = {}, {}

    def get(kind: str, *names: str, base: str = "base"):
        pair = load(base)
        key = (kind, base, *names)
        if key not in made:
            for name in names:
                if (name, base) not in nets:
                    model, options = NETS[name]
                    nets[name, base] = control_models(model, pair[0].unet, name, **embedding(**options))
            pipes = []
            for index, (pipe, library) in enumerate(zip(pair, (diffusers, ours))):
                models = [nets[name, base][index] for name in names]
                options = {} if base != "refiner" else {"requires_aesthetics_score": True}
                components = {**pipe.components, "controlnet": models[0] if len(models) == 1 else models}
                pipes.append(getattr(library, kind)(**components, **options))
            made[key] = pipes
        for pipe, other in zip(made[key], pair):
            pipe.scheduler = other.scheduler
        return made[key]

    return get


def shown(kind: str) -> str:
    return "image" if kind == TEXT else "control_image"


def inputs(kind: str) -> dict:
    """What a pipeline needs beside a prompt, for one ControlNet."""
    arguments = {"num_inference_steps": 4, shown(kind): picture(1)}
    if "Img2Img" in kind or "Inpaint" in kind:
        arguments["image"] = picture()
    if "Inpaint" in kind:
        arguments["mask_image"] = mask()
    return arguments | ({"control_mode": 1} if kind in UNION else {})


def net(kind: str) -> str:
    return "union" if kind in UNION else "first"


OPTIONS = {
    "plain": {},
    "scale": {"controlnet_conditioning_scale": 0.3},
    "ranges": {"control_guidance_start": 0.3, "control_guidance_end": [0.8]},
    "guess": {"guess_mode": True},
    "guess without guidance": {"guess_mode": True, "guidance_scale": 1.0},
    "prompts": {"prompt": PROMPTS, "prompt_2": ["red", "blue"], "num_images_per_prompt": 2, "num_inference_steps": 2, "strength": 1.0},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4], "negative_prompt": "green"},
    "embeds": {"prompt": None, **{name: harness.make_input(name, shape) for name, shape in EMBEDS.items()}, "num_inference_steps": 2},
    "sizes": {"original_size": (64, 48), "crops_coords_top_left": (4, 2), "target_size": (40, 40)},
    "negative sizes": {"negative_original_size": (20, 24), "negative_crops_coords_top_left": (1, 2), "negative_target_size": (50, 60),
                       "prompt": PROMPTS, "guess_mode": True},
    "latent": {"output_type": "latent", "guidance_scale": 2.0},
    "latents": {"latents": harness.make_input("latents", (1, 4, 16, 16)), "clip_skip": 1},
    "other size": {"height": 40, "width": 48},
    "weak": {"strength": 0.5},
    "end": {"denoising_end": 0.6, "control_guidance_end": 0.7, "num_inference_steps": 6},
    "start": {"denoising_start": 0.4, "denoising_end": 0.9, "num_inference_steps": 8, "guidance_rescale": 0.5},
}  # fmt: skip
ONLY = {
    "weak": ("Img2Img", "Inpaint"), "negative sizes": ("Net", "Union", "Img2Img"), "end": ("Net", "Union", "Inpaint"),
    "start": ("Inpaint",),
}  # fmt: skip


def takes(kind: str, name: str) -> bool:
    return kind.removesuffix("Pipeline").endswith(ONLY.get(name, ("",)))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in OPTIONS if takes(kind, name)])
def test_one(make, kind, name):
    arguments = inputs(kind) | OPTIONS[name]
    if kind in (TEXT, UNION_TEXT):
        arguments.pop("strength", None)
    theirs, mine = make(kind, net(kind))
    if kind in UNION and arguments.get("guess_mode") and arguments.get("guidance_scale", 5.0) > 1:
        with pytest.raises(RuntimeError):  # their control types are for twice the images
            call(theirs, **arguments)
        assert call(mine, **arguments)[0].std() > 0.05
    else:
        assert_same((theirs, mine), **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_each_prompt(make, kind):
    pictures = [picture(0), picture(1)]
    arguments = inputs(kind) | {"prompt": PROMPTS, "num_inference_steps": 2, "num_images_per_prompt": 2}
    several = {shown(kind): [pictures] if kind in UNION else pictures}
    assert_same(make(kind, net(kind)), **arguments | several)


MANY = {
    "plain": {},
    "factors": {"controlnet_conditioning_scale": [0.2, 0.9]},
    "ranges": {"control_guidance_start": [0.0, 0.5], "control_guidance_end": 0.9},
    "both ranges": {"control_guidance_start": [0.0, 0.5], "control_guidance_end": [0.4, 1.0], "guidance_scale": 1.0},
    "prompts": {"prompt": PROMPTS, "num_inference_steps": 2, "strength": 1.0},
    "off": {"control_guidance_start": 0.7},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MANY)
def test_two(make, kind, name):
    arguments = inputs(kind) | {shown(kind): [picture(1), picture(2)]} | MANY[name]
    if kind in (TEXT, UNION_TEXT):
        arguments.pop("strength", None)
    if kind in UNION:
        arguments["control_mode"] = [0, 5]
    assert_same(make(kind, *(("union", "other union") if kind in UNION else ("first", "second"))), **arguments)


@pytest.mark.parametrize("kind", UNION)
@pytest.mark.parametrize("name", MANY)
def test_one_net_of_two_images(make, kind, name):
    arguments = inputs(kind) | {"control_image": [picture(1), picture(2)], "control_mode": [3, 1]} | MANY[name]
    if kind == UNION_TEXT:
        arguments.pop("strength", None)
    assert_same(make(kind, "union"), **arguments)


@pytest.mark.parametrize("kind", PLAIN)
def test_pooled_outputs(make, kind):
    assert_same(make(kind, "pooled"), **inputs(kind))


@pytest.mark.parametrize("kind", [IMAGE, PAINT, UNION_IMAGE, UNION_PAINT])
def test_refiner(make, kind):
    # Without it, PyTorch diffusers adds floats to a `torch.Size` in image to image, and fails.
    sizes = {"original_size": (32, 32)}
    assert_same(make(kind, net(kind), base="refiner"), **inputs(kind), **sizes, aesthetic_score=7.0, negative_aesthetic_score=1.0)
    assert call(make(kind, net(kind), base="refiner")[1], **inputs(kind))[0].std() > 0.05


@pytest.mark.parametrize("kind", [TEXT, UNION_TEXT])
def test_distilled(make, kind):
    assert_same(make(kind, net(kind), base="distilled"), **inputs(kind))


PAINTED = {
    "crop": {"image": picture(2, (64, 64)), "control_image": picture(3, (64, 64)), "mask_image": mask((20, 20, 40, 36), (64, 64)),
             "height": 32, "width": 32, "padding_mask_crop": 4, "output_type": "pil"},
    "full": {"strength": 1.0},
    "masks": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "mask_image": [mask(), mask((0, 0, 10, 30))]},
}  # fmt: skip


@pytest.mark.parametrize("base", ["base", "inpaint"])
@pytest.mark.parametrize("name", PAINTED)
def test_painting(make, name, base):
    assert_same(make(PAINT, "first", base=base) if base == "base" else nine(make), **inputs(PAINT) | PAINTED[name])


def nine(make):
    """Inpainting with UNets that are shown the mask, and ControlNets that are not."""
    pipes = []
    for pipe, other in zip(make(PAINT, "first"), make(PAINT, base="inpaint")):
        pipes.append(type(pipe)(**{**pipe.components, "unet": other.unet}))
    return pipes


@pytest.mark.parametrize("name", ["full", "masks"])
def test_union_painting(make, name):
    assert_same(make(UNION_PAINT, "union"), **inputs(UNION_PAINT) | PAINTED[name])


def test_union_paints_a_crop(make):
    """PyTorch diffusers refuses any control image with `padding_mask_crop` here, as it makes a list of it first."""
    theirs, mine = make(UNION_PAINT, "union")
    arguments = inputs(UNION_PAINT) | PAINTED["crop"]
    with pytest.raises(ValueError, match="PIL"):
        call(theirs, **arguments)
    painted, before = (np.asarray(image) for image in (call(mine, **arguments)[0][0], arguments["image"]))
    assert np.array_equal(painted[:16], before[:16]) and not np.array_equal(painted[24:32, 24:36], before[24:32, 24:36])


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_see_and_change_the_same(make, kind):
    pipes, seen = make(kind, net(kind)), []
    names = type(pipes[0])._callback_tensor_inputs
    assert sorted(names) == sorted(type(pipes[1])._callback_tensor_inputs)

    def change(pipe, step, timestep, tensors):
        shapes = {name: [tuple(one.shape) for one in (value if isinstance(value, list) else [value])] for name, value in tensors.items()}
        seen.append(shapes)
        changed = "prompt_embeds" if "Inpaint" in kind else "add_time_ids"  # which PyTorch diffusers does not take back there
        return {changed: tensors[changed] * 0.5, "latents": tensors["latents"] * 0.9}

    assert_same(pipes, **inputs(kind), callback_on_step_end=change, callback_on_step_end_tensor_inputs=names)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_guidance_cutoff_callback(make):
    pipes = make(TEXT, "first")
    images = []
    for pipe, library in zip(pipes, (diffusers, ours)):
        callback = library.callbacks.SDXLControlnetCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
        images.append(call(pipe, **inputs(TEXT), callback_on_step_end=callback)[0])
    assert np.abs(images[0] - images[1]).max() <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", [IMAGE, UNION_TEXT])
def test_graph_mode(make, kind):
    pipes = make(kind, net(kind))
    pipes[1].enable_graph_mode()
    try:
        assert_same(pipes, **inputs(kind), control_guidance_end=0.6)
    finally:
        pipes[1].disable_graph_mode()


@pytest.mark.parametrize(
    ("kind", "names"), [(IMAGE, ("first", "second")), (UNION_TEXT, ("union",)), (UNION_TEXT, ("union", "other union"))]
)
def test_files_go_both_ways(make, tmp_path, kind, names):
    theirs, mine = make(kind, *names)
    mine.save_pretrained(tmp_path / "mine")
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = [theirs, getattr(ours, kind).from_pretrained(tmp_path / "theirs")]
    if "other union" not in names:  # PyTorch diffusers does not load what it saves of several ControlNetUnionModels
        loaded[0] = getattr(diffusers, kind).from_pretrained(tmp_path / "mine")
    several = {} if len(names) == 1 else {"control_image": [picture(1), picture(2)]}
    modes = {"control_mode": [0, 5]} if several and kind in UNION else {}
    assert_same(loaded, **inputs(kind) | several | modes)


def test_auto_pipelines(make, load):  # noqa: F811
    union, first = make(UNION_TEXT, "union")[1].controlnet, make(TEXT, "first")[1].controlnet
    pipe = load("base")[1]
    text = ours.AutoPipelineForText2Image.from_pretrained(pipe.name_or_path, controlnet=union)
    assert type(text).__name__ == UNION_TEXT and text.controlnet is union
    paint = ours.AutoPipelineForInpainting.from_pipe(text)
    assert type(paint).__name__ == UNION_PAINT and paint.unet is text.unet and paint.controlnet is union
    other = ours.AutoPipelineForImage2Image.from_pipe(paint, controlnet=first)
    assert type(other).__name__ == IMAGE and other.vae is text.vae
    assert type(ours.AutoPipelineForInpainting.from_pipe(pipe, controlnet=[first, first])).__name__ == PAINT
    assert type(ours.AutoPipelineForText2Image.from_pipe(other, controlnet=None)).__name__ == "StableDiffusionXLPipeline"


REFUSED = {
    "no image": (1, None, {}),
    "two images for one prompt": (1, [[picture(1), picture(2)]], {}),
    "one image for two": (2, picture(1), {}),
    "three images for two": (2, [picture(1)] * 3, {"control_mode": [1, 2, 3]}),
    "starts and ends": (2, [picture(1)] * 2, {"control_guidance_start": [0.0, 0.1], "control_guidance_end": [0.5], "control_mode": [1, 2]}),
    "start after end": (1, picture(1), {"control_guidance_start": 0.6, "control_guidance_end": 0.5}),
    "late end": (1, picture(1), {"control_guidance_end": 1.1}),
    "whole number": (1, picture(1), {"controlnet_conditioning_scale": 1}),
    "unknown callback tensor": (1, picture(1), {"callback_on_step_end_tensor_inputs": ["noise"]}),
    "both prompts": (1, picture(1), {"prompt_embeds": np.zeros((1, 77, 80), np.float32)}),
    "no pooled": (1, picture(1), {"prompt": None, "prompt_embeds": np.zeros((1, 77, 80), np.float32)}),
}
REFUSED_BY_UNION = {
    "no kind": (1, picture(1), {"control_mode": None}),
    "unknown kind": (1, picture(1), {"control_mode": 6}),
    "unknown kind of the second": (2, [picture(1)] * 2, {"control_mode": [0, 8]}),
    "two images of one kind": (1, [picture(1)] * 2, {"control_mode": 1}),
    "kinds in lists": (2, [picture(1)] * 2, {"control_mode": [[0], [1]]}),
}
REFUSED_FROM_IMAGES = {
    "strength": (1, picture(1), {"strength": 1.5}),
    "steps": (1, picture(1), {"num_inference_steps": 2.5}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_upstream_refuses_is_refused(make, kind):
    cases = REFUSED | (REFUSED_BY_UNION if kind in UNION else {}) | (REFUSED_FROM_IMAGES if kind not in (TEXT, UNION_TEXT) else {})
    for name, (count, image, options) in cases.items():
        if kind in PLAIN:
            options = {key: value for key, value in options.items() if key != "control_mode"}
            if name == "two images for one prompt":
                image = image[0]
        nets = (("union", "other union") if kind in UNION else ("first", "second"))[:count]
        theirs, mine = make(kind, *nets)
        with pytest.raises((TypeError, ValueError)):
            call(mine, **inputs(kind) | {shown(kind): image} | options)
            pytest.fail(f"{name} is taken")
        if (kind, name) != (UNION_IMAGE, "two images of one kind"):  # of which PyTorch diffusers takes the first
            with pytest.raises((TypeError, ValueError, IndexError)):
                call(theirs, **inputs(kind) | {shown(kind): image} | options)
                pytest.fail(f"PyTorch diffusers takes {name}")


def test_union_paints_with_four_channels_only(make):
    theirs, mine = make(UNION_PAINT, "union")
    for pipe, other in zip((theirs, mine), make(PAINT, base="inpaint")):
        nine = type(pipe)(**{**pipe.components, "unet": other.unet})
        with pytest.raises(ValueError):
            call(nine, **inputs(UNION_PAINT))


@pytest.mark.parametrize("kind", KINDS)
def test_methods_have_the_same_arguments(kind):
    same_methods(kind, [("get_timesteps", "denoising_start")] if "Img2Img" in kind else ())
