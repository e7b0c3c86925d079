"""training_utils without torch: values computed by hand or from the papers' formulas, errors, gradients, compiled graphs."""

import math
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindone_diffusers import ModelMixin, UNet2DConditionModel, nn, training_utils
from mindone_diffusers.core.errors import ConfigError, UnsupportedError
from mindone_diffusers.core.random import Generator, randn_tensor
from mindone_diffusers.training_utils import (
    EMAModel,
    cast_training_params,
    compute_confidence_aware_loss,
    compute_density_for_timestep_sampling,
    compute_dream_and_update_latents,
    compute_loss_weighting_for_sd3,
    compute_snr,
)


def tensor(values, dtype=np.float32):
    return ms.Tensor(np.array(values, dtype))


def scheduler(prediction_type="epsilon"):
    table = np.array([0.75, 0.5, 0.2], np.float32)
    return SimpleNamespace(alphas_cumprod=table, config=SimpleNamespace(prediction_type=prediction_type))


def test_set_seed():
    def draw():
        return randn_tensor((3,)).asnumpy().tolist(), np.random.rand(), ms.get_seed()

    training_utils.set_seed(7)
    first = draw()
    assert draw() != first
    training_utils.set_seed(7)
    assert draw() == first


def test_snr():
    for timesteps in (tensor([[0, 1], [2, 1]], np.int64), tensor([[0, 1], [2, 1]], np.int32)):
        snr = compute_snr(scheduler(), timesteps)
        assert isinstance(snr, ms.Tensor) and snr.dtype == ms.float32
        np.testing.assert_allclose(snr.asnumpy(), [[3, 1], [0.25, 1]], rtol=1e-6)
    assert compute_snr(scheduler(), np.array([2])).tolist() == pytest.approx([0.25])


# Densities


def test_densities_from_a_numpy_generator():
    def u(*arguments, **keywords):
        density = compute_density_for_timestep_sampling(*arguments, **keywords, generator=np.random.default_rng(3))
        assert isinstance(density, ms.Tensor) and density.dtype == ms.float32
        return density.asnumpy()

    normal, uniform = np.random.default_rng(3).standard_normal(64), np.random.default_rng(3).random(64)
    np.testing.assert_allclose(u("none", 64), uniform, atol=1e-7)
    np.testing.assert_allclose(u("logit_normal", 64, logit_mean=0.5, logit_std=2.0), 1 / (1 + np.exp(-0.5 - 2 * normal)), atol=1e-7)
    mode = 1 - uniform - 1.29 * (np.cos(np.pi / 2 * uniform) ** 2 - 1 + uniform)
    np.testing.assert_allclose(u("mode", 64, mode_scale=1.29), mode, atol=1e-6)


def test_a_density_picks_timesteps_as_upstream_loops_do():
    training_utils.set_seed(0)
    u = compute_density_for_timestep_sampling("logit_normal", batch_size=500, logit_mean=0.0, logit_std=1.0)
    timesteps = np.linspace(1000, 1, 1000)[(u * 1000).long()]
    assert timesteps.shape == (500,) and 450 < np.median(timesteps) < 550  # a symmetric distribution
    training_utils.set_seed(0)
    again = compute_density_for_timestep_sampling("logit_normal", 500, 0.0, 1.0)
    assert np.array_equal(u.asnumpy(), again.asnumpy())


def test_densities_of_torch_seeds():
    """torch.rand and torch.randn from seed 42 (their documented first numbers)."""
    u = compute_density_for_timestep_sampling("uniform", 3, generator=Generator().manual_seed(42))
    np.testing.assert_allclose(u.asnumpy(), [0.88226926, 0.91500396, 0.38286376], atol=1e-7)
    u = compute_density_for_timestep_sampling("logit_normal", 2, 0.0, 1.0, generator=Generator().manual_seed(42))
    np.testing.assert_allclose(u.asnumpy(), 1 / (1 + np.exp(-np.array([0.33669037, 0.12880941]))), atol=1e-6)


@pytest.mark.parametrize(
    "scheme, arguments, missing",
    [
        ("logit_normal", {}, "logit_mean and logit_std"),
        ("logit_normal", {"logit_mean": 0.0}, "logit_std"),
        ("mode", {"logit_mean": 0.0}, "mode_scale"),
    ],
)
def test_density_errors(scheme, arguments, missing):
    with pytest.raises(ConfigError, match=f"weighting_scheme '{scheme}' needs {missing}"):
        compute_density_for_timestep_sampling(scheme, 2, **arguments)


@pytest.mark.parametrize("scheme, expected", [("sigma_sqrt", [1, 4, 16]), ("cosmap", [2, 4, 3.2]), ("none", [1, 1, 1])])
def test_loss_weighting(scheme, expected):
    sigmas = np.array([1, 0.5, 0.25], np.float32)
    expected = np.array(expected) / (math.pi if scheme == "cosmap" else 1)
    np.testing.assert_allclose(compute_loss_weighting_for_sd3(scheme, ms.Tensor(sigmas)).asnumpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(compute_loss_weighting_for_sd3(scheme, sigmas), expected, rtol=1e-6)

    @ms.jit
    def compiled(sigmas):
        return compute_loss_weighting_for_sd3(scheme, sigmas)

    np.testing.assert_allclose(compiled(ms.Tensor(sigmas)).asnumpy(), expected, rtol=1e-6)


# Confidence


def test_confidence_of_known_distributions():
    """Probabilities (1/2, 1/4, 1/4): the entropy is 1.5 bits, the surprise 1, 2 and 2 bits."""
    bit = math.log(2)
    logits = tensor([[[bit, 0, 0], [bit, 0, 0], [bit, 0, 0], [0, 0, 0]]])
    labels = tensor([[0, 1, 0, -100]], np.int64)
    loss, sft, conf = compute_confidence_aware_loss(logits, labels, lambda_conf=0.5)
    assert float(sft) == pytest.approx(bit * 4 / 3, rel=1e-6)  # 1, 2 and 1 bits; the last does not count
    assert float(conf) == pytest.approx(1.5 * bit, rel=1e-6)  # of the first and the third, which are right
    assert float(loss) == pytest.approx(bit * (4 / 3 + 0.75), rel=1e-6)
    weights = tensor([[1, 2, 0, 5]])
    loss, sft, conf = compute_confidence_aware_loss(logits, labels, lambda_conf=0.5, per_token_weights=weights)
    assert float(sft) == pytest.approx(bit * 5 / 3, rel=1e-6) and float(conf) == pytest.approx(1.5 * bit, rel=1e-6)
    # A temperature of 1/2 squares the probabilities: 2/3, 1/6, 1/6.
    _, _, conf = compute_confidence_aware_loss(logits, labels, lambda_conf=0.5, temperature=0.5)
    assert float(conf) == pytest.approx(-2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 6), rel=1e-6)
    loss, sft, conf = compute_confidence_aware_loss(logits, labels)
    assert float(loss) == float(sft) and float(conf) == 0


@pytest.mark.parametrize(
    "shapes, arguments, message",
    [
        (((9,), ()), {}, r"logits of shape \(9,\); expected at least two axes"),
        (((2, 3, 9), (2, 4)), {}, r"labels of shape \(2, 4\); expected \(2, 3\)"),
        (((2, 9), (2,)), {"temperature": 0.0}, "temperature is 0.0; expected more than 0"),
        (((2, 9), (2,)), {"per_token_weights": tensor([1.0])}, r"per_token_weights of shape \(1,\); expected \(2,\)"),
    ],
    ids=str,
)
def test_confidence_errors(shapes, arguments, message):
    with pytest.raises(ValueError, match=message):
        compute_confidence_aware_loss(tensor(np.zeros(shapes[0])), tensor(np.zeros(shapes[1]), np.int64), **arguments)


# DREAM


class Doubling:
    """A model that predicts twice its input."""

    def __call__(self, sample, timestep, encoder_hidden_states):
        return SimpleNamespace(sample=2 * sample)


@pytest.mark.parametrize("timesteps", [tensor([0, 2], np.int64), np.array([0, 2])], ids=["tensor", "array"])
def test_dream(timesteps):
    ones = tensor(np.ones((2, 1, 1, 1)))
    noise, latents, target = 5 * ones, 2 * ones, 3 * ones
    new_latents, new_target = compute_dream_and_update_latents(Doubling(), scheduler(), timesteps, noise, latents, target, None)
    # error 5 - 4 = 1, times sqrt(1 - a) = 0.5 and sqrt(0.8)
    np.testing.assert_allclose(new_target.asnumpy().ravel(), [3.5, 3 + 0.8**0.5], rtol=1e-6)
    np.testing.assert_allclose(new_latents.asnumpy().ravel(), [2.25, 2.8], rtol=1e-6)
    new_latents, new_target = compute_dream_and_update_latents(Doubling(), scheduler(), timesteps, noise, latents, target, None, 2.0)
    np.testing.assert_allclose(new_target.asnumpy().ravel(), [3.25, 3.8], rtol=1e-6)


def test_no_gradient_passes_through_dream():
    noise, latents, target = (tensor(np.full((1, 1, 1, 1), value)) for value in (3, 1, 2))
    timesteps = np.array([0])

    def total(latents):
        new_latents, new_target = compute_dream_and_update_latents(Doubling(), scheduler(), timesteps, noise, latents, target, None)
        return (new_latents + new_target).sum()

    assert ms.grad(total)(latents).asnumpy().ravel() == [1]  # with the model's, it would be -1


def test_dream_errors():
    ones = tensor(np.ones((1, 1, 1, 1)))
    for prediction_type, error in (("v_prediction", UnsupportedError), ("sample", ConfigError)):
        with pytest.raises(error, match=prediction_type):
            compute_dream_and_update_latents(Doubling(), scheduler(prediction_type), np.array([0]), ones, ones, ones, None)


# Models

SMALL_UNET = {"block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8, "cross_attention_dim": 12, "norm_num_groups": 4,
              "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
              "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}  # fmt: skip


def test_cast_training_params():
    unet = UNet2DConditionModel(**SMALL_UNET).to(ms.float16)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad = name.startswith("conv_out")
    cast_training_params([unet])
    dtypes = {name: parameter.dtype for name, parameter in unet.named_parameters()}
    assert {name for name, dtype in dtypes.items() if dtype == ms.float32} == {"conv_out.weight", "conv_out.bias"}


class Scale(ModelMixin):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter((2,))

    def construct(self, x):
        return (x * self.weight,)

    def __call__(self, x):
        return self._run("construct", x)[0]


def test_a_cast_model_is_compiled_again():
    """Also inside a cell of the user's."""
    model, half = Scale().to(ms.float16).enable_graph_mode(), tensor([1, 2], np.float16)
    assert model(half).dtype == ms.float16
    cast_training_params(ms.nn.SequentialCell(model))
    assert model.dtype == ms.float32 and model(half).dtype == ms.float32


def test_offload_models():
    with training_utils.offload_models(object(), device="cpu"):
        pass
    with pytest.raises(UnsupportedError, match="cuda"), training_utils.offload_models(object(), device="cuda"):
        pass
    with training_utils.offload_models(object(), device="cuda", offload=False):
        pass
    with pytest.raises(KeyError, match="inside"), training_utils.offload_models(object(), device="cpu"):
        raise KeyError("inside")


def test_free_memory():
    class Node:
        pass

    import weakref

    node = Node()
    node.itself = node
    alive = weakref.ref(node)
    del node
    training_utils.free_memory()
    assert alive() is None


# Images


def test_buckets():
    buckets = training_utils.parse_buckets_string(" 512,768; 768 , 512;640,640")
    assert buckets == [(512, 768), (768, 512), (640, 640)]
    nearest = training_utils.find_nearest_bucket
    assert [nearest(h, w, buckets) for h, w in ((100, 150), (150, 100), (99, 100), (10, 100))] == [0, 1, 2, 0]
    assert nearest(1, 1, [(8, 8), (16, 16)]) == 1  # the last of equals
    with pytest.warns(UserWarning, match=r"\(100, 64\) is not divisible by 8"):
        assert training_utils.parse_buckets_string("100,64") == [(100, 64)]


@pytest.mark.parametrize("text, message", [("", "no buckets"), ("8,8;", "bucket ''"), ("8x8", "bucket '8x8'"), ("0,8", "bucket '0,8'")])
def test_bucket_errors(text, message):
    with pytest.raises(ConfigError, match=message):
        training_utils.parse_buckets_string(text)


def test_generated_buckets():
    buckets = training_utils.generate_aspect_ratio_buckets(512)
    assert buckets[:3] == [(512, 512), (576, 464), (464, 576)] and len(buckets) == len(set(buckets)) == 11
    assert all(h % 16 == w % 16 == 0 and abs(h * w / 512**2 - 1) < 0.05 for h, w in buckets)
    assert training_utils.generate_aspect_ratio_buckets(512, 64, [(1024, 1024), (2048, 1024), (100, 100)]) == [(512, 512), (704, 384)]
    assert training_utils.generate_aspect_ratio_buckets(4, 16) == [(16, 16)]


def test_interpolation_modes():
    resolve = training_utils.resolve_interpolation_mode
    names = ("bilinear", "bicubic", "box", "nearest", "nearest_exact", "hamming", "lanczos")
    assert [int(resolve(name)) for name in names] == [2, 3, 4, 0, 0, 5, 1]  # Pillow's and torchvision's numbers
    row = Image.fromarray(np.arange(4, dtype=np.uint8)[None] * 10)
    assert np.asarray(row.resize((2, 1), resolve("nearest_exact"))).tolist() == [[10, 30]]
    assert np.asarray(row.resize((2, 1), resolve("box"))).tolist() == [[5, 25]]
    with pytest.raises(ConfigError, match="interpolation_type is 'cubic'; expected one of bilinear"):
        resolve("cubic")


# Moving averages


def parameters(*values, frozen=()):
    return [ms.Parameter(tensor(value), name=f"p{i}", requires_grad=i not in frozen) for i, value in enumerate(values)]


def shadows(ema):
    return [shadow.asnumpy().tolist() for shadow in ema.shadow_params]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, [0, 2 / 11, 3 / 12, 4 / 13]),
        ({"decay": 0.2}, [0, 2 / 11, 0.2, 0.2]),
        ({"min_decay": 0.27}, [0, 0.27, 0.27, 4 / 13]),
        ({"update_after_step": 2}, [0, 0, 0, 2 / 11]),
        ({"use_ema_warmup": True, "power": 1}, [0, 1 / 2, 2 / 3, 3 / 4]),
        ({"use_ema_warmup": True, "power": 2, "inv_gamma": 2}, [0, 5 / 9, 3 / 4, 21 / 25]),
    ],
    ids=str,
)
def test_decays(arguments, expected):
    ema = EMAModel([], **arguments)
    assert [ema.get_decay(step) for step in (1, 2, 3, 4)] == pytest.approx(expected, rel=1e-12)
    assert ema.get_decay(10**9) == arguments.get("decay", 0.9999)


def test_average():
    """The plain mean of the steps, with inv_gamma = power = 1; the frozen parameter is copied."""
    params = parameters([0.0, 0.0], 0.0, frozen=(1,))
    ema = EMAModel(iter(params), use_ema_warmup=True, inv_gamma=1.0, power=1.0)
    for step, value in enumerate((4.0, 8.0, 0.0), 1):
        params[0].copy_(tensor([value, -value]))
        params[1].copy_(tensor(value))
        ema.step(iter(params))
        assert ema.optimization_step == step and ema.cur_decay_value == pytest.approx((step - 1) / step)
    assert np.array(shadows(ema)[0]) == pytest.approx(np.array([4, -4]), rel=1e-6) and shadows(ema)[1] == 0
    assert params[0].asnumpy().tolist() == [0, 0]


def test_averages_are_copies():
    params = parameters([1.0])
    ema = EMAModel(params)
    params[0].copy_(tensor([5.0]))
    assert shadows(ema) == [[1.0]]
    ema.copy_to(params)
    ema.shadow_params[0].copy_(tensor([7.0]))
    assert params[0].asnumpy().tolist() == [1.0]


def test_a_compiled_model_uses_the_averages_and_the_restored_values():
    class Net(ms.nn.Cell):
        def __init__(self):
            super().__init__()
            self.weight = ms.Parameter(tensor([1.0]))

        def construct(self, x):
            return x * self.weight

    net = Net()
    compiled = ms.jit(net)
    ema = EMAModel(net.trainable_params())
    net.weight.copy_(tensor([3.0]))
    assert compiled(tensor([2.0])).asnumpy() == [6]
    ema.store(net.trainable_params())
    ema.copy_to(net.trainable_params())
    assert compiled(tensor([2.0])).asnumpy() == [2]
    ema.restore(net.trainable_params())
    assert compiled(tensor([2.0])).asnumpy() == [6]
    with pytest.raises(RuntimeError, match="nothing to restore: call store"):
        ema.restore(net.trainable_params())


def test_states():
    ema = EMAModel(parameters([1.0, 2.0]), decay=0.5, power=0.75, update_after_step=3)
    ema.optimization_step = 9
    state = ema.state_dict()
    other = EMAModel(parameters([0.0, 0.0]))
    other.load_state_dict(state)
    assert shadows(other) == [[1, 2]]
    assert {name: state[name] for name in state if name != "shadow_params"} == {
        "decay": 0.5, "min_decay": 0.0, "optimization_step": 9, "update_after_step": 3, "use_ema_warmup": False, "inv_gamma": 1.0,
        "power": 0.75,
    }  # fmt: skip
    assert {**other.state_dict(), "shadow_params": None} == {**state, "shadow_params": None}
    state["shadow_params"][0].copy_(tensor([9.0, 9.0]))
    assert shadows(ema) == [[9, 9]] and shadows(other) == [[1, 2]]  # a reference is given, a copy is taken
    other.load_state_dict({"decay": 0.25, "shadow_params": [np.array([3, 4], np.float32)]})
    assert other.decay == 0.25 and other.power == 0.75 and shadows(other) == [[3, 4]]


@pytest.mark.parametrize(
    "state, message",
    [
        ({"decay": 1.5}, "decay is 1.5; expected a number from 0 to 1"),
        ({"optimization_step": 2.0}, "optimization_step is 2.0; expected int"),
        ({"power": "1"}, "power is '1'; expected float or int"),
        ({"shadow_params": [1.0]}, "shadow_params is not a list of tensors"),
    ],
)
def test_wrong_states_change_nothing(state, message):
    ema = EMAModel(parameters([1.0]))
    before = ema.state_dict()
    with pytest.raises(ConfigError, match=message):
        ema.load_state_dict({"min_decay": 0.5, **state})
    assert ema.state_dict() == before


def test_other_parameters():
    ema = EMAModel(parameters([1.0], [2.0]))
    for method in (ema.step, ema.copy_to, ema.store):
        with pytest.raises(ConfigError, match="1 parameters were given, but 2 are averaged"):
            method(parameters([1.0]))


@pytest.mark.skipif(ms.get_context("device_target") != "CPU", reason="Ascend averages in bfloat16")
def test_averages_of_bfloat16_are_float32_on_the_cpu():
    parameter = ms.Parameter(ms.Tensor([1.0, 2.0], ms.bfloat16), name="p")
    ema = EMAModel([parameter], decay=0.5)
    parameter.set_data(ms.Tensor([2.0, 2.0], ms.bfloat16))
    for _ in range(2):
        ema.step([parameter])
    assert ema.shadow_params[0].dtype == ms.float32
    assert ema.shadow_params[0].asnumpy()[0] > 1.1 and ema.shadow_params[0].asnumpy()[1] == 2
    ema.copy_to([parameter])
    assert parameter.dtype == ms.bfloat16
    assert parameter.asnumpy().astype(np.float32)[0] == pytest.approx(ema.shadow_params[0].asnumpy()[0], rel=2**-8)


def test_dtypes():
    ema = EMAModel([ms.Parameter(tensor([1.0]), name="a"), ms.Parameter(tensor([1], np.int32), name="b")])
    ema.to("cpu", "float16")
    assert [shadow.dtype for shadow in ema.shadow_params] == [ms.float16, ms.int32]
    with pytest.raises(UnsupportedError):
        ema.to("cuda")


def test_files(tmp_path):
    unet = UNet2DConditionModel(**SMALL_UNET)
    ema = EMAModel(unet.parameters(), decay=0.9, model_cls=UNet2DConditionModel, model_config=unet.config)
    for parameter in unet.parameters():
        parameter.copy_(parameter + 1)
    ema.step(unet.parameters())
    ema.step(unet.parameters())
    ema.save_pretrained(tmp_path)
    read = EMAModel.from_pretrained(tmp_path, UNet2DConditionModel)
    assert read.decay == 0.9 and read.optimization_step == 2
    assert all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(ema.shadow_params, read.shadow_params, strict=True))
    model = UNet2DConditionModel.from_pretrained(tmp_path)
    assert all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(ema.shadow_params, model.parameters(), strict=True))
    for arguments in ({}, {"model_cls": UNet2DConditionModel}, {"model_config": unet.config}):
        with pytest.raises(ConfigError, match="give EMAModel.* its model_cls and model_config"):
            EMAModel(unet.parameters(), **arguments).save_pretrained(tmp_path)
