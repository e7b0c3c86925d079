"""The samplers of discrete tokens against PyTorch diffusers' recorded runs, and on generators that PyTorch does not have."""

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from safetensors import safe_open

import mindone_diffusers
from mindone_diffusers import Generator
from mindone_diffusers.core.random import random_array
from mindone_diffusers.schedulers.tokens import categorical

from .device import unread
from .runner_discrete import CASES, MASK, Case, compare, run

REFERENCE = Path(__file__).parents[1] / "reference" / "schedulers_discrete.safetensors"
KINDS = {"numpy": np.asarray, "mindspore": ms.Tensor.from_numpy}


def plain(values):
    return values.asnumpy() if isinstance(values, ms.Tensor) else np.asarray(values)


def play(case: Case, kind: str, generator) -> dict[str, np.ndarray]:
    scheduler = getattr(mindone_diffusers, case.scheduler)(**case.config)
    with pytest.MonkeyPatch.context() as patch:
        if kind == "mindspore":
            unread(scheduler, patch)
        return run(scheduler, case, KINDS[kind], generator, plain)


def torch_like(seed):
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def reference():
    with safe_open(REFERENCE, "np") as file:
        recorded = {}
        for key in file.keys():  # noqa: SIM118
            case, name = key.split("|")
            recorded.setdefault(case, {})[name] = file.get_tensor(key)
    return recorded


def test_the_reference_is_of_these_cases(reference):
    assert sorted(reference) == sorted(case.name for case in CASES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_replay(case, kind, reference):
    found = {name: values for name, values in play(case, kind, torch_like).items() if not name.endswith("pred_logits")}
    assert compare(case, found, reference[case.name]) <= 1e-5


def test_the_cases_reach_every_branch(reference):
    """What the recorded runs contain, so that a case cannot stop testing what it is there for."""
    edited = {name for name, arrays in reference.items() if "editing_transfer_index" in arrays and arrays["editing_transfer_index"].any()}
    assert edited == {f"BlockRefinement/{name}" for name in ("editing", "editing of step", "remembered,editing", "remembered,editing=0")}
    assert reference["BlockRefinement/threshold"]["finished"][-1].all()
    assert reference["BlockRefinement/greedy"]["continues"].tolist() == [True] * 4 + [False] * 4
    assert reference["BlockRefinement/uneven"]["shares"].tolist() == [4, 4, 4, 3, 3, 3, 3]
    assert not reference["BlockRefinement/editing"]["editing_transfer_index"][:, :, :5].any()  # the prompt
    assert (reference["Amused/starting_mask_ratio=0.6"]["prev_sample"][0] == MASK).sum() < 2 * 24 * 0.6
    masks = (reference["VQDiffusion/20"]["prev_sample"] == MASK).sum(axis=(1, 2))
    assert masks[0] > 40 and masks[-1] == 0 and len(set(masks)) > 15
    accepted = reference["EntropyBound/entropy_bound of step"]["accepted_index"].sum(axis=(1, 2))
    assert accepted[0] < accepted[-1]


SHORT = [case for case in CASES if case.name in ("Amused/linear,3", "VQDiffusion/20", "BlockRefinement/remembered,temperature=0.7",
         "DiscreteDDIM/lowest_log_margin", "EntropyBound/default", "RFD4Proteina/power,tan")]  # fmt: skip


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.scheduler)
@pytest.mark.parametrize("make", [np.random.default_rng, lambda seed: Generator("cuda").manual_seed(seed)], ids=["numpy", "cuda"])
def test_other_generators(case, make):
    """The same seed gives the same run, on both kinds of arrays, and another seed another."""
    first, again, tensors = play(case, "numpy", make), play(case, "numpy", make), play(case, "mindspore", make)
    assert compare(case, again, first) == 0 and compare(case, tensors, first) <= 1e-5
    other = play(case, "numpy", lambda seed: make(seed + 1))
    name = "samples" if "samples" in first else "prev_sample"
    assert not np.array_equal(other[name], first[name])


@pytest.mark.parametrize("name", sorted({case.scheduler for case in CASES} - {"RFD4ProteinaScheduler"}))
def test_without_a_generator(name):
    case = next(case for case in CASES if case.scheduler == name)
    scheduler = getattr(mindone_diffusers, name)(**case.config)
    scheduler.set_timesteps(3)
    logits = np.zeros((2, 5, 11) if name != "VQDiffusionScheduler" else (2, 10, 5), np.float32)
    options = {"temperature": 1.0} if name in ("BlockRefinementScheduler", "DiscreteDDIMScheduler") else {}
    sample = np.full((2, 5), MASK)
    drawn = [scheduler.step(logits, 0, sample, **options).prev_sample for _ in range(20)]
    assert any(not np.array_equal(one, drawn[0]) for one in drawn)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_tokens_keep_their_dtype(dtype):
    for case in SHORT[:-1]:
        for array in KINDS.values():
            scheduler = getattr(mindone_diffusers, case.scheduler)(**case.config)
            scheduler.set_timesteps(4)
            sample = array(np.full((1, 6), MASK, dtype))
            logits = array(np.zeros((1, 10, 6) if "VQ" in case.scheduler else (1, 6, 10), np.float32))
            assert scheduler.step(logits, 2, sample, return_dict=False)[0].dtype == sample.dtype


def test_outputs_and_tuples_agree():
    for case in SHORT[:-1]:
        results = []
        for return_dict in (True, False):
            scheduler = getattr(mindone_diffusers, case.scheduler)(**case.config)
            scheduler.set_timesteps(4)
            logits = np.sin(np.arange(60, dtype=np.float32)).reshape((1, 10, 6) if "VQ" in case.scheduler else (1, 6, 10))
            results.append(scheduler.step(logits, 2, np.full((1, 6), MASK), generator=torch_like(0), return_dict=return_dict))
        module = sys.modules[getattr(mindone_diffusers, case.scheduler).__module__]
        assert type(results[0]) is getattr(module, f"{case.scheduler}Output") and type(results[1]) is tuple
        assert all(np.array_equal(a, b) for a, b in zip(results[0].to_tuple(), results[1], strict=True))


@pytest.mark.parametrize("make", [torch_like, lambda seed: Generator("cuda").manual_seed(seed), np.random.default_rng])
def test_classes_are_drawn_as_often_as_they_are_probable(make):
    probabilities = np.broadcast_to(np.float32([0.5, 0.3, 0.15, 0.05, 0]), (40_000, 5)).copy()
    counts = np.bincount(categorical(probabilities, make(0)), minlength=5) / 40_000
    np.testing.assert_allclose(counts, probabilities[0], atol=0.01)
    assert counts[4] == 0


def test_entropy_bound_accepts_by_the_bound():
    """Positions of entropies 0.1, 0.2, 0.3, ...: those before a position sum up to 0, 0.1, 0.3, 0.6, 1.0, ..."""
    from scipy.optimize import brentq

    def entropy(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    probabilities = np.array([brentq(lambda p, e=e: entropy(p) - e, 1e-9, 0.5) for e in (0.3, 0.1, 0.4, 0.2, 0.5)])
    scheduler = mindone_diffusers.EntropyBoundScheduler(t_max=1.0, t_min=1.0)
    logits = np.log(np.stack([probabilities, 1 - probabilities], -1))[None].astype(np.float32)
    for bound, accepted in ((0.05, [1]), (0.15, [1, 3]), (0.35, [0, 1, 3]), (0.65, [0, 1, 2, 3]), (1.05, [0, 1, 2, 3, 4])):
        result = scheduler.step(logits, 0, np.zeros((1, 5), np.int64), entropy_bound=bound)
        assert np.flatnonzero(result.accepted_index[0]).tolist() == accepted


def test_discrete_ddim_ends_with_the_predicted_tokens():
    scheduler = mindone_diffusers.DiscreteDDIMScheduler()
    scheduler.set_timesteps(5)
    logits = np.random.default_rng(0).standard_normal((2, 7, 9)).astype(np.float32)
    assert np.array_equal(scheduler.step(logits, 4, np.zeros((2, 7), np.int64)).prev_sample, logits.argmax(-1))


def test_a_corrector_sweep_keeps_the_distribution():
    """Gibbs sampling, position after position, of two tokens whose clean distribution the model knows: arXiv 2605.22765."""
    steps, classes, draws = 4, 3, 60_000
    clean = np.random.default_rng(0).dirichlet(np.ones(classes * classes)).reshape(classes, classes)
    scheduler = mindone_diffusers.DiscreteDDIMScheduler(corrector_k=1, corrector_selection="random")
    scheduler.set_timesteps(steps)
    alpha = 2 / steps
    kernel = alpha * np.eye(classes) + (1 - alpha) / classes  # from clean to noisy
    noisy = kernel @ clean @ kernel
    random = np.random.default_rng(1)
    sample = np.stack(np.divmod(random.choice(classes * classes, draws, p=noisy.reshape(-1)), classes), -1)

    def posterior(tokens):
        """Of each clean token, given both noisy ones: what a perfect denoiser predicts."""
        joint = clean[None] * kernel[tokens[:, 0]][:, :, None] * kernel[tokens[:, 1]][:, None]
        return np.stack([joint.sum(2), joint.sum(1)], 1) / joint.sum((1, 2))[:, None, None]

    for _ in range(3):
        sample = scheduler.step_correct(np.log(posterior(sample)), 1, sample, generator=random).prev_sample
    found = np.bincount(sample @ [classes, 1], minlength=classes * classes).reshape(classes, classes) / draws
    np.testing.assert_allclose(found, noisy, atol=0.01)


def test_vq_posterior_is_bayes():
    """Equation 11 by summing over explicit matrices."""
    classes, t = 5, 3
    scheduler = mindone_diffusers.VQDiffusionScheduler(classes, num_train_timesteps=8, alpha_cum_end=0.1, gamma_cum_end=0.8)
    prior = np.random.default_rng(0).dirichlet(np.ones(classes - 1), 2)

    def matrix(a, b, c):
        """Of moving from a column's class to a row's."""
        result = np.zeros((classes, classes))
        result[:-1, :-1] = np.exp(b) + np.exp(a) * np.eye(classes - 1)
        result[-1, :-1], result[-1, -1] = np.exp(c), 1
        return result

    tables = (scheduler.log_cumprod_at, scheduler.log_cumprod_bt, scheduler.log_cumprod_ct)
    before, until = (matrix(*(float(table[s]) for table in tables)) for s in (t - 1, t))
    step = matrix(*(float(table[t]) for table in (scheduler.log_at, scheduler.log_bt, scheduler.log_ct)))
    np.testing.assert_allclose(step @ before, until, atol=1e-6)
    for token in range(classes):
        found = np.exp(scheduler.q_posterior(np.log(prior)[:, :, None].astype(np.float32), np.full((2, 1), token), t))[..., 0]
        expected = [(step[token][:, None] * before[:, :-1] / until[token, :-1] * p).sum(1) for p in prior]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_draws_do_not_depend_on_the_arrays_kind():
    numbers = random_array("exponential", (3, 4), np.random.default_rng(0))
    assert np.array_equal(numbers, np.random.default_rng(0).standard_exponential((3, 4)).astype(np.float32))
    probabilities = np.random.default_rng(1).dirichlet(np.ones(50), (4, 30)).astype(np.float32)
    found = [plain(categorical(array(probabilities), torch_like(0))) for array in KINDS.values()]
    assert np.array_equal(*found)
