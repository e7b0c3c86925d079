"""Samplers of discrete tokens beside PyTorch diffusers', with the same random numbers."""

import dataclasses
import importlib

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindone_diffusers  # noqa: E402
from mindone_diffusers import Generator  # noqa: E402
from tests.schedulers.recording_discrete import reference  # noqa: E402
from tests.schedulers.runner_discrete import CASES, Case, compare, run, signature  # noqa: E402

CLASSES = sorted({case.scheduler for case in CASES})


def pair(name: str, **config):
    return getattr(mindone_diffusers, name)(**config), getattr(diffusers, name)(**config)


def ours(case: Case, kind: str, generator=lambda seed: Generator().manual_seed(seed)) -> dict[str, np.ndarray]:
    return run(
        getattr(mindone_diffusers, case.scheduler)(**case.config),
        case,
        array=np.asarray if kind == "numpy" else ms.Tensor.from_numpy,
        generator=generator,
        plain=lambda values: values.asnumpy() if isinstance(values, ms.Tensor) else np.asarray(values),
    )


@pytest.mark.parametrize("kind", ["numpy", "mindspore"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_runs(case: Case, kind: str) -> None:
    assert compare(case, ours(case, kind), reference(case)) <= 1e-5


@pytest.mark.parametrize("case", [case for case in CASES if case.scheduler.startswith("RFD4")], ids=lambda case: case.name)
def test_times_of_float32(case: Case) -> None:
    """To the last bit, or where PyTorch takes a float32 power, to its error."""
    scheduler, reference_scheduler = pair(case.scheduler, **case.config)
    scheduler.set_timesteps(**case.timesteps)
    reference_scheduler.set_timesteps(**case.timesteps)
    difference = np.abs(scheduler.timesteps - reference_scheduler.timesteps.numpy())
    assert difference.max() <= (1e-7 if case.config["schedule_mode"] == "log" else 0)


@pytest.mark.parametrize("name", ["AmusedScheduler", "EntropyBoundScheduler", "RFD4ProteinaScheduler"])
def test_a_torch_generator_is_taken(name: str) -> None:
    case = next(case for case in CASES if case.scheduler == name and "log" not in case.name)
    expected = ours(case, "numpy")
    assert compare(case, ours(case, "numpy", lambda seed: torch.Generator().manual_seed(seed)), expected) == 0


def test_amused_masks_as_many_tokens() -> None:
    """The number is rounded down, so the ratio's last bit could matter."""
    for schedule in ("cosine", "linear"):
        for steps in (1, 2, 3, 5, 12, 24, 48, 100):
            scheduler, reference_scheduler = pair("AmusedScheduler", mask_token_id=9, masking_schedule=schedule)
            scheduler.set_timesteps(steps)
            reference_scheduler.set_timesteps(steps)
            assert np.array_equal(scheduler.timesteps, reference_scheduler.timesteps.numpy())
            assert np.array_equal(scheduler.temperatures, reference_scheduler.temperatures.numpy())
            for timestep in range(1, steps):
                logits, sample = np.zeros((1, 64, 4), np.float32), np.full((1, 64), 9)
                found = scheduler.step(logits, timestep, sample, generator=Generator()).prev_sample
                expected = reference_scheduler.step(
                    torch.from_numpy(logits), timestep, torch.from_numpy(sample), generator=torch.Generator()
                ).prev_sample
                assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_large_vocabularies(dtype: str) -> None:
    """Every token, over vocabularies in which near ties are likely."""
    random = np.random.default_rng(0)
    logits, sample = (3 * random.standard_normal((2, 64, 8000))).astype(dtype), random.integers(0, 8000, (2, 64))
    theirs = (torch.from_numpy(logits), 0, torch.from_numpy(sample))
    for name, options in (
        ("BlockRefinementScheduler", {"temperature": 0.7, "top_k": 50, "mask_token_id": 3}),
        ("DiscreteDDIMScheduler", {"temperature": 0.9}),
        ("EntropyBoundScheduler", {}),
    ):
        scheduler, reference_scheduler = pair(name)
        expected = reference_scheduler.step(*theirs, **options, generator=torch.Generator().manual_seed(1))
        for array in (np.asarray, ms.Tensor.from_numpy):
            found = scheduler.step(array(logits), 0, array(sample), **options, generator=Generator().manual_seed(1))
            for field in ("prev_sample", "sampled_tokens"):
                assert np.array_equal(np.asarray(found[field]), expected[field].numpy()), (name, field)


# ---- interfaces


def public(owner: type) -> set[str]:
    """What a class itself has: not what schedulers inherit."""
    return {name for name in vars(owner) if name[0] != "_"} - {"order"}


@pytest.mark.parametrize("name", CLASSES)
def test_methods_and_their_arguments(name: str) -> None:
    mine, yours = getattr(mindone_diffusers, name), getattr(diffusers, name)
    assert all(hasattr(mine, method) for method in public(yours))
    for method in {"__init__", *public(yours)}:
        if callable(getattr(yours, method)):
            assert signature(mine, method) == signature(yours, method), method
    assert mine.order == yours.order and mine._compatibles == yours._compatibles


@pytest.mark.parametrize("name", CLASSES)
def test_outputs(name: str) -> None:
    module = getattr(diffusers, name).__module__.rsplit(".", 1)[1]
    mine, yours = (
        getattr(importlib.import_module(f"{package}.schedulers.{module}"), f"{name}Output")
        for package in ("mindone_diffusers", "diffusers")
    )
    assert [field.name for field in dataclasses.fields(mine)] == [field.name for field in dataclasses.fields(yours)]


@pytest.mark.parametrize("case", {case.scheduler: case for case in CASES}.values(), ids=lambda case: case.scheduler)
def test_configs_go_both_ways(case: Case, tmp_path) -> None:
    mine, yours = pair(case.scheduler, **case.config)
    assert {key: value for key, value in mine.config.items() if key[0] != "_"} == {k: v for k, v in yours.config.items() if k[0] != "_"}
    mine.save_pretrained(tmp_path / "mine")
    yours.save_pretrained(tmp_path / "yours")
    mine, yours = (getattr(owner, case.scheduler) for owner in (mindone_diffusers, diffusers))
    assert dict(yours.from_pretrained(tmp_path / "mine").config) == dict(yours.from_pretrained(tmp_path / "yours").config)
    assert dict(mine.from_pretrained(tmp_path / "yours").config) == dict(mine.from_pretrained(tmp_path / "mine").config)


LOGITS, TOKENS = np.zeros((1, 4, 6), np.float32), np.zeros((1, 4), np.int64)
STATE, EMITTED = np.zeros((2, 4, 3), np.float32), np.ones((2, 4), bool)
PROTEIN = {"schedule_mode": "power", "noise_mode": "tan", "tsr_k": 2.0, "tsr_sigma": 1.0}
BAD_CALLS = {
    "amused, schedule": ("AmusedScheduler", {"mask_token_id": 5, "masking_schedule": "x"}, (3,), "step", (LOGITS, 1, TOKENS), {}),
    "block, steps": ("BlockRefinementScheduler", {}, None, "set_timesteps", (0,), {}),
    "block, length": ("BlockRefinementScheduler", {}, None, "set_timesteps", (3,), {"block_length": 0}),
    "block, temperature": ("BlockRefinementScheduler", {}, (3,), "step", (LOGITS, 0, TOKENS), {"temperature": -1.0}),
    "block, top_p": ("BlockRefinementScheduler", {}, (3,), "step", (LOGITS, 0, TOKENS), {"temperature": 1.0, "top_p": -0.1}),
    "ddim, steps": ("DiscreteDDIMScheduler", {}, None, "set_timesteps", (-1,), {}),
    "ddim, temperature": ("DiscreteDDIMScheduler", {}, (3,), "step", (LOGITS, 0, TOKENS), {"temperature": -1.0}),
    "ddim, selection": ("DiscreteDDIMScheduler", {"corrector_selection": "x"}, (3,), "step_correct", (LOGITS, 0, TOKENS), {}),
    "ddim, last step": ("DiscreteDDIMScheduler", {}, (3,), "step_correct", (LOGITS, 2, TOKENS), {}),
    "entropy, steps": ("EntropyBoundScheduler", {}, None, "set_timesteps", (0,), {}),
    "protein, steps": ("RFD4ProteinaScheduler", PROTEIN, None, "set_timesteps", (0,), {}),
    "protein, tail": ("RFD4ProteinaScheduler", PROTEIN, None, "set_timesteps", (19,), {}),
    "protein, tail step": ("RFD4ProteinaScheduler", {**PROTEIN, "tail_step_multiplier": 1}, None, "set_timesteps", (50,), {}),
    "protein, start": ("RFD4ProteinaScheduler", PROTEIN, None, "set_timesteps", (50,), {"start_time": -0.1}),
    "protein, timestep": ("RFD4ProteinaScheduler", PROTEIN, (20,), "step", (STATE, np.array(0.5, np.float32), STATE, EMITTED), {}),
    "protein, times": ("RFD4ProteinaScheduler", PROTEIN, None, "add_noise", (STATE, STATE, np.array([0.5, 1.0])), {}),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_refused_by_both(name: str) -> None:
    scheduler, config, steps, method, arguments, options = BAD_CALLS[name]
    for instance, array in zip(pair(scheduler, **config), (np.asarray, torch.from_numpy), strict=True):
        if steps:
            instance.set_timesteps(*steps)
        with pytest.raises(ValueError):
            getattr(instance, method)(*(array(value) if isinstance(value, np.ndarray) else value for value in arguments), **options)
    for bad in ({"schedule_mode": "x"}, {"noise_mode": "x"}):
        for owner in (mindone_diffusers, diffusers):
            with pytest.raises(ValueError):
                owner.RFD4ProteinaScheduler(**{**PROTEIN, **bad})
