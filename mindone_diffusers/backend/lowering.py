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

# Operators that need no kernel.
FRONT_END = ("Depend", "Load", "MakeTuple", "TupleGetItem", "UpdateState")

# Ascend's operators, by the public function (under `mindspore`) whose documentation lists Ascend among its platforms.
SOURCES = {
    "Add": "mint.add",
    "ArgMaxExt": "mint.argmax",
    "AvgPool2D": "mint.nn.functional.avg_pool2d",
    "BatchMatMul": "ops.BatchMatMul",
    "BatchNormExt": "mint.nn.functional.batch_norm",
    "BroadcastTo": "mint.broadcast_to",
    "Cast": "ops.cast",
    "ChunkView": "mint.chunk",
    "ClampScalar": "mint.clamp",
    "Concat": "mint.cat",
    "ConstantPadND": "mint.nn.functional.pad",
    "Conv2DExt": "mint.nn.functional.conv2d",
    "Conv3DExt": "mint.nn.functional.conv3d",
    "ConvTranspose2D": "mint.nn.functional.conv_transpose2d",
    "Cos": "mint.cos",
    "CumsumExt": "mint.cumsum",
    "Dense": "mint.nn.functional.linear",
    "Div": "mint.div",
    "EluExt": "mint.nn.functional.elu",
    "Embedding": "mint.nn.functional.embedding",
    "Equal": "mint.eq",
    "ExpandDims": "ops.expand_dims",
    "FlashAttentionScore": "ops.flash_attention_score",
    "FusedInferAttentionScore": "ops.fused_infer_attention_score",
    "GeluExt": "mint.nn.functional.gelu",
    "Greater": "mint.gt",
    "GreaterEqual": "mint.greater_equal",
    "GroupNorm": "mint.nn.functional.group_norm",
    "LayerNormExt": "mint.nn.functional.layer_norm",
    "LeakyReLUExt": "mint.nn.functional.leaky_relu",
    "Log": "mint.log",
    "LogicalAnd": "mint.logical_and",
    "LogicalNot": "mint.logical_not",
    "LogicalOr": "mint.logical_or",
    "MaxPoolWithMask": "mint.nn.functional.max_pool2d",
    "MishExt": "mint.nn.functional.mish",
    "Mul": "mint.mul",
    "Muls": "mint.mul",
    "PadV3": "ops.pad",
    "PromptFlashAttention": "ops.prompt_flash_attention",
    "ReLU": "mint.nn.functional.relu",
    "ReduceAny": "mint.any",
    "ReduceMean": "mint.mean",
    **dict.fromkeys(("ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D"), "mint.nn.functional.pad"),
    "RepeatInterleaveInt": "mint.repeat_interleave",
    **dict.fromkeys(("ReplicationPad1D", "ReplicationPad2D", "ReplicationPad3D"), "mint.nn.functional.pad"),
    "Reshape": "ops.reshape",
    "RmsNorm": "ops.rms_norm",
    "Select": "mint.where",
    "SiLU": "mint.nn.functional.silu",
    "Sigmoid": "mint.sigmoid",
    "Sin": "mint.sin",
    "Softmax": "mint.nn.functional.softmax",
    "SoftplusExt": "mint.nn.functional.softplus",
    "SplitTensorView": "mint.split",
    "SplitWithSizeView": "mint.split",
    "Sqrt": "mint.sqrt",
    "Squeeze": "ops.squeeze",
    "StackExt": "mint.stack",
    "StridedSlice": "ops.strided_slice",
    "Sub": "mint.sub",
    "SumExt": "mint.sum",
    "Tanh": "mint.tanh",
    "Transpose": "mint.permute",
    "Triu": "mint.triu",
    **dict.fromkeys(("UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleLinear1D"), "mint.nn.functional.interpolate"),
    **dict.fromkeys(("UpsampleNearest1D", "UpsampleNearest2D", "UpsampleNearest3D"), "mint.nn.functional.interpolate"),
    "UpsampleTrilinear3D": "mint.nn.functional.interpolate",
}

# Attention in one operator: where its bias, its mask and its number of heads are among the inputs, and whether each head may have a mask.
FUSED_ATTENTION = {
    "FlashAttentionScore": (3, 6, 10, True), "FusedInferAttentionScore": (3, 4, 24, False), "PromptFlashAttention": (6, 3, 12, False),
}  # fmt: skip


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


def problems(nodes: Iterable[Node]) -> list[str]:
    """What Ascend's kernels would refuse: operators not in `SOURCES`, and inputs outside the documented limits."""
    found = []
    for node in nodes:
        if node.operator in FUSED_ATTENTION:
            found += [f"{node.operator}: {problem}" for problem in _fused_attention(node)]
        elif node.operator not in SOURCES and node.operator not in FRONT_END:
            found.append(f"{node.operator}: not known to have an Ascend kernel")
    return found


def _fused_attention(node: Node) -> Iterator[str]:
    """The limits in the documentation of `mindspore.ops.flash_attention_score` and its like, for the layout BNSD."""
    bias, discard, heads, by_head = FUSED_ATTENTION[node.operator]
    query, key, value = node.inputs[:3]
    if not isinstance(key, TensorType):  # a list of one
        key, value = key[0], value[0]
    bias, discard, heads = node.inputs[bias], node.inputs[discard], node.inputs[heads]
    batch, _, queries, size = query.shape
    keys = key.shape[2]
    if query.dtype not in ("float16", "bfloat16") or {key.dtype, value.dtype} != {query.dtype}:
        yield f"dtypes {query.dtype}, {key.dtype}, {value.dtype}: expected float16 or bfloat16, all the same"
    if size % 16 or size > 512 or key.shape[3] != size or value.shape[3] != size:
        yield f"head sizes {size}, {key.shape[3]}, {value.shape[3]}: expected one multiple of 16, 512 at most"
    if heads != query.shape[1] or heads > 256 or heads % key.shape[1] or key.shape != value.shape:
        yield f"{heads} heads of a query {query.shape}, key {key.shape}, value {value.shape}"
    if discard is not None:
        if discard.dtype not in ("bool", "uint8"):
            yield f"a mask of dtype {discard.dtype}: expected bool or uint8"
        if discard.shape not in ((queries, keys), (batch, 1, queries, keys), (batch, heads if by_head else 1, queries, keys)):
            yield f"a mask of shape {discard.shape}: expected all {queries} queries and {keys} keys"
    if bias is not None and (bias.dtype != query.dtype or bias.shape not in ((batch, heads, queries, keys), (1, heads, queries, keys))):
        yield f"a bias {bias.dtype} {bias.shape}: expected {query.dtype} of shape {(batch, heads, queries, keys)}"


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
