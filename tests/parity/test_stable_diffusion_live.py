"""`StableDiffusionPipeline` and `VaeImageProcessor` side by side with PyTorch diffusers, on tiny checkpoints that it writes."""

import inspect
import itertools
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

from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker  # noqa: E402

diffusers.utils.logging.disable_progress_bar()
ours.utils.logging.disable_progress_bar()

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
CHECKPOINTS = {
    # Stable Diffusion 1: 1x1 convolutions around the transformers, quick GELU; with a safety checker
    "sd1": {
        "unet": {
            "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 2, "cross_attention_dim": 32, "attention_head_dim": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        },
        "vae": {"block_out_channels": (32, 64), "sample_size": 32},
        "text_encoder": {"hidden_size": 32},
        "scheduler": ("PNDMScheduler", NOISE | {"skip_prk_steps": True}),
    },
    # Stable Diffusion 2: linear projections, a number of heads for each level, v-prediction, GELU
    "sd2": {
        "unet": {
            "sample_size": 8, "block_out_channels": (32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 48,
            "attention_head_dim": (2, 4, 8), "use_linear_projection": True,
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        },
        "vae": {"block_out_channels": (32, 32, 64), "sample_size": 32, "layers_per_block": 2},
        "text_encoder": {"hidden_size": 48, "hidden_act": "gelu"},
        "scheduler": ("DDIMScheduler", NOISE | {"prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False}),
    },
    # A latent consistency model: the guidance scale is an input of the UNet
    "distilled": {
        "unet": {
            "sample_size": (12, 16), "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32,
            "attention_head_dim": 8, "time_cond_proj_dim": 33,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        },
        "vae": {"block_out_channels": (32, 64), "sample_size": 32, "use_quant_conv": False, "use_post_quant_conv": False},
        "text_encoder": {"hidden_size": 32},
        "scheduler": ("EulerDiscreteScheduler", NOISE | {"timestep_spacing": "trailing"}),
    },
}  # fmt: skip
SCHEDULERS = {
    "DDIMScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {"use_karras_sigmas": True},
    "LMSDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
}
PROMPTS = ["a red circle on a blue background", "two cats"]


def seeded(module):
    """Fill a torch module with the weights that `harness` makes of its parameters' names."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(harness.make_weight(name, tuple(parameter.shape))))
    return module.eval()


def torch_pipeline(spec: dict, tokenizer, safety_checker=None, feature_extractor=None):
    text_config = transformers.CLIPTextConfig(
        **spec["text_encoder"], vocab_size=len(tokenizer), intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    levels = len(spec["vae"]["block_out_channels"])
    vae = diffusers.AutoencoderKL(
        **spec["vae"], down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels
    )
    scheduler, config = spec["scheduler"]
    return diffusers.StableDiffusionPipeline(
        vae=seeded(vae), text_encoder=seeded(transformers.CLIPTextModel(text_config)), tokenizer=tokenizer,
        unet=seeded(diffusers.UNet2DConditionModel(**spec["unet"])), scheduler=getattr(diffusers, scheduler)(**config),
        safety_checker=safety_checker, feature_extractor=feature_extractor, requires_safety_checker=safety_checker is not None,
    )  # fmt: skip


def make_safety_checker():
    """A checker that finds nothing unsafe (no cosine is above 2), and its processor."""
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config={}, vision_config=vision, projection_dim=16)
    checker = StableDiffusionSafetyChecker(config)
    seeded(checker)
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(2.0)
        checker.special_care_embeds_weights.fill_(2.0)
    size = {"height": 32, "width": 32}
    return checker, transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)


@pytest.fixture(scope="module", params=list(CHECKPOINTS))
def every_pair(request, tmp_path_factory):
    return load_pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return load_pair("sd1", tmp_path_factory.mktemp("sd1"))


def load_pair(name: str, folder: Path):
    checker = make_safety_checker() if name == "sd1" else ()
    theirs = torch_pipeline(CHECKPOINTS[name], make_tokenizer(folder / "tokenizer files"), *checker)
    theirs.save_pretrained(folder / "checkpoint")
    theirs, mine = (library.StableDiffusionPipeline.from_pretrained(folder / "checkpoint") for library in (diffusers, ours))
    # With transformers 5.6 and later, upstream's clip_skip looks for the attribute that transformers removed.
    object.__setattr__(theirs.text_encoder, "text_model", theirs.text_encoder)
    return theirs, mine


def call(pipe, **arguments):
    """Call either pipeline: NumPy arrays become its tensors, `seed` and `seeds` its generators."""
    is_ours = isinstance(pipe, ours.DiffusionPipeline)
    generator = ours.Generator if is_ours else torch.Generator
    convert = ms.Tensor if is_ours else torch.from_numpy
    arguments = {key: convert(value) if isinstance(value, np.ndarray) else value for key, value in arguments.items()}
    if "seeds" in arguments:
        arguments["generator"] = [generator().manual_seed(seed) for seed in arguments.pop("seeds")]
    else:
        arguments["generator"] = generator().manual_seed(arguments.pop("seed", 0))
    return pipe(**{"prompt": PROMPTS[0], "num_inference_steps": 4, "output_type": "np"} | arguments)


def assert_same(pair, tolerance: float = 1e-3, **arguments):
    theirs, mine = (call(pipe, **arguments) for pipe in pair)
    assert theirs.nsfw_content_detected == mine.nsfw_content_detected
    assert mine.images.shape == theirs.images.shape and np.isfinite(mine.images).all()
    difference = np.abs(mine.images - theirs.images).max()
    assert difference <= tolerance, difference
    return mine


def with_scheduler(pair, name: str, **options):
    """Exchange both schedulers, as users do, starting from the checkpoint's."""
    for pipe, library in zip(pair, (diffusers, ours)):
        saved = library.PNDMScheduler.from_pretrained(pipe.name_or_path, subfolder="scheduler")
        pipe.scheduler = getattr(library, name).from_config(saved.config, **options)
    return pair


EMBEDS = harness.make_input("prompt_embeds", (2, 77, 32))
OPTIONS = {
    "batch": {"prompt": PROMPTS},
    "images of a prompt": {"prompt": PROMPTS, "num_images_per_prompt": 2, "num_inference_steps": 2},
    "negative": {"negative_prompt": "green", "prompt": PROMPTS[0]},
    "negatives": {"negative_prompt": ["green", ""], "prompt": PROMPTS},
    "no guidance": {"guidance_scale": 1.0},
    "strong guidance": {"guidance_scale": 15.0, "guidance_rescale": 0.7},
    "clip_skip 1": {"clip_skip": 1},
    "clip_skip 3": {"clip_skip": 3},
    "embeds": {"prompt": None, "prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[::-1].copy()},
    "embeds and texts": {"prompt": None, "prompt_embeds": EMBEDS[:1], "negative_prompt": "green"},
    "latents": {"latents": harness.make_input("latents", (1, 4, 16, 16))},
    "other size": {"height": 48, "width": 24},
    "only height": {"height": 48},
    "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
    "long prompt": {"prompt": "a very long prompt " * 20},
    "one step": {"num_inference_steps": 1},
}


def test_every_checkpoint(every_pair):
    assert_same(every_pair, prompt=PROMPTS, negative_prompt=["", "blurry"])


@pytest.mark.slow
def test_every_checkpoint_in_graph_mode(every_pair):
    every_pair[1].enable_graph_mode()
    try:
        assert_same(every_pair)
    finally:
        every_pair[1].disable_graph_mode()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler(pair, name):
    with_scheduler(pair, name, **SCHEDULERS[name])
    assert_same(pair, prompt=PROMPTS, num_inference_steps=5)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(pair, name):
    assert_same(with_scheduler(pair, "DDIMScheduler"), **OPTIONS[name])


def test_eta(pair):
    assert_same(with_scheduler(pair, "DDIMScheduler"), eta=0.6)


def test_custom_timesteps_and_sigmas(pair):
    with_scheduler(pair, "EulerDiscreteScheduler")
    assert_same(pair, timesteps=[999, 700, 300, 20])
    assert_same(pair, sigmas=[14.0, 5.0, 1.0, 0.0])
    with_scheduler(pair, "PNDMScheduler")
    for pipe in pair:
        for arguments in ({"timesteps": [999, 10]}, {"sigmas": [10.0, 0.0]}, {"timesteps": [9], "sigmas": [1.0]}):
            with pytest.raises(ValueError):
                call(pipe, **arguments)


def test_autoencoder_tiny_takes_the_vaes_place(pair):
    with_scheduler(pair, "DDIMScheduler")
    config = {
        "encoder_block_out_channels": (16, 16), "decoder_block_out_channels": (16, 16), "num_encoder_blocks": (1, 2),
        "num_decoder_blocks": (2, 1),
    }  # fmt: skip
    vaes = pair[0].vae, pair[1].vae
    try:
        pair[0].vae = seeded(diffusers.AutoencoderTiny(**config))
        pair[1].vae = ours.AutoencoderTiny(**config)
        pair[1].vae.load_state_dict({name: value.numpy() for name, value in pair[0].vae.state_dict().items()})
        assert pair[1].vae_scale_factor == 2
        assert pair[1].config["vae"] == ("diffusers", "AutoencoderTiny")
        assert_same(pair)
    finally:
        pair[0].vae, pair[1].vae = vaes


def test_safety_checker(pair):
    with_scheduler(pair, "DDIMScheduler")
    images = assert_same(pair, prompt=PROMPTS)
    assert images.nsfw_content_detected == [False, False]
    # Put the threshold of the concept that tells the two images apart best between their cosines.
    checkers = [pipe.safety_checker for pipe in pair]
    pixels = pair[0].feature_extractor(pair[0].numpy_to_pil(images.images), return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = checkers[0].visual_projection(checkers[0].vision_model(pixels)[1])
        cosines = torch.nn.functional.cosine_similarity(embeds[:, None], checkers[0].concept_embeds[None], dim=-1)
    concept = int((cosines[0] - cosines[1]).abs().argmax())
    thresholds = np.full(17, 2.0, np.float32)
    thresholds[concept] = cosines[:, concept].mean()
    try:
        set_thresholds(checkers, thresholds)
        found = assert_same(pair, prompt=PROMPTS)
    finally:
        set_thresholds(checkers, np.full(17, 2.0, np.float32))
    assert sorted(found.nsfw_content_detected) == [False, True]
    black = found.nsfw_content_detected.index(True)
    assert (found.images[black] == 0).all()
    np.testing.assert_array_equal(found.images[1 - black], images.images[1 - black])


def set_thresholds(checkers, values: np.ndarray) -> None:
    with torch.no_grad():
        checkers[0].concept_embeds_weights.copy_(torch.from_numpy(values))
    checkers[1].load_state_dict({"concept_embeds_weights": values}, strict=False)


def test_output_types(pair):
    with_scheduler(pair, "PNDMScheduler")
    theirs, mine = (call(pipe, output_type="pil") for pipe in pair)
    assert np.abs(np.asarray(theirs.images[0], int) - np.asarray(mine.images[0], int)).max() <= 1
    for name in ("ms", "pt"):
        theirs, mine = call(pair[0], output_type="pt"), call(pair[1], output_type=name)
        assert np.abs(theirs.images.numpy() - mine.images.asnumpy()).max() <= 1e-3
    theirs, mine = (call(pipe, output_type="latent", return_dict=False) for pipe in pair)
    assert harness.relative_error(mine[0].asnumpy(), theirs[0].numpy()) <= 1e-4
    assert mine[1] is None is theirs[1]


def test_callbacks_see_and_change_the_same(pair):
    with_scheduler(pair, "HeunDiscreteScheduler")
    seen = {pipe: [] for pipe in map(id, pair)}

    def callback(pipe, step, timestep, tensors):
        seen[id(pipe)].append((step, float(timestep), sorted(tensors)))
        if step == 2:
            tensors["latents"] = tensors["latents"] * 0.5
            tensors["prompt_embeds"] = tensors["prompt_embeds"] * 0.5
        if step == 5:
            pipe._interrupt = True
        return tensors

    assert_same(pair, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])
    theirs, mine = seen.values()
    assert [entry[0] for entry in mine] == list(range(6))
    np.testing.assert_allclose([entry[1] for entry in mine], [entry[1] for entry in theirs], rtol=1e-6)
    assert [entry[2] for entry in mine] == [entry[2] for entry in theirs]
    assert pair[0].num_timesteps == pair[1].num_timesteps == 7


def test_guidance_cutoff_callback(pair):
    with_scheduler(pair, "DDIMScheduler")
    images = []
    for pipe, library in zip(pair, (diffusers.callbacks, ours.callbacks)):
        callback = library.SDCFGCutoffCallback(cutoff_step_ratio=0.5)
        images.append(call(pipe, callback_on_step_end=library.MultiPipelineCallbacks([callback])).images)
    assert np.abs(images[0] - images[1]).max() <= 1e-3


def test_float16(pair):
    with_scheduler(pair, "PNDMScheduler")
    half = ours.StableDiffusionPipeline.from_pretrained(pair[1].name_or_path, mindspore_dtype=ms.float16, safety_checker=None)
    half.scheduler = pair[1].scheduler
    assert half.dtype == ms.float16
    theirs, mine = call(pair[0], output_type="np"), call(half, output_type="np")
    assert np.abs(theirs.images - mine.images).max() <= 2e-2


def test_the_same_call_signature():
    theirs = inspect.signature(diffusers.StableDiffusionPipeline.__call__).parameters
    mine = inspect.signature(ours.StableDiffusionPipeline.__call__).parameters
    # `kwargs` upstream holds the deprecated `callback` and `callback_steps`; here they are a TypeError.
    assert list(mine) == [name for name in theirs if name != "kwargs"]
    assert {name: mine[name].default for name in mine} == {name: theirs[name].default for name in mine}
    for method in ("__init__", "encode_prompt", "check_inputs", "prepare_latents", "run_safety_checker", "get_guidance_scale_embedding"):
        theirs, mine = (inspect.signature(getattr(library.StableDiffusionPipeline, method)) for library in (diffusers, ours))
        assert list(mine.parameters) == list(theirs.parameters), method


def test_our_folder_loads_there(pair, tmp_path):
    with_scheduler(pair, "EulerDiscreteScheduler")
    pair[1].save_pretrained(tmp_path / "ours")
    pair[0].save_pretrained(tmp_path / "theirs")
    mine, theirs = ({path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")} for name in ("ours", "theirs"))
    assert mine == theirs
    index, expected = (json.loads((tmp_path / name / "model_index.json").read_text()) for name in ("ours", "theirs"))
    expected["feature_extractor"][1] = expected["feature_extractor"][1].removesuffix("Pil")
    assert index == expected
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "ours")
    np.testing.assert_array_equal(call(loaded).images, call(pair[0]).images)


def test_check_inputs_refuses_what_upstream_refuses(pair):
    embeds = np.zeros((1, 77, 32), np.float32)
    for arguments in (
        {"height": 20},
        {"prompt": None},
        {"prompt": 3},
        {"prompt_embeds": embeds},
        {"negative_prompt": "a", "negative_prompt_embeds": embeds},
        {"prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": embeds[:, :5]},
        {"callback_on_step_end_tensor_inputs": ["nothing"]},
        {"prompt": PROMPTS, "negative_prompt": "a"},
        {"prompt": PROMPTS, "negative_prompt": ["a"]},
        {"prompt": PROMPTS, "seeds": [1, 2, 3]},
    ):
        for pipe in pair:
            with pytest.raises((ValueError, TypeError)):
                call(pipe, **({"height": 32, "width": 32} | arguments))


# VaeImageProcessor

PROCESSORS = (
    {},
    {"do_normalize": False, "do_binarize": True, "do_convert_grayscale": True},
    {"do_resize": False},
    {"vae_scale_factor": 16, "resample": "bicubic", "reducing_gap": 2},
    {"do_convert_rgb": True, "resample": "nearest"},
)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray((harness.make_input(f"{width} {height}", ("uniform", (height, width, 3))) * 255).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("options", PROCESSORS, ids=str)
@pytest.mark.filterwarnings("ignore:.*range.*:FutureWarning", "ignore:.*taken to be.*:FutureWarning", "ignore:.*4d.*:FutureWarning")
def test_preprocess_is_exact(options):
    theirs, mine = diffusers.image_processor.VaeImageProcessor(**options), ours.VaeImageProcessor(**options)
    array = harness.make_input("image", ("uniform", (2, 34, 42, 3)))
    inputs = [picture(50, 37), [picture(64, 32)] * 2, picture(40, 24, "L"), array, array[0, :, :, 0], [array[0], array[1]],
              [array[:1], array[1:]], array[0, :, :, :1]]  # fmt: skip
    if not options.get("do_convert_grayscale"):
        inputs += [array[0], array[0] * 2 - 1]  # with it, three axes mean a batch of grey images, 3 pixels wide
    channels_first = array.transpose(0, 3, 1, 2).copy()
    tensors = [channels_first, channels_first[0], [channels_first[0]] * 2, [channels_first] * 2, channels_first[0, :1],
               np.zeros((2, 4, 8, 8), np.float32)]  # fmt: skip
    for sizes in ({}, {"height": 24, "width": 40}, {"height": 80}):
        for image in inputs:
            np.testing.assert_array_equal(mine.preprocess(image, **sizes).asnumpy(), theirs.preprocess(image, **sizes).numpy())
        for image in tensors:
            pair = (harness.map_arrays(convert, image) for convert in (ms.Tensor, torch.from_numpy))
            np.testing.assert_array_equal(mine.preprocess(next(pair), **sizes).asnumpy(), theirs.preprocess(next(pair), **sizes).numpy())


def test_resize_modes_crops_and_overlays_are_exact():
    theirs, mine = diffusers.image_processor.VaeImageProcessor(), ours.VaeImageProcessor()
    for mode, size, (height, width) in itertools.product(
        ("default", "fill", "crop"), ((50, 37), (37, 50), (32, 64), (64, 64)), ((32, 64), (64, 32), (48, 48))
    ):
        image = picture(*size)
        expected = theirs.preprocess(image, height, width, resize_mode=mode).numpy()
        np.testing.assert_array_equal(mine.preprocess(image, height, width, resize_mode=mode).asnumpy(), expected)
    image, other, mask = picture(80, 64), picture(64, 80).resize((80, 64)), picture(80, 64, "L")
    crop = (8, 8, 40, 48)
    expected = theirs.preprocess(image, crops_coords=crop).numpy()
    np.testing.assert_array_equal(mine.preprocess(image, crops_coords=crop).asnumpy(), expected)
    for arguments in ((mask, image, other), (mask, image, other, crop)):
        np.testing.assert_array_equal(np.asarray(mine.apply_overlay(*arguments)), np.asarray(theirs.apply_overlay(*arguments)))
    np.testing.assert_array_equal(np.asarray(mine.blur(image, 3)), np.asarray(theirs.blur(image, 3)))


def test_crop_regions_are_exact():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(8, 80, 2)
        mask = np.zeros((height, width), np.uint8)
        left, top = rng.integers(0, width), rng.integers(0, height)
        mask[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = 255
        arguments = (Image.fromarray(mask), *(int(n) for n in rng.integers(16, 128, 2)), int(rng.integers(0, 10)))
        expected = diffusers.image_processor.VaeImageProcessor.get_crop_region(*arguments)
        assert ours.VaeImageProcessor.get_crop_region(*arguments) == expected


def test_postprocess_is_exact():
    theirs, mine = diffusers.image_processor.VaeImageProcessor(), ours.VaeImageProcessor()
    image = harness.make_input("decoded", (3, 3, 8, 8))
    for kind, chosen in itertools.product(("np", "pt", "latent", "pil"), (None, [True, False, True], [False] * 3, [True] * 3)):
        expected = theirs.postprocess(torch.from_numpy(image), kind, chosen)
        actual = mine.postprocess(ms.Tensor(image), kind, chosen)
        for one, other in zip(actual, expected):
            np.testing.assert_array_equal(one.asnumpy() if isinstance(one, ms.Tensor) else np.asarray(one), np.asarray(other))
