"""Every pipeline of Stable Diffusion and XL in float16 beside PyTorch diffusers', on the checkpoints and inputs of the float32 tests."""

import copy
import inspect

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours

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
def test_images(make, kind):
    """Within 2e-2 of float32 with the same weights, and as near to it as PyTorch's float16.

    LEdits++ of Stable Diffusion is at most as far as PyTorch's, 4e-2: the noise of an inversion holds the rounding of an untrained UNet,
    divided by a step's small noise level.
    """
    (wide, half, mine), arguments = make(kind)
    expected, theirs, actual = (draw(pipe, arguments) for pipe in (wide, half, mine))
    assert expected.std() > 0.05
    theirs, actual = np.abs(theirs - expected), np.abs(actual - expected)
    print(f"\n{kind}: from float32, ours {actual.max():.1e}, PyTorch's {theirs.max():.1e}; rms {rms(actual):.1e}, {rms(theirs):.1e}")
    assert actual.max() <= (2e-2 if kind != ledits.SD else theirs.max()) and rms(actual) <= 1.4 * rms(theirs)


# The others' models are of the same kinds, and graph mode is compared in float32 for each.
GRAPH = ("StableDiffusionInpaintPipeline", "StableDiffusionAdapterPipeline", "StableDiffusionXLControlNetUnionPipeline")


@pytest.mark.slow
@pytest.mark.parametrize("kind", GRAPH)
def test_graph_mode(make, kind):
    (wide, _, mine), arguments = make(kind)
    mine.enable_graph_mode()
    try:
        assert np.abs(draw(mine, arguments) - draw(wide, arguments)).max() <= 2e-2
    finally:
        mine.disable_graph_mode()


def rms(values: np.ndarray) -> float:
    return np.sqrt(np.square(values).mean())
