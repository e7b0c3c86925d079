"""The pipelines with perturbed attention guidance side by side with PyTorch diffusers, on the checkpoints of the plain pipelines' tests."""

import inspect

import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.backend import graph
from tests import harness

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from . import test_stable_diffusion_xl_live as xl  # noqa: E402
from .test_stable_diffusion_images_live import AUTO, IMAGE, as_class, mask, pair, picture, with_unet  # noqa: E402, F401  (pair: a fixture)
from .test_stable_diffusion_live import EMBEDS, PROMPTS, SCHEDULERS, assert_same, call, with_scheduler  # noqa: E402
from .test_stable_diffusion_xl_live import checkpoint, load  # noqa: E402, F401  (fixtures)

SD = ("StableDiffusionPAGPipeline", "StableDiffusionPAGImg2ImgPipeline", "StableDiffusionPAGInpaintPipeline")
XL = ("StableDiffusionXLPAGPipeline", "StableDiffusionXLPAGImg2ImgPipeline", "StableDiffusionXLPAGInpaintPipeline")
MID = "mid_block.attentions.0.transformer_blocks.0.attn1"


def inputs(name: str) -> dict:
    """What the class needs beside a prompt."""
    images = {"image": picture()} if "Img2Img" in name or "Inpaint" in name else {}
    return images | ({"mask_image": mask()} if "Inpaint" in name else {})


def with_layers(pipes, layers="mid"):
    for pipe in pipes:
        pipe.set_pag_applied_layers(layers)
    return pipes


@pytest.fixture(scope="module")
def sd(pair):  # noqa: F811
    """Pairs of the classes of Stable Diffusion 1 by name, with `DDIMScheduler`, "mid" perturbed."""
    pairs = {name: as_class(pair, name) for name in SD}
    return lambda name, scheduler="DDIMScheduler", **options: with_scheduler(with_layers(pairs[name]), scheduler, **options)


@pytest.fixture(scope="module")
def sdxl(load):  # noqa: F811
    return lambda name, checkpoint_name="base": with_layers(load(checkpoint_name, name))


OPTIONS = {
    "default": {},
    "no prompt guidance": {"guidance_scale": 1.0},
    "no perturbed guidance": {"pag_scale": 0.0},
    "no guidance at all": {"pag_scale": 0.0, "guidance_scale": 0.0},
    "small scale": {"pag_scale": 0.7, "negative_prompt": "green"},
    "adaptive": {"pag_scale": 3.0, "pag_adaptive_scale": 0.005},
    "adaptive to nothing": {"pag_scale": 2.0, "pag_adaptive_scale": 0.01, "guidance_scale": 1.0},
    "batch": {"prompt": PROMPTS, "num_images_per_prompt": 2, "negative_prompt": ["", "blurry"]},
    "batch without prompt guidance": {"prompt": PROMPTS, "num_images_per_prompt": 2, "guidance_scale": 1.0},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4], "eta": 0.5},
    "clip_skip": {"clip_skip": 1},
}
LAYERS = {
    "all": ["down", "mid", "up"],
    "one block": "up_blocks.1",
    "one layer": MID,
    "expression": r"(down_blocks\.0|mid_block).*attn1",
    "several": ["down_blocks.0.attentions.0", "up_blocks.1.attentions.(1|2)"],
    "none": [],
}
SD_OPTIONS = {
    "embeds": {"prompt": None, "prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[::-1].copy()},
    "embeds and texts": {"prompt": None, "prompt_embeds": EMBEDS[:1], "negative_prompt": "green"},
}
TEXT = {
    "rescale": {"guidance_rescale": 0.7},
    "rescale without prompt guidance": {"guidance_rescale": 0.7, "guidance_scale": 1.0},
    "other size": {"height": 48, "width": 24},
    "only height": {"height": 48},
    "latents": {"latents": harness.make_input("latents", (1, 4, 16, 16))},
}
IMG2IMG = {
    "strength": {"strength": 0.4},
    "image of latents": {"image": harness.make_input("latents", (1, 4, 16, 16)), "strength": 1.0},
    "images": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "strength": 0.6},
    "other size": {"image": picture(2, (48, 40))},
}
PAINT = {
    "strength": {"strength": 0.6},
    "full strength": {"strength": 1.0},
    "images": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "mask_image": [mask(), mask((0, 0, 10, 30))], "strength": 0.7},
    "other size": {"height": 40, "width": 24},
    "masked_image_latents": {"masked_image_latents": harness.make_input("masked", (1, 4, 16, 16)), "strength": 0.7},
}
CASES = [
    *((name, option, arguments) for name in SD for option, arguments in (OPTIONS | SD_OPTIONS).items()),
    *((name, option, arguments) for name, options in zip(SD, (TEXT, IMG2IMG, PAINT)) for option, arguments in options.items()),
]
XL_CASES = [
    *((name, option, arguments) for name in XL for option, arguments in OPTIONS.items()),
    *((name, option, arguments) for name, options in zip(XL, (TEXT, IMG2IMG, PAINT)) for option, arguments in options.items()),
    *(
        (name, option, arguments)
        for name in XL
        for option, arguments in {
            "embeds": xl.EMBEDS | xl.NEGATIVE_EMBEDS,
            "sizes": xl.SIZES | xl.NEGATIVE_SIZES | {"prompt": PROMPTS},
            "sizes without prompt guidance": xl.SIZES | xl.NEGATIVE_SIZES | {"prompt": PROMPTS, "guidance_scale": 1.0},
            "denoising_end": {"denoising_end": 0.6, "output_type": "latent"},
            "rescaled": {"guidance_rescale": 0.5, "prompt_2": "x", "negative_prompt": "y"},
        }.items()
    ),
    *((name, "denoising_start", {"denoising_start": 0.4}) for name in XL[1:]),
]


@pytest.mark.parametrize(("name", "option", "arguments"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_sd(sd, name, option, arguments):
    assert_same(sd(name), **inputs(name) | arguments)


@pytest.mark.parametrize(("name", "option", "arguments"), XL_CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_xl(sdxl, name, option, arguments):
    xl.assert_same(sdxl(name), **inputs(name) | {"strength": 0.7} | arguments if inputs(name) else arguments)


@pytest.mark.parametrize("layers", LAYERS)
def test_layers(sd, layers):
    for scale in (7.5, 1.0):
        assert_same(with_layers(sd(SD[0]), LAYERS[layers]), guidance_scale=scale)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(sd, name):
    assert_same(sd(SD[0], name, **SCHEDULERS[name]), num_inference_steps=5)


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
def test_a_unet_that_is_shown_the_mask(pair, sdxl, guidance_scale):  # noqa: F811
    nine = with_scheduler(with_unet(as_class(pair, SD[2]), in_channels=9), "DDIMScheduler")
    assert_same(nine, **inputs(SD[2]), prompt=PROMPTS, guidance_scale=guidance_scale)
    assert_same(nine, **inputs(SD[2]), guidance_scale=guidance_scale, pag_scale=0.0)
    xl.assert_same(sdxl(XL[2], "inpaint"), **inputs(XL[2]), prompt=PROMPTS, guidance_scale=guidance_scale)


def test_the_refiner(sdxl):
    xl.assert_same(sdxl(XL[1], "refiner"), image=picture(), strength=0.6, prompt=PROMPTS, aesthetic_score=8.5)


def test_a_distilled_unet(sdxl):
    """For several images upstream has fewer embeddings of the guidance scale than predictions, and fails."""
    theirs, mine = sdxl(XL[0], "distilled")
    xl.assert_same((theirs, mine))
    original = theirs.unet.attn_processors
    with pytest.raises(RuntimeError):
        xl.call(theirs, prompt=PROMPTS)
    theirs.unet.set_attn_processor(original)
    both, *each = (
        xl.call(mine, prompt=prompt, seeds=seeds).images for prompt, seeds in ((PROMPTS, [3, 4]), (PROMPTS[0], [3]), (PROMPTS[1], [4]))
    )
    assert np.abs(both - np.concatenate(each)).max() <= 1e-4


def test_cropped_inpainting(sdxl):
    xl.assert_same(sdxl(XL[2]), **inputs(XL[2]), padding_mask_crop=4, output_type="pil", strength=0.7)


def test_stable_diffusion_inpainting_where_upstream_fails(sd):
    """With perturbed attention, its `guidance_rescale` reads a name that was not set, and `padding_mask_crop` is refused."""
    theirs, mine = sd(SD[2])
    original = theirs.unet.attn_processors
    assert_same((theirs, mine), **inputs(SD[2]), guidance_rescale=0.6, pag_scale=0.0)
    for arguments, error in (({"guidance_rescale": 0.6}, NameError), ({"padding_mask_crop": 4, "output_type": "pil"}, ValueError)):
        with pytest.raises(error):
            call(theirs, **inputs(SD[2]), **arguments)
    theirs.unet.set_attn_processor(original)  # the failed call left its own
    plain, rescaled = (call(mine, **inputs(SD[2]), guidance_rescale=rescale).images for rescale in (0.0, 0.6))
    assert np.isfinite(rescaled).all() and np.abs(plain - rescaled).max() > 1e-3
    assert call(mine, **inputs(SD[2]), padding_mask_crop=4, output_type="pil").images[0].size == (32, 32)


def test_perturbation_has_an_effect(sd, pair):  # noqa: F811
    mine = sd(SD[0])[1]
    perturbed, same = (call(mine, pag_scale=scale).images for scale in (3.0, 0.0))
    with_scheduler(pair, "DDIMScheduler")
    assert np.array_equal(same, call(pair[1]).images), "without perturbation it is the plain pipeline"
    assert np.abs(perturbed - same).max() > 0.02


def test_processors(sd):
    """They are in the UNet during a call only, whatever it ends with."""
    pipes, seen = sd(SD[0]), []

    def callback(pipe, step, timestep, tensors):
        seen.append({name: type(processor).__name__ for name, processor in pipe.pag_attn_processors.items()})
        return tensors

    for scale, kind in ((7.5, "PAGCFGIdentitySelfAttnProcessor2_0"), (1.0, "PAGIdentitySelfAttnProcessor2_0")):
        for pipe in pipes:
            call(pipe, num_inference_steps=1, guidance_scale=scale, callback_on_step_end=callback)
            assert seen.pop() == {f"{MID}.processor": kind}
            assert pipe.pag_attn_processors == {}

    def stop(*arguments):
        raise KeyboardInterrupt

    before = pipes[1].unet.attn_processors
    with pytest.raises(KeyboardInterrupt):
        call(pipes[1], callback_on_step_end=stop)
    assert pipes[1].unet.attn_processors == before


@pytest.mark.parametrize("name", XL)
def test_xl_callbacks_see_the_same(sdxl, name):
    pipes = sdxl(name)
    seen = {pipe: [] for pipe in map(id, pipes)}

    def callback(pipe, step, timestep, tensors):
        seen[id(pipe)].append({name: None if tensor is None else tuple(tensor.shape) for name, tensor in tensors.items()})
        return {"latents": tensors["latents"] * 0.9, "prompt_embeds": tensors["prompt_embeds"] * 0.8}

    assert pipes[0]._callback_tensor_inputs == pipes[1]._callback_tensor_inputs
    names = list(pipes[0]._callback_tensor_inputs)
    arguments = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names, "prompt": PROMPTS}
    for scale in (5.0, 1.0):
        xl.assert_same(pipes, **inputs(name), **arguments, guidance_scale=scale)
    first, second = seen.values()
    assert first and first == second


@pytest.mark.parametrize("name", SD)
def test_sd_callback_tensors(sd, name):
    pipes = sd(name)
    assert pipes[0]._callback_tensor_inputs == pipes[1]._callback_tensor_inputs

    def callback(pipe, step, timestep, tensors):
        return {name: tensor * 0.9 for name, tensor in tensors.items()}

    arguments = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": pipes[1]._callback_tensor_inputs}
    assert_same(pipes, **inputs(name), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SD, *XL])
def test_graph_mode(sd, sdxl, name):
    pipes, check = (sd(name), assert_same) if name in SD else (sdxl(name), xl.assert_same)
    pipes[1].enable_graph_mode()
    try:
        check(pipes, **inputs(name))
        compiled = graph.compilations()
        check(pipes, **inputs(name))
        assert graph.compilations() == compiled, "a second call compiles nothing"
        if name == SD[0]:
            for scales in ({"pag_scale": 0.0}, {"guidance_scale": 1.0}):
                check(pipes, **scales)
                compiled += 1
                check(pipes)
                assert graph.compilations() == compiled, "one compilation for each set of processors"
    finally:
        pipes[1].disable_graph_mode()


@pytest.mark.parametrize("name", [*SD, *XL])
def test_the_same_signatures(name):
    methods = ("__call__", "__init__", "check_inputs", "prepare_latents", "get_timesteps", "prepare_mask_latents", "encode_prompt")
    for method in methods:
        if not hasattr(getattr(diffusers, name), method):
            continue
        theirs, mine = (inspect.signature(getattr(getattr(library, name), method)).parameters for library in (diffusers, ours))
        if name == SD[1] and method == "check_inputs":
            assert list(mine) == [*list(theirs)[:3], "callback_steps", *list(theirs)[3:]], "the plain pipeline's"
            continue
        assert list(mine) == list(theirs), method
        if method != "check_inputs":  # where some of ours may be left out
            assert [argument.default for argument in mine.values()] == [argument.default for argument in theirs.values()], method


@pytest.mark.parametrize("name", AUTO)
@pytest.mark.parametrize("family", ["", "XL"])
def test_auto_pipelines(pair, load, name, family):  # noqa: F811
    plain = load("base") if family else pair
    classes = [getattr(library, name) for library in (diffusers, ours)]
    pipes = [kind.from_pretrained(plain[1].name_or_path, enable_pag=True, pag_applied_layers=["up"]) for kind in classes]
    assert type(pipes[0]).__name__ == type(pipes[1]).__name__ == f"StableDiffusion{family}PAG{AUTO[name]}Pipeline"
    assert pipes[1].pag_applied_layers == pipes[0].pag_applied_layers == ["up"]
    pipes = [kind.from_pipe(pipe, enable_pag=True) for kind, pipe in zip(classes, plain)]
    assert type(pipes[0]).__name__ == type(pipes[1]).__name__ == f"StableDiffusion{family}PAG{AUTO[name]}Pipeline"
    assert pipes[1].pag_applied_layers == pipes[0].pag_applied_layers == ["mid"]
    assert pipes[1].unet is plain[1].unet, "shared"
    back = [kind.from_pipe(pipe, enable_pag=False) for kind, pipe in zip(classes, pipes)]
    assert type(back[0]).__name__ == type(back[1]).__name__ == f"StableDiffusion{family}{AUTO[name]}Pipeline"


def test_what_upstream_refuses(sd):
    pipes = sd(SD[0])
    original = pipes[0].unet.attn_processors
    for pipe in pipes:
        for arguments in ({"prompt": None}, {"height": 33}, {"callback_on_step_end_tensor_inputs": ["sigmas"]}):
            with pytest.raises(ValueError):
                call(pipe, **arguments)
        with pytest.raises(TypeError):
            call(pipe, pag_scales=2.0)
        for layers in (3, [3], ["mid", None]):
            with pytest.raises(ValueError):
                pipe.set_pag_applied_layers(layers)
        for processors in ([None, None], (None,)):
            with pytest.raises(ValueError):
                pipe.set_pag_applied_layers("mid", processors)
        for layers in ("middle", ["mid", "attn2"]):
            pipe.set_pag_applied_layers(layers)
            with pytest.raises(ValueError):
                call(pipe)
        pipe.set_pag_applied_layers("mid", None)
        with pytest.raises(ValueError):
            call(pipe)
    pipes[0].unet.set_attn_processor(original)
    assert_same(sd(SD[0]))  # ours left nothing behind


@pytest.mark.parametrize("name", [SD[1], SD[2]])
def test_images_that_upstream_refuses(sd, name):
    for pipe in sd(name):
        for arguments in ({"strength": 1.1}, {"prompt": ["a"] * 3, "image": list(IMAGE)}):
            with pytest.raises((ValueError, RuntimeError)):
                call(pipe, **inputs(name) | arguments)
