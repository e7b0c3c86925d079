"""The callbacks that come with the library, on a pipeline that only has what they touch."""

import numpy as np
import pytest

from mindone_diffusers.callbacks import (
    IPAdapterScaleCutoffCallback,
    MultiPipelineCallbacks,
    SD3CFGCutoffCallback,
    SDCFGCutoffCallback,
    SDXLCFGCutoffCallback,
    SDXLControlnetCFGCutoffCallback,
)

NAMES = {
    SDCFGCutoffCallback: ["prompt_embeds"],
    SDXLCFGCutoffCallback: ["prompt_embeds", "add_text_embeds", "add_time_ids"],
    SDXLControlnetCFGCutoffCallback: ["prompt_embeds", "add_text_embeds", "add_time_ids", "image"],
    SD3CFGCutoffCallback: ["prompt_embeds", "pooled_prompt_embeds"],
}


class Pipeline:
    num_timesteps = 10

    def __init__(self):
        self._guidance_scale, self.scales = 7.5, []

    def set_ip_adapter_scale(self, scale):
        self.scales.append(scale)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(
    "options, step",
    [({"cutoff_step_ratio": 0.45}, 4), ({"cutoff_step_ratio": None, "cutoff_step_index": 7}, 7), ({"cutoff_step_ratio": 0.0}, 0)],
)
def test_guidance_is_cut_off(kind, options, step):
    callback, pipeline = kind(**options), Pipeline()
    assert callback.tensor_inputs == NAMES[kind]
    tensors = {name: np.arange(6).reshape(2, 3) for name in [*NAMES[kind], "latents"]}
    for index in range(step):
        assert callback(pipeline, index, 999, tensors) is tensors and tensors["prompt_embeds"].shape == (2, 3)
    assert pipeline._guidance_scale == 7.5
    result = callback(pipeline, step, 999, tensors)
    assert pipeline._guidance_scale == 0.0
    for name, value in result.items():
        np.testing.assert_array_equal(value, [[0, 1, 2], [3, 4, 5]] if name == "latents" else [[3, 4, 5]])
    callback(pipeline, step + 1, 998, result)
    assert result["prompt_embeds"].shape == (1, 3)


def test_the_default_never_cuts_off():
    callback, pipeline = SDCFGCutoffCallback(), Pipeline()
    for index in range(pipeline.num_timesteps):
        callback(pipeline, index, 0, {"prompt_embeds": np.zeros((2, 3))})
    assert pipeline._guidance_scale == 7.5


def test_ip_adapters_are_cut_off():
    callback, pipeline = IPAdapterScaleCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=3), Pipeline()
    both = MultiPipelineCallbacks([callback, SDCFGCutoffCallback(cutoff_step_ratio=0.5)])
    assert callback.tensor_inputs == [] and both.tensor_inputs == ["prompt_embeds"]
    tensors, seen = {"prompt_embeds": np.zeros((2, 3))}, []
    for index in range(10):
        tensors = both(pipeline, index, 0, tensors)
        seen.append((list(pipeline.scales), pipeline._guidance_scale))
    assert seen == [([], 7.5)] * 3 + [([0.0], 7.5)] * 2 + [([0.0], 0.0)] * 5
