"""What the samplers of discrete tokens refuse, and what they say."""

import numpy as np
import pytest

from mindone_diffusers import (
    AmusedScheduler,
    BlockRefinementScheduler,
    DiscreteDDIMScheduler,
    EntropyBoundScheduler,
    RFD4ProteinaScheduler,
)

LOGITS, TOKENS = np.zeros((1, 4, 6), np.float32), np.zeros((1, 4), np.int64)
STATE, MASK = np.zeros((2, 4, 3), np.float32), np.ones((2, 4), bool)
PROTEIN = {"schedule_mode": "power", "noise_mode": "tan", "tsr_k": 2.0, "tsr_sigma": 1.0}


def started(scheduler, *arguments, **options):
    scheduler.set_timesteps(*arguments, **options)
    return scheduler


def protein(**options):
    return started(RFD4ProteinaScheduler(**{**PROTEIN, "tail_steps": 0, **options}), 5)


REFUSED = {
    "amused, not started": (lambda: AmusedScheduler(5).step(LOGITS, 3, TOKENS), "call `set_timesteps` before"),
    "amused, noise, not started": (lambda: AmusedScheduler(5).add_noise(TOKENS, 3), "call `set_timesteps` before"),
    "amused, timestep": (lambda: started(AmusedScheduler(5), 3).step(LOGITS, 3, TOKENS), r"timestep 3 is not in the schedule \[2 1 0\]"),
    "amused, schedule": (
        lambda: started(AmusedScheduler(5, masking_schedule="square"), 3).step(LOGITS, 1, TOKENS),
        "masking_schedule is 'square'; expected one of cosine, linear",
    ),
    "block, steps": (lambda: BlockRefinementScheduler().set_timesteps(0), "num_inference_steps is 0; expected 1 or more"),
    "block, length": (lambda: BlockRefinementScheduler().set_timesteps(3, block_length=0), "block_length is 0; expected 1 or more"),
    "block, temperature": (lambda: BlockRefinementScheduler().step(LOGITS, 0, TOKENS, temperature=-1.0), "temperature is -1.0; expected 0"),
    "block, top_p": (lambda: BlockRefinementScheduler().step(LOGITS, 0, TOKENS, temperature=1.0, top_p=0.0), "top_p is 0.0; expected more"),
    "ddim, steps": (lambda: DiscreteDDIMScheduler().set_timesteps(-2), "num_inference_steps is -2; expected 1 or more"),
    "ddim, temperature": (lambda: DiscreteDDIMScheduler().step(LOGITS, 0, TOKENS, temperature=-0.1), "temperature is -0.1"),
    "ddim, selection": (
        lambda: DiscreteDDIMScheduler(corrector_selection="best").step_correct(LOGITS, 0, TOKENS),
        "corrector_selection is 'best'; expected 'lowest_log_margin'",
    ),
    "ddim, last step": (lambda: started(DiscreteDDIMScheduler(), 4).step_correct(LOGITS, 3, TOKENS), "after the last of 4 steps"),
    "entropy, steps": (lambda: EntropyBoundScheduler().set_timesteps(0), "num_inference_steps is 0"),
    "protein, schedule": (
        lambda: RFD4ProteinaScheduler(**{**PROTEIN, "schedule_mode": "root"}),
        "schedule_mode is 'root'; expected",
    ),
    "protein, noise": (lambda: RFD4ProteinaScheduler(**{**PROTEIN, "noise_mode": "t"}), "noise_mode is 't'; expected one of 1/t, tan"),
    "protein, no steps": (lambda: protein().set_timesteps(0), "num_inference_steps is 0; expected a positive integer"),
    "protein, steps of another type": (lambda: protein().set_timesteps(5.0), "num_inference_steps is 5.0; expected a positive integer"),
    "protein, start": (lambda: protein().set_timesteps(5, start_time=1.0), "start_time is 1.0; expected 0 or more and less than 1"),
    "protein, tail": (lambda: RFD4ProteinaScheduler(**PROTEIN).set_timesteps(19), "19 steps are too few for a tail of 10 x 2"),
    "protein, tail step": (lambda: protein(tail_steps=2, tail_step_multiplier=1), "tail_step_multiplier is 1; expected an integer from 2"),
    "protein, not started": (lambda: RFD4ProteinaScheduler(**PROTEIN).step(STATE, 0, STATE, MASK), "call `set_timesteps` before"),
    "protein, timestep": (lambda: protein().step(STATE, 0.5, STATE, MASK), "timestep is 0.5; expected the next"),
    "protein, one generator": (
        lambda: (s := protein()).step(STATE, s.timesteps[0], STATE, MASK, generator=np.random.default_rng(0)),
        "expected 2 different ones",
    ),
    "protein, the same generator": (
        lambda: (s := protein()).step(STATE, s.timesteps[0], STATE, MASK, generator=[np.random.default_rng(0)] * 2),
        "expected 2 different ones",
    ),
    "protein, times": (lambda: protein().add_noise(STATE, STATE, [0.1, 1.0]), "expected one or 2, 0 or more and less than 1"),
    "protein, number of times": (lambda: protein().add_noise(STATE, STATE, [0.1, 0.2, 0.3]), "expected one or 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_finished_run():
    scheduler = protein()
    for timestep in scheduler.timesteps:
        scheduler.step(STATE, timestep, STATE, MASK)
    assert scheduler.step_index == 5
    with pytest.raises(ValueError, match="all steps were made"):
        scheduler.step(STATE, scheduler.timesteps[-1], STATE, MASK)


def test_unknown_arguments():
    for scheduler in (BlockRefinementScheduler(), DiscreteDDIMScheduler(), EntropyBoundScheduler()):
        with pytest.raises(TypeError, match="eta"):
            scheduler.step(LOGITS, 0, TOKENS, eta=1.0)
