"""Training side by side with PyTorch: the optimiser, and fifty steps of a small UNet from the same weights on the same batches."""

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from mindone_diffusers import DDPMScheduler, UNet2DConditionModel, nn  # noqa: E402
from mindone_diffusers.nn.optim import AdamW  # noqa: E402
from mindone_diffusers.training import TrainStep, step_rng  # noqa: E402

CONFIG = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32,
    "attention_head_dim": 4, "norm_num_groups": 16, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip


class NoiseLoss(nn.Module):
    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = unet

    def construct(self, noisy, timesteps, states, noise):
        error = self.unet(noisy, timesteps, states, return_dict=False)[0] - noise
        return (error * error).mean()


def batch(step: int) -> tuple[np.ndarray, ...]:
    rng = step_rng(0, step)
    place = np.linspace(-1, 1, 8, dtype=np.float32)
    clean = np.sin(3 * place[:, None] + rng.uniform(0, 6, (4, 4, 1, 1)).astype(np.float32)) * place[None, :]
    noise = rng.standard_normal((4, 4, 8, 8), dtype=np.float32)
    timesteps = rng.integers(1000, size=4)
    noisy = DDPMScheduler().add_noise(clean, noise, timesteps)
    return noisy, timesteps.astype(np.int32), rng.standard_normal((4, 5, 32), dtype=np.float32), noise


@pytest.mark.parametrize("jit", [True, False])
def test_fifty_steps(jit: bool, tmp_path) -> None:
    """Loss curves within 1e-3 (relative) of PyTorch's, with clipping, weight decay and a changing learning rate."""
    steps = 50 if jit else 5
    theirs = diffusers.UNet2DConditionModel(**CONFIG)
    theirs.save_pretrained(tmp_path)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=2e-3, weight_decay=0.05)
    expected = []
    for number in range(steps):
        noisy, timesteps, states, noise = map(torch.from_numpy, batch(number))
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (number + 1) / 10)
        loss = ((theirs(noisy, timesteps, states).sample - noise) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())

    ours = UNet2DConditionModel.from_pretrained(tmp_path)
    loss = NoiseLoss(ours)
    step = TrainStep(loss, AdamW(loss.trainable_params(), lr=2e-3, weight_decay=0.05), max_grad_norm=0.5, jit=jit)
    got = []
    for number in range(steps):
        step.optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (number + 1) / 10)
        got.append(step(*map(ms.Tensor, batch(number))).asnumpy().item())
    assert not jit or expected[-1] < 0.8 * expected[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.95), "eps": 1e-3}, {"weight_decay": 0.0}, {"lr": 0.0}])
def test_adamw(options: dict) -> None:
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((5, 3), (4,), ())]
    theirs = [torch.nn.Parameter(torch.from_numpy(np.array(value))) for value in start]
    optimizer = torch.optim.AdamW(theirs, **options)
    parameters = [ms.Parameter(ms.Tensor(value), name=f"p{index}") for index, value in enumerate(start)]
    ours = AdamW(parameters, **options)
    for _ in range(20):
        gradients = [rng.standard_normal(value.shape).astype(np.float32) * 10.0 ** rng.integers(-6, 2) for value in start]
        for parameter, gradient in zip(theirs, gradients):
            parameter.grad = torch.from_numpy(np.array(gradient, np.float32))
        optimizer.step()
        ours(tuple(ms.Tensor(gradient, ms.float32) for gradient in gradients), ours.hyperparameters(), ms.Tensor(1.0, ms.float32))
        for parameter, expected in zip(parameters, theirs):
            np.testing.assert_allclose(parameter.asnumpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
