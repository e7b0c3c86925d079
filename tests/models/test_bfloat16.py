"""A model of every class in bfloat16 on the CPU, where that is the dtype of weights and products."""

import mindspore as ms
import pytest

from mindone_diffusers.backend import native

from .. import ms_side
from ..cases import adapters, autoencoders, controlnets, dpt, text_encoders, transformers, unet, unet_2d
from ..harness import relative_error

pytestmark = pytest.mark.skipif(
    ms.get_context("device_target") != "CPU" or not native.available(), reason="without native kernels, bfloat16 is float32 on the CPU"
)
TABLES = (adapters, autoencoders, controlnets, dpt, text_encoders, transformers, unet, unet_2d)
CASES = {case["class"]: case for table in TABLES for case in reversed(table.CASES.values())}
CASES["hybrid"] = next(case for case in dpt.CASES.values() if case["config"].get("is_hybrid"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_outputs_are_near_float32(case):
    model = ms_side.build(case)
    exact, bytes_before = ms_side.run(model, case), model.get_memory_footprint()
    outputs = ms_side.run(model.to(ms.bfloat16), case)
    assert model.get_memory_footprint() < 0.75 * bytes_before
    errors = [relative_error(outputs[call][field], exact[call][field]) for call in exact for field in exact[call]]
    assert 2e-4 < max(errors) <= 3e-2
