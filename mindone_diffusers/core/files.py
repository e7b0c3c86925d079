"""Writing files so that a failure half way leaves what was there before: write beside the target, then rename."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import CheckpointError

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(\..+)?\.safetensors")
_INDEX = re.compile(r"(.+)\.safetensors(\..+)?\.index(\..+)?\.json")


@contextlib.contextmanager
def replaced_file(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `target`; what is written there takes `target`'s place when the block ends without an exception."""
    target = Path(target)
    temporary = _beside(target)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends without an exception its files move into `target`.

    Files of `target` that are not written again stay, except those of a checkpoint that is: after `model.safetensors` has been written, an
    older `model-00001-of-00002.safetensors` or `model.safetensors.index.json` is removed, and the other way round.

    Raises:
        CheckpointError: `target` is a file.
    """
    target = Path(target).resolve()
    if target.is_file():
        raise CheckpointError(f"{target} is a file; give a folder to save into")
    # Inside an existing target, which may be a file system of its own; else beside it, to be renamed as a whole.
    temporary = _beside(target / "save" if target.exists() else target)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        for path in files:
            _sync(path)
        if not target.exists():
            os.replace(temporary, target)
            return
        # Indexes and configs go last: they are what readers look for first.
        for path in sorted(files, key=lambda path: path.suffix == ".json"):
            new = target / path.relative_to(temporary)
            new.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, new)
        written = {target / path.relative_to(temporary) for path in files}
        checkpoints = {(path.parent, _checkpoint(path.name)) for path in written}
        for folder in {path.parent for path in written}:
            for old in set(folder.iterdir()) - written:
                name = _checkpoint(old.name)
                if name is not None and (folder, name) in checkpoints:
                    old.unlink()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checkpoint(name: str) -> str | None:
    """The checkpoint a weights file, shard or index belongs to, variant included ("model.fp16"), or None for other files."""
    match = _SHARD.fullmatch(name) or _INDEX.fullmatch(name)
    if match:
        return "".join(group or "" for group in match.groups())
    return name.removesuffix(".safetensors") if name.endswith(".safetensors") else None


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
