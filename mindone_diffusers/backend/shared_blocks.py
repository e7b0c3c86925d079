"""Blocks of a model that are alike but for their weights: parsed and type-checked once, then inlined (MindSpore's lazy inlining)."""

import collections
import contextlib
import re
from collections.abc import Collection, Iterator

import mindspore as ms

from .description import Indescribable, describe, digest


@contextlib.contextmanager
def shared_blocks(model: ms.nn.Cell, classes: Collection[str]) -> Iterator[None]:
    """Within the context, compilations of a model share what blocks of these classes have in common.

    Blocks share if they do the same and are in the same part of the model: MindSpore takes the first one's shapes for all that share.
    """
    groups = collections.defaultdict(list)
    for path, cell in model.cells_and_names():
        if type(cell).__name__ in classes:
            with contextlib.suppress(Indescribable):
                groups[_part(path), digest(describe(cell))].append(cell)
    marked = {"_cell_init_args", "no_inline"}
    alike = {key: cells for key, cells in groups.items() if len(cells) > 1}
    before = [(cell, {name: vars(cell)[name] for name in marked & vars(cell).keys()}) for cells in alike.values() for cell in cells]
    for (part, key), cells in alike.items():
        for cell in cells:
            cell.cell_init_args, cell.no_inline = f"lazy_inline_{type(cell).__name__}_{part}_{key}", False
    try:
        yield
    finally:
        for cell, attributes in before:
            for name in marked:
                vars(cell).pop(name, None)
            vars(cell).update(attributes)


def _part(path: str) -> str:
    """The part of the model that a block is in: down_blocks.1 of down_blocks.1.attentions.0.transformer_blocks.0, or the list it is in."""
    return re.match(r"\D*\d+(?=\.)|.*", re.sub(r"\.\d+$", "", path)).group()
