"""What schedulers cost beside the model: `set_timesteps(50)` and its steps on 2x4x64x64 latents, next to PyTorch diffusers' on the CPU.

    python tools/benchmarks/schedulers.py [--repeats 9] [--only Euler] [--threads 1]

Our schedulers on MindSpore tensors, on NumPy arrays, and PyTorch's take turns in one process; a row has the shortest of the whole loops
in milliseconds of the process's CPU time, which other processes disturb little, and the ratios to PyTorch's. Ours use one thread, so
PyTorch gets one. NumPy's column less the arithmetic shows what our Python costs, MindSpore's less NumPy's what turning tensors into
arrays and back costs. Models are left out: each step is given the same output. Noise is drawn by seeded `Generator`s, the same numbers
on all sides. Samplers of tokens get blocks of 64 of 1000 classes.
"""

import argparse
import functools
import gc
import inspect
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import diffusers  # noqa: E402
import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import alternate  # noqa: E402

import mindone_diffusers.schedulers  # noqa: E402

LATENT, PROTEIN = (2, 4, 64, 64), (2, 64, 256)
TOKENS, CLASSES = (2, 64), 1000
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# What a class cannot be built or begun without.
CONFIGS = {
    "AmusedScheduler": {"mask_token_id": CLASSES - 1},
    "RFD4ProteinaScheduler": {"schedule_mode": "power", "noise_mode": "tan", "tsr_k": 2.0, "tsr_sigma": 1.0},
    "VQDiffusionScheduler": {"num_vec_classes": CLASSES},
}
TIMESTEPS = {
    "ConsistencyDecoderScheduler": {"num_inference_steps": 2},
    "CMStochasticIterativeScheduler": {"num_inference_steps": 40},
    "HeliosScheduler": {"num_inference_steps": 50, "stage_index": 0},
    "HeliosDMDScheduler": {"num_inference_steps": 50, "stage_index": 0},
    "RePaintScheduler": {"num_inference_steps": 50, "jump_n_sample": 1},
    "SCMScheduler": {"num_inference_steps": 50, "intermediate_timesteps": None},
    "VQDiffusionScheduler": {"num_inference_steps": 10},
}
LOGITS = {
    "AmusedScheduler": (*TOKENS, CLASSES),
    "BlockRefinementScheduler": (*TOKENS, CLASSES),
    "DiscreteDDIMScheduler": (*TOKENS, CLASSES),
    "EntropyBoundScheduler": (*TOKENS, CLASSES),
    "VQDiffusionScheduler": (TOKENS[0], CLASSES - 1, TOKENS[1]),
}


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def predictor_corrector(s: Any, output: Any, sample: Any, generator: Any) -> Any:
    """ScoreSdeVeScheduler's loop."""
    for t in s.timesteps:
        sample = s.step_correct(output, sample, generator=generator).prev_sample
        sample = s.step_pred(output, t, sample, generator=generator).prev_sample
    return sample


def churned(s: Any, output: Any, sample: Any, generator: Any) -> Any:
    """KarrasVeScheduler's loop."""
    for t in s.timesteps[:-1]:
        sigma, sigma_prev = s.schedule[t], s.schedule[t - 1]
        hat, sigma_hat = s.add_noise_to_input(sample, sigma, generator=generator)
        result = s.step(output, sigma_hat, sigma_prev, hat)
        sample = s.step_correct(output, sigma_hat, sigma_prev, hat, result.prev_sample, result.derivative).prev_sample
    return sample


def predictor(s: Any, output: Any, sample: Any, generator: Any) -> Any:
    """ScoreSdeVpScheduler's loop; PyTorch's draws its noise without a generator."""
    for t in s.timesteps:
        sample = s.step_pred(output, sample, t)[0]
    return sample


@functools.cache
def arguments_of_step(scheduler: type) -> frozenset[str]:
    return frozenset(inspect.signature(scheduler.step).parameters)


def steps(s: Any, output: Any, sample: Any, generator: Any) -> Any:
    """The usual loop, with whatever else a class's steps have to be given."""
    name, timesteps = type(s).__name__, s.timesteps
    if name in ("DDPMWuerstchenScheduler", "SCMScheduler"):  # whose last timestep is the finished sample's
        timesteps = timesteps[:-1]
    taken = arguments_of_step(type(s))
    constant = {"generator": generator, "original_image": output, "dmd_noisy_tensor": output, "dmd_timesteps": s.timesteps}
    constant |= {"all_timesteps": s.timesteps, "dmd_sigmas": getattr(s, "sigmas", None)}
    if "mask" in taken:
        constant |= {"mask": 0 * output}
    if "emit_mask" in taken:
        constant |= {"emit_mask": output[..., 0] < 9}
    if name == "BlockRefinementScheduler":
        constant |= {"mask_token_id": CLASSES - 1}
    constant = {key: value for key, value in constant.items() if key in taken}
    changing = [key for key in ("cur_sampling_step", "timestep_back", "old_pred_original_sample") if key in taken]
    scale, last, original = getattr(s, "scale_model_input", None), None, None
    for index, t in enumerate(timesteps):
        if scale is not None:
            scale(sample, t)
        values = {"cur_sampling_step": index, "timestep_back": last, "old_pred_original_sample": original}
        timestep = t.reshape(1) if name == "DDPMWuerstchenScheduler" else t
        result = s.step(model_output=output, timestep=timestep, sample=sample, **constant, **{key: values[key] for key in changing})
        sample, last = result[0], t
        if changing == ["timestep_back", "old_pred_original_sample"]:
            original = result[1]
    return sample


LOOPS = {"ScoreSdeVeScheduler": predictor_corrector, "KarrasVeScheduler": churned, "ScoreSdeVpScheduler": predictor}


def inputs(scheduler: Any) -> tuple[np.ndarray, np.ndarray]:
    """The model's output, and the sample to begin with."""
    name = type(scheduler).__name__
    if name in LOGITS:
        return numbers(LOGITS[name], 1), np.full(TOKENS, CLASSES - 1)
    shape = PROTEIN if name == "RFD4ProteinaScheduler" else LATENT
    return np.tile(numbers(shape, 1), scheduler.config.get("n_grid", 1)), numbers(shape, 0)


def run(scheduler: Any, output: Any, sample: Any, generators: list) -> None:
    """Set 50 timesteps (or as many as the class takes) and step them all. There is a generator for each of two samples."""
    name = type(scheduler).__name__
    scheduler.set_timesteps(**TIMESTEPS.get(name, {"num_inference_steps": 50}))
    result = LOOPS.get(name, steps)(scheduler, output, sample, generators if name == "RFD4ProteinaScheduler" else generators[0])
    if hasattr(result, "asnumpy"):
        result.asnumpy()  # waits for the operators


def names() -> list[str]:
    """The classes that both libraries have."""
    found = [name for name in mindone_diffusers.schedulers.__all__ if name.endswith("Scheduler")]
    return [name for name in found if hasattr(diffusers.schedulers, name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's")
    parser.add_argument("--only", default="", help="part of the classes' names")
    arguments = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    mindone_diffusers.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    ratios = []
    print(f"{'milliseconds':36s} {'calls':>5s} {'MindSpore':>10s} {'NumPy':>8s} {'torch':>8s}   ratios")
    for name in names():
        if arguments.only not in name:
            continue
        config = SD if "beta_start" in inspect.signature(getattr(mindone_diffusers.schedulers, name)).parameters else CONFIGS.get(name, {})
        ours, theirs = (getattr(library.schedulers, name)(**config) for library in (mindone_diffusers, diffusers))
        arrays = inputs(ours)
        sides = {
            "MindSpore": (ours, *map(ms.Tensor, arrays), [mindone_diffusers.Generator().manual_seed(seed) for seed in range(2)]),
            "NumPy": (ours, *arrays, [mindone_diffusers.Generator().manual_seed(seed) for seed in range(2)]),
            "torch": (theirs, *map(torch.from_numpy, arrays), [torch.Generator().manual_seed(seed) for seed in range(2)]),
        }
        gc.collect()
        seconds = alternate(
            arguments.repeats, time.process_time, **{side: functools.partial(run, *values) for side, values in sides.items()}
        )
        ours_ms, numpy_ms, torch_ms = (1e3 * min(seconds[side]) for side in sides)
        row = f"{name:36s} {len(ours.timesteps):5d} {ours_ms:10.2f} {numpy_ms:8.2f} {torch_ms:8.2f}"
        ratios.append((ours_ms / torch_ms, numpy_ms / torch_ms))
        print(f"{row}   {ratios[-1][0]:5.2f} {ratios[-1][1]:5.2f}", flush=True)
    print(f"{'median':70s}   {np.median(ratios, axis=0)[0]:5.2f} {np.median(ratios, axis=0)[1]:5.2f}")


if __name__ == "__main__":
    main()
