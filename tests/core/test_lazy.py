"""`when_imported`, and what hangs on it: importing the package leaves MindSpore alone, and MindSpore is tuned whenever it comes."""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindone_diffusers.core.lazy import when_imported

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that can be imported."""
    (tmp_path / "announced.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield "announced"
    sys.modules.pop("announced", None)
    sys.meta_path[:] = finders


def test_called_once_after_the_import(module):
    finders, seen = list(sys.meta_path), []
    when_imported(module, lambda: seen.append(sys.modules[module].value))
    assert importlib.util.find_spec(module).name == module and seen == []
    assert importlib.import_module(module).value == 1
    importlib.reload(sys.modules[module])
    assert seen == [1]
    assert sys.meta_path == finders


def test_called_at_once_if_imported_already(module):
    importlib.import_module(module)
    seen = []
    when_imported(module, lambda: seen.append(1))
    assert seen == [1]


def test_absent_module_stays_absent(module):
    seen = []
    when_imported("no_such_module", lambda: seen.append(1))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module")
    assert seen == []


BLOCKING = "from mindspore._c_expression import RuntimeConf; print(RuntimeConf.get_instance().is_launch_blocking())"


@pytest.mark.parametrize(
    "code, variable, printed",
    [
        ("import mindone_diffusers, sys; print('mindspore' in sys.modules)", "1", "False"),
        (f"import mindone_diffusers, mindspore; {BLOCKING}", "1", "True"),
        (f"import mindspore, mindone_diffusers; {BLOCKING}", "1", "True"),
        (f"import mindone_diffusers.backend.device; {BLOCKING}", "1", "True"),
        (f"import mindone_diffusers, mindspore; {BLOCKING}", "0", "False"),
    ],
    ids=["the package alone", "the package first", "MindSpore first", "by way of a module", "switched off"],
)
def test_mindspore_is_tuned_when_it_is_imported(code, variable, printed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("MINDONE_DIFFUSERS_CPU_TUNING", variable)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == printed


def test_modules_are_attributes_without_an_import() -> None:
    code = (
        "import mindone_diffusers as m; print(m.utils.load_image.__name__, m.schedulers.DDIMScheduler.__name__, m.training_utils.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["load_image", "DDIMScheduler", "mindone_diffusers.training_utils"]
