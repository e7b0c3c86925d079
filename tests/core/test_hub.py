import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors as hf

from mindone_diffusers import AutoencoderTiny, DDIMScheduler, DDPMPipeline
from mindone_diffusers.core import hub
from mindone_diffusers.core.configuration import ConfigMixin
from mindone_diffusers.core.errors import CheckpointError, FileMissingError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(folder, *names, index=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(json.dumps({"weight_map": index}) if name.endswith(".json") and index else name)


@pytest.fixture
def cache(tmp_path):
    """A hub cache that holds one snapshot of org/name."""
    repo = tmp_path / "hub" / "models--org--name"
    write(repo / "refs", "main")
    (repo / "refs" / "main").write_text(COMMIT)
    write(repo / "snapshots" / COMMIT, "model_index.json")
    write(repo / "snapshots" / COMMIT / "unet", "config.json", "diffusion_pytorch_model.safetensors")
    return {"cache_dir": tmp_path / "hub", "local_files_only": True}


def response(status):
    return SimpleNamespace(status_code=status, headers={}, request=None)


def test_variant_name():
    assert hub.variant_name("diffusion_pytorch_model.safetensors", "fp16") == "diffusion_pytorch_model.fp16.safetensors"
    assert hub.variant_name(hub.SAFE_WEIGHTS_INDEX_NAME, "fp16") == "diffusion_pytorch_model.safetensors.index.fp16.json"
    assert hub.variant_name("model.safetensors", None) == "model.safetensors"


def test_local_folder(tmp_path):
    write(tmp_path, "config.json", "root.json")
    write(tmp_path / "unet", "config.json")
    assert hub.resolve_file(tmp_path, "config.json") == tmp_path / "config.json"
    assert hub.resolve_file(str(tmp_path), "config.json", subfolder="unet") == tmp_path / "unet" / "config.json"
    assert hub.resolve_file(tmp_path, "root.json", subfolder="unet") == tmp_path / "root.json"
    assert hub.resolve_snapshot(tmp_path, allow_patterns=["*.json"]) == tmp_path
    with pytest.raises(FileMissingError, match=r"unet has no file absent.json"):
        hub.resolve_file(tmp_path, "absent.json", subfolder="unet")


def test_local_cache(cache, tmp_path):
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT
    assert hub.resolve_file("org/name", "config.json", subfolder="unet", **cache) == snapshot / "unet" / "config.json"
    assert hub.resolve_file("org/name", "model_index.json", revision=COMMIT, **cache) == snapshot / "model_index.json"
    assert hub.resolve_snapshot("org/name", allow_patterns=["unet/*"], **cache) == snapshot
    files, index = hub.find_weights("org/name", subfolder="unet", **cache)
    assert files == [snapshot / "unet" / "diffusion_pytorch_model.safetensors"] and index is None
    for arguments in ({"filename": "absent.json"}, {"filename": "model_index.json", "revision": "v2"}):
        with pytest.raises(FileMissingError, match="org/name is not a folder here, and its file .* not in the local cache"):
            hub.resolve_file("org/name", **arguments, **cache)
    with pytest.raises(FileMissingError, match="fp16"):
        hub.find_weights("org/name", variant="fp16", subfolder="unet", **cache)
    with pytest.raises(FileMissingError, match="snapshot"):
        hub.resolve_snapshot("org/other", **cache)


@pytest.mark.parametrize(
    "error, kind, message",
    [
        (hf.RepositoryNotFoundError("x", response=response(404)), CheckpointError, "nor a repository on the hub"),
        (hf.GatedRepoError("x", response=response(403)), CheckpointError, "gated: accept its terms"),
        (hf.RevisionNotFoundError("x", response=response(404)), CheckpointError, "no revision 'v9'"),
        (hf.RemoteEntryNotFoundError("x", response=response(404)), FileMissingError, "has no file unet/config.json"),
        (hf.LocalEntryNotFoundError("x"), FileMissingError, "not in the local cache"),
        (hf.HfHubHTTPError("status 500", response=response(500)), CheckpointError, "could not be fetched: status 500"),
        (hf.OfflineModeIsEnabled("offline"), CheckpointError, "could not be fetched: offline"),
        (OSError(28, "No space left on device"), CheckpointError, "No space left"),
    ],
)
def test_hub_errors(monkeypatch, error, kind, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(CheckpointError, match=message) as caught:
        hub.resolve_file("org/name", "config.json", subfolder="unet", revision="v9")
    assert type(caught.value) is kind and "\n" not in str(caught.value) and "org/name" in str(caught.value)


def test_not_a_repository_name():
    with pytest.raises(CheckpointError, match="/no/such/folder is not a folder here, nor can it be"):
        hub.resolve_file("/no/such/folder", "config.json")


def test_arguments_reach_the_hub(monkeypatch):
    seen = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: seen.append((a, k)) or "/cache/f")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: seen.append((a, k)) or "/cache")
    options = {"revision": "r", "token": "t", "cache_dir": "c", "local_files_only": False, "force_download": True}
    assert hub.resolve_file("org/name", "f", subfolder="s", **options).as_posix() == "/cache/f"
    assert hub.resolve_snapshot("org/name", allow_patterns=("*.json",), **options).as_posix() == "/cache"
    (args, kwargs), (snapshot_args, snapshot_kwargs) = seen
    assert args == ("org/name", "f") and kwargs == {**options, "subfolder": "s", "library_name": "mindone_diffusers"}
    assert snapshot_args == ("org/name",)
    assert snapshot_kwargs == {**options, "library_name": "mindone_diffusers", "allow_patterns": ["*.json"], "ignore_patterns": None}


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}


@pytest.mark.parametrize(
    "variant, names",
    [
        (None, ["model.safetensors.index.json"]),
        ("fp16", ["model.safetensors.index.fp16.json"]),
        ("fp16", ["model.safetensors.fp16.index.json"]),
    ],
)
def test_find_shards(tmp_path, variant, names):
    write(tmp_path / "unet", *names, *SHARDS, "model.safetensors", index=INDEX)
    for place in ({"path_or_repo": tmp_path / "unet"}, {"path_or_repo": tmp_path, "subfolder": "unet"}):
        files, index = hub.find_weights(weights_name="model.safetensors", variant=variant, **place)
        assert files == [tmp_path / "unet" / name for name in SHARDS] and index == tmp_path / "unet" / names[0]


def test_find_single_file(tmp_path):
    write(tmp_path, "model.safetensors", "model.fp16.safetensors", "model.bin")
    for variant, name in ((None, "model.safetensors"), ("fp16", "model.fp16.safetensors")):
        assert hub.find_weights(tmp_path, "model.safetensors", variant=variant) == ([tmp_path / name], None)


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path, "model.safetensors.index.json", SHARDS[0], index=INDEX)
    with pytest.raises(CheckpointError, match=f"lists 2 shards, and one is not there: .*{SHARDS[1]}"):
        hub.find_weights(tmp_path, "model.safetensors")


def test_a_shard_outside_the_folder_is_refused(tmp_path):
    write(tmp_path, "model.safetensors.index.json", index={"a": "../secret.safetensors"})
    with pytest.raises(CheckpointError, match=r"'\.\./secret\.safetensors'; expected the plain name"):
        hub.find_weights(tmp_path, "model.safetensors")


def test_what_there_is_is_listed(tmp_path, monkeypatch):
    write(tmp_path, "model.safetensors", "model.fp32.safetensors", "config.json")
    with pytest.raises(FileMissingError, match=r"no file model.fp16.safetensors; .* model.fp32.safetensors, model.safetensors: choose"):
        hub.find_weights(tmp_path, "model.safetensors", variant="fp16")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileMissingError, match="empty has no file diffusion_pytorch_model.safetensors$"):
        hub.find_weights(tmp_path / "empty")

    def absent(*args, **kwargs):
        raise hf.RemoteEntryNotFoundError("x", response=response(404))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *a, **k: ["unet/model.safetensors", "vae/model.fp16.safetensors"])
    with pytest.raises(FileMissingError, match="weights there are model.safetensors: choose"):
        hub.find_weights("org/name", "model.safetensors", variant="fp16", subfolder="unet")


def test_pickles_are_refused(tmp_path, monkeypatch):
    write(tmp_path, "diffusion_pytorch_model.bin", "config.json")
    with pytest.raises(CheckpointError, match=r"only diffusion_pytorch_model.bin: pickles are never loaded .*is planned"):
        hub.find_weights(tmp_path)
    with pytest.raises(CheckpointError, match="pickles are never loaded"):
        hub.find_weights(tmp_path, use_safetensors=False)

    def unreachable(*args, **kwargs):
        raise RuntimeError("no network")

    def local(*args, **kwargs):
        raise hf.LocalEntryNotFoundError("x")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", local)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    with pytest.raises(FileMissingError, match="not in the local cache"):
        hub.find_weights("org/name")


def test_commit_hash_of_a_config(cache):
    class Unet(ConfigMixin):
        config_name = "config.json"

    (cache["cache_dir"] / "models--org--name" / "snapshots" / COMMIT / "unet" / "config.json").write_text('{"a": 1}')
    assert Unet.load_config("org/name", subfolder="unet", return_commit_hash=True, **cache) == ({"a": 1}, COMMIT)


def model() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8,), decoder_block_out_channels=(8,), num_encoder_blocks=(1,), num_decoder_blocks=(1,)
    )


@pytest.mark.parametrize(
    ("create", "names"),
    [
        (DDIMScheduler, {"scheduler_config.json"}),
        (model, {"config.json", "diffusion_pytorch_model.fp16.safetensors"}),
        (lambda: DDPMPipeline(model(), DDIMScheduler()), {"model_index.json", "scheduler", "unet"}),
    ],
    ids=["scheduler", "model", "pipeline"],
)
def test_what_is_pushed_is_what_is_saved(create, names, tmp_path, monkeypatch):
    pushed, uploads = create(), []

    def create_repo(repo_id, **arguments):
        assert arguments == {"private": True, "token": None, "exist_ok": True}
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(*, folder_path, **arguments):
        uploads.append(arguments)
        return {path.name: path.is_dir() or path.read_bytes() for path in Path(folder_path).iterdir()}

    monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    files = pushed.push_to_hub("name", private=True, subfolder="part", create_pr=True, variant="fp16")
    pushed.save_pretrained(tmp_path, **({} if isinstance(pushed, DDIMScheduler) else {"variant": "fp16"}))
    assert files == {path.name: path.is_dir() or path.read_bytes() for path in tmp_path.iterdir()}
    assert files.keys() == names
    expected = {"repo_id": "me/name", "path_in_repo": "part", "token": None, "create_pr": True}
    assert uploads == [{**expected, "commit_message": f"Upload {type(pushed).__name__}"}]


def test_get_config_dict(tmp_path):
    DDIMScheduler(clip_sample=False).save_pretrained(tmp_path)
    with pytest.warns(FutureWarning, match="use load_config"):
        assert DDIMScheduler.get_config_dict(tmp_path) == DDIMScheduler.load_config(tmp_path)
