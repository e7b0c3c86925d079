"""The command line itself: help, version, errors, exit codes; and `env`."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import mindspore
import pytest

import mindone_diffusers
from mindone_diffusers.backend import native
from mindone_diffusers.commands import COMMANDS, env, main
from mindone_diffusers.core.errors import ConfigError, WeightsMismatchError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["generate", "--help"], ["audit", "--help"], ["env", "--help"], ["generate", "--steps", "x"]],
    ids=" ".join,
)
def test_help_does_not_wait_for_mindspore(words, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['mindone-diffusers', *words]!r}\n"
        "try:\n    runpy.run_module('mindone_diffusers', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, sorted({'mindspore', 'numpy', 'transformers', 'PIL'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ("2 []" if "x" in words else "0 []")


def test_version_and_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"mindone-diffusers {mindone_diffusers.__version__}\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    help = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(summary)}$", help, re.M)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "the following arguments are required: COMMAND (see `mindone-diffusers --help`)"),
        (["draw"], "argument COMMAND: invalid choice: 'draw' (choose from "),
        (["env", "--all"], "unrecognized arguments: --all (see `mindone-diffusers --help`)"),
    ],
)
def test_wrong_use(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main(words)
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == ""
    assert printed.err.startswith(f"mindone-diffusers: error: {message}") and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ConfigError("no good"), 1, "mindone-diffusers: error: no good"),
        (OSError(28, "No space left on device"), 1, "mindone-diffusers: error: [Errno 28] No space left on device"),
        (RuntimeError("deep down"), 1, "mindone-diffusers: error: RuntimeError: deep down"),
        (ZeroDivisionError(), 1, "mindone-diffusers: error: ZeroDivisionError: ZeroDivisionError"),
        (
            WeightsMismatchError("the UNet", missing=["a", "b"]), 1,
            "mindone-diffusers: error: the weights do not fit the UNet: (2 more lines with --debug)",
        ),
        (KeyboardInterrupt(), 130, "mindone-diffusers: interrupted"),
    ],
)  # fmt: skip
def test_errors_are_one_line(capsys, monkeypatch, error, code, line):
    def run(arguments):
        raise error

    monkeypatch.setattr(env, "run", run)
    assert main(["env"]) == code
    assert capsys.readouterr().err == f"{line}\n"
    if code == 1:
        assert main(["env", "--debug"]) == code
        shown = capsys.readouterr().err
        assert shown.startswith("Traceback") and str(error) in shown


def test_nobody_listens(monkeypatch):
    """Without a complaint, as in `mindone-diffusers env | head -1`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mindone_diffusers", "env"]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


def facts(capsys) -> dict[str, str]:
    assert main(["env"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return dict(re.fullmatch(r"- ([^:]+): (.+)", line).groups() for line in printed.out.splitlines())


def test_env(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for name in set(env.VARIABLES) - {"OMP_NUM_THREADS"}:
        monkeypatch.delenv(name, raising=False)
    known = facts(capsys)
    assert known["mindone_diffusers"] == mindone_diffusers.__version__
    assert known["Python"] == platform.python_version()
    assert known["mindspore"] == mindspore.__version__
    assert known["transformers"] == importlib.metadata.version("transformers")
    assert known["Device target"] == "CPU"
    assert re.fullmatch(r".+, \d+ cores", known["Processor"])
    assert re.fullmatch(r"[\d.]+ GiB, [\d.]+ free", known["Memory"])
    assert known["Environment"] == "OMP_NUM_THREADS=1"
    assert known["Operator launch"].startswith("blocking")
    assert "float32" in known["bfloat16"]
    assert ("oneDNN" in known) == (tuple(map(int, mindspore.__version__.split(".")[:2])) >= (2, 9))
    everything = " ".join(known.values())
    assert "secret" not in everything and str(Path.home()) not in everything


def test_env_says_what_is_slow(capsys, monkeypatch):
    def build():
        raise native.BuildError(f"{Path.home()}/cache must belong to you")

    monkeypatch.setattr(native, "build", build)
    monkeypatch.delenv("MINDONE_DIFFUSERS_NATIVE", raising=False)
    assert facts(capsys)["Native CPU kernels"].startswith("none (~/cache must belong to you); ")
    monkeypatch.setenv("MINDONE_DIFFUSERS_NATIVE", "0")
    monkeypatch.setenv("MINDONE_DIFFUSERS_CPU_TUNING", "0")
    known = facts(capsys)
    assert known["Native CPU kernels"].startswith("none (MINDONE_DIFFUSERS_NATIVE=0); ")
    assert known["CPU tuning"].startswith("off: ") and "Operator launch" not in known


def test_env_of_a_broken_installation(capsys, monkeypatch):
    def device():
        raise ImportError("libgomp.so.1:\ncannot open shared object file")

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(env, "_device", device)
    monkeypatch.setattr(importlib.metadata, "version", version)
    known = facts(capsys)
    assert known["MindSpore"] == "does not start: ImportError: libgomp.so.1: cannot open shared object file"
    assert known["torch"] == known["mindspore"] == "not installed"
