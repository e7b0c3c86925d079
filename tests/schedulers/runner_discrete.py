"""Runs of the samplers of discrete tokens, and of RFD4-Proteina's, whose steps take a mask: whole loops with made-up models."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One run: `scheduler(**config)`, `set_timesteps(**timesteps)`, then every step with the arguments `step`."""

    name: str
    scheduler: str
    config: dict[str, Any] = field(default_factory=dict)
    timesteps: dict[str, Any] = field(default_factory=lambda: {"num_inference_steps": 6})
    step: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 24)
    sharpness: float = 3.0
    dtype: str = "float32"


BATCH, LENGTH, CLASSES = 2, 24, 11
MASK = CLASSES - 1


def _cases() -> list[Case]:
    cases = []

    def add(name: str, scheduler: str, *args: Any, **kwargs: Any) -> None:
        cases.append(Case(f"{scheduler.removesuffix('Scheduler')}/{name}", scheduler, *args, **kwargs))

    amused, mask = "AmusedScheduler", {"mask_token_id": MASK}
    for steps in (3, 12):
        add(f"cosine,{steps}", amused, mask, {"num_inference_steps": steps})
        add(f"linear,{steps}", amused, {**mask, "masking_schedule": "linear"}, {"num_inference_steps": steps})
    add("temperature=3", amused, mask, {"num_inference_steps": 6, "temperature": 3})
    add("temperature=(5,1)", amused, mask, {"num_inference_steps": 6, "temperature": [5, 1]})
    add("image", amused, mask, shape=(2, 4, 6))
    add("starting_mask_ratio=0.6", amused, mask, step={"starting_mask_ratio": 0.6})
    add("float16", amused, mask, dtype="float16")

    vq = "VQDiffusionScheduler"
    classes = {"num_vec_classes": CLASSES}
    add("10 of 100", vq, classes, {"num_inference_steps": 10})
    add("20", vq, {**classes, "num_train_timesteps": 20}, {"num_inference_steps": 20})
    ranges = {"alpha_cum_start": 0.99, "alpha_cum_end": 0.01, "gamma_cum_start": 0.001, "gamma_cum_end": 0.9}
    add("schedule", vq, {**classes, "num_train_timesteps": 20, **ranges}, {"num_inference_steps": 20})

    block, masked = "BlockRefinementScheduler", {"mask_token_id": MASK}
    add("greedy", block, {"block_length": LENGTH}, step=masked)
    add("uneven", block, {}, {"num_inference_steps": 7, "block_length": LENGTH}, masked)
    for sampling in ({"temperature": 0.7}, {"temperature": 1.0, "top_k": 4}, {"temperature": 1.3, "top_p": 0.7},
                     {"temperature": 0.9, "top_k": 6, "top_p": 0.8, "sampling_method": "multinomial"},
                     {"temperature": 0.9, "sampling_method": "greedy"}, {"temperature": 0.0, "sampling_method": "multinomial"},
                     {"temperature": 1.0, "top_k": 99, "top_p": 1.0}):  # fmt: skip
        spelt = ",".join(f"{key}={value}" for key, value in sampling.items())
        add(spelt, block, {"block_length": LENGTH}, step={**masked, **sampling})
        add(f"remembered,{spelt}", block, {"block_length": LENGTH}, step=sampling)
    add("threshold", block, {"block_length": LENGTH, "threshold": 0.5}, step=masked)
    add("threshold of step", block, {"block_length": LENGTH}, step={**masked, "threshold": 0.3, "temperature": 0.5})
    add("remembered,threshold", block, {"threshold": 0.5})
    editing = {"block_length": LENGTH, "editing_threshold": 0.4}
    prompt = np.arange(LENGTH) < 5
    add("editing", block, editing, step={**masked, "prompt_mask": prompt})
    add("editing of step", block, {"block_length": LENGTH}, step={**masked, "editing_threshold": 0.2, "minimal_topk": 2})
    add("no editing", block, editing, step={**masked, "editing_threshold": 0.0})
    add("remembered,editing", block, editing, step={"temperature": 0.6})
    add("remembered,editing=0", block, editing, step={"temperature": 0.6, "editing_threshold": 0.0})

    ddim = "DiscreteDDIMScheduler"
    add("greedy", ddim)
    add("temperature=0.8", ddim, {}, {"num_inference_steps": 12}, {"temperature": 0.8})
    for selection in ("lowest_log_margin", "lowest_maxprob", "lowest_current_prob", "random"):
        config = {"corrector_steps": 2, "corrector_k": 3, "corrector_selection": selection, "corrector_selection_tau": 0.5}
        add(selection, ddim, config, step={"temperature": 1.0})
    add("corrector", ddim, {"corrector_steps": 1}, step={"temperature": 1.0})
    add("corrector_k=99", ddim, {"corrector_steps": 1, "corrector_k": 99})

    bound = "EntropyBoundScheduler"
    add("default", bound, {}, {"num_inference_steps": 8})
    add("entropy_bound=3", bound, {"entropy_bound": 3.0, "t_max": 1.2, "t_min": 0.9}, sharpness=1.5)
    add("entropy_bound of step", bound, {}, step={"entropy_bound": 1.0})

    protein = "RFD4ProteinaScheduler"
    for mode in ("log", "power"):
        for noise in ("1/t", "tan"):
            config = {"schedule_mode": mode, "noise_mode": noise, "tsr_k": 2.5, "tsr_sigma": 0.7}
            add(f"{mode},{noise}", protein, config, {"num_inference_steps": 30}, shape=(2, 5, 3))
        add(f"{mode},no tail", protein, {**config, "tail_steps": 0}, {"num_inference_steps": 12}, shape=(2, 5, 3))
        tail = {**config, "tail_steps": 3, "tail_step_multiplier": 4, "t_lim_ode": 0.8, "t_lim_ode_below": 0.1}
        add(f"{mode},tail", protein, tail, {"num_inference_steps": 20}, shape=(2, 5, 3))
        for start in (0.0, 0.4, 0.9):
            add(f"{mode},start_time={start}", protein, tail, {"num_inference_steps": 15, "start_time": start}, shape=(2, 5, 3))
    add("float16", protein, config, {"num_inference_steps": 25}, shape=(2, 5, 3), dtype="float16")
    return cases


CASES = _cases()


def logits(tokens: np.ndarray, step: int, sharpness: float, classes: int) -> np.ndarray:
    """Made up, smooth in nothing: (batch, positions, classes) that favour one class a position, and a token's neighbours."""
    position, kind = np.arange(tokens.shape[1])[:, None], np.arange(classes)
    value = np.sin(1.7 * kind + 0.9 * position * kind + 0.37 * step + 0.21 * tokens[..., None] * kind)
    return sharpness * (value + np.cos(2.3 * position * kind + 0.8 * kind))


def run(scheduler: Any, case: Case, array: Callable, generator: Callable, plain: Callable = np.asarray) -> dict[str, np.ndarray]:
    """The whole loop.

    Args:
        scheduler: ours, or PyTorch diffusers'.
        case: what to run.
        array: from NumPy to the arrays the scheduler is to step.
        generator: makes a generator from a seed.
        plain: back to NumPy.

    Returns:
        Everything each step returns, one row a step, and what the scheduler's other methods return.
    """
    scheduler.set_timesteps(**case.timesteps)
    play = {"Amused": _amused, "VQDiffusion": _vq, "RFD4Proteina": _protein, "BlockRefinement": _block}
    found = play.get(case.scheduler.removesuffix("Scheduler"), _text)(scheduler, case, array, generator, plain)
    tables = {"timesteps": plain(scheduler.timesteps)}
    return tables | {
        name: np.stack([plain(v) for v in values]) if isinstance(values, list) else plain(values) for name, values in found.items()
    }


def _start(shape: tuple[int, ...], classes: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, classes, shape)


def _collect(found: dict, output: Any) -> None:
    for name in output:
        found.setdefault(name, []).append(output[name])


def _amused(scheduler: Any, case: Case, array: Callable, generator: Callable, plain: Callable) -> dict:
    random, clean = generator(3), _start(case.shape, MASK)
    found: dict = {"temperatures": scheduler.temperatures}
    found["noisy"] = [scheduler.add_noise(array(clean), timestep, random) for timestep in plain(scheduler.timesteps)]
    sample = found["noisy"][0] if "starting_mask_ratio" in case.step else array(np.full(case.shape, MASK))
    for timestep in plain(scheduler.timesteps):
        tokens = plain(sample)
        output = logits(tokens.reshape(BATCH, -1), timestep, case.sharpness, MASK)
        if len(case.shape) == 3:
            output = output.swapaxes(1, 2).reshape(BATCH, MASK, *case.shape[1:])
        result = scheduler.step(array(output.astype(case.dtype)), int(timestep), sample, generator=random, **case.step)
        _collect(found, result)
        sample = result.prev_sample
    return found


def _vq(scheduler: Any, case: Case, array: Callable, generator: Callable, plain: Callable) -> dict:
    random, sample, found = generator(3), array(np.full(case.shape, MASK)), {}
    names = ("log_at", "log_bt", "log_ct", "log_cumprod_at", "log_cumprod_bt", "log_cumprod_ct")
    for timestep in plain(scheduler.timesteps):
        output = logits(plain(sample), timestep, case.sharpness, MASK).swapaxes(1, 2)
        output = array((output - np.log(np.exp(output).sum(1, keepdims=True))).astype(np.float32))
        found.setdefault("posterior", []).append(scheduler.q_posterior(output, sample, int(timestep)))
        result = scheduler.step(output, int(timestep), sample, generator=random)
        _collect(found, result)
        sample = result.prev_sample
    return found | {name: getattr(scheduler, name) for name in names}


def _block(scheduler: Any, case: Case, array: Callable, generator: Callable, plain: Callable) -> dict:
    random, masked = generator(3), "mask_token_id" in case.step
    step = {name: array(value) if isinstance(value, np.ndarray) else value for name, value in case.step.items()}
    start = np.full(case.shape, MASK) if masked else _start(case.shape, CLASSES)
    start[:, :5] = 3
    sample, found = array(start), {}
    finished = array(np.zeros(BATCH, bool))
    # Two steps more than planned: the last share is then asked for again, and committed tokens can still be edited.
    for count in range(case.timesteps["num_inference_steps"] + 2):
        output = array(logits(plain(sample), count, case.sharpness, CLASSES).astype(np.float32))
        result = scheduler.step(output, count, sample, generator=random, **step)
        _collect(found, result)
        sample = result.prev_sample
        moved = result.transfer_index | result.editing_transfer_index
        finished = scheduler.check_eos_finished(sample, result.sampled_tokens, moved, finished, 7, MASK, 5)
        found.setdefault("finished", []).append(plain(finished).copy())
        asked = (count, bool((plain(sample) == MASK).any()), count % 2 == 0, result.editing_transfer_index, count, 6, finished)
        found.setdefault("continues", []).append(np.array(scheduler.check_block_should_continue(*asked)))
    attention = np.ones(case.shape, np.int64)
    attention[1, -4:] = 0
    noise = {"prompt_length": 5, "block_length": 8, "mask_token_id": MASK, "generator": random}
    names = ("noisy", "noisy_reverse", "masked", "masked_reverse")
    found |= dict(zip(names, scheduler.add_noise(array(_start(case.shape, MASK)), array(attention), **noise), strict=True))
    return found | {"shares": scheduler._transfer_schedule}


def _text(scheduler: Any, case: Case, array: Callable, generator: Callable, plain: Callable) -> dict:
    random, sample, found = generator(3), array(_start(case.shape, CLASSES)), {}
    for timestep in plain(scheduler.timesteps):
        output = array(logits(plain(sample), timestep, case.sharpness, CLASSES).astype(np.float32))
        result = scheduler.step(output, int(timestep), sample, generator=random, **case.step)
        _collect(found, result)
        sample = result.prev_sample
        if timestep + 1 < len(scheduler.timesteps):
            for _ in range(scheduler.config.get("corrector_steps", 0)):
                output = array(logits(plain(sample), timestep, case.sharpness, CLASSES).astype(np.float32))
                corrected = scheduler.step_correct(output, int(timestep), sample, generator=random)
                for name in corrected:
                    found.setdefault(f"corrected_{name}", []).append(corrected[name])
                sample = corrected.prev_sample
    return found


def _protein(scheduler: Any, case: Case, array: Callable, generator: Callable, plain: Callable) -> dict:
    randoms = [generator(3), generator(4)]
    noise, clean = np.random.default_rng(0).standard_normal((2, *case.shape)).astype(case.dtype)
    times = np.array([0.3, 0.8], case.dtype)
    found = {"noisy": scheduler.add_noise(array(clean), array(noise), array(times))}
    sample = scheduler.add_noise(array(clean), array(noise), case.timesteps.get("start_time") or 0.0)
    mask = array(np.arange(case.shape[0] * case.shape[1]).reshape(case.shape[:2]) % 4 != 3)
    samples = [plain(sample).astype(np.float32)]
    for timestep in scheduler.timesteps:
        velocity = np.sin(2.1 * plain(sample).astype(np.float64) + np.arange(noise.size).reshape(noise.shape)) + float(timestep)
        result = scheduler.step(array(velocity.astype(case.dtype)), timestep, sample, mask, generator=randoms)
        sample = result.prev_sample
        samples.append(plain(sample))
    return found | {"samples": samples}


def compare(case: Case, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Tokens and masks are the same; the largest difference of the other numbers, relative to the largest of each array.

    Raises:
        AssertionError: they are not.
    """
    assert found.keys() == expected.keys()
    worst = 0.0
    for name, values in expected.items():
        assert found[name].shape == values.shape, (case.name, name)
        if values.dtype.kind == "f":
            assert found[name].dtype == values.dtype, (case.name, name, found[name].dtype)
            finite = np.isfinite(values)
            assert np.array_equal(found[name][~finite], values[~finite], equal_nan=True), (case.name, name)
            difference = np.abs(found[name][finite].astype(np.float64) - values[finite]).max(initial=0)
            worst = max(worst, difference / np.abs(values[finite].astype(np.float64)).max(initial=1e-30))
        else:
            assert np.array_equal(found[name], values), (case.name, name, np.argwhere(found[name] != values)[:3])
    return worst


def signature(owner: Any, name: str) -> list[tuple[str, Any, Any]]:
    """The arguments of a method: names, kinds and defaults."""
    parameters = inspect.signature(getattr(owner, name)).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]
