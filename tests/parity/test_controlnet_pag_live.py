"""The pipelines with ControlNets and perturbed attention guidance beside PyTorch diffusers', on the checkpoints of the others' tests."""

import inspect

import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.backend import graph
from mindone_diffusers.models.attention import AttnProcessor2_0
from tests import harness

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from . import test_controlnet_pipelines_live as control  # noqa: E402
from . import test_controlnet_pipelines_xl_live as control_xl  # noqa: E402
from .test_controlnet_pipelines_live import PAINTED, assert_same, nets, pair  # noqa: E402, F401  (the last two: fixtures)
from .test_controlnet_pipelines_live import make as make_sd  # noqa: E402, F401  (a fixture)
from .test_controlnet_pipelines_xl_live import make as make_xl  # noqa: E402, F401  (a fixture)
from .test_stable_diffusion_images_live import AUTO, mask, picture, with_unet  # noqa: E402
from .test_stable_diffusion_live import EMBEDS, PROMPTS  # noqa: E402
from .test_stable_diffusion_xl_live import call, checkpoint, load  # noqa: E402, F401  (the last two: fixtures)

TEXT, PAINT = "StableDiffusionControlNetPAGPipeline", "StableDiffusionControlNetPAGInpaintPipeline"
XL_TEXT, XL_IMAGE = "StableDiffusionXLControlNetPAGPipeline", "StableDiffusionXLControlNetPAGImg2ImgPipeline"
KINDS = (TEXT, PAINT, XL_TEXT, XL_IMAGE)


@pytest.fixture(scope="module")
def make(make_sd, make_xl):  # noqa: F811
    """Pairs of pipelines (theirs, ours) of a class with these ControlNets, these layers perturbed."""

    def get(kind: str, *names: str, layers="mid", **options):
        pipes = (make_xl if "XL" in kind else make_sd)(kind, *names or ("first",), **options)
        for pipe in pipes:
            pipe.set_pag_applied_layers(layers)
        return pipes

    return get


def inputs(kind: str, shown=None) -> dict:
    """What a pipeline needs beside a prompt: the control image is `shown`."""
    arguments = {"num_inference_steps": 3, "image" if kind in (TEXT, XL_TEXT) else "control_image": shown or picture(1)}
    if kind in (PAINT, XL_IMAGE):
        arguments["image"] = picture()
    return arguments | ({"mask_image": mask()} if kind == PAINT else {})


OPTIONS = {
    "plain": {},
    "no prompt guidance": {"guidance_scale": 1.0},
    "no perturbed guidance": {"pag_scale": 0.0},
    "no guidance at all": {"pag_scale": 0.0, "guidance_scale": 1.0},
    "adaptive": {"pag_scale": 3.0, "pag_adaptive_scale": 0.005, "negative_prompt": "green", "clip_skip": 1, "eta": 0.5},
    "scale and range": {"controlnet_conditioning_scale": 0.3, "control_guidance_start": 0.3, "control_guidance_end": 0.8},
    "batch": {"prompt": PROMPTS, "num_images_per_prompt": 2, "negative_prompt": ["", "blurry"], "num_inference_steps": 2},
    "batch without prompt guidance": {"prompt": PROMPTS, "num_images_per_prompt": 2, "guidance_scale": 1.0, "num_inference_steps": 2},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
    "other size and latents": {"height": 40, "width": 48, "latents": harness.make_input("latents", (1, 4, 20, 24))},
}
SD_OPTIONS = {"embeds": {"prompt": None, "prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[::-1].copy(), "num_inference_steps": 2}}
XL_OPTIONS = {
    "embeds": control_xl.OPTIONS["embeds"],
    "sizes": control_xl.OPTIONS["sizes"] | {"prompt": PROMPTS, "prompt_2": ["red", "blue"]},
    "negative sizes": {name: value for name, value in control_xl.OPTIONS["negative sizes"].items() if name != "guess_mode"},
}
ONLY = {
    TEXT: {},
    PAINT: {"weak": {"strength": 0.6}} | {name: PAINTED[name] for name in ("crop", "masks")},
    XL_TEXT: {"end": {"denoising_end": 0.6, "num_inference_steps": 5, "output_type": "latent", "guidance_scale": 2.0}},
    XL_IMAGE: {"weak": {"strength": 0.4}},
}
CASES = [
    (kind, name, arguments)
    for kind in KINDS
    for name, arguments in (OPTIONS | (XL_OPTIONS if "XL" in kind else SD_OPTIONS) | ONLY[kind]).items()
]


@pytest.mark.parametrize(("kind", "name", "arguments"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_one(make, kind, name, arguments):
    assert_same(make(kind), **inputs(kind) | arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_two(make, kind):
    pipes, arguments = make(kind, "first", "second"), inputs(kind, [picture(1), picture(2)])
    assert_same(pipes, **arguments)
    factors = {"controlnet_conditioning_scale": [0.2, 0.9], "control_guidance_start": [0.0, 0.5], "control_guidance_end": 0.9}
    assert_same(pipes, **arguments, **factors, guidance_scale=1.0, prompt=PROMPTS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_each_prompt(make, kind):
    arguments = inputs(kind, [picture(1), picture(2)])
    assert_same(make(kind), **arguments, prompt=PROMPTS, num_images_per_prompt=2)


@pytest.mark.parametrize("kind", KINDS)
def test_layers(make, kind):
    pipes = make(kind, layers=["down", "mid", r"up_blocks.*attentions\.0"])
    for scale in (3.0, 1.0):
        assert_same(pipes, **inputs(kind), guidance_scale=scale)


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
def test_a_unet_that_is_shown_the_mask(make, guidance_scale):
    pipes = with_unet([type(pipe)(**pipe.components) for pipe in make(PAINT)], in_channels=9)
    arguments = inputs(PAINT) | {"mask_image": [mask(), mask((0, 0, 10, 30))], "image": [picture(0), picture(1)], "prompt": PROMPTS}
    assert_same(pipes, **arguments, guidance_scale=guidance_scale)
    assert_same(pipes, **arguments, guidance_scale=guidance_scale, pag_scale=0.0)


def test_the_refiner_and_a_distilled_unet(make):
    # Without it, PyTorch diffusers adds floats to a `torch.Size` in image to image, and fails.
    assert_same(make(XL_IMAGE, base="refiner"), **inputs(XL_IMAGE), original_size=(32, 32), aesthetic_score=7.0)
    assert_same(make(XL_TEXT, base="distilled"), **inputs(XL_TEXT))


def test_guess_mode(make, make_sd):  # noqa: F811
    """With guidance by the prompt, PyTorch diffusers' has residuals for twice the batch and fails. Ours is checked with a perturbation that
    does nothing, which leaves the plain pipeline's image."""
    for names, guess in (("first", True), ("pooled", False)):
        theirs, mine = make(TEXT, names)
        arguments = inputs(TEXT) | {"guess_mode": guess}
        assert_same((theirs, mine), **arguments, guidance_scale=1.0)
        original = theirs.unet.attn_processors
        with pytest.raises(RuntimeError):
            call(theirs, **arguments)
        theirs.unet.set_attn_processor(original)
        expected = call(make_sd("StableDiffusionControlNetPipeline", names)[1], **arguments)[0]
        perturbed = call(mine, **arguments)[0]
        mine.set_pag_applied_layers("mid", (AttnProcessor2_0(), AttnProcessor2_0()))
        assert np.abs(call(mine, **arguments)[0] - expected).max() <= 1e-4
        assert np.abs(perturbed - expected).max() > 1e-2


@pytest.mark.parametrize("kind", [PAINT, XL_TEXT, XL_IMAGE])
def test_no_guess_mode(make, kind):
    """Not for ControlNets that pool their outputs, either. Image to image takes the argument, and does not use it."""
    assert_same(make(kind, "pooled"), **inputs(kind))
    if kind == XL_IMAGE:
        assert_same(make(kind), **inputs(kind), guess_mode=True)
    else:
        for pipe in make(kind):
            with pytest.raises(TypeError, match="guess_mode"):
                call(pipe, **inputs(kind), guess_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_see_the_same(make, kind):
    pipes, seen = make(kind), []
    names = type(pipes[0])._callback_tensor_inputs
    assert names == type(pipes[1])._callback_tensor_inputs

    def change(pipe, step, timestep, tensors):
        seen.append({name: None if value is None else tuple(value.shape) for name, value in tensors.items()})
        return {"latents": tensors["latents"] * 0.9}

    for scale in (3.0, 1.0):
        arguments = inputs(kind) | {"guidance_scale": scale, "prompt": PROMPTS}
        assert_same(pipes, **arguments, callback_on_step_end=change, callback_on_step_end_tensor_inputs=names)
        assert seen and seen[: len(seen) // 2] == seen[len(seen) // 2 :]
        seen.clear()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [TEXT])
def test_graph_mode(make, kind):
    pipes = make(kind)
    pipes[1].enable_graph_mode()
    try:
        assert_same(pipes, **inputs(kind), control_guidance_end=0.6)
        compiled = graph.compilations()
        assert_same(pipes, **inputs(kind), control_guidance_end=0.6)
        assert graph.compilations() == compiled, "a second call compiles nothing"
    finally:
        pipes[1].disable_graph_mode()


METHODS = (*control.METHODS, "upcast_vae")


@pytest.mark.parametrize("kind", KINDS)
def test_methods_have_the_same_arguments(kind):
    theirs, mine = getattr(diffusers, kind), getattr(ours, kind)
    for method in METHODS:
        if hasattr(theirs, method):
            signatures = [inspect.signature(getattr(owner, method)).parameters.values() for owner in (theirs, mine)]
            expected, listed = ([(p.name, p.default) for p in parameters] for parameters in signatures)
            if method == "check_inputs" and "XL" not in kind:
                listed.remove(("callback_steps", inspect.Parameter.empty))  # which the plain pipelines' has
            if method == "get_timesteps" and "XL" in kind:
                listed.remove(("denoising_start", None))
            if method == "check_inputs":
                expected, listed = ([name for name, _ in parameters] for parameters in (expected, listed))
            assert listed == expected, method


@pytest.mark.parametrize("index", [0, 1], ids=["theirs", "ours"])
@pytest.mark.parametrize(("family", "other", "absent"), [("", "Inpainting", "Image2Image"), ("XL", "Image2Image", "Inpainting")])
def test_auto_pipelines(make, pair, load, nets, index, family, other, absent):  # noqa: F811
    task, other, absent = (f"AutoPipelineFor{name}" for name in ("Text2Image", other, absent))
    net = make(XL_TEXT)[index].controlnet if family else nets["first"][index]
    pipes, library = load("base") if family else pair, (diffusers, ours)[index]
    plain, path, options = pipes[index], pipes[1].name_or_path, {"controlnet": net, "enable_pag": True}
    kinds = {name: getattr(library, name) for name in AUTO}

    def check(made, name, control="ControlNet", guidance="PAG"):
        assert type(made).__name__ == f"StableDiffusion{family}{control}{guidance}{AUTO[name]}Pipeline"
        return made

    text = check(kinds[task].from_pretrained(path, pag_applied_layers=["up"], **options), task)
    assert text.pag_applied_layers == ["up"] and text.controlnet is net
    changed = check(kinds[other].from_pipe(text), other)
    assert changed.unet is text.unet and changed.controlnet is net and changed.pag_applied_layers == ["mid"]
    check(kinds[task].from_pipe(changed), task)
    check(kinds[task].from_pipe(changed, enable_pag=False), task, guidance="")
    check(kinds[task].from_pipe(changed, controlnet=None), task, control="")
    assert check(kinds[other].from_pipe(plain, **options), other).unet is plain.unet
    check(kinds[other].from_pretrained(path, **options), other)
    with pytest.raises(ValueError):
        kinds[absent].from_pretrained(path, **options)
    with pytest.raises(ValueError):
        kinds[absent].from_pipe(text)
    if library is ours:  # theirs refuses it
        assert check(kinds[absent].from_pipe(text, enable_pag=False), absent, guidance="").controlnet is net


REFUSED = {
    "no image": (None, {}),
    "two images for one prompt": ([picture(1), picture(2)], {}),
    "start after end": (picture(1), {"control_guidance_start": 0.6, "control_guidance_end": 0.5}),
    "whole number": (picture(1), {"controlnet_conditioning_scale": 1}),
    "no prompt": (picture(1), {"prompt": None}),
    "callback tensor": (picture(1), {"callback_on_step_end_tensor_inputs": ["image"]}),
    "unknown argument": (picture(1), {"callback": print}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_upstream_refuses_is_refused(make, kind):
    shown = "image" if kind in (TEXT, XL_TEXT) else "control_image"
    for pipe in make(kind):
        for name, (image, options) in REFUSED.items():
            with pytest.raises((TypeError, ValueError)):
                call(pipe, **inputs(kind) | {shown: image} | options)
                pytest.fail(f"{type(pipe).__module__} takes {name}")
    theirs, mine = make(kind, layers=["middle"])
    original = theirs.unet.attn_processors
    for pipe in (theirs, mine):
        with pytest.raises(ValueError, match="middle"):
            call(pipe, **inputs(kind))
    theirs.unet.set_attn_processor(original)
