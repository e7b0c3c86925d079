import logging as python_logging
import os
import subprocess
import sys

import pytest

import mindone_diffusers
from mindone_diffusers.core import logging

# The floor without the package around it, which imports MindSpore.
ALONE = (
    "import sys, types; package = sys.modules['mindone_diffusers'] = types.ModuleType('mindone_diffusers'); "
    f"package.__path__ = [{os.path.dirname(mindone_diffusers.__file__)!r}]; "
)


@pytest.fixture
def records():
    kept = []
    handler = python_logging.Handler()
    handler.emit = kept.append
    logging.add_handler(handler)
    yield kept
    logging.remove_handler(handler)
    logging.set_verbosity_warning()


def test_levels(records):
    logger = logging.get_logger("mindone_diffusers.tests")
    assert logging.get_verbosity() == python_logging.WARNING
    for set_level, expected in (
        (logging.set_verbosity_debug, ["debug", "info", "warning", "error"]),
        (logging.set_verbosity_info, ["info", "warning", "error"]),
        (logging.set_verbosity_warning, ["warning", "error"]),
        (logging.set_verbosity_error, ["error"]),
    ):
        records.clear()
        set_level()
        for level in logging.log_levels:
            if level != "critical":
                getattr(logger, level)(level)
        assert [r.getMessage() for r in records] == expected
    assert logging.get_logger().name == "mindone_diffusers"


def test_handlers_propagation_and_format():
    root = python_logging.getLogger("mindone_diffusers")
    default = logging._default_handler()
    assert default in root.handlers
    logging.disable_default_handler()
    assert default not in root.handlers
    logging.enable_default_handler()
    assert default in root.handlers
    assert root.propagate is False
    logging.enable_propagation()
    assert root.propagate is True
    logging.disable_propagation()
    assert root.propagate is False
    logging.enable_explicit_format()
    record = python_logging.LogRecord("n", python_logging.INFO, "f.py", 3, "hello", (), None)
    assert default.format(record).startswith("[INFO|f.py:3] ") and default.format(record).endswith(" >> hello")
    logging.reset_format()
    assert default.format(record) == "hello"
    with pytest.raises(ValueError, match="not a handler"):
        logging.remove_handler(python_logging.NullHandler())


@pytest.mark.parametrize("value, level, warned", [("debug", 10, False), ("error", 40, False), ("loud", 30, True), ("", 30, False)])
def test_environment(value, level, warned):
    code = ALONE + "from mindone_diffusers.core import logging; print(logging.get_verbosity())"
    environment = {"DIFFUSERS_VERBOSITY": value, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [str(level)]
    assert ("DIFFUSERS_VERBOSITY=loud" in done.stderr) == warned


def test_progress_bar(capsys):
    assert logging.is_progress_bar_enabled()
    assert list(logging.tqdm(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
    logging.disable_progress_bar()
    try:
        assert not logging.is_progress_bar_enabled()
        assert list(logging.tqdm(range(3))) == [0, 1, 2]
        with logging.tqdm(total=3) as bar:
            bar.update()
            bar.set_postfix(loss=1)
        assert capsys.readouterr().err == ""
    finally:
        logging.enable_progress_bar()


def test_nothing_slow_is_imported():
    code = (
        ALONE + "from mindone_diffusers.core import configuration, dtypes, errors, files, hub, logging, outputs, random, weights; "
        "print([m for m in ('mindspore', 'torch', 'transformers', 'huggingface_hub', 'PIL', 'safetensors', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=True)
    assert done.stdout.strip() == "[]"
