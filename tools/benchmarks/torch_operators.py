"""Count what PyTorch diffusers dispatches where our graphs have operators, on no data, for Stable Diffusion 1.5 and XL of full size and
for the small UNet of which mindone's graph is known:

    python -m tools.benchmarks.torch_operators [sd15] [sdxl] [small]

Needs torch and diffusers. Views are left out on both sides: they start no kernel. Nodes are all that MindSpore's graph has, with what needs
no kernel: views, and the loads of parameters.
"""

import collections
import json
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mindone_diffusers.backend.cost import VIEWS
from mindone_diffusers.pipelines.audit import audit
from tools.config_folders import FULL_SIZE, write_configs

TORCH_VIEWS = (
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "split", "detach", "alias",
    "as_strided", "unbind", "lift_fresh", "empty_like",
)  # fmt: skip


class Count(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self):
        super().__init__()
        self.operators = collections.Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        if name not in TORCH_VIEWS:
            self.operators[name] += 1
        return operator(*args, **(kwargs or {}))


class FusedAttention(TorchFunctionMode):
    """Counts attention as one operator, as it is on a GPU; without data PyTorch would take it apart."""

    def __init__(self, operators: collections.Counter):
        super().__init__()
        self.operators = operators

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        self.operators["attention"] += 1
        return torch.empty_like(args[0] if args else kwargs["query"])


def theirs(kind: str, config: dict, core: str, inputs: list[tuple[int, ...]]) -> collections.Counter:
    """What PyTorch's model dispatches for inputs of these shapes."""
    with torch.device("meta"):
        if hasattr(transformers, kind):
            model = getattr(transformers, kind)(transformers.CLIPTextConfig(**config)).half().eval()
            arguments = {"input_ids": torch.zeros(inputs[0], dtype=torch.long), "output_hidden_states": True}
        else:
            model = getattr(diffusers, kind)(**config).half().eval()
            tensors = [torch.zeros(shape, dtype=torch.float16) for shape in inputs]
            names = ("z",) if core == "_decode" else ("sample", "timestep", "encoder_hidden_states")
            arguments = dict(zip(names, tensors))
            if len(tensors) > len(names):
                arguments["added_cond_kwargs"] = dict(zip(("text_embeds", "time_ids"), tensors[len(names) :]))
        with torch.no_grad(), Count() as count, FusedAttention(count.operators):
            (model.decode if core == "_decode" else model)(**arguments)
    return count.operators


# mindone 0.5.0 compiles it to 997 nodes, with 72 transposes and 306 loads.
SMALL_UNET = {
    "sample_size": 16, "block_out_channels": [32, 64], "layers_per_block": 2, "cross_attention_dim": 32, "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
CASES = FULL_SIZE | {"small": ("StableDiffusionPipeline", {"unet": ("diffusers", "UNet2DConditionModel", SMALL_UNET)})}


def compare(name: str, folder: Path) -> None:
    """A line for each core of the pipeline, or the model, in a folder."""
    for core in audit(folder):
        part = folder if core.component == "model" else folder / core.component
        config = json.loads((part / "config.json").read_text())
        config = {key: value for key, value in config.items() if key not in ("_class_name", "architectures")}
        counted, nodes = theirs(core.model, config, core.core, core.inputs), core.graph.nodes
        kernels = sum(count for operator, count in core.operators.items() if operator not in VIEWS)
        loads = sum(node.operator == "Load" for node in nodes)
        print(
            f"{name}, {core.name}: ours {kernels} ({core.operators.get('Transpose', 0)} transposes; {len(nodes)} nodes, {loads} loads), "
            f"PyTorch {sum(counted.values())} ({counted['clone'] + counted['_to_copy']} copies), "
            f"attentions {core.fused_attentions} and {counted['attention']}",
            flush=True,
        )


def main() -> None:
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = write_configs(Path(temporary), *CASES[name])
            compare(name, folder / "unet" if name == "small" else folder)


if __name__ == "__main__":
    main()
