import errno
import os

import pytest

from mindone_diffusers.core.errors import CheckpointError
from mindone_diffusers.core.files import replaced_file, replaced_folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_file_is_replaced(tmp_path):
    target = tmp_path / "a.txt"
    for text in ("one", "two"):
        with replaced_file(target) as path:
            path.write_text(text)
        assert contents(tmp_path) == {"a.txt": text}


def test_failed_file_leaves_the_old_one(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="boom"), replaced_file(target) as path:
        path.write_text("half")
        raise RuntimeError("boom")
    assert contents(tmp_path) == {"a.txt": "old"}


def test_new_folder(tmp_path):
    target = tmp_path / "x" / "y"
    with replaced_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b")
        assert not target.exists()
    assert contents(tmp_path) == {"x/y/sub/b.txt": "b"}
    assert oct(target.stat().st_mode) == oct((tmp_path / "x").stat().st_mode)  # the umask's permissions, not a private folder's


def test_existing_folder_is_merged(tmp_path):
    (tmp_path / "README.md").write_text("kept")
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "kept.txt").write_text("kept")
    with replaced_folder(tmp_path) as folder:
        (folder / "config.json").write_text("new")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b")
    assert contents(tmp_path) == {"README.md": "kept", "config.json": "new", "sub/kept.txt": "kept", "sub/b.txt": "b"}


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_folder_leaves_the_old_one(tmp_path, exists, error):
    target = tmp_path / "target"
    if exists:
        target.mkdir()
        (target / "model.safetensors").write_text("old")
    before = contents(tmp_path)
    with pytest.raises(type(error)), replaced_folder(target) as folder:
        (folder / "model-00001-of-00002.safetensors").write_text("half")
        raise error
    assert contents(tmp_path) == before and target.exists() == exists
    assert sorted(p.name for p in tmp_path.rglob("*")) == (["model.safetensors", "target"] if exists else [])


def test_disk_full_while_syncing(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), replaced_folder(tmp_path) as folder:
        (folder / "a.txt").write_text("new")
    with pytest.raises(OSError, match="No space"), replaced_file(tmp_path / "a.txt") as path:
        path.write_text("new")
    assert contents(tmp_path) == {"a.txt": "old"}


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
FP16 = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors", "model.safetensors.index.fp16.json"]
OLD_FP16 = ["model-00001-of-00002.fp16.safetensors", "model.safetensors.fp16.index.json"]


@pytest.mark.parametrize(
    "old, new, left",
    [
        (SHARDS, ["model.safetensors"], ["model.safetensors"]),
        (["model.safetensors"], SHARDS, SHARDS),
        (["model-00003-of-00003.safetensors"], SHARDS, SHARDS),
        (SHARDS, ["model.fp16.safetensors"], [*SHARDS, "model.fp16.safetensors"]),
        (FP16, ["model.safetensors"], [*FP16, "model.safetensors"]),
        (FP16, ["model.fp16.safetensors"], ["model.fp16.safetensors"]),
        (OLD_FP16, ["model.fp16.safetensors"], ["model.fp16.safetensors"]),
        (["other.safetensors", "model.bin"], ["model.safetensors"], ["other.safetensors", "model.bin", "model.safetensors"]),
        (["model-lora.safetensors"], ["model.safetensors"], ["model-lora.safetensors", "model.safetensors"]),
    ],
)
def test_stale_parts_of_a_checkpoint_are_removed(tmp_path, old, new, left):
    unet = tmp_path / "unet"
    unet.mkdir()
    elsewhere = tmp_path / "vae"
    elsewhere.mkdir()
    for name in old:
        (unet / name).write_text("old")
        (elsewhere / name).write_text("old")
    with replaced_folder(tmp_path) as folder:
        (folder / "unet").mkdir()
        for name in new:
            (folder / "unet" / name).write_text("new")
    assert sorted(contents(unet)) == sorted(left)
    assert all(contents(unet)[name] == "new" for name in new)
    assert sorted(contents(elsewhere)) == sorted(old)


def test_target_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(CheckpointError, match="is a file"), replaced_folder(tmp_path / "f"):
        pass
