"""Fit the two free numbers of `backend/cost.py` to two published times of another port on an Ascend 910B:

    python -m tools.benchmarks.ascend_cost

mindone's table for Stable Diffusion 1.5, 512x512, 50 DDIM steps in graph mode: 5.64 s in float32, 4.03 s in float16. With two times and two
numbers the fit is always exact; what can be judged is whether the numbers are plausible, and how the float32 graph has to look for that.
"""

import tempfile
from pathlib import Path

import numpy as np

from mindone_diffusers.backend.cost import ASCEND_910B, graph_cost, total
from mindone_diffusers.backend.lowering import FUSED_OPERATORS, Node, TensorType
from mindone_diffusers.pipelines.audit import audit
from tools.config_folders import FULL_SIZE, write_configs

PUBLISHED = {"float32": 5.64, "float16": 4.03}


def in_single(value):
    """A node's float16 as float32."""
    if isinstance(value, TensorType):
        return value._replace(dtype="float32" if value.dtype == "float16" else value.dtype)
    return tuple(map(in_single, value)) if isinstance(value, tuple) else value


def with_transposes(nodes: list[Node]) -> list[Node]:
    """A graph as the other port's are: heads transposed before and after attention. (Its UNet of two levels has 72 transposes for 12
    attentions, which are four of heads and two of pixels each, as ours had.)"""
    result = []
    for node in nodes:
        transposes = [Node("Transpose", (tensor,), tensor) for tensor in node.inputs[:3] if node.operator in FUSED_OPERATORS]
        result += [*transposes, node, *transposes[:1]]
    return result


def attention_in_half(nodes: list[Node]) -> list[Node]:
    """A float16 graph as a float32 one would be with fused attention: cast to float16 before it and back after it."""
    result = []
    for node in nodes:
        if node.operator in FUSED_OPERATORS:
            casts = [Node("Cast", (in_single(tensor),), tensor) for tensor in node.inputs[:3]]
            result += [*casts, node, Node("Cast", (node.inputs[0],), in_single(node.inputs[0]))]
        else:
            result.append(node._replace(inputs=in_single(node.inputs), output=in_single(node.output)))
    return result


def terms(generation: list[tuple[int, list[Node]]]) -> tuple[int, float]:
    """Kernels, and seconds at full efficiency, of (calls, nodes)."""
    ideal = ASCEND_910B._replace(efficiency=1, overhead=0)
    costs = [total(graph_cost(nodes, ideal).values()) * calls for calls, nodes in generation]
    return total(costs).kernels, total(costs).seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_configs(Path(folder), *FULL_SIZE["sd15"])
        half, single = (
            [(core.calls, core.graph.nodes) for core in audit(folder, dtype=dtype, steps=50)] for dtype in ("float16", "float32")
        )
    half = [(calls, with_transposes(nodes)) for calls, nodes in half]
    graphs = {
        "as ours: attention in float32, not fused": single,
        "attention cast to float16, fused": [(calls, attention_in_half(nodes)) for calls, nodes in half],
    }
    kernels, seconds = terms(half)
    print(f"float16: {kernels} kernels, {seconds:.2f} s at full efficiency; published {PUBLISHED['float16']} s")
    for name, graph in graphs.items():
        others = terms(graph)
        equations = np.array([[kernels, seconds], others])
        overhead, slowness = np.linalg.solve(equations, [PUBLISHED["float16"], PUBLISHED["float32"]])
        print(f"float32, {name}: {others[0]} kernels, {others[1]:.2f} s at full efficiency; published {PUBLISHED['float32']} s")
        print(f"  explained by an overhead of {overhead * 1e6:.1f} us a kernel and an efficiency of {1 / slowness:.2f}")


if __name__ == "__main__":
    main()
