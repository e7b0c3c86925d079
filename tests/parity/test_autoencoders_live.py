"""The autoencoders of images next to PyTorch diffusers, on full tensors."""

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers.models.autoencoders.vae import Decoder, DiagonalGaussianDistribution, blend

from .. import harness, ms_side
from ..cases.autoencoders import CASES

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
from .. import torch_side  # noqa: E402

TOLERANCE = 1e-4
KL, TINY = CASES["kl"], CASES["tiny"]
EXP = 2e-5  # the float32 exponential of MindSpore 2.8 on the CPU is off by up to 1.1e-5 of its value


def close(actual: ms.Tensor, expected: "torch.Tensor", tolerance: float = TOLERANCE) -> None:
    error = harness.relative_error(actual.astype(ms.float32).asnumpy(), expected.float().numpy())
    assert error <= tolerance, error


def images(name: str, shape: tuple[int, ...]) -> tuple[ms.Tensor, "torch.Tensor"]:
    array = harness.make_input(name, shape)
    return ms.Tensor(array), torch.from_numpy(array)


def both(case):
    return ms_side.build(case), torch_side.build(case)


def check_case(name: str, tolerance: float = TOLERANCE, dtype=None, graph: bool = False) -> None:
    ours, theirs = both(CASES[name])
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours = ours if dtype is None else ours.to(dtype)
    actual = ms_side.run(ours.enable_graph_mode() if graph else ours, CASES[name], dtype)
    expected = torch_side.run(theirs, CASES[name])
    assert actual.keys() == expected.keys()
    for call, fields in expected.items():
        assert fields.keys() == actual[call].keys()
        for field, value in fields.items():
            error = harness.relative_error(actual[call][field], value)
            assert error <= tolerance, f"{call}.{field}: {error}"


@pytest.mark.parametrize("name", CASES)
def test_eager(name):
    check_case(name)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.get("graph")])
def test_graph_mode(name):
    check_case(name, graph=True)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.get("float16")])
def test_float16(name):
    check_case(name, 2e-2, ms.float16)


@pytest.mark.parametrize("name", ["kl", "tiny", "asym", "consistency"])
def test_configs_agree(name):
    ours, theirs = both(CASES[name])
    config = dict(theirs.config)
    assert {key: ours.config[key] for key in config if not key.startswith("_")} == {
        key: value for key, value in config.items() if not key.startswith("_")
    }


# The posterior


@pytest.mark.parametrize("seed", [0, 7])
def test_sample_has_the_noise_of_a_torch_generator(seed):
    from mindone_diffusers import Generator

    ours, theirs = both(KL)
    x, y = images("x", (2, 3, 16, 16))
    with torch.no_grad():
        expected = theirs.encode(y).latent_dist
        draw = expected.sample(torch.Generator().manual_seed(seed))
        forward = theirs(y, sample_posterior=True, generator=torch.Generator().manual_seed(seed)).sample
    actual = ours.encode(x).latent_dist
    close(actual.sample(Generator().manual_seed(seed)), draw)
    close(actual.sample(torch.Generator().manual_seed(seed)), draw)
    close(actual.mode(), expected.mode())
    close(ours(x, sample_posterior=True, generator=Generator().manual_seed(seed)).sample, forward)


def test_sample_with_numpy_generators():
    parameters = ms.Tensor(harness.make_input("moments", (2, 8, 3, 5)))
    posterior = DiagonalGaussianDistribution(parameters)
    noise = np.random.default_rng(3).standard_normal((2, 4, 3, 5)).astype(np.float32)
    drawn = posterior.sample(np.random.default_rng(3)).asnumpy()
    np.testing.assert_allclose(drawn, posterior.mean.asnumpy() + posterior.std.asnumpy() * noise, rtol=1e-6, atol=1e-6)
    one_each = posterior.sample([np.random.default_rng(3), np.random.default_rng(4)]).asnumpy()
    np.testing.assert_array_equal(one_each[0], DiagonalGaussianDistribution(parameters[:1]).sample(np.random.default_rng(3)).asnumpy()[0])


def test_posterior():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Theirs

    (a, a_), (b, b_), (x, x_) = images("a", (2, 8, 3, 5)), images("b", (2, 8, 3, 5)), images("x", (2, 4, 3, 5))
    a, a_ = a * 15, a_ * 15  # so that both clamps of the log-variance act
    ours, theirs = DiagonalGaussianDistribution(a), Theirs(a_)
    assert theirs.logvar.min() == -30 and theirs.logvar.max() == 20
    for name in ("mean", "logvar", "std", "var", "parameters"):
        close(getattr(ours, name), getattr(theirs, name), EXP)
    close(ours.kl(), theirs.kl(), EXP)
    close(ours.kl(DiagonalGaussianDistribution(b)), theirs.kl(Theirs(b_)), EXP)
    close(ours.nll(x), theirs.nll(x_), EXP)
    close(ours.nll(x, dims=[1, 2]), theirs.nll(x_, dims=[1, 2]), EXP)
    ours, theirs = DiagonalGaussianDistribution(a, deterministic=True), Theirs(a_, deterministic=True)
    close(ours.sample(), theirs.sample())
    for actual, expected in ((ours.kl(), theirs.kl()), (ours.nll(x), theirs.nll(x_)), (ours.std, theirs.std), (ours.var, theirs.var)):
        np.testing.assert_array_equal(actual.asnumpy(), expected.numpy())


def test_spatially_normalised_decoder():
    from diffusers.models.autoencoders.vae import Decoder as Theirs

    from mindone_diffusers import nn

    options = {
        "in_channels": 4, "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), "block_out_channels": (32, 64),
        "layers_per_block": 1, "norm_type": "spatial",
    }  # fmt: skip
    ours, theirs = Decoder(**options), Theirs(**options).eval()
    assert {name for name, _ in ours.parameters_and_names()} == set(theirs.state_dict())
    for name, parameter in ours.parameters_and_names():
        parameter.set_data(ms.Tensor(harness.make_weight(name, parameter.shape)))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.from_numpy(harness.make_weight(name, tuple(parameter.shape))))
        assert isinstance(ours, nn.Module)
        (x, x_), (z, z_) = images("x", (1, 4, 6, 5)), images("z", (1, 4, 6, 5))
        close(ours(x, z), theirs(x_, z_))


# Slicing and tiling


@pytest.mark.parametrize("name", ["kl", "tiny"])
def test_slicing_changes_nothing(name):
    model = ms_side.build(CASES[name])
    x = images("batch", (3, 3, 16, 16))[0]
    whole = model.encode(x)[0]
    model.enable_slicing()
    sliced = model.encode(x)[0]
    if name == "kl":
        whole, sliced = whole.mode(), sliced.mode()
    np.testing.assert_allclose(sliced.asnumpy(), whole.asnumpy(), rtol=0, atol=1e-6)
    pixels = model.decode(whole).sample.asnumpy()
    model.disable_slicing()
    np.testing.assert_allclose(pixels, model.decode(whole).sample.asnumpy(), rtol=0, atol=1e-6)


def set_kl_tiles(model, size: int, overlap: float) -> None:
    model.tile_sample_min_size = size
    model.tile_latent_min_size = size // 2 ** (len(model.config.block_out_channels) - 1)
    model.tile_overlap_factor = overlap
    model.enable_tiling()


# Sizes: whole tiles, one row, short last tiles, last tiles shorter than the seam, and an image of one tile.
@pytest.mark.parametrize(
    "name, height, width",
    [
        ("kl", 32, 32), ("kl", 16, 40), ("kl", 36, 28), ("kl", 26, 50), ("kl", 16, 16), ("kl_no_quant_convs", 36, 28),
        ("kl_three_blocks", 36, 28), ("kl_three_blocks", 16, 40),
    ],
)  # fmt: skip
def test_kl_tiling(name, height, width):
    ours, theirs = both(CASES[name])
    for model in (ours, theirs):
        set_kl_tiles(model, 16, 0.25)
    factor = 2 ** (len(ours.config.block_out_channels) - 1)
    x, y = images("x", (2, 3, height, width))
    z, w = images("z", (2, ours.config.latent_channels, height // factor, width // factor))
    with torch.no_grad():
        close(ours.encode(x).latent_dist.parameters, theirs.encode(y).latent_dist.parameters)
        close(ours.decode(z).sample, theirs.decode(w).sample)
        close(ours(x).sample, theirs(y).sample)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5])
def test_kl_tile_overlap(overlap):
    ours, theirs = both(KL)
    for model in (ours, theirs):
        set_kl_tiles(model, 16, overlap)
        model.enable_slicing()
    (x, y), (z, w) = images("x", (2, 3, 36, 30)), images("z", (2, 4, 18, 15))
    with torch.no_grad():
        close(ours.encode(x).latent_dist.parameters, theirs.encode(y).latent_dist.parameters)
        close(ours.decode(z).sample, theirs.decode(w).sample)


def test_kl_tiles_smaller_than_a_latent():
    """Upstream fails on them; they add nothing."""
    model = ms_side.build(KL)
    x = images("x", (1, 3, 25, 12))[0]  # tiles start at 0, 12 and 24
    above, below = (model.encode(part).latent_dist.parameters for part in (x[:, :, :16], x[:, :, 12:]))
    set_kl_tiles(model, 16, 0.25)
    expected = np.concatenate([above.asnumpy()[:, :, :6], blend(above, below, 2, 2).asnumpy()[:, :, :6]], 2)
    np.testing.assert_allclose(model.encode(x).latent_dist.parameters.asnumpy(), expected, rtol=0, atol=1e-6)


def test_kl_tiling_compiles_once_a_tile_shape():
    from mindone_diffusers.backend import graph

    ours, theirs = both(CASES["kl_no_mid_attention"])
    z, w = images("z", (1, 4, 14, 6))  # rows of tiles start at 0, 6 and 12: two of 8 x 6, one of 2 x 6
    with torch.no_grad():
        whole = theirs.decode(w).sample
        set_kl_tiles(theirs, 16, 0.25)
        tiled = theirs.decode(w).sample
    set_kl_tiles(ours.enable_graph_mode(), 16, 0.25)
    before = graph.compilations()
    close(ours.decode(z).sample, tiled)
    assert graph.compilations() - before == 2
    close(ours.decode(z).sample, tiled)
    assert graph.compilations() - before == 2
    ours.disable_tiling()
    close(ours.decode(z).sample, whole)
    assert graph.compilations() - before == 3


def test_kl_default_tiles():
    ours, theirs = both(CASES["kl_three_blocks"])
    for name in ("tile_sample_min_size", "tile_latent_min_size", "tile_overlap_factor", "use_tiling", "use_slicing"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    "height, width, tile, overlap",
    [(128, 112, 64, 0.25), (64, 176, 64, 0.25), (64, 64, 64, 0.5), (40, 32, 64, 0.25), (200, 120, 96, 1 / 3), (136, 72, 64, 0.5)],
)
def test_tiny_tiling(height, width, tile, overlap):
    ours, theirs = both(TINY)
    for model in (ours, theirs):
        model.enable_tiling()
        model.tile_sample_min_size, model.tile_latent_min_size, model.tile_overlap_factor = tile, tile // 8, overlap
    (x, y), (z, w) = images("x", (2, 3, height, width)), images("z", (2, 4, height // 8, width // 8))
    with torch.no_grad():
        close(ours.encode(x).latents, theirs.encode(y).latents)
        close(ours.decode(z).sample, theirs.decode(w).sample)


def test_tiny_default_tiles():
    ours, theirs = both(TINY)
    for name in ("tile_sample_min_size", "tile_latent_min_size", "tile_overlap_factor", "spatial_scale_factor", "use_tiling"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_tiny_tiling_of_other_factors_and_overlaps():
    """What upstream cannot do: no overlap, an overlap of one latent, channels other than 4 and 3, a decoder of another factor."""
    model = ms_side.build(CASES["tiny_factor_three"])
    model.enable_tiling()
    model.tile_latent_min_size = 2
    for overlap in (0.0, 0.5):
        model.tile_overlap_factor = overlap
        pixels = model.decode(images("z", (1, 4, 4, 4))[0]).sample.asnumpy()
        assert pixels.shape == (1, 3, 108, 108) and np.isfinite(pixels).all() and (np.abs(pixels).max((1, 2)) > 0).all()
    model = ms_side.build(CASES["tiny_channels"])
    model.enable_tiling()
    model.tile_sample_min_size = 8
    assert model(images("x", (1, 1, 12, 16))[0]).sample.shape == (1, 2, 12, 16)


def test_tiny_scaling():
    ours, theirs = both(CASES["tiny_silu_magnitude"])
    x, y = images("x", (3, 5))
    close(ours.scale_latents(x), theirs.scale_latents(y), 1e-6)
    close(ours.unscale_latents(x), theirs.unscale_latents(y), 1e-6)


# Attention processors


def test_attention_processors():
    from mindone_diffusers.models.attention import AttnProcessor

    ours, theirs = both(KL)
    assert ours.attn_processors.keys() == theirs.attn_processors.keys()
    ours.set_default_attn_processor()
    assert all(isinstance(processor, AttnProcessor) for processor in ours.attn_processors.values())
    x, y = images("x", (1, 3, 16, 16))
    with torch.no_grad():
        close(ours(x).sample, theirs(y).sample)


# Errors and outputs


def test_outputs():
    model, x = ms_side.build(KL), images("x", (1, 3, 16, 16))[0]
    (posterior,) = model.encode(x, return_dict=False)
    z = posterior.mode()
    (sample,) = model.decode(z, return_dict=False, generator=None)
    np.testing.assert_array_equal(model(x, return_dict=False)[0].asnumpy(), sample.asnumpy())
    np.testing.assert_array_equal(model.construct(x)[0].asnumpy(), sample.asnumpy())
    model, x = ms_side.build(TINY), images("x", (1, 3, 16, 16))[0]
    (latents,) = model.encode(x, return_dict=False)
    assert model.decode(latents, None, False)[0].shape == x.shape
    np.testing.assert_array_equal(model(x)[0].asnumpy(), model.construct(x)[0].asnumpy())


@pytest.mark.parametrize("name", ["kl", "tiny"])
def test_bad_inputs(name):
    model = ms_side.build(CASES[name])
    with pytest.raises(ValueError, match=r"x has the shape \(1, 4, 16, 16\); expected \(batch, 3, height, width\)"):
        model.encode(ms.Tensor(np.zeros((1, 4, 16, 16), np.float32)))
    with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\)"):
        model(ms.Tensor(np.zeros((3, 16, 16), np.float32)))
    with pytest.raises(ValueError, match=r"expected \(batch, 4, height, width\)"):
        model.decode(ms.Tensor(np.zeros((1, 3, 16, 16), np.float32)))
    with pytest.raises(TypeError, match="cast one of them"):
        model.encode(ms.Tensor(np.zeros((1, 3, 16, 16), np.float16)))
    with pytest.raises(TypeError, match="expected a mindspore.Tensor"):
        model.encode(np.zeros((1, 3, 16, 16), np.float32))


def test_bad_sizes():
    with pytest.raises(ValueError, match="x is 1 x 8; expected a height and a width of at least 2"):
        ms_side.build(KL).encode(ms.Tensor(np.zeros((1, 3, 1, 8), np.float32)))
    model = ms_side.build(TINY)
    model.enable_tiling()
    with pytest.raises(ValueError, match="x is 20 x 16; expected multiples of 8"):
        model.encode(ms.Tensor(np.zeros((1, 3, 20, 16), np.float32)))


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("kl", {"down_block_types": ("DownEncoderBlock2D",)}, "down_block_types has 1 entries, block_out_channels has 2"),
        ("kl", {"up_block_types": ("UpDecoderBlock2D",) * 3}, "up_block_types has 3 entries, block_out_channels has 2"),
        ("kl", {"act_fn": "tanh"}, "tanh"),
        ("kl", {"down_block_types": ("DownEncoderBlock2D", "Nothing")}, "Nothing"),
        ("kl", {"up_block_types": ("UpDecoderBlock2D", "Nothing")}, "Nothing"),
        ("tiny", {"num_encoder_blocks": (1, 2)}, "encoder_block_out_channels has 4 entries, num_encoder_blocks has 2"),
        ("tiny", {"num_decoder_blocks": (1, 2)}, "decoder_block_out_channels has 4 entries, num_decoder_blocks has 2"),
        ("tiny", {"act_fn": "tanh"}, "tanh"),
        ("asym", {"down_block_types": ("DownEncoderBlock2D",)}, "down_block_types has 1 entries, block_out_channels has 2"),
        ("asym", {"up_block_types": ("UpDecoderBlock2D",) * 3}, "up_block_types has 3 entries, block_out_channels has 2"),
        ("consistency", {"encoder_down_block_types": ("DownEncoderBlock2D",)}, "down_block_types has 1 entries, block_out_channels has 2"),
        ("consistency", {"decoder_time_embedding_type": "none"}, "Unknown time_embedding_type 'none'"),
    ],
)
def test_bad_configs(name, change, message):
    with pytest.raises(ValueError, match=message):
        ms_side.build({**CASES[name], "config": {**CASES[name]["config"], **change}})


@pytest.mark.parametrize("name", ["kl", "tiny"])
def test_files_of_both_libraries(name, tmp_path):
    ours, theirs = both(CASES[name])
    x, y = images("x", (1, 3, 16, 16))
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    with torch.no_grad():
        close(type(ours).from_pretrained(tmp_path / "theirs")(x).sample, theirs(y).sample)
        close(ours(x).sample, type(theirs).from_pretrained(tmp_path / "ours")(y).sample)


# AsymmetricAutoencoderKL


def test_asymmetric_files_and_draws(tmp_path):
    from mindone_diffusers import Generator

    ours, theirs = both(CASES["asym"])
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    (x, y), (mask, mask_) = images("x", (1, 3, 16, 16)), images("mask", ("bool", (1, 1, 16, 16)))
    mask, mask_ = mask.astype(ms.float32), mask_.float()
    with torch.no_grad():
        theirs_read = type(theirs).from_pretrained(tmp_path / "ours")
        expected = theirs_read(y, mask_, sample_posterior=True, generator=torch.Generator().manual_seed(5)).sample
        (kept,) = theirs(y, mask_, return_dict=False)
    read = type(ours).from_pretrained(tmp_path / "theirs")
    for model in (ours, read):
        close(model(x, mask, sample_posterior=True, generator=Generator().manual_seed(5)).sample, expected)
        close(model(x, mask, False, False)[0], kept)
        close(model.construct(x, mask)[0], kept)


def test_asymmetric_half_precision_takes_float32_images():
    model, (z, _) = ms_side.build(CASES["asym"], ms.float16), images("z", (1, 4, 8, 8))
    z, image, mask = z.astype(ms.float16), images("x", (1, 3, 16, 16))[0], images("mask", ("uniform", (1, 1, 16, 16)))[0]
    sample = model.decode(z, image=image, mask=mask).sample
    assert sample.dtype == ms.float16
    np.testing.assert_array_equal(sample.asnumpy(), model.decode(z, None, image.astype(ms.float16), mask.astype(ms.float16))[0].asnumpy())


@pytest.mark.parametrize(
    "image, mask, message",
    [
        ((2, 3, 16, 16), (1, 1, 16, 16), r"image has the shape \(2, 3, 16, 16\); expected \(1, 3, 16, 16\)"),
        ((1, 3, 16, 14), (1, 1, 16, 14), r"image has the shape \(1, 3, 16, 14\); expected \(1, 3, 16, 16\)"),
        ((1, 4, 16, 16), (1, 1, 16, 16), r"image has the shape \(1, 4, 16, 16\); expected \(1, 3, 16, 16\)"),
        ((1, 3, 16, 16), (1, 1, 8, 8), r"mask has the shape \(1, 1, 8, 8\); expected \(1 or 1, 1, 16, 16\)"),
        ((1, 3, 16, 16), (1, 3, 16, 16), r"mask has the shape \(1, 3, 16, 16\); expected \(1 or 1, 1, 16, 16\)"),
    ],
)
def test_asymmetric_bad_conditions(image, mask, message):
    model, z = ms_side.build(CASES["asym"]), images("z", (1, 4, 8, 8))[0]
    with pytest.raises(ValueError, match=message):
        model.decode(z, image=images("x", image)[0], mask=images("mask", mask)[0])


@pytest.mark.parametrize("widths", [(8, 16, 8), (16, 8), (8, 12, 16), (4, 8, 16, 16, 16), (4, 64, 64)])
def test_asymmetric_decoders_that_take_no_mask(widths):
    """Neither do upstream's, which raise a KeyError."""
    case = {
        "class": "AsymmetricAutoencoderKL",
        "config": {"up_block_types": ("UpDecoderBlock2D",) * len(widths), "up_block_out_channels": widths, "down_block_out_channels": (8,),
                   "norm_num_groups": 4},
    }  # fmt: skip
    ours, theirs = both(case)
    size = 4 * 2 ** (len(widths) - 1)
    (z, z_), (x, x_), (mask, mask_) = (
        images("z", (1, 4, 4, 4)),
        images("x", (1, 3, size, size)),
        images("m", ("uniform", (1, 1, size, size))),
    )
    with torch.no_grad():
        close(ours.decode(z).sample, theirs.decode(z_).sample)
        with pytest.raises(KeyError):
            theirs.decode(z_, image=x_, mask=mask_)
    with pytest.raises(ValueError, match="leave out image and mask"):
        ours.decode(z, image=x, mask=mask)


def test_asymmetric_has_no_tiling_and_no_slicing():
    ours, theirs = both(CASES["asym"])
    for model in (ours, theirs):
        with pytest.raises(NotImplementedError, match="[Tt]iling"):
            model.enable_tiling()
        with pytest.raises(NotImplementedError, match="[Ss]licing"):
            model.enable_slicing()
    ours.disable_tiling()
    with pytest.raises(NotImplementedError, match="has no tiling"):
        ours.enable_tiling()


# ConsistencyDecoderVAE


def test_consistency_decoder_files_and_generators(tmp_path):
    from mindone_diffusers import Generator

    ours, theirs = both(CASES["consistency"])
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    (x, y), (z, w) = images("x", (2, 3, 16, 12)), images("z", (2, 4, 8, 6))
    with torch.no_grad():
        read_there = type(theirs).from_pretrained(tmp_path / "ours")
        drawn = read_there(y, True, generator=torch.Generator().manual_seed(1)).sample
        decoded = theirs.decode(w, [torch.Generator().manual_seed(seed) for seed in (1, 2)], return_dict=False)[0]
    for model in (ours, type(ours).from_pretrained(tmp_path / "theirs")):
        close(model(x, True, generator=Generator().manual_seed(1)).sample, drawn)
        close(model.decode(z, [Generator().manual_seed(seed) for seed in (1, 2)], return_dict=False)[0], decoded)
    assert ours.decode(z).sample.shape == (2, 3, 16, 12)


@pytest.mark.parametrize("slicing", [False, True])
def test_consistency_encoder_tiling_and_slicing(slicing):
    ours, theirs = both(CASES["consistency"])
    for name in ("tile_sample_min_size", "tile_latent_min_size", "tile_overlap_factor", "use_tiling", "use_slicing"):
        assert getattr(ours, name) == getattr(theirs, name)
    x, y = images("x", (2, 3, 36, 28))
    for model in (ours, theirs):
        model.enable_tiling()
        if slicing:
            model.enable_slicing()
    with torch.no_grad():
        close(ours.encode(x).latent_dist.parameters, theirs.encode(y).latent_dist.parameters)


def test_consistency_decoder_compiles_once():
    from mindone_diffusers import Generator
    from mindone_diffusers.backend import graph

    model, z = ms_side.build(CASES["consistency"]).enable_graph_mode(), images("z", (1, 4, 8, 8))[0]
    before = graph.compilations()
    first = model.decode(z, Generator().manual_seed(0)).sample.asnumpy()
    second = model.decode(z, Generator().manual_seed(0)).sample.asnumpy()
    assert graph.compilations() - before == 1
    np.testing.assert_array_equal(first, second)


def test_consistency_attention_processors():
    from mindone_diffusers.models.attention import AttnProcessor

    ours, theirs = both(CASES["consistency_options"])
    assert ours.attn_processors.keys() == theirs.attn_processors.keys() and len(ours.attn_processors) == 2
    ours.set_default_attn_processor()
    assert {type(processor) for processor in ours.attn_processors.values()} == {AttnProcessor}


def test_consistency_bad_inputs():
    model, z = ms_side.build(CASES["consistency"]), images("z", (1, 4, 8, 8))[0]
    with pytest.raises(ValueError, match="num_inference_steps is 3; this scheduler has 2 steps"):
        model.decode(z, num_inference_steps=3)
    with pytest.raises(ValueError, match=r"z has the shape \(1, 3, 8, 8\); expected \(batch, 4, height, width\)"):
        model.decode(images("z", (1, 3, 8, 8))[0])
    with pytest.raises(ValueError, match=r"x has the shape \(1, 4, 8, 8\); expected \(batch, 3, height, width\)"):
        model.encode(z)
