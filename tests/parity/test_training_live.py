"""training_utils and optimization against PyTorch diffusers', live."""

import inspect
import json
import math
import random
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindspore as ms  # noqa: E402
from diffusers import optimization as their_optimization  # noqa: E402
from diffusers import training_utils as theirs  # noqa: E402
from mindspore.experimental import optim as experimental_optim  # noqa: E402

import mindone_diffusers  # noqa: E402
from mindone_diffusers import nn, optimization, training_utils  # noqa: E402
from mindone_diffusers.core.random import Generator, randn_tensor  # noqa: E402
from tests.harness import make_input, make_state  # noqa: E402

torch.set_num_threads(1)

RATE = 3e-4


def numbers(name, spec):
    """The same array, as a torch tensor and as a MindSpore tensor."""
    array = make_input(name, spec)
    return torch.from_numpy(array), ms.Tensor(array)


def close(ours, expected, tolerance):
    """Of the same shape and dtype, and equal to within `tolerance` of the largest value."""
    ours, expected = ours.asnumpy(), expected.detach().numpy()
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    assert np.isfinite(expected).all()
    assert np.abs(ours.astype(np.float64) - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-30)


# Learning rates


def torch_optimizer(rates=(RATE,), default=RATE):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=default)


def parameters(count):
    return [ms.Parameter(ms.Tensor(np.zeros(1, np.float32)), name=f"p{index}") for index in range(count)]


def single_optimizer(rate):
    return ms.nn.SGD(parameters(1), learning_rate=rate)


SCHEDULES = [
    ("constant", {}),
    ("constant_with_warmup", {"num_warmup_steps": 0}),
    ("constant_with_warmup", {"num_warmup_steps": 7}),
    ("piecewise_constant", {"step_rules": "1:10,0.1:20,0.01:30,0.005"}),
    ("piecewise_constant", {"step_rules": "0.5:20,2:5,0.25"}),
    ("piecewise_constant", {"step_rules": "0.5"}),
    *[(name, {"num_warmup_steps": warmup, "num_training_steps": length})
      for name in ("linear", "cosine", "cosine_with_restarts", "polynomial")
      for warmup, length in ((0, 40), (7, 40), (1, 13), (10, 5))],
    ("linear", {"num_warmup_steps": 5, "num_training_steps": 5}),
    ("cosine", {"num_warmup_steps": 5, "num_training_steps": 5}),
    ("cosine", {"num_warmup_steps": 7, "num_training_steps": 40, "num_cycles": 3, "power": 2.0, "step_rules": "nonsense"}),
    ("cosine_with_restarts", {"num_warmup_steps": 5, "num_training_steps": 5}),
    ("cosine_with_restarts", {"num_warmup_steps": 7, "num_training_steps": 40, "num_cycles": 3}),
    ("polynomial", {"num_warmup_steps": 7, "num_training_steps": 40, "power": 2.0}),
    ("polynomial", {"num_warmup_steps": 3, "num_training_steps": 30, "power": 0.5}),
]  # fmt: skip
FUNCTIONS = [
    ("get_constant_schedule", {}),
    ("get_constant_schedule_with_warmup", {"num_warmup_steps": 5}),
    ("get_piecewise_constant_schedule", {"step_rules": "1:3,0.5:9,0"}),
    ("get_linear_schedule_with_warmup", {"num_warmup_steps": 5, "num_training_steps": 33, "f_min": 0.1, "f_max": 0.7}),
    ("get_cosine_schedule_with_warmup", {"num_warmup_steps": 5, "num_training_steps": 33, "num_cycles": 1.75}),
    ("get_cosine_with_hard_restarts_schedule_with_warmup", {"num_warmup_steps": 5, "num_training_steps": 33, "num_cycles": 4}),
    ("get_polynomial_decay_schedule_with_warmup", {"num_warmup_steps": 5, "num_training_steps": 33, "lr_end": 1e-5, "power": 3.0}),
]


def follow(scheduler, their_scheduler, steps=50):
    """Every learning rate of two schedulers, side by side."""
    for _ in range(steps):
        assert scheduler.get_last_lr() == their_scheduler.get_last_lr()
        scheduler.step()
        their_scheduler.step()
    assert scheduler.last_epoch == their_scheduler.last_epoch == steps


pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")


@pytest.mark.parametrize("name, arguments", SCHEDULES, ids=str)
@pytest.mark.parametrize("rate", [RATE, 1e-4 / 3, 1])
def test_get_scheduler(name, arguments, rate):
    """Equal to the last bit."""
    expected = their_optimization.get_scheduler(name, torch_optimizer((rate,), rate), **arguments)
    follow(optimization.get_scheduler(name, rate, **arguments), expected)


@pytest.mark.parametrize("name, arguments", SCHEDULES, ids=str)
def test_get_scheduler_with_an_optimizer(name, arguments):
    optimizer, their_optimizer = single_optimizer(RATE), torch_optimizer()
    scheduler = optimization.get_scheduler(optimization.SchedulerType(name), optimizer=optimizer, **arguments)
    their_scheduler = their_optimization.get_scheduler(their_optimization.SchedulerType(name), optimizer=their_optimizer, **arguments)
    for _ in range(50):
        assert scheduler.get_last_lr() == their_scheduler.get_last_lr()
        assert optimizer.learning_rate.asnumpy() == np.float32(their_optimizer.param_groups[0]["lr"])
        scheduler.step()
        their_scheduler.step()


@pytest.mark.parametrize("name, arguments", FUNCTIONS, ids=str)
def test_every_argument_of_the_functions(name, arguments):
    expected = getattr(their_optimization, name)(torch_optimizer(), **arguments)
    follow(getattr(optimization, name)(RATE, **arguments), expected)
    assert getattr(mindone_diffusers, name, getattr(optimization, name)) is getattr(optimization, name)


@pytest.mark.parametrize("name, arguments", SCHEDULES, ids=str)
def test_groups(name, arguments):
    """Each group from its own initial rate; "polynomial" by the optimizer's default one."""
    rates = (RATE, 2e-5, 0.5)
    expected = their_optimization.get_scheduler(name, torch_optimizer(rates, 1e-3), **arguments)
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters(3), rates)]
    follow(optimization.get_scheduler(name, experimental_optim.SGD(groups, lr=1e-3), **arguments), expected)
    # mindspore.nn optimizers do not keep their default: the first group's takes its place.
    expected = their_optimization.get_scheduler(name, torch_optimizer(rates, RATE), **arguments)
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters(3), rates)]
    follow(optimization.get_scheduler(name, ms.nn.SGD(groups, learning_rate=1e-3), **arguments), expected)


@pytest.mark.parametrize("name", ["linear", "polynomial"])
def test_last_epoch(name):
    """A second scheduler goes on with the same optimizer."""
    arguments = {"num_warmup_steps": 4, "num_training_steps": 20}
    schedulers = []
    for module, optimizer in ((optimization, single_optimizer(RATE)), (their_optimization, torch_optimizer())):
        with pytest.raises(KeyError, match="initial_lr"):
            module.get_scheduler(name, optimizer, **arguments, last_epoch=7)
        first = module.get_scheduler(name, optimizer, **arguments)
        for _ in range(7):
            first.step()
        schedulers.append(module.get_scheduler(name, optimizer, **arguments, last_epoch=first.last_epoch))
        schedulers.append(module.get_scheduler(name, optimizer, **arguments))  # starts again from the initial rate
    for ours, expected in zip(schedulers[:2], schedulers[2:]):
        assert ours.get_last_lr() == expected.get_last_lr() and ours.last_epoch == expected.last_epoch


def test_states_are_exchanged():
    arguments = {"num_warmup_steps": 4, "num_training_steps": 20}
    ours = optimization.get_scheduler("cosine", RATE, **arguments)
    expected = their_optimization.get_scheduler("cosine", torch_optimizer(), **arguments)
    for _ in range(9):
        ours.step()
        expected.step()
    state = expected.state_dict()
    assert {name: state[name] for name in ours.state_dict()} == ours.state_dict()
    fresh = optimization.get_scheduler("cosine", RATE, **arguments)
    fresh.load_state_dict(state)
    their_fresh = their_optimization.get_scheduler("cosine", torch_optimizer(), **arguments)
    their_fresh.load_state_dict(json.loads(json.dumps(ours.state_dict())))
    for _ in range(11):
        assert fresh.get_last_lr() == expected.get_last_lr() == their_fresh.get_last_lr()
        for scheduler in (fresh, expected, their_fresh):
            scheduler.step()


def test_step_to_an_epoch():
    ours = optimization.get_scheduler("linear", RATE, num_warmup_steps=3, num_training_steps=10)
    expected = their_optimization.get_scheduler("linear", torch_optimizer(), num_warmup_steps=3, num_training_steps=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in (2, 5, None, 1):
            ours.step(epoch)
            expected.step(epoch)
            assert ours.get_last_lr() == expected.get_last_lr() and ours.last_epoch == expected.last_epoch


@pytest.mark.parametrize(
    "error, name, arguments",
    [
        (ValueError, "parabola", {}),
        (ValueError, "linear", {"num_training_steps": 5}),
        (ValueError, "constant_with_warmup", {}),
        (ValueError, "cosine", {"num_warmup_steps": 5}),
        (ValueError, "polynomial", {"num_warmup_steps": 5}),
        (ValueError, "piecewise_constant", {"step_rules": "1:10:2,3"}),
        (ValueError, "piecewise_constant", {"step_rules": "1:10,0.1:20"}),
    ],
)
def test_schedule_errors(error, name, arguments):
    with pytest.raises(error):
        their_optimization.get_scheduler(name, torch_optimizer(), **arguments)
    with pytest.raises(error):
        optimization.get_scheduler(name, RATE, **arguments)


@pytest.mark.parametrize("rate", [1e-7, 5e-8])
def test_the_last_rate_is_below_the_first(rate):
    for module, optimizer in ((their_optimization, torch_optimizer((rate,), rate)), (optimization, single_optimizer(rate))):
        with pytest.raises(ValueError, match="lr_end"):
            module.get_scheduler("polynomial", optimizer, num_warmup_steps=1, num_training_steps=5)


# Names


def public(module):
    """The functions and classes a module defines."""
    return {name: value for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__ and name[0] != "_"}


# What PyTorch diffusers has and we have not, with the reason.
ABSENT = {
    "unet_lora_state_dict": "reads `lora_layer`s, which no model has any more",
    "get_fsdp_kwargs_from_accelerator": "FSDP is torch's",
    "wrap_with_fsdp": "FSDP is torch's",
}
OTHER_SIGNATURES = {
    "EMAModel": "no **kwargs: upstream's are deprecated names",
    "compute_loss_weighting_for_sd3": "`sigmas` has no default: None is an error upstream too",
}


@pytest.mark.parametrize("ours, upstream", [(training_utils, theirs), (optimization, their_optimization)])
def test_names_and_signatures(ours, upstream):
    expected = public(upstream)
    assert expected.keys() - public(ours).keys() == ABSENT.keys() & expected.keys()
    for name in expected.keys() - ABSENT.keys() - OTHER_SIGNATURES.keys() - {"SchedulerType"}:
        signatures = [inspect.signature(getattr(module, name)).parameters for module in (ours, upstream)]
        mine, other = ([(key, parameter.default, parameter.kind) for key, parameter in signature.items()] for signature in signatures)
        assert mine == [(key, ms.float32 if default is torch.float32 else default, kind) for key, default, kind in other]
    if ours is optimization:
        assert {member.name: member.value for member in optimization.SchedulerType} == {
            member.name: member.value for member in their_optimization.SchedulerType
        }
        pairs = [{kind.name: f.__name__ for kind, f in module.TYPE_TO_SCHEDULER_FUNCTION.items()} for module in (ours, upstream)]
        assert pairs[0] == pairs[1]


def test_methods_of_the_average():
    mine, other = (vars(module.EMAModel) for module in (training_utils, theirs))
    assert {name for name in other if name[0] != "_"} - mine.keys() == {"pin_memory"}  # torch's memory


# Losses and their weights

SCHEDULERS = [
    ("DDIMScheduler", {}),
    ("DDIMScheduler", {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}),
    ("EulerDiscreteScheduler", {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}),
    ("PNDMScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
]


@pytest.mark.parametrize("name, config", SCHEDULERS, ids=str)
@pytest.mark.parametrize("shape", [(1000,), (5, 200), ()], ids=str)
def test_compute_snr(name, config, shape):
    timesteps = np.arange(1000).reshape(shape) if shape else np.array(123)
    their_scheduler = getattr(diffusers, name)(**config)
    expected = theirs.compute_snr(their_scheduler, torch.from_numpy(timesteps)).numpy()
    scheduler = getattr(mindone_diffusers, name)(**config)
    if config.get("rescale_betas_zero_snr"):  # the tables differ in the last bits, which 1 / (1 - a) magnifies
        np.testing.assert_allclose(scheduler.alphas_cumprod, their_scheduler.alphas_cumprod.numpy(), atol=1e-6)
        scheduler.alphas_cumprod = their_scheduler.alphas_cumprod.numpy()
    tensor, array = training_utils.compute_snr(scheduler, ms.Tensor(timesteps)), training_utils.compute_snr(scheduler, timesteps)
    assert isinstance(array, np.ndarray) or not shape
    for snr in (tensor.asnumpy(), array):
        assert snr.shape == expected.shape and snr.dtype == expected.dtype
        np.testing.assert_allclose(snr, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 15, 16, 40, 1000])
@pytest.mark.parametrize(
    "scheme, arguments",
    [
        ("none", {}),
        ("sigma_sqrt", {}),
        ("logit_normal", {"logit_mean": 0.0, "logit_std": 1.0}),
        ("logit_normal", {"logit_mean": -0.7, "logit_std": 1.8}),
        ("mode", {"mode_scale": 1.29}),
        ("mode", {"mode_scale": 0.0}),
        ("mode", {"mode_scale": -0.4, "logit_mean": 3.0}),
    ],
    ids=str,
)
def test_compute_density(scheme, arguments, batch_size):
    """The same draws through our generator, and through torch's own."""
    for seed in (0, 42):
        expected = theirs.compute_density_for_timestep_sampling(
            scheme, batch_size, **arguments, generator=torch.Generator().manual_seed(seed)
        )
        for generator in (Generator().manual_seed(seed), torch.Generator().manual_seed(seed)):
            u = training_utils.compute_density_for_timestep_sampling(scheme, batch_size, **arguments, generator=generator)
            close(u, expected, 3e-7)


@pytest.mark.parametrize("scheme", ["sigma_sqrt", "cosmap", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(11,), (5, 1, 1, 1)])
def test_compute_loss_weighting(scheme, dtype, shape):
    sigmas = np.linspace(0.02, 1, math.prod(shape)).reshape(shape).astype(dtype)
    expected = theirs.compute_loss_weighting_for_sd3(scheme, torch.from_numpy(sigmas))
    tolerance = 1e-6 if dtype == np.float32 else 2e-3
    close(training_utils.compute_loss_weighting_for_sd3(scheme, ms.Tensor(sigmas)), expected, tolerance)
    array = training_utils.compute_loss_weighting_for_sd3(scheme, sigmas)
    assert isinstance(array, np.ndarray) and array.dtype == expected.numpy().dtype
    np.testing.assert_allclose(array, expected.numpy(), rtol=tolerance)


CONFIDENCE = [
    {},
    {"lambda_conf": 0.3},
    {"lambda_conf": 1.5, "temperature": 0.5},
    {"lambda_conf": 0.7, "temperature": 3.0, "weighted": True},
    {"weighted": True},
    {"lambda_conf": 0.3, "ignore_index": 2},
    {"lambda_conf": 0.3, "ignored": True},
    {"lambda_conf": 0.3, "impossible": True},
]


@pytest.mark.parametrize("arguments", CONFIDENCE, ids=str)
@pytest.mark.parametrize("shape", [(4, 9), (2, 3, 9), (2, 3, 2, 9)], ids=str)
@pytest.mark.parametrize("labels_dtype", ["int64", "int32"])
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "graph"])
def test_compute_confidence_aware_loss(arguments, shape, labels_dtype, jit):
    """All three values and the loss's gradient."""
    arguments = dict(arguments)
    logits = 3 * make_input("logits", shape)
    labels = make_input("labels", ("int", shape[:-1], shape[-1]))
    half = labels.reshape(-1)
    half[::2] = logits.argmax(-1).reshape(-1)[::2]  # some are right
    half[1] = -100
    if arguments.pop("ignored", False):
        half[:] = -100
    if arguments.pop("impossible", False):
        logits[..., 5] = -np.inf  # as a mask's own token is
        half[half == 5] = 4
    if arguments.get("ignore_index") is not None:
        half[1] = arguments["ignore_index"]
    weights = make_input("weights", ("uniform", shape[:-1])) * 4 if arguments.pop("weighted", False) else None

    torch_logits = torch.from_numpy(logits).requires_grad_()
    expected = theirs.compute_confidence_aware_loss(
        torch_logits, torch.from_numpy(labels), per_token_weights=None if weights is None else torch.from_numpy(weights), **arguments
    )
    expected[0].backward()
    ms_labels, ms_weights = ms.Tensor(labels.astype(labels_dtype)), None if weights is None else ms.Tensor(weights)

    def loss(logits):
        return training_utils.compute_confidence_aware_loss(logits, ms_labels, per_token_weights=ms_weights, **arguments)

    if jit:
        loss = ms.jit(loss)
    (total, sft, conf), gradient = ms.value_and_grad(loss, has_aux=True)(ms.Tensor(logits))
    for ours, theirs_ in zip((total, sft, conf), expected):
        close(ours, theirs_, 3e-6)
    close(gradient, torch_logits.grad, 1e-5)


def test_confidence_in_half_precision():
    logits, ms_logits = numbers("half", (6, 9))
    labels, ms_labels = numbers("labels", ("int", (6,), 9))
    expected = theirs.compute_confidence_aware_loss(logits.half(), labels, lambda_conf=0.5)
    ours = training_utils.compute_confidence_aware_loss(ms_logits.astype(ms.float16), ms_labels, lambda_conf=0.5)
    for mine, other in zip(ours, expected):
        close(mine, other, 4e-3)


@pytest.mark.parametrize(
    "shapes, arguments",
    [(((9,), ()), {}), (((2, 3, 9), (2, 4)), {}), (((2, 3, 9), (2, 3)), {"temperature": 0}), (((2, 9), (2,)), {"weights": (3,)})],
    ids=str,
)
def test_confidence_errors(shapes, arguments):
    for module, make in ((theirs, torch.from_numpy), (training_utils, ms.Tensor)):
        logits, labels = (make(np.zeros(shape, dtype)) for shape, dtype in zip(shapes, (np.float32, np.int64)))
        rest = {"per_token_weights" if name == "weights" else name: value for name, value in arguments.items()}
        if "weights" in arguments:
            rest["per_token_weights"] = make(np.zeros(arguments["weights"], np.float32))
        with pytest.raises(ValueError):
            module.compute_confidence_aware_loss(logits, labels, **rest)


SMALL_UNET = {"block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8, "cross_attention_dim": 12, "norm_num_groups": 4,
              "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
              "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}  # fmt: skip


@pytest.fixture(scope="module")
def unets():
    """The same small UNet in both frameworks."""
    torch_unet = diffusers.UNet2DConditionModel(**SMALL_UNET)
    state = make_state({name: value.shape for name, value in torch_unet.named_parameters()})
    torch_unet.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    unet = mindone_diffusers.UNet2DConditionModel(**SMALL_UNET)
    unet.load_state_dict(state)
    return torch_unet.eval(), unet.eval()


@pytest.mark.parametrize("detail", [1.0, 0.5, 2.0, 0.0])
def test_dream(unets, detail):
    pairs = [numbers("t", ("array", [3, 470, 998])), *(numbers(name, (3, 4, 8, 8)) for name in ("noise", "latents", "target"))]
    pairs.append(numbers("text", (3, 5, 12)))
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    expected = theirs.compute_dream_and_update_latents(unets[0], diffusers.DDIMScheduler(**config), *(pair[0] for pair in pairs), detail)
    ours = training_utils.compute_dream_and_update_latents(
        unets[1], mindone_diffusers.DDIMScheduler(**config), *(pair[1] for pair in pairs), dream_detail_preservation=detail
    )
    for mine, other in zip(ours, expected):
        close(mine, other, 1e-5)


@pytest.mark.parametrize("prediction_type, error", [("v_prediction", NotImplementedError), ("sample", ValueError)])
def test_dream_errors(prediction_type, error, unets):
    for module, library, unet, index in ((theirs, diffusers, unets[0], 0), (training_utils, mindone_diffusers, unets[1], 1)):
        zero, text = numbers("zero", (1, 4, 8, 8))[index], numbers("text", (1, 5, 12))[index]
        scheduler = library.DDIMScheduler(prediction_type=prediction_type)
        with pytest.raises(error):
            module.compute_dream_and_update_latents(unet, scheduler, numbers("t", ("array", [5]))[index], zero, zero, zero, text)


# Sizes of images


@pytest.mark.parametrize("text", ["512,512", " 1024 , 768;768,1024;64,8 ", "100,64;7,9"])
def test_parse_buckets(text):
    with warnings.catch_warnings(record=True) as mine:
        warnings.simplefilter("always")
        buckets = training_utils.parse_buckets_string(text)
    with warnings.catch_warnings(record=True) as other:
        warnings.simplefilter("always")
        assert buckets == theirs.parse_buckets_string(text)
    assert len(mine) == len(other) == sum(h % 8 != 0 or w % 8 != 0 for h, w in buckets)


@pytest.mark.parametrize("text", ["", "512", "512,512;", "512x512", "0,64", "64,0", "-8,8", "8,8,8", "a,b", " "])
def test_parse_buckets_errors(text):
    for module in (theirs, training_utils):
        with pytest.raises(ValueError):
            module.parse_buckets_string(text)


def test_find_nearest_bucket():
    buckets = theirs.generate_aspect_ratio_buckets(512) + [(512, 512), (64, 64), (256, 512)]
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(1, 4000, (300, 2)).tolist(), (512, 512), (1, 1), (10, 20)]
    found = [training_utils.find_nearest_bucket(h, w, buckets) for h, w in sizes]
    assert found == [theirs.find_nearest_bucket(h, w, buckets) for h, w in sizes] and len(set(found)) > 5
    assert training_utils.find_nearest_bucket(5, 5, []) is theirs.find_nearest_bucket(5, 5, []) is None


@pytest.mark.parametrize("resolution", [8, 100, 256, 512, 768, 1024, 1328])
def test_generate_buckets(resolution):
    for divisibility in (1, 8, 16, 64):
        for base in (None, [(1024, 1024), (832, 1216), (1216, 832), (416, 608)], []):
            expected = theirs.generate_aspect_ratio_buckets(resolution, divisibility, base)
            assert training_utils.generate_aspect_ratio_buckets(resolution, divisibility, base) == expected


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "box", "nearest", "nearest_exact", "hamming", "lanczos"])
def test_interpolation_resizes_alike(name):
    """Pillow images, which torchvision also gives to Pillow."""
    functional = pytest.importorskip("torchvision.transforms.functional")
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (19, 23, 3), np.uint8))
    for size in ((8, 11), (40, 31)):
        expected = functional.resize(image, list(size), theirs.resolve_interpolation_mode(name))
        ours = image.resize(size[::-1], training_utils.resolve_interpolation_mode(name))
        assert np.array_equal(np.asarray(ours), np.asarray(expected))


# Seeds and moving averages


def test_set_seed():
    theirs.set_seed(11)
    expected = random.random(), np.random.rand(), *torch.randn(20).tolist()
    training_utils.set_seed(11)
    assert (random.random(), np.random.rand(), *randn_tensor((20,)).asnumpy().tolist()) == expected


AVERAGES = [
    {},
    {"decay": 0.6},
    {"decay": 0.5, "min_decay": 0.3},
    {"min_decay": 0.9, "update_after_step": 3},
    {"update_after_step": 5},
    {"use_ema_warmup": True},
    {"use_ema_warmup": True, "inv_gamma": 2.0, "power": 0.75, "decay": 0.7},
    {"use_ema_warmup": True, "inv_gamma": 1, "power": 1, "update_after_step": 2},
]


def trajectory(seed=0, steps=20):
    """Values of three parameters over some steps."""
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (5,), ())]
    for _ in range(steps + 1):
        yield [value.copy() for value in values]
        values = [np.asarray(value + 0.3 * rng.standard_normal(value.shape), np.float32) for value in values]


def parameter_pairs(values, frozen=()):
    mine = [ms.Parameter(ms.Tensor(value), name=f"p{i}", requires_grad=i not in frozen) for i, value in enumerate(values)]
    other = [torch.nn.Parameter(torch.from_numpy(value.copy()), requires_grad=i not in frozen) for i, value in enumerate(values)]
    return mine, other


@pytest.mark.parametrize("arguments", AVERAGES, ids=str)
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("frozen", [(), (1,)], ids=str)
def test_average_over_20_steps(arguments, foreach, frozen):
    values = trajectory()
    mine, other = parameter_pairs(next(values), frozen)
    ours = training_utils.EMAModel(mine, foreach=foreach, **arguments)
    expected = theirs.EMAModel(other, foreach=foreach, **arguments)
    for step, current in enumerate(values):
        for parameter, theirs_, value in zip(mine, other, current):
            parameter.copy_(ms.Tensor(value))
            theirs_.data.copy_(torch.from_numpy(value))
        ours.step(iter(mine))
        expected.step(iter(other))
        assert ours.optimization_step == expected.optimization_step == step + 1
        assert ours.cur_decay_value == expected.cur_decay_value
        for shadow, theirs_ in zip(ours.shadow_params, expected.shadow_params):
            close(shadow, theirs_, 3e-7 if foreach else 0)  # torch's foreach fuses the multiply-add
    state, their_state = ours.state_dict(), expected.state_dict()
    assert list(state) == list(their_state)
    assert {k: v for k, v in state.items() if k != "shadow_params"} == {k: v for k, v in their_state.items() if k != "shadow_params"}


def test_store_copy_restore():
    values = list(trajectory(steps=1))
    mine, other = parameter_pairs(values[0])
    averages = [training_utils.EMAModel(mine), theirs.EMAModel(other)]
    for parameter, theirs_, value in zip(mine, other, values[1]):
        parameter.copy_(ms.Tensor(value))
        theirs_.data.copy_(torch.from_numpy(value))
    for average, group in zip(averages, (mine, other)):
        with pytest.raises(RuntimeError):
            average.restore(group)
        average.store(group)
        average.copy_to(group)
    for parameter, theirs_, value in zip(mine, other, values[0]):
        assert np.array_equal(parameter.asnumpy(), value) and np.array_equal(theirs_.detach().numpy(), value)
    for average, group in zip(averages, (mine, other)):
        average.restore(group)
        assert average.temp_stored_params is None
    for parameter, theirs_, value in zip(mine, other, values[1]):
        assert np.array_equal(parameter.asnumpy(), value) and np.array_equal(theirs_.detach().numpy(), value)


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_average_in_another_dtype(dtype):
    mine, other = parameter_pairs(next(trajectory()))
    ours, expected = training_utils.EMAModel(mine), theirs.EMAModel(other)
    ours.to(device="cpu", dtype=dtype)
    expected.to(device="cpu", dtype=dtype and getattr(torch, dtype))
    for shadow, theirs_ in zip(ours.shadow_params, expected.shadow_params):
        close(shadow, theirs_, 0)


@pytest.mark.parametrize(
    "state",
    [
        {"decay": 1.1}, {"decay": -0.1}, {"min_decay": "0"}, {"optimization_step": 1.5}, {"update_after_step": None}, {"use_ema_warmup": 1},
        {"inv_gamma": "1"}, {"power": [1]}, {"shadow_params": ()}, {"shadow_params": [1.0]},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_states(state):
    for module, group in zip((training_utils, theirs), parameter_pairs(next(trajectory()))):
        with pytest.raises(ValueError):
            module.EMAModel(group).load_state_dict(state)


@pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours", "ours to ours"])
def test_saved_averages_are_exchanged(unets, direction, tmp_path):
    source, target = direction.split(" to ")
    modules = {"ours": (training_utils, unets[1], mindone_diffusers), "theirs": (theirs, unets[0], diffusers)}
    module, unet, library = modules[source]
    average = module.EMAModel(
        unet.parameters(), decay=0.99, use_ema_warmup=True, power=0.75, model_cls=library.UNet2DConditionModel, model_config=unet.config
    )
    average.shadow_params = [shadow + 1 for shadow in average.shadow_params]
    average.optimization_step = 12
    average.save_pretrained(tmp_path)
    module, _, library = modules[target]
    read = module.EMAModel.from_pretrained(tmp_path, library.UNet2DConditionModel)
    scalars = [{k: v for k, v in ema.state_dict().items() if k != "shadow_params"} for ema in (average, read)]
    assert scalars[0] == scalars[1] and scalars[0]["optimization_step"] == 12 and scalars[0]["power"] == 0.75
    orders = {"theirs": [name for name, _ in unets[0].named_parameters()], "ours": [name for name, _ in unets[1].named_parameters()]}
    written, found = (
        {name: np.asarray(shadow) for name, shadow in zip(orders[side], ema.shadow_params, strict=True)}
        for side, ema in ((source, average), (target, read))
    )
    assert written.keys() == found.keys() and all(np.array_equal(written[name], found[name]) for name in written)
    read.save_pretrained(tmp_path / "again")
    assert module.EMAModel.from_pretrained(tmp_path / "again", library.UNet2DConditionModel).optimization_step == 12


def test_cast_training_params():
    state = make_state({"weight": (4, 3), "bias": (4,)})
    layer, torch_layer = nn.Linear(3, 4), torch.nn.Linear(3, 4)
    for name, value in state.items():
        getattr(layer, name).set_data(ms.Tensor(value))
        getattr(torch_layer, name).data = torch.from_numpy(value)
    layer.weight.set_dtype(ms.float16), layer.bias.set_dtype(ms.float16)
    torch_layer.half()
    layer.bias.requires_grad = torch_layer.bias.requires_grad = False
    for model, other in ((layer, torch_layer), ([layer], [torch_layer])):
        training_utils.cast_training_params(model)
        theirs.cast_training_params(other)
        for name in state:
            close(getattr(layer, name), getattr(torch_layer, name), 0)
    training_utils.cast_training_params(layer, ms.float16)
    assert layer.weight.dtype == layer.bias.dtype == ms.float16
