"""`ModelMixin`: what every model does, whatever it computes. Loading, saving, dtypes, and running its tensor cores."""

import functools
import os
import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import mindspore as ms
import numpy as np

from .. import nn
from ..backend import attention, compile_cache, graph
from ..backend.device import check_device, device_target
from ..backend.precision import runnable_dtype, weight_dtype
from ..core import dtypes, hub, weights
from ..core.errors import ConfigError, UnsupportedError
from ..core.files import replaced_folder
from .repeated_blocks import RepeatedBlocks


class ModelMixin(hub.PushToHubMixin, nn.Module):
    """Base of all models.

    `__call__` is the user's signature: plain Python that checks and normalises, then runs a *tensor core* through
    `_run`. `construct` is the main core; others (a VAE's `_encode` and `_decode`) are methods of the same kind:
    tensors in, a tuple of tensors out, and nothing that a graph cannot hold.

    Class attributes:
        weights_name: file name of the weights.
        _keep_in_fp32_modules: parts of parameter names that stay float32 when the model is loaded in a smaller dtype.
        _checkpoint_renames: (pattern, replacement) pairs that turn other layouts' parameter names into ours.
        _keys_to_ignore_on_load_unexpected: patterns of names in a checkpoint that are not an error.
        _repeated_blocks: names of the classes whose instances share a compilation, if they are alike.
        _not_in_graphs: attributes that compiled graphs do not depend on.
    """

    config_name = hub.CONFIG_NAME
    weights_name: ClassVar[str] = hub.SAFETENSORS_WEIGHTS_NAME
    _keep_in_fp32_modules: ClassVar[tuple[str, ...]] = ()
    _checkpoint_renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    _keys_to_ignore_on_load_unexpected: ClassVar[tuple[str, ...]] = ()
    _repeated_blocks: ClassVar[tuple[str, ...]] = ()
    _not_in_graphs: ClassVar[tuple[str, ...]] = (
        "_filled", "_graph_options", "_compiles_blocks", "_compiled", "_variant", "_other_variants",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._filled = False
        self._graph_options: dict[str, Any] | None = None
        self._compiles_blocks = False
        self._compiled: dict[str, Any] = {}
        self._variant: tuple[Hashable, ...] = (attention.active_backend(),)
        self._other_variants: dict[tuple[Hashable, ...], tuple[dict[str, Any], int]] = {}

    # Parameters

    def parameters_and_names(self, name_prefix: str = "", expand: bool = True):
        """Names and parameters. A model that was not loaded from a checkpoint is filled on first use, which a place in a cell of the
        user's is, and one in another model is not."""
        if not self._filled and not nn.is_nesting():
            self.fill_parameters()
        return super().parameters_and_names(name_prefix, expand)

    def fill_parameters(self, seed: int | None = None) -> None:
        """Draw every parameter from its default distribution, which is torch's for each layer.

        Models that had their values before this one was built around them keep them.
        """
        rng, kept = np.random.default_rng(seed), set()
        if not self._filled:
            filled = [module for module in self.modules() if isinstance(module, ModelMixin) and module._filled]
            kept = {id(parameter) for model in filled for parameter in model._unfilled_parameters().values()}
        self._mark_filled()
        for parameter in self._unfilled_parameters().values():
            if id(parameter) not in kept:
                nn.initialize(parameter, rng)

    def _mark_filled(self) -> None:
        """The parameters have their values: this model's, which are also those of the models inside it."""
        for module in self.modules():
            if isinstance(module, ModelMixin):
                module._filled = True

    def _unfilled_parameters(self) -> dict[str, ms.Parameter]:
        return dict(super().parameters_and_names())

    def state_dict(self) -> dict[str, ms.Parameter]:
        """Parameters by their torch names."""
        return dict(self.parameters_and_names())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copy values into the parameters, in place, so that compiled graphs see them.

        Args:
            state_dict: names to MindSpore tensors or NumPy arrays.

        Raises:
            WeightsMismatchError: listing every missing, unexpected and mis-shaped name. Nothing is changed then.
        """
        weights.bind(self.state_dict(), state_dict, strict=strict, in_place=True, where=type(self).__name__)

    @property
    def dtype(self):
        """The dtype of the parameters (of most of them, when some are kept in float32), and of what the model computes: for a model in
        bfloat16 on the CPU float32, though its weights are in bfloat16."""
        for name, parameter in super().parameters_and_names():
            if not self._keeps_fp32(name) and not nn.is_weight(parameter):
                return parameter.dtype
        return ms.float32

    @property
    def device(self) -> str:
        """MindSpore's device target."""
        return device_target()

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of parameter values."""
        embeddings = set()
        if exclude_embeddings:
            embeddings = {f"{name}.weight" for name, cell in self.cells_and_names() if isinstance(cell, nn.Embedding)}
        return sum(
            parameter.size
            for name, parameter in self._unfilled_parameters().items()
            if name not in embeddings and (parameter.requires_grad or not only_trainable)
        )

    def get_memory_footprint(self) -> int:
        """Bytes the parameters take."""
        return sum(parameter.nbytes for parameter in self._unfilled_parameters().values())

    def _keeps_fp32(self, name: str) -> bool:
        parts = name.split(".")
        return any(module in parts for module in self._keep_in_fp32_modules)

    def to(self, *args: Any, **kwargs: Any) -> "ModelMixin":
        """Cast the parameters and/or name the device: `.to(ms.float16)`, `.to("npu")`, `.to("cpu", ms.float32)`.

        Raises:
            UnsupportedError: if the device is not the one MindSpore runs on.
        """
        dtype, device = dtype_and_device(*args, **kwargs)
        if device is not None:
            check_device(device)
        if dtype is not None:
            others = [(parameter, self._dtype_of(name, parameter, dtype)) for name, parameter in self.parameters_and_names()]
            others = [(parameter, other) for parameter, other in others if parameter.dtype != other]
            for parameter, other in others:
                parameter.set_dtype(other)
            if others:
                self._recompile()
        return self

    def _dtype_of(self, name: str, parameter: ms.Parameter, dtype: Any) -> Any:
        """The dtype of one of the parameters of a model in `dtype`."""
        if self._keeps_fp32(name):
            return ms.float32
        return weight_dtype(dtype) if nn.is_weight(parameter) else runnable_dtype(dtype)

    def cuda(self, device: Any = None) -> "ModelMixin":
        """Raises UnsupportedError, which says what to write instead."""
        return self.to("cuda")

    def half(self) -> "ModelMixin":
        return self.to(ms.float16)

    def float(self) -> "ModelMixin":
        return self.to(ms.float32)

    def bfloat16(self) -> "ModelMixin":
        return self.to(ms.bfloat16)

    # Running

    def _check_input(self, name: str, x: ms.Tensor, channels: int, least: int = 1, multiple: int = 1) -> None:
        """Raises TypeError and ValueError unless `x` is (batch, channels, height, width), of the model's dtype, height and width at least
        `least` and multiples of `multiple`."""
        if not isinstance(x, ms.Tensor):
            raise TypeError(f"{name} is a {type(x).__name__}; expected a mindspore.Tensor (batch, {channels}, height, width).")
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"{name} has the shape {x.shape}; expected (batch, {channels}, height, width).")
        if min(x.shape[2:]) < least:
            raise ValueError(f"{name} is {x.shape[2]} x {x.shape[3]}; expected a height and a width of at least {least}.")
        if x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(f"{name} is {x.shape[2]} x {x.shape[3]}; expected multiples of {multiple}: resize or pad the images.")
        if x.dtype != self.dtype:
            raise TypeError(f"{name} is {x.dtype}, but the model is {self.dtype}: cast one of them, e.g. with {name}.astype(model.dtype).")

    def _run(self, core: str, *args: Any) -> tuple:
        """Run the tensor core named `core`: compiled in graph mode, else eagerly."""
        if not self._filled:
            self.fill_parameters()
        if not self.runs_compiled:
            return self._run_core(core, *args)
        self._switch_variant((attention.active_backend(), *self._variant[1:]))
        compiled = self._compiled.get(core)
        if compiled is None:
            compiled = self._compiled[core] = self._compile(core, self._graph_options or {})
        return compiled(*args)

    def _run_core(self, core: str, *args: Any) -> tuple:
        return super().__call__(*args) if core == "construct" else getattr(self, core)(*args)

    def _compile(self, core: str, options: dict[str, Any]) -> Callable[..., tuple]:
        if self._compiles_blocks:
            return RepeatedBlocks(self, self._repeated_blocks, functools.partial(self._run_core, core), options)
        return compile_cache.KeptGraphs(self, core, options)

    @property
    def runs_compiled(self) -> bool:
        """Whether calls run compiled graphs: after `enable_graph_mode`, or in MindSpore's global graph mode."""
        return self._graph_options is not None or graph.in_global_graph_mode()

    def enable_graph_mode(self, jit_level: str = "O0", **options: Any) -> "ModelMixin":
        """Compile the model's tensor cores at their next call, once a signature (shapes, dtypes, which inputs are given).

        A graph that was compiled in an earlier process is found on disk (see `backend/compile_cache.py`).

        Args:
            jit_level: "O0", or "O1" for MindSpore's operator fusion.
            options: passed to `mindspore.jit`.

        Raises:
            ValueError: for another `jit_level`.
            UnsupportedError: `dynamic` is among the options.
        """
        graph.check_options(jit_level, options)
        self._graph_options, self._compiles_blocks = {"jit_level": jit_level, **options}, False
        self._recompile()
        return self

    def compile_repeated_blocks(self, *args: Any, **kwargs: Any) -> None:
        """Compile the blocks the model repeats, each by itself, instead of the whole model, which goes on eagerly around them.

        Of blocks that are alike, the first is compiled and the others take its graph (off the disk: where graphs cannot be kept, the whole
        model is compiled), so that the time depends on how many different blocks there are. The graph of a whole model takes longer to
        compile and less time to start. The arguments are those of `compile_model`.

        Raises:
            ValueError: the model has no repeated blocks.
        """
        if not self._repeated_blocks:
            raise ValueError(f"{type(self).__name__} has no repeated blocks (`_repeated_blocks` is empty): use enable_graph_mode()")
        graph.compile_model(self, *args, **kwargs)
        if not kwargs.get("disable"):
            self._compiles_blocks = compile_cache.is_on()

    def disable_graph_mode(self) -> "ModelMixin":
        """Run eagerly again."""
        self._graph_options, self._compiles_blocks = None, False
        self._recompile()
        return self

    @contextmanager
    def running_eagerly(self) -> Iterator[None]:
        """Within the context, calls run eagerly also after `enable_graph_mode`, whose graphs are kept. The global graph mode stays."""
        options, self._graph_options = self._graph_options, None
        try:
            yield
        finally:
            self._graph_options = options

    def _recompile(self) -> None:
        self._compiled, self._other_variants = {}, {}
        graph.forget_compiled(self)

    def _switch_variant(self, variant: tuple[Hashable, ...]) -> None:
        """The model is changed into another variant of itself, which begins with the name of the active attention backend. Each keeps its
        graphs for when it comes back, until `_recompile`."""
        if variant == self._variant:
            return
        compiled, created = self._other_variants.pop(variant, ({}, time.time_ns()))
        self._other_variants[self._variant] = self._compiled, graph.exchange_compiled(self, created)
        self._compiled, self._variant = compiled, variant

    # Attention

    def set_attention_backend(self, backend: str) -> None:
        """Have the attentions of this model computed by the backend of this name, whichever is active. (PyTorch diffusers makes it the
        active one too, which other models then follow.)

        Args:
            backend: see `attention_dispatch.AttentionBackendName`.

        Raises:
            ConfigError: there is no such name.
            UnsupportedError: the device does not have it.
        """
        self._set_attention_backend(attention.checked_name(backend))

    def reset_attention_backend(self) -> None:
        """Follow the active backend again: that of `attention_dispatch.attention_backend`, by default "native"."""
        self._set_attention_backend(None)

    def _set_attention_backend(self, name: str | None) -> None:
        modules = [module for module in self.modules() if hasattr(module, "attention_backend")]
        if any(module.attention_backend != name for module in modules):
            for module in modules:
                module.attention_backend = name
            self._recompile()

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: None = None) -> None:
        """The familiar name for memory-efficient attention, which is the default here: give every attention its stock processor.

        Raises:
            UnsupportedError: an `attention_op`, which is xFormers'.
        """
        for module in self.modules():
            if module is not self and hasattr(module, "set_use_memory_efficient_attention_xformers"):
                module.set_use_memory_efficient_attention_xformers(valid, attention_op)
        self._recompile()

    def enable_xformers_memory_efficient_attention(self, attention_op: None = None) -> None:
        """See `set_use_memory_efficient_attention_xformers`; it ends `set_attention_slice`."""
        self.set_use_memory_efficient_attention_xformers(True, attention_op)

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Back to the default, which is the same."""
        self.set_use_memory_efficient_attention_xformers(False)

    def set_use_npu_flash_attention(self, valid: bool) -> None:
        """Ascend's flash attention for this model, or the active backend again.

        Raises:
            UnsupportedError: on the CPU.
        """
        self._set_attention_backend(attention.checked_name("_native_npu") if valid else None)

    def enable_npu_flash_attention(self) -> None:
        """See `set_use_npu_flash_attention`. It need not be called: where the inputs allow it, it is what Ascend uses."""
        self.set_use_npu_flash_attention(True)

    def disable_npu_flash_attention(self) -> None:
        """See `set_use_npu_flash_attention`."""
        self.set_use_npu_flash_attention(False)

    # Files

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        mindspore_dtype: Any = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        variant: str | None = None,
        use_safetensors: bool | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        low_cpu_mem_usage: bool = True,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **config: Any,
    ) -> Any:
        """Build a model from a folder or hub repository written by this library or by PyTorch diffusers.

        The weights are memory-mapped; a tensor is only copied if its dtype changes.

        Args:
            pretrained_model_name_or_path: folder, or repository name on the hub.
            mindspore_dtype: dtype of the parameters (`dtype` is the same; `torch_dtype` takes a torch dtype or its name).
                Default float32. On the CPU, bfloat16 is that of the weights of linear layers and convolutions, the rest is float32.
            variant: e.g. "fp16", for files named `diffusion_pytorch_model.fp16.safetensors`.
            use_safetensors: only None and True are possible; pickles are never read.
            ignore_mismatched_sizes: leave parameters whose shape differs from the file's at their default distribution.
            output_loading_info: also return a dictionary of missing_keys, unexpected_keys and mismatched_keys.
            low_cpu_mem_usage: accepted for ported code; loading never makes a second copy.
            config: entries of the config to override; they must be arguments of the constructor.

        Raises:
            CheckpointError: a file is missing, damaged or unsafe.
            WeightsMismatchError: names or shapes differ; all of them are listed.
            ConfigError: an override is not an argument of the constructor.
        """
        if use_safetensors is False:
            raise UnsupportedError("use_safetensors=False asks for a pickle, and pickles are never loaded at run time. Leave it out.")
        dtype = dtypes.resolve_dtype_arguments(mindspore_dtype, dtype, torch_dtype) or ms.float32
        files = {
            "subfolder": subfolder, "revision": revision, "token": token, "cache_dir": cache_dir,
            "local_files_only": local_files_only, "force_download": force_download,
        }  # fmt: skip
        with nn.parameter_dtype(runnable_dtype(dtype), weight_dtype(dtype)):
            model = cls._build(pretrained_model_name_or_path, config, files)
        parameters = model._unfilled_parameters()
        if dtype != ms.float32:
            for name, parameter in parameters.items():
                if model._keeps_fp32(name):
                    parameter.set_dtype(ms.float32)
        found = hub.find_weights(pretrained_model_name_or_path, cls.weights_name, variant=variant, **files)
        state = cls._rename(weights.load_state_dict(found.files, found.index))
        mismatched = []
        if ignore_mismatched_sizes:
            mismatched = [name for name in parameters if name in state and tuple(state[name].shape) != parameters[name].shape]
        missing, unexpected = weights.bind(
            parameters,
            {name: value for name, value in state.items() if name not in mismatched},
            ignore_missing=[f"^{re.escape(name)}$" for name in mismatched],
            ignore_unexpected=cls._keys_to_ignore_on_load_unexpected,
            where=f"{cls.__name__} from {pretrained_model_name_or_path}",
        )
        rng = np.random.default_rng()
        for name in mismatched:
            nn.initialize(parameters[name], rng)
        model._mark_filled()
        model.eval()
        model.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        info = {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": mismatched, "error_msgs": []}
        return (model, info) if output_loading_info else model

    @classmethod
    def _build(cls, path: str | os.PathLike, overrides: dict[str, Any], files: dict[str, Any]) -> "ModelMixin":
        """Construct the model a config file describes (overridden by `overrides`), its parameters not filled."""
        model, unused = cls.from_config(cls.load_config(path, **files), return_unused_kwargs=True, **overrides)
        unknown = sorted(set(overrides) & set(unused))
        if unknown:
            raise ConfigError(f"{cls.__name__}.from_pretrained got {unknown}: neither loading options nor arguments of the constructor.")
        return model

    @classmethod
    def _rename(cls, state: Mapping[str, Any]) -> Mapping[str, Any]:
        if not cls._checkpoint_renames:
            return state
        renamed = {}
        for name in state:
            target = name
            for pattern, replacement in cls._checkpoint_renames:
                target = re.sub(pattern, replacement, target)
            renamed[target] = state[name]
        return renamed

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
    ) -> None:
        """Write the config and weights, readable by PyTorch diffusers. An interrupted save leaves the old files as they were.

        Args:
            save_directory: folder, created if needed.
            is_main_process: whether this process writes at all (distributed training).
            safe_serialization: only True is possible; pickles are never written.
            variant: e.g. "fp16", put into the file name.
            max_shard_size: bytes, or e.g. "5GB"; larger models are cut into several files and an index.
        """
        if not safe_serialization:
            raise UnsupportedError("safe_serialization=False asks for a pickle, which is never written. Leave it out.")
        if os.path.isfile(save_directory):
            raise ConfigError(f"{save_directory} is a file; save_pretrained wants a directory.")
        if not is_main_process:
            return
        with replaced_folder(save_directory) as folder:
            self._save_config(folder)
            weights.save_state_dict(self.state_dict(), folder, self.weights_name, max_shard_size=max_shard_size, variant=variant)

    def _save_config(self, folder: str | os.PathLike) -> None:
        self.save_config(folder)


def dtype_and_device(*args: Any, dtype: Any = None, device: Any = None) -> tuple[Any, str | None]:
    """Sort the arguments of `.to(...)`, which come in any order, into a MindSpore dtype and a device name."""
    if len(args) > 2:
        raise TypeError(f".to() takes a dtype and a device, got {len(args)} arguments.")
    for value in args:
        if value is not None and not dtypes.is_dtype(value):
            device = value
        elif value is not None:
            dtype = value
    return (None if dtype is None else dtypes.to_mindspore_dtype(dtype)), (None if device is None else str(device))
