"""Floor 2: torch-named layers (`nn.Linear`, ...) and functions (`nn.functional`) on MindSpore."""

from . import functional
from .modules import (
    GELU,
    AvgPool2d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    GroupNorm,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    Mish,
    Module,
    ModuleList,
    Parameter,
    ReLU,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
    Upsample,
    initialize,
    is_nesting,
    normal_init,
    ones_init,
    parameter_dtype,
    uniform_init,
    zeros_,
)

__all__ = [
    "AvgPool2d", "BatchNorm2d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Dropout", "Embedding", "GELU",
    "GroupNorm", "Identity", "LayerNorm", "LeakyReLU", "Linear", "Mish", "Module", "ModuleList", "Parameter", "RMSNorm",
    "ReLU", "Sequential", "SiLU", "Sigmoid", "Tanh", "Upsample", "functional", "initialize", "is_nesting", "normal_init",
    "ones_init", "parameter_dtype", "uniform_init", "zeros_",
]  # fmt: skip
