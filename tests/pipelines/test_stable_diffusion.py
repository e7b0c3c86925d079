"""`StableDiffusionPipeline` without torch: arguments and their errors, callbacks, random numbers, warnings about old configs.

What it draws is compared with PyTorch diffusers in `tests/parity/test_stable_diffusion_live.py`.
"""

import logging

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    CLIPTextModel,
    DDIMScheduler,
    DiffusionPipeline,
    Generator,
    HeunDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from mindone_diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback
from mindone_diffusers.core.errors import ConfigError, UnsupportedError
from mindone_diffusers.pipelines.guidance import guidance_scale_embedding, rescale_noise_cfg
from mindone_diffusers.pipelines.schedule import retrieve_timesteps
from mindone_diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from tests.tiny_checkpoint import make_tokenizer


def make_pipeline(tokenizer, **changed) -> StableDiffusionPipeline:
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    text_encoder = CLIPTextModel(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    for seed, model in enumerate((unet, vae, text_encoder)):
        model.fill_parameters(seed)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    components = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "unet": unet, "scheduler": scheduler}
    optional = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline(**components | optional | changed)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def shared(tokenizer):
    return make_pipeline(tokenizer)


@pytest.fixture
def pipe(shared):
    """The module's pipeline, with its scheduler and VAE as they were."""
    scheduler, vae = shared.scheduler, shared.vae
    yield shared
    shared.scheduler, shared.vae = scheduler, vae


@pytest.fixture
def log(caplog):
    logger = logging.getLogger("mindone_diffusers")
    logger.propagate = True
    yield caplog
    logger.propagate = False


def draw(pipe, *args, seed: int = 0, **arguments):
    arguments = {"num_inference_steps": 2, "output_type": "np", "generator": np.random.default_rng(seed)} | arguments
    return pipe(*(args or ("a cat",)), **arguments)


EMBEDS = ms.Tensor(np.random.default_rng(0).standard_normal((1, 77, 32)).astype(np.float32))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"height": 20, "width": 32}, "20 and 32"),
        ({"prompt": None}, "neither `prompt` nor"),
        ({"prompt": 3}, "a int"),
        ({"prompt_embeds": EMBEDS}, "both"),
        ({"negative_prompt": "a", "negative_prompt_embeds": EMBEDS}, "both"),
        ({"prompt": None, "prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[:, :3]}, r"\(1, 77, 32\).*\(1, 3, 32\)"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"\['noise'\].*'latents'"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "1 negative prompts for 2"),
        ({"prompt": ["a", "b"], "generator": [np.random.default_rng()] * 3}, "3 generators for a batch of 2"),
        ({"output_type": "jpeg"}, "'jpeg'.*'pil'"),
        ({"timesteps": [9], "sigmas": [1.0]}, "both given"),
        ({"timesteps": [9, 5]}, "DDIMScheduler.*timesteps"),
        ({"sigmas": [1.0]}, "DDIMScheduler.*sigmas"),
        ({"clip_skip": 3}, "2 layers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments(pipe, arguments, message):
    with pytest.raises(ConfigError, match=message):
        pipe(**{"prompt": "a cat", "num_inference_steps": 2} | arguments)


def test_arguments_of_other_kinds(pipe):
    with pytest.raises(TypeError, match="negative_prompt is a str"):
        draw(pipe, ["a", "b"], negative_prompt="c")
    with pytest.raises(TypeError, match="steps"):
        pipe("a cat", steps=3)
    for arguments in ({"ip_adapter_image": EMBEDS}, {"ip_adapter_image_embeds": [EMBEDS]}, {"cross_attention_kwargs": {"scale": 0.5}}):
        with pytest.raises(UnsupportedError):
            draw(pipe, **arguments)


def test_output_types(pipe):
    pil = draw(pipe, output_type="pil")
    assert isinstance(pil, StableDiffusionPipelineOutput) and pil.nsfw_content_detected is None
    array = draw(pipe).images
    assert array.shape == (1, 32, 32, 3) and array.dtype == np.float32 and 0 <= array.min() < array.max() <= 1
    np.testing.assert_array_equal(np.asarray(pil.images[0]), (array[0] * 255).round().astype(np.uint8))
    for name in ("ms", "pt"):
        np.testing.assert_array_equal(draw(pipe, output_type=name).images.asnumpy().transpose(0, 2, 3, 1), array)
    latents = draw(pipe, output_type="latent").images
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    np.testing.assert_array_equal(pipe.image_processor.postprocess(decoded, "np"), array)
    images, unsafe = draw(pipe, return_dict=False)
    np.testing.assert_array_equal(images, array)
    assert unsafe is None


def test_images_do_not_depend_on_their_batch(pipe):
    seeds = [np.random.default_rng(seed) for seed in (1, 2, 3, 4)]
    batch = draw(pipe, ["a cat", "two dogs"], num_images_per_prompt=2, negative_prompt=["", "red"], generator=seeds).images
    for index, (prompt, negative) in enumerate((("a cat", ""), ("a cat", ""), ("two dogs", "red"), ("two dogs", "red"))):
        single = draw(pipe, prompt, seed=index + 1, negative_prompt=negative).images[0]
        np.testing.assert_allclose(batch[index], single, atol=1e-4)


def test_same_seed_same_image(pipe):
    for kind in (np.random.default_rng, lambda seed: Generator().manual_seed(seed)):
        first, second, other = (draw(pipe, generator=kind(seed)).images for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, second)
        assert np.abs(first - other).max() > 1e-3
    latents = np.random.default_rng(5).standard_normal((1, 4, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(draw(pipe, latents=latents).images, draw(pipe, seed=5).images)
    np.testing.assert_array_equal(draw(pipe, latents=ms.Tensor(latents)).images, draw(pipe, seed=5).images)


def test_embeds_are_what_the_prompt_gives(pipe):
    prompt, negative = pipe.encode_prompt("a cat", None, 1, True, "blurry")
    expected = draw(pipe, negative_prompt="blurry").images
    np.testing.assert_array_equal(draw(pipe, None, prompt_embeds=prompt, negative_prompt_embeds=negative).images, expected)
    text_encoder = pipe.text_encoder
    pipe.text_encoder = None
    try:
        np.testing.assert_array_equal(draw(pipe, None, prompt_embeds=prompt, negative_prompt_embeds=negative).images, expected)
        with pytest.raises(ConfigError, match="no text encoder"):
            draw(pipe)
    finally:
        pipe.text_encoder = text_encoder


def test_guidance(pipe):
    assert np.abs(draw(pipe, guidance_scale=1.0).images - draw(pipe).images).max() > 1e-3
    np.testing.assert_array_equal(draw(pipe, guidance_scale=1.0).images, draw(pipe, guidance_scale=0.0, negative_prompt="x").images)
    # With one prompt for both sides guidance changes nothing.
    same = draw(pipe, negative_prompt="a cat").images
    np.testing.assert_allclose(same, draw(pipe, guidance_scale=1.0).images, atol=1e-4)


def test_clip_skip_and_truncation(pipe, log):
    assert np.abs(draw(pipe, clip_skip=1).images - draw(pipe).images).max() > 1e-4
    np.testing.assert_allclose(draw(pipe, clip_skip=0).images, draw(pipe).images, atol=1e-5)
    assert log.text == ""
    np.testing.assert_array_equal(draw(pipe, "a" * 75 + " tail").images, draw(pipe, "a" * 75).images)
    assert "tail" in log.text.replace(" ", "")


def test_callbacks(pipe):
    seen = []

    def callback(pipeline, step, timestep, tensors):
        assert pipeline is pipe
        seen.append((step, timestep, {name: tensor.shape for name, tensor in tensors.items()}))
        return {"latents": tensors["latents"] * 0, "other": 1} if step == 1 else {}

    names = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    output = draw(pipe, output_type="latent", callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
    assert (output.images.asnumpy() == 0).all()
    shapes = {"latents": (1, 4, 16, 16), "prompt_embeds": (2, 77, 32), "negative_prompt_embeds": (1, 77, 32)}
    assert seen == [(0, 501, shapes), (1, 1, shapes)]


def test_interrupt(pipe):
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    steps = []

    def callback(pipeline, step, timestep, tensors):
        steps.append(step)
        pipeline._interrupt = step == 2
        return tensors

    draw(pipe, num_inference_steps=5, callback_on_step_end=callback)
    assert steps == [0, 1, 2] and pipe.num_timesteps == 9
    draw(pipe)
    assert not pipe.interrupt


def test_official_callbacks(pipe):
    class Halve(PipelineCallback):
        tensor_inputs = ["latents"]

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            return {name: value / 2 for name, value in callback_kwargs.items()}

    def by_hand(pipeline, step, timestep, tensors):
        return {"latents": tensors["latents"] / 4}

    both = MultiPipelineCallbacks([Halve(), Halve()])
    expected = draw(pipe, callback_on_step_end=by_hand).images
    np.testing.assert_array_equal(draw(pipe, callback_on_step_end=both).images, expected)
    cut = draw(pipe, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)).images
    assert pipe.guidance_scale == 0.0 and np.abs(cut - draw(pipe).images).max() > 1e-4
    for arguments in ({"cutoff_step_ratio": None}, {"cutoff_step_index": 1}, {"cutoff_step_ratio": 2.0}, {"cutoff_step_ratio": 1}):
        with pytest.raises(ConfigError):
            PipelineCallback(**arguments)


def test_an_exchanged_vae_sets_the_scale(pipe):
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8), num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )  # fmt: skip
    tiny.fill_parameters(0)
    assert pipe.vae_scale_factor == pipe.image_processor.config.vae_scale_factor == 2
    pipe.vae = tiny
    assert pipe.vae_scale_factor == pipe.image_processor.config.vae_scale_factor == 4
    assert draw(pipe).images.shape == (1, 64, 64, 3)
    assert draw(pipe, height=40, width=24).images.shape == (1, 40, 24, 3)


def test_vae_switches(pipe):
    expected = draw(pipe, num_images_per_prompt=2).images
    pipe.enable_vae_slicing()
    np.testing.assert_allclose(draw(pipe, num_images_per_prompt=2).images, expected, atol=1e-5)
    pipe.disable_vae_slicing()
    pipe.enable_vae_tiling()
    assert draw(pipe).images.shape == (1, 32, 32, 3)
    pipe.disable_vae_tiling()


def test_attention_switches(pipe):
    expected = draw(pipe).images
    for switch, *arguments in (
        (pipe.enable_attention_slicing,), (pipe.enable_xformers_memory_efficient_attention,), (pipe.enable_attention_slicing, "max"),
        (pipe.disable_attention_slicing,), (pipe.disable_xformers_memory_efficient_attention,),
    ):  # fmt: skip
        switch(*arguments)
        np.testing.assert_allclose(draw(pipe).images, expected, atol=1e-4)
    with pytest.raises(UnsupportedError, match="attention_op"):
        pipe.enable_xformers_memory_efficient_attention(attention_op="cutlass")


def test_fused_projections(tokenizer, log):
    pipe = make_pipeline(tokenizer)
    expected = draw(pipe).images
    pipe.fuse_qkv_projections()
    assert (pipe.fusing_unet, pipe.fusing_vae) == (True, True)
    for model in (pipe.unet, pipe.vae):
        assert {type(processor).__name__ for processor in model.attn_processors.values()} == {"FusedAttnProcessor2_0"}
    np.testing.assert_allclose(draw(pipe).images, expected, atol=1e-5)
    pipe.unfuse_qkv_projections(vae=False)
    assert (pipe.fusing_unet, pipe.fusing_vae) == (False, True)
    pipe.unfuse_qkv_projections(unet=False)
    np.testing.assert_array_equal(draw(pipe).images, expected)
    pipe.unfuse_qkv_projections()
    assert ["UNet's" in log.messages[-2], "VAE's" in log.messages[-1]] == [True, True]
    pipe.vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    with pytest.raises(ValueError, match="AutoencoderTiny: pass vae=False"):
        pipe.fuse_qkv_projections()
    pipe.fuse_qkv_projections(vae=False)


def test_float16(tokenizer):
    half = make_pipeline(tokenizer).to(ms.float16)
    images = draw(half, output_type="ms").images
    assert images.dtype == ms.float16
    expected = draw(make_pipeline(tokenizer), output_type="ms").images
    np.testing.assert_allclose(images.astype(ms.float32).asnumpy(), expected.asnumpy(), atol=2e-2)


def test_save_and_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is StableDiffusionPipeline and loaded.config.requires_safety_checker is False
    loaded.set_progress_bar_config(disable=True)
    np.testing.assert_array_equal(draw(loaded).images, draw(pipe).images)
    assert {path.name for path in tmp_path.iterdir()} == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}


def test_early_configs_are_corrected(tokenizer, pipe):
    unet = UNet2DConditionModel.from_config(dict(pipe.unet.config) | {"_diffusers_version": "0.8.1"})
    with pytest.warns(FutureWarning) as warned:
        old = make_pipeline(tokenizer, scheduler=DDIMScheduler(), unet=unet)
    assert [str(warning.message).split(" has ")[1].split(",")[0] for warning in warned if "outdated" in str(warning.message)] == [
        "steps_offset=0", "clip_sample=True", "sample_size=16",
    ]  # fmt: skip
    assert old.scheduler.config.steps_offset == 1 and old.scheduler.config.clip_sample is False and old.unet.config.sample_size == 64


def test_the_safety_checker_is_asked_for(tokenizer, log):
    make_pipeline(tokenizer)
    assert "safety checker" not in log.text
    make_pipeline(tokenizer, requires_safety_checker=True)
    assert "safety checker" in log.text


def test_retrieve_timesteps():
    timesteps, steps = retrieve_timesteps(HeunDiscreteScheduler(), 5)
    assert isinstance(timesteps, np.ndarray) and len(timesteps) == 9 and steps == 5
    timesteps, steps = retrieve_timesteps(HeunDiscreteScheduler(), timesteps=[900, 500, 100])
    assert len(timesteps) == steps == 5


def test_rescaled_guidance_has_the_promised_deviation():
    rng = np.random.default_rng(0)
    guided, plain = (ms.Tensor((rng.standard_normal((2, 4, 8, 8)) * scale + 1).astype(np.float32)) for scale in (3.0, 0.5))
    full = rescale_noise_cfg(guided, plain, 1.0).asnumpy()
    np.testing.assert_allclose(full.std(axis=(1, 2, 3), ddof=1), plain.asnumpy().std(axis=(1, 2, 3), ddof=1), rtol=1e-5)
    half = rescale_noise_cfg(guided, plain, 0.5).asnumpy()
    np.testing.assert_allclose(half, (full + guided.asnumpy()) / 2, rtol=1e-5)


def test_guidance_scale_embedding():
    embedding = guidance_scale_embedding([0.0, 6.5], 9).asnumpy()
    assert embedding.shape == (2, 9)
    np.testing.assert_allclose(embedding[0], [0] * 4 + [1] * 4 + [0])
    np.testing.assert_allclose(embedding[1, 3], np.sin(6500 / 10000), rtol=1e-4)
