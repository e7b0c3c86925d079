"""What a pipeline, or a model, asks of an Ascend NPU: its graphs, lowered by MindSpore's front end on any machine.

    for core in audit("folder", dtype="float16"):
        print(core.component, core.operators, core.problems)

The pipeline is called as a user would call it, but its models compute nothing: each of their tensor cores is lowered once a signature, and
gives zeros of the shapes and dtypes that the graph returns. So what is audited is what a generation runs, with the batches and inputs that
it has there, and no weights are needed.
"""

import contextlib
import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import mindspore as ms
import numpy as np
from mindspore import Tensor

from .. import nn
from ..backend import lowering
from ..backend.description import describe, describe_arguments, digest
from ..backend.table import use_table
from ..core import hub
from ..core.dtypes import dtype_name, to_mindspore_dtype
from ..core.errors import CheckpointError, ConfigError
from ..models.inputs import mutable
from ..models.modeling_utils import ModelMixin
from .components import component_class
from .pipeline_utils import DiffusionPipeline

ATTENTIONS = ("Attention", "AttentionPooling", "CLIPAttention", "DPTSelfAttention", "SelfAttention")
"""The layers that attend once, by name."""

_PARTS = {"construct": "", "_encode": "encoder.", "_decode": "decoder.", "_denoise": "decoder_unet."}
"""The part of a model that each of its cores with attention runs."""

_ENLARGED = {"StableDiffusionUpscalePipeline": 4, "StableDiffusionLatentUpscalePipeline": 2}
"""How many times larger than the image it is given a pipeline's picture is."""

Graphs = dict[str, lowering.Graph]
"""Graphs by what they depend on."""


@dataclasses.dataclass
class Core:
    """A tensor core of a model as a generation runs it.

    Attributes:
        component: the model's name in the pipeline, "unet" or "controlnet.nets.0".
        model: its class.
        core: the method, "construct" or an autoencoder's "_decode".
        dtype: of the model.
        inputs: shapes of the tensors that the core takes.
        attention_layers: how many layers that attend are in it.
        graph: what it compiles to.
        calls: how often a generation runs it.
    """

    component: str
    model: str
    core: str
    dtype: str
    inputs: tuple[tuple[int, ...], ...]
    attention_layers: int
    graph: lowering.Graph
    calls: int = 0

    @property
    def name(self) -> str:
        """The component and, unless it is its only one, the core."""
        return self.component if self.core == "construct" else f"{self.component}.{self.core.lstrip('_')}"

    @cached_property
    def operators(self) -> dict[str, int]:
        return lowering.count_operators(self.graph.nodes)

    @property
    def fused_attentions(self) -> int:
        """How many attentions are one operator."""
        return sum(self.operators.get(name, 0) for name in lowering.FUSED_OPERATORS)

    @cached_property
    def problems(self) -> list[str]:
        """What Ascend would refuse, and attention that is not fused in a dtype that fused attention takes."""
        found = lowering.problems(self.graph.nodes)
        # Without a softmax a layer has nothing to attend to, as that of a `ControlNetUnionModel` for a batch of one.
        if self.dtype != "float32" and self.fused_attentions != self.attention_layers and "Softmax" in self.operators:
            found.append(f"{self.fused_attentions} fused attentions, but {self.attention_layers} layers that attend")
        return found

    @cached_property
    def remarks(self) -> list[str]:
        return lowering.remarks(self.graph.nodes)


def audit(
    path: str | os.PathLike,
    *,
    dtype: Any = "float16",
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    steps: int = 2,
    graphs: Graphs | None = None,
) -> list[Core]:
    """Lower all that one generation runs. MindSpore caches what it parsed: use a process that has not run models on the CPU.

    Args:
        path: a pipeline's or a model's folder, or repository; only the JSON files are read.
        dtype: of the models.
        height, width: of the pictures, in pixels. Default: the pipeline's.
        batch: pictures a call.
        steps: denoising steps.
        graphs: graphs that were lowered before, of the same models in other pipelines; those lowered now are added.

    Raises:
        CheckpointError: there is no such folder or repository, or it holds neither a pipeline nor a model.
        ConfigError: a tokenizer, a processor or a model's input that cannot be made up; a size for what has one only.
    """
    folder = hub.resolve_snapshot(path, allow_patterns=["*.json", "*.txt", "*.model"])
    auditor = Auditor(dtype_name(dtype), graphs)
    with auditor.listening():
        if (folder / hub.MODEL_INDEX_NAME).exists():
            pipe = _pipeline(folder, auditor.dtype)
            auditor.name(pipe.components)
            _generate(pipe, height, width, batch, steps)
        elif (folder / hub.CONFIG_NAME).exists():
            model = _model(_model_class(folder), folder, auditor.dtype)
            auditor.name({"model": model})
            for call, arguments in _model_calls(model, height, width, batch):
                call(**arguments)
        else:
            raise CheckpointError(f"{folder} has neither {hub.MODEL_INDEX_NAME} nor {hub.CONFIG_NAME}: it is no pipeline and no model")
    return auditor.cores


class Auditor:
    """Runs models' cores by lowering them.

    A pipeline computes a little on the host between its models, for which the CPU has no bfloat16 kernels: there, float16 stands for
    bfloat16, and the models' cores get the real thing.

    Args:
        dtype: of the models.
        graphs: see `audit`.
    """

    def __init__(self, dtype: str, graphs: Graphs | None = None):
        self.dtype, self.graphs = dtype, {} if graphs is None else graphs
        self._cores: dict[tuple, Core] = {}
        self._names: dict[int, str] = {}
        self._lowering = False

    @property
    def cores(self) -> list[Core]:
        """What was run so far, in the order of the first calls."""
        return list(self._cores.values())

    def name(self, components: Mapping[str, Any]) -> None:
        """Note the names of the models among these components, and of those in them."""
        for name, component in components.items():
            if isinstance(component, ModelMixin):
                for path, cell in component.cells_and_names():
                    self._names.setdefault(id(cell), f"{name}.{path}".rstrip("."))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Meanwhile all models run here."""
        own = ModelMixin.dtype.fget

        def shown(model: ModelMixin) -> Any:
            dtype = own(model)
            return ms.float16 if dtype == ms.bfloat16 and not self._lowering else dtype

        def run(model: ModelMixin, core: str, *args: Any) -> Any:
            return self._call(model, core, args)

        with mock.patch.multiple(ModelMixin, _run=run, dtype=property(shown)):
            yield

    def _call(self, model: ModelMixin, core: str, args: tuple) -> Any:
        dtype = dtype_name(model.dtype)
        if self.dtype == "bfloat16" and dtype == "float16":
            dtype, args = self.dtype, tuple(map(_in_bfloat16, args))
        key = (id(model), core, dtype, model._variant, describe_arguments(args))
        if key not in self._cores:
            kind, shapes = type(model).__name__, tuple(tensor.shape for tensor in _tensors(args))
            name, layers = self._names.get(id(model), kind), _attention_layers(model, core)
            self._cores[key] = Core(name, kind, core, dtype, shapes, layers, self._lowered(model, core, args))
        self._cores[key].calls += 1
        return _zeros(self._cores[key].graph.output)

    def _lowered(self, model: ModelMixin, core: str, args: tuple) -> lowering.Graph:
        self._lowering = True
        try:
            key = digest((core, describe_arguments(args), *describe(model)))
            if key not in self.graphs:
                with use_table("ascend"):
                    self.graphs[key] = lowering.lower(model, *args, core=core)
        finally:
            self._lowering = False
        return self.graphs[key]


def _attention_layers(model: ModelMixin, core: str) -> int:
    if core not in _PARTS:
        return 0
    return sum(type(cell).__name__ in ATTENTIONS for path, cell in model.cells_and_names() if path.startswith(_PARTS[core]))


def _in_bfloat16(value: Any) -> Any:
    """A core's argument, its float16 tensors in bfloat16."""
    if isinstance(value, Tensor):
        return value.astype(ms.bfloat16) if value.dtype == ms.float16 else value
    if isinstance(value, dict):
        return mutable({name: _in_bfloat16(item) for name, item in value.items()})
    return mutable(tuple(map(_in_bfloat16, value))) if isinstance(value, tuple) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _zeros(output: Any) -> Any:
    """What a graph returns, of zeros, as the host sees it."""
    if isinstance(output, lowering.TensorType):
        dtype = "float16" if output.dtype == "bfloat16" else output.dtype
        return Tensor(np.zeros(output.shape, dtype))
    return tuple(map(_zeros, output)) if isinstance(output, tuple) else output


# Pipelines


def _pipeline(folder: Path, dtype: str) -> DiffusionPipeline:
    """The pipeline of a folder, its models without weights, and stand-ins for tokenizers and processors whose files are not there."""
    index = DiffusionPipeline.load_config(folder)
    kind = DiffusionPipeline._class_of(index)
    components: dict[str, Any] = {}
    entries = {name: index[name] for name in kind._argument_names()[0] if name in index}
    classes = {name: component_class(*entry) for name, entry in entries.items() if entry != [None, None]}
    for name, component in sorted(classes.items(), key=lambda item: not issubclass(item[1], ModelMixin)):
        if issubclass(component, ModelMixin):
            components[name] = _model(component, folder / name, dtype)
        elif not (folder / name).is_dir():
            components[name] = _stand_in(component, name, components)
    pipe = kind.from_pretrained(folder, **components)
    pipe.set_progress_bar_config(disable=True)
    if dtype == "bfloat16" and getattr(pipe, "vae", None) is not None:
        pipe.vae.register_to_config(force_upcast=False)  # float16, which stands for bfloat16, is what it is about
    return pipe


def _model(kind: type[ModelMixin], folder: Path, dtype: str) -> ModelMixin:
    """The model that a folder's config describes, its parameters empty."""
    with nn.parameter_dtype(to_mindspore_dtype(dtype)):
        model = kind._build(folder, {}, {})
    for name, parameter in model._unfilled_parameters().items():
        if model._keeps_fp32(name):
            parameter.set_dtype(ms.float32)
    model._mark_filled()
    return model.eval()


def _model_class(folder: Path) -> type[ModelMixin]:
    """The class of a model's folder: what its config names, in PyTorch diffusers' way or in transformers'."""
    config = json.loads((folder / hub.CONFIG_NAME).read_text())
    name = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if name is None:
        raise CheckpointError(f"{folder / hub.CONFIG_NAME} names no class of a model, neither as _class_name nor as architectures")
    return component_class("diffusers" if "_class_name" in config else "transformers", name)


def _stand_in(kind: type, name: str, models: Mapping[str, Any]) -> Any:
    """A tokenizer, an image processor or a scheduler without files: as long prompts and as large images as the model beside it takes."""
    if "tokenizer" in name:
        encoder = models[name.replace("tokenizer", "text_encoder")]
        specials = {"<|startoftext|>": 0, "<|endoftext|>": 1}
        return kind(vocab=specials, merges=[], model_max_length=encoder.config.max_position_embeddings)
    if name == "feature_extractor":
        configs = [models[each].config for each in ("image_encoder", "depth_estimator", "safety_checker") if each in models]
        side = next((config.get("vision_config", config)["image_size"] for config in configs), 224)
        size = {"height": side, "width": side}
        return kind(size=size, crop_size=size) if "CLIP" in kind.__name__ else kind(size=size)
    raise ConfigError(f"there is no folder {name}, and a {kind.__name__} cannot be made up")


def _generate(pipe: DiffusionPipeline, height: int | None, width: int | None, batch: int, steps: int) -> None:
    """Call a pipeline with a prompt, black images and white masks, as far as it takes them."""
    from PIL import Image

    if (height or width) and not {"height", "image"} & inspect.signature(pipe.__call__).parameters.keys():
        raise ConfigError(f"the pictures of a {type(pipe).__name__} have the size of its model: leave the size out")
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    size = denoiser.config.sample_size
    size = (size, size) if isinstance(size, int) else size
    scale = getattr(pipe, "vae_scale_factor", 1)
    height, width = height or size[0] * scale, width or size[1] * scale
    enlarged = _ENLARGED.get(type(pipe).__name__, 1)
    adapter = getattr(pipe, "adapter", None)
    gray = adapter is not None and adapter.config.in_channels == 1
    picture = Image.new("L" if gray else "RGB", (width // enlarged, height // enlarged))
    white = Image.new("L", picture.size, 255)

    def each(item: Any) -> Any:
        return item if batch == 1 else [item] * batch

    given = {
        "prompt": each("a"), "class_labels": [0] * batch, "image": each(picture), "mask_image": each(white),
        "control_image": each(picture), "control_mode": 0,
        "height": height, "width": width, "batch_size": batch, "num_inference_steps": steps, "num_inversion_steps": steps,
        "strength": 1.0, "editing_prompt": "a", "use_intersect_mask": False, "output_type": "np",
    }  # fmt: skip
    if hasattr(pipe, "invert"):
        pipe.invert(**_taken(pipe.invert, given))
    pipe(**_taken(pipe.__call__, given))


def _taken(call: Callable, given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in inspect.signature(call).parameters if name in given}


# Models alone


def _model_calls(model: ModelMixin, height: int | None, width: int | None, batch: int) -> Iterator[tuple[Callable, dict[str, Any]]]:
    """A model's calls with inputs that fit its config; of latents, one for 8x8 pixels."""
    config = model.config
    parameters = inspect.signature(model.__call__).parameters

    def zeros(*shape: int) -> Tensor:
        return Tensor(np.zeros((batch, *shape)), model.dtype)

    if hasattr(model, "decode"):
        side = config.get("sample_size") or 512
        height, width = height or side, width or side
        yield model.encode, {"x": zeros(config.get("in_channels", 3), height, width)}
        yield model.decode, {next(iter(inspect.signature(model.decode).parameters)): zeros(config.latent_channels, height // 8, width // 8)}
        return
    side = config.get("sample_size") or config.get("image_size") or 64
    sides = side if isinstance(side, (list, tuple)) else (side, side)
    latent = (height // 8 if height else sides[0], width // 8 if width else sides[1])
    context = config.get("cross_attention_dim") or config.get("embedding_dim")
    enlarged = 2 ** (len(config.get("conditioning_embedding_out_channels") or (0,)) - 1)
    sample = config.get("in_channels"), *latent
    shapes = {
        "sample": sample, "controlnet_cond": (3, enlarged * latent[0], enlarged * latent[1]),
        "encoder_hidden_states": (77, context[0] if isinstance(context, (list, tuple)) else context),
        "x": (config.get("in_channels"), height or 512, width or 512), "pixel_values": (config.get("num_channels", 3), *sides),
        "hidden_states": (config["embedding_dim"],) if "embedding_dim" in config else sample,
        "proj_embedding": (config.get("embedding_dim"),),
    }  # fmt: skip
    if (height or width) and not any(len(shapes.get(name, ())) == 3 and name != "pixel_values" for name in parameters):
        raise ConfigError(f"a {type(model).__name__} takes no pictures, or of one size only: leave the size out")
    tokens = np.zeros((batch, config.get("max_position_embeddings", 77)), np.int64)
    given = {"timestep": 1, "conditioning_scale": 1.0, "input_ids": tokens}
    if config.get("class_embed_type") in ("projection", "simple_projection"):
        given["class_labels"] = zeros(config.projection_class_embeddings_input_dim)
    elif config.get("class_embed_type") or config.get("num_class_embeds") or config.get("num_embeds_ada_norm"):
        given["class_labels"] = Tensor(np.zeros(batch, np.int32))
    given |= {name: zeros(*shapes[name]) for name in parameters if name in shapes}
    if config.get("addition_embed_type") == "text_time":
        texts = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        given["added_cond_kwargs"] = {"text_embeds": zeros(texts), "time_ids": zeros(6)}
    unknown = [name for name, parameter in parameters.items() if parameter.default is parameter.empty and name not in given]
    if unknown:
        raise ConfigError(f"a {type(model).__name__} needs {' and '.join(unknown)}, which only its pipeline makes: audit that")
    yield model, {name: given[name] for name in parameters if name in given}
