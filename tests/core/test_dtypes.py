import mindspore as ms
import numpy as np
import pytest
from mindspore.common import np_dtype

from mindone_diffusers.core import dtypes
from mindone_diffusers.core.errors import ConfigError, UnsupportedError

NAMES = ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]


@pytest.mark.parametrize("name", NAMES)
def test_every_spelling(name):
    mindspore_dtype = ms.bool_ if name == "bool" else getattr(ms, name)
    numpy_dtype = np.dtype(np_dtype.bfloat16 if name == "bfloat16" else name)
    spellings = [name, f"torch.{name}", name.upper(), mindspore_dtype, numpy_dtype, numpy_dtype.type]
    assert {dtypes.dtype_name(s) for s in spellings} == {name}
    assert all(dtypes.to_mindspore_dtype(s) == mindspore_dtype for s in spellings)
    assert all(dtypes.to_numpy_dtype(s) == numpy_dtype for s in spellings)
    assert dtypes.from_safetensors(dtypes.to_safetensors(name)) == numpy_dtype
    assert dtypes.is_floating(name) == ("float" in name)


def test_short_names():
    short = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "float": "float32", "double": "float64"}
    assert {s: dtypes.dtype_name(s) for s in short} == short


def test_unknown():
    for wrong in ("float7", "auto", None, 3):
        with pytest.raises(ConfigError, match="expected one of uint64"):
            dtypes.dtype_name(wrong)
    for code in ("F8_E4M3", "F8_E5M2", "F4", "what"):
        with pytest.raises(UnsupportedError, match=code):
            dtypes.from_safetensors(code)


def test_resolve_dtype_arguments():
    assert dtypes.resolve_dtype_arguments() is None
    assert dtypes.resolve_dtype_arguments(mindspore_dtype=ms.float16) == ms.float16
    assert dtypes.resolve_dtype_arguments(torch_dtype="torch.bfloat16") == ms.bfloat16
    assert dtypes.resolve_dtype_arguments(ms.float16, "fp16", np.float16) == ms.float16
    assert dtypes.resolve_dtype_arguments(dtype={"vae": "fp32", "default": "fp16"}) == {"vae": ms.float32, "default": ms.float16}
    with pytest.raises(ValueError, match="dtype='fp32', torch_dtype='fp16' disagree"):
        dtypes.resolve_dtype_arguments(dtype="fp32", torch_dtype="fp16")
