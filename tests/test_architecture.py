"""The floors of docs/contributing/architecture.md: who may import whom, and who may name MindSpore's operators."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mindone_diffusers"

FLOORS = {
    "core": 0,
    "backend": 1,
    "nn": 2,
    "models": 3,
    "text_encoders": 3,
    "schedulers": 3,
    "loaders": 4,
    "quantizers": 4,
    "hooks": 4,
    "pipelines": 5,
    "commands": 6,
}
# Floors that a package may not use although they lie below it.
NOT_FOR = {"schedulers": ("backend", "nn")}
OPERATORS = re.compile(r"mindspore\.(ops|mint|nn)\b")
OPERATOR_PACKAGES = ("backend", "nn")

# Only in packages: the modules beside them are thin import paths and small public extras.
MODULES = sorted(path for folder in FLOORS for path in (PACKAGE / folder).rglob("*.py"))


def imports(tree: ast.AST, path: Path) -> Iterator[str]:
    """The dotted names of everything a module imports, relative ones made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{name.name}" for name in node.names)


def operator_uses(tree: ast.AST, path: Path) -> Iterator[str]:
    """Names of `mindspore.ops`, `mindspore.mint` or `mindspore.nn`, imported or as attributes."""
    yield from (name for name in imports(tree, path) if OPERATORS.match(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and OPERATORS.fullmatch(re.sub(r"^ms\.", "mindspore.", ast.unparse(node))):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def floor_errors(tree: ast.AST, path: Path) -> list[str]:
    own = path.relative_to(PACKAGE).parts[0]
    found = []
    for name in imports(tree, path):
        parts = name.split(".")
        if parts[0] != PACKAGE.name or parts[1] == own or parts[1] not in FLOORS:
            continue
        # models and text_encoders share a floor and may use each other's modules; schedulers stand alone.
        if FLOORS[parts[1]] > FLOORS[own] or parts[1] in NOT_FOR.get(own, ()) or {own, parts[1]} >= {"schedulers", "models"}:
            found.append(f"{own} imports {name}")
    return found


def test_the_table_is_the_documented_one():
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", (ROOT / "docs/contributing/architecture.md").read_text(), re.M)
    documented = {package: int(floor) for floor, packages in rows for package in re.findall(r"`(\w+)/`", packages)}
    assert documented == FLOORS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    assert floor_errors(ast.parse(path.read_text()), path) == []


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in OPERATOR_PACKAGES],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_operators_are_named_in_backend_and_nn_only(path):
    assert list(operator_uses(ast.parse(path.read_text()), path)) == []


@pytest.mark.parametrize(
    "source, floors, operators",
    [
        ("from ..core.errors import ConfigError\nfrom ..nn import functional as F\nimport mindspore as ms", 0, 0),
        ("from ..pipelines import x", 1, 0),
        ("from .. import loaders", 1, 0),
        ("import mindone_diffusers.pipelines.pipeline_utils", 1, 0),
        ("import mindspore as ms\nms.ops.abs(1)", 0, 1),
        ("from mindspore import ops, Tensor", 0, 1),
        ("import mindspore.mint.nn.functional as F", 0, 1),
        ("import mindspore\nclass A(mindspore.nn.Cell): pass", 0, 1),
        ("def f():\n    from mindspore.ops import abs", 0, 1),
    ],
)
def test_the_rules_catch(source, floors, operators):
    path, tree = PACKAGE / "models" / "example.py", ast.parse(source)
    assert (len(floor_errors(tree, path)), len(list(operator_uses(tree, path)))) == (floors, operators)
