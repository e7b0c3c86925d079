"""Weights on disk: safetensors files mapped into memory, sharded or not, and written without a second copy."""

import json
import math
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import logging
from .dtypes import SAFETENSORS_CODES, from_safetensors, is_floating, to_mindspore_dtype, to_numpy_dtype, to_safetensors
from .errors import CheckpointError, ConfigError, UnsupportedError, WeightsMismatchError
from .files import replaced_folder

if TYPE_CHECKING:
    import mindspore

logger = logging.get_logger(__name__)

_MAX_HEADER = 100_000_000  # the safetensors format's own bound
_SIZE_UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3}
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes: a pickle, which is never loaded; save it as safetensors",
    b"\x80\x02": "a pickle, which is never loaded; save it as safetensors",
    b"\x80\x03": "a pickle, which is never loaded; save it as safetensors",
    b"\x80\x04": "a pickle, which is never loaded; save it as safetensors",
    b"\x80\x05": "a pickle, which is never loaded; save it as safetensors",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull`",
}


@dataclass(frozen=True)
class LazyTensor:
    """One tensor of a mapped file; nothing is read until `numpy()`'s array is used."""

    dtype: np.dtype
    shape: tuple[int, ...]
    data: np.ndarray
    """The tensor's bytes, a view of the mapped file."""

    def numpy(self) -> np.ndarray:
        """A view of the file: no copy. Writing to it changes this process's pages, not the file."""
        return self.data.view(self.dtype).reshape(self.shape)


def open_safetensors(path: str | os.PathLike) -> dict[str, LazyTensor]:
    """Map a safetensors file and check all of its header.

    Raises:
        CheckpointError: the file is absent, truncated, or not what the format allows; the message names it.
        UnsupportedError: it holds a dtype that MindSpore has not (float8).
    """
    path = Path(path)
    try:
        file = np.memmap(path, np.uint8, mode="c").view(np.ndarray)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    try:
        return _parse(file)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        # Only now: a header may well be 0x280 bytes long, which is how a pickle begins.
        for magic, kind in _OTHER_FORMATS.items():
            if file[:32].tobytes().startswith(magic):
                raise CheckpointError(f"{path} is not a safetensors file: it is {kind}") from error
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}. Get it again") from error


def _parse(file: np.ndarray) -> dict[str, LazyTensor]:
    """The tensors of a mapped file; ValueError for anything the format does not allow."""
    if len(file) < 8:
        raise ValueError(f"it has {len(file)} bytes")
    (length,) = struct.unpack("<Q", file[:8])
    if length > _MAX_HEADER:
        raise ValueError(f"a header of {length} bytes is announced, the limit is {_MAX_HEADER}")
    if 8 + length > len(file):
        raise ValueError(f"it is truncated: {len(file)} bytes, and the header alone ends at {8 + length}")
    header = json.loads(file[8 : 8 + length].tobytes().decode("utf-8"), object_pairs_hook=_without_duplicates)
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    header.pop("__metadata__", None)

    body, tensors, spans = file[8 + length :], {}, []
    for name, entry in header.items():
        try:
            code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"the entry of {name!r} is {entry!r}; expected dtype, shape and two data_offsets") from None
        if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**63 for n in [*shape, begin, end]):
            raise ValueError(f"the entry of {name!r} has a bad shape or offset: {entry!r}")
        dtype = from_safetensors(str(code))
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name!r} of shape {shape} and dtype {code} cannot have {end - begin} bytes")
        if end > len(body):
            raise ValueError(f"it is truncated: {name!r} ends at byte {end} of the data, and there are {len(body)}")
        tensors[name] = LazyTensor(dtype, tuple(shape), body[begin:end])
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise ValueError(f"{name!r} begins at byte {begin} of the data; the tensor before it ends at {position}")
        position = end
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes after the last tensor belong to none")
    return tensors


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"the header names {repeated} twice")
    return dict(pairs)


def read_shard_index(path: str | os.PathLike) -> dict[str, str]:
    """The `weight_map` of a sharded checkpoint's index: tensor name to file name.

    Raises:
        CheckpointError: not such an index, or a shard's name is more than a file name.
    """
    try:
        weight_map = json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"]
        shards = set(weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not an index of shards, a JSON object with a `weight_map`: {error!r}") from error
    for shard in shards:
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or re.search(r"[/\\:\0]", shard):
            raise CheckpointError(f"{path} names the shard {shard!r}; expected the plain name of a .safetensors file beside the index")
    return weight_map


def load_state_dict(files: Iterable[str | os.PathLike], index: str | os.PathLike | None = None) -> dict[str, LazyTensor]:
    """Map a model's files (see `hub.find_weights`).

    Raises:
        CheckpointError: a bad file, a name in two files, or shards that do not hold what `index` says.
    """
    state, places = {}, {}
    for file in files:
        for name, tensor in open_safetensors(file).items():
            if name in state:
                raise CheckpointError(f"{name} is in two files, {places[name]} and {Path(file).name}")
            state[name], places[name] = tensor, Path(file).name
    if index is not None:
        weight_map = read_shard_index(index)
        wrong = sorted(name for name in weight_map.keys() | places.keys() if weight_map.get(name) != places.get(name))
        if wrong:
            lines = [f"  {name}: in {weight_map.get(name)} by the index, in {places.get(name)} in fact" for name in wrong]
            raise CheckpointError(f"{index} disagrees with its shards:\n" + "\n".join(lines))
    return state


def to_parameter_data(tensor: Any, dtype: Any = None, copy: bool = False) -> "mindspore.Tensor":
    """A MindSpore tensor from a lazy tensor, an array or a tensor, of `dtype` or its own; a file's dtype keeps to the file's pages, unless
    a `copy` is wanted, another is one cast copy."""
    import mindspore

    values = _values(tensor).reshape(tensor.shape)
    if dtype is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float16's range is inf, as in PyTorch
            values = values.astype(to_numpy_dtype(dtype), copy=copy)
    return mindspore.Tensor.from_numpy(np.require(values, requirements=["A", "C"]))


def bind(
    parameters: Mapping[str, "mindspore.Parameter"],
    state: Mapping[str, LazyTensor | np.ndarray],
    *,
    dtype: Any = None,
    keep_fp32: Callable[[str], bool] | None = None,
    strict: bool = True,
    in_place: bool = False,
    ignore_missing: Iterable[str] = (),
    ignore_unexpected: Iterable[str] = (),
    where: str = "the model",
) -> tuple[list[str], list[str]]:
    """Give parameters the values of a state dict.

    Args:
        parameters: the model's, by name.
        state: values by name. Those of the wanted dtype are not copied.
        dtype: dtype of the floating-point parameters; None keeps each parameter's own.
        keep_fp32: names for which float32 is taken instead of `dtype`.
        strict: whether missing and unexpected names are an error, or only logged. Wrong shapes always are one.
        in_place: copy into the parameters' own memory, which graphs that are compiled already read.
        ignore_missing: patterns (`re.search`) of names that may be missing.
        ignore_unexpected: patterns of names that may be unexpected.
        where: what the values are for and from, for messages.

    Returns:
        The missing and the unexpected names that were let pass, patterns aside.

    Raises:
        WeightsMismatchError: with every name at fault; no parameter was changed.
    """
    missing = [name for name in parameters if name not in state and not _matches(ignore_missing, name)]
    unexpected = [name for name in state if name not in parameters and not _matches(ignore_unexpected, name)]
    mismatched = [
        (name, tuple(state[name].shape), tuple(parameter.shape))
        for name, parameter in parameters.items()
        if name in state and tuple(state[name].shape) != tuple(parameter.shape)
    ]
    if mismatched or strict and (missing or unexpected):
        raise WeightsMismatchError(where, missing, unexpected, mismatched)
    if missing or unexpected:
        logger.warning(f"{where}: missing weights {missing}, unexpected weights {unexpected}")
    targets = {name: parameter.dtype for name, parameter in parameters.items() if name in state}
    if dtype is not None:
        for name in filter(lambda name: is_floating(targets[name]), targets):
            targets[name] = to_mindspore_dtype("float32" if keep_fp32 and keep_fp32(name) else dtype)
    sizes = Counter()
    for name, target in targets.items():
        sizes[_dtype(state[name]) == to_numpy_dtype(target)] += math.prod(state[name].shape)
    copy = sizes[True] < sizes[False]  # the few that are not cast anyway: one that keeps to a file's pages keeps the whole file
    for name, target in targets.items():
        parameter, data = parameters[name], to_parameter_data(state[name], target, copy)
        if in_place:
            parameter.copy_(data)
            continue
        # set_data would cast to the parameter's dtype; assign_value takes the tensor as it is.
        (parameter.set_data if parameter.dtype == target else parameter.assign_value)(data)
    return missing, unexpected


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def save_state_dict(
    state: Mapping[str, Any],
    folder: str | os.PathLike,
    weights_name: str,
    *,
    max_shard_size: int | str = "10GB",
    metadata: Mapping[str, str] | None = None,
    variant: str | None = None,
) -> list[Path]:
    """Write tensors as safetensors that PyTorch reads, sharded as huggingface_hub does; one tensor at a time is copied at most.

    Args:
        state: MindSpore tensors or parameters, NumPy arrays, or `LazyTensor`s, by name.
        folder: where to write. Nothing in it changes if writing fails; an older checkpoint of the same name is removed.
        weights_name: "diffusion_pytorch_model.safetensors", or for shards "diffusion_pytorch_model-00001-of-00002.safetensors" and the
            index "diffusion_pytorch_model.safetensors.index.json".
        max_shard_size: in bytes, or "5GB" (10**9). Shards follow the order of `state`; a larger tensor has a shard to itself.
        metadata: strings for the header; `{"format": "pt"}` by default, which transformers asks for.
        variant: see `hub.variant_name`.

    Returns:
        The files written, the index last.
    """
    from .hub import variant_name

    limit = max_shard_size if isinstance(max_shard_size, int) else _parse_size(max_shard_size)
    sizes = {name: math.prod(tensor.shape) * _dtype(tensor).itemsize for name, tensor in state.items()}
    shards: list[list[str]] = []
    current: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if size > limit:
            shards.append([name])
            continue
        if filled + size > limit:
            shards.append(current)
            current, filled = [], 0
        current.append(name)
        filled += size
    if current or not shards:
        shards.append(current)

    single = variant_name(weights_name, variant)
    stem = single.removesuffix(".safetensors")
    names = [single] if len(shards) == 1 else [f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    folder = Path(folder)
    with replaced_folder(folder) as temporary:
        for name, shard in zip(names, shards):
            _write(temporary / name, {key: state[key] for key in shard}, metadata or {"format": "pt"})
        if len(shards) > 1:
            weight_map = {key: name for name, shard in zip(names, shards) for key in shard}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
            names.append(variant_name(f"{weights_name}.index.json", variant))
            (temporary / names[-1]).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return [folder / name for name in names]


def _write(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    order = sorted(tensors, key=lambda name: (SAFETENSORS_CODES.index(to_safetensors(_dtype(tensors[name]))), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name in order:
        dtype, shape = _dtype(tensors[name]), tensors[name].shape
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": to_safetensors(dtype), "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_values(tensors[name]).reshape(-1).view(np.uint8).data)


def _values(tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor)
    return np.ascontiguousarray(tensor.numpy() if isinstance(tensor, LazyTensor) else tensor.asnumpy())


def _dtype(tensor: Any) -> np.dtype:
    return to_numpy_dtype(tensor.dtype)


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]B)\s*", text, re.IGNORECASE)
    if not match:
        raise ConfigError(f"max_shard_size={text!r}; expected bytes as an integer, or a number with TB, GB, MB or KB, as '5GB'")
    return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])
