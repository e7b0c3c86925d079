"""`DiffusionPipeline`: folders, classes that a file may name, and switches; on a small pipeline that draws nothing."""

import json
import logging
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler, StableDiffusionPipeline
from mindone_diffusers.core.errors import CheckpointError, ConfigError, UnsupportedError
from mindone_diffusers.pipelines.components import component_class, component_entry
from mindone_diffusers.pipelines.pipeline_utils import needed_files
from mindone_diffusers.text_encoders.clip import CLIPTextModel
from tests.tiny_checkpoint import make_tokenizer

TEXT = {"vocab_size": 514, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


class TextPipeline(DiffusionPipeline):
    _optional_components = ["text_encoder_2"]

    def __init__(self, text_encoder, tokenizer, scheduler, text_encoder_2=None, strength: float = 1.0):
        self.register_modules(text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler, text_encoder_2=text_encoder_2)
        self.register_to_config(strength=strength)


class OtherPipeline(DiffusionPipeline):
    def __init__(self, text_encoder, scheduler, colour: str = "red"):
        self.register_modules(text_encoder=text_encoder, scheduler=scheduler)
        self.register_to_config(colour=colour)


def text_encoder(seed: int = 0) -> CLIPTextModel:
    model = CLIPTextModel(TEXT)
    model.fill_parameters(seed)
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def pipe(tokenizer):
    return TextPipeline(text_encoder(), tokenizer, DDIMScheduler(), strength=0.5)


@pytest.fixture
def folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def values(model) -> np.ndarray:
    return np.concatenate([parameter.asnumpy().ravel() for parameter in model.state_dict().values()])


def edit_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# Folders


def test_save_and_load(pipe, folder):
    assert json.loads((folder / "model_index.json").read_text()) == {
        "_class_name": "TextPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "strength": 0.5,
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": [None, None],
        "tokenizer": ["transformers", type(pipe.tokenizer).__name__],
    }
    loaded = TextPipeline.from_pretrained(folder)
    assert loaded.name_or_path == str(folder) and loaded.parameters == {"strength": 0.5}
    assert loaded.text_encoder_2 is None
    np.testing.assert_array_equal(values(loaded.text_encoder), values(pipe.text_encoder))
    assert loaded.tokenizer("a cat").input_ids == pipe.tokenizer("a cat").input_ids
    saved = {name: value for name, value in pipe.scheduler.config.items() if not name.startswith("_")}
    assert {name: loaded.scheduler.config[name] for name in saved} == saved
    assert repr(loaded).startswith("TextPipeline {")


def test_keywords_replace_components_and_options(folder):
    mine, scheduler = text_encoder(1), EulerDiscreteScheduler()
    loaded = TextPipeline.from_pretrained(folder, text_encoder=mine, scheduler=scheduler, text_encoder_2=mine, strength=2.0)
    assert loaded.text_encoder is loaded.text_encoder_2 is mine and loaded.scheduler is scheduler
    assert loaded.config["scheduler"] == ("diffusers", "EulerDiscreteScheduler") and loaded.config["strength"] == 2.0


def test_unknown_keywords_are_refused(folder):
    with pytest.raises(TypeError, match=r"\['schedule'\].*'scheduler'.*'strength'"):
        TextPipeline.from_pretrained(folder, schedule=None)


def test_missing_components_are_named(folder):
    edit_index(folder, scheduler=[None, None])
    with pytest.raises(ConfigError, match=r"\['scheduler'\]"):
        TextPipeline.from_pretrained(folder)
    assert TextPipeline.from_pretrained(folder, scheduler=DDIMScheduler()).scheduler is not None


def test_unknown_entries_are_ignored_with_a_warning(folder, caplog):
    edit_index(folder, watermark=["diffusers", "Watermark"])
    logging.getLogger("mindone_diffusers").propagate = True
    TextPipeline.from_pretrained(folder)
    logging.getLogger("mindone_diffusers").propagate = False
    assert "watermark" in caplog.text


def test_an_interrupted_save_leaves_the_old_folder(folder, tokenizer, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    new = TextPipeline(text_encoder(1), tokenizer, DDIMScheduler(), strength=0.7)
    monkeypatch.setattr(new.scheduler, "save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        new.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_variants(pipe, folder, tokenizer, caplog):
    with pytest.raises(CheckpointError, match="fp16"):
        TextPipeline.from_pretrained(folder, variant="fp16")
    other = TextPipeline(text_encoder(1), tokenizer, DDIMScheduler(), text_encoder(2))
    other.save_pretrained(folder, variant="fp16")
    other.text_encoder_2.save_pretrained(folder / "text_encoder_2")
    (folder / "text_encoder_2" / "model.fp16.safetensors").unlink()
    logging.getLogger("mindone_diffusers").propagate = True
    loaded = TextPipeline.from_pretrained(folder, variant="fp16")
    logging.getLogger("mindone_diffusers").propagate = False
    assert "text_encoder_2" in caplog.text
    np.testing.assert_array_equal(values(loaded.text_encoder), values(other.text_encoder))
    np.testing.assert_array_equal(values(loaded.text_encoder_2), values(other.text_encoder_2))
    np.testing.assert_array_equal(values(TextPipeline.from_pretrained(folder).text_encoder), values(pipe.text_encoder))


def test_shards(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, max_shard_size=20_000)
    assert (tmp_path / "text_encoder" / "model.safetensors.index.json").is_file()
    np.testing.assert_array_equal(values(TextPipeline.from_pretrained(tmp_path).text_encoder), values(pipe.text_encoder))


def test_dtypes(folder, pipe):
    for arguments in ({"mindspore_dtype": ms.float16}, {"dtype": "fp16"}, {"torch_dtype": "torch.float16"}):
        assert TextPipeline.from_pretrained(folder, **arguments).dtype == ms.float16
    parts = {"text_encoder_2": "fp16", "default": "fp32"}
    loaded = TextPipeline.from_pretrained(folder, dtype=parts, text_encoder_2=text_encoder())
    assert loaded.text_encoder.dtype == ms.float32
    assert TextPipeline.from_pretrained(folder, dtype={"text_encoder": "fp16"}).text_encoder.dtype == ms.float16
    assert pipe.to(ms.float16).dtype == ms.float16 and pipe.to("cpu", "float32").dtype == ms.float32


def test_refusals(folder, pipe):
    for arguments in ({"use_safetensors": False}, {"device_map": "balanced"}, {"custom_pipeline": "x"}, {"trust_remote_code": True}):
        with pytest.raises(UnsupportedError, match=next(iter(arguments))):
            TextPipeline.from_pretrained(folder, **arguments)
    with pytest.raises(UnsupportedError, match="safe_serialization"):
        pipe.save_pretrained(folder, safe_serialization=False)
    with pytest.raises(UnsupportedError, match="leave"):
        pipe.to("cuda")
    for method in ("enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"):
        with pytest.raises(UnsupportedError, match="offload"):
            getattr(pipe, method)()
    with pytest.raises(CheckpointError):
        TextPipeline.from_pretrained(folder / "nowhere")
    pipe.maybe_free_model_hooks()


# Classes that a file may name


@pytest.mark.parametrize(
    "entry",
    [
        ["os", "system"], ["builtins", "eval"], ["planted", "Class"], ["planted", "planted"], ["transformers", "AutoModel"],
        ["transformers", "pipeline"], ["transformers", 5], ["diffusers", "ConfigMixin"], ["diffusers", "logging"],
        ["diffusers", "StableDiffusionPipeline"], ["mindone_diffusers.core.files", "replaced_file"], ["stable_diffusion", "logger"],
        ["stable_diffusion.safety_checker", "StableDiffusionSafetyChecker"], ["..text_encoders", "CLIPTextModel"], [["os"], "system"],
    ],
    ids=str,
)  # fmt: skip
def test_files_cannot_name_other_classes(entry, folder, tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    edit_index(folder, text_encoder=entry)
    with pytest.raises(UnsupportedError, match="text_encoder"):
        TextPipeline.from_pretrained(folder)
    assert TextPipeline.from_pretrained(folder, text_encoder=text_encoder()).text_encoder is not None


@pytest.mark.parametrize("name", ["CLIPTextModel", "logging", "NoSuchPipeline", ["pipeline", "Mine"], None])
def test_files_cannot_name_other_pipelines(name, folder):
    edit_index(folder, _class_name=name)
    with pytest.raises(UnsupportedError, match="pipeline class"):
        DiffusionPipeline.from_pretrained(folder)


def test_known_classes():
    assert component_class("diffusers", "DDIMScheduler") is DDIMScheduler
    assert component_class("transformers", "CLIPTextModel") is CLIPTextModel
    assert component_class("transformers", "CLIPTokenizer").__module__.startswith("transformers")
    assert component_class("transformers", "CLIPImageProcessor").__name__ == "CLIPImageProcessorPil"
    assert component_class("transformers", "CLIPFeatureExtractor").__name__ == "CLIPImageProcessorPil"
    assert component_entry(component_class("transformers", "CLIPImageProcessor")()) == ("transformers", "CLIPImageProcessor")
    checker = component_class("stable_diffusion", "StableDiffusionSafetyChecker")
    assert checker.__name__ == "StableDiffusionSafetyChecker"


def test_only_components_are_components(pipe):
    with pytest.raises(ConfigError, match="builtins.object"):
        pipe.text_encoder = object()
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert pipe.config["scheduler"] == ("diffusers", "EulerDiscreteScheduler")
    pipe.text_encoder_2 = text_encoder()
    assert pipe.config["text_encoder_2"] == ("transformers", "CLIPTextModel")


# The hub

FILES = [
    "README.md", "model_index.json", "v1-5.ckpt", "v1-5.safetensors", "pipeline.py",
    "unet/config.json", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/code.py",
    "text/config.json", "text/model-00001-of-00002.safetensors", "text/model-00002-of-00002.safetensors",
    "text/model.safetensors.index.json", "text/model.fp16-00001-of-00001.safetensors", "text/model.safetensors.index.fp16.json",
    "text/pytorch_model.bin.index.json", "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "image_encoder/model.safetensors", "unet/deep/config.json",
]  # fmt: skip
INDEX = {
    "_class_name": "X", "unet": ["diffusers", "A"], "text": ["transformers", "B"], "tokenizer": ["transformers", "C"],
    "scheduler": ["diffusers", "D"], "vae": ["diffusers", "E"], "image_encoder": [None, None], "option": True,
}  # fmt: skip
ALWAYS = {
    "model_index.json", "unet/config.json", "text/config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "scheduler/scheduler_config.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
}  # fmt: skip


def test_only_needed_files_are_downloaded():
    plain = {"unet/diffusion_pytorch_model.safetensors", *(f for f in FILES if f.startswith("text/model-")),
             "text/model.safetensors.index.json"}  # fmt: skip
    half = {f for f in FILES if "fp16" in f}
    assert set(needed_files(FILES, INDEX, None, ())) == ALWAYS | plain
    assert set(needed_files(FILES, INDEX, "fp16", ())) == ALWAYS | half
    without = {f for f in ALWAYS | plain if not f.startswith(("vae/", "text/"))}
    assert set(needed_files(FILES, INDEX, None, ("vae", "text"))) == without
    with pytest.raises(CheckpointError, match="unet has pickled weights only"):
        needed_files([f for f in FILES if not (f.startswith("unet") and "safetensors" in f)], INDEX, None, ())


def test_a_list_of_models_is_downloaded_as_a_whole():
    """`controlnet_1`, ... are folders of `controlnet`; `unet_1_0` is none of `unet`, nor `unet_2`, which the index has itself."""
    weights = "diffusion_pytorch_model"
    names = [f"{part}/{file}" for part in ("net", "net_1", "net_12", "unet", "unet_2", "unet_1_0", "net_1_0", "other_1")
             for file in ("config.json", f"{weights}.safetensors", f"{weights}.bin")]  # fmt: skip
    names += [f"{part}/{weights}.fp16.safetensors" for part in ("net", "net_1", "net_12")]
    index = {"net": ["diffusers", "MultiControlNetModel"], "unet": ["diffusers", "A"], "unet_2": [None, None]}

    def files(*parts, variant=""):
        return {f"{part}/{file}" for part in parts for file in ("config.json", f"{weights}{variant}.safetensors")}

    always = {"model_index.json"} | files("unet")
    assert set(needed_files(names, index, None, ())) == always | files("net", "net_1", "net_12")
    assert set(needed_files(names, index, "fp16", ())) == always | files("net", "net_1", "net_12", variant=".fp16")
    assert set(needed_files(names, index, None, ("net",))) == always
    with pytest.raises(CheckpointError, match="net_1 has pickled weights only"):
        needed_files([name for name in names if not (name.startswith("net_1/") and "safetensors" in name)], index, None, ())


def test_download(folder, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot(repo, **options):
        asked.update(options)
        return str(folder)

    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo, **options: [*names, "text_encoder/pytorch_model.bin"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, filename, **options: str(folder / filename))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    loaded = TextPipeline.from_pretrained("someone/something", token="secret", revision="v2")
    assert sorted(asked["allow_patterns"]) == sorted(names)
    assert asked["token"] == "secret" and asked["revision"] == "v2" and loaded.name_or_path == "someone/something"

    def unreachable(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    assert TextPipeline.download("someone/something") == str(folder)
    assert asked["local_files_only"]


# Switches


def test_from_pipe(pipe):
    other = OtherPipeline.from_pipe(pipe)
    assert other.text_encoder is pipe.text_encoder and other.scheduler is pipe.scheduler
    assert other.config["_strength"] == 0.5 and "_tokenizer" in other.config
    back = TextPipeline.from_pipe(other, tokenizer=pipe.tokenizer)
    assert back.parameters == {"strength": 0.5} and back.text_encoder_2 is None
    assert TextPipeline(**pipe.components, **pipe.parameters).config == pipe.config
    with pytest.raises(ConfigError, match=r"\['tokenizer'\]"):
        TextPipeline.from_pipe(other)
    with pytest.raises(TypeError, match="color"):
        OtherPipeline.from_pipe(pipe, color="blue")
    assert OtherPipeline.from_pipe(pipe, dtype=ms.float16).dtype == ms.float16


def test_graph_mode_reaches_every_model(pipe):
    ids = pipe.tokenizer(["a cat"], return_tensors="np").input_ids
    eager = pipe.text_encoder(ids)[0].asnumpy()
    assert pipe.enable_graph_mode() is pipe
    np.testing.assert_allclose(pipe.text_encoder(ids)[0].asnumpy(), eager, atol=1e-6)
    assert pipe.text_encoder._compiled
    pipe.disable_graph_mode()
    np.testing.assert_array_equal(pipe.text_encoder(ids)[0].asnumpy(), eager)


def test_progress_bar(pipe, capsys):
    pipe.set_progress_bar_config(desc="drawing")
    assert list(pipe.progress_bar(range(3))) == [0, 1, 2]
    with pipe.progress_bar(total=2) as bar:
        bar.update()
    assert "drawing" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    assert list(pipe.progress_bar(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError):
        pipe.progress_bar()


def test_importing_is_light():
    heavy = "transformers", "huggingface_hub", "torch"
    code = f"import sys, mindone_diffusers; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_class_is_found_in_the_file(folder, pipe):
    edit_index(folder, _class_name="StableDiffusionPipeline")
    with pytest.raises(ConfigError, match="StableDiffusionPipeline needs"):
        DiffusionPipeline.from_pretrained(folder)
    assert issubclass(StableDiffusionPipeline, DiffusionPipeline)
