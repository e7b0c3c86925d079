"""Every pipeline of Stable Diffusion and XL beside PyTorch diffusers', on the models and inputs of their own tests: float16, and what is
refused."""

import copy
import inspect

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers import bundled
from mindone_diffusers.backend import graph

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from . import test_controlnet_pag_live as control_pag  # noqa: E402
from . import test_controlnet_pipelines_live as control  # noqa: E402
from . import test_controlnet_pipelines_xl_live as control_xl  # noqa: E402
from . import test_ledits_live as ledits  # noqa: E402
from . import test_pag_live as pag  # noqa: E402
from . import test_stable_diffusion_images_live as images  # noqa: E402
from . import test_stable_diffusion_rest_live as rest  # noqa: E402
from . import test_stable_diffusion_xl_live as xl  # noqa: E402
from .test_controlnet_pipelines_live import make as make_sd  # noqa: E402, F401  (fixtures, from here on)
from .test_controlnet_pipelines_live import nets, pair  # noqa: E402, F401
from .test_controlnet_pipelines_xl_live import make as make_xl  # noqa: E402, F401
from .test_ledits_live import pairs as ledits_pairs  # noqa: E402, F401
from .test_stable_diffusion_rest_live import load as load_rest  # noqa: E402, F401
from .test_stable_diffusion_rest_live import sd, sdxl  # noqa: E402, F401
from .test_stable_diffusion_xl_live import checkpoint, load  # noqa: E402, F401

pytestmark = rest.pytestmark

SHOWN = {"image": images.picture()}
# Classes on the plain checkpoints: changes of the UNet's configuration, the scheduler, and what they need beside a prompt.
PLAIN = {
    "StableDiffusionPipeline": ({}, "PNDMScheduler", {}),
    "StableDiffusionImg2ImgPipeline": ({}, "DDIMScheduler", SHOWN),
    "StableDiffusionInpaintPipeline": ({}, "DDIMScheduler", SHOWN | {"mask_image": images.mask()}),
    "StableDiffusionInstructPix2PixPipeline": ({"in_channels": 8}, "EulerAncestralDiscreteScheduler", SHOWN),
    "LatentConsistencyModelPipeline": ({"time_cond_proj_dim": 32}, "LCMScheduler", {}),
    "LatentConsistencyModelImg2ImgPipeline": ({"time_cond_proj_dim": 32}, "LCMScheduler", SHOWN),
}
XL = {kind: (name if name in xl.CHECKPOINTS else "base", arguments) for name, (kind, arguments) in xl.CALLS.items() if name != "refiner"}
REST = {kind: name for name, kind in reversed(rest.KINDS.items())}
KINDS = [*PLAIN, *XL, *REST, *control.KINDS, *control_xl.KINDS, *pag.SD, *pag.XL, *control_pag.KINDS, ledits.SD, ledits.XL]


@pytest.fixture(scope="module")
def make(pair, load, load_rest, make_sd, make_xl, ledits_pairs):  # noqa: F811
    """Of a class: their pipelines in float32 and in float16, ours in float16, with the same weights, and what they need beside a prompt."""
    halves = {}

    def half(component):
        """A copy of one of their models in float16, whose rounded weights it has from now on."""
        if not isinstance(component, torch.nn.Module):
            return copy.deepcopy(component)
        if id(component) not in halves:
            halves[id(component)] = copy.deepcopy(component).half()
            component.load_state_dict(halves[id(component)].state_dict())
        return halves[id(component)]

    def build(kind):
        if kind in PLAIN:
            changes, scheduler, arguments = PLAIN[kind]
            pipes = images.as_class(pair, kind)
            pipes = images.with_unet(pipes, **changes) if changes else pipes
            return images.with_scheduler(pipes, scheduler), arguments
        if kind in XL:
            return load(XL[kind][0], kind), XL[kind][1]
        if kind in REST:
            return load_rest(REST[kind]), rest.PLAIN[REST[kind]]
        if kind in control.KINDS:
            return make_sd(kind, "first"), control.inputs(kind)
        if kind in control_xl.KINDS:
            return make_xl(kind, control_xl.net(kind)), control_xl.inputs(kind)
        if kind in pag.SD:
            return images.with_scheduler(pag.with_layers(images.as_class(pair, kind)), "DDIMScheduler"), pag.inputs(kind)
        if kind in pag.XL:
            return pag.with_layers(load("base", kind)), pag.inputs(kind) | {"strength": 0.6}
        if kind in control_pag.KINDS:
            pipes = pag.with_layers((make_xl if "XL" in kind else make_sd)(kind, "first"))
            return pipes, control_pag.inputs(kind)
        for pipe, library in zip(ledits_pairs[kind], (diffusers, ours)):
            pipe.scheduler = library.DPMSolverMultistepScheduler(**ledits.SCHEDULERS["DPMSolverMultistepScheduler"])
        return ledits_pairs[kind], {"editing_prompt": "a cat", "edit_threshold": 0.0, "edit_guidance_scale": 0.5} | ledits.NO_ATTENTION

    def get(kind):
        (theirs, mine), arguments = build(kind)
        for pipe in (theirs, mine):
            if "safety_checker" in pipe.components:
                pipe.safety_checker = None
        options = {name: theirs.config[name] for name in inspect.signature(type(theirs)).parameters if name in theirs.config}
        options |= {name: half(component) for name, component in theirs.components.items()}
        if "vae" in options:
            options["vae"].half()  # upstream's pipelines leave it in float32 where it was too small for float16
        options |= {"requires_safety_checker": False} if "requires_safety_checker" in options else {}
        half_pipe = type(theirs)(**options)
        half_pipe.scheduler = copy.deepcopy(theirs.scheduler)  # a constructor changes the configuration of the one it is given
        pipes = theirs, half_pipe, mine.to(ms.float16)
        for pipe in pipes:
            pipe.set_progress_bar_config(disable=True)
        return pipes, arguments

    return get


# Larger scales multiply the rounding of these untrained UNets, PyTorch's as ours: at the defaults both are up to 0.09 from float32.
SCALES = {"guidance_scale": 2.0, "pag_scale": 1.0, "num_inference_steps": 2}


def draw(pipe, arguments):
    if "editing_prompt" in arguments:
        ledits.invert(pipe)
        if isinstance(pipe, diffusers.DiffusionPipeline):
            pipe.vae.to(pipe.unet.dtype)  # upstream's inversion leaves it in float32, and its call cannot decode then
        return ledits.edit(pipe, **arguments).images.astype(np.float64)
    accepted = inspect.signature(type(pipe).__call__).parameters
    arguments = {"prompt": xl.PROMPTS[0]} | arguments | SCALES | {"output_type": "np"}
    return rest.run(pipe, **{name: value for name, value in arguments.items() if name in accepted})[0].astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_float16(make, kind):
    """Within 2e-2 of float32 with the same weights, and as near to it as PyTorch's float16.

    LEdits++ of Stable Diffusion is at most as far as PyTorch's, 4e-2: the noise of an inversion holds the rounding of an untrained UNet,
    divided by a step's small noise level.
    """
    (wide, half, mine), arguments = make(kind)
    expected, theirs, actual = (draw(pipe, arguments) for pipe in (wide, half, mine))
    assert expected.std() > 0.05
    theirs, actual = np.abs(theirs - expected), np.abs(actual - expected)
    print(f"\n{kind}: from float32, ours {actual.max():.1e}, PyTorch's {theirs.max():.1e}; rms {rms(actual):.1e}, {rms(theirs):.1e}")
    assert rms(actual) <= 1.4 * rms(theirs)
    assert actual.max() <= (theirs.max() if kind == ledits.SD else 2e-2)


def test_float16_of_a_trained_model_at_the_usual_guidance():
    """In ten steps: in five, PyTorch's own float16 is 0.1 from its float32."""
    images = []
    for library, dtype in ((diffusers, {"torch_dtype": torch.float32}), (ours, {"mindspore_dtype": ms.float16})):
        pipe = library.StableDiffusionPipeline.from_pretrained(bundled.path(), **dtype)
        pipe.set_progress_bar_config(disable=True)
        arguments = {"prompt": "a large red circle on a blue background", "guidance_scale": 7.5, "num_inference_steps": 10}
        images.append(rest.run(pipe, **arguments, output_type="np").images.astype(np.float64))
    assert np.abs(images[1] - images[0]).max() <= 2e-2


# Of each kind of models one; every class is compared in graph mode in float32. With arguments that may not compile anything more.
GRAPH = {
    "StableDiffusionInpaintPipeline": {"strength": 0.6},
    "StableDiffusionAdapterPipeline": {"adapter_conditioning_scale": 0.5},
    "StableDiffusionXLControlNetUnionPipeline": {"original_size": (64, 48), "negative_prompt": "green"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GRAPH)
def test_graph_mode(make, kind):
    (wide, _, mine), arguments = make(kind)
    mine.enable_graph_mode()
    try:
        assert np.abs(draw(mine, arguments) - draw(wide, arguments)).max() <= 2e-2
        compiled = graph.compilations()
        mine.scheduler = ours.EulerDiscreteScheduler.from_config(mine.scheduler.config)
        draw(mine, arguments | GRAPH[kind])
        assert graph.compilations() == compiled
    finally:
        mine.disable_graph_mode()


REFUSED = {
    "prompt": {"prompt": 3},
    "no prompt": {"prompt": None},
    "negative prompts": {"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]},
    "strong": {"strength": 1.1},
    "weak": {"strength": -0.1},
    "no steps left": {"strength": 0.01},
    "image": {"image": 3},
    "no image": {"image": None},
    "images": {"prompt": ["a"] * 3, "image": [images.picture(), images.picture(1)]},
    "mask": {"mask_image": 3},
    "generators": {"seeds": [1, 2, 3]},
    "size": {"height": 30},
    "callback tensors": {"callback_on_step_end_tensor_inputs": ["sigmas"]},
    "control image": {"control_image": None},
    "control scale": {"controlnet_conditioning_scale": 1},
    "control range": {"control_guidance_start": 0.9, "control_guidance_end": 0.1},
    "crop of arrays": {"padding_mask_crop": 4, "image": np.zeros((1, 3, 32, 32), np.float32)},
    "guidance": {"guidance_scale": "strong"},
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (ledits.SD, ledits.XL)])
def test_what_upstream_refuses_is_refused(make, kind):
    """By a check, not by what happens to fail later. Of `REFUSED`, what the class has arguments for and upstream does not draw with."""
    (theirs, _, mine), arguments = make(kind)
    accepted = {*inspect.signature(type(theirs).__call__).parameters, "seeds"}
    plain = {name: value for name, value in {"prompt": xl.PROMPTS[0], "num_inference_steps": 1}.items() if name in accepted} | arguments
    refused = 0
    for name, changes in REFUSED.items():
        if changes.keys() <= accepted and fails(theirs, plain | changes):
            refused += 1
            with pytest.raises((ValueError, TypeError)):
                rest.run(mine, **plain | changes)
                pytest.fail(f"{name} is taken")
    assert refused >= 5


def fails(pipe, arguments: dict) -> bool:
    try:
        rest.run(pipe, **arguments)
    except Exception:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_attention_are_refused(make, kind):
    """IP-Adapters and LoRA, which are not there yet."""
    (_, _, mine), arguments = make(kind)
    accepted = inspect.signature(type(mine).__call__).parameters
    given = {
        "ip_adapter_image": images.picture(), "ip_adapter_image_embeds": [ms.Tensor(np.zeros((2, 1, 32), np.float32))],
        "cross_attention_kwargs": {"scale": 0.5},
    }  # fmt: skip
    for name in given.keys() & accepted.keys():
        with pytest.raises(NotImplementedError, match="LoRA" if name == "cross_attention_kwargs" else "IP-Adapters"):
            draw(mine, arguments | {name: given[name]})


def rms(values: np.ndarray) -> float:
    return np.sqrt(np.square(values).mean())
