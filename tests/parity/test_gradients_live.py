"""Gradients of every parameter of whole models against PyTorch's: the mean squared error against a fixed target, eagerly and jitted."""

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from mindone_diffusers import nn  # noqa: E402
from mindone_diffusers.nn import functional as F  # noqa: E402

from .. import harness, ms_side, torch_side  # noqa: E402
from ..cases import adapters, autoencoders, text_encoders, unet, unet_2d  # noqa: E402

TOLERANCE = 2e-5  # of a gradient's largest value
# Some gradients are zero but for rounding (a key's bias changes no softmax): this share of the largest gradient of all is no difference.
NOISE = 1e-7


class Squared(nn.Module):
    """Mean squared error of a model's first output."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def construct(self, target, *inputs):
        error = self.model(*inputs, return_dict=False)[0] - target
        return (error * error).mean()


class LastFeature(Squared):
    """Of a T2I-Adapter's coarsest features."""

    def construct(self, target, x):
        error = self.model(x)[-1] - target
        return (error * error).mean()


class Reconstruction(Squared):
    """Of an autoencoder's images, from a draw of the latents."""

    def construct(self, target, images, noise):
        mean, logvar = F.chunk(self.model._encode(images)[0], 2, 1)
        error = self.model._decode(mean + (0.5 * logvar).exp() * noise)[0] - target
        return (error * error).mean()


def torch_reconstruction(model, images, noise):
    mean, logvar = model.encode(images).latent_dist.parameters.chunk(2, 1)
    return model.decode(mean + (0.5 * logvar).exp() * noise).sample


_ADAPTER = adapters.CASES["full_odd_sizes"]
_ASYM = {**autoencoders.CASES["asym_four_blocks"], "inputs": {"sample": (2, 3, 32, 16), "mask": ("uniform", (1, 1, 32, 16))}}
_KL = {**autoencoders.CASES["kl"], "inputs": {"sample": (2, 3, 16, 16), "noise": (2, 4, 8, 8)}}
_TEXT = {**text_encoders.CASES["clip_text"], "inputs": {"input_ids": text_encoders.CASES["clip_text"]["inputs"]["input_ids"]}}
_TIMES = {"timestep": ("array", [601, 7])}


def _with(case, **inputs):
    return {**case, "inputs": {**case["inputs"], **inputs}}


CASES = {
    "unet_2d": (_with(unet_2d.CASES["padding_at_the_end"], **_TIMES), (2, 3, 8, 8)),
    "unet_2d_ncsnpp": (unet_2d.CASES["ncsnpp"], (2, 3, 8, 8)),
    "unet_2d_consistency": (_with(unet_2d.CASES["consistency"], **_TIMES), (2, 3, 8, 8)),
    "unet_2d_condition": (_with(unet.CASES["padding_at_the_end"], **_TIMES), (2, 4, 8, 8)),
    "adapter": (_ADAPTER, (1, 16, 3, 2)),
    "autoencoder_asymmetric": (_ASYM, (2, 3, 32, 16)),
    "autoencoder_kl": (_KL, (2, 3, 16, 16)),
    "clip_text": (_TEXT, (3, 8, 32)),
}


def theirs(case, target):
    model = torch_side.build(case)
    inputs = list(harness.map_arrays(torch.from_numpy, harness.make_inputs(case)).values())
    output = torch_reconstruction(model, *inputs) if case is _KL else model(*inputs)[-1 if case is _ADAPTER else 0]
    value = ((output - torch.from_numpy(target)) ** 2).mean()
    value.backward()
    return value.item(), {name: value.grad.numpy() for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "jit"])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name, jit):
    case, shape = CASES[name]
    target = harness.make_input("target", shape)
    want_value, want = theirs(case, target)
    largest = max(np.abs(gradient).max() for gradient in want.values())
    model = ms_side.build(case)
    loss = (Reconstruction if case is _KL else LastFeature if case is _ADAPTER else Squared)(model)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert parameters.keys() == want.keys()
    inputs = [ms.Tensor(target), *harness.map_arrays(ms.Tensor, harness.make_inputs(case)).values()]
    compute = ms.value_and_grad(loss, None, list(parameters.values()))
    value, gradients = (ms.jit(compute) if jit else compute)(*inputs)
    assert abs(float(value.asnumpy()) - want_value) <= 1e-5 * want_value
    for key, gradient in zip(parameters, gradients):
        difference = np.abs(gradient.asnumpy() - want[key]).max()
        assert difference <= TOLERANCE * np.abs(want[key]).max() + NOISE * largest, key
