"""What MindSpore's front end makes of a cell: its operators with their inputs, and what Ascend's kernels ask of those.

    with use_table("ascend"):
        nodes = lower(cell, *inputs)
    collections.Counter(node.operator for node in nodes), problems(nodes)

No NPU is needed: `mindspore.export` compiles, type- and shape-checks Ascend's operators anywhere. It does not check
the kernels' own limits, so `problems` has those, from MindSpore's documentation.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, TensorProto


class TensorType(NamedTuple):
    """The shape of a tensor in the graph, and its dtype by MindSpore's name."""

    shape: tuple[int, ...]
    dtype: str


class Node(NamedTuple):
    """An operator's call: `inputs` holds a `TensorType`, a constant, or None for what is neither."""

    operator: str
    inputs: tuple[Any, ...]


def lower(cell: ms.nn.Cell, *inputs: Any) -> list[Node]:
    """The operators a cell compiles to, under the active op table (`use_table`).

    MindSpore caches what it parsed: use a process that has not compiled the same functions under another table.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cell.mindir")
        ms.export(cell, *inputs, file_name=str(path), file_format="MINDIR")
        model = ModelProto.FromString(path.read_bytes())
    operators = {primitive.name: primitive.op_type for primitive in model.primitives}
    nodes = []
    for graph in (model.graph, *model.functions):
        values = {value.name: _tensor(value.tensor[0]) for value in graph.input if value.tensor}
        if graph is model.graph:
            values |= {parameter.name: _tensor(parameter) for parameter in graph.parameter}
        for node in graph.node:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type == "Constant":
                value = _value(attributes["value"]) if "value" in attributes else None
            else:
                value = _value(attributes["shape"]) if "shape" in attributes else None
                operator = operators.get(node.op_type.removeprefix("REF::"), node.op_type)
                nodes.append(Node(operator, tuple(values.get(name) for name in node.input)))
            values |= dict.fromkeys(node.output, value)
    return nodes


def _tensor(proto: TensorProto) -> TensorType:
    return TensorType(tuple(proto.dims), TensorProto.DataType.Name(proto.data_type).lower())


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
