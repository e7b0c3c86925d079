"""Learning-rate schedules: values computed by hand, the optimizers they drive, and compiled training steps."""

import json
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore.experimental import optim as experimental_optim

from mindone_diffusers.backend import graph
from mindone_diffusers.core.errors import ConfigError
from mindone_diffusers.optimization import LambdaLR, SchedulerType, get_linear_schedule_with_warmup, get_scheduler

HALF = 0.5**0.5
VALUES = [
    ("constant", {}, [1, 1, 1, 1]),
    ("constant_with_warmup", {"num_warmup_steps": 4}, [0, 0.25, 0.5, 0.75, 1, 1]),
    ("piecewise_constant", {"step_rules": "2:1,0.5:3,0.25"}, [2, 0.5, 0.5, 0.25, 0.25]),
    ("linear", {"num_warmup_steps": 2, "num_training_steps": 6}, [0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0]),
    ("cosine", {"num_warmup_steps": 1, "num_training_steps": 5}, [0, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0, (1 - HALF) / 2]),
    ("cosine_with_restarts", {"num_warmup_steps": 1, "num_training_steps": 5, "num_cycles": 2}, [0, 1, 0.5, 1, 0.5, 0, 0]),
    ("polynomial", {"num_warmup_steps": 2, "num_training_steps": 6, "power": 2.0}, [0, 0.5, 1, 9 / 16, 1 / 4, 1 / 16, 0, 0]),
    ("polynomial", {"num_warmup_steps": 2, "num_training_steps": 2}, [0, 0.5, 1, 0]),  # PyTorch diffusers divides by zero
]


@pytest.mark.parametrize("name, arguments, expected", VALUES, ids=str)
@pytest.mark.parametrize("kind", [str, SchedulerType])
def test_values(name, arguments, expected, kind):
    scheduler = get_scheduler(kind(name), 8.0, **arguments)
    factor = scheduler.lr_lambdas[0]
    for step, value in enumerate(expected):
        assert scheduler.get_last_lr() == pytest.approx([8 * value], abs=1.1e-7)  # "polynomial" ends at 1e-7
        assert 8 * factor(step) == scheduler.get_last_lr()[0] and scheduler.last_epoch == step
        scheduler.step()


def test_bounds_of_linear():
    scheduler = get_linear_schedule_with_warmup(1.0, 2, 4, f_min=0.25, f_max=0.75)
    assert [scheduler.lr_lambdas[0](step) for step in range(6)] == [0, 0.375, 0.75, 0.5, 0.25, 0.25]


class Net(ms.nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.ones(3, np.float32)))
        self.bias = ms.Parameter(ms.Tensor(np.zeros(3, np.float32)))

    def construct(self, x):
        return (x * self.weight + self.bias).sum()


OPTIMIZERS = {
    "SGD": lambda net: ms.nn.SGD(net.trainable_params(), learning_rate=0.1),
    "AdamWeightDecay": lambda net: ms.nn.AdamWeightDecay(net.trainable_params(), learning_rate=0.1),
    "experimental AdamW": lambda net: experimental_optim.AdamW(net.trainable_params(), lr=0.1),
    "mint AdamW": lambda net: ms.mint.optim.AdamW(net.trainable_params(), lr=0.1),
}


def rate_of(optimizer):
    return optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    """Each rate is a float32 Parameter, written in place; the schedule's own numbers are what the user gave, not float32's."""
    optimizer = OPTIMIZERS[name](Net())
    before = optimizer.lrs[0] if hasattr(optimizer, "lrs") else optimizer.learning_rate
    scheduler = get_scheduler("linear", optimizer=optimizer, num_warmup_steps=2, num_training_steps=6)
    assert rate_of(optimizer) is before
    for value in (0, 0.5, 1, 0.75, 0.5, 0.25, 0):
        assert scheduler.get_last_lr() == [0.1 * value] and before.asnumpy() == np.float32(0.1 * value)
        scheduler.step()


def test_a_compiled_step_sees_the_rate_and_is_compiled_once():
    net = Net()
    optimizer = ms.nn.SGD(net.trainable_params(), learning_rate=0.5)
    gradients = ms.value_and_grad(net, None, optimizer.parameters)

    @ms.jit
    def train_step(x):
        loss, grads = gradients(x)
        optimizer(grads)
        return loss

    lr_scheduler = get_scheduler("linear", optimizer, num_warmup_steps=2, num_training_steps=4)
    x = ms.Tensor(np.ones(3, np.float32))
    weights, compiled = [net.weight.asnumpy().copy()], []
    for _ in range(5):
        train_step(x)
        lr_scheduler.step()
        weights.append(net.weight.asnumpy().copy())
        compiled.append(graph.compilations())
    np.testing.assert_allclose(np.diff(np.array(weights), axis=0)[:, 0], [0, -0.25, -0.5, -0.25, 0], atol=1e-6)
    assert len(set(compiled)) == 1


def test_groups():
    net = Net()
    optimizer = ms.nn.Momentum([{"params": [net.weight], "lr": 0.5}, {"params": [net.bias]}], learning_rate=0.25, momentum=0.9)
    scheduler = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=2)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25, 0.125]
    assert [float(rate) for rate in optimizer.learning_rate] == [0.25, 0.125]
    shared = ms.nn.Momentum([{"params": [net.weight]}, {"params": [net.bias]}], learning_rate=0.25, momentum=0.9)
    assert get_scheduler("constant", shared).get_last_lr() == [0.25]


def test_other_objects_with_a_rate():
    """Plain numbers in `param_groups` are replaced; `lr` may be a Parameter."""
    plain = SimpleNamespace(param_groups=[{"lr": 1e-3}, {"lr": 2}])
    scheduler = get_scheduler("constant_with_warmup", plain, num_warmup_steps=4)
    scheduler.step()
    assert [group["lr"] for group in plain.param_groups] == scheduler.get_last_lr() == [1e-3 / 4, 0.5]
    assert [group["initial_lr"] for group in plain.param_groups] == [1e-3, 2]
    half = SimpleNamespace(lr=ms.Parameter(ms.Tensor(0.5, ms.float16)))
    get_scheduler("constant_with_warmup", half, num_warmup_steps=4).step()
    assert half.lr.asnumpy() == np.float16(0.125)


def test_the_initial_rate_is_remembered():
    """A later scheduler does not start from the rate that the earlier one left."""
    optimizer = ms.nn.SGD(Net().trainable_params(), learning_rate=0.1)
    first = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=10)
    first.step()
    assert get_scheduler("constant", optimizer).get_last_lr() == [0.1]
    resumed = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=10, last_epoch=3)
    assert resumed.get_last_lr() == [0.1 * 0.4] and resumed.last_epoch == 4
    with pytest.raises(KeyError, match="build the scheduler with last_epoch=-1 and call its load_state_dict"):
        get_scheduler("constant", ms.nn.SGD(Net().trainable_params(), learning_rate=0.1), last_epoch=3)


def test_states():
    arguments = {"num_warmup_steps": 2, "num_training_steps": 6}
    scheduler = get_scheduler("linear", 0.1, **arguments)
    for _ in range(3):
        scheduler.step()
    state = json.loads(json.dumps(scheduler.state_dict()))
    assert state == {"base_lrs": [0.1], "last_epoch": 3, "_step_count": 4, "_last_lr": [0.1 * 0.75], "lr_lambdas": [None]}
    optimizer = ms.nn.SGD(Net().trainable_params(), learning_rate=0.5)
    resumed = get_scheduler("linear", optimizer, **arguments)
    resumed.load_state_dict(state)
    assert resumed.get_last_lr() == [0.1 * 0.75] and optimizer.learning_rate.asnumpy() == np.float32(0.1 * 0.75)
    resumed.step()
    assert resumed.get_last_lr() == [0.1 * 0.5] and optimizer.learning_rate.asnumpy() == np.float32(0.1 * 0.5)
    with pytest.raises(ConfigError, match="1 learning rates; this optimizer has 2"):
        LambdaLR(SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 1.0}]), lambda step: 1.0).load_state_dict(state)


def test_lists_are_copies():
    scheduler = get_scheduler("constant", 0.1)
    scheduler.get_last_lr().append(1)
    scheduler.state_dict()["base_lrs"].append(1)
    assert scheduler.get_last_lr() == scheduler.base_lrs == [0.1]


@pytest.mark.parametrize(
    "error, message, name, arguments",
    [
        (ConfigError, "'parabola' is not a learning-rate schedule; expected one of linear, cosine", "parabola", {}),
        (ConfigError, "'linear' needs num_warmup_steps and num_training_steps", "linear", {}),
        (ConfigError, "'cosine' needs num_training_steps", "cosine", {"num_warmup_steps": 0}),
        (ConfigError, "'piecewise_constant' needs step_rules", "piecewise_constant", {}),
        (ConfigError, "step_rules is '1:a,2'; expected", "piecewise_constant", {"step_rules": "1:a,2"}),
        (ConfigError, "expected less than the initial learning rate, which is 1e-08", "polynomial",
         {"num_warmup_steps": 1, "num_training_steps": 2, "optimizer": 1e-8}),
        (TypeError, "a str is not an optimizer", "constant", {"optimizer": "sgd"}),
        (TypeError, "a SimpleNamespace is not an optimizer", "constant", {"optimizer": SimpleNamespace(lr=0.1)}),
    ],
    ids=str,
)  # fmt: skip
def test_errors(error, message, name, arguments):
    with pytest.raises(error, match=message):
        get_scheduler(name, **{"optimizer": 0.1, **arguments})


@pytest.mark.parametrize("rates", [[0.1, 0.2], ms.nn.CosineDecayLR(0.01, 0.1, 10)], ids=["list", "schedule"])
def test_optimizers_with_a_schedule_of_their_own(rates):
    with pytest.raises(ConfigError, match="the SGD was built with a learning-rate schedule of its own"):
        get_scheduler("constant", ms.nn.SGD(Net().trainable_params(), learning_rate=rates))
