"""The core of a training script: a compiled step, data in a folder, the loop, and checkpoints that a killed run continues from.

    step = TrainStep(loss, AdamW(loss.trainable_params(), lr=1e-4))
    train(step, lambda index: batch_number(index), arguments)

Everything random in step N is drawn from `step_rng(seed, N)`, so that a resumed run needs no state of a generator.
"""

import argparse
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from . import nn
from .backend.dropout import seed_dropout
from .backend.precision import runnable_dtype
from .core import logging
from .core.dtypes import to_mindspore_dtype
from .core.errors import CheckpointError, ConfigError
from .core.files import replaced_folder
from .nn.optim import AdamW, GradientBuffers
from .optimization import get_scheduler

if TYPE_CHECKING:
    from PIL.Image import Image

    from .training_utils import EMAModel

logger = logging.get_logger(__name__)

_STATE, _PROGRESS = "state.safetensors", "progress.json"


class TrainStep:
    """One step of training: loss, gradients, accumulation, clipping and the optimiser's update, in compiled graphs: one,
    or, where gradients are summed or scaled, one for the gradients and one for the update.

    Args:
        loss: its `construct(*batch)` returns a scalar loss, the mean over the batch.
        optimizer: of the parameters to train.
        max_grad_norm: the gradients' norm is limited to this; None does not limit it.
        gradient_accumulation_steps: the optimiser takes a step after this many calls, with the mean of their gradients.
        loss_scale: for float16 weights: the loss is multiplied by it so that small gradients do not vanish. It is halved, and the step left
            out, when a gradient overflows, and doubled after 2000 good steps (arXiv 1710.03740). None, for float32 and bfloat16, never
            looks at the gradients on the host.
        jit: compile; False runs eagerly, for debugging.
        jit_level: "O0" or "O1".
        data_parallel: average the gradients over the processes of `msrun` (after `mindspore.communication.init()`).
        seed: dropout's masks in call N follow from this and N.
    """

    growth_interval = 2000

    def __init__(
        self,
        loss: nn.Module,
        optimizer: AdamW,
        *,
        max_grad_norm: float | None = 1.0,
        gradient_accumulation_steps: int = 1,
        loss_scale: float | None = None,
        jit: bool = True,
        jit_level: str = "O0",
        data_parallel: bool = False,
        seed: int = 0,
    ):
        if gradient_accumulation_steps < 1:
            raise ConfigError(f"gradient_accumulation_steps is {gradient_accumulation_steps}; expected 1 or more")
        self.loss, self.optimizer = loss, optimizer
        self.gradient_accumulation_steps, self.loss_scale = gradient_accumulation_steps, loss_scale
        self.calls = 0
        self._good = 0
        self._seeds = (seed,)
        if data_parallel:
            from mindspore.communication import get_rank

            self._seeds = seed, get_rank()
        self._buffers = GradientBuffers(loss, optimizer, max_grad_norm, data_parallel)
        self._step, self._backward, self._norm, self._update, self._clear = self._buffers.functions(jit_level if jit else None)
        self._one = ms.Tensor(1.0, ms.float32)
        loss.set_train()

    @property
    def sync_gradients(self) -> bool:
        """Whether the last call ended with the optimiser's step."""
        return self.calls % self.gradient_accumulation_steps == 0

    def __call__(self, *batch: ms.Tensor) -> ms.Tensor:
        """Take one batch, and return its loss as a tensor, which is not waited for."""
        seed_dropout(*self._seeds, self.calls)
        if self.gradient_accumulation_steps == 1 and self.loss_scale is None:
            self.calls += 1
            return self._step(self.optimizer.hyperparameters(), self._one, *batch)
        scale = (self.loss_scale or 1.0) / self.gradient_accumulation_steps
        value = self._backward(ms.Tensor(scale, ms.float32), *batch)
        self.calls += 1
        if self.sync_gradients:
            self._finish()
        return value

    def _finish(self) -> None:
        norm = self._norm()
        if self.loss_scale is not None:
            if not math.isfinite(norm.asnumpy().item()):
                self.loss_scale, self._good = self.loss_scale / 2, 0
                self._clear()
                return
            self._good += 1
        self._update(self.optimizer.hyperparameters(), ms.Tensor(1 / (self.loss_scale or 1.0), ms.float32), norm)
        if self._good == self.growth_interval:
            self.loss_scale, self._good = self.loss_scale * 2, 0

    def state_dict(self) -> dict[str, np.ndarray]:
        """Weights, the optimiser's state and the loss scale. Between two steps of the optimiser only."""
        if not self.sync_gradients:
            raise ConfigError("a step is half accumulated: save when `sync_gradients` is true")
        state = {f"weight.{parameter.name}": parameter.asnumpy() for parameter in self.optimizer.params}
        state |= {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}
        return state | {"calls": np.array(self.calls), "good": np.array(self._good), "loss_scale": np.array(self.loss_scale or 0.0)}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `state_dict()`.

        Raises:
            CheckpointError: it is of other parameters.
        """
        parameters = {f"weight.{parameter.name}": parameter for parameter in self.optimizer.params}
        different = sorted(parameters.keys() ^ {name for name in state if name.startswith("weight.")})
        if different:
            raise CheckpointError(f"the checkpoint is of other parameters: {', '.join(different[:5])} are on one side only")
        for name, parameter in parameters.items():
            parameter.copy_(ms.Tensor(state[name]))
        self.optimizer.load_state_dict({name[10:]: value for name, value in state.items() if name.startswith("optimizer.")})
        self.calls, self._good = int(state["calls"]), int(state["good"])
        self.loss_scale = float(state["loss_scale"]) or None


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of everything random in a step."""
    return np.random.default_rng((seed, step))


# ---- checkpoints


def save_checkpoint(output_dir: Path, step: int, train_step: TrainStep, limit: int | None = None, **states: dict[str, Any]) -> Path:
    """Write `output_dir/checkpoint-STEP`, complete or not at all.

    Args:
        output_dir: of the run.
        step: how many steps are done.
        train_step: its weights and state.
        limit: only this many of the newest checkpoints are kept.
        states: anything else, as JSON (`lr_scheduler=lr_scheduler.state_dict()`) or as arrays by name (an EMA's weights).
    """
    target = Path(output_dir) / f"checkpoint-{step}"
    with replaced_folder(target) as folder:
        save_file({name: np.ascontiguousarray(value) for name, value in train_step.state_dict().items()}, Path(folder) / _STATE)
        progress = {"step": step}
        for name, state in states.items():
            if all(isinstance(value, np.ndarray) for value in state.values()):
                save_file(state, Path(folder) / f"{name}.safetensors")
            else:
                progress[name] = state
        (Path(folder) / _PROGRESS).write_text(json.dumps(progress))
    if limit is not None:
        for old in _checkpoints(output_dir)[:-limit]:
            shutil.rmtree(old)
    return target


def load_checkpoint(output_dir: Path, which: str, train_step: TrainStep) -> dict[str, Any] | None:
    """Continue from a checkpoint.

    Args:
        output_dir: of the run.
        which: "latest", or a checkpoint's name.
        train_step: gets its weights and state back.

    Returns:
        "step" and the other states, or None if "latest" was asked for and there is none.

    Raises:
        CheckpointError: there is no such checkpoint, or it is of other parameters.
    """
    found = _checkpoints(output_dir)
    if which == "latest":
        if not found:
            return None
        folder = found[-1]
    else:
        folder = Path(output_dir) / Path(which).name
        if folder not in found:
            names = ", ".join(path.name for path in found) or "none"
            raise CheckpointError(f"there is no checkpoint {folder.name} in {output_dir}; there are: {names}")
    train_step.load_state_dict(load_file(folder / _STATE))
    progress = json.loads((folder / _PROGRESS).read_text())
    return progress | {path.stem: load_file(path) for path in folder.glob("*.safetensors") if path.name != _STATE}


def _checkpoints(output_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if path.name[11:].isdigit() and (path / _PROGRESS).is_file()]
    return sorted(found, key=lambda path: int(path.name[11:]))


# ---- data


class ImageFolder:
    """Images of a folder, with their captions if it has a `metadata.jsonl` as Hugging Face's image folders have.

    Its lines are `{"file_name": "0001.png", "text": "a red circle"}`. Without it, all images below the folder are taken.

    Args:
        folder: where.
        caption_column: the caption's name in `metadata.jsonl`; None reads no captions.
        resolution: images are resized to this (their shorter side) and cropped to a square, in pixels.
        center_crop: crop in the middle; else at random.
        crop: side of a random part of that square, in pixels, for models that are all convolutions; the whole by default.
        random_flip: mirror every other image.

    Raises:
        ConfigError: no folder, no images, or no such column.
    """

    def __init__(self, folder: str | Path, caption_column: str | None = "text", **options: Any):
        self._set_options(**options)
        folder = Path(folder)
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}")
        metadata = folder / "metadata.jsonl"
        if caption_column is not None and metadata.is_file():
            rows = [json.loads(line) for line in metadata.read_text().splitlines() if line.strip()]
            missing = [row for row in rows if caption_column not in row or "file_name" not in row]
            if missing:
                raise ConfigError(f"{metadata} has a line without 'file_name' or {caption_column!r}: {missing[0]}")
            self.captions: list[str] | None = [row[caption_column] for row in rows]
            self.files = [folder / row["file_name"] for row in rows]
        else:
            self.captions = None
            self.files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp"))
        if not self.files:
            raise ConfigError(f"there are no images in {folder}")

    def _set_options(self, resolution: int, center_crop: bool = True, random_flip: bool = False, crop: int | None = None) -> None:
        self.resolution, self.center_crop, self.random_flip, self.crop = resolution, center_crop, random_flip, crop

    def __len__(self) -> int:
        return len(self.files)

    def _open(self, index: int) -> "Image":
        from PIL import Image

        with Image.open(self.files[index]) as file:
            return file.convert("RGB")

    def image(self, index: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """float32 of shape (3, side, side) in [-1, 1]; cropped and mirrored with `rng`, else the whole square."""
        from PIL.Image import Resampling

        image = self._open(index)
        size = self.resolution
        if image.size != (size, size):
            ratio = size / min(image.size)
            image = image.resize((max(size, round(image.width * ratio)), max(size, round(image.height * ratio))), Resampling.LANCZOS)
            free = (image.width - size, image.height - size)
            middle = self.center_crop or rng is None
            left, top = (free[0] // 2, free[1] // 2) if middle else (int(rng.integers(part + 1)) for part in free)
            image = image.crop((left, top, left + size, top + size))
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1
        if self.crop is not None and rng is not None:
            top, left = rng.integers(size - self.crop + 1, size=2)
            pixels = pixels[:, top : top + self.crop, left : left + self.crop]
        return pixels[:, :, ::-1].copy() if self.random_flip and rng is not None and rng.random() < 0.5 else pixels


class HubImages(ImageFolder):
    """Images, and captions, of a dataset on the Hugging Face hub, read with the `datasets` library.

    Args:
        name: what `datasets.load_dataset` takes; its "train" split is used.
        config: the dataset's configuration, if it has several.
        image_column: the images' column.
        caption_column: the captions' column; without it in the dataset there are no captions.
        options: see `ImageFolder`.

    Raises:
        ConfigError: `datasets` is not installed, or there is no such column.
    """

    def __init__(self, name: str, config: str | None, image_column: str, caption_column: str | None, **options: Any):
        try:
            from datasets import load_dataset
        except ImportError:
            raise ConfigError("--dataset_name needs Hugging Face's datasets library: pip install datasets") from None
        self._set_options(**options)
        self._data = load_dataset(name, config, split="train")
        missing = [column for column in (image_column, caption_column) if column is not None and column not in self._data.column_names]
        if missing:
            raise ConfigError(f"the dataset {name} has no column {missing[0]!r}; it has {', '.join(self._data.column_names)}")
        self._column = image_column
        self.captions = None if caption_column is None else [str(caption) for caption in self._data[caption_column]]

    def __len__(self) -> int:
        return len(self._data)

    def _open(self, index: int) -> "Image":
        return self._data[int(index)][self._column].convert("RGB")


class BatchIndices:
    """Batch n of an endless shuffled run over `length` items, found without the batches before it.

    Args:
        length: how many items.
        batch_size: a process's.
        seed: of the shuffles, one an epoch.
        rank: this process, of `world`; each gets its own part of every epoch.
        world: how many processes.

    Raises:
        ConfigError: there are fewer items than one batch of all processes.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        if length < batch_size * world:
            raise ConfigError(f"{length} items are fewer than one batch of {batch_size} on {world} processes; use a smaller batch")
        self.length, self.batch_size, self.seed, self.rank, self.world = length, batch_size, seed, rank, world
        self.batches_per_epoch = length // (batch_size * world)
        self._epoch, self._order = -1, np.arange(0)

    def __getitem__(self, batch: int) -> np.ndarray:
        epoch, place = divmod(batch, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self.seed, epoch, 1)).permutation(self.length)
        start = (place * self.world + self.rank) * self.batch_size
        return self._order[start : start + self.batch_size]


# ---- the loop


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """The options every training script has, with the names of PyTorch diffusers' scripts."""
    parser.add_argument("--output_dir", type=Path, required=True, help="where checkpoints, logs and the trained model go")
    parser.add_argument("--seed", type=int, default=0, help="of the data's order and of everything random in a step")
    parser.add_argument("--train_batch_size", type=int, default=16, help="pictures a process takes in one step")
    parser.add_argument("--max_train_steps", type=int, required=True, help="steps of the optimiser")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1, help="batches an optimiser's step takes")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--lr_scheduler", default="constant", help="linear, cosine, cosine_with_restarts, polynomial, constant, ...")
    parser.add_argument("--lr_warmup_steps", type=int, default=0)
    parser.add_argument("--adam_beta1", type=float, default=0.9)
    parser.add_argument("--adam_beta2", type=float, default=0.999)
    parser.add_argument("--adam_weight_decay", type=float, default=1e-2)
    parser.add_argument("--adam_epsilon", type=float, default=1e-8)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help="dtype of the weights in the graph")
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument("--checkpoints_total_limit", type=int, help="keep only so many of the newest checkpoints")
    parser.add_argument("--resume_from_checkpoint", help="'latest', or the name of a checkpoint in the output folder")
    parser.add_argument("--logging_steps", type=int, default=50, help="the mean loss of so many steps is one line of loss.csv")
    parser.add_argument("--distributed", action="store_true", help="data parallel, under msrun")


def add_data_arguments(parser: argparse.ArgumentParser, resolution: int) -> None:
    """The options that name images, a folder's or a dataset's, and say how they are cut (to `resolution` by default)."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--train_data_dir", help="folder of images, with their captions in its metadata.jsonl if the model reads any")
    source.add_argument("--dataset_name", help="a dataset on the Hugging Face hub, instead of a folder")
    parser.add_argument("--dataset_config_name")
    parser.add_argument("--image_column", default="image")
    parser.add_argument("--resolution", type=int, default=resolution)
    parser.add_argument("--center_crop", action="store_true", help="crop in the middle instead of at random")
    parser.add_argument("--random_flip", action="store_true", help="mirror half of the images")


def make_train_step(loss: nn.Module, arguments: argparse.Namespace, parameters: Any = None) -> TrainStep:
    """The optimiser and step that the options ask for.

    Args:
        loss: the module whose `construct` returns the loss.
        arguments: of `add_training_arguments`.
        parameters: what to train; everything in `loss` that requires gradients by default.
    """
    optimizer = AdamW(
        loss.trainable_params() if parameters is None else parameters,
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        weight_decay=arguments.adam_weight_decay,
        eps=arguments.adam_epsilon,
    )
    return TrainStep(
        loss,
        optimizer,
        max_grad_norm=arguments.max_grad_norm,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        loss_scale=2.0**15 if arguments.mixed_precision == "fp16" else None,
        data_parallel=arguments.distributed,
        seed=arguments.seed,
    )


def weights_dtype(arguments: argparse.Namespace) -> Any:
    """The dtype of the weights in the graph that the options ask for."""
    return ms.float32 if arguments.mixed_precision == "no" else runnable_dtype(to_mindspore_dtype(arguments.mixed_precision))


def take_final_weights(train_step: TrainStep, models: Sequence[nn.Module], ema: "EMAModel | None") -> None:
    """Give the trained models their weights in float32: the moving average, if there is one, else what the optimiser updated."""
    for model in models:
        model.to(ms.float32)
    values = train_step.optimizer.masters if ema is None else ema.shadow_params
    for parameter, value in zip(train_step.optimizer.params, values):
        parameter.copy_(value)


def process(arguments: argparse.Namespace) -> tuple[int, int]:
    """(this process, number of processes), after joining the others if the options say that there are others."""
    if not arguments.distributed:
        return 0, 1
    from mindspore.communication import get_group_size, get_rank, init

    init()
    return get_rank(), get_group_size()


def train(
    train_step: TrainStep,
    batch: Callable[[int], Sequence[ms.Tensor]],
    arguments: argparse.Namespace,
    *,
    ema: "EMAModel | None" = None,
    after_step: Callable[[int], None] | None = None,
    main_process: bool = True,
) -> None:
    """Train to `max_train_steps`, from the checkpoint that the options name.

    Args:
        train_step: takes the batches.
        batch: the tensors of call number n; a pure function of n, so that a resumed run sees the same.
        arguments: of `add_training_arguments`.
        ema: is given the parameters after every step, and saved with them.
        after_step: called with the number of steps done (sample images, validation).
        main_process: whether this process writes files and shows progress.

    Raises:
        CheckpointError: the checkpoint to resume from is not there or not of this model.
    """
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    lr_scheduler = get_scheduler(
        arguments.lr_scheduler,
        train_step.optimizer,
        num_warmup_steps=arguments.lr_warmup_steps,
        num_training_steps=arguments.max_train_steps,
    )
    step = 0
    if arguments.resume_from_checkpoint:
        found = load_checkpoint(output_dir, arguments.resume_from_checkpoint, train_step)
        if found is not None:
            step = found["step"]
            lr_scheduler.load_state_dict(found["lr_scheduler"])
            if ema is not None:
                if "ema" not in found:
                    raise CheckpointError(f"{output_dir}/checkpoint-{step} has no moving average: it was written without --use_ema")
                _load_ema(ema, found["ema_scalars"], found["ema"])
            logger.info(f"resumed from {output_dir}/checkpoint-{step}")
    accumulation = arguments.gradient_accumulation_steps
    log = _LossLog(output_dir, step) if main_process else None
    losses = []
    with tqdm(total=arguments.max_train_steps, initial=step, disable=not main_process, unit="step") as progress:
        while step < arguments.max_train_steps:
            losses += [train_step(*batch(step * accumulation + part)) for part in range(accumulation)]
            lr_scheduler.step()
            if ema is not None:
                ema.step(train_step.optimizer.masters)
            step += 1
            progress.update()
            if step % arguments.logging_steps == 0 or step == arguments.max_train_steps:
                loss = float(np.mean([value.asnumpy() for value in losses]))
                losses = []
                progress.set_postfix(loss=f"{loss:.4f}", lr=f"{lr_scheduler.get_last_lr()[0]:.2e}")
                if log is not None:
                    log.write(step, loss, lr_scheduler.get_last_lr()[0])
            if main_process and (step % arguments.checkpointing_steps == 0 or step == arguments.max_train_steps):
                states = {"lr_scheduler": lr_scheduler.state_dict()} | ({} if ema is None else _ema_states(ema))
                save_checkpoint(output_dir, step, train_step, arguments.checkpoints_total_limit, **states)
            if after_step is not None:
                after_step(step)


class _LossLog:
    """loss.csv in the output folder, and TensorBoard's files if a writer for them is installed; what is after the resumed step goes."""

    def __init__(self, output_dir: Path, step: int):
        self._file = output_dir / "loss.csv"
        lines = self._file.read_text().splitlines()[1:] if self._file.exists() else []
        kept = [line for line in lines if int(line.split(",")[0]) <= step]
        self._file.write_text("\n".join(["step,loss,learning_rate", *kept]) + "\n")
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(output_dir / "logs"), purge_step=step)

    def write(self, step: int, loss: float, learning_rate: float) -> None:
        with self._file.open("a") as file:
            file.write(f"{step},{loss:.6g},{learning_rate:.6g}\n")
        if self._writer is not None:
            self._writer.add_scalar("loss", loss, step)
            self._writer.add_scalar("learning_rate", learning_rate, step)


def _ema_states(ema: "EMAModel") -> dict[str, dict[str, Any]]:
    state = ema.state_dict()
    arrays = {f"{index:05d}": np.asarray(value.asnumpy()) for index, value in enumerate(state.pop("shadow_params"))}
    return {"ema_scalars": state, "ema": arrays}


def _load_ema(ema: "EMAModel", scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    ema.load_state_dict(scalars | {"shadow_params": [ms.Tensor(arrays[name]) for name in sorted(arrays)]})
