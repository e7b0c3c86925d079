"""`DiffusionPipeline`: what every pipeline does, whatever it draws. Loading, saving, dtypes, switches and the progress bar."""

import contextlib
import inspect
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import mindspore as ms
import numpy as np

from ..backend.device import check_device, device_target
from ..core import dtypes, hub, logging
from ..core.configuration import ConfigMixin
from ..core.errors import CheckpointError, ConfigError, FileMissingError, UnsupportedError
from ..core.files import replaced_folder
from ..core.outputs import BaseOutput
from ..image_processor import VaeImageProcessor
from ..models.autoencoders.autoencoder_kl import AutoencoderKL
from ..models.cache_utils import CacheMixin
from ..models.modeling_utils import ModelMixin, dtype_and_device
from ..utils.pil_utils import numpy_to_pil
from .components import component_class, component_entry, pipeline_class

if TYPE_CHECKING:
    from PIL import Image

logger = logging.get_logger(__name__)

_UNSUPPORTED_LOADING = {
    "device_map": "MindSpore has one device a process, chosen with mindspore.set_device; leave it out",
    "quantization_config": "quantized loading is not there yet; leave it out",
    "custom_pipeline": "code that comes with a checkpoint is never run; import the pipeline class and call its from_pretrained",
    "trust_remote_code": "code that comes with a checkpoint is never run; leave it out",
}


@dataclass
class ImagePipelineOutput(BaseOutput):
    """
    Args:
        images: Pillow images, or an array or tensor of them, as `output_type` says.
    """

    images: "list[Image.Image] | np.ndarray | ms.Tensor"


class DiffusionPipeline(hub.PushToHubMixin, ConfigMixin):
    """Base of all pipelines: a set of components (models, a scheduler, tokenizers, ...) and a `__call__` that runs them.

    The arguments of a subclass's `__init__` without a default, and those in `_optional_components`, are its components. It hands them to
    `register_modules`, which makes them attributes.

    Attributes:
        current_timestep: that of the step that runs, for callbacks of step caches.

    Class attributes:
        model_cpu_offload_seq: the order in which models run, "text_encoder->unet->vae".
        _optional_components: components that may be None.
        _callback_tensor_inputs: names that `callback_on_step_end_tensor_inputs` may hold.
    """

    config_name = hub.MODEL_INDEX_NAME
    model_cpu_offload_seq: ClassVar[str | None] = None
    hf_device_map: ClassVar[dict | None] = None
    _optional_components: ClassVar[list[str]] = []
    _exclude_from_cpu_offload: ClassVar[list[str]] = []
    _callback_tensor_inputs: ClassVar[list[str]] = []
    _progress_bar_config: Mapping[str, Any] = {}
    current_timestep: float | None = None

    # Components

    def register_modules(self, **components: Any) -> None:
        """Make each component an attribute and note its class in the config.

        Raises:
            ConfigError: something that cannot be a component, e.g. a PyTorch model.
        """
        for name, component in components.items():
            self.register_to_config(**{name: component_entry(component)})
            object.__setattr__(self, name, component)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ and name in self.__dict__.get("_internal_dict", ()):
            is_component = isinstance(self.config[name], (tuple, list))
            self.register_to_config(**{name: component_entry(value) if is_component else value})
        super().__setattr__(name, value)

    @classmethod
    def _argument_names(cls) -> tuple[list[str], list[str]]:
        """Names of the components, and of the other arguments of `__init__`."""
        arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
        components = [p.name for p in arguments if p.default is p.empty or p.name in cls._optional_components]
        return components, [p.name for p in arguments if p.name not in components]

    @property
    def components(self) -> dict[str, Any]:
        """The components by name: `OtherPipeline(**pipe.components)` shares their memory."""
        return {name: getattr(self, name) for name in self._argument_names()[0]}

    @property
    def parameters(self) -> dict[str, Any]:
        """The other arguments of `__init__`, as they are in the config."""
        return {name: self.config[name] for name in self._argument_names()[1] if name in self.config}

    def _models(self) -> dict[str, ModelMixin]:
        return {name: component for name, component in sorted(self.components.items()) if isinstance(component, ModelMixin)}

    @property
    def name_or_path(self) -> str | None:
        """Where the pipeline was loaded from."""
        return self.config.get("_name_or_path")

    @property
    def device(self) -> str:
        """MindSpore's device target."""
        return device_target()

    @property
    def dtype(self) -> Any:
        """The dtype of the first model, by name."""
        return next((model.dtype for model in self._models().values()), ms.float32)

    def to(self, *args: Any, silence_dtype_warnings: bool = False, **kwargs: Any) -> "DiffusionPipeline":
        """Cast the models and/or name the device: `.to(ms.float16)`, `.to("npu")`, `.to("cpu", ms.float32)`.

        Args:
            args: a dtype (MindSpore's, NumPy's, torch's, or a name) and a device, in either order; also as `dtype=` and `device=`.
            silence_dtype_warnings: accepted for ported code; there are none.

        Raises:
            UnsupportedError: the device is not the one MindSpore runs on.
        """
        dtype, device = dtype_and_device(*args, **kwargs)
        if device is not None:
            check_device(device)
        if dtype is not None:
            for model in self._models().values():
                model.to(dtype)
        return self

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
        low_cpu_mem_usage: bool = True,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Build a pipeline from a folder or hub repository written by this library or by PyTorch diffusers.

        Args:
            pretrained_model_name_or_path: folder with `model_index.json`, or repository name on the hub.
            mindspore_dtype: dtype of the models, or a dictionary of them by component (`{"vae": "fp32", "default": "fp16"}`). `dtype` is
                the same; `torch_dtype` takes torch dtypes or their names. Default float32.
            variant: e.g. "fp16", for files named `*.fp16.safetensors`. Models that have none are loaded from their other files.
            use_safetensors: only None and True are possible; pickles are never read.
            low_cpu_mem_usage: accepted for ported code; loading never makes a second copy.
            revision: branch, tag or commit on the hub.
            token: the hub's access token.
            cache_dir: the cache, if not huggingface_hub's own.
            local_files_only: look in the cache only.
            force_download: download even what is in the cache.
            kwargs: components that take the place of the saved ones (`unet=my_unet`, `safety_checker=None`) and other arguments of the
                pipeline's `__init__`.

        Raises:
            TypeError: an unknown keyword; the message lists the pipeline's.
            UnsupportedError: a class, or an option, that this library does not have.
            CheckpointError: a file is missing, damaged or unsafe.
        """
        _check_loading(use_safetensors, kwargs)
        dtype = dtypes.resolve_dtype_arguments(mindspore_dtype, dtype, torch_dtype)
        folder = Path(
            cls.download(
                pretrained_model_name_or_path, variant=variant, revision=revision, token=token, cache_dir=cache_dir,
                local_files_only=local_files_only, force_download=force_download, **kwargs,
            )
        )  # fmt: skip
        index = cls.load_config(folder)
        kind = cls._class_of(index)
        names, options = kind._argument_names()
        unknown = sorted(set(kwargs) - {*names, *options})
        if unknown:
            raise TypeError(f"{kind.__name__}.from_pretrained got unknown {unknown}; its components are {names}, its options {options}")
        ignored = sorted(name for name in index if not name.startswith("_") and name not in (*names, *options))
        if ignored:
            logger.warning(f"{kind.__name__} does not know the entries {ignored} of {hub.MODEL_INDEX_NAME}, they are ignored")

        classes = {name: _entry_class(folder, name, index[name]) for name in names if name not in kwargs and _is_used(index.get(name))}
        missing = [name for name in names if name not in classes and name not in kwargs and name not in kind._optional_components]
        if missing:
            raise ConfigError(f"{folder / hub.MODEL_INDEX_NAME} has no {missing}, which {kind.__name__} needs: pass them by keyword")
        variants = _folders_with_variant(folder, [name for name in classes if issubclass(classes[name], ModelMixin)], variant)

        arguments = {name: index[name] for name in options if name in index} | dict.fromkeys(kind._optional_components) | kwargs
        for name in logging.tqdm(classes, desc="Loading pipeline components..."):
            path, loading = folder / name if (folder / name).is_dir() else folder, {}
            if issubclass(classes[name], ModelMixin):
                wanted = dtype.get(name, dtype.get("default")) if isinstance(dtype, Mapping) else dtype
                loading = {"mindspore_dtype": wanted, "variant": variant if name in variants else None}
            arguments[name] = classes[name].from_pretrained(path, **loading)
        pipeline = kind(**arguments)
        pipeline.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        return pipeline

    @classmethod
    def _class_of(cls, index: Mapping[str, Any]) -> type["DiffusionPipeline"]:
        """The class itself, or for `DiffusionPipeline` the one that `model_index.json` names."""
        return pipeline_class(index.get("_class_name"), DiffusionPipeline) if cls is DiffusionPipeline else cls

    @classmethod
    def download(
        cls,
        pretrained_model_name: str | os.PathLike,
        *,
        variant: str | None = None,
        use_safetensors: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **kwargs: Any,
    ) -> str:
        """Download the files that loading a pipeline needs, and no others, into the hub's cache.

        Args:
            pretrained_model_name: repository name on the hub; a local folder is returned as it is.
            kwargs: components that are passed to `from_pretrained` and so not needed.
            variant, use_safetensors, revision, token, cache_dir, local_files_only, force_download: see `from_pretrained`.

        Returns:
            The folder.

        Raises:
            CheckpointError: no such repository, or it cannot be reached and is not in the cache, or has pickled weights only.
        """
        _check_loading(use_safetensors, kwargs)
        files = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        if os.path.isdir(pretrained_model_name) or local_files_only:
            return str(hub.resolve_snapshot(pretrained_model_name, **files))
        try:
            names = hub.list_files(pretrained_model_name, revision=revision, token=token)
        except CheckpointError:
            with contextlib.suppress(CheckpointError):  # the hub cannot be reached; what is in the cache may do
                return str(hub.resolve_snapshot(pretrained_model_name, **files | {"local_files_only": True}))
            raise
        index = cls.load_config(pretrained_model_name, force_download=force_download, **files)
        wanted = needed_files(names, index, variant, kwargs)
        return str(hub.resolve_snapshot(pretrained_model_name, allow_patterns=wanted, force_download=force_download, **files))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
    ) -> None:
        """Write `model_index.json` and a folder for each component, readable by PyTorch diffusers.

        An interrupted save leaves the old files as they were.

        Args:
            save_directory: folder, created if needed.
            safe_serialization: only True is possible; pickles are never written.
            variant: e.g. "fp16", put into the names of the weights files.
            max_shard_size: bytes, or e.g. "5GB"; larger models are cut into several files. Default: each model's own.
        """
        if not safe_serialization:
            raise UnsupportedError("safe_serialization=False asks for pickles, which are never written. Leave it out.")
        weights = {"variant": variant} | ({} if max_shard_size is None else {"max_shard_size": max_shard_size})
        with replaced_folder(save_directory) as folder:
            for name, component in self.components.items():
                if component is not None:
                    component.save_pretrained(folder / name, **(weights if isinstance(component, ModelMixin) else {}))
            self.save_config(folder)

    @classmethod
    def from_pipe(
        cls, pipeline: "DiffusionPipeline", *, mindspore_dtype: Any = None, dtype: Any = None, torch_dtype: Any = None, **kwargs: Any
    ) -> Any:
        """Another kind of pipeline from the same components, which are shared, not copied.

        Args:
            pipeline: where components and options come from.
            mindspore_dtype: cast the models, which are `pipeline`'s too. Default: leave them; PyTorch diffusers casts to float32.
            dtype: the same.
            torch_dtype: the same, for torch dtypes.
            kwargs: components and options that replace `pipeline`'s.

        Raises:
            TypeError: an unknown keyword.
            ConfigError: `pipeline` has no component for one that is needed.
        """
        dtype = dtypes.resolve_dtype_arguments(mindspore_dtype, dtype, torch_dtype)
        names, options = cls._argument_names()
        unknown = sorted(set(kwargs) - {*names, *options})
        if unknown:
            raise TypeError(f"{cls.__name__}.from_pipe got unknown {unknown}; its components are {names}, its options {options}")
        # An option the pipeline did not know itself was kept under its name with an underscore.
        config = {name.removeprefix("_"): value for name, value in pipeline.config.items()}
        arguments = {name: config[name] for name in options if name in config}
        arguments |= {name: component for name, component in pipeline.components.items() if name in names}
        arguments |= kwargs
        missing = [name for name in names if name not in arguments and name not in cls._optional_components]
        if missing:
            raise ConfigError(f"{cls.__name__} needs {missing}, which {type(pipeline).__name__} does not have: pass them by keyword")
        new = cls(**dict.fromkeys(cls._optional_components) | arguments)
        used = {*names, *options, "name_or_path", "class_name", "diffusers_version"}
        new.register_to_config(**{f"_{name}": value for name, value in config.items() if name not in used})
        if pipeline.name_or_path is not None:
            new.register_to_config(_name_or_path=pipeline.name_or_path)
        return new if dtype is None else new.to(dtype)

    # Running

    def enable_graph_mode(self, jit_level: str = "O0", **options: Any) -> "DiffusionPipeline":
        """Compile every model's tensor cores at their next call; see `ModelMixin.enable_graph_mode`."""
        for model in self._models().values():
            model.enable_graph_mode(jit_level=jit_level, **options)
        return self

    def disable_graph_mode(self) -> "DiffusionPipeline":
        """Run the models eagerly again."""
        for model in self._models().values():
            model.disable_graph_mode()
        return self

    def progress_bar(self, iterable: Iterable | None = None, total: int | None = None) -> Any:
        """A tqdm bar over `iterable`, or of `total` steps, with the options of `set_progress_bar_config`."""
        if iterable is None and total is None:
            raise ConfigError("progress_bar needs `iterable` or `total`")
        return logging.tqdm(iterable, total=total, **self._progress_bar_config)

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Options of the tqdm bar, e.g. `disable=True` or `desc="..."`."""
        self._progress_bar_config = kwargs

    numpy_to_pil = staticmethod(numpy_to_pil)

    def enable_xformers_memory_efficient_attention(self, attention_op: None = None) -> None:
        """The familiar name for memory-efficient attention. It is the default here; the call ends `enable_attention_slicing`."""
        self.set_use_memory_efficient_attention_xformers(True, attention_op)

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Back to the default, which is the same."""
        self.set_use_memory_efficient_attention_xformers(False)

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: None = None) -> None:
        """See `ModelMixin.set_use_memory_efficient_attention_xformers`."""
        for model in self._models().values():
            model.set_use_memory_efficient_attention_xformers(valid, attention_op)

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Compute attention in slices of heads: "auto" for half of them at a time, "max" for one, or a number. Saves memory only where
        the device has no fused attention."""
        self.set_attention_slice(slice_size)

    def disable_attention_slicing(self) -> None:
        self.set_attention_slice(None)

    def set_attention_slice(self, slice_size: str | int | None) -> None:
        for model in self._models().values():
            if hasattr(model, "set_attention_slice"):
                model.set_attention_slice(slice_size)

    # Offloading

    def maybe_free_model_hooks(self) -> None:
        """Called at the end of a run: step caches forget it. Offloaded models would go back; there are none yet."""
        for model in self._models().values():
            if isinstance(model, CacheMixin):
                model._reset_stateful_cache()

    def remove_all_hooks(self) -> None:
        """There are none yet."""

    def reset_device_map(self) -> None:
        """There is none: MindSpore has one device a process."""

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> NoReturn:
        raise UnsupportedError("Model offload is not there yet: the pipeline keeps its models on the device. Leave the call out.")

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> NoReturn:
        raise UnsupportedError("Sequential offload is not there yet: the pipeline keeps its models on the device. Leave the call out.")

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError("Group offload is not there yet: the pipeline keeps its models on the device. Leave the call out.")


class StableDiffusionMixin:
    """What pipelines with a UNet and a VAE have in common."""

    vae: Any
    unet: Any
    fusing_unet: bool = False
    fusing_vae: bool = False

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a latent, along one side: 2 for each of the VAE's levels but the first. Follows an exchanged VAE."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1) if self.vae is not None else 8

    @property
    def image_processor(self) -> VaeImageProcessor:
        """The processor that fits the VAE."""
        return VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    def enable_vae_slicing(self) -> None:
        """Decode the images of a batch one by one, to save memory."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        self.vae.disable_slicing()

    def enable_vae_tiling(self) -> None:
        """Encode and decode large images in overlapping tiles, to save memory."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        self.vae.disable_tiling()

    def enable_freeu(self, s1: float, s2: float, b1: float, b2: float) -> None:
        """See `UNet2DConditionModel.enable_freeu`."""
        self.unet.enable_freeu(s1, s2, b1, b2)

    def disable_freeu(self) -> None:
        self.unet.disable_freeu()

    def fuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """One product for the projections of an attention that have the same input; see `AttentionMixin.fuse_qkv_projections`.

        Args:
            unet, vae: in which model.

        Raises:
            ValueError: the VAE is not an `AutoencoderKL`, or the UNet has attentions with added projections.
        """
        if vae and not isinstance(self.vae, AutoencoderKL):
            raise ValueError(f"fuse_qkv_projections is for an AutoencoderKL, not {type(self.vae).__name__}: pass vae=False.")
        if unet:
            self.unet.fuse_qkv_projections()
        if vae:
            self.vae.fuse_qkv_projections()
        self.fusing_unet, self.fusing_vae = unet, vae

    def unfuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """Back to separate products, in the models where they are fused; of others it says so."""
        if unet and not self.fusing_unet:
            logger.warning("the UNet's projections are not fused, nothing to undo")
        elif unet:
            self.unet.unfuse_qkv_projections()
            self.fusing_unet = False
        if vae and not self.fusing_vae:
            logger.warning("the VAE's projections are not fused, nothing to undo")
        elif vae:
            self.vae.unfuse_qkv_projections()
            self.fusing_vae = False


def needed_files(names: Collection[str], index: Mapping[str, Any], variant: str | None, passed: Collection[str]) -> list[str]:
    """The files of a repository that loading a pipeline needs.

    Folders like `controlnet_1` belong to `controlnet`, which several models may be. (PyTorch diffusers leaves out their configs, without
    which they cannot be loaded.)

    Args:
        names: the repository's files.
        index: its `model_index.json`.
        variant: take these weights where a component has them, else those without variant.
        passed: components that the user passes.

    Raises:
        CheckpointError: a component has pickled weights only.
    """
    needed = [hub.MODEL_INDEX_NAME]
    for folder in dict.fromkeys(name.split("/")[0] for name in names if name.count("/") == 1):
        component = folder if folder in index else re.sub(r"_\d+$", "", folder)
        if component.startswith("_") or component in passed or not _is_used(index.get(component)):
            continue
        inside = [name for name in names if name.startswith(f"{folder}/") and name.count("/") == 1]
        tensors = [name for name in inside if ".safetensors" in name]
        others = [name for name in inside if name.endswith((".json", ".txt", ".model")) and not _WEIGHTS_INDEX.search(name)]
        chosen = [name for name in tensors if variant and _has_variant(name, variant)] or [name for name in tensors if _PLAIN.search(name)]
        if not tensors and any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in inside):
            raise CheckpointError(
                f"{folder} has pickled weights only, which are never loaded at run time: save it as safetensors with PyTorch first"
            )
        needed += chosen + others
    return needed


_PLAIN = re.compile(r"/[^/.]+\.safetensors(\.index\.json)?$")
_WEIGHTS_INDEX = re.compile(r"\.index(\.[^/]+)?\.json$")


def _has_variant(name: str, variant: str) -> bool:
    return f".{variant}." in name or f".{variant}-" in name


def _folders_with_variant(folder: Path, models: list[str], variant: str | None) -> set[str]:
    """Those of `models` that have weights of the variant.

    Raises:
        FileMissingError: none of them has.
    """
    if variant is None or not models:
        return set()
    found = {name for name in models if any(_has_variant(file.name, variant) for file in (folder / name).glob("*.safetensors*"))}
    if not found:
        raise FileMissingError(f"no model in {folder} has weights of the variant {variant!r}: leave `variant` out, or choose another")
    if found != set(models):
        logger.warning(f"{sorted(set(models) - found)} have no weights of the variant {variant!r}; their other weights are loaded")
    return found


def _is_used(entry: Any) -> bool:
    """Whether an entry of `model_index.json` names a component."""
    return isinstance(entry, (list, tuple)) and len(entry) == 2 and entry[0] is not None


def _entry_class(folder: Path, name: str, entry: Any) -> type:
    try:
        return component_class(*entry)
    except UnsupportedError as error:
        raise UnsupportedError(f"{folder / hub.MODEL_INDEX_NAME}, {name!r}: {error}") from None


def _check_loading(use_safetensors: bool | None, kwargs: Mapping[str, Any]) -> None:
    if use_safetensors is False:
        raise UnsupportedError("use_safetensors=False asks for pickles, which are never loaded at run time. Leave it out.")
    for name, reason in _UNSUPPORTED_LOADING.items():
        if kwargs.get(name):
            raise UnsupportedError(f"{name}={kwargs[name]!r}: {reason}.")
