import pickle
from dataclasses import dataclass

import pytest

from mindone_diffusers.core.outputs import BaseOutput


@dataclass
class Output(BaseOutput):
    sample: list
    middle: list | None = None
    last: list | None = None


def test_reads_as_attribute_mapping_and_tuple():
    a, c = [1], [3]
    out = Output(a, last=c)
    assert out.sample is a and out["sample"] is a and out[0] is a and out[1] is c and out[-1] is c
    assert out.middle is None and "middle" not in out
    assert out.to_tuple() == (a, c) and out[:1] == (a,) and list(out) == ["sample", "last"] and len(out) == 2
    with pytest.raises(KeyError):
        out["middle"]
    with pytest.raises(IndexError):
        out[2]


def test_setting_sets_both():
    out = Output([1])
    out.sample = [2]
    assert out[0] == out["sample"] == [2]
    out["sample"] = [3]
    assert out.sample == out[0] == [3]
    out["last"] = [4]
    assert out.last == [4] and out.to_tuple() == ([3], [4])


def test_fields_are_fixed():
    out = Output([1])
    for change in (
        lambda: out.pop("sample"), lambda: out.update(sample=2), lambda: out.setdefault("sample", 2), lambda: out.__delitem__("sample"),
        lambda: out.__setitem__("other", 1), out.clear, out.popitem,
    ):  # fmt: skip
        with pytest.raises(TypeError, match="Output are fixed"):
            change()
    assert out.to_tuple() == ([1],)


def test_pickles():
    out = pickle.loads(pickle.dumps(Output([1], last=[2])))
    assert type(out) is Output and out.to_tuple() == ([1], [2]) and out.middle is None
