"""The floors of docs/contributing/architecture.md: who may import whom, and who may name MindSpore's operators."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mindone_diffusers"


def read_table() -> dict[str, set[str]]:
    """Each package, and the packages it may import: those beside it in its row, and those on the floors in the last column."""
    rows = re.findall(r"^\| (\d) \|([^|]+)\|[^|]+\|([^|]+)\|$", (ROOT / "docs/contributing/architecture.md").read_text(), re.M)
    table = [(int(floor), re.findall(r"`(\w+)/`", packages), below) for floor, packages, below in rows]
    allowed = {}
    for floor, packages, below in table:
        numbers = [int(number) for number in re.findall(r"\d", below)]
        floors = range(floor) if "all" in below else range(numbers[-1], numbers[0] + 1) if ".." in below else numbers
        lower = {package for other, names, _ in table if other in floors for package in names}
        allowed |= dict.fromkeys(packages, {*packages, *lower})
    return allowed


ALLOWED = read_table()
OPERATORS = re.compile(r"mindspore\.(ops|mint|nn)\b")
OPERATOR_PACKAGES = ("backend", "nn")

# Only in packages: the modules beside them are thin import paths and small public extras.
MODULES = sorted(path for folder in ALLOWED for path in (PACKAGE / folder).rglob("*.py"))


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
    """The imports of packages that the module's own may not use."""
    allowed = ALLOWED[path.relative_to(PACKAGE).parts[0]]
    names = [name for name in imports(tree, path) if name.startswith(f"{PACKAGE.name}.")]
    return [name for name in names if name.split(".")[1] in ALLOWED.keys() - allowed]


def test_the_table_is_read():
    assert ALLOWED["core"] == {"core"}
    assert ALLOWED["schedulers"] == {"core", "backend", "schedulers"}
    assert ALLOWED["models"] == ALLOWED["text_encoders"] == {"core", "backend", "nn", "schedulers", "models", "text_encoders"}
    assert ALLOWED["commands"] == set(ALLOWED)


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
