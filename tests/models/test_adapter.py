"""T2IAdapter and MultiAdapter: what the reference cases do not show."""

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import DiffusionPipeline, MultiAdapter, T2IAdapter
from mindone_diffusers.backend import graph

CONFIG = {"channels": [8, 16], "downscale_factor": 2, "num_res_blocks": 1}


def image(seed: int, size: tuple[int, ...] = (2, 3, 12, 8)) -> ms.Tensor:
    return ms.Tensor(np.random.default_rng(seed).random(size, dtype=np.float32))


@pytest.fixture
def adapters():
    models = [T2IAdapter(**CONFIG), T2IAdapter(**CONFIG, adapter_type="full_adapter_xl"), T2IAdapter(**CONFIG)]
    for seed, model in enumerate(models):
        model.fill_parameters(seed)
    return models


def arrays(features: list[ms.Tensor]) -> list[np.ndarray]:
    assert isinstance(features, list)
    return [feature.asnumpy() for feature in features]


@pytest.mark.parametrize("weights", [None, [0.25, 0.5], (1.0, 0.0), [2, -1]], ids=str)
@pytest.mark.parametrize("graph_mode", [False, True])
def test_features_are_weighted_and_added(adapters, weights, graph_mode):
    pair, xs = [adapters[0], adapters[2]], [image(0), image(1)]
    features = [arrays(adapter(x)) for adapter, x in zip(pair, xs)]
    multi = MultiAdapter(pair)
    if graph_mode:
        multi.enable_graph_mode()
    a, b = weights or (0.5, 0.5)
    for total, first, second in zip(arrays(multi(xs, weights)), *features, strict=True):
        np.testing.assert_allclose(total, a * first + b * second, rtol=0, atol=1e-5)


def test_other_weights_do_not_compile_again(adapters):
    multi = MultiAdapter([adapters[0], adapters[2]]).enable_graph_mode()
    before = graph.compilations()
    for weights in (None, [0.1, 0.9], [0.3, 0.7]):
        multi([image(0), image(1)], weights)
    assert graph.compilations() - before == 1


def test_models_keep_their_values_in_a_model_built_around_them(adapters):
    x = image(0)
    before, fresh = arrays(adapters[0](x)), T2IAdapter(**CONFIG)
    multi = MultiAdapter([adapters[0], fresh])
    total = arrays(multi([x, x], [1.0, 1.0]))
    for whole, first, second in zip(total, before, arrays(fresh(x)), strict=True):
        assert np.abs(second).max() > 0
        np.testing.assert_allclose(whole, first + second, rtol=0, atol=1e-6)
    assert arrays(adapters[0](x))[0].tobytes() == before[0].tobytes()


def test_folders(adapters, tmp_path):
    multi, xs = MultiAdapter([adapters[0], adapters[2], T2IAdapter(**CONFIG)]), [image(0), image(1), image(2)]
    expected = arrays(multi(xs, [0.2, 0.3, 0.5]))
    multi.save_pretrained(tmp_path / "adapter", variant="fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "adapter_1", "adapter_2"]
    loaded = MultiAdapter.from_pretrained(tmp_path / "adapter", variant="fp16")
    assert loaded.num_adapter == 3 and all(adapter.config.num_res_blocks == 1 for adapter in loaded.adapters)
    for actual, value in zip(arrays(loaded(xs, [0.2, 0.3, 0.5])), expected, strict=True):
        np.testing.assert_array_equal(actual, value)
    assert MultiAdapter.from_pretrained(str(tmp_path / "adapter"), variant="fp16", mindspore_dtype=ms.float16).dtype == ms.float16
    with pytest.raises(ValueError, match="nowhere is no folder; expected one with a T2IAdapter, .*nowhere_1"):
        MultiAdapter.from_pretrained(str(tmp_path / "nowhere"))


def test_as_a_component_of_a_pipeline(adapters, tmp_path):
    class Adapted(DiffusionPipeline):
        def __init__(self, adapter):
            super().__init__()
            self.register_modules(adapter=adapter)

    pipeline, xs = Adapted(MultiAdapter([adapters[0], adapters[2]])), [image(0), image(1)]
    pipeline.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "adapter_1", "model_index.json"]
    loaded = Adapted.from_pretrained(tmp_path)
    assert loaded.config["adapter"] == ("diffusers", "MultiAdapter")
    for actual, value in zip(arrays(loaded.adapter(xs)), arrays(pipeline.adapter(xs)), strict=True):
        np.testing.assert_array_equal(actual, value)
    assert Adapted.from_pretrained(tmp_path, mindspore_dtype=ms.float16).dtype == ms.float16


def test_factors(adapters):
    assert [(model.downscale_factor, model.total_downscale_factor) for model in adapters[:2]] == [(2, 4), (2, 4)]
    light = T2IAdapter(channels=[8, 16, 16], downscale_factor=4, adapter_type="light_adapter")
    assert (light.downscale_factor, light.total_downscale_factor) == (4, 32)
    xl = T2IAdapter(channels=[8, 8, 8, 8], downscale_factor=16, adapter_type="full_adapter_xl")
    assert xl.total_downscale_factor == 32
    assert MultiAdapter([adapters[0], adapters[2]]).total_downscale_factor == 4


@pytest.mark.parametrize(
    "x, error, message",
    [
        (np.zeros((1, 3, 4, 4), np.float32), TypeError, "x is a ndarray; expected a mindspore.Tensor"),
        (image(0, (1, 1, 4, 4)), ValueError, r"x has the shape \(1, 1, 4, 4\); expected \(batch, 3, height, width\)"),
        (image(0, (3, 4, 4)), ValueError, r"expected \(batch, 3, height, width\)"),
        (image(0, (1, 3, 5, 4)), ValueError, "x is 5 x 4; expected multiples of 2: resize or pad"),
        (image(0).astype(ms.float16), TypeError, "x is Float16, but the model is Float32"),
    ],
)
def test_bad_images(adapters, x, error, message):
    with pytest.raises(error, match=message):
        adapters[0](x)


def test_bad_arguments(adapters):
    with pytest.raises(ValueError, match="Unknown adapter_type 'heavy': expected one of 'full_adapter', "):
        T2IAdapter(adapter_type="heavy")
    for few in ([], adapters[:1]):
        with pytest.raises(ValueError, match=f"Got {len(few)} adapters, expected at least two"):
            MultiAdapter(few)
    with pytest.raises(ValueError, match=r"are \[\(2, 4\), \(2, 8\)\]; expected the same for all"):
        MultiAdapter([adapters[0], T2IAdapter(channels=[8, 8, 8], downscale_factor=2)])
    multi = MultiAdapter([adapters[0], adapters[2]])
    with pytest.raises(ValueError, match="xs is 1 entries; expected a list of 2"):
        multi([image(0)])
    with pytest.raises(ValueError, match="xs is a Tensor; expected a list of 2"):
        multi(image(0))
    with pytest.raises(ValueError, match="adapter_weights is 3 entries; expected a list of 2"):
        multi([image(0), image(1)], [1, 2, 3])
    with pytest.raises(ValueError, match="adapter_weights is a float; expected a list of 2"):
        multi([image(0), image(1)], 0.5)
