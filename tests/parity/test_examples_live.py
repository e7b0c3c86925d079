"""What the training scripts write loads in PyTorch diffusers, and draws the same there."""

import numpy as np
import pytest

import mindone_diffusers as ours

from ..training.test_examples import UNCONDITIONAL, make_inputs, run_example

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")


@pytest.mark.slow
def test_unconditional(tmp_path):
    folder = tmp_path / "trained"
    options = {"max_train_steps": 2, "eval_batch_size": 0, "prediction_type": "v_prediction", "ddpm_beta_schedule": "squaredcos_cap_v2"}
    run_example(UNCONDITIONAL, output_dir=folder, **make_inputs(tmp_path), **options)
    images = []
    for library, generator in ((diffusers, torch.Generator()), (ours, ours.Generator())):
        pipe = library.DDPMPipeline.from_pretrained(folder)
        assert pipe.scheduler.config.prediction_type == "v_prediction"
        pipe.set_progress_bar_config(disable=True)
        images.append(pipe(batch_size=2, num_inference_steps=5, generator=generator.manual_seed(0), output_type="np").images)
    assert np.abs(images[0] - images[1]).max() <= 1e-3
