"""Floor 6: the `mindone-diffusers` command line, one module a command.

A command's module has `add_arguments(parser)` and `run(arguments)`, which raises what goes wrong. Its top imports nothing heavy: `--help`
must not wait for MindSpore.
"""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from ..core.errors import MindoneDiffusersError
from ..version import __version__

COMMANDS = {
    "generate": "draw pictures of a prompt",
    "audit": "show what a model asks of an Ascend NPU, without one",
    "env": "describe this installation, for a bug report",
}
"""Each command is the module of that name in this folder."""

NAME = "mindone-diffusers"
FAILED, INTERRUPTED = 1, 130
"""Exit codes; 0 is success, and 2 an argument that argparse refuses."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        The exit code: 0, 1 if the command failed, 130 if it was interrupted.

    Raises:
        SystemExit: with code 2 for wrong arguments, 0 after `--help` and `--version`.
    """
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it advises every user without PyTorch to install it
    try:
        importlib.import_module(f".{arguments.command}", __package__).run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads our output has seen enough: `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
        return FAILED
    except KeyboardInterrupt:
        print(f"{NAME}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"{NAME}: error: {_in_one_line(error)}", file=sys.stderr)
        return FAILED
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{NAME}: error: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=NAME, description="The PyTorch diffusers API on MindSpore, from the shell.")
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f".{name}", __package__)
        command = commands.add_parser(name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _in_one_line(error: Exception) -> str:
    """What went wrong. Errors that are not ours, nor the operating system's, are named; of several lines the first is shown."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    if not isinstance(error, (MindoneDiffusersError, OSError)):
        first = f"{type(error).__name__}: {first}"
    return f"{first} ({len(more)} more lines with --debug)" if more else first
