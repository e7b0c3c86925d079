"""The Stable Diffusion XL pipelines without torch: arguments and their errors, save and load, dtypes, graph mode.

What they draw is compared with PyTorch diffusers in `tests/parity/test_stable_diffusion_xl_live.py`.
"""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mindone_diffusers import (
    AutoencoderKL,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from mindone_diffusers.backend import graph
from mindone_diffusers.callbacks import SDXLCFGCutoffCallback
from mindone_diffusers.core.errors import ConfigError, UnsupportedError
from mindone_diffusers.pipelines.images import encode_image, scale_latents, unscale_latents, upcast
from mindone_diffusers.pipelines.schedule import end_early, get_timesteps
from mindone_diffusers.pipelines.stable_diffusion_xl import StableDiffusionXLPipelineOutput, watermark
from tests import harness
from tests.tiny_checkpoint import make_tokenizer

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
MASK = Image.fromarray(np.pad(np.full((16, 12), 255, np.uint8), ((8, 8), (4, 16))))
IMAGE, PAINT = {"image": PICTURE, "strength": 0.5}, {"image": PICTURE, "mask_image": MASK, "strength": 0.5}
KINDS = {
    StableDiffusionXLPipeline: {},
    StableDiffusionXLImg2ImgPipeline: IMAGE,
    StableDiffusionXLInpaintPipeline: PAINT,
    StableDiffusionXLInstructPix2PixPipeline: {"image": PICTURE},
}
"""The pipelines, and what a call needs beside a prompt."""


def random(*shape: int) -> ms.Tensor:
    return ms.Tensor(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32))


def make_unet(**changed) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        **{
            "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": (2, 4),
            "use_linear_projection": True, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "cross_attention_dim": 64, "projection_class_embeddings_input_dim": 6 * 8 + 32,
        } | changed
    )  # fmt: skip
    unet.fill_parameters(0)
    return unet


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    config = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    models = {
        "vae": AutoencoderKL(block_out_channels=(32, 32), **blocks), "text_encoder": CLIPTextModel(**config),
        "text_encoder_2": CLIPTextModelWithProjection(**config, projection_dim=32),
    }  # fmt: skip
    for seed, model in enumerate(models.values()):
        model.fill_parameters(seed)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    return models | {"tokenizer": tokenizer, "tokenizer_2": tokenizer, "unet": make_unet(), "scheduler": scheduler}


@pytest.fixture(scope="module")
def pipes(parts):
    """A pipeline of each kind, on shared models but for the UNet of InstructPix2Pix."""
    made = {}
    for kind in KINDS:
        special = {"unet": make_unet(in_channels=8)} if kind is StableDiffusionXLInstructPix2PixPipeline else {}
        made[kind] = kind(**parts | special)
        made[kind].set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def pipe(pipes):
    pipe = pipes[StableDiffusionXLPipeline]
    scheduler = pipe.scheduler
    yield pipe
    pipe.scheduler = scheduler


def draw(pipe, prompt="a cat", seed: int = 0, **arguments):
    arguments = {"num_inference_steps": 4, "output_type": "np", "generator": np.random.default_rng(seed)} | KINDS[type(pipe)] | arguments
    return pipe(prompt, **arguments).images


EMBEDS = {"prompt_embeds": random(1, 77, 64), "pooled_prompt_embeds": random(1, 32)}
NEGATIVE = {f"negative_{name}": value for name, value in EMBEDS.items()}
PROMPT_ERRORS = [
    ({"prompt": None}, "neither `prompt` nor"),
    ({"prompt": 3}, "prompt is a int"),
    (EMBEDS, "`prompt` and `prompt_embeds` are both"),
    (NEGATIVE | {"negative_prompt": "a"}, "`negative_prompt` and `negative_prompt_embeds` are both"),
    (EMBEDS | NEGATIVE | {"prompt": None, "negative_prompt_embeds": random(1, 5, 64)}, r"\(1, 77, 64\).*\(1, 5, 64\)"),
    ({"prompt": None, "prompt_embeds": random(1, 77, 64)}, "without pooled_prompt_embeds"),
    ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "1 negative prompts for 2"),
    ({"prompt": ["a", "b"], "generator": [np.random.default_rng()] * 3}, "3 generators for a batch of 2"),
    ({"prompt": ["a", "b"], "prompt_2": "c"}, "1 texts in prompt_2 for 2"),
    ({"output_type": "jpeg"}, "'jpeg'.*'pil'"),
    ({"original_size": (1, 2, 3)}, "7 sizes and places of 8 numbers.*88.*takes 80"),
]
SECOND_ERRORS = [
    (EMBEDS | {"prompt": None, "prompt_2": "a"}, "`prompt_2` and `prompt_embeds` are both"),
    ({"prompt_2": 3}, "prompt_2 is a int"),
    (NEGATIVE | {"negative_prompt_2": "a"}, "`negative_prompt_2` and `negative_prompt_embeds` are both"),
    ({"callback_on_step_end_tensor_inputs": ["negative_prompt_embeds"]}, r"\['negative_prompt_embeds'\].*'add_time_ids'"),
    ({"timesteps": [9], "sigmas": [1.0]}, "both given"),
    ({"clip_skip": 2}, "2 layers"),
]
RANGE_ERRORS = [
    ({"strength": 1.5}, "strength is 1.5"),
    ({"strength": 0.1}, "leave.* none of the steps"),
    ({"denoising_start": 0.7, "denoising_end": 0.7}, "denoising_start is 0.7"),
]
ERRORS = {
    StableDiffusionXLPipeline: [*SECOND_ERRORS, ({"height": 20, "width": 32}, "20 and 32")],
    StableDiffusionXLImg2ImgPipeline: [
        *SECOND_ERRORS, *RANGE_ERRORS, ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5"), ({"image": None}, "Pillow images"),
        ({"prompt": ["a"] * 3, "image": [PICTURE] * 2}, "2 images for a batch of 3"),
    ],
    StableDiffusionXLInpaintPipeline: [
        *SECOND_ERRORS, *RANGE_ERRORS, ({"height": 20, "width": 32}, "20 and 32"),
        ({"padding_mask_crop": 2}, "output_type is 'np'"), ({"padding_mask_crop": 2, "image": random(1, 3, 8, 8)}, "image is a Tensor"),
        ({"padding_mask_crop": 2, "mask_image": random(1, 1, 8, 8)}, "mask_image is a Tensor"),
        ({"prompt": ["a"] * 3, "mask_image": [MASK] * 2}, "2 masks for a batch of 3"),
    ],
    StableDiffusionXLInstructPix2PixPipeline: [
        ({"image": None}, "image is None"), ({"callback_steps": 0}, "callback_steps is 0"),
        ({"prompt": ["a"] * 3, "image": [PICTURE] * 2}, "2 images for a batch of 3"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(pipes, kind):
    for arguments, message in PROMPT_ERRORS + ERRORS[kind]:
        with pytest.raises(ConfigError, match=message):
            draw(pipes[kind], **{"prompt": "a cat"} | arguments)
    with pytest.raises(TypeError, match="steps"):
        draw(pipes[kind], steps=3)
    with pytest.raises(UnsupportedError, match="LoRA"):
        draw(pipes[kind], cross_attention_kwargs={"scale": 0.5})
    if kind is not StableDiffusionXLInstructPix2PixPipeline:
        for arguments in ({"ip_adapter_image": PICTURE}, {"ip_adapter_image_embeds": [EMBEDS["prompt_embeds"]]}):
            with pytest.raises(UnsupportedError, match="IP-Adapters"):
                draw(pipes[kind], **arguments)


def test_unets_of_other_kinds_are_refused(parts, pipes):
    refiner = {"unet": make_unet(projection_class_embeddings_input_dim=5 * 8 + 32)}
    for wrong, changed in ((False, refiner), (True, {})):
        pipe = StableDiffusionXLImg2ImgPipeline(**parts | changed, requires_aesthetics_score=wrong)
        with pytest.raises(ConfigError, match=f"requires_aesthetics_score={not wrong}"):
            draw(pipe)
    with pytest.raises(ConfigError, match="takes 8 channels; expected 4, or 9"):
        draw(StableDiffusionXLInpaintPipeline(**pipes[StableDiffusionXLInstructPix2PixPipeline].components))
    nine = StableDiffusionXLInpaintPipeline(**parts | {"unet": make_unet(in_channels=9)})
    with pytest.raises(ConfigError, match="pass masked_image_latents"):
        draw(nine, image=random(1, 4, 16, 16))
    with pytest.raises(ConfigError, match="4, 2 and 4 channels; the UNet takes 9"):
        draw(nine, masked_image_latents=random(1, 4, 16, 16), mask_image=abs(random(1, 2, 32, 32)))
    with pytest.raises(ConfigError, match="4 and 4 channels; the UNet takes 4"):
        StableDiffusionXLInstructPix2PixPipeline(**parts)("a", image=PICTURE)


def test_without_text_encoders(pipe, parts):
    prompt, negative, pooled, negative_pooled = pipe.encode_prompt("a cat", negative_prompt="blurry")
    embeds = {"prompt_embeds": prompt, "pooled_prompt_embeds": pooled}
    negatives = {"negative_prompt_embeds": negative, "negative_pooled_prompt_embeds": negative_pooled}
    none = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    without = StableDiffusionXLPipeline(**parts | none)
    expected = draw(pipe, negative_prompt="blurry")
    np.testing.assert_array_equal(draw(without, None, **embeds, **negatives), expected)
    np.testing.assert_array_equal(draw(without, None, **embeds), draw(pipe))
    for arguments in ({"prompt": "a"}, embeds | {"prompt": None, "negative_prompt": "blurry"}):
        with pytest.raises(ConfigError, match="lacks a text encoder"):
            draw(without, **arguments)


def test_an_empty_negative_prompt_is_zeros_or_a_text(parts):
    def negatives(zeros: bool, **arguments):
        pipe = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros)
        return [tensor.asnumpy() for tensor in pipe.encode_prompt("a", **arguments)[1::2]]

    assert all((tensor == 0).all() for tensor in negatives(True))
    for tensor, expected in zip(negatives(False), negatives(True, negative_prompt="")):
        np.testing.assert_array_equal(tensor, expected)
        assert np.abs(tensor).max() > 0.1


def test_images_do_not_depend_on_their_batch(pipes):
    for kind, pipe in pipes.items():
        seeds = [np.random.default_rng(seed) for seed in (1, 2, 3, 4)]
        batch = draw(pipe, ["a cat", "two dogs"], num_images_per_prompt=2, negative_prompt=["", "red"], generator=seeds)
        for index, (prompt, negative) in enumerate((("a cat", ""), ("a cat", ""), ("two dogs", "red"), ("two dogs", "red"))):
            if kind is StableDiffusionXLInpaintPipeline and index:
                continue  # one image is encoded once, by the first generator, as in PyTorch diffusers
            single = draw(pipe, prompt, seed=index + 1, negative_prompt=negative)[0]
            np.testing.assert_allclose(batch[index], single, atol=1e-4)


def test_output_types(pipe):
    pil = pipe("a cat", num_inference_steps=4, generator=np.random.default_rng(0))
    assert isinstance(pil, StableDiffusionXLPipelineOutput)
    array = draw(pipe)
    assert array.shape == (1, 32, 32, 3) and array.dtype == np.float32 and 0 <= array.min() < array.max() <= 1
    np.testing.assert_array_equal(np.asarray(pil.images[0]), (array[0] * 255).round().astype(np.uint8))
    for name in ("ms", "pt"):
        np.testing.assert_array_equal(draw(pipe, output_type=name).asnumpy().transpose(0, 2, 3, 1), array)
    decoded = pipe.vae.decode(draw(pipe, output_type="latent") / pipe.vae.config.scaling_factor).sample
    np.testing.assert_array_equal(pipe.image_processor.postprocess(decoded, "np"), array)
    (images,) = pipe("a cat", num_inference_steps=4, generator=np.random.default_rng(0), output_type="np", return_dict=False)
    np.testing.assert_array_equal(images, array)


def test_micro_conditions_change_the_image(pipes):
    for arguments in ({"original_size": (8, 8)}, {"crops_coords_top_left": (16, 0)}, {"target_size": (8, 8)}):
        for kind in (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline):
            assert np.abs(draw(pipes[kind], **arguments) - draw(pipes[kind])).max() > 1e-4
    own = {"original_size": (32, 32), "target_size": (32, 32)}
    np.testing.assert_array_equal(draw(pipes[StableDiffusionXLPipeline], **own), draw(pipes[StableDiffusionXLPipeline]))


def test_latents_go_on_where_another_run_ended(pipe):
    refiner = StableDiffusionXLImg2ImgPipeline.from_pipe(pipe)
    half = draw(pipe, num_inference_steps=10, denoising_end=0.6, output_type="latent")
    assert pipe.num_timesteps == 6
    whole = draw(pipe, num_inference_steps=10)
    # With the same model for both parts, and no noise in between, it is the whole run.
    np.testing.assert_allclose(draw(refiner, num_inference_steps=10, image=half, denoising_start=0.6), whole, atol=1e-4)
    assert refiner.num_timesteps == 4


def test_strength_and_fractions_choose_timesteps():
    scheduler = EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(10)  # 901, 801, ... 1
    for arguments, expected in (((0.3,), [201, 101, 1]), ((1.0,), list(range(901, 0, -100))), ((0.0,), []),
                                ((0.3, 0.5), [401, 301, 201, 101, 1]), ((0.3, 1.0), [201, 101, 1])):  # fmt: skip
        timesteps, steps = get_timesteps(scheduler, 10, *arguments)
        assert timesteps.tolist() == expected and steps == len(expected) and scheduler.begin_index == 10 - len(expected)
    for end, expected in ((0.5, 5), (None, 10), (1.0, 10), (1, 10), (0.01, 0)):
        timesteps, steps = end_early(scheduler, scheduler.timesteps, 10, end)
        assert len(timesteps) == steps == expected
    heun = HeunDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
    heun.set_timesteps(10)
    timesteps, steps = get_timesteps(heun, 10, 0.3, 0.5)
    assert timesteps.tolist() == [501, 401, 401, 301, 301, 201, 201, 101, 101, 1, 1] and steps == 11


def test_the_mask_keeps_the_rest(pipes):
    pipe = pipes[StableDiffusionXLInpaintPipeline]
    clean = 0.5 * random(1, 4, 16, 16)
    latents = draw(pipe, image=clean, output_type="latent").asnumpy()
    painted = np.asarray(MASK)[::2, ::2] > 0
    np.testing.assert_allclose(latents[0][:, ~painted], clean.asnumpy()[0][:, ~painted], atol=1e-6)
    assert np.abs(latents[0] - clean.asnumpy()[0])[:, painted].min(axis=0).mean() > 0.01
    large, hole = PICTURE.resize((64, 48)), MASK.resize((64, 48))
    result = np.asarray(draw(pipe, image=large, mask_image=hole, padding_mask_crop=2, output_type="pil")[0])
    kept = np.asarray(hole) == 0
    assert result.shape == (48, 64, 3)
    np.testing.assert_array_equal(result[kept], np.asarray(large)[kept])
    assert (result[~kept] != np.asarray(large)[~kept]).mean() > 0.9


def test_a_callback_may_switch_guidance_off(pipes):
    for kind in (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline):
        callback = SDXLCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
        cut = draw(pipes[kind], callback_on_step_end=callback)
        assert pipes[kind].guidance_scale == 0.0
        assert cut.shape == (1, 32, 32, 3) and np.abs(cut - draw(pipes[kind])).max() > 1e-4


def test_callbacks(pipes):
    for kind, inputs in ((StableDiffusionXLPipeline, {}), (StableDiffusionXLInpaintPipeline,
                         {"mask": (2, 1, 16, 16), "masked_image_latents": (2, 4, 16, 16)})):  # fmt: skip
        shapes = {"latents": (1, 4, 16, 16), "prompt_embeds": (2, 77, 64), "add_text_embeds": (2, 32), "add_time_ids": (2, 6)} | inputs
        seen = []

        def callback(pipeline, step, timestep, tensors, seen=seen):
            seen.append((step, {name: tensor.shape for name, tensor in tensors.items()}))
            pipeline._interrupt = step == 1
            return {"latents": tensors["latents"] * 0}

        latents = draw(pipes[kind], callback_on_step_end=callback, callback_on_step_end_tensor_inputs=list(shapes), output_type="latent")
        assert seen == [(0, shapes), (1, shapes)] and (latents.asnumpy() == 0).all()


def test_save_and_load(pipes, tmp_path):
    for index, (kind, pipe) in enumerate(pipes.items()):
        pipe.save_pretrained(tmp_path / str(index))
        loaded = DiffusionPipeline.from_pretrained(tmp_path / str(index))
        assert type(loaded) is kind
        loaded.set_progress_bar_config(disable=True)
        np.testing.assert_array_equal(draw(loaded), draw(pipe))
    pipes[kind].is_cosxl_edit = True
    pipes[kind].save_pretrained(tmp_path / "cosxl")
    pipes[kind].is_cosxl_edit = False
    assert DiffusionPipeline.from_pretrained(tmp_path / "cosxl").is_cosxl_edit


def test_from_pipe_shares_the_models(pipe):
    other = StableDiffusionXLImg2ImgPipeline.from_pipe(pipe, requires_aesthetics_score=True)
    assert all(other.components[name] is component for name, component in pipe.components.items())
    back = StableDiffusionXLInpaintPipeline.from_pipe(StableDiffusionXLPipeline.from_pipe(other))
    assert back.config.requires_aesthetics_score and back.unet is pipe.unet


# The VAE


def make_vae(**config) -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **config
    )
    vae.fill_parameters(0)
    return vae


def test_upcast():
    vae = make_vae().half()
    with upcast(vae):
        assert vae.dtype == ms.float32
    assert vae.dtype == ms.float16
    with pytest.raises(KeyError), upcast(vae):
        raise KeyError
    assert vae.dtype == ms.float16
    for other in (make_vae(force_upcast=False).half(), make_vae()):
        dtype = other.dtype
        with upcast(other):
            assert other.dtype == dtype


def test_scaled_latents():
    mean, std = [0.5, -1.0, 2.0, 0.0], [2.0, 0.5, 1.0, 4.0]
    vae, latents = make_vae(latents_mean=mean, latents_std=std, scaling_factor=0.5), random(2, 4, 3, 3)
    scaled = scale_latents(vae, latents)
    expected = (latents.asnumpy() - np.reshape(mean, (4, 1, 1))) / np.reshape(std, (4, 1, 1)) * 0.5
    np.testing.assert_allclose(scaled.asnumpy(), expected, atol=1e-6)
    np.testing.assert_allclose(unscale_latents(vae, scaled).asnumpy(), latents.asnumpy(), atol=1e-6)
    plain = make_vae(latents_mean=mean, scaling_factor=0.25)
    np.testing.assert_array_equal(scale_latents(plain, latents).asnumpy(), latents.asnumpy() * 0.25)
    np.testing.assert_array_equal(unscale_latents(plain, latents).asnumpy(), latents.asnumpy() * 4)
    images = random(2, 3, 8, 8)
    one, *_ = (encode_image(vae, images, generator).asnumpy() for generator in ([np.random.default_rng(seed) for seed in (1, 2)],))
    for index, seed in enumerate((1, 2)):
        single = encode_image(vae, images[index : index + 1], np.random.default_rng(seed)).asnumpy()
        np.testing.assert_allclose(one[index], single[0], atol=1e-5)


@pytest.mark.slow
def test_compilations(parts, tmp_path):
    """One for each model and signature: for another strength, scheduler, size told or second call there is none, for a batch size one."""
    StableDiffusionXLPipeline(**parts).save_pretrained(tmp_path)
    pipe = StableDiffusionXLPipeline.from_pretrained(tmp_path, mindspore_dtype=ms.float16)
    expected = draw(pipe)
    assert pipe.vae.dtype == ms.float16
    pipe.enable_graph_mode()
    first = graph.compilations()
    np.testing.assert_allclose(draw(pipe), expected, atol=1e-2)
    assert graph.compilations() - first == 4, "text encoders, UNet and VAE decoder"
    draw(pipe, original_size=(64, 64), negative_prompt="red", guidance_rescale=0.5)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    draw(pipe, denoising_end=0.6)
    assert graph.compilations() - first == 4
    images = StableDiffusionXLImg2ImgPipeline.from_pipe(pipe)
    images.set_progress_bar_config(disable=True)
    draw(images)
    assert graph.compilations() - first == 5, "the VAE's encoder"
    draw(images, strength=0.9)
    draw(StableDiffusionXLInpaintPipeline.from_pipe(pipe))
    assert graph.compilations() - first == 5
    draw(images, num_images_per_prompt=2)
    assert graph.compilations() - first == 7, "UNet and VAE decoder"


# The watermark


def test_the_watermark_of_the_library():
    """The pixels that PyTorch diffusers' watermarker makes with invisible-watermark (tools/record_watermark.py)."""
    expected = load_file(Path(__file__).parents[1] / "reference" / "watermark.safetensors")
    image = harness.make_input("watermark", ("uniform", (1, 3, 259, 270))) * 2.4 - 1.2
    marked = watermark.StableDiffusionXLWatermarker().apply_watermark(ms.Tensor(image.astype(np.float32))).asnumpy()[0]
    assert np.abs(marked - image[0].clip(-1, 1)).max() > 0.1
    np.testing.assert_allclose(marked[2], expected["blue"], atol=1e-5)
    np.testing.assert_allclose(marked[:2, :, ::16], expected["columns"], atol=1e-5)


def test_watermark(parts, monkeypatch):
    monkeypatch.setattr(watermark, "is_invisible_watermark_available", lambda: False)
    assert StableDiffusionXLPipeline(**parts).watermark is None
    pipe = StableDiffusionXLPipeline(**parts, add_watermarker=True)
    monkeypatch.setattr(watermark, "is_invisible_watermark_available", lambda: True)
    small = random(1, 3, 64, 64)
    assert pipe.watermark.apply_watermark(small) is small
    seen = []
    pipe.watermark.apply_watermark = lambda images: seen.append(images.shape) or images
    draw(pipe)
    draw(pipe, output_type="latent")
    assert seen == [(1, 3, 32, 32)]
