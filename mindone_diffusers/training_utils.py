"""What a training loop needs beside a model, a scheduler and an optimizer, under PyTorch diffusers' names.

Timesteps, densities and their weights are computed on the host in NumPy, so that nothing is read back from the device: call these
functions outside a compiled step and pass it their results. `compute_loss_weighting_for_sd3` and `compute_confidence_aware_loss` are tensor
arithmetic, and may stand in one.
"""

import gc
import math
import random
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from PIL import Image

from .backend.device import check_device
from .backend.precision import runnable_dtype
from .core import dtypes
from .core.errors import ConfigError, UnsupportedError
from .core.random import manual_seed, random_array
from .models.modeling_utils import ModelMixin
from .nn import functional as F
from .nn.optim import MovingAverage
from .schedulers.arrays import Array, on_host, per_sample


def set_seed(seed: int) -> None:
    """Seed Python's `random`, NumPy's and MindSpore's global generators, and the one this library draws from when given none."""
    random.seed(seed)
    np.random.seed(seed)
    ms.set_seed(seed)
    manual_seed(seed)


# ---- losses and their weights


def compute_snr(noise_scheduler: Any, timesteps: Array) -> Array:
    """Signal-to-noise ratio a / (1 - a), where a is `alphas_cumprod` at each timestep: the weights of Min-SNR (arXiv 2303.09556).

    Args:
        noise_scheduler: a scheduler with `alphas_cumprod`.
        timesteps: integers of any shape.

    Returns:
        float32 of the shape of `timesteps`: a MindSpore tensor if they are one, else a NumPy array.
    """
    alphas_cumprod = noise_scheduler.alphas_cumprod[on_host(timesteps)].astype(np.float64)
    snr = (alphas_cumprod / (1 - alphas_cumprod)).astype(np.float32)
    return ms.Tensor(snr) if isinstance(timesteps, ms.Tensor) else snr


def compute_density_for_timestep_sampling(
    weighting_scheme: str,
    batch_size: int,
    logit_mean: float | None = None,
    logit_std: float | None = None,
    mode_scale: float | None = None,
    device: Any = "cpu",
    generator: Any = None,
) -> ms.Tensor:
    """Random points u on [0, 1] at which to train a rectified flow, as Stable Diffusion 3 does (arXiv 2403.03206, section 3.1).

    Args:
        weighting_scheme: "logit_normal" (equation 19), "mode" (equation 20), anything else is uniform.
        batch_size: how many.
        logit_mean: mean of the normal distribution of "logit_normal".
        logit_std: its standard deviation.
        mode_scale: scale of "mode".
        device: accepted for ported code and not used: the numbers are made on the host.
        generator: see `core.random.randn_tensor`; our `Generator` draws what PyTorch's does from the same seed.

    Returns:
        float32 (batch_size,), as a tensor, so that `(u * num_train_timesteps).long()` is written as in PyTorch.

    Raises:
        ConfigError: a number that the scheme needs is missing.
    """
    needed = {"logit_normal": {"logit_mean": logit_mean, "logit_std": logit_std}, "mode": {"mode_scale": mode_scale}}
    missing = [name for name, value in needed.get(weighting_scheme, {}).items() if value is None]
    if missing:
        raise ConfigError(f"weighting_scheme {weighting_scheme!r} needs {' and '.join(missing)}")
    if weighting_scheme == "logit_normal":
        normal = random_array("normal", (batch_size,), generator).astype(np.float64)
        u = 1 / (1 + np.exp(-(logit_mean + logit_std * normal)))
    else:
        u = random_array("uniform", (batch_size,), generator).astype(np.float64)
        if weighting_scheme == "mode":
            u = 1 - u - mode_scale * (np.cos(math.pi * u / 2) ** 2 - 1 + u)
    return ms.Tensor(u.astype(np.float32))


def compute_loss_weighting_for_sd3(weighting_scheme: str, sigmas: Array) -> Array:
    """Weights of a rectified flow's loss at given noise levels (arXiv 2403.03206, section 3.1).

    Args:
        weighting_scheme: "sigma_sqrt" (sigma^-2, in float32), "cosmap" (equation 21), anything else is 1.
        sigmas: noise levels of any shape, a MindSpore tensor or a NumPy array; the weights are of the same shape and kind.
    """
    if weighting_scheme == "sigma_sqrt":
        return (sigmas**-2.0).astype("float32")
    if weighting_scheme == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))
    return np.ones_like(sigmas) if isinstance(sigmas, np.ndarray) else F.ones(sigmas.shape, sigmas.dtype)


def compute_confidence_aware_loss(
    logits: ms.Tensor,
    labels: ms.Tensor,
    *,
    lambda_conf: float = 0.0,
    temperature: float = 1.0,
    per_token_weights: ms.Tensor | None = None,
    ignore_index: int = -100,
) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
    """Cross-entropy, plus the entropy of the tokens that are predicted right already, which makes a masked model surer of them.

    Args:
        logits: (..., vocabulary).
        labels: (...), integers.
        lambda_conf: weight of the entropy.
        temperature: divides the logits of the entropy, not those of the cross-entropy.
        per_token_weights: (...), weights of both terms; both are weighted means.
        ignore_index: label of the tokens that do not count.

    Returns:
        The loss, its cross-entropy and its entropy, which is 0 without `lambda_conf`.

    Raises:
        ValueError: the shapes do not fit, or `temperature` is not above 0.
    """
    if len(logits.shape) < 2:
        raise ValueError(f"logits of shape {logits.shape}; expected at least two axes, the last of which is the vocabulary")
    if tuple(labels.shape) != tuple(logits.shape[:-1]):
        raise ValueError(f"labels of shape {labels.shape}; expected {logits.shape[:-1]}, the shape of the logits without the vocabulary")
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; expected more than 0")
    if per_token_weights is not None and tuple(per_token_weights.shape) != tuple(labels.shape):
        raise ValueError(f"per_token_weights of shape {per_token_weights.shape}; expected {labels.shape}, the shape of the labels")

    valid = labels != ignore_index
    weights = valid.astype(logits.dtype)
    if per_token_weights is not None:
        weights = weights * per_token_weights.astype(logits.dtype)
    targets = F.where(valid, labels, 0).expand_dims(-1)
    surprise = logits.logsumexp(-1) - logits.gather_elements(-1, targets).squeeze(-1)
    # An ignored token's may be infinite.
    cross_entropy = _weighted_mean(F.where(valid, surprise, 0.0), weights)
    if lambda_conf == 0:
        return cross_entropy, cross_entropy, F.zeros((), cross_entropy.dtype)
    probabilities = F.softmax(logits.astype(ms.float32) / temperature, -1)
    entropies = -(probabilities * probabilities.clip(_TINY, None).log()).sum(-1).astype(logits.dtype)
    correct = (F.argmax(logits, -1).astype(labels.dtype) == labels).astype(logits.dtype)
    entropy = _weighted_mean(entropies, weights * correct)
    return cross_entropy + lambda_conf * entropy, cross_entropy, entropy


_TINY = float(np.finfo(np.float32).tiny)


def _weighted_mean(values: ms.Tensor, weights: ms.Tensor) -> ms.Tensor:
    return (values * weights).sum() / weights.sum().clip(1, None)


def compute_dream_and_update_latents(
    unet: Any,
    noise_scheduler: Any,
    timesteps: Array,
    noise: ms.Tensor,
    noisy_latents: ms.Tensor,
    target: ms.Tensor,
    encoder_hidden_states: ms.Tensor,
    dream_detail_preservation: float = 1.0,
) -> tuple[ms.Tensor, ms.Tensor]:
    """DREAM (arXiv 2312.00210): move the noisy latents and the target by part of the error that the model makes now.

    It runs the model once more; no gradient passes through that. The results keep the dtype of the latents and the target.

    Args:
        unet: the model, called as `unet(noisy_latents, timesteps, encoder_hidden_states).sample`.
        noise_scheduler: the scheduler that made `noisy_latents`, which predicts "epsilon".
        timesteps: (batch,) integers.
        noise: (batch, channels, height, width).
        noisy_latents: of the same shape.
        target: what the model should predict, of the same shape.
        encoder_hidden_states: (batch, tokens, size).
        dream_detail_preservation: p of the paper: the error is multiplied by sqrt(1 - alphas_cumprod)^p.

    Returns:
        The new noisy latents and the new target.

    Raises:
        UnsupportedError: the scheduler predicts "v_prediction".
        ConfigError: it predicts something else that is not "epsilon".
    """
    prediction_type = noise_scheduler.config.prediction_type
    if prediction_type == "v_prediction":
        raise UnsupportedError("DREAM is not defined for prediction_type 'v_prediction'; use an 'epsilon' model")
    if prediction_type != "epsilon":
        raise ConfigError(f"prediction_type is {prediction_type!r}; DREAM needs 'epsilon'")
    sigmas = np.sqrt(1 - noise_scheduler.alphas_cumprod[on_host(timesteps)])
    error = F.detach(noise - unet(noisy_latents, timesteps, encoder_hidden_states).sample)
    error = error * per_sample(sigmas**dream_detail_preservation, error)
    return noisy_latents + per_sample(sigmas, noisy_latents) * error, target + error


# ---- models


def cast_training_params(model: Any, dtype: Any = ms.float32) -> None:
    """Cast the parameters that have `requires_grad` (of LoRA, say) to `dtype` and leave the others.

    Args:
        model: a model, or a list of them.
        dtype: anything `core.dtypes` knows.
    """
    dtype = runnable_dtype(dtypes.to_mindspore_dtype(dtype))
    for one in model if isinstance(model, list) else [model]:
        for parameter in one.trainable_params():
            parameter.set_dtype(dtype)
        for _, module in one.cells_and_names():
            if isinstance(module, ModelMixin):
                module._recompile()


def free_memory() -> None:
    """Collect Python's garbage, then give the device memory that MindSpore keeps and does not use back to the device."""
    gc.collect()
    ms.runtime.empty_cache()


@contextmanager
def offload_models(*modules: Any, device: Any, offload: bool = True) -> Iterator[None]:
    """Keeps ported code running. MindSpore has one device target a process, so nothing is moved, and nothing has to be moved back.

    Args:
        modules: models or pipelines.
        device: where PyTorch would put them meanwhile: the device MindSpore runs on.
        offload: False does not look at `device`.

    Raises:
        UnsupportedError: `device` is another one.
    """
    if offload:
        check_device(device)
    yield


# ---- images


_INTERPOLATION = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "nearest_exact": Image.Resampling.NEAREST,  # Pillow's nearest is the one that other libraries call exact
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}


def resolve_interpolation_mode(interpolation_type: str) -> Image.Resampling:
    """Pillow's resampling filter for a name, where PyTorch diffusers gives torchvision's: pass it to `PIL.Image.Image.resize`.

    Args:
        interpolation_type: "bilinear", "bicubic", "box", "nearest", "nearest_exact", "hamming" or "lanczos".

    Raises:
        ConfigError: another name.
    """
    if interpolation_type not in _INTERPOLATION:
        raise ConfigError(f"interpolation_type is {interpolation_type!r}; expected one of {', '.join(_INTERPOLATION)}")
    return _INTERPOLATION[interpolation_type]


def parse_buckets_string(buckets_str: str) -> list[tuple[int, int]]:
    """Sizes of images to train on, from "height,width;height,width;...".

    Raises:
        ConfigError: it is empty, or a pair is not two positive integers.
    """
    if not buckets_str:
        raise ConfigError("no buckets were given; expected 'height,width;height,width;...'")
    buckets = []
    for pair in buckets_str.strip().split(";"):
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", pair)
        height, width = map(int, match.groups()) if match else (0, 0)
        if height == 0 or width == 0:
            raise ConfigError(f"the bucket {pair!r} is not a pair of positive integers 'height,width'")
        if height % 8 or width % 8:
            warnings.warn(f"the bucket ({height}, {width}) is not divisible by 8, which most autoencoders need", stacklevel=2)
        buckets.append((height, width))
    return buckets


def find_nearest_bucket(h: int, w: int, bucket_options: Sequence[tuple[int, int]]) -> int | None:
    """Index of the bucket nearest in shape to an image, the last one of equals; None if there are none.

    Args:
        h: the image's height.
        w: its width.
        bucket_options: pairs of height and width.
    """
    distances = [abs(h * width - w * height) for height, width in bucket_options]
    return min(range(len(distances)), key=lambda index: (distances[index], -index), default=None)


_ASPECT_RATIOS = [(1, 1), (4, 5), (5, 4), (2, 3), (3, 2), (3, 4), (4, 3), (9, 16), (16, 9), (1, 2), (2, 1)]


def generate_aspect_ratio_buckets(
    resolution: int, divisibility: int = 16, base_resolutions: Sequence[tuple[int, int]] | None = None
) -> list[tuple[int, int]]:
    """Sizes (height, width) of about `resolution`^2 pixels, in shapes from 1:2 to 2:1.

    Args:
        resolution: side of the square.
        divisibility: heights and widths are the nearest multiples of it, but not 0.
        base_resolutions: pairs of height and width whose shapes are taken instead.

    Returns:
        The distinct sizes.
    """
    shapes = _ASPECT_RATIOS if base_resolutions is None else [(width, height) for height, width in base_resolutions]
    buckets = []
    for width, height in shapes:
        aspect = width / height
        exact = (resolution * resolution / aspect) ** 0.5
        buckets.append(tuple(max(divisibility, round(side / divisibility) * divisibility) for side in (exact, exact * aspect)))
    return list(dict.fromkeys(buckets))


# ---- moving average of weights


class EMAModel:
    """Exponential moving average of parameters: average -= (1 - decay) * (average - parameter), at each `step`.

    The decay rises from 0: as (1 + n) / (10 + n), or with `use_ema_warmup` as 1 - (1 + n / inv_gamma)^-power, n being the steps after
    `update_after_step`. Power 2/3 suits a million steps (0.999 after 31,600), 3/4 fewer (0.999 after 10,000); inv_gamma = power = 1 is the
    plain mean.

    Args:
        parameters: the parameters, in an order that later calls repeat: `model.parameters()`.
        decay: the largest decay.
        min_decay: the smallest, from the second step on.
        update_after_step: for so many steps the average is the parameters themselves.
        use_ema_warmup: which of the two formulas.
        inv_gamma: see above.
        power: see above.
        foreach: accepted for ported code and kept; the numbers are the same. PyTorch has faster functions for it.
        model_cls: the model's class, for `save_pretrained`.
        model_config: the model's config, for `save_pretrained`.
    """

    def __init__(
        self,
        parameters: Iterable[ms.Parameter],
        decay: float = 0.9999,
        min_decay: float = 0.0,
        update_after_step: int = 0,
        use_ema_warmup: bool = False,
        inv_gamma: float | int = 1.0,
        power: float | int = 2 / 3,
        foreach: bool = False,
        model_cls: type | None = None,
        model_config: dict[str, Any] | None = None,
    ):
        self._set_averages([ms.Tensor(on_host(parameter)).astype(runnable_dtype(parameter.dtype)) for parameter in parameters])
        self.temp_stored_params: list[np.ndarray] | None = None
        self.decay = decay
        self.min_decay = min_decay
        self.update_after_step = update_after_step
        self.use_ema_warmup = use_ema_warmup
        self.inv_gamma = inv_gamma
        self.power = power
        self.optimization_step = 0
        self.cur_decay_value: float | None = None
        self.foreach = foreach
        self.model_cls = model_cls
        self.model_config = model_config

    @classmethod
    def from_pretrained(cls, path: Any, model_cls: type, foreach: bool = False) -> "EMAModel":
        """Read the folder that `save_pretrained`, ours or PyTorch diffusers', wrote.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        model = model_cls.from_pretrained(path)
        ema = cls(model.parameters(), model_cls=model_cls, model_config=model.config, foreach=foreach)
        ema.load_state_dict({name: model.config[name] for name in _EMA_STATE if name in model.config})
        return ema

    def save_pretrained(self, path: Any) -> None:
        """Write the averaged model, which `model_cls.from_pretrained` reads too; the average's own state is in the config.

        Raises:
            ConfigError: `model_cls` or `model_config` was not given.
        """
        if self.model_cls is None or self.model_config is None:
            raise ConfigError("save_pretrained makes a model: give EMAModel(...) its model_cls and model_config")
        model = self.model_cls.from_config(self.model_config)
        model.register_to_config(**{name: getattr(self, name) for name in _EMA_STATE})
        self.copy_to(model.parameters())
        model.save_pretrained(path)

    def get_decay(self, optimization_step: int) -> float:
        """The decay of a step, counted from 1."""
        step = max(0, optimization_step - self.update_after_step - 1)
        if step == 0:
            return 0.0
        decay = 1 - (1 + step / self.inv_gamma) ** -self.power if self.use_ema_warmup else (1 + step) / (10 + step)
        return max(min(decay, self.decay), self.min_decay)

    def step(self, parameters: Iterable[ms.Parameter]) -> None:
        """Move the averages towards the parameters; those without `requires_grad` are copied. Call it after the optimizer's step.

        Raises:
            ConfigError: there are not as many parameters as averages.
        """
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        averages, parameters = (list(part) for part in zip(*self._paired(parameters)))
        key = [(id(parameter), parameter.requires_grad) for parameter in parameters]
        if self._moving is None or self._moving[0] != key:
            self._moving = key, MovingAverage(averages, parameters), parameters
        self._moving[1].step(ms.Tensor(1 - self.cur_decay_value, ms.float32))

    def copy_to(self, parameters: Iterable[ms.Parameter]) -> None:
        """Set the parameters to the averages, in place, so that compiled graphs see them."""
        for shadow, parameter in self._paired(parameters):
            parameter.copy_(shadow)

    def store(self, parameters: Iterable[ms.Parameter]) -> None:
        """Keep the parameters' values in host memory until `restore`, e.g. to evaluate the averages in between."""
        self.temp_stored_params = [parameter.asnumpy().copy() for _, parameter in self._paired(parameters)]

    def restore(self, parameters: Iterable[ms.Parameter]) -> None:
        """Set the parameters back to what `store` kept, in place, and forget it.

        Raises:
            RuntimeError: nothing is stored.
        """
        if self.temp_stored_params is None:
            raise RuntimeError("there is nothing to restore: call store(parameters) before")
        for stored, (_, parameter) in zip(self.temp_stored_params, self._paired(parameters)):
            parameter.copy_(ms.Tensor(stored))
        self.temp_stored_params = None

    def to(self, device: Any = None, dtype: Any = None, non_blocking: bool = False) -> None:
        """Cast the averages.

        Args:
            device: the device MindSpore runs on: nothing is moved.
            dtype: dtype of the floating-point averages.
            non_blocking: accepted for ported code and not used.

        Raises:
            UnsupportedError: `device` is another one.
        """
        if device is not None:
            check_device(device)
        if dtype is not None:
            dtype = runnable_dtype(dtypes.to_mindspore_dtype(dtype))
            self._set_averages([shadow.astype(dtype) if dtypes.is_floating(shadow.dtype) else shadow for shadow in self.shadow_params])

    def state_dict(self) -> dict[str, Any]:
        """The settings, the step, and under "shadow_params" the averages themselves, not copies."""
        return {name: getattr(self, name) for name in _EMA_STATE} | {"shadow_params": self.shadow_params}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict()` gave; entries that are missing stay as they are. Averages are copied, from tensors or NumPy arrays.

        Raises:
            ConfigError: an entry is of the wrong kind; nothing was changed.
        """
        given = {name: state_dict[name] for name in _EMA_STATE if name in state_dict}
        for name, value in given.items():
            if not isinstance(value, _EMA_STATE[name]):
                expected = " or ".join(kind.__name__ for kind in _EMA_STATE[name])
                raise ConfigError(f"{name} is {value!r}; expected {expected}")
        if not 0 <= given.get("decay", self.decay) <= 1:
            raise ConfigError(f"decay is {given['decay']}; expected a number from 0 to 1")
        shadow_params = state_dict.get("shadow_params", self.shadow_params)
        if not isinstance(shadow_params, list) or not all(isinstance(shadow, (ms.Tensor, np.ndarray)) for shadow in shadow_params):
            raise ConfigError("shadow_params is not a list of tensors")
        self._set_averages([ms.Tensor(on_host(shadow)) for shadow in shadow_params])
        for name, value in given.items():
            setattr(self, name, value)

    def _set_averages(self, averages: list[ms.Tensor]) -> None:
        self.shadow_params = [
            ms.Parameter(average, name=f"average.{index}", requires_grad=False) for index, average in enumerate(averages)
        ]  # fmt: skip
        self._moving: tuple[list, MovingAverage, list] | None = None  # compiled for these parameters

    def _paired(self, parameters: Iterable[ms.Parameter]) -> Iterator[tuple[ms.Tensor, ms.Parameter]]:
        parameters = list(parameters)
        if len(parameters) != len(self.shadow_params):
            raise ConfigError(f"{len(parameters)} parameters were given, but {len(self.shadow_params)} are averaged: pass the same ones")
        return zip(self.shadow_params, parameters)


_EMA_STATE = {
    "decay": (float, int), "min_decay": (float, int), "optimization_step": (int,), "update_after_step": (int,), "use_ema_warmup": (bool,),
    "inv_gamma": (float, int), "power": (float, int),
}  # fmt: skip
"""What is saved of an EMAModel beside the averages, and of which types."""
