"""The LEdits++ pipelines side by side with PyTorch diffusers, on tiny checkpoints that it writes."""

import inspect

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.models.attention import AttnProcessor
from mindone_diffusers.pipelines.ledits_pp import (
    LEditsPPDiffusionPipelineOutput,
    LEditsPPInversionPipelineOutput,
    pipeline_leditspp_stable_diffusion,
)
from tests import harness
from tests.tiny_checkpoint import make_tokenizer
from tools import api_report

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers.pipelines.ledits_pp import pipeline_leditspp_stable_diffusion as upstream  # noqa: E402

from . import test_stable_diffusion_live as sd_live  # noqa: E402
from . import test_stable_diffusion_xl_live as xl_live  # noqa: E402
from .test_stable_diffusion_images_live import picture  # noqa: E402

SD, XL = "LEditsPPPipelineStableDiffusion", "LEditsPPPipelineStableDiffusionXL"
NOISE = sd_live.NOISE
SCHEDULERS = {
    "DPMSolverMultistepScheduler": NOISE | {"algorithm_type": "sde-dpmsolver++"},
    "DDIMScheduler": NOISE | {"set_alpha_to_one": False, "clip_sample": False},
}
# Cross-attentions with a quarter of the latents' height and width.
LEVELS = {
    "block_out_channels": (32, 32, 64), "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}  # fmt: skip
SD_SPEC = sd_live.CHECKPOINTS["sd1"] | {"unet": sd_live.CHECKPOINTS["sd1"]["unet"] | LEVELS | {"layers_per_block": 1}}
XL_UNET = xl_live.UNET | xl_live.BOTH | LEVELS | {"attention_head_dim": (2, 2, 4), "transformer_layers_per_block": (1, 1, 2)}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs of pipelines (theirs, ours) by class, from the same files."""
    root = tmp_path_factory.mktemp("ledits")
    components = sd_live.torch_pipeline(SD_SPEC, make_tokenizer(root / "tokenizer files"), *sd_live.make_safety_checker()).components
    del components["image_encoder"]
    getattr(diffusers, SD)(**components).save_pretrained(root / SD / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(xl_live.CHECKPOINTS, XL, (XL, XL_UNET, xl_live.VAE, {}))
        xl_live.write_checkpoint(XL, root / XL)
    pairs = {
        name: [getattr(library, name).from_pretrained(root / name / "checkpoint") for library in (diffusers, ours)] for name in (SD, XL)
    }
    # With transformers 5.6 and later, upstream's clip_skip looks for the attribute that transformers removed.
    object.__setattr__(pairs[SD][0].text_encoder, "text_model", pairs[SD][0].text_encoder)
    for pipe in (*pairs[SD], *pairs[XL]):
        pipe.set_progress_bar_config(disable=True)
    return pairs


@pytest.fixture
def load(pairs):
    def get(name: str, scheduler: str = "DPMSolverMultistepScheduler", **options):
        for pipe, library in zip(pairs[name], (diffusers, ours)):
            pipe.scheduler = getattr(library, scheduler)(**SCHEDULERS[scheduler] | options)
        if scheduler == "DDIMScheduler" and name == SD:  # upstream looks up a table with a float here, which torch refuses
            theirs = pairs[name][0].scheduler
            theirs.add_noise = lambda x, noise, t, add_noise=theirs.add_noise: add_noise(x, noise, t.long())
        return pairs[name]

    return get


def is_ours(pipe) -> bool:
    return isinstance(pipe, ours.DiffusionPipeline)


def adapted(pipe, arguments: dict) -> dict:
    """NumPy arrays become the pipeline's tensors."""
    return harness.map_arrays(ms.Tensor if is_ours(pipe) else torch.from_numpy, arguments)


def invert(pipe, seed: int = 0, **arguments):
    generator = (ours.Generator if is_ours(pipe) else torch.Generator)().manual_seed(seed)
    return pipe.invert(**{"image": picture(), "num_inversion_steps": 6, "generator": generator} | arguments)


def edit(pipe, **arguments):
    return pipe(**adapted(pipe, {"output_type": "np"} | arguments))


def array(tensor) -> np.ndarray:
    return tensor.float().numpy() if isinstance(tensor, torch.Tensor) else tensor.asnumpy()


def assert_inverted(pair, **arguments):
    """Both invert, to the same pictures and the same noise."""
    theirs, mine = (invert(pipe, **arguments) for pipe in pair)
    assert isinstance(mine, LEditsPPInversionPipelineOutput)
    for name, tolerance in (("images", 0), ("vae_reconstruction_images", 1)):
        for one, other in zip(theirs[name], mine[name], strict=True):
            assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= tolerance, name
    theirs, mine = pair
    assert theirs.inversion_steps.tolist() == mine.inversion_steps.tolist()
    assert harness.relative_error(array(mine.init_latents), array(theirs.init_latents)) <= 1e-5
    assert harness.relative_error(array(mine.zs), array(theirs.zs)) <= 1e-4


def assert_edited(pair, tolerance: float = 1e-3, **arguments):
    """Both edit what they inverted, to the same picture, by the same changes in the same places."""
    theirs, mine = (edit(pipe, **arguments) for pipe in pair)
    assert isinstance(mine, LEditsPPDiffusionPipelineOutput)
    assert mine.nsfw_content_detected == theirs.nsfw_content_detected
    assert mine.images.shape == theirs.images.shape and mine.images.std() > 0.05
    assert np.abs(mine.images - theirs.images).max() <= tolerance
    for name in ("activation_mask", "sem_guidance"):
        theirs, mine = (getattr(pipe, name) for pipe in pair)
        assert (theirs is None) == (mine is None), name
        if mine is not None:
            assert harness.relative_error(array(mine), array(theirs)) <= tolerance, name
            assert array(mine).any()


CONCEPTS = ["a cat", "spoons"]
EMBEDS = harness.make_input("concept embeds", (2, 77, 32))
CHANGES = 0.3 * harness.make_input("changes", (3, 1, 4, 16, 16))
USER_MASK = np.pad(np.ones((9, 12), np.float32), ((3, 4), (2, 2)))
NO_ATTENTION = {"use_intersect_mask": False}
EDITS = {
    "none": {},
    "noise mask": {"editing_prompt": "a cat"} | NO_ATTENTION,
    "attention mask": {"editing_prompt": CONCEPTS, "use_cross_attn_mask": True, "edit_threshold": 0.6} | NO_ATTENTION,
    "both masks": {"editing_prompt": CONCEPTS, "use_intersect_mask": True, "edit_threshold": 0.5, "edit_guidance_scale": 8.0},
    "lists": {
        "editing_prompt": CONCEPTS, "reverse_editing_direction": [True, False], "edit_guidance_scale": [3.0, 9.0], "negative_prompt": "bad",
        "edit_warmup_steps": [1, 0], "edit_cooldown_steps": [5, 4], "edit_threshold": [0.65, 0.8], "use_intersect_mask": True,
    },
    "user mask": {"editing_prompt": ["a cat"], "user_mask": USER_MASK, "reverse_editing_direction": True} | NO_ATTENTION,
    "given changes": {"sem_guidance": list(CHANGES)},
    "given changes, then a concept": {"sem_guidance": list(CHANGES), "editing_prompt": "a cat", "edit_cooldown_steps": 5} | NO_ATTENTION,
    "clip_skip": {"editing_prompt": ["a cat"], "clip_skip": 1, "cross_attention_kwargs": {}} | NO_ATTENTION,
}  # fmt: skip
SD_EDITS = {
    "embeds": {"editing_prompt_embeds": EMBEDS[:1], "negative_prompt_embeds": EMBEDS[1:]} | NO_ATTENTION,
    "several embeds": {"editing_prompt_embeds": EMBEDS} | NO_ATTENTION,
}
XL_EDITS = {
    "denoising_end": {"denoising_end": 0.5, "editing_prompt": "a cat", "crops_coords_top_left": (3, 5), "target_size": (7, 9)},
    "negatives": {"negative_prompt": "bad", "negative_prompt_2": ["worse"], "editing_prompt": "a cat"},
    "negative embeds": {
        "negative_prompt_embeds": harness.make_input("negative", (1, 77, 80)), "editing_prompt": "a cat",
        "negative_pooled_prompt_embeds": harness.make_input("negative pooled", (1, 40)),
    },
}  # fmt: skip
INVERSIONS = {
    "source": {"source_prompt": "a drawing", "source_guidance_scale": 2.0},
    "size": {"height": 64, "width": 32, "skip": 0.5, "num_inversion_steps": 4},
    "crop": {"image": picture(1, (70, 60)), "height": 32, "width": 64, "crops_coords": (2, 4, 66, 36)},
    "array": {"image": np.random.default_rng(3).random((1, 32, 32, 3), np.float32), "skip": 0.0},
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", [SD, XL])
def test_edits(load, name, scheduler):
    pair = load(name, scheduler)
    assert_inverted(pair)
    options = EDITS | (SD_EDITS if name == SD else XL_EDITS)
    for option in options if scheduler.startswith("DPM") else ("none", "lists"):
        print(name, scheduler, option)
        assert_edited(pair, **options[option])


@pytest.mark.parametrize("name", [SD, XL])
def test_inversions(load, name):
    pair = load(name)
    extra = {
        SD: {"clip_skip": {"clip_skip": 1}, "resize": {"image": picture(1, (50, 70)), "height": 32, "width": 32, "resize_mode": "crop"}},
        XL: {
            "sources": {"source_prompt": ["a drawing"], "negative_prompt": "bad", "crops_coords_top_left": (1, 2)},
            "all noise": {"num_zero_noise_steps": 0, "negative_prompt_2": "worse"},
        },
    }
    for option, arguments in (INVERSIONS | extra[name]).items():
        print(name, option)
        assert_inverted(pair, **arguments)
        assert_edited(pair, **EDITS["both masks"])
    assert pair[1].batch_size == 1 and getattr(pair[0], "size", None) == getattr(pair[1], "size", None)


def test_several_images(load):
    """Stable Diffusion's masks of cross-attention mix images as upstream's; where upstream fails, each image is as alone."""
    images = [picture(0), picture(1)]
    sd, xl = load(SD), load(XL)
    assert_inverted(sd, image=images)
    assert_edited(sd, **EDITS["lists"] | {"negative_prompt": ["", "bad"]})
    with pytest.raises(RuntimeError):
        edit(sd[0], negative_prompt="bad")
    assert np.isfinite(edit(sd[1], negative_prompt="bad").images).all()

    assert_inverted(xl, image=images, source_prompt=["a", "b"])
    arguments = EDITS["lists"] | NO_ATTENTION
    with pytest.raises(RuntimeError):
        edit(xl[0], **arguments)
    seeds = lambda *values: [ours.Generator().manual_seed(seed) for seed in values]  # noqa: E731
    for pipe, options in ((xl[1], arguments), (sd[1], SD_EDITS["several embeds"])):
        results = []
        for image, generators in ((images, seeds(3, 4)), (images[:1], seeds(3)), (images[1:], seeds(4))):
            invert(pipe, image=image, generator=generators)
            results.append(edit(pipe, **options).images)
        assert np.abs(results[0] - np.concatenate(results[1:])).max() <= 1e-3


class Chunks(tuple):
    """What `Tensor.chunk` would have to give for upstream's guidance_rescale, which takes the mean of a tuple."""

    def __getitem__(self, index):
        return Chunks(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def mean(self, dim: int, keepdim: bool):
        return torch.stack(tuple(self)).mean(dim, keepdim)


@pytest.mark.parametrize("name", [SD, XL])
def test_guidance_rescale(load, name, monkeypatch):
    pair = load(name)
    assert_inverted(pair)
    arguments = EDITS["both masks"] | {"guidance_rescale": 0.7}
    with pytest.raises(AttributeError):
        edit(pair[0], **arguments)
    plain = edit(pair[1], **EDITS["both masks"]).images
    chunk = torch.Tensor.chunk
    monkeypatch.setattr(torch.Tensor, "chunk", lambda *args, **kwargs: Chunks(chunk(*args, **kwargs)))
    assert_edited(pair, **arguments)
    assert np.abs(edit(pair[1], **arguments).images - plain).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "scheduler", "options"),
    [
        (SD, "DDIMScheduler", {}),
        (SD, "DDIMScheduler", {"prediction_type": "v_prediction"}),
        (SD, "DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
        (SD, "DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "solver_type": "heun"}),
        (XL, "DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"}),
    ],
)
def test_images_come_back(load, name, scheduler, options):
    """Where every step has noise, that leads back to the image; also where upstream inverts another formula than it steps with."""
    pipe = load(name, scheduler, **options)[1]
    result = invert(pipe, **({"num_zero_noise_steps": 0} if name == XL else {}))
    expected = np.asarray(result.vae_reconstruction_images[0]) / 255
    assert np.abs(edit(pipe).images[0] - expected).max() <= 0.5 / 255 + 1e-3
    assert np.abs(edit(pipe, **EDITS["noise mask"]).images[0] - expected).max() > 0.05


def test_embeds_where_upstream_fails(load):
    """Stable Diffusion XL of PyTorch diffusers reads a name that was not set."""
    theirs, mine = load(XL)
    for pipe in (theirs, mine):
        invert(pipe)
    concepts = mine.encode_prompt(editing_prompt=CONCEPTS)
    arguments = {"editing_prompt_embeddings": concepts[1], "editing_pooled_prompt_embeds": concepts[3]}
    with pytest.raises(UnboundLocalError):
        edit(theirs, **{key: torch.from_numpy(value.asnumpy()) for key, value in arguments.items()})
    expected = edit(mine, editing_prompt=CONCEPTS).images
    assert np.array_equal(edit(mine, **arguments).images, expected)
    with pytest.raises(ValueError, match="editing_pooled_prompt_embeds"):
        edit(mine, editing_prompt_embeddings=concepts[1])


def test_guidance_that_was_kept(load):
    """`sem_guidance` of a call gives the same edit without the concept."""
    mine = load(SD)[1]
    invert(mine)
    expected = edit(mine, **EDITS["both masks"]).images
    kept, mask = mine.sem_guidance, mine.activation_mask
    assert kept.shape == (6, 1, 4, 16, 16) and mask.shape == (6, 2, 1, 4, 16, 16) and set(np.unique(mask.asnumpy())) == {0.0, 1.0}
    assert np.abs(edit(mine, sem_guidance=kept).images - expected).max() <= 1e-5
    assert mine.sem_guidance is None and mine.activation_mask is None


@pytest.mark.parametrize("average", [True, False])
def test_attention_maps_that_are_kept(load, average):
    pair = load(SD)
    for pipe in pair:
        invert(pipe)
    before = pair[1].unet.attn_processors
    assert_edited(pair, **EDITS["both masks"], attn_store_steps=[1, 3, 4], store_averaged_over_steps=average)
    assert pair[1].unet.attn_processors == before, "the maps are collected during a call only"
    theirs, mine = (pipe.attention_store for pipe in pair)
    assert theirs.cur_step == mine.cur_step == 3
    for step in (None,) if average else range(3):
        one, other = theirs.get_attention(step), mine.get_attention(step)
        assert one.keys() == other.keys()
        for place, maps in one.items():
            assert len(maps) == len(other[place]) == {"down_cross": 1, "up_cross": 2}.get(place, 0)
            assert all(harness.relative_error(array(mine), array(theirs)) <= 1e-4 for theirs, mine in zip(maps, other[place]))


def test_parts_alone(load):
    """The store with `PnP` and limits of its own, and the smoothing."""
    attention = harness.make_input("attention", (3 * 2, 16, 5))
    both = (upstream, torch.from_numpy), (pipeline_leditspp_stable_diffusion, ms.Tensor)
    maps = []
    for module, tensor in both:
        store = module.LeditsAttentionStore(average=False, max_resolution=4)
        store(tensor(attention), False, "mid", 1, PnP=True)
        store(tensor(np.repeat(attention, 2, 1)), False, "mid", 1, PnP=True)
        (kept,) = store.step_store["mid_self"]
        maps.append((array(kept), array(store.aggregate_attention(store.step_store, ["a"], 4, ["mid"], False, 0))))
        with pytest.raises(ValueError):
            module.LeditsAttentionStore(average=True, max_resolution=4, max_size=16)
    assert all(np.abs(theirs - mine).max() <= 1e-6 for theirs, mine in zip(*maps, strict=True))
    image = harness.make_input("image", (2, 1, 6, 7))
    theirs, mine = (array(module.LeditsGaussianSmoothing("cpu")(tensor(image))) for module, tensor in both)
    assert theirs.shape == mine.shape and np.abs(theirs - mine).max() <= 1e-6

    pipe = load(SD)[1]
    pipe.enabled_editing_prompts = 1
    original = pipe.unet.attn_processors
    pipe.prepare_unet(store)
    changed = {name for name, processor in pipe.unet.attn_processors.items() if type(processor) is not type(original[name])}
    assert changed == {name for name in original if "attn2" in name and not name.startswith("mid")}
    pipe.unet.set_attn_processor(original)


@pytest.mark.parametrize("name", [SD, XL])
def test_callbacks(load, name):
    pair, seen = load(name), []
    names = pair[1]._callback_tensor_inputs
    assert names == pair[0]._callback_tensor_inputs
    changed = ["latents"] if name == SD else ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"]

    def callback(pipe, step, timestep, tensors):
        seen.append((step, int(timestep), sorted(tensors)))
        return {key: 0.9 * value for key, value in tensors.items() if key in changed}

    for pipe in pair:
        invert(pipe)
    assert_edited(pair, **EDITS["noise mask"], callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
    assert seen[:6] == seen[6:] and len(seen) == 12


def test_graph_mode(load, monkeypatch):
    """With masks of attention the UNet runs eagerly."""
    mine = load(SD)[1]
    cases = [EDITS["noise mask"], EDITS["both masks"]]
    invert(mine)
    eager = [edit(mine, **arguments).images for arguments in cases]
    mine.enable_graph_mode()
    try:
        invert(mine)
        for arguments, expected in zip(cases, eager):
            assert np.abs(edit(mine, **arguments).images - expected).max() <= 1e-3
        assert mine.unet.runs_compiled
        monkeypatch.setattr("mindone_diffusers.pipelines.ledits_pp.base.in_global_graph_mode", lambda: True)
        with pytest.raises(NotImplementedError, match="global graph mode"):
            edit(mine, **EDITS["both masks"])
    finally:
        mine.disable_graph_mode()


def test_outputs(load):
    pair = load(SD)
    for pipe in pair:
        invert(pipe)
    theirs, mine = (edit(pipe, output_type="latent").images for pipe in pair)
    assert harness.relative_error(array(mine), array(theirs)) <= 1e-4
    image, unsafe = edit(pair[1], output_type="pil", return_dict=False)
    assert image[0].size == (32, 32) and unsafe == [False]
    invert(load(XL)[1])
    (image,) = edit(load(XL)[1], output_type="pil", return_dict=False)
    assert image[0].size == (32, 32)


def test_schedulers(load):
    """Others become DPM-Solver++, and what the first checkpoints have wrong is put right."""
    for pipe, library in zip(load(SD), (diffusers, ours)):
        components = pipe.components | {"scheduler": library.PNDMScheduler(**NOISE, skip_prk_steps=True)}
        scheduler = getattr(library, SD)(**components).scheduler
        assert isinstance(scheduler, library.DPMSolverMultistepScheduler)
        assert scheduler.config.algorithm_type == "sde-dpmsolver++" and scheduler.config.solver_order == 2
        with pytest.warns(FutureWarning):
            scheduler = getattr(library, SD)(**components | {"scheduler": library.DDIMScheduler()}).scheduler
        assert scheduler.config.steps_offset == 1 and scheduler.config.clip_sample is False
        components = load(XL)[library is ours].components | {"scheduler": library.EulerDiscreteScheduler(**NOISE)}
        assert isinstance(getattr(library, XL)(**components).scheduler, library.DPMSolverMultistepScheduler)


@pytest.mark.parametrize("options", [{"algorithm_type": "dpmsolver++"}, {"solver_order": 3}])
def test_schedulers_without_an_inversion(load, options):
    for pipe in load(SD, **options):
        with pytest.raises(NotImplementedError):
            invert(pipe)


INVERSION_ERRORS = {"height": {"height": 33}, "width": {"width": 48}, "image": {"image": picture(0, (40, 32))}}
ERRORS = {
    "callback": ({"callback_on_step_end_tensor_inputs": ["zs"]}, SD),
    "negative": ({"negative_prompt": "x", "negative_prompt_embeds": EMBEDS[:1]}, SD),
    "shapes": ({"editing_prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[:1]}, SD),
    "negatives": ({"negative_prompt": ["x", "y"]}, SD),
    "negatives of the other": ({"negative_prompt": ["x", "y"]}, XL),
}
OUR_ERRORS = {
    "a short list": ({"editing_prompt": CONCEPTS, "edit_threshold": [0.5]} | NO_ATTENTION, SD, ValueError),
    "embeds and attention masks": ({"editing_prompt_embeds": EMBEDS[:1]}, SD, ValueError),
    "output type": ({"output_type": "jpeg"}, SD, ValueError),
    "lora": ({"cross_attention_kwargs": {"scale": 0.5}}, SD, NotImplementedError),
    "unknown": ({"prompt": "x"}, SD, TypeError),
    "ip adapter": ({"ip_adapter_image": picture()}, XL, NotImplementedError),
    "callback of the other": ({"callback_on_step_end_tensor_inputs": ["zs"]}, XL, ValueError),
    "negative of the other": ({"negative_prompt_2": "x", "negative_prompt_embeds": EMBEDS[:1]}, XL, ValueError),
    "pooled": ({"negative_prompt_embeds": EMBEDS[:1]}, XL, ValueError),
}


def test_errors(load):
    for name in (SD, XL):
        for library, pipe in zip((diffusers, ours), load(name)):
            fresh = getattr(library, name)(**pipe.components)
            with pytest.raises(ValueError, match="invert"):
                fresh(editing_prompt="a cat")
            for arguments in INVERSION_ERRORS.values():
                with pytest.raises(ValueError, match="32"):
                    invert(pipe, **arguments)
            invert(pipe)
            for option, (arguments, kind) in ERRORS.items():
                if kind == name:
                    print(name, option)
                    with pytest.raises(ValueError):
                        edit(pipe, **arguments)
    for option, (arguments, name, error) in OUR_ERRORS.items():
        print(option)
        with pytest.raises(error):
            edit(load(name)[1], **arguments)


def test_a_unet_without_attention_of_that_size(load):
    mine = load(SD)[1]
    invert(mine)
    original = mine.unet
    config = dict(original.config) | {"down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3}
    try:
        mine.unet = ours.UNet2DConditionModel.from_config(config)
        with pytest.raises(ValueError, match="4 x 4"):
            edit(mine, editing_prompt="a cat")
    finally:
        mine.unet = original


@pytest.mark.parametrize("name", [SD, XL])
def test_signatures(name):
    """`test_api` compares the constructor's, the call's and `encode_prompt`'s."""
    theirs, mine = getattr(diffusers, name), getattr(ours, name)
    for method in ("invert", "encode_image", "check_inputs", "prepare_unet"):
        assert api_report.differences(*(api_report.signature(getattr(kind, method)) for kind in (mine, theirs))) == []
    for part in ("LeditsAttentionStore", "LeditsGaussianSmoothing", "LEDITSCrossAttnProcessor"):
        theirs, mine = (inspect.signature(getattr(module, part)).parameters for module in (upstream, pipeline_leditspp_stable_diffusion))
        assert list(theirs) == list(mine)
    assert issubclass(pipeline_leditspp_stable_diffusion.LEDITSCrossAttnProcessor, AttnProcessor)
