"""Exceptions of this library. Each is also the builtin that PyTorch diffusers raises in the same place, so ported `except` clauses work."""

from collections.abc import Iterable


class MindoneDiffusersError(Exception):
    """Base class of every exception this library defines."""


class ConfigError(MindoneDiffusersError, ValueError):
    """A configuration, or an argument that describes one, is wrong."""


class CheckpointError(MindoneDiffusersError, OSError):
    """A file is missing, damaged, or of a kind that is never loaded (pickles)."""


class FileMissingError(CheckpointError, FileNotFoundError):
    """A file is in neither the local folder, the local cache, nor the repository."""


class WeightsMismatchError(CheckpointError, ValueError):
    """The names or shapes in a state dict are not those of the model.

    Args:
        where: what was being loaded, for the message's first line.
        missing: names the model has and the state dict lacks.
        unexpected: names the state dict has and the model lacks.
        mismatched: (name, shape in the state dict, shape in the model).
    """

    def __init__(
        self,
        where: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        mismatched: Iterable[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
    ):
        self.missing, self.unexpected, self.mismatched = sorted(missing), sorted(unexpected), sorted(mismatched)
        lines = [f"the weights do not fit {where}:"]
        lines += [f"  missing: {name}" for name in self.missing]
        lines += [f"  unexpected: {name}" for name in self.unexpected]
        lines += [f"  shape: {name} is {got} in the file, {want} in the model" for name, got, want in self.mismatched]
        super().__init__("\n".join(lines))


class TimestepError(MindoneDiffusersError, IndexError, ValueError):
    """A timestep is not in a scheduler's schedule. PyTorch diffusers raises an IndexError or a ValueError, depending on the scheduler."""


class ShapeError(MindoneDiffusersError, RuntimeError, ValueError):
    """Arrays have shapes that do not fit each other. PyTorch raises a RuntimeError, NumPy and MindSpore a ValueError."""


class UnsupportedError(MindoneDiffusersError, NotImplementedError):
    """A known option that this library, or this device, does not have."""
