"""Compare our public classes with PyTorch diffusers' (or transformers') of the same name: constructor and call arguments, defaults,
public methods. Writes docs/support.md; `--check` only compares, and exits with 1 where a difference is not listed in DIFFERENCES.

    python tools/api_report.py [--check]
"""

import argparse
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import diffusers  # noqa: E402
import transformers  # noqa: E402

import mindone_diffusers  # noqa: E402

HEAD = """# What is here, compared with PyTorch diffusers 0.42.1

Made by `python tools/api_report.py`: the constructor's, the call's and the main methods' arguments, names, order and defaults; then
the public methods and properties that diffusers has and we have not (yet). `tests/parity/test_api.py` fails on a difference that is
not listed here with its reason. Renamed: `torch_dtype` is `mindspore_dtype` (`dtype` and `torch_dtype` are accepted too),
`output_type="pt"` is `"ms"` (`"pt"` is accepted too), `forward` is `__call__`.

| class | arguments and defaults | not here yet |
|---|---|---|
"""

# Our name for upstream's.
METHODS = {"forward": "__call__"}

# What is deliberately different: (class, method) to reason. "*" is every class of transformers.
DIFFERENCES = {
    ("*", "__init__"): "the config may be a mapping, and entries may be given by keyword",
    ("*", "__call__"): "arguments that transformers hides in **kwargs are named; attentions are not returned",
    ("CacheMixin", "__init__"): "it is a model here, no mix-in beside one",
    ("DDIMInverseScheduler", "__init__"): "no **kwargs: upstream's hold only the deprecated `set_alpha_to_zero`, which is named here",
    ("EMAModel", "__init__"): "no **kwargs: upstream's hold only the deprecated `max_value`, `min_value` and `device`",
    ("FasterCacheConfig", "__init__"): "lacks a list of inputs' names: all inputs of the batch's length are halved",
    ("LEditsPPPipelineStableDiffusion", "__call__"): "no **kwargs: upstream's have no effect",
    ("LEditsPPPipelineStableDiffusionXL", "__call__"): "no **kwargs: upstream's have no effect",
    ("LTXEulerAncestralRFScheduler", "set_timesteps"): "no **kwargs: unknown arguments are errors",
    ("ModelMixin", "__call__"): "abstract",
    ("StableDiffusionXLInstructPix2PixPipeline", "encode_prompt"): "adds `clip_skip`, which the other SDXL pipelines have",
    ("TaylorSeerCacheConfig", "__init__"): "MindSpore's bfloat16",
}
CALLBACKS = "no **kwargs: upstream's hold only the deprecated `callback` and `callback_steps`"


def signature(function) -> dict[str, object]:
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "self"}


def hidden_arguments(function) -> set[str]:
    """The names that a function takes out of its **kwargs."""
    return set(re.findall(r'kwargs\.pop\("(\w+)"', inspect.getsource(inspect.unwrap(function))))


def upstream_class(name: str) -> type | None:
    for library in (diffusers, transformers):
        found = getattr(library, name, None)
        if isinstance(found, type):
            return found
    return None


def describe(value: object) -> str:
    """A default as text; our tuples are upstream's lists."""
    return "(required)" if value is inspect.Parameter.empty else repr(tuple(value) if isinstance(value, list) else value)


def differences(ours: dict[str, object], theirs: dict[str, object]) -> list[str]:
    found = [f"lacks {name}" for name in theirs if name not in ours]
    found += [f"adds {name}" for name in ours if name not in theirs]
    shared_ours = [name for name in ours if name in theirs]
    if shared_ours != [name for name in theirs if name in ours]:
        found.append("another order")
    for name in shared_ours:
        if describe(ours[name]) != describe(theirs[name]):
            found.append(f"{name}={describe(ours[name])}, upstream {describe(theirs[name])}")
    return found


def public_methods(cls: type) -> dict[str, object]:
    """Functions and class methods defined by the library itself, not by torch.nn.Module, mindspore.nn.Cell and the like."""
    methods = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] in ("diffusers", "transformers", "mindone_diffusers"):
            for name, value in vars(base).items():
                if not name.startswith("_") or name == "__call__":
                    methods[name] = value
    return methods


def compare(name: str) -> tuple[list[str], list[str], list[str]]:
    """Unlisted differences of the signatures, reasons of the listed ones, and the public methods and properties that we lack."""
    ours, theirs = getattr(mindone_diffusers, name), upstream_class(name)
    foreign = theirs.__module__.startswith("transformers")
    lines, reasons = [], []
    pairs = [("__init__", "__init__"), ("forward" if hasattr(theirs, "forward") else "__call__", "__call__")]
    pairs += [(method, method) for method in ("encode", "decode", "step", "set_timesteps", "add_noise", "encode_prompt")]
    for upstream_name, our_name in pairs:
        if hasattr(theirs, upstream_name) and hasattr(ours, our_name):
            found = differences(signature(getattr(ours, our_name)), signature(getattr(theirs, upstream_name)))
            reason = DIFFERENCES.get(("*" if foreign else name, our_name))
            if (
                reason is None
                and found == ["lacks kwargs"]
                and hidden_arguments(getattr(theirs, upstream_name)) <= {"callback", "callback_steps"}
            ):
                reason = CALLBACKS
            if found and reason:
                reasons.append(f"`{our_name}`: {reason}")
            else:
                lines += [f"`{our_name}`: {line}" for line in found]
    missing = [method for method in public_methods(theirs) if not hasattr(ours, METHODS.get(method, method))]
    return lines, reasons, [] if foreign else sorted(missing)


def classes() -> list[str]:
    """Our public classes that upstream has too."""
    names = sorted(mindone_diffusers.__all__)
    return [name for name in names if isinstance(getattr(mindone_diffusers, name), type) and upstream_class(name) is not None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 on an unlisted difference")
    arguments = parser.parse_args()
    rows, wrong = [], 0
    for name in classes():
        lines, reasons, missing = compare(name)
        wrong += len(lines)
        shown = "; ".join(lines + reasons) or "equal"
        origin = " (transformers)" if upstream_class(name).__module__.startswith("transformers") else ""
        rows.append(f"| `{name}`{origin} | {shown} | {', '.join(f'`{method}`' for method in missing) or 'none'} |")
        print(f"{name}: {shown}")
    if not arguments.check:
        (ROOT / "docs" / "support.md").write_text(HEAD + "\n".join(rows) + "\n")
    return 1 if arguments.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
