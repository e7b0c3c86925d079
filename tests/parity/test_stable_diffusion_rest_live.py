"""T2I-Adapters, upscalers, image variation, depth and unCLIP beside PyTorch diffusers', on the checkpoints of the other live tests."""

import inspect

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers import text_encoders
from mindone_diffusers.pipelines import stable_diffusion as our_stable_diffusion
from tests import harness
from tests.cases.dpt import CASES as DPT_CASES

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer  # noqa: E402

from .test_stable_diffusion_images_live import picture  # noqa: E402
from .test_stable_diffusion_live import CHECKPOINTS, EMBEDS, PROMPTS, load_pair, seeded  # noqa: E402
from .test_stable_diffusion_xl_live import run, write_checkpoint  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*scaling_factor:FutureWarning", "ignore:.*autocast:UserWarning")

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "clip_sample": False}
KINDS = {
    "adapter": "StableDiffusionAdapterPipeline",
    "light": "StableDiffusionAdapterPipeline",
    "several": "StableDiffusionAdapterPipeline",
    "xl": "StableDiffusionXLAdapterPipeline",
    "several xl": "StableDiffusionXLAdapterPipeline",
    "x4": "StableDiffusionUpscalePipeline",
    "variation": "StableDiffusionImageVariationPipeline",
    "latent": "StableDiffusionLatentUpscalePipeline",
    "depth": "StableDiffusionDepth2ImgPipeline",
    "unclip": "StableUnCLIPImg2ImgPipeline",
    "prior": "StableUnCLIPPipeline",
}
K_UNET = {
    "act_fn": "gelu", "norm_num_groups": None, "block_out_channels": (32, 64, 64), "time_cond_proj_dim": 128 + 32, "conv_in_kernel": 1,
    "conv_out_kernel": 1, "cross_attention_dim": 32, "attention_head_dim": 8, "in_channels": 8, "out_channels": 5, "mid_block_type": None,
    "down_block_types": ("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"), "layers_per_block": 2,
    "up_block_types": ("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"), "only_cross_attention": False,
    "resnet_time_scale_shift": "scale_shift", "time_embedding_type": "fourier", "timestep_post_act": "gelu", "sample_size": 16,
}  # fmt: skip
SMALL = (picture(5, (16, 16)), picture(6, (16, 16)))


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return load_pair("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    kind = write_checkpoint("base", folder)
    return tuple(getattr(library, kind).from_pretrained(folder / "checkpoint") for library in (diffusers, ours))


@pytest.fixture(scope="module")
def load(sd, sdxl, tmp_path_factory):
    """Pairs of pipelines (theirs, ours) by name, each made once."""
    folder, pairs = tmp_path_factory.mktemp("models"), {}

    def twin(theirs, mine):
        """A seeded torch model and ours, loaded from its files."""
        path = folder / str(len(list(folder.iterdir())))
        theirs.save_pretrained(path)
        return theirs, mine.from_pretrained(path)

    def model(name: str, **config):
        return twin(seeded(getattr(diffusers, name)(**config)), getattr(ours, name))

    def adapter(kind: str = "full_adapter", factor: int = 2):
        return model("T2IAdapter", channels=(32, 64), num_res_blocks=1, downscale_factor=factor, adapter_type=kind)

    def unet(**changes):
        return model("UNet2DConditionModel", **CHECKPOINTS["sd1"]["unet"] | changes)

    def vision():
        config = transformers.CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, projection_dim=32
        )
        encoder = seeded(transformers.CLIPVisionModelWithProjection(config))
        return twin(encoder, text_encoders.CLIPVisionModelWithProjection)

    def prior():
        """What predicts embeddings of images."""
        tokenizers = tuple(pipe.tokenizer for pipe in sd)
        config = transformers.CLIPTextConfig(**sd[0].text_encoder.config.to_dict() | {"num_hidden_layers": 2, "projection_dim": 32})
        encoder = seeded(transformers.CLIPTextModelWithProjection(config))
        unclip = tuple(library.UnCLIPScheduler(clip_sample_range=5.0, prediction_type="sample") for library in (diffusers, ours))
        return {
            "prior_tokenizer": tokenizers, "prior_text_encoder": twin(encoder, text_encoders.CLIPTextModelWithProjection),
            "prior": model("PriorTransformer", num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=32),
            "prior_scheduler": unclip,
        }  # fmt: skip

    def scheduler(name: str, **config):
        return tuple(getattr(library, name)(**NOISE | config) for library in (diffusers, ours))

    def parts(name: str):
        if name in ("adapter", "light"):
            return {"adapter": adapter("light_adapter" if name == "light" else "full_adapter")}
        if name == "xl":
            return {"adapter": adapter("full_adapter_xl", 4)}
        if name == "several":
            return {"adapter": tuple(zip(adapter(), adapter()))}
        if name == "several xl":
            pairs = adapter("full_adapter_xl", 4), adapter("full_adapter_xl", 4)
            return {"adapter": (diffusers.MultiAdapter([pair[0] for pair in pairs]), [pair[1] for pair in pairs])}
        if name == "x4":
            blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
            return {
                "unet": unet(in_channels=7, num_class_embeds=1000), "low_res_scheduler": scheduler("DDPMScheduler"),
                "vae": model("AutoencoderKL", block_out_channels=(32, 32, 64), scaling_factor=0.08333, **blocks),
                "safety_checker": (None, None), "watermarker": (None, None),
            }  # fmt: skip
        if name == "variation":
            return {"image_encoder": vision()}
        if name == "latent":
            euler = tuple(library.EulerDiscreteScheduler(prediction_type="sample") for library in (diffusers, ours))
            return {"unet": model("UNet2DConditionModel", **K_UNET), "scheduler": euler}
        if name == "depth":
            processor = transformers.DPTImageProcessorPil(size={"height": 64, "width": 64})
            dpt = seeded(transformers.DPTForDepthEstimation(transformers.DPTConfig(**DPT_CASES["hybrid"]["config"])))
            return {
                "unet": unet(in_channels=5), "depth_estimator": twin(dpt, text_encoders.DPTForDepthEstimation),
                "feature_extractor": (processor, processor),
            }  # fmt: skip
        normalizer = StableUnCLIPImageNormalizer(32)
        seeded(normalizer)
        normalizer.std.data = torch.linspace(0.5, 1.5, 32)[None]
        return (prior() if name == "prior" else {"image_encoder": vision()}) | {
            "unet": unet(class_embed_type="projection", projection_class_embeddings_input_dim=64),
            "image_normalizer": twin(normalizer, our_stable_diffusion.StableUnCLIPImageNormalizer),
            "image_noising_scheduler": scheduler("DDPMScheduler", beta_schedule="squaredcos_cap_v2"),
        }  # fmt: skip

    def get(name: str, scheduler_name: str = "DDIMScheduler"):
        if name not in pairs:
            pairs[name] = []
            own = {"scheduler": scheduler("DDIMScheduler")} | parts(name)
            for index, (library, base) in enumerate(zip((diffusers, ours), sdxl if "xl" in name else sd)):
                kind = getattr(library, KINDS[name])
                names = set(inspect.signature(kind).parameters)
                given = {part: component for part, component in base.components.items() if part in names}
                given |= {part: pair[index] for part, pair in own.items()}
                pairs[name].append(kind(**given))
        for pipe, library in zip(pairs[name], (diffusers, ours)):
            if name != "latent":
                pipe.scheduler = getattr(library, scheduler_name)(**{k: v for k, v in NOISE.items() if k != "clip_sample"})
            pipe.set_progress_bar_config(disable=True)
        return pairs[name]

    return get


def call(pipe, **arguments):
    return run(pipe, **{"num_inference_steps": 3, "output_type": "np"} | arguments)


def assert_same(pair, tolerance: float = 1e-3, **arguments):
    theirs, mine = (call(pipe, **arguments) for pipe in pair)
    assert type(theirs).__name__ == type(mine).__name__ and list(theirs) == list(mine)
    assert theirs.get("nsfw_content_detected") == mine.get("nsfw_content_detected")
    theirs, mine = theirs.images, mine.images
    if arguments.get("output_type") == "latent":
        assert harness.relative_error(mine.asnumpy(), theirs.numpy()) <= 1e-4
        return theirs.numpy(), mine.asnumpy()
    if arguments.get("output_type") == "pil":
        theirs, mine = (np.stack([np.asarray(image, np.float32) / 255 for image in images]) for images in (theirs, mine))
        tolerance += 1 / 255
    assert mine.shape == theirs.shape and np.isfinite(mine).all()
    assert mine.std() > 0.02, "an image with something in it"
    difference = np.abs(mine - theirs).max()
    assert difference <= tolerance, difference
    return theirs, mine


def pictures(name: str, *shape: int) -> np.ndarray:
    return harness.make_input(name, ("uniform", shape))


class Fake(torch.nn.Module):
    """What upstream asks of a component."""

    device, dtype = torch.device("cpu"), torch.float32


BOTH_EMBEDS = {"prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[::-1].copy()}
POOLED = {"pooled_prompt_embeds": EMBEDS[:, 3], "negative_pooled_prompt_embeds": EMBEDS[:, 5]}
XL_EMBEDS = {
    "prompt_embeds": harness.make_input("embeds", (1, 77, 80)), "negative_prompt_embeds": harness.make_input("negative", (1, 77, 80)),
    "pooled_prompt_embeds": harness.make_input("pooled", (1, 40)), "negative_pooled_prompt_embeds": harness.make_input("other", (1, 40)),
}  # fmt: skip
DEPTH = pictures("depth", 1, 20, 28) * 10
PIXELS = harness.make_input("pixel values", (2, 3, 32, 32))

PLAIN = {
    "adapter": {"prompt": PROMPTS[0], "image": picture()},
    "light": {"prompt": PROMPTS[0], "image": picture(), "num_inference_steps": 2},
    "several": {"prompt": PROMPTS[0], "image": [picture(), picture(1)], "adapter_conditioning_scale": [0.7, 0.3]},
    "xl": {"prompt": PROMPTS[0], "image": picture()},
    "several xl": {"prompt": PROMPTS[0], "image": [picture(), picture(1)], "adapter_conditioning_scale": [0.7, 0.3]},
    "x4": {"prompt": PROMPTS[0], "image": SMALL[0]},
    "variation": {"image": picture()},
    "latent": {"prompt": PROMPTS[0], "image": harness.make_input("latents", (1, 4, 8, 8))},
    "depth": {"prompt": PROMPTS[0], "image": picture(), "depth_map": DEPTH, "num_inference_steps": 4},
    "unclip": {"prompt": PROMPTS[0], "image": picture()},
    "prior": {"prompt": PROMPTS[0], "prior_num_inference_steps": 4},
}
ADAPTER = {
    "scale": {"adapter_conditioning_scale": 0.4, "eta": 0.5},
    "other size": {"image": picture(2, (50, 43)), "height": 24, "width": 40},
    "default size": {"image": picture(2, (41, 25))},
    "tensor": {"image": pictures("control", 1, 3, 32, 32)},
    "tensors": {"prompt": PROMPTS, "image": [pictures("one", 3, 32, 32), pictures("two", 3, 32, 32)]},
    "batches": {"prompt": PROMPTS, "image": [pictures("one", 1, 3, 32, 32), pictures("two", 1, 3, 32, 32)]},
    "batch": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "negative_prompt": ["", "blurry"]},
    "images of a prompt": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "num_images_per_prompt": 2, "num_inference_steps": 2},
    "generators": {"seeds": [3, 4], "num_images_per_prompt": 2},
    "no guidance": {"guidance_scale": 1.0},
    "latents": {"latents": harness.make_input("noise", (1, 4, 16, 16))},
    "latent": {"output_type": "latent"},
    "pil": {"output_type": "pil"},
    "clip_skip": {"clip_skip": 1, "negative_prompt": "green"},
}
CASES = {
    "adapter": ADAPTER | {"embeds": {"prompt": None, "image": [picture(0), picture(1)], **BOTH_EMBEDS}},
    "light": {},
    "several": {
        "batch": {"prompt": PROMPTS, "image": [[picture(0), picture(1)], [picture(2), picture(3)]]},
        "sizes": {"image": [picture(0), picture(1, (48, 40))]},
    },
    "xl": ADAPTER
    | {
        "embeds": {"prompt": None, **XL_EMBEDS},
        "factor": {"adapter_conditioning_factor": 0.67},
        "no steps": {"adapter_conditioning_factor": 0.0},
        "prompt_2": {"prompt_2": "a dog", "negative_prompt": "red", "negative_prompt_2": "green"},
        "rescale": {"guidance_rescale": 0.7},
        "end": {"denoising_end": 0.6, "num_inference_steps": 5, "adapter_conditioning_factor": 0.5},
        "sizes": {"original_size": (64, 48), "crops_coords_top_left": (3, 5), "target_size": (40, 40)},
        "negative sizes": {"negative_original_size": (64, 48), "negative_crops_coords_top_left": (1, 2), "negative_target_size": (9, 9)},
    },
    "several xl": {},
    "x4": {
        "noise": {"noise_level": 200, "eta": 0.5},
        "batch": {"prompt": PROMPTS, "image": list(SMALL), "negative_prompt": ["", "blurry"]},
        "images of a prompt": {"prompt": PROMPTS, "image": list(SMALL), "num_images_per_prompt": 2, "num_inference_steps": 2},
        "generators": {"prompt": PROMPTS, "image": list(SMALL), "seeds": [3, 4]},
        "tensor": {"image": pictures("small", 1, 3, 16, 20)},
        "other size": {"image": picture(2, (22, 17))},
        "no guidance": {"guidance_scale": 1.0},
        "latents": {"latents": harness.make_input("noise", (1, 4, 16, 16))},
        "latent": {"output_type": "latent"},
        "pil": {"output_type": "pil"},
        "clip_skip": {"clip_skip": 1, "negative_prompt": "green"},
        "embeds": {"prompt": None, "image": list(SMALL), **BOTH_EMBEDS},
    },
    "variation": {
        "batch": {"image": [picture(0), picture(1)], "num_images_per_prompt": 2, "num_inference_steps": 2},
        "tensor": {"image": PIXELS, "eta": 0.5},
        "generators": {"image": PIXELS, "seeds": [3, 4]},
        "size": {"height": 24, "width": 40},
        "no guidance": {"guidance_scale": 1.0},
        "latents": {"latents": harness.make_input("noise", (1, 4, 16, 16))},
        "latent": {"output_type": "latent"},
        "pil": {"output_type": "pil"},
    },
    "latent": {
        "image": {"image": picture(0, (16, 24))},
        "batch": {"prompt": PROMPTS, "image": harness.make_input("several", (2, 4, 8, 8)), "negative_prompt": ["", "blurry"]},
        "images": {"prompt": PROMPTS, "image": list(SMALL), "seeds": [3, 4]},
        "scale 0": {"guidance_scale": 0, "num_inference_steps": 5},
        "no guidance": {"guidance_scale": 1.0},
        "latents": {"latents": harness.make_input("noise", (1, 4, 16, 16)), "negative_prompt": "green"},
        "latent": {"output_type": "latent"},
        "pil": {"output_type": "pil"},
        "embeds": {"prompt": None, "image": list(SMALL), **BOTH_EMBEDS, **POOLED},
    },
    "depth": {
        "batch": {"prompt": PROMPTS, "image": [picture(0), picture(1)], "depth_map": np.concatenate([DEPTH, DEPTH[:, ::-1]])},
        "one map": {"prompt": PROMPTS, "num_images_per_prompt": 2},
        "generators": {"prompt": PROMPTS, "seeds": [3, 4]},
        "weak": {"strength": 0.5, "eta": 0.5},
        "full": {"strength": 1.0},
        "tensor": {"image": pictures("start", 1, 3, 32, 40)},
        "other size": {"image": picture(2, (40, 33))},
        "no guidance": {"guidance_scale": 1.0},
        "latent": {"output_type": "latent"},
        "pil": {"output_type": "pil"},
        "clip_skip": {"clip_skip": 1, "negative_prompt": "green"},
        "embeds": {"prompt": None, **BOTH_EMBEDS},
        "estimated": {"depth_map": None},
        "estimated batch": {"depth_map": None, "prompt": PROMPTS, "image": [picture(0), picture(1)], "num_images_per_prompt": 2},
        "estimated tensor": {"depth_map": None, "image": pictures("start", 1, 3, 32, 40)},
    },
    "unclip": {
        "noise": {"noise_level": 300, "eta": 0.5},
        "no prompt": {"prompt": None},
        "no prompts": {"prompt": None, "image": [picture(0), picture(1)]},
        "batch": {"prompt": PROMPTS, "num_images_per_prompt": 2, "num_inference_steps": 2},
        "batches": {"prompt": PROMPTS, "image": PIXELS, "negative_prompt": ["", "blurry"], "num_images_per_prompt": 2},
        "image_embeds": {"image": None, "image_embeds": harness.make_input("image_embeds", (1, 32)), "noise_level": 5},
        "size": {"height": 24, "width": 40},
        "no guidance": {"guidance_scale": 1.0},
        "latents": {"latents": harness.make_input("noise", (1, 4, 16, 16))},
        "latent": {"output_type": "latent"},
        "pil": {"output_type": "pil"},
        "clip_skip": {"clip_skip": 1, "negative_prompt": "green"},
        "embeds": {"prompt": None, **BOTH_EMBEDS},
    },
    "prior": {
        "noise": {"noise_level": 300, "eta": 0.5},
        "batch": {"prompt": PROMPTS, "negative_prompt": ["", "blurry"], "num_images_per_prompt": 2, "num_inference_steps": 2},
        "generators": {"prompt": PROMPTS, "seeds": [3, 4], "prior_num_inference_steps": 2},
        "strong prior": {"prior_guidance_scale": 8.0},
        "no guidance of the prior": {"prior_guidance_scale": 1.0},
        "no guidance": {"guidance_scale": 1.0},
        "prior_latents": {"prior_latents": harness.make_input("prior_latents", (1, 32))},
        "latents": {"latents": harness.make_input("noise", (1, 4, 16, 16))},
        "size": {"height": 24, "width": 40},
        # Stronger guidance multiplies rounding: at the default of 10, PyTorch's float32 is 6.5e-5 of scale from its float64, ours 1.0e-4.
        "latent": {"output_type": "latent", "guidance_scale": 2.0},
        "pil": {"output_type": "pil"},
        "clip_skip": {"clip_skip": 1, "negative_prompt": "green"},
        "negative embeds": {"negative_prompt_embeds": EMBEDS[:1]},
        "long prompt": {"prompt": "a very long prompt " * 20},
    },
}


@pytest.mark.parametrize("name, case", [(name, case) for name in CASES for case in ("plain", *CASES[name])])
def test_images(load, name, case):
    assert_same(load(name), **PLAIN[name] | CASES[name].get(case, {}))


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("light", "latent")])
@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"])
def test_other_schedulers(load, name, scheduler):
    assert_same(load(name, scheduler), **PLAIN[name] | {"num_inference_steps": 4})


def test_custom_timesteps_and_sigmas(load):
    for name in ("adapter", "xl"):
        pair = load(name, "EulerDiscreteScheduler")
        assert_same(pair, **PLAIN[name], timesteps=[900, 500, 100])
        assert_same(pair, **PLAIN[name], sigmas=[10.0, 1.0, 0.0])


@pytest.mark.parametrize("name", ["adapter", "xl"])
def test_one_control_image_and_one_scale_serve_for_all(load, name):
    """Where PyTorch diffusers fails."""
    mine = load(name)[1]
    images = call(mine, prompt=PROMPTS, image=picture()).images
    np.testing.assert_allclose(images, call(mine, prompt=PROMPTS, image=[picture()] * 2).images, atol=1e-6)
    name = "several" if name == "adapter" else "several xl"
    mine, arguments = load(name)[1], PLAIN[name]
    one, both = (call(mine, **arguments | {"adapter_conditioning_scale": scale}).images for scale in (0.6, [0.6, 0.6]))
    np.testing.assert_array_equal(one, both)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("light", "depth")])
@pytest.mark.parametrize("scheduler, steps", [("PNDMScheduler", 2), ("HeunDiscreteScheduler", 1)])
def test_callbacks_by_name_see_the_same(load, name, scheduler, steps):
    if name in ("unclip", "prior") and scheduler.startswith("Heun"):
        pytest.skip("upstream calls it twice a step")
    seen = []
    for pipe in load(name, scheduler):
        calls = []
        call(
            pipe, **PLAIN[name] | {"num_inference_steps": 5}, callback_steps=steps,
            callback=lambda i, t, latents, calls=calls: calls.append((i, float(t), np.array(latents.numpy()))),
        )  # fmt: skip
        seen.append(calls)
    assert len(seen[0]) >= 2 and [entry[0] for entry in seen[1]] == [entry[0] for entry in seen[0]]
    for mine, theirs in zip(seen[1], seen[0], strict=True):
        assert mine[1] == pytest.approx(theirs[1], rel=1e-6)
        assert harness.relative_error(mine[2], theirs[2]) <= 1e-4


def test_depth_callbacks_see_and_change_the_same(load):
    def callback(pipe, step, timestep, tensors):
        return tensors | {"depth_mask": tensors["depth_mask"] * 0.5, "latents": tensors["latents"] * 0.9}

    arguments = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["latents", "depth_mask", "prompt_embeds"]}
    assert_same(load("depth"), **PLAIN["depth"], **arguments)


def test_depth_without_a_map_and_an_estimator(load):
    mine = load("depth")[1]
    estimator = mine.depth_estimator
    try:
        mine.depth_estimator = None
        with pytest.raises(ValueError, match="no depth_map"):
            call(mine, prompt=PROMPTS[0], image=picture())
    finally:
        mine.depth_estimator = estimator


def test_depth_of_latents_and_of_arrays(load):
    """Where PyTorch diffusers fails."""
    pair = load("depth")
    array = pictures("start", 1, 3, 32, 40)
    expected = call(pair[1], prompt=PROMPTS[0], image=array, depth_map=DEPTH).images
    arguments = {"prompt": PROMPTS[0], "depth_map": ms.Tensor(DEPTH), "num_inference_steps": 3, "output_type": "np"}
    images = pair[1](image=array.transpose(0, 2, 3, 1), generator=ours.Generator().manual_seed(0), **arguments).images
    np.testing.assert_array_equal(images, expected)
    assert (
        call(pair[1], prompt=PROMPTS[0], image=harness.make_input("latents", (1, 4, 16, 20)), depth_map=DEPTH).images.shape
        == expected.shape
    )


def test_the_upscalers_safety_checker_and_watermarker(load):
    flags = [True, False], [False, True]

    class Torch(Fake):
        def forward(self, clip_input, images):
            return images * clip_input.mean(), *flags

    class MindSpore(ours.ModelMixin):
        def __call__(self, clip_input, images):
            return images * clip_input.mean(), *flags

    class Negative(Fake):
        def apply_watermark(self, images):
            return [image.rotate(90) for image in images]

    class OurNegative(ours.ModelMixin):
        apply_watermark = Negative.apply_watermark

    pair, arguments = load("x4"), {"prompt": PROMPTS, "image": list(SMALL)}
    try:
        pair[0].register_modules(safety_checker=Torch(), watermarker=Negative())
        pair[1].register_modules(safety_checker=MindSpore(), watermarker=OurNegative())
        assert_same(pair, **arguments, output_type="np")
        assert_same(pair, **arguments, output_type="pil")
    finally:
        for pipe in pair:
            pipe.register_modules(safety_checker=None, watermarker=None)


def test_a_wrong_scaling_factor_of_the_upscalers_vae_is_corrected(load):
    parts = load("x4")[1].components
    vae = ours.AutoencoderKL.from_config(parts["vae"].config, scaling_factor=0.18215)
    with pytest.warns(FutureWarning, match="scaling_factor=0.18215"):
        pipe = ours.StableDiffusionUpscalePipeline(**parts | {"vae": vae})
    assert pipe.vae.config.scaling_factor == 0.08333


def test_noise_of_image_embeddings(load):
    theirs, mine = load("unclip")
    embeds, noise = harness.make_input("embeds", (2, 32)), harness.make_input("noise", (2, 32))
    for level in (0, 7, 999):
        with torch.no_grad():
            expected = theirs.noise_image_embeddings(torch.from_numpy(embeds), torch.tensor(level), torch.from_numpy(noise))
        actual = mine.noise_image_embeddings(ms.Tensor(embeds), level, ms.Tensor(noise))
        assert harness.relative_error(actual.asnumpy(), expected.numpy()) <= 1e-5


@pytest.mark.parametrize("name", KINDS)
def test_saved_and_loaded_in_float16(load, name, tmp_path):
    mine = load(name)[1]
    mine.save_pretrained(tmp_path)
    half = getattr(ours, KINDS[name]).from_pretrained(tmp_path, mindspore_dtype=ms.float16)
    assert set(half.components) == set(mine.components)
    models = {part: model for part, model in half.components.items() if isinstance(model, ours.ModelMixin)}
    assert models and all(model.dtype == ms.float16 for model in models.values())
    for part, model in models.items():
        values = mine.components[part].state_dict()
        assert all((values[key].astype(ms.float16) == value).all() for key, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_graph_mode(load, name):
    pair = load(name)
    pair[1].enable_graph_mode()
    try:
        assert_same(pair, **PLAIN[name])
    finally:
        pair[1].disable_graph_mode()


@pytest.mark.parametrize("name", sorted(set(KINDS.values())))
def test_the_same_signatures(name):
    theirs, mine = getattr(diffusers, name), getattr(ours, name)
    methods = (
        "__call__", "__init__", "check_inputs", "prepare_latents", "get_timesteps", "encode_prompt", "run_safety_checker",
        "prepare_depth_map", "noise_image_embeddings", "prepare_extra_step_kwargs", "prepare_prior_extra_step_kwargs",
    )  # fmt: skip
    for method in methods:
        if not hasattr(theirs, method):
            continue
        expected, actual = (inspect.signature(getattr(kind, method)).parameters for kind in (theirs, mine))
        assert list(actual) == [argument for argument in expected if argument != "kwargs"], method
        assert {argument: actual[argument].default for argument in actual} == {
            argument: expected[argument].default for argument in actual
        }, method
    assert sorted(mine._optional_components) == sorted(
        theirs._optional_components + (["depth_estimator", "feature_extractor"] if "Depth" in name else [])
    )
    assert theirs.__module__.removeprefix("diffusers") == mine.__module__.removeprefix("mindone_diffusers")


PROMPTED = (
    {"prompt": None},
    {"prompt": 3},
    {"prompt_embeds": EMBEDS},
    {"prompt": None, "prompt_embeds": EMBEDS[:1], "negative_prompt_embeds": EMBEDS[:1, :5]},
    {"negative_prompt": "a", "negative_prompt_embeds": EMBEDS[:1]},
    {"negative_prompt": ["a"]},
    {"callback_steps": 0},
)
REFUSED = {
    "adapter": (*PROMPTED, {"height": 30}, {"image": None}, {"seeds": [1, 2]}, {"image": [picture(0), picture(1)]}),
    "several": (*PROMPTED, {"image": picture()}, {"image": [picture()]}, {"image": [picture()] * 3}),
    "xl": (*PROMPTED[:3], {"height": 30}, {"image": None}, {"prompt_2": 3}, {"prompt": None, "prompt_embeds": XL_EMBEDS["prompt_embeds"]}),
    "x4": (
        *PROMPTED, {"image": None}, {"image": list(SMALL)}, {"noise_level": 351}, {"latents": np.zeros((1, 4, 8, 8), np.float32)},
        {"image": pictures("four", 1, 4, 16, 16)}, {"image": 3},
    ),
    "variation": ({"image": 3}, {"height": 30}, {"callback_steps": 0}, {"callback_steps": None}, {"seeds": [1, 2]}),
    "latent": (
        *PROMPTED, {"image": None}, {"image": list(SMALL)}, {"latents": np.zeros((1, 4, 8, 8), np.float32)},
        {"prompt": None, "prompt_embeds": EMBEDS[:1]}, {"image": 3},
        {"prompt": None, "prompt_embeds": EMBEDS[:1], "pooled_prompt_embeds": EMBEDS[:1, 0], "negative_prompt_embeds": EMBEDS[:1]},
    ),
    "depth": (
        *PROMPTED[:6], {"strength": 1.1}, {"strength": -0.1}, {"image": None}, {"callback_on_step_end_tensor_inputs": ["sigmas"]},
        {"prompt": ["a"] * 3, "image": [picture(0), picture(1)], "depth_map": DEPTH},
    ),
    "unclip": (
        *PROMPTED[1:], {"image": None}, {"image_embeds": EMBEDS[:1, 0]}, {"image": 3}, {"noise_level": -1}, {"noise_level": 1000},
        {"height": 30}, {"negative_prompt": ["a"], "guidance_scale": 1.0}, {"seeds": [1, 2]},
    ),
    "prior": (
        *PROMPTED, {"prompt": None, "prompt_embeds": EMBEDS[:1]}, {"noise_level": -1}, {"noise_level": 1000}, {"height": 30},
        {"negative_prompt": ["a"], "guidance_scale": 1.0}, {"prior_latents": np.zeros((1, 5), np.float32)},
        {"latents": np.zeros((1, 4, 8, 8), np.float32)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name, index", [(name, index) for name in REFUSED for index in range(len(REFUSED[name]))])
def test_refuses_what_upstream_refuses(load, name, index):
    for pipe in load(name):
        kinds = (ValueError, TypeError) if isinstance(pipe, ours.DiffusionPipeline) else Exception
        with pytest.raises(kinds):
            call(pipe, **PLAIN[name] | REFUSED[name][index])


def test_refuses_what_is_not_there_yet(load):
    with pytest.raises(NotImplementedError, match="IP-Adapters"):
        call(load("xl")[1], **PLAIN["xl"], ip_adapter_image=picture())
    with pytest.raises(NotImplementedError, match="LoRA"):
        call(load("adapter")[1], **PLAIN["adapter"], cross_attention_kwargs={"scale": 0.5})
    with pytest.raises(ValueError, match="the picture 24 x 32"):
        call(load("adapter")[1], **PLAIN["adapter"] | {"image": pictures("control", 1, 3, 32, 32), "height": 24, "width": 32})
