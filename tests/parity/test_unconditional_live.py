"""`DDPMPipeline` and `DDIMPipeline` side by side with PyTorch diffusers: the same images from the same generators."""

import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.utils import logging

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from .. import torch_side  # noqa: E402
from ..cases.unet_2d import CASES  # noqa: E402

diffusers.utils.logging.disable_progress_bar()
logging.disable_progress_bar()

TOLERANCE = 1e-3  # of images in [0, 1]


def pair(folder, pipeline, scheduler, case="ddpm", **config):
    """PyTorch's pipeline, and ours loaded from its folder."""
    theirs = getattr(diffusers, pipeline)(torch_side.build(CASES[case]), getattr(diffusers, scheduler)(**config))
    theirs.save_pretrained(folder)
    both = theirs, ours.DiffusionPipeline.from_pretrained(folder)
    for one in both:
        one.set_progress_bar_config(disable=True)
    assert type(both[1]).__name__ == pipeline
    return both


def generators(seeds):
    """PyTorch's and ours, or lists of them."""
    if isinstance(seeds, int):
        return torch.Generator().manual_seed(seeds), ours.Generator().manual_seed(seeds)
    return tuple(list(row) for row in zip(*map(generators, seeds)))


def agree(theirs, mine, seeds=0, **arguments):
    arguments = {"num_inference_steps": 5, "batch_size": 2, **arguments}
    one, other = generators(seeds)
    want = theirs(generator=one, output_type="np", **arguments).images
    got = mine(generator=other, output_type="np", **arguments).images
    assert got.shape == want.shape and want.std() > 0.05
    assert np.abs(got - want).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("scheduler", "config"),
    [
        ("DDPMScheduler", {}),
        ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False, "beta_schedule": "squaredcos_cap_v2"}),
        ("DDPMScheduler", {"prediction_type": "sample", "thresholding": True}),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
        ("DPMSolverMultistepScheduler", {}),
    ],
)
def test_ddpm(scheduler, config, tmp_path):
    theirs, mine = pair(tmp_path, "DDPMPipeline", scheduler, **config)
    agree(theirs, mine)
    agree(theirs, mine, [3, 4])
    agree(theirs, mine, [3])


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DDPMScheduler"])
def test_ddim(scheduler, tmp_path):
    theirs, mine = pair(tmp_path, "DDIMPipeline", scheduler)
    for options in ({}, {"eta": 1.0}, {"eta": 0.3, "use_clipped_model_output": True}, {"use_clipped_model_output": False}):
        agree(theirs, mine, **options)
    agree(theirs, mine, [3, 4], eta=0.7)
    for pipeline, generator in zip((theirs, mine), generators([3])):
        with pytest.raises(ValueError, match="generators"):
            pipeline(batch_size=2, generator=generator)


def test_grey_images(tmp_path):
    """A model of 1 channel, and a long run."""
    case = {**CASES["no_middle"], "config": {**CASES["no_middle"]["config"], "in_channels": 1, "out_channels": 1}}
    theirs = diffusers.DDPMPipeline(torch_side.build(case), diffusers.DDPMScheduler())
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path)
    mine = ours.DDPMPipeline.from_pretrained(tmp_path)
    mine.set_progress_bar_config(disable=True)
    agree(theirs, mine, num_inference_steps=20)
    one, other = generators(0)
    for theirs_image, image in zip(
        theirs(generator=one, num_inference_steps=5).images, mine(generator=other, num_inference_steps=5).images
    ):
        assert image.mode == theirs_image.mode == "L"
        assert np.abs(np.asarray(image, int) - np.asarray(theirs_image, int)).max() <= 1


def test_our_folder_loads_there(tmp_path):
    theirs, mine = pair(tmp_path / "theirs", "DDPMPipeline", "DDPMScheduler")
    mine.save_pretrained(tmp_path / "ours")
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path / "ours")
    again.set_progress_bar_config(disable=True)
    agree(again, mine)
