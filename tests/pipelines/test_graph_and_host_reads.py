"""What makes the denoising loop fast: one compilation, and nothing in it that waits for the device."""

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from mindone_diffusers.backend import graph
from tests.ms_side import count_host_reads
from tests.tiny_checkpoint import write_tiny_checkpoint

SCHEDULERS = (
    DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DPMSolverMultistepScheduler,
    LMSDiscreteScheduler, HeunDiscreteScheduler,
)  # fmt: skip


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    pipe = StableDiffusionPipeline.from_pretrained(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny-sd")))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, steps=50, **arguments):
    generator = np.random.default_rng(0)
    return pipe("a red circle", num_inference_steps=steps, generator=generator, output_type="np", **arguments).images


@pytest.mark.slow
def test_one_unet_compilation_over_steps_calls_schedulers_and_guidance(pipe):
    eager = draw(pipe, 5)
    pipe.enable_graph_mode()
    try:
        first = graph.compilations()
        assert np.abs(draw(pipe, 5) - eager).max() < 1e-4
        compiled = graph.compilations() - first
        assert compiled == 3, "text encoder, UNet and VAE decoder, once each"
        draw(pipe, 50)
        draw(pipe, 50, guidance_scale=3.0, guidance_rescale=0.5)
        original = pipe.scheduler
        for scheduler in SCHEDULERS:
            pipe.scheduler = scheduler.from_config(original.config)
            draw(pipe, 6)
        pipe.scheduler = original
        assert graph.compilations() - first == compiled
        draw(pipe, 2, num_images_per_prompt=2)
        assert graph.compilations() - first == compiled + 2, "a new batch size: the UNet and the decoder once more"
    finally:
        pipe.disable_graph_mode()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_no_host_read_inside_the_loop(pipe, scheduler, monkeypatch):
    monkeypatch.setattr("mindone_diffusers.schedulers.arrays.tensors_are_arrays", lambda: False)  # as on an NPU
    inside = []
    reads = count_host_reads(monkeypatch, lambda: inside)
    original = pipe.scheduler
    pipe.scheduler = scheduler.from_config(original.config)

    def callback(pipeline, step, timestep, tensors):
        inside.append(step) if step == 0 else None
        if step == pipeline.num_timesteps - 1:
            inside.clear()
        return tensors

    try:
        draw(pipe, 4, callback_on_step_end=callback)
        assert reads == []
        inside.append(0)
        float(ms.Tensor(1.0))
        assert reads, "the count itself works"
    finally:
        pipe.scheduler = original
