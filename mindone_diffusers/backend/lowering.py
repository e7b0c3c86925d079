"""What MindSpore's front end makes of a cell: its operators with their inputs, and what Ascend's kernels ask of those.

    with use_table("ascend"):
        graph = lower(cell, *inputs)
    collections.Counter(node.operator for node in graph.nodes), problems(graph.nodes)

No NPU is needed: `mindspore.export` compiles, type- and shape-checks Ascend's operators anywhere. It does not check
the kernels' own limits, so `problems` has those, from MindSpore's documentation (`ascend_operators`).
"""

import collections
import contextlib
import gc
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, TensorProto

from ..core.dtypes import dtype_name
from .ascend_operators import (
    ANY_DTYPE,
    BFLOAT16_UNDOCUMENTED,
    DTYPES,
    FLOATS,
    FUSED_ATTENTION,
    HEAD_SIZE_MULTIPLE,
    ONE_DTYPE,
    SOURCES,
    FusedAttention,
)

# Operators that need no kernel.
FRONT_END = ("Depend", "Load", "MakeTuple", "TupleGetItem", "UpdateState")
COPY = "TensorMove"
"""A copy that MindSpore puts into graphs itself, of a weight that is read again after a view (a `chunk`, a `split`); it has no
documentation."""
_FUSED = {limits.operator: limits for limits in FUSED_ATTENTION.values()}
FUSED_OPERATORS = tuple(_FUSED)


class TensorType(NamedTuple):
    """The shape of a tensor in the graph, and its dtype by NumPy's name."""

    shape: tuple[int, ...]
    dtype: str


class Node(NamedTuple):
    """An operator's call. Its inputs and its output are a `TensorType`, a constant, a tuple of those, or None for what is neither."""

    operator: str
    inputs: tuple[Any, ...]
    output: Any = None


class Graph(NamedTuple):
    """What a cell compiles to, and what it returns, as a node's output."""

    nodes: list[Node]
    output: Any


class _Core(ms.nn.Cell):
    """A cell of which another method than `construct` is compiled."""

    def __init__(self, cell: ms.nn.Cell, core: str):
        super().__init__()
        self.cell = cell
        self.core = core

    def construct(self, *inputs):
        return getattr(self.cell, self.core)(*inputs)


def lower(cell: ms.nn.Cell, *inputs: Any, core: str = "construct") -> Graph:
    """What a cell's method compiles to, under the active op table (`use_table`). The values of its parameters are not looked at.

    MindSpore caches what it parsed: use a process that has not compiled the same functions under another table.
    """
    exported = ModelProto()

    def keep(model: ModelProto) -> None:
        exported.CopyFrom(model)
        del model.graph.parameter[:]  # or their values would be written

    with tempfile.TemporaryDirectory() as folder, _nothing_to_collect():
        ms.export(_Core(cell, core), *inputs, file_name=str(Path(folder, "cell.mindir")), file_format="MINDIR", custom_func=keep)
    operators = {primitive.name: primitive.op_type for primitive in exported.primitives}
    nodes: list[Node] = []
    for graph in (exported.graph, *exported.functions):
        values = {value.name: _tensor(value.tensor[0]) for value in graph.input if value.tensor}
        if graph is exported.graph:
            values |= {parameter.name: _tensor(parameter) for parameter in graph.parameter}
        for node in graph.node:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type == "Constant":
                value = _value(attributes["value"]) if "value" in attributes else None
            else:
                value = _value(attributes["shape"]) if "shape" in attributes else None
                operator = operators.get(node.op_type.removeprefix("REF::"), node.op_type)
                nodes.append(Node(operator, tuple(values.get(name) for name in node.input), value))
            values |= dict.fromkeys(node.output, value)
        if graph is exported.graph:
            output = values[graph.output[0].name]
    return Graph(nodes, output)


@contextlib.contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """MindSpore has Python collect garbage before each compilation; within the context that looks at new objects only."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def count_operators(nodes: Iterable[Node]) -> dict[str, int]:
    """How many of each operator there are, of those that need a kernel, by name."""
    return dict(sorted(collections.Counter(node.operator for node in nodes if node.operator not in FRONT_END).items()))


def tensors(value: Any) -> Iterator[TensorType]:
    """The tensors in a node's inputs or output."""
    if isinstance(value, TensorType):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors(item)


def attention_inputs(node: Node) -> list[TensorType]:
    """Query, key and value of an attention in one operator, as (batch, heads, tokens, size)."""
    inputs = [next(tensors(value)) for value in node.inputs[:3]]  # key and value may be lists of one
    if not _FUSED[node.operator].tokens_first:
        return inputs
    return [tensor._replace(shape=tuple(tensor.shape[axis] for axis in (0, 2, 1, 3))) for tensor in inputs]


def problems(nodes: Iterable[Node]) -> list[str]:
    """What Ascend's kernels would refuse: operators that are not documented for it, and inputs outside the documented limits."""
    found = []
    for node in nodes:
        if node.operator in _FUSED:
            found += [f"{node.operator}: {problem}" for problem in _fused_attention(node, _FUSED[node.operator])]
        elif node.operator not in (*FRONT_END, COPY):
            found += [f"{node.operator}: {problem}" for problem in _operator(node)]
    return found


def remarks(nodes: Iterable[Node]) -> list[str]:
    """What is not documented but known to run (`BFLOAT16_UNDOCUMENTED`), and copies that MindSpore puts in."""
    nodes = list(nodes)
    used = {node.operator for node in nodes if any(tensor.dtype == "bfloat16" for tensor in tensors(node.inputs))}
    found = [f"{name} in bfloat16: MindSpore's documentation leaves it out" for name in BFLOAT16_UNDOCUMENTED if name in used]
    copies = sum(node.operator == COPY for node in nodes)
    return [*found, f"{copies} copies of weights that are read again after a view ({COPY}, which MindSpore puts in)"] if copies else found


def _operator(node: Node) -> Iterator[str]:
    """The limits of an operator that is not attention."""
    if node.operator not in SOURCES:
        yield "not known to have an Ascend kernel"
    given, made = ({tensor.dtype for tensor in tensors(value)} for value in (node.inputs, node.output))
    taken = DTYPES.get(node.operator, ANY_DTYPE) + (("bfloat16",) if node.operator in BFLOAT16_UNDOCUMENTED else ())
    if given - {*taken}:
        yield f"takes {', '.join(taken)}, not {', '.join(sorted(given - {*taken}))}"
    if made - {*ANY_DTYPE}:
        yield f"gives {', '.join(sorted(made - {*ANY_DTYPE}))}, of which the NPU has no kernels"
    if node.operator in ONE_DTYPE and len(given & {*FLOATS}) > 1:
        yield f"inputs of {' and '.join(sorted(given & {*FLOATS}))}: expected one dtype"


def _fused_attention(node: Node, limits: FusedAttention) -> Iterator[str]:
    """The limits in the documentation of `mindspore.ops.flash_attention_score` and its like."""
    query, key, value = attention_inputs(node)
    bias, discard, heads = node.inputs[limits.bias], node.inputs[limits.discard], node.inputs[limits.heads]
    batch, _, queries, size = query.shape
    keys = key.shape[2]
    refused = limits.refusal(query.dtype, query.shape, key.shape, value.shape)
    if refused is not None:
        yield f"takes {refused}"
    if {key.dtype, value.dtype} != {query.dtype}:
        yield f"dtypes {query.dtype}, {key.dtype}, {value.dtype}: expected one"
    if size % HEAD_SIZE_MULTIPLE or key.shape[3] != size:
        yield f"head sizes {size}, {key.shape[3]}: expected one multiple of {HEAD_SIZE_MULTIPLE}"
    if heads != query.shape[1] or heads % key.shape[1] or key.shape != value.shape:
        yield f"{heads} heads of a query {query.shape}, key {key.shape}, value {value.shape}"
    if discard is not None:
        if discard.dtype not in ("bool", "uint8"):
            yield f"a mask of dtype {discard.dtype}: expected bool or uint8"
        by_head = (batch, heads if limits.mask_by_head else 1, queries, keys)
        if discard.shape not in ((queries, keys), (batch, 1, queries, keys), by_head):
            yield f"a mask of shape {discard.shape}: expected all {queries} queries and {keys} keys"
    if bias is not None and (bias.dtype != query.dtype or bias.shape not in ((batch, heads, queries, keys), (1, heads, queries, keys))):
        yield f"a bias {bias.dtype} {bias.shape}: expected {query.dtype} of shape {(batch, heads, queries, keys)}"


def _tensor(proto: TensorProto) -> TensorType:
    return TensorType(tuple(proto.dims), dtype_name(TensorProto.DataType.Name(proto.data_type)))


def _value(attribute: AttributeProto) -> Any:
    """A constant number, string, tuple of them or None; of tensors, their type."""
    kind = AttributeProto.AttributeType.Name(attribute.type)
    if kind in ("TUPLE", "LIST"):
        return tuple(map(_value, attribute.values))
    if kind == "NONE":
        return None
    for numbers in (attribute.ints, attribute.floats, attribute.strings):
        if numbers:
            return numbers[0]
    if attribute.tensors:
        return _tensor(attribute.tensors[0])
    if kind == "TENSOR":
        return _tensor(attribute.t)
    return attribute.s.decode() if kind == "STRING" else attribute.f if kind == "FLOAT" else attribute.i
