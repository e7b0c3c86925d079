"""Files of a model: in a local folder, in the huggingface_hub cache, or downloaded by it."""

import contextlib
import inspect
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import CheckpointError, FileMissingError
from .weights import read_shard_index

CONFIG_NAME = "config.json"
MODEL_INDEX_NAME = "model_index.json"
SCHEDULER_CONFIG_NAME = "scheduler_config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.bin"
WEIGHTS_INDEX_NAME = "diffusion_pytorch_model.bin.index.json"
SAFETENSORS_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
SAFE_WEIGHTS_INDEX_NAME = "diffusion_pytorch_model.safetensors.index.json"
TRANSFORMERS_WEIGHTS_NAME = "model.safetensors"
TRANSFORMERS_WEIGHTS_INDEX_NAME = "model.safetensors.index.json"


class WeightFiles(NamedTuple):
    """The safetensors files of one model, and the index that lists them if they are shards."""

    files: list[Path]
    index: Path | None


def variant_name(name: str, variant: str | None) -> str:
    """`variant_name("model.safetensors", "fp16") == "model.fp16.safetensors"`."""
    stem, extension = name.rsplit(".", 1)
    return f"{stem}.{variant}.{extension}" if variant else name


def resolve_file(
    path_or_repo: str | os.PathLike,
    filename: str,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Find one file.

    Args:
        path_or_repo: a local folder, else the name of a repository on the hub.
        filename: the file's name.
        subfolder: the folder it is in. A local folder that has no such file there is searched itself.
        revision: branch, tag or commit; "main" by default.
        token: the hub's access token; True takes the one of `hf auth login`.
        cache_dir: the cache, if not huggingface_hub's own.
        local_files_only: look in the cache only.
        force_download: download even what is in the cache.

    Raises:
        FileMissingError: there is no such file.
        CheckpointError: there is no such repository or revision, or it cannot be reached.
    """
    if os.path.isdir(path_or_repo):
        for folder in dict.fromkeys((Path(path_or_repo, subfolder or ""), Path(path_or_repo))):
            if (folder / filename).is_file():
                return folder / filename
        raise FileMissingError(f"{Path(path_or_repo, subfolder or '')} has no file {filename}")
    import huggingface_hub

    with _explained(path_or_repo, revision, f"file {Path(subfolder or '', filename).as_posix()}"):
        return Path(
            huggingface_hub.hf_hub_download(
                str(path_or_repo), filename, subfolder=subfolder, revision=revision, token=token, cache_dir=cache_dir,
                local_files_only=local_files_only, force_download=force_download, library_name="mindone_diffusers",
            )
        )  # fmt: skip


def resolve_snapshot(
    path_or_repo: str | os.PathLike,
    *,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """A local folder as it is, or the folder of a repository's files that match the patterns, after downloading them.

    Raises:
        CheckpointError: as `resolve_file`.
    """
    if os.path.isdir(path_or_repo):
        return Path(path_or_repo)
    import huggingface_hub

    with _explained(path_or_repo, revision, "snapshot"):
        return Path(
            huggingface_hub.snapshot_download(
                str(path_or_repo), revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only,
                force_download=force_download, library_name="mindone_diffusers",
                allow_patterns=None if allow_patterns is None else list(allow_patterns),
                ignore_patterns=None if ignore_patterns is None else list(ignore_patterns),
            )
        )  # fmt: skip


def list_files(repo: str | os.PathLike, *, revision: str | None = None, token: str | bool | None = None) -> list[str]:
    """Names of the files in a repository.

    Raises:
        CheckpointError: as `resolve_file`.
    """
    import huggingface_hub

    with _explained(repo, revision, "list of files"):
        return huggingface_hub.list_repo_files(str(repo), revision=revision, token=token)


def find_weights(
    path_or_repo: str | os.PathLike,
    weights_name: str = SAFETENSORS_WEIGHTS_NAME,
    *,
    variant: str | None = None,
    use_safetensors: bool | None = None,
    **hub: Any,
) -> WeightFiles:
    """The safetensors files of a model: the shards if there is an index, as PyTorch diffusers prefers, else the single file.

    Args:
        path_or_repo: as for `resolve_file`.
        weights_name: the single file's name, without variant.
        variant: "fp16", ...: `model.fp16.safetensors`, `model.safetensors.index.fp16.json` (or, from older versions,
            `model.safetensors.fp16.index.json`).
        use_safetensors: None or True; False asks for pickles, which are refused.
        hub: `subfolder`, `revision`, `token`, `cache_dir`, `local_files_only`, `force_download` of `resolve_file`.

    Raises:
        FileMissingError: no such weights; the message lists what there is.
        CheckpointError: only pickles, or an index that names bad or absent shards.
    """
    if use_safetensors is False:
        raise CheckpointError(f"use_safetensors=False asks for pickled weights of {path_or_repo}: pickles are never loaded at run time")
    index_name = f"{weights_name}.index.json"
    index_names = [variant_name(index_name, variant), f"{weights_name}.{variant}.index.json"] if variant else [index_name]
    for name in index_names:
        with contextlib.suppress(FileMissingError):
            index = resolve_file(path_or_repo, name, **hub)
            # The shards are where the index is, so a local folder that was searched instead of its subfolder is so for both.
            where, rest = (index.parent, {}) if os.path.isdir(path_or_repo) else (path_or_repo, hub)
            break
    else:
        single = variant_name(weights_name, variant)
        try:
            return WeightFiles([resolve_file(path_or_repo, single, **hub)], None)
        except FileMissingError as error:
            raise _no_weights(path_or_repo, single, error, **hub) from error
    shards = sorted(set(read_shard_index(index).values()))
    try:
        return WeightFiles([resolve_file(where, shard, **rest) for shard in shards], index)
    except FileMissingError as error:
        raise CheckpointError(f"{index} lists {len(shards)} shards, and one is not there: {error}") from error


def _no_weights(
    path_or_repo: str | os.PathLike, single: str, error: FileMissingError, subfolder: str | None = None, **hub: Any
) -> CheckpointError:
    """The error for a model without the weights asked for, with what there is instead."""
    if os.path.isdir(path_or_repo):
        folder = Path(path_or_repo, subfolder or "")
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    elif hub.get("local_files_only"):
        names = []
    else:
        try:
            paths = list_files(path_or_repo, revision=hub.get("revision"), token=hub.get("token"))
        except Exception:  # whatever the network does, the error at hand is the one to report
            return error
        prefix = f"{subfolder}/" if subfolder else ""
        names = sorted(p.removeprefix(prefix) for p in paths if p.startswith(prefix))
    tensors = [name for name in names if ".safetensors" in name]
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if tensors:
        return FileMissingError(f"{error}; the weights there are {', '.join(tensors)}: choose one with `variant`")
    if pickles:
        return CheckpointError(
            f"{error}, only {', '.join(pickles)}: pickles are never loaded at run time, because they can run code. Save the model as "
            "safetensors with PyTorch, `save_pretrained(folder, safe_serialization=True)`; `mindone-diffusers convert` is planned"
        )
    return error


@contextlib.contextmanager
def _explained(repo: str | os.PathLike, revision: str | None, wanted: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise CheckpointError(f"{repo} is not a folder here, nor can it be the name of a repository on the hub") from error
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{repo} is gated: accept its terms on the hub, then pass `token`, or `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{repo} is not a folder here, nor a repository on the hub; for a private one pass `token`, or `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repo} has no revision {revision!r}: expected a branch, a tag or a commit") from error
    except errors.LocalEntryNotFoundError as error:
        raise FileMissingError(
            f"{repo} is not a folder here, and its {wanted} is not in the local cache (looked there only because of local_files_only, "
            "offline mode, or because the hub cannot be reached)"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileMissingError(f"{repo} has no {wanted}") from error
    except (errors.HTTPError, OSError) as error:
        raise CheckpointError(f"the {wanted} of {repo} could not be fetched: {error}") from error


class PushToHubMixin:
    """What has a `save_pretrained`, and can be uploaded as that writes it."""

    def push_to_hub(
        self, repo_id: str, commit_message: str | None = None, private: bool | None = None, token: str | None = None,
        create_pr: bool = False, safe_serialization: bool = True, variant: str | None = None, subfolder: str | None = None,
    ) -> str:  # fmt: skip
        """Upload what `save_pretrained` writes to a repository on the hub, which is created if there is none.

        Unlike PyTorch diffusers' it writes no model card: a README.md that is there stays.

        Args:
            repo_id: "name" or "organization/name".
            commit_message: "Upload <class>" by default.
            private: whether a new repository is private; as the organization says by default.
            token: of the account; the one that `hf auth login` stored by default.
            create_pr: open a pull request instead of committing.
            safe_serialization: how weights are saved, for what has some.
            variant: likewise, in the files' names.
            subfolder: where to in the repository.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import create_repo, upload_folder

        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        taken = inspect.signature(self.save_pretrained).parameters
        options = {"safe_serialization": safe_serialization, "variant": variant}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **{name: value for name, value in options.items() if name in taken})
            return upload_folder(
                repo_id=repo_id, folder_path=folder, path_in_repo=subfolder, token=token, create_pr=create_pr,
                commit_message=commit_message or f"Upload {type(self).__name__}",
            )  # fmt: skip
