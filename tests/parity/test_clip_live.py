"""CLIP and the safety checker against transformers' and diffusers' PyTorch classes, side by side."""

import json
import shutil

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
upstream = pytest.importorskip("diffusers.pipelines.stable_diffusion.safety_checker")
from safetensors.numpy import load_file, save_file  # noqa: E402

from mindone_diffusers import text_encoders  # noqa: E402
from mindone_diffusers.backend import graph  # noqa: E402
from mindone_diffusers.core import logging  # noqa: E402
from mindone_diffusers.core.errors import ConfigError, WeightsMismatchError  # noqa: E402
from mindone_diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker  # noqa: E402

from .. import harness, torch_side  # noqa: E402
from ..cases.text_encoders import CASES  # noqa: E402

TOLERANCE = 2e-6  # of each output's scale


def ours(case, torch_model):
    model = getattr(text_encoders, case["class"])(**case["config"])
    model.load_state_dict({name: value.detach().numpy() for name, value in torch_model.named_parameters()})  # strict: the same names
    return model


def outputs(model, case):
    to_numpy = lambda tensor: tensor.astype(ms.float32).asnumpy()  # noqa: E731
    return harness.flatten_output(model(**harness.map_arrays(ms.Tensor, harness.make_inputs(case))), to_numpy)


def worst(got, want):
    assert got.keys() == want.keys()
    return max(harness.relative_error(got[name], want[name]) for name in want)


@pytest.fixture(scope="module", params=CASES)
def pair(request):
    case = CASES[request.param]
    torch_model = torch_side.build(case)
    return case, ours(case, torch_model), torch_side.run(torch_model, case)["__call__"]


def test_every_output(pair):
    case, model, want = pair
    assert worst(outputs(model, case), want) <= TOLERANCE


def test_graph_mode_compiles_once(pair):
    case, model, want = pair
    if not case.get("graph"):
        pytest.skip("one case a class is enough")
    model.enable_graph_mode()
    before = graph.compilations()
    for _ in range(2):
        assert worst(outputs(model, case), want) <= TOLERANCE
    assert graph.compilations() == before + 1
    model.disable_graph_mode()


def test_batch_is_the_same_as_one_by_one(pair):
    case, model, want = pair
    inputs = harness.make_inputs(case)
    first = {name: value[:1] if isinstance(value, np.ndarray) else value for name, value in inputs.items()}
    got = harness.flatten_output(model(**first), lambda tensor: tensor.asnumpy())
    assert worst(got, {name: value[:1] for name, value in want.items()}) <= TOLERANCE


TEXT, VISION = CASES["clip_text"]["config"], CASES["clip_vision"]["config"]


@pytest.fixture(scope="module")
def text():
    model = text_encoders.CLIPTextModel(TEXT)
    model.load_state_dict(harness.make_state({name: p.shape for name, p in model.named_parameters()}))
    return model


def test_inputs_of_every_kind_agree(text):
    ids = [[58, 7, 21, 59]]
    want = text(ids).last_hidden_state.asnumpy()
    for same in (np.array(ids), ms.Tensor(ids, ms.int64), ms.Tensor(ids, ms.int32), ids[0]):
        assert (text(same)[0].asnumpy() == want).all()
    mask = [[1, 1, 1, 1]]
    for same in (mask, np.array(mask, bool), ms.Tensor(mask, ms.float32)):
        np.testing.assert_allclose(text(ids, attention_mask=same)[0].asnumpy(), want, atol=1e-5)


def test_tuple_indexing(text):
    plain = text([[58, 59]], return_dict=False)
    assert len(plain) == 2
    full = text([[58, 59]], output_hidden_states=True)
    assert list(full.keys()) == ["last_hidden_state", "pooler_output", "hidden_states"]
    for skip in (0, 1):
        hidden = full[-1][-(skip + 1)]
        assert hidden is full.hidden_states[-(skip + 1)]
    again = text.text_model.final_layer_norm(full.hidden_states[-1])
    assert (again.asnumpy() == full.last_hidden_state.asnumpy()).all()


def test_left_padding_is_finite_and_keeps_the_rest(text):
    """Nothing may be attended to before the first kept token; what PyTorch computes there depends on its attention kernel."""
    torch_model = torch_side.build(CASES["clip_text"])
    ids, mask = [[3, 4, 58, 7, 59]], [[0, 0, 1, 1, 1]]
    with torch.no_grad():
        want = torch_model(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    got = text(ids, attention_mask=mask).last_hidden_state.asnumpy()
    assert np.isfinite(got).all()
    assert harness.relative_error(got[:, 2:], want[:, 2:]) <= TOLERANCE


def test_jitted_outer_cell_and_global_graph_mode(text):
    ids = ms.Tensor([[58, 7, 59]], ms.int32)
    want = text(ids).last_hidden_state.asnumpy()
    np.testing.assert_allclose(ms.jit(text.construct)(ids)[0].asnumpy(), want, atol=1e-5)
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        out = text(ids, output_hidden_states=True)
        np.testing.assert_allclose(out.last_hidden_state.asnumpy(), want, atol=1e-5)
        np.testing.assert_allclose(text.text_model.final_layer_norm(out.hidden_states[-1]).asnumpy(), want, atol=1e-5)
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_bad_inputs_say_so(text):
    with pytest.raises(ValueError, match="17 tokens.*16 positions"):
        text(np.zeros((1, 17), int))
    with pytest.raises(ValueError, match="attention_mask has shape"):
        text([[1, 2]], attention_mask=[[1, 1, 1]])
    with pytest.raises(TypeError, match="inputs_embeds"):
        text([[1, 2]], inputs_embeds=None)
    with pytest.raises(ConfigError, match="hidden_sizes"):
        text_encoders.CLIPTextModel(hidden_sizes=4)
    with pytest.raises(ConfigError, match="activation 'tan'"):
        text_encoders.CLIPTextModel({**TEXT, "hidden_act": "tan"})
    with pytest.raises(ConfigError, match="not a multiple"):
        text_encoders.CLIPVisionModel(VISION, num_attention_heads=5)
    with pytest.raises(ValueError, match="pixel_values has shape"):
        text_encoders.CLIPVisionModel(VISION)(np.zeros((1, 3, 8, 8), np.float32))


# Files


CLASSES = ["CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModel", "CLIPVisionModelWithProjection"]


def whole_clip():
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    return transformers.CLIPModel(config).eval()


def inputs_for(name):
    return np.array([[58, 3, 4, 59]]) if "Text" in name else harness.make_input("pixel_values", (1, 3, 16, 16))


def agree(model, torch_model, name):
    inputs = inputs_for(name)
    with torch.no_grad():
        want = harness.flatten_output(torch_model(torch.from_numpy(inputs)), lambda tensor: tensor.numpy())
    assert worst(harness.flatten_output(model(inputs), lambda tensor: tensor.asnumpy()), want) <= 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_files_go_both_ways(name, tmp_path):
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    torch_model = cls(cls.config_class(**(TEXT if "Text" in name else VISION))).eval()
    torch_model.save_pretrained(tmp_path / "theirs")
    model = getattr(text_encoders, name).from_pretrained(tmp_path / "theirs")
    agree(model, torch_model, name)
    model.save_pretrained(tmp_path / "ours", max_shard_size="20KB")
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 1
    again, info = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    for key, value in torch_model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    kept = {key: value for key, value in torch_model.config.to_dict().items() if key not in ("_name_or_path", "architectures")}
    assert kept.items() <= again.config.to_dict().items()


@pytest.mark.parametrize("name", CLASSES)
def test_a_part_of_a_whole_clip(name, tmp_path):
    whole_clip().save_pretrained(tmp_path)
    agree(getattr(text_encoders, name).from_pretrained(tmp_path), getattr(transformers, name).from_pretrained(tmp_path).eval(), name)


@pytest.mark.parametrize("name", ["CLIPTextModel", "CLIPVisionModel"])
def test_files_of_transformers_4(name, tmp_path):
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    torch_model = cls(cls.config_class(**(TEXT if "Text" in name else VISION))).eval()
    torch_model.save_pretrained(tmp_path)
    to_transformers_4(tmp_path, "text_model." if "Text" in name else "vision_model.", "fp16")
    model = getattr(text_encoders, name).from_pretrained(tmp_path, variant="fp16")
    agree(model, torch_model, name)
    assert model.dtype == ms.float32
    assert getattr(text_encoders, name).from_pretrained(tmp_path, variant="fp16", torch_dtype=torch.float16).dtype == ms.float16
    short = getattr(text_encoders, name).from_pretrained(tmp_path, variant="fp16", num_hidden_layers=1)
    assert len(short.encoder.layers) == 1


def to_transformers_4(folder, prefix, variant):
    """Rewrite a folder as transformers 4 wrote it: a prefix, the buffer of positions, `torch_dtype`, a few more entries."""
    file = folder / "model.safetensors"
    old = {prefix + name: value for name, value in load_file(file).items()}
    old[prefix + "embeddings.position_ids"] = np.arange(16)[None]
    file.unlink()
    save_file(old, folder / f"model.{variant}.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"torch_dtype": config.pop("dtype"), "transformers_version": "4.19.2", "_name_or_path": "somewhere", "dropout": 0.0}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_file_without_the_projection_is_an_error(tmp_path, text):
    text.save_pretrained(tmp_path)
    with pytest.raises(WeightsMismatchError, match="text_projection.weight"):
        text_encoders.CLIPTextModelWithProjection.from_pretrained(tmp_path)


def test_the_inner_model_keeps_its_weights(tmp_path):
    """A model inside another is not filled again when it is first used by itself."""
    model = text_encoders.CLIPTextModelWithProjection(TEXT)
    before = model.state_dict()["text_model.final_layer_norm.bias"].asnumpy() + 1
    model.text_model.final_layer_norm.bias.set_data(ms.Tensor(before))
    model.text_model([[58, 59]])
    assert (model.state_dict()["text_model.final_layer_norm.bias"].asnumpy() == before).all()


# The safety checker


@pytest.fixture(scope="module")
def checkers():
    """Both checkers, with thresholds that flag some of 24 images, some of them only by the special-care adjustment."""
    torch.manual_seed(1)
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    theirs = upstream.StableDiffusionSafetyChecker(config).eval()
    state = harness.make_state({name: tuple(value.shape) for name, value in theirs.state_dict().items()})
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    pixels = harness.make_input("clip_input", (24, 3, 16, 16))
    with torch.no_grad():
        embeds = theirs.visual_projection(theirs.vision_model(torch.from_numpy(pixels))[1])
        cosines = upstream.cosine_distance(embeds, theirs.concept_embeds).numpy()
        special = upstream.cosine_distance(embeds, theirs.special_care_embeds).numpy()
        top = np.sort(cosines, axis=0)
        # Even concepts flag nobody without the adjustment of 0.01, the first two odd ones flag their nearest image, the rest nobody.
        thresholds = np.full(17, 1.0)
        thresholds[0:8:2] = top[-1, 0:8:2] + 0.005
        thresholds[1:4:2] = (top[-1, 1:4:2] + top[-2, 1:4:2]) / 2
        theirs.concept_embeds_weights.copy_(torch.from_numpy(thresholds))
        theirs.special_care_embeds_weights.copy_(torch.from_numpy(np.quantile(special, 0.8, axis=0)))
    mine = StableDiffusionSafetyChecker(config)
    mine.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    return mine, theirs, pixels


def test_decisions(checkers):
    mine, theirs, pixels = checkers
    images = harness.make_input("images", ("uniform", (24, 8, 8, 3)))
    want_images, want = theirs(torch.from_numpy(pixels), images.copy())
    got_images, got = mine(pixels, images)
    assert got == want
    assert 0 < sum(want) < len(want)
    assert (got_images == want_images).all() and got_images.dtype == images.dtype
    # The adjustment decides for some of them.
    with torch.no_grad():
        saved = theirs.special_care_embeds_weights.clone()
        theirs.special_care_embeds_weights.fill_(2.0)
        _, unadjusted = theirs(torch.from_numpy(pixels), images.copy())
        theirs.special_care_embeds_weights.copy_(saved)
    assert 0 < sum(unadjusted) < sum(want)


def test_every_kind_of_images(checkers):
    mine, _, pixels = checkers
    images = harness.make_input("images", ("uniform", (24, 8, 8, 3)))
    want, flags = mine(pixels, images)
    assert (images[np.array(flags)] != 0).any(), "the caller's images are left alone"
    tensors, same = mine(ms.Tensor(pixels), ms.Tensor(images.transpose(0, 3, 1, 2)))
    assert same == flags and (tensors.asnumpy().transpose(0, 2, 3, 1) == want).all()
    arrays, _ = mine(pixels, list(images))
    assert isinstance(arrays, list) and (np.stack(arrays) == want).all()
    singles, _ = mine(pixels, [ms.Tensor(image) for image in images])
    assert all((single.asnumpy() == image).all() for single, image in zip(singles, want))


def test_cosines_eager_graph_and_float16(checkers):
    mine, theirs, pixels = checkers
    with torch.no_grad():
        embeds = theirs.visual_projection(theirs.vision_model(torch.from_numpy(pixels))[1])
        want = [upstream.cosine_distance(embeds, e).numpy() for e in (theirs.special_care_embeds, theirs.concept_embeds)]
    images = np.ones((24, 4, 4, 3), np.float32)
    _, flags = mine(pixels, images)
    for got, reference in zip(mine.construct(ms.Tensor(pixels)), want):
        assert harness.relative_error(got.asnumpy(), reference) <= TOLERANCE
    mine.enable_graph_mode()
    assert mine(pixels, images)[1] == flags
    mine.disable_graph_mode()
    half = StableDiffusionSafetyChecker(mine.config)
    half.load_state_dict({name: parameter.asnumpy() for name, parameter in mine.state_dict().items()})
    half.half()
    for got, reference in zip(half.construct(ms.Tensor(pixels, ms.float16)), want):
        assert harness.relative_error(got.asnumpy(), reference) <= 1e-2


def test_warning(checkers):
    mine, _, pixels = checkers
    records = []
    handler = type("Collect", (logging.logging.Handler,), {"emit": lambda self, record: records.append(record.getMessage())})()
    logging.add_handler(handler)
    mine(pixels, np.ones((24, 4, 4, 3)))
    logging.remove_handler(handler)
    assert len(records) == 1 and "black" in records[0]


def test_checker_files(checkers, tmp_path):
    mine, theirs, pixels = checkers
    theirs.save_pretrained(tmp_path / "theirs")
    images = np.ones((24, 4, 4, 3), np.float32)
    flags = mine(pixels, images)[1]
    loaded = StableDiffusionSafetyChecker.from_pretrained(tmp_path / "theirs")
    assert loaded(pixels, images)[1] == flags
    loaded.save_pretrained(tmp_path / "ours")
    again = upstream.StableDiffusionSafetyChecker.from_pretrained(tmp_path / "ours").eval()
    assert again(torch.from_numpy(pixels), images.copy())[1] == flags
    # As published with Stable Diffusion 1.x: the vision model's names doubled, buffers, and a second vision config that wins.
    old = tmp_path / "old"
    shutil.copytree(tmp_path / "theirs", old)
    state = load_file(old / "model.safetensors")
    state = {("vision_model." + name if name.startswith("vision_model.") else name): value for name, value in state.items()}
    state["vision_model.vision_model.embeddings.position_ids"] = np.arange(17)[None]
    save_file(state, old / "model.safetensors", {"format": "pt"})
    config = json.loads((old / "config.json").read_text())
    config["vision_config_dict"], config["vision_config"] = config["vision_config"], {"hidden_size": 8, "projection_dim": 99}
    (old / "config.json").write_text(json.dumps(config))
    assert StableDiffusionSafetyChecker.from_pretrained(old)(pixels, images)[1] == flags
