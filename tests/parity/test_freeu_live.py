"""FreeU side by side with PyTorch diffusers: the filter, the UNet and the pipeline."""

import mindspore as ms
import numpy as np
import pytest

import mindone_diffusers as ours
from mindone_diffusers.models.freeu import fourier_filter
from tests import harness

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers.utils.torch_utils import fourier_filter as upstream_filter  # noqa: E402

from .test_stable_diffusion_live import CHECKPOINTS, PROMPTS, assert_same, call, load_pair, seeded, with_scheduler  # noqa: E402

SD1 = {"s1": 0.9, "s2": 0.2, "b1": 1.5, "b2": 1.6}


@pytest.mark.parametrize("size", [(8, 8), (16, 4), (12, 20), (7, 5), (9, 16), (2, 3), (1, 6), (1, 1), (64, 96)], ids=str)
@pytest.mark.parametrize(("threshold", "scale"), [(1, 0.2), (1, 1.4), (1, 0.0), (2, 0.5)])
def test_filter(size, threshold, scale):
    if threshold > min(size) // 2 and threshold > 1:
        pytest.skip("upstream's slice wraps around")
    x = harness.make_input("x", (2, 3, *size))
    theirs = upstream_filter(torch.from_numpy(x), threshold, scale).numpy()
    assert np.abs(fourier_filter(ms.Tensor(x), threshold, scale).asnumpy() - theirs).max() <= 1e-5


def test_filter_in_float16():
    x = harness.make_input("x", (2, 3, 16, 12)).astype(np.float16)
    theirs, mine = upstream_filter(torch.from_numpy(x), 1, 0.2).numpy(), fourier_filter(ms.Tensor(x), 1, 0.2)
    assert mine.dtype == ms.float16 and np.abs(mine.asnumpy() - theirs).max() <= 2e-3


@pytest.mark.parametrize("name", ["sd1", "sd2"])
@pytest.mark.parametrize("scales", [SD1, {"s1": 0.6, "s2": 0.4, "b1": 1.1, "b2": 1.2}, SD1 | {"s2": 0.0}], ids=str)
def test_unet(name, scales):
    config = CHECKPOINTS[name]["unet"]
    theirs = seeded(diffusers.UNet2DConditionModel(**config))
    mine = ours.UNet2DConditionModel(**config)
    mine.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    inputs = harness.make_input("sample", (2, 4, 8, 12)), 30, harness.make_input("context", (2, 7, config["cross_attention_dim"]))
    outputs = []
    for switch in ("disable_freeu", "enable_freeu", "disable_freeu"):
        for model in (theirs, mine):
            getattr(model, switch)(**(scales if switch == "enable_freeu" else {}))
        with torch.no_grad():
            expected = theirs(*(torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in inputs)).sample.numpy()
        outputs.append(mine(*(ms.Tensor(x) if isinstance(x, np.ndarray) else x for x in inputs)).sample.asnumpy())
        assert harness.relative_error(outputs[-1], expected) <= 1e-4
    assert np.array_equal(outputs[0], outputs[2])
    assert np.array_equal(outputs[0], outputs[1]) == (0.0 in scales.values())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return load_pair("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pipeline(pair, graph):
    with_scheduler(pair, "DDIMScheduler")
    if graph:
        pair[1].enable_graph_mode()
    try:
        before = call(pair[1]).images
        for pipe in pair:
            pipe.enable_freeu(**SD1)
        changed = assert_same(pair, prompt=PROMPTS if not graph else PROMPTS[0]).images
        assert np.abs(changed[0] - before[0]).max() > 1e-2
        for pipe in pair:
            pipe.disable_freeu()
        assert np.array_equal(assert_same(pair).images, before)
    finally:
        pair[1].disable_graph_mode()
