"""A cost model of graphs on an Ascend NPU: a model, not a measurement.

A kernel takes an overhead, and then the longer of its arithmetic and its memory traffic (the roofline model, doi:10.1145/1498765.1498785).
Products, convolutions and attention are counted by formula, everything else by the bytes it reads and writes. Two numbers were fitted, to
two published times; docs/ascend.md says how well that works.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from .lowering import FRONT_END, FUSED_OPERATORS, Node, attention_inputs, tensors

LABEL = "model, not measurement"

# Without a kernel: another shape, or a part, of the same memory.
VIEWS = ("ChunkView", "ExpandDims", "Reshape", "SplitTensorView", "SplitWithSizeView", "Squeeze")

_BYTES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "float32": 4, "int64": 8, "float64": 8}


class Device(NamedTuple):
    """An NPU.

    Attributes:
        name: for the output.
        half, single: operations a second of the matrix unit, by the dtype of its inputs.
        bandwidth: bytes a second of its memory.
        efficiency: the part of both that kernels reach.
        overhead: seconds that a kernel takes besides.
    """

    name: str
    half: float
    single: float
    bandwidth: float
    efficiency: float
    overhead: float


ASCEND_910B = Device(
    "Ascend 910B",
    half=313e12,  # published: 313 (910B3) to 376 (910B1) TFLOPS in float16
    single=75e12,  # published: 75 to 94 TFLOPS in float32 with HF32
    bandwidth=1.6e12,  # published: 1.6 TB/s, of 64 GB
    efficiency=0.80,  # fitted, as is the overhead: python -m tools.benchmarks.ascend_cost
    overhead=83e-6,
)


class Cost(NamedTuple):
    """What operators cost: floating-point operations, bytes read and written, seconds by the model, and kernels started."""

    flops: float = 0
    bytes: float = 0
    seconds: float = 0
    kernels: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*map(sum, zip(self, other)))

    def __mul__(self, times: int) -> "Cost":
        return Cost(*(value * times for value in self))


def node_cost(node: Node, device: Device = ASCEND_910B) -> Cost:
    """What one operator costs."""
    if node.operator in FRONT_END or node.operator in VIEWS:
        return Cost()
    flops = _flops(node)
    moved = sum(math.prod(tensor.shape) * _BYTES[tensor.dtype] for tensor in tensors((_read(node), node.output)))
    half = all(tensor.dtype in ("float16", "bfloat16") for tensor in tensors(node.inputs[:1]))
    arithmetic = flops / (device.half if half else device.single)
    return Cost(flops, moved, device.overhead + max(arithmetic, moved / device.bandwidth) / device.efficiency, 1)


def graph_cost(nodes: Iterable[Node], device: Device = ASCEND_910B) -> dict[str, Cost]:
    """What each kind of operator costs in a graph, by name, the dearest first."""
    costs: dict[str, Cost] = {}
    for node in nodes:
        cost = node_cost(node, device)
        if cost.kernels:
            costs[node.operator] = costs.get(node.operator, Cost()) + cost
    return dict(sorted(costs.items(), key=lambda item: -item[1].seconds))


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def _flops(node: Node) -> float:
    """Multiplications and additions of a product, a convolution or an attention; 0 for everything else, which memory bounds."""
    if node.operator in FUSED_OPERATORS:
        query, key, _ = attention_inputs(node)
        return 4 * math.prod(query.shape) * key.shape[2]
    if node.operator == "BatchMatMul":
        return 2 * math.prod(node.output.shape) * _contracted(node)
    if node.operator in ("Dense", "Conv2DExt", "Conv3DExt"):
        return 2 * math.prod(node.output.shape) * math.prod(node.inputs[1].shape[1:])
    if node.operator == "ConvTranspose2D":
        return 2 * math.prod(node.inputs[0].shape) * math.prod(node.inputs[1].shape[1:])
    return 0


def _contracted(node: Node) -> int:
    """The length that a batched product sums over, from the number of elements: operands may be transposed."""
    left, right = (math.prod(tensor.shape) for tensor in node.inputs[:2])
    batch = math.prod(node.output.shape[:-2])
    return math.isqrt(left * right // math.prod(node.output.shape) // batch)


def _read(node: Node) -> Any:
    """The tensors that a kernel reads: of a slice or a lookup, as much as it writes."""
    return node.output if node.operator in ("StridedSlice", "Gather") else node.inputs
