"""The cost model: what it counts, by hand, and that its times follow the roofline."""

import pytest

from mindone_diffusers.backend.cost import Device, graph_cost, node_cost, total
from mindone_diffusers.backend.lowering import Node, TensorType

DEVICE = Device("test", half=1e3, single=1e2, bandwidth=1e2, efficiency=0.5, overhead=1.0)


def half(*shape: int) -> TensorType:
    return TensorType(shape, "float16")


QUERY, KEY = half(2, 4, 10, 16), half(2, 4, 7, 16)
TOKENS_FIRST = half(2, 10, 4, 16), half(2, 7, 4, 16), half(2, 7, 4, 16)
NODES = {
    "Dense": (Node("Dense", (half(2, 3, 4), half(5, 4), half(5)), half(2, 3, 5)), 2 * 30 * 4, 2 * (24 + 20 + 5 + 30)),
    "Conv2DExt": (Node("Conv2DExt", (half(1, 4, 8, 8), half(6, 4, 3, 3)), half(1, 6, 8, 8)), 2 * 384 * 36, 2 * (256 + 216 + 384)),
    "grouped": (Node("Conv2DExt", (half(1, 4, 8, 8), half(6, 2, 3, 3)), half(1, 6, 8, 8)), 2 * 384 * 18, 2 * (256 + 108 + 384)),
    "ConvTranspose2D": (
        Node("ConvTranspose2D", (half(1, 4, 8, 8), half(4, 6, 2, 2)), half(1, 6, 16, 16)), 2 * 256 * 24, 2 * (256 + 96 + 1536),
    ),
    "BatchMatMul": (Node("BatchMatMul", (half(3, 2, 5), half(3, 7, 5)), half(3, 2, 7)), 2 * 42 * 5, 2 * (30 + 105 + 42)),
    "attention": (Node("FlashAttentionScore", TOKENS_FIRST, (None, TOKENS_FIRST[0])), 4 * 8 * 10 * 7 * 16, 2 * (2 * 1280 + 2 * 896)),
    "a list of one": (Node("FusedInferAttentionScore", (QUERY, (KEY,), (KEY,)), QUERY), 4 * 8 * 10 * 7 * 16, 2 * (2 * 1280 + 2 * 896)),
    "Add": (Node("Add", (half(6), TensorType((6,), "float32")), TensorType((6,), "float32")), 0, 12 + 24 + 24),
    "a slice": (Node("StridedSlice", (half(100),), half(10)), 0, 40),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_counts(name):
    node, flops, moved = NODES[name]
    cost = node_cost(node, DEVICE)
    assert (cost.flops, cost.bytes, cost.kernels) == (flops, moved, 1)
    assert cost.seconds == pytest.approx(1 + max(flops / 1e3, moved / 1e2) / 0.5)


def test_float32_is_slower():
    node = Node("Dense", (TensorType((100, 100), "float32"), TensorType((100, 100), "float32")), TensorType((100, 100), "float32"))
    assert node_cost(node, DEVICE).seconds == pytest.approx(1 + 2e6 / 1e2 / 0.5)


def test_views_and_the_front_end_cost_nothing():
    nodes = [Node(name, (half(4, 4),), half(16)) for name in ("Reshape", "ExpandDims", "ChunkView", "TupleGetItem", "Load")]
    assert graph_cost(nodes, DEVICE) == {}


def test_sums():
    add, dense = NODES["Add"][0], NODES["Dense"][0]
    costs = graph_cost([add, dense, add], DEVICE)
    assert list(costs) == ["Add", "Dense"], "the dearest first, of both"
    assert costs["Add"] == node_cost(add, DEVICE) * 2
    assert total(costs.values()).kernels == 3
