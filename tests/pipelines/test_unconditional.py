"""`DDPMPipeline` and `DDIMPipeline` without torch: arguments and their errors, random numbers, files.

What they draw is compared with PyTorch diffusers in `tests/parity/test_unconditional_live.py`.
"""

import logging

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    Generator,
    PNDMScheduler,
    UNet2DModel,
)
from mindone_diffusers.backend import graph
from mindone_diffusers.core.errors import ConfigError


@pytest.fixture(scope="module")
def unet():
    model = UNet2DModel(
        sample_size=(8, 4), block_out_channels=(16, 16), norm_num_groups=4, layers_per_block=1, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, add_attention=False,
    )  # fmt: skip
    model.fill_parameters(0)
    return model


@pytest.fixture(params=[DDPMPipeline, DDIMPipeline])
def pipe(request, unet):
    return quiet(request.param(unet, DDPMScheduler()))


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipe, seed=0, **arguments):
    return pipe(**{"num_inference_steps": 3, "output_type": "np", "generator": np.random.default_rng(seed), **arguments}).images


def test_output_types(pipe):
    array = draw(pipe, batch_size=2)
    assert array.shape == (2, 8, 4, 3) and array.min() >= 0 and array.max() <= 1
    for output_type in ("ms", "pt"):
        tensor = draw(pipe, batch_size=2, output_type=output_type)
        assert isinstance(tensor, ms.Tensor)
        assert (tensor.asnumpy().transpose(0, 2, 3, 1) == array).all()
    images = draw(pipe, batch_size=2, output_type="pil")
    assert [image.size for image in images] == [(4, 8)] * 2
    assert (np.stack([np.asarray(image) for image in images]) == np.round(array * 255)).all()
    raw = draw(pipe, batch_size=2, output_type="latent").asnumpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose((raw / 2 + 0.5).clip(0, 1), array, atol=1e-6)
    assert isinstance(pipe(num_inference_steps=1, return_dict=False), tuple)


def test_a_list_of_generators_draws_each_image_alone(pipe):
    options = {"eta": 1.0} if isinstance(pipe, DDIMPipeline) else {}
    both = draw(pipe, batch_size=2, generator=[Generator().manual_seed(seed) for seed in (1, 2)], **options)
    for image, seed in zip(both, (1, 2)):
        np.testing.assert_allclose(image, draw(pipe, generator=Generator().manual_seed(seed), **options)[0], atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_eta_and_the_clipped_output_matter(unet):
    pipe = quiet(DDIMPipeline(unet, DDIMScheduler()))
    plain = draw(pipe)
    assert (draw(pipe) == plain).all()
    assert np.abs(draw(pipe, eta=0.5) - plain).max() > 1e-3
    assert np.abs(draw(pipe, use_clipped_model_output=True) - plain).max() > 1e-3
    assert (draw(pipe, use_clipped_model_output=False) == plain).all()


def test_an_eta_out_of_range_is_warned_of(unet, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mindone_diffusers"), "propagate", True)
    draw(quiet(DDIMPipeline(unet, DDIMScheduler())), eta=1.5)
    assert "eta is 1.5" in caplog.text


def test_any_scheduler_becomes_ddim(unet):
    pipe = DDIMPipeline(unet, PNDMScheduler(beta_start=0.002))
    assert type(pipe.scheduler) is DDIMScheduler and pipe.scheduler.config.beta_start == 0.002


def test_a_scheduler_that_draws_nothing(unet):
    """PyTorch diffusers passes it the generator, which is a TypeError."""
    assert np.isfinite(draw(quiet(DDPMPipeline(unet, PNDMScheduler(skip_prk_steps=True))))).all()


def test_errors(pipe, unet):
    with pytest.raises(ConfigError, match="output_type is 'jpg'"):
        draw(pipe, output_type="jpg")
    with pytest.raises(ConfigError, match="num_inference_steps is 0"):
        draw(pipe, num_inference_steps=0)
    with pytest.raises(ValueError, match="2 generators"):
        draw(pipe, batch_size=3, generator=[np.random.default_rng(0)] * 2)
    with pytest.raises(ConfigError, match="no sample_size"):
        draw(type(pipe)(UNet2DModel.from_config(unet.config, sample_size=None), DDPMScheduler()))


def test_files(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is type(pipe) and type(loaded.scheduler) is type(pipe.scheduler)
    assert (draw(quiet(loaded)) == draw(pipe)).all()


def test_one_compilation(pipe):
    eager = draw(pipe)
    pipe.enable_graph_mode()
    before = graph.compilations()
    try:
        for _ in range(2):
            np.testing.assert_allclose(draw(pipe), eager, atol=1e-5)
    finally:
        pipe.disable_graph_mode()
    assert graph.compilations() == before + 1
