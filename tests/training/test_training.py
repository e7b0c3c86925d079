"""The training core: the optimiser, the step, checkpoints, data and the loop."""

import argparse
import contextlib
import copy
import json

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindone_diffusers import nn, training
from mindone_diffusers.core.errors import CheckpointError, ConfigError
from mindone_diffusers.nn.optim import AdamW
from mindone_diffusers.training import BatchIndices, ImageFolder, TrainStep, load_checkpoint, save_checkpoint, step_rng


class Quadratic(nn.Module):
    """The mean of (x w - y)^2, with two weights that start at given values."""

    def __init__(self, dtype=ms.float32):
        super().__init__()
        self.a = ms.Parameter(ms.Tensor([1.0, -2.0, 0.5], dtype), name="a")
        self.b = ms.Parameter(ms.Tensor([0.25], dtype), name="b")

    def construct(self, x, y):
        error = (x * self.a).sum(1) + self.b - y
        return (error * error).mean().astype(ms.float32)


def data(count: int, rows: int = 4, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((rows, 3)).astype(dtype), rng.standard_normal(rows).astype(dtype)) for _ in range(count)]


def gradients(a: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    error = x @ a + b - y
    return 2 * (error[:, None] * x).mean(0), np.array([2 * error.mean()])


def adamw(batches, lr=0.1, betas=(0.9, 0.999), eps=1e-8, decay=0.01, limit=None):
    """Loshchilov and Hutter's algorithm 2, in float64."""
    weights = [np.array([1.0, -2.0, 0.5]), np.array([0.25])]
    first, second = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for step, part in enumerate(batches, 1):
        found = [gradients(*weights, x, y) for x, y in part]
        grads = [np.mean([one[i] for one in found], axis=0) for i in range(2)]
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        factor = 1 if limit is None else min(1, limit / (norm + 1e-6))
        for i, gradient in enumerate(grads):
            gradient = gradient * factor
            first[i] = betas[0] * first[i] + (1 - betas[0]) * gradient
            second[i] = betas[1] * second[i] + (1 - betas[1]) * gradient**2
            mean, square = first[i] / (1 - betas[0] ** step), second[i] / (1 - betas[1] ** step)
            weights[i] = weights[i] * (1 - lr * decay) - lr * mean / (np.sqrt(square) + eps)
    return weights


def run(step: TrainStep, batches) -> list[float]:
    return [step(ms.Tensor(x), ms.Tensor(y)).asnumpy().item() for x, y in batches]


def values(net) -> list[np.ndarray]:
    return [net.a.asnumpy().astype(np.float64), net.b.asnumpy().astype(np.float64)]


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("limit", [None, 0.5])
def test_adamw_is_the_papers(jit: bool, limit: float | None) -> None:
    net, batches = Quadratic(), data(12)
    run(TrainStep(net, AdamW(net.trainable_params(), lr=0.1), max_grad_norm=limit, jit=jit), batches)
    for got, expected in zip(values(net), adamw([[one] for one in batches], limit=limit)):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def test_large_eps_and_other_betas() -> None:
    net, batches = Quadratic(), data(8)
    options = {"lr": 0.03, "betas": (0.5, 0.9), "eps": 0.1}
    run(TrainStep(net, AdamW(net.trainable_params(), weight_decay=0.2, **options), max_grad_norm=None), batches)
    for got, expected in zip(values(net), adamw([[one] for one in batches], decay=0.2, **options)):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def test_groups_have_their_own_arguments() -> None:
    net, batches = Quadratic(), data(5)
    optimizer = AdamW([{"params": [net.a], "lr": 0.0}, {"params": [net.b]}], lr=0.1, weight_decay=0.0)
    run(TrainStep(net, optimizer), batches)
    np.testing.assert_array_equal(net.a.asnumpy(), np.float32([1.0, -2.0, 0.5]))
    assert abs(net.b.asnumpy().item() - 0.25) > 0.1


def test_accumulated_batches_are_one() -> None:
    batches = data(12)
    net = Quadratic()
    step = TrainStep(net, AdamW(net.trainable_params(), lr=0.1), gradient_accumulation_steps=3, max_grad_norm=0.5)
    for index, (x, y) in enumerate(batches):
        step(ms.Tensor(x), ms.Tensor(y))
        assert step.sync_gradients == (index % 3 == 2)
    expected = adamw([batches[start : start + 3] for start in range(0, 12, 3)], limit=0.5)
    for got, value in zip(values(net), expected):
        np.testing.assert_allclose(got, value, rtol=2e-5, atol=1e-6)


def test_half_weights_follow_their_float32_copies() -> None:
    net = Quadratic(ms.float16)
    step = TrainStep(net, AdamW(net.trainable_params(), lr=1e-4), loss_scale=1024.0)
    start = net.a.asnumpy().copy()
    run(step, data(3, dtype=np.float16))
    master = step.optimizer.masters[0].asnumpy()
    # Three steps of 1e-4 are less than half of a float16's last bit at 2, and are kept all the same.
    assert np.abs(master - start).max() > 2e-4 and net.a.asnumpy()[1] == start[1]
    np.testing.assert_array_equal(net.a.asnumpy(), master.astype(np.float16))


@pytest.mark.skipif(ms.get_context("device_target") != "CPU", reason="Ascend writes bfloat16")
def test_bfloat16_is_refused_on_the_cpu() -> None:
    with pytest.raises(ValueError, match="train in float32"):
        AdamW([ms.Parameter(ms.Tensor(np.ones(2), ms.bfloat16), name="p")])


def test_overflow_leaves_the_step_out_and_halves_the_scale() -> None:
    net = Quadratic(ms.float16)
    step = TrainStep(net, AdamW(net.trainable_params(), lr=0.1), loss_scale=2.0**18)
    ((x, y),) = data(1, dtype=np.float16)
    before = values(net)
    step(ms.Tensor(x), ms.Tensor(y))
    assert step.loss_scale == 2.0**17 and step.optimizer.steps == 0
    np.testing.assert_array_equal(values(net)[0], before[0])
    step.loss_scale = 64.0
    step(ms.Tensor(x), ms.Tensor(y))
    assert step.loss_scale == 64.0 and step.optimizer.steps == 1 and np.abs(values(net)[0] - before[0]).max() > 0.05


def test_scale_grows_after_good_steps() -> None:
    net = Quadratic()
    step = TrainStep(net, AdamW(net.trainable_params(), lr=0.1), loss_scale=8.0)
    step.growth_interval = 2
    run(step, data(4))
    assert step.loss_scale == 32.0


class Dropping(Quadratic):
    """The same behind two layers of dropout."""

    def __init__(self):
        super().__init__()
        self.drop = nn.ModuleList([nn.Dropout(0.25), nn.Dropout(0.5)])

    def construct(self, x, y):
        for layer in self.drop:
            x = layer(x)
        return Quadratic.construct(self, x, y)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"jit": False}])
def test_dropout_is_a_function_of_the_step(options: dict) -> None:
    from mindone_diffusers.backend import graph

    def new(seed: int = 5) -> TrainStep:
        net = Dropping()
        return TrainStep(net, AdamW(net.trainable_params(), lr=0.1), seed=seed, **options)

    batches = data(1, rows=64) * 8  # the same batch: what differs is the masks
    straight = new()
    losses = run(straight, batches[:4])
    state, compiled = copy.deepcopy(straight.state_dict()), graph.compilations()  # arrays that share the weights' memory
    losses += run(straight, batches[4:])
    assert graph.compilations() == compiled and len({*losses}) == 8

    resumed = new()
    run(resumed, batches[:2])  # other masks were drawn since
    resumed.load_state_dict(state)
    assert run(resumed, batches[4:]) == losses[4:]
    for name, value in straight.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[name], value)
    assert run(new(), batches[:1]) == losses[:1] != run(new(seed=6), batches[:1])


def test_scaled_loss_changes_nothing() -> None:
    results = []
    for scale in (None, 4096.0):
        net = Quadratic()
        losses = run(TrainStep(net, AdamW(net.trainable_params(), lr=0.1), loss_scale=scale, max_grad_norm=0.5), data(6))
        results.append((losses, values(net)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1][0], results[1][1][0], rtol=1e-5)


def test_learning_rate_changes_without_compiling() -> None:
    from mindone_diffusers.backend import graph

    net, batches = Quadratic(), data(5)
    optimizer = AdamW(net.trainable_params(), lr=0.1)
    step = TrainStep(net, optimizer)
    run(step, batches[:1])
    compiled = graph.compilations()
    for rate, batch in zip((0.05, 0.01, 0.0), batches[1:]):
        before = values(net)[0]
        optimizer.param_groups[0]["lr"] = rate
        run(step, [batch])
        assert (np.abs(values(net)[0] - before).max() > 0) == (rate > 0)
    assert graph.compilations() == compiled


@pytest.mark.parametrize("params, options", [([], {}), (None, {"lr": -1.0}), (None, {"betas": (0.9, 1.0)}), (None, {"eps": -1e-8})])
def test_bad_optimizers(params, options) -> None:
    with pytest.raises(ValueError, match="AdamW got"):
        AdamW(Quadratic().trainable_params() if params is None else params, **options)


def test_bad_accumulation() -> None:
    net = Quadratic()
    with pytest.raises(ConfigError, match="gradient_accumulation_steps is 0"):
        TrainStep(net, AdamW(net.trainable_params()), gradient_accumulation_steps=0)


# ---- checkpoints


def make_step(**options) -> TrainStep:
    net = Quadratic()
    return TrainStep(net, AdamW(net.trainable_params(), lr=0.1), **options)


def test_checkpoint_continues_to_the_bit(tmp_path) -> None:
    batches = data(9)
    straight, first, second = make_step(), make_step(), make_step()
    run(straight, batches)
    run(first, batches[:5])
    save_checkpoint(tmp_path, 5, first, lr_scheduler={"last_epoch": 5})
    found = load_checkpoint(tmp_path, "latest", second)
    assert found["step"] == 5 and found["lr_scheduler"] == {"last_epoch": 5}
    run(second, batches[5:])
    for ours, expected in zip(values(second.loss), values(straight.loss)):
        np.testing.assert_array_equal(ours, expected)
    assert second.calls == straight.calls == 9


def test_arrays_in_a_checkpoint(tmp_path) -> None:
    step = make_step()
    save_checkpoint(tmp_path, 1, step, ema={"00000": np.arange(3.0)})
    np.testing.assert_array_equal(load_checkpoint(tmp_path, "checkpoint-1", step)["ema"]["00000"], np.arange(3.0))


def test_only_the_newest_are_kept_and_half_written_ones_are_not_seen(tmp_path) -> None:
    step = make_step()
    for number in (5, 10, 100):
        save_checkpoint(tmp_path, number, step, limit=2)
    (tmp_path / "checkpoint-999").mkdir()  # killed before its progress was written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100", "checkpoint-999"]
    assert load_checkpoint(tmp_path, "latest", step)["step"] == 100


def test_checkpoints_that_are_not_there(tmp_path) -> None:
    step = make_step()
    assert load_checkpoint(tmp_path, "latest", step) is None
    save_checkpoint(tmp_path, 3, step)
    with pytest.raises(CheckpointError, match="no checkpoint checkpoint-4 .* there are: checkpoint-3"):
        load_checkpoint(tmp_path, "checkpoint-4", step)


def test_checkpoint_of_another_model(tmp_path) -> None:
    save_checkpoint(tmp_path, 1, make_step())
    net = Quadratic()
    other = TrainStep(net, AdamW([net.a]))
    with pytest.raises(CheckpointError, match="other parameters: weight.b"):
        load_checkpoint(tmp_path, "latest", other)


def test_half_accumulated_is_not_saved() -> None:
    step = make_step(gradient_accumulation_steps=2)
    run(step, data(1))
    with pytest.raises(ConfigError, match="half accumulated"):
        step.state_dict()


# ---- data


def write_images(folder, sizes, captions=None):
    folder.mkdir(exist_ok=True)
    for index, size in enumerate(sizes):
        Image.fromarray(np.full((size[1], size[0], 3), 40 * index + 10, np.uint8)).save(folder / f"{index}.png")
    if captions is not None:
        lines = [json.dumps({"file_name": f"{index}.png", "text": caption}) for index, caption in enumerate(captions)]
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_image_folder(tmp_path) -> None:
    images = ImageFolder(write_images(tmp_path / "a", [(8, 8), (16, 8)], ["one", "two"]), resolution=8)
    assert len(images) == 2 and images.captions == ["one", "two"]
    np.testing.assert_allclose(images.image(1), np.full((3, 8, 8), 50 / 127.5 - 1), rtol=1e-6)
    assert ImageFolder(tmp_path / "a", resolution=4).image(0).shape == (3, 4, 4)


def test_crops_and_flips_are_random_with_a_generator_only(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], (8, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "a" / "ramp.png")
    images = ImageFolder(tmp_path / "a", resolution=8, center_crop=False, random_flip=True)
    middle = images.image(0)
    np.testing.assert_allclose((middle[0, 0] + 1) * 127.5, np.arange(40, 120, 10), atol=1e-3)
    drawn = {tuple(images.image(0, np.random.default_rng(seed))[0, 0].round(4)) for seed in range(30)}
    assert len(drawn) > 8 and any(row[0] > row[-1] for row in drawn) and any(row[0] < row[-1] for row in drawn)
    assert ImageFolder(tmp_path / "a", resolution=8, crop=4).image(0, step_rng(0, 0)).shape == (3, 4, 4)


def test_bad_folders(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        ImageFolder(tmp_path / "nowhere", resolution=8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no images"):
        ImageFolder(tmp_path / "empty", resolution=8)
    with pytest.raises(ConfigError, match="'caption'"):
        ImageFolder(write_images(tmp_path / "b", [(8, 8)], ["x"]), "caption", resolution=8)


def test_batches_are_a_function_of_their_number() -> None:
    batches = BatchIndices(10, 3, seed=7)
    in_order = [batches[index].tolist() for index in range(7)]
    again = BatchIndices(10, 3, seed=7)
    assert [again[index].tolist() for index in (6, 2, 4)] == [in_order[6], in_order[2], in_order[4]]
    assert batches.batches_per_epoch == 3 and len({item for batch in in_order[:3] for item in batch}) == 9
    assert in_order[:3] != in_order[3:6]


def test_processes_share_an_epoch() -> None:
    parts = [BatchIndices(12, 2, seed=1, rank=rank, world=3) for rank in range(3)]
    items = [item for index in range(2) for part in parts for item in part[index].tolist()]
    assert sorted(items) == list(range(12))
    with pytest.raises(ConfigError, match="fewer than one batch"):
        BatchIndices(5, 2, seed=1, world=3)


def test_every_step_has_its_own_numbers() -> None:
    assert step_rng(1, 2).random() == step_rng(1, 2).random()
    assert len({step_rng(seed, step).random() for seed in range(3) for step in range(3)}) == 9


# ---- the loop


def arguments(folder, **changes) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    training.add_training_arguments(parser)
    found = parser.parse_args(["--output_dir", str(folder), "--max_train_steps", "8", "--logging_steps", "2", "--checkpointing_steps", "4"])
    for name, value in changes.items():
        assert hasattr(found, name)
        setattr(found, name, value)
    return found


def run_loop(options: argparse.Namespace, stop_after: int | None = None):
    """Train on the numbered batches; `stop_after` kills the loop."""
    from mindone_diffusers.training_utils import EMAModel

    net, batches = Quadratic(), data(40)
    step = training.make_train_step(net, options)
    ema = EMAModel(step.optimizer.params, decay=0.9)
    seen = []

    def batch(index: int):
        seen.append(index)
        return [ms.Tensor(part) for part in batches[index]]

    def after(done: int) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        training.train(step, batch, options, ema=ema, after_step=after)
    return net, ema, seen


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path) -> None:
    settings = {"lr_scheduler": "cosine", "lr_warmup_steps": 3, "learning_rate": 0.1, "gradient_accumulation_steps": 2}
    straight, straight_ema, seen = run_loop(arguments(tmp_path / "a", **settings))
    assert seen == list(range(16))
    run_loop(arguments(tmp_path / "b", **settings), stop_after=6)
    resumed, resumed_ema, seen = run_loop(arguments(tmp_path / "b", resume_from_checkpoint="latest", **settings))
    assert seen == list(range(8, 16))
    for ours, expected in zip(values(resumed), values(straight)):
        np.testing.assert_array_equal(ours, expected)
    for ours, expected in zip(resumed_ema.shadow_params, straight_ema.shadow_params):
        np.testing.assert_array_equal(ours.asnumpy(), expected.asnumpy())
    assert (tmp_path / "a" / "loss.csv").read_text() == (tmp_path / "b" / "loss.csv").read_text()
    rows = (tmp_path / "a" / "loss.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4", "6", "8"]
