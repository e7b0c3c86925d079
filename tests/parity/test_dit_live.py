"""DiT beside PyTorch diffusers: files, errors, and the pipeline's images."""

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.core.errors import ConfigError
from mindone_diffusers.utils import logging

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from .. import harness, torch_side  # noqa: E402

diffusers.utils.logging.disable_progress_bar()
logging.disable_progress_bar()

LABELS = {"0": "tench, Tinca tinca", "1": "goldfish", "7": "cock"}


def transformer(**config):
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "out_channels": 8}
    return torch_side.build({"class": "DiTTransformer2DModel", "config": {**sizes, **config}})


def test_files_pass_both_ways(tmp_path):
    theirs = transformer()
    theirs.save_pretrained(tmp_path / "theirs")
    mine = ours.DiTTransformer2DModel.from_pretrained(tmp_path / "theirs")
    mine.save_pretrained(tmp_path / "ours")
    again = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "ours")
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_default_sizes():
    with torch.device("meta"):
        theirs = {name: tuple(value.shape) for name, value in diffusers.DiTTransformer2DModel().named_parameters()}
    assert {name: value.shape for name, value in ours.DiTTransformer2DModel()._unfilled_parameters().items()} == theirs


def test_errors():
    for config, error in ({"norm_type": "layer_norm"}, NotImplementedError), ({"num_embeds_ada_norm": None}, ValueError):
        for library in (diffusers, ours):
            with pytest.raises(error):
                library.DiTTransformer2DModel(**config)
    mine = ours.DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8)
    sample, classes = ms.Tensor(harness.make_input("sample", (1, 4, 8, 8))), ms.Tensor(np.array([1], np.int32))
    with pytest.raises(ValueError, match="needs a timestep and class_labels"):
        mine(sample, 3)
    with pytest.raises(ValueError, match="8 x 6; expected squares"):
        mine(sample[..., :6], 3, classes)
    with pytest.raises(ValueError, match="expected multiples of 2"):
        mine(sample[..., :7, :7], 3, classes)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dit")
    vae = torch_side.build({"class": "AutoencoderKL", "config": {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 4}})
    theirs = diffusers.DiTPipeline(transformer(), vae, diffusers.DDIMScheduler(), LABELS)
    theirs.save_pretrained(folder)
    return theirs, ours.DiffusionPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("scheduler", "arguments"),
    [
        ("DDIMScheduler", {}),
        ("DDIMScheduler", {"guidance_scale": 1.0, "class_labels": [5]}),
        ("DPMSolverMultistepScheduler", {"guidance_scale": 2.5, "num_inference_steps": 6}),
    ],
)
def test_pipeline(pair, scheduler, arguments):
    arguments = {"class_labels": [1, 999], "num_inference_steps": 4, **arguments}
    images = []
    for library, pipe in zip((diffusers, ours), pair):
        pipe.scheduler = getattr(library, scheduler)()
        generator = torch.Generator().manual_seed(3) if library is diffusers else ours.Generator().manual_seed(3)
        images.append(pipe(**arguments, generator=generator, output_type="np").images)
    assert images[0].std() > 0.05 and np.abs(images[0] - images[1]).max() <= 1e-3


def test_labels(pair):
    theirs, mine = pair
    mine = ours.DiTPipeline(mine.transformer, mine.vae, mine.scheduler, LABELS)
    assert mine.labels == theirs.labels
    assert mine.get_label_ids(["cock", "Tinca tinca"]) == theirs.get_label_ids(["cock", "Tinca tinca"]) == [7, 0]
    assert mine.get_label_ids("goldfish") == [1]
    with pytest.raises(ConfigError, match="no classes .*lark.*; those there are: Tinca tinca, cock, goldfish, tench"):
        mine.get_label_ids(["lark"])
