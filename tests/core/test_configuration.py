import copy
import json
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from mindone_diffusers.core import configuration
from mindone_diffusers.core.configuration import ConfigMixin, FrozenDict, register_to_config
from mindone_diffusers.core.errors import CheckpointError, ConfigError, FileMissingError, UnsupportedError


class Base(ConfigMixin):
    config_name = "thing_config.json"


class Thing(Base):
    has_compatibles = True
    _compatibles = ("Other",)

    @register_to_config
    def __init__(self, size: int = 4, name: str = "a", betas=None, path=None):
        self.doubled = 2 * size


class Other(Base):
    has_compatibles = True
    _compatibles = ("Thing",)

    @register_to_config
    def __init__(self, size: int = 8, extra: bool = True):
        pass


@pytest.fixture(autouse=True)
def library(monkeypatch):
    monkeypatch.setattr(configuration, "_library", lambda: SimpleNamespace(Thing=Thing, Other=Other))


def test_frozen_dict():
    config = FrozenDict(a=1, items_per_page=2)
    assert config.a == config["a"] == 1 and dict(config) == {"a": 1, "items_per_page": 2}
    for change in (
        lambda: config.__setitem__("a", 2), lambda: config.pop("a"), lambda: config.update(a=2), lambda: config.setdefault("b", 1),
        lambda: config.__delitem__("a"), lambda: setattr(config, "a", 2), config.clear, config.popitem, lambda: config.__ior__({}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="register_to_config"):
            change()
    assert config == {"a": 1, "items_per_page": 2}
    for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config)):
        assert other == config and type(other) is FrozenDict
    with pytest.raises(AttributeError, match="'b'"):
        _ = config.b


def test_registers_positional_keyword_and_default_arguments():
    thing = Thing(5, betas=[1, 2], _name_or_path="x")
    assert thing.config == {
        "size": 5, "name": "a", "betas": [1, 2], "path": None, "_name_or_path": "x", "_use_default_values": ["name", "path"],
    }  # fmt: skip
    assert thing.doubled == 10
    thing.register_to_config(size=6)
    assert thing.config.size == 6 and thing.config.name == "a"


def test_ignored_arguments_do_not_shift_the_others():
    class Ignoring(Base):
        ignore_for_config = ("first",)

        @register_to_config
        def __init__(self, first, second=2, third=3):
            self.first = first

    thing = Ignoring("f", 7)
    assert thing.config == {"second": 7, "third": 3, "_use_default_values": ["third"]}
    assert thing.first == "f"


def test_a_missing_argument_is_pythons_error():
    class Needs(Base):
        @register_to_config
        def __init__(self, needed):
            pass

    with pytest.raises(TypeError, match="needed"):
        Needs()
    with pytest.raises(TypeError, match="wrong"):
        Thing(wrong=1)


def test_decorator_and_mixin_need_each_other():
    class Plain:
        @register_to_config
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="ConfigMixin"):
        Plain()

    class Nameless(ConfigMixin):
        @register_to_config
        def __init__(self):
            pass

    with pytest.raises(UnsupportedError, match="config_name"):
        Nameless()


def test_json_shape():
    thing = Thing(betas=np.array([0.5, 1.5], np.float32), path=Path("a") / "b", name=[np.int64(3), np.dtype("float16"), ms.bfloat16])
    assert thing.to_json_string() == (
        '{\n  "_class_name": "Thing",\n  "_diffusers_version": "0.42.1",\n  "betas": [\n    0.5,\n    1.5\n  ],\n'
        '  "name": [\n    3,\n    "float16",\n    "bfloat16"\n  ],\n  "path": "a/b",\n  "size": 4\n}\n'
    )
    assert repr(thing) == "Thing " + thing.to_json_string()
    with pytest.raises(ConfigError, match="object"):
        Thing(name=object()).to_json_string()


def test_auto_map(monkeypatch):
    monkeypatch.setattr(Thing, "_auto_class", None)
    with pytest.raises(ValueError, match="AutoModel"):
        Thing.register_for_auto_class("AutoThing")
    Thing.register_for_auto_class()
    assert json.loads(Thing().to_json_string())["auto_map"] == {"AutoModel": "test_configuration.Thing"}


def test_save_and_load(tmp_path):
    Thing(size=9).save_config(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert [p.name for p in folder.iterdir()] == ["thing_config.json"]
    expected = {"_class_name": "Thing", "_diffusers_version": "0.42.1", "size": 9, "name": "a", "betas": None, "path": None}
    assert Thing.load_config(folder) == Thing.load_config(folder / "thing_config.json") == expected
    assert Thing.load_config(tmp_path / "new", subfolder="folder") == expected
    assert Thing.load_config(folder, return_unused_kwargs=True, return_commit_hash=True, other=1) == (expected, {"other": 1}, None)
    assert Thing.from_config(Thing.load_config(folder)).config.size == 9
    with pytest.raises(TypeError, match="other"):
        Thing.load_config(folder, other=1)
    with pytest.raises(ConfigError, match="is a file"):
        Thing().save_config(folder / "thing_config.json")


def test_load_errors(tmp_path):
    with pytest.raises(FileMissingError, match="thing_config.json"):
        Thing.load_config(tmp_path)
    (tmp_path / "thing_config.json").write_text("{not json")
    with pytest.raises(CheckpointError, match="not a valid JSON"):
        Thing.load_config(tmp_path)
    with pytest.raises(OSError):  # what upstream raises
        Thing.load_config(tmp_path)
    with pytest.raises(ConfigError, match="config_name"):
        ConfigMixin.load_config(tmp_path)
    for wrong in (None, str(tmp_path)):
        with pytest.raises(ConfigError, match="load_config"):
            Thing.from_config(wrong)
    with pytest.raises(ConfigError, match="_class_name"):
        Thing.from_config({"_class_name": 3})


def test_from_config_overrides_warns_and_returns_unused():

    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("mindone_diffusers").addHandler(handler)
    try:
        thing, unused = Thing.from_config({"size": 1, "mystery": 2}, return_unused_kwargs=True, name="b", more=3)
    finally:
        logging.getLogger("mindone_diffusers").removeHandler(handler)
    assert (thing.config.size, thing.config.name) == (1, "b")
    assert unused == {"mystery": 2, "more": 3}
    assert ["mystery" in r.getMessage() for r in records] == [True]


def test_compatible_classes_keep_each_others_entries_and_not_each_others_defaults():
    thing = Thing(name="kept")
    other = Other.from_config(thing.config)
    assert other.config.size == 8  # its own default: 4 was only Thing's
    assert other.config.name == "kept" and other.config.extra is True
    again = Thing.from_config(other.config)
    assert again.config.name == "kept"
    assert again.config.size == 4
    saved = Other.from_config({**json.loads(thing.to_json_string())})
    assert saved.config._class_name == "Other" and saved.config.size == 4  # in a file the default was written out
    assert Thing().compatibles == [Thing, Other]


def test_attribute_fallback_warns():
    thing = Thing()
    with pytest.warns(FutureWarning, match="Thing.size"):
        assert thing.size == 4
    with pytest.raises(AttributeError, match="'Thing' object has no attribute 'absent'"):
        _ = thing.absent


def cells():
    class Early(ms.nn.Cell, ConfigMixin):
        config_name = "config.json"

        @register_to_config
        def __init__(self, channels: int = 3, weight: int = 7):
            super().__init__()
            self.child = ms.nn.ReLU()
            self.weight = ms.Parameter(ms.Tensor(np.full((2,), channels, np.float32)))

        def construct(self, x):
            return self.child(x) * self.weight

    class Late(ConfigMixin, ms.nn.Cell):
        config_name = "config.json"

        def __init__(self, channels: int = 3, weight: int = 7):
            ms.nn.Cell.__init__(self)
            self.child = ms.nn.ReLU()
            self.weight = ms.Parameter(ms.Tensor(np.full((2,), channels, np.float32)))
            self.register_to_config(channels=channels, weight=weight)

        def construct(self, x):
            return self.child(x) * self.weight

    class Derived(Early):
        pass

    return [Early, Late, Derived]


@pytest.mark.parametrize("cls", cells())
def test_with_a_cell(cls):
    cell = cls(channels=5)
    assert cell.config.channels == 5
    with pytest.warns(FutureWarning):
        assert cell.channels == 5
    assert isinstance(cell.weight, ms.Parameter)  # a real member wins over the config entry of that name
    assert [p.name for p in cell.get_parameters()] == ["weight"]
    with pytest.raises(AttributeError, match="absent"):
        _ = cell.absent
    assert not hasattr(cell, "absent")
    x = ms.Tensor(np.array([-1.0, 2.0], np.float32))
    assert cell(x).asnumpy().tolist() == [0.0, 10.0]
    assert ms.jit(cell)(x).asnumpy().tolist() == [0.0, 10.0]
    assert cls.from_config(cell.config).config.channels == 5
