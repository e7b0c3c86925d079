"""Show what a model asks of an Ascend NPU, without one: all a generation runs, compiled for Ascend and held against what is documented.

The pipeline is called with a prompt and, if it takes some, with black images; its
models are compiled by MindSpore's front end with Ascend's operators, instead of
run. Of the model only the JSON files are read. The exit code is 1 if there is an
operator that is not documented for Ascend, a dtype or a shape that its kernel
does not take (float64 everywhere), or attention in several operators where one
would do. A compiled graph cannot wait for the host; what the loop around it reads
is counted by tests/pipelines/test_graph_and_host_reads.py.
"""

import argparse
import collections
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UnsupportedError
from ..core.files import replaced_file
from .arguments import SIZE_HELP, check_model, size_in_pixels, whole_number

if TYPE_CHECKING:
    from ..pipelines.audit import Core

DEAREST = 8
"""How many operators `--cost` lists of each part."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="DIR_OR_REPO", help="a pipeline's or a model's folder, or repository on the hub")
    add("--dtype", choices=("float16", "bfloat16", "float32"), default="float16", help="what to compute in (default: %(default)s)")
    add("--size", type=size_in_pixels, metavar="WxH|N", help=SIZE_HELP)
    add("--batch", type=whole_number, default=1, metavar="N", help="pictures a call (default: %(default)s)")
    add("--steps", type=whole_number, default=50, metavar="N", help="denoising steps (default: %(default)s)")
    add("--cost", action="store_true", help="also estimate what it costs: a model, not a measurement")
    add("--json", type=Path, metavar="FILE", help="also write all of it there")


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each part of the generation, then one for each problem.

    Raises:
        UnsupportedError: there are problems.
    """
    check_model(arguments.model)
    from ..core import logging
    from ..pipelines.audit import audit

    logging.disable_progress_bar()
    width, height = arguments.size or (None, None)
    cores = audit(arguments.model, dtype=arguments.dtype, height=height, width=width, batch=arguments.batch, steps=arguments.steps)
    _print_table(("part", "calls", "operators", "fused attention", "casts", "transposes", "model"), map(_row, cores))
    if arguments.cost:
        _print_costs(cores)
    if arguments.json is not None:
        with replaced_file(arguments.json) as path:
            path.write_text(json.dumps([_facts(core, arguments.cost) for core in cores], indent=1) + "\n")
    lines = {kind: [f"{core.name}: {line}" for core in cores for line in _counted(getattr(core, kind))] for kind in ("remarks", "problems")}
    for kind, found in lines.items():
        for line in found:
            print(f"{kind[:-1]}: {line}")
    if lines["problems"]:
        raise UnsupportedError(f"Ascend would not run this as it is, for {len(lines['problems'])} reasons")
    print("no problems: every operator is documented for Ascend, and gets what it takes")


def _row(core: "Core") -> tuple[Any, ...]:
    operators = core.operators
    return (
        core.name, core.calls, sum(operators.values()), f"{core.fused_attentions} of {core.attention_layers}", operators.get("Cast", 0),
        operators.get("Transpose", 0), f"{core.model}, {core.dtype}, {'x'.join(map(str, core.inputs[0]))}",
    )  # fmt: skip


def _counted(lines: Iterable[str]) -> list[str]:
    return [line if times == 1 else f"{line} ({times} times)" for line, times in collections.Counter(lines).items()]


def _print_costs(cores: list["Core"]) -> None:
    from ..backend.cost import ASCEND_910B, LABEL, graph_cost, total

    rows, sums = [], []
    for core in cores:
        costs = {name: cost * core.calls for name, cost in graph_cost(core.graph.nodes).items()}
        sums.append(total(costs.values()))
        rows.append((core.name, core.calls, *_cost_columns(sums[-1])))
        rows += [(f"  {name}", "", *_cost_columns(cost)) for name, cost in list(costs.items())[:DEAREST]]
    rows.append(("total", "", *_cost_columns(total(sums))))
    print(f"\n{ASCEND_910B.name}, {LABEL}:")
    _print_table(("part", "calls", "kernels", "TFLOP", "GB moved", "seconds"), rows)
    print()


def _cost_columns(cost: Any) -> tuple[str, ...]:
    return f"{cost.kernels}", f"{cost.flops / 1e12:.2f}", f"{cost.bytes / 1e9:.1f}", f"{cost.seconds:.3f}"


def _facts(core: "Core", with_cost: bool) -> dict[str, Any]:
    facts = {
        "part": core.name, "model": core.model, "dtype": core.dtype, "inputs": core.inputs, "calls": core.calls,
        "operators": core.operators, "fused_attentions": core.fused_attentions, "attention_layers": core.attention_layers,
        "problems": core.problems, "remarks": core.remarks,
    }  # fmt: skip
    if with_cost:
        from ..backend.cost import LABEL, graph_cost

        facts[f"cost of a call ({LABEL})"] = {name: cost._asdict() for name, cost in graph_cost(core.graph.nodes).items()}
    return facts


def _print_table(titles: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Columns, the first and the text of the last to the left, the others to the right."""
    table = [titles, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    for first, *others, last in table:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:])), last]
        print("  ".join(cells).rstrip())
