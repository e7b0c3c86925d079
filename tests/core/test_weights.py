import errno
import gc
import json
import math
import os
import pickle
import struct
import zipfile
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore.common import np_dtype
from mindspore.common.initializer import initializer

from mindone_diffusers.core import weights
from mindone_diffusers.core.errors import CheckpointError, ConfigError, UnsupportedError, WeightsMismatchError

BF16 = np.dtype(np_dtype.bfloat16)


def file(path, header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def example():
    rng = np.random.default_rng(0)
    state = {f"t.{d}": rng.integers(0, 100, (3, 2)).astype(d) for d in ("float64", "float32", "float16", "int64", "int32", "int16", "int8")}
    state |= {f"t.{d}": rng.integers(0, 100, (5,)).astype(d) for d in ("uint64", "uint32", "uint16", "uint8", "bool")}
    return state | {
        "t.bfloat16": rng.standard_normal((4, 3)).astype(BF16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3)),
    }


def test_round_trip_of_every_dtype(tmp_path):
    state = example()
    (path,) = weights.save_state_dict(state, tmp_path / "new", "model.safetensors")
    assert path == tmp_path / "new" / "model.safetensors"
    read = weights.open_safetensors(path)
    assert set(read) == set(state)
    for name, value in state.items():
        lazy = read[name]
        assert lazy.shape == value.shape and lazy.dtype == value.dtype and lazy.numpy().tobytes() == value.tobytes()
        tensor = weights.to_parameter_data(lazy)
        assert tensor.shape == value.shape and tensor.asnumpy().tobytes() == value.tobytes()


def test_same_bytes_as_the_safetensors_library(tmp_path):
    from safetensors.numpy import save_file

    state = {name: value for name, value in example().items() if value.dtype != BF16}
    save_file(state, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    weights.save_state_dict(state, tmp_path, "ours.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_a_header_whose_length_begins_like_a_pickle(tmp_path):
    header = json.dumps({"a": entry()}).encode()
    path = file(tmp_path / "m.safetensors", header + b" " * (0x280 - len(header)), b"1234")
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert weights.open_safetensors(path)["a"].shape == (1,)


def test_views_share_the_mapping_and_do_not_write_to_the_file(tmp_path):
    weights.save_state_dict({"a": np.arange(4, dtype=np.float32)}, tmp_path, "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    lazy = weights.open_safetensors(tmp_path / "m.safetensors")["a"]
    tensor = weights.to_parameter_data(lazy)
    assert np.shares_memory(tensor.asnumpy(), lazy.numpy())
    lazy.numpy()[0] = 9
    del lazy
    gc.collect()
    assert tensor.asnumpy().tolist() == [9, 1, 2, 3]
    assert (tmp_path / "m.safetensors").read_bytes() == before


def test_unaligned_data_is_copied(tmp_path):
    header = {"a": entry("U8", (1,), (0, 1)), "b": entry("F32", (2,), (1, 9))}
    path = file(tmp_path / "m.safetensors", header, b"\7" + np.array([1.5, -2], np.float32).tobytes())
    lazy = weights.open_safetensors(path)["b"]
    assert lazy.numpy().tolist() == [1.5, -2]
    assert (weights.to_parameter_data(lazy) + 1).asnumpy().tolist() == [2.5, -1]


@pytest.mark.parametrize(
    "header, body, message",
    [
        ({"a": entry()}, b"123", "truncated: 'a' ends at byte 4"),
        ({"a": entry()}, b"12345", "1 bytes after the last tensor"),
        ({"a": entry(shape=(2,))}, b"1234", "cannot have 4 bytes"),
        ({"a": entry(), "b": entry()}, b"1234", "'b' begins at byte 0 .* ends at 4"),
        ({"a": entry(), "b": entry(offsets=(8, 12))}, b"1" * 12, "'b' begins at byte 8"),
        ({"a": entry(offsets=(4, 8))}, b"1" * 8, "'a' begins at byte 4"),
        ({"a": entry(shape=(-1,), offsets=(4, 0))}, b"1234", "bad shape or offset"),
        ({"a": entry(shape=(True,))}, b"1234", "bad shape or offset"),
        ({"a": entry(shape=(1.0,))}, b"1234", "bad shape or offset"),
        ({"a": {**entry(), "shape": "ab"}}, b"1234", "bad shape or offset"),
        ({"a": entry(offsets=(-4, 0))}, b"1234", "bad shape or offset"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", "expected dtype, shape and two data_offsets"),
        ({"a": [1]}, b"1234", "expected dtype"),
        ({"a": {**entry(), "data_offsets": [1, 2, 3]}}, b"1234", "expected dtype"),
        ([1], b"", "not a JSON object"),
        (b"{not json", b"", "Expecting"),
        (b"\xff\xfe{}", b"", "utf-8"),
        (b"[" * 200_000, b"", "recursion"),
        (
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"1234",
            "'a'. twice",
        ),
    ],
)
def test_bad_headers(tmp_path, header, body, message):
    path = file(tmp_path / "m.safetensors", header, body)
    with pytest.raises(CheckpointError, match=message) as caught:
        weights.open_safetensors(path)
    assert str(path) in str(caught.value) and "Get it again" in str(caught.value)


@pytest.mark.parametrize("length, message", [(2**63, "limit is 100000000"), (100_000_001, "limit is"), (1000, "truncated")])
def test_bad_header_lengths(tmp_path, length, message):
    with pytest.raises(CheckpointError, match=message):
        weights.open_safetensors(file(tmp_path / "m.safetensors", {}, length=length))


def test_absent_empty_and_short_files(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        weights.open_safetensors(tmp_path / "absent.safetensors")
    for content in (b"", b"1234567"):
        (tmp_path / "m.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            weights.open_safetensors(tmp_path / "m.safetensors")


def test_other_formats_are_recognised(tmp_path):
    path = tmp_path / "m.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "x")
    with pytest.raises(CheckpointError, match="zip archive, as torch.save writes: a pickle, which is never loaded"):
        weights.open_safetensors(path)
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({"a": 1}, protocol))
        with pytest.raises(CheckpointError, match="is a pickle, which is never loaded"):
            weights.open_safetensors(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        weights.open_safetensors(path)


def test_float8_is_refused_by_name(tmp_path):
    path = file(tmp_path / "m.safetensors", {"a": entry("F8_E4M3", (4,))}, b"1234")
    with pytest.raises(UnsupportedError, match=r"m\.safetensors: .*F8_E4M3"):
        weights.open_safetensors(path)


# ---- shards


def sharded(folder):
    state = {name: np.full((4,), i, np.float32) for i, name in enumerate("dcba")}
    weights.save_state_dict(state, folder, "m.safetensors", max_shard_size=32)
    return state, sorted(folder.glob("*.safetensors")), folder / "m.safetensors.index.json"


def test_shards(tmp_path):
    state, files, index = sharded(tmp_path)
    assert [f.name for f in files] == ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    assert index.read_text() == json.dumps(
        {"metadata": {"total_size": 64}, "weight_map": {n: files[n in "ab"].name for n in "dcba"}}, indent=2, sort_keys=True
    ) + "\n"  # fmt: skip
    read = weights.load_state_dict(files, index)
    assert {n: t.numpy().tolist() for n, t in read.items()} == {n: v.tolist() for n, v in state.items()}


def test_shards_that_disagree_with_the_index(tmp_path):
    _, files, index = sharded(tmp_path)
    written = json.loads(index.read_text())
    for change, message in (
        ({"extra": files[0].name}, f"extra: in {files[0].name} by the index, in None in fact"),
        ({"a": files[0].name}, f"a: in {files[0].name} by the index, in {files[1].name} in fact"),
    ):
        index.write_text(json.dumps({"weight_map": written["weight_map"] | change}))
        with pytest.raises(CheckpointError, match=message):
            weights.load_state_dict(files, index)
    del written["weight_map"]["d"]
    index.write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match="d: in None by the index"):
        weights.load_state_dict(files, index)
    with pytest.raises(CheckpointError, match="c is in two files|d is in two files"):
        weights.load_state_dict([files[0], files[0]])


@pytest.mark.parametrize("shard", ["../x.safetensors", "a/b.safetensors", "/x.safetensors", "C:\\x.safetensors", "C:x.safetensors", "..",
                                   "x.bin", 3, None, "a\0.safetensors"])  # fmt: skip
def test_shard_names(tmp_path, shard):
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="names the shard"):
        weights.read_shard_index(tmp_path / "i.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": []}}'])
def test_bad_indexes(tmp_path, text):
    (tmp_path / "i.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        weights.read_shard_index(tmp_path / "i.json")


@pytest.mark.parametrize(
    "sizes, limit", [([6, 6, 2, 6, 2, 2], 10), ([12, 1], 10), ([1, 12, 1, 12], 10), ([5, 5, 5], 10), ([3], 10), ([], 10)]
)
def test_sharding_is_huggingface_hubs(tmp_path, sizes, limit):
    from huggingface_hub.serialization import split_state_dict_into_shards_factory

    state = {f"t{i}": np.zeros(n, np.uint8) for i, n in enumerate(sizes)}
    files = weights.save_state_dict(state, tmp_path, "m.safetensors", max_shard_size=limit, variant="fp16")
    assert set(files) == set(tmp_path.iterdir())
    if not sizes:
        assert [f.name for f in files] == ["m.fp16.safetensors"]
        return
    expected = split_state_dict_into_shards_factory(
        state, get_storage_size=lambda t: t.nbytes, filename_pattern="m.fp16{suffix}.safetensors", max_shard_size=limit
    )
    ours = {f.name: set(weights.open_safetensors(f)) for f in files if f.suffix == ".safetensors"}
    assert ours == {name: set(tensors) for name, tensors in expected.filename_to_tensors.items()}
    if len(ours) > 1:
        assert files[-1].name == "m.safetensors.index.fp16.json"
        assert json.loads(files[-1].read_text()) == {"metadata": expected.metadata, "weight_map": expected.tensor_to_filename}


def test_sizes():
    assert [weights._parse_size(s) for s in ("10GB", "1.5 MB", "3kb", "2TB")] == [10**10, 1_500_000, 3000, 2 * 10**12]
    for wrong in ("10", "GB", "10GiB", "-1GB"):
        with pytest.raises(ConfigError, match="as '5GB'"):
            weights._parse_size(wrong)


def test_saving_removes_the_older_checkpoint_only_when_done(tmp_path, monkeypatch):
    sharded(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    real = weights._values

    def full(tensor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "_values", full)
    with pytest.raises(OSError, match="No space"):
        weights.save_state_dict({"a": np.zeros(3)}, tmp_path, "m.safetensors")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    monkeypatch.setattr(weights, "_values", real)
    weights.save_state_dict({"a": np.zeros(3)}, tmp_path, "m.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "m.safetensors"]


def test_a_mapped_model_can_be_saved_over_its_own_file(tmp_path):
    weights.save_state_dict({"a": np.arange(3.0)}, tmp_path, "m.safetensors")
    state = weights.load_state_dict([tmp_path / "m.safetensors"])
    weights.save_state_dict(state, tmp_path, "m.safetensors")
    assert weights.open_safetensors(tmp_path / "m.safetensors")["a"].numpy().tolist() == [0, 1, 2]
    assert state["a"].numpy().tolist() == [0, 1, 2]


# ---- parameters


def parameter(*shape, dtype=ms.float32):
    return ms.Parameter(initializer("zeros", shape, dtype), name="p")


def test_bind_takes_the_files_pages(tmp_path):
    values = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    weights.save_state_dict(values, tmp_path, "m.safetensors")
    state = weights.load_state_dict([tmp_path / "m.safetensors"])
    parameters = {"w": parameter(2, 3), "b": parameter(2)}
    assert weights.bind(parameters, state) == ([], [])
    for name in values:
        assert np.array_equal(parameters[name].asnumpy(), values[name])
        assert np.shares_memory(parameters[name].asnumpy(), state[name].numpy())
    assert (parameters["w"] * 2).asnumpy().tolist() == (values["w"] * 2).tolist()


def test_bind_lets_go_of_a_file_that_is_mostly_cast(tmp_path):
    values = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    weights.save_state_dict(values, tmp_path, "m.safetensors")
    state = weights.load_state_dict([tmp_path / "m.safetensors"])
    for cast, kept in (("w", "b"), ("b", "w")):
        parameters = {cast: parameter(*values[cast].shape, dtype=ms.bfloat16), kept: parameter(*values[kept].shape)}
        weights.bind(parameters, state)
        assert np.array_equal(parameters[kept].asnumpy(), values[kept])
        assert np.shares_memory(parameters[kept].asnumpy(), state[kept].numpy()) == (kept == "w")


# 1 + 3/256 lies half way between two bfloat16 numbers: the even one is 1 + 4/256.
CASTS = [
    ("float32", "float16", [1.0, 65504, 1e5, 1 / 3], [1.0, 65504, np.inf, 0.333251953125]),
    ("float32", "bfloat16", [1.0, 1 + 1 / 256, 1 + 3 / 256, -3e38, np.inf], [1.0, 1.0, 1 + 4 / 256, -3.00405527047391e38, np.inf]),
    ("bfloat16", "float32", [1.5, -3e38, 2**-130], [1.5, -3.00405527047391e38, 2**-130]),
    ("bfloat16", "float16", [1.5, 3e38], [1.5, np.inf]),
    ("float64", "float32", [1 / 3, 1e40], [np.float32(1 / 3), np.inf]),
    ("float16", "float32", [1 / 3], [0.333251953125]),
]


@pytest.mark.parametrize("source, target, values, expected", CASTS)
def test_casts(source, target, values, expected):
    array = np.array(values, np.float64).astype(np.float32 if source != "float64" else np.float64).astype(weights.to_numpy_dtype(source))
    bound = parameter(len(values))
    weights.bind({"p": bound}, {"p": array}, dtype=target)
    assert bound.dtype == getattr(ms, target)
    assert bound.asnumpy().astype(np.float32).tolist() == np.array(expected, np.float32).astype(weights.to_numpy_dtype(target)).astype(
        np.float32
    ).tolist()  # fmt: skip


def test_bind_dtypes():
    parameters = {"norm.weight": parameter(2), "proj.weight": parameter(2), "ids": parameter(2, dtype=ms.int64)}
    state = {"norm.weight": np.ones(2, np.float16), "proj.weight": np.ones(2, np.float32), "ids": np.array([3, 4], np.int64)}
    weights.bind(parameters, state, dtype="bf16", keep_fp32=lambda name: name.startswith("norm"))
    assert {n: str(p.dtype) for n, p in parameters.items()} == {"norm.weight": "Float32", "proj.weight": "BFloat16", "ids": "Int64"}
    assert parameters["ids"].asnumpy().tolist() == [3, 4]
    parameters = {"p": parameter(2, dtype=ms.float16)}
    weights.bind(parameters, {"p": np.ones(2, np.float32)})
    assert parameters["p"].dtype == ms.float16  # dtype=None: the parameter's own


def test_every_mismatch_is_listed_and_nothing_is_bound():
    parameters = {"a": parameter(2), "b": parameter(2, 3), "c": parameter(1), "position_ids": parameter(1)}
    state = {"a": np.ones(2, np.float32), "b": np.ones((3, 2), np.float32), "x": np.ones(1), "y": np.ones(1)}
    with pytest.raises(WeightsMismatchError) as caught:
        weights.bind(parameters, state, ignore_missing=["position_ids$"], ignore_unexpected=[r"^y"], where="UNet")
    assert str(caught.value).split("\n") == [
        "the weights do not fit UNet:", "  missing: c", "  unexpected: x", "  shape: b is (3, 2) in the file, (2, 3) in the model",
    ]  # fmt: skip
    assert (caught.value.missing, caught.value.unexpected) == (["c"], ["x"])
    assert isinstance(caught.value, OSError) and isinstance(caught.value, ValueError)
    assert parameters["a"].asnumpy().tolist() == [0, 0]
    del state["b"]
    del parameters["b"]
    assert weights.bind(parameters, state, strict=False, ignore_missing=["position_ids"]) == (["c"], ["x", "y"])
    assert parameters["a"].asnumpy().tolist() == [1, 1]
    with pytest.raises(WeightsMismatchError, match="shape: a"):
        weights.bind({"a": parameter(3)}, state, strict=False)


def test_save_mindspore_parameters(tmp_path):
    state = {"w": parameter(3), "h": ms.Tensor(np.ones((2, 2)), ms.bfloat16), "s": ms.Tensor(1.5, ms.float16)}
    weights.save_state_dict(state, tmp_path, "m.safetensors")
    read = weights.open_safetensors(tmp_path / "m.safetensors")
    assert read["w"].numpy().tolist() == [0, 0, 0] and read["s"].numpy().tolist() == 1.5
    assert read["h"].dtype == BF16 and read["h"].numpy().astype(np.float32).tolist() == [[1, 1], [1, 1]]


def _private_mib():
    """Memory of this process that is no file's, MiB."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
def test_memory(tmp_path):
    """Binding allocates nothing when the dtype is the file's, and the cast model plus one tensor otherwise; saving, one tensor."""
    shape, count = (4096, 4096), 4  # 64 MiB each: more than 32, which malloc may keep for the next
    block = np.random.default_rng(0).standard_normal(shape, np.float32)
    weights.save_state_dict({f"w{i}": block for i in range(count)}, tmp_path, "m.safetensors")
    del block
    state = weights.load_state_dict([tmp_path / "m.safetensors"])

    start = _private_mib()
    same = {f"w{i}": parameter(*shape) for i in range(count)}
    weights.bind(same, state)
    assert _private_mib() - start < 4
    weights.save_state_dict(same, tmp_path / "again", "m.safetensors")
    assert _private_mib() - start < 72
    half = {f"w{i}": parameter(*shape) for i in range(count)}
    weights.bind(half, state, dtype=ms.float16)
    model = math.prod(shape) * 2 * count / 2**20
    assert _private_mib() - start < model + 72
    assert (tmp_path / "again" / "m.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_bind_in_place():
    bound = ms.Parameter(ms.Tensor(np.zeros(3, np.float32)), name="p")
    memory = bound.asnumpy()
    weights.bind({"p": bound}, {"p": np.array([1, 2, 3], np.float16)}, in_place=True)
    ms.runtime.synchronize()
    assert memory.tolist() == [1, 2, 3] and bound.dtype == ms.float32
