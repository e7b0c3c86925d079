"""Schedulers side by side with PyTorch diffusers: whole loops over every option, tables, signatures, noise, files, errors."""

import dataclasses
import importlib
import inspect
import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindone_diffusers  # noqa: E402
from mindone_diffusers import Generator  # noqa: E402
from mindone_diffusers.schedulers import KarrasDiffusionSchedulers  # noqa: E402
from tests.schedulers.cases import CASES  # noqa: E402
from tests.schedulers.runner import SD, TRAINED_BETAS, ZERO_SNR, Case, compare, run, smooth_noise  # noqa: E402

CLASSES = sorted({case.scheduler for case in CASES})
# Those that are exchanged for each other in Stable Diffusion pipelines: they also take one another's configs and calls.
# All but EDM's have betas.
KARRAS = [name for name in CLASSES if name in KarrasDiffusionSchedulers.__members__ and name != "EDMEulerScheduler"]
# Those whose constructor already calls `set_timesteps`.
SET_UP = (
    "DPMSolverSDEScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
)
SHAPE = (3, 2, 4, 4)


def pair(name: str, **config):
    return getattr(mindone_diffusers.schedulers, name)(**config), getattr(diffusers.schedulers, name)(**config)


def run_torch(case: Case) -> dict[str, np.ndarray]:
    scheduler = getattr(diffusers.schedulers, case.scheduler)(**case.config)
    return run(scheduler, case, torch.from_numpy, torch.Generator().manual_seed(3), lambda tensor: tensor.numpy())


@pytest.fixture(autouse=True, scope="module")
def quiet():
    diffusers.utils.logging.set_verbosity_error()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loop_numpy(case: Case) -> None:
    ours = run(getattr(mindone_diffusers.schedulers, case.scheduler)(**case.config), case, np.asarray, Generator().manual_seed(3))
    compare(ours, run_torch(case))


@pytest.mark.parametrize("case", CASES[::7], ids=lambda case: case.name)
def test_loop_mindspore(case: Case) -> None:
    scheduler = getattr(mindone_diffusers.schedulers, case.scheduler)(**case.config)
    ours = run(scheduler, case, ms.Tensor, Generator().manual_seed(3), lambda x: x.asnumpy() if isinstance(x, ms.Tensor) else x)
    compare(ours, run_torch(case))


# ---- interface


@pytest.mark.parametrize("name", CLASSES)
def test_signatures(name: str) -> None:
    ours, theirs = getattr(mindone_diffusers.schedulers, name), getattr(diffusers.schedulers, name)
    for method in ("__init__", "set_timesteps", "step", "scale_model_input", "add_noise", "set_begin_index", "index_for_timestep"):
        if not hasattr(theirs, method):
            continue
        got, expected = (inspect.signature(getattr(owner, method)).parameters for owner in (ours, theirs))
        expected = {k: p for k, p in expected.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        assert list(got)[: len(expected)] == list(expected), method
        assert {k: got[k].default for k in expected} == {k: p.default for k, p in expected.items()} or method == "scale_model_input"
    assert ours.order == getattr(theirs, "order", 1) and sorted(ours._compatibles) == sorted(theirs._compatibles)
    assert [name for name in dir(theirs) if not name.startswith("_") and not hasattr(ours, name)] == []
    assert ours.__module__ == f"mindone_{theirs.__module__}"


def test_shared_names() -> None:
    from diffusers.schedulers import AysSchedules, KarrasDiffusionSchedulers

    from mindone_diffusers import schedulers

    assert schedulers.AysSchedules == AysSchedules
    assert [(s.name, s.value) for s in schedulers.KarrasDiffusionSchedulers] == [(s.name, s.value) for s in KarrasDiffusionSchedulers]


def test_exports() -> None:
    """Every scheduler and output of upstream's is here, under the same path, with the same fields."""
    folder = Path(diffusers.schedulers.__file__).parent
    for path in sorted(folder.rglob("scheduling_*.py")):
        name = ".".join(("diffusers.schedulers", *path.relative_to(folder).with_suffix("").parts))
        if name.endswith("_flax"):
            continue
        theirs, ours = importlib.import_module(name), importlib.import_module(f"mindone_{name}")
        for kind in (value for value in vars(theirs).values() if getattr(value, "__module__", None) == name and inspect.isclass(value)):
            if kind.__name__.endswith("Scheduler"):
                assert hasattr(mindone_diffusers, kind.__name__) == hasattr(diffusers, kind.__name__), kind
                assert hasattr(mindone_diffusers.schedulers, kind.__name__) or "deprecated" in name, kind
            if kind.__name__.endswith("Output"):
                fields = [[field.name for field in dataclasses.fields(owner)] for owner in (getattr(ours, kind.__name__), kind)]
                assert sorted(fields[0]) == sorted(fields[1]) and fields[0][0] == "prev_sample", kind


TABLES = [{}, SD, {"beta_schedule": "squaredcos_cap_v2"}, {"trained_betas": TRAINED_BETAS, "num_train_timesteps": 100}]


@pytest.mark.parametrize("config", TABLES)
@pytest.mark.parametrize("name", KARRAS)
def test_tables_before_set_timesteps(name: str, config: dict) -> None:
    ours, theirs = pair(name, **config)
    for table in ("betas", "alphas", "alphas_cumprod"):  # to the last bit: sums and products only
        np.testing.assert_array_equal(getattr(ours, table), getattr(theirs, table).numpy())
    for table in ("sigmas", "timesteps", "alpha_t", "sigma_t", "lambda_t"):
        expected = getattr(theirs, table, None)
        if expected is not None:
            assert getattr(ours, table).dtype == expected.numpy().dtype
            # Timesteps between others are interpolated in logarithms, whose last bit is some 3e-5 of a timestep.
            between = table == "timesteps" and name in SET_UP
            np.testing.assert_allclose(getattr(ours, table), expected.numpy(), rtol=3e-7, atol=1e-4 if between else 1e-6)
    np.testing.assert_allclose(ours.init_noise_sigma, float(theirs.init_noise_sigma), rtol=3e-7)
    assert len(ours) == len(theirs) and ours.num_inference_steps == theirs.num_inference_steps


def test_exp_and_other_betas() -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler, betas_for_alpha_bar

    from mindone_diffusers.schedulers import tables

    for kind in ("cosine", "exp", "laplace"):
        np.testing.assert_allclose(
            tables.betas_for_alpha_bar(1000, alpha_transform_type=kind),
            betas_for_alpha_bar(1000, alpha_transform_type=kind).numpy(),
            rtol=1e-6,
            atol=1e-9,
        )
    ours = tables.make_betas("sigmoid", 1e-4, 0.02, 1000, None, ("sigmoid",))
    np.testing.assert_allclose(ours, DDPMScheduler(beta_schedule="sigmoid").betas.numpy(), rtol=1e-5)


def test_zero_terminal_snr() -> None:
    ours, theirs = pair("DDIMScheduler", **ZERO_SNR)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=3e-5, atol=1e-12)
    assert ours.alphas_cumprod[-1] == 0


# ---- forward process


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.standard_normal(SHAPE).astype(np.float32), random.standard_normal(SHAPE).astype(np.float32)


@pytest.mark.parametrize("kind", [np.asarray, ms.Tensor])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("name", KARRAS)
def test_add_noise_per_sample(name: str, started: bool, kind) -> None:
    ours, theirs = pair(name, **SD)
    if started:
        ours.set_timesteps(10)
        theirs.set_timesteps(10)
        timesteps = theirs.timesteps[[1, 4, 8]]
    else:
        timesteps = torch.tensor([999, 500, 3])
    sample, noise = arrays()
    expected = theirs.add_noise(torch.from_numpy(sample), torch.from_numpy(noise), timesteps).numpy()
    given = [timesteps.numpy(), timesteps.tolist(), ms.Tensor(timesteps.numpy())]
    for value in given:
        got = ours.add_noise(kind(sample), kind(noise), value)
        assert isinstance(got, type(kind(sample)))
        np.testing.assert_allclose(np.asarray(got.asnumpy() if kind is ms.Tensor else got), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_get_velocity(name: str) -> None:
    ours, theirs = pair(name, **SD)
    sample, noise = arrays()
    timesteps = torch.tensor([999.0, 500.0, 3.0]) if name.startswith("Euler") else torch.tensor([999, 500, 3])
    expected = theirs.get_velocity(torch.from_numpy(sample), torch.from_numpy(noise), timesteps).numpy()
    np.testing.assert_allclose(ours.get_velocity(sample, noise, timesteps.numpy()), expected, rtol=1e-6, atol=1e-6)
    got = ours.get_velocity(ms.Tensor(sample), ms.Tensor(noise), ms.Tensor(timesteps.numpy())).asnumpy()
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in KARRAS if name not in ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")])
def test_add_noise_while_running(name: str) -> None:
    """Inpainting: after a step with a begin index, noise is of the current step's level whatever the timestep."""
    sample, noise = arrays()
    results = []
    for scheduler, kind in zip(pair(name, **SD), (np.asarray, torch.from_numpy)):
        scheduler.set_timesteps(10)
        scheduler.set_begin_index(4)
        x = kind(sample)
        first = scheduler.add_noise(x, kind(noise), scheduler.timesteps[:1])
        for timestep in scheduler.timesteps[4:7]:
            scheduler.scale_model_input(x, timestep)
            x = scheduler.step(kind(noise), timestep, x, return_dict=False)[0]
        results.append((np.asarray(first), np.asarray(scheduler.add_noise(kind(sample), kind(noise), scheduler.timesteps[:1]))))
        assert scheduler.step_index == 7 and scheduler.begin_index == 4
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


# Not of the solver of the SDE: its first and second place are a step's start and middle, and PyTorch's step from a middle is NaN.
@pytest.mark.parametrize("name", [name for name in KARRAS if name != "DPMSolverSDEScheduler"])
def test_first_timestep_that_is_there_twice(name: str) -> None:
    """Without a begin index, a loop that starts midway takes the second place of its timestep."""
    sample, noise = arrays()
    results = []
    for scheduler, kind in zip(pair(name, **SD), (np.asarray, torch.from_numpy)):
        scheduler.set_timesteps(6)
        timesteps = scheduler.timesteps[3:5]
        x = kind(sample)
        if name == "PNDMScheduler":
            scheduler.ets = [x, x, x]
            scheduler.counter = 20
        generator = Generator() if kind is np.asarray else torch.Generator()
        for timestep in timesteps:
            scaled = scheduler.scale_model_input(x, timestep)
            extra = {"generator": generator.manual_seed(1)} if "generator" in inspect.signature(scheduler.step).parameters else {}
            x = scheduler.step(kind(np.sin(np.asarray(scaled))), timestep, x, **extra).prev_sample
        results.append((getattr(scheduler, "step_index", None), np.asarray(x)))
    assert results[0][0] == results[1][0]
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=2e-6, atol=2e-6)


# ---- half precision


@pytest.mark.parametrize("name", KARRAS)
def test_float16(name: str) -> None:
    """Dtypes are upstream's at every step, and values agree to half precision."""
    sample = arrays()[0].astype(np.float16)
    scheduler_np, scheduler_torch = pair(name, **SD)
    scheduler_ms = getattr(mindone_diffusers.schedulers, name)(**SD)
    for scheduler in (scheduler_np, scheduler_torch, scheduler_ms):
        scheduler.set_timesteps(6)
    for scheduler, kind in ((scheduler_np, np.asarray), (scheduler_torch, torch.from_numpy), (scheduler_ms, ms.Tensor)):
        if hasattr(scheduler, "noise_sampler"):
            scheduler.noise_sampler = lambda *sigmas, kind=kind: kind(smooth_noise(SHAPE, *map(float, sigmas)).astype(np.float16))
    x_np, x_torch, x_ms = sample, torch.from_numpy(sample), ms.Tensor(sample)
    for timestep_torch, timestep in zip(scheduler_torch.timesteps, scheduler_np.timesteps):

        def extra(generator, timestep=timestep):
            seeded = generator.manual_seed(int(timestep))
            return {"generator": seeded} if "generator" in inspect.signature(scheduler_np.step).parameters else {}

        output = np.sin(x_torch.float().numpy()).astype(np.float16)
        for scheduler, x in ((scheduler_np, x_np), (scheduler_ms, x_ms)):
            scheduler.scale_model_input(x, timestep)
        scheduler_torch.scale_model_input(x_torch, timestep_torch)
        out_np = scheduler_np.step(output, timestep, x_np, **extra(Generator()))
        out_ms = scheduler_ms.step(ms.Tensor(output), timestep, x_ms, **extra(Generator()))
        out_torch = scheduler_torch.step(torch.from_numpy(output), timestep_torch, x_torch, **extra(torch.Generator()))
        for key, expected in out_torch.items():
            dtype = str(expected.dtype).removeprefix("torch.")
            assert str(out_np[key].dtype) == dtype and str(out_ms[key].dtype).lower() == dtype, key
            limit = 8e-3 * max(1.0, float(expected.abs().max()))
            assert np.abs(out_np[key].astype(np.float32) - expected.float().numpy()).max() < limit, key
            assert np.abs(out_ms[key].astype("float32").asnumpy() - expected.float().numpy()).max() < limit, key
        x_torch = out_torch.prev_sample
        x_np, x_ms = x_torch.numpy(), ms.Tensor(x_torch.numpy())


# ---- files


@pytest.mark.parametrize("name", KARRAS)
def test_files_both_ways(name: str, tmp_path) -> None:
    config = {**SD, "num_train_timesteps": 500, "trained_betas": None}
    ours, theirs = pair(name, **config)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs" / "scheduler")
    written = [json.loads((tmp_path / part / "scheduler_config.json").read_text()) for part in ("ours", "theirs/scheduler")]
    assert written[0] == written[1]
    back = getattr(mindone_diffusers.schedulers, name).from_pretrained(tmp_path / "theirs", subfolder="scheduler")
    forth = getattr(diffusers.schedulers, name).from_pretrained(tmp_path / "ours")
    public = [{k: v for k, v in scheduler.config.items() if k[0] != "_"} for scheduler in (ours, theirs, back, forth)]
    assert all(config == public[0] for config in public)
    back.set_timesteps(10)
    forth.set_timesteps(10)
    np.testing.assert_allclose(back.timesteps, forth.timesteps.numpy(), rtol=3e-7, atol=1e-4 if name in SET_UP else 0)


@pytest.mark.parametrize("source", KARRAS)
@pytest.mark.parametrize("target", KARRAS)
def test_from_config_of_another_class(source: str, target: str) -> None:
    config = {**SD, "timestep_spacing": "leading", "steps_offset": 1, "prediction_type": "v_prediction"}
    taken = inspect.signature(getattr(diffusers.schedulers, source).__init__).parameters
    ours, theirs = pair(source, **{name: value for name, value in config.items() if name in taken})
    ours = getattr(mindone_diffusers.schedulers, target).from_config(ours.config)
    theirs = getattr(diffusers.schedulers, target).from_config(theirs.config)
    public = [{k: v for k, v in scheduler.config.items() if k[0] != "_"} for scheduler in (ours, theirs)]
    assert public[0] == public[1]


# ---- errors under the same conditions

GRIDS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
BAD_CONFIGS = [
    *((name, {"beta_schedule": "nonsense"}) for name in KARRAS),
    *((name, {GRIDS[0]: True, GRIDS[1]: True}) for name in KARRAS if name[:3] in ("LMS", "Heu", "DPM", "KDP") or name.startswith("EulerD")),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "nonsense"}),
    ("DPMSolverMultistepScheduler", {"solver_type": "nonsense"}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}),
]
EULER, DPM, SINGLE = "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
BAD_CALLS = [
    *((name, {"timestep_spacing": "nonsense"}, {"num_inference_steps": 5}) for name in KARRAS if name not in (*SET_UP, SINGLE)),
    ("DDIMScheduler", {}, {"num_inference_steps": 1001}),
    ("PNDMScheduler", {}, {"num_inference_steps": 3}),
    *((name, {}, {}) for name in (EULER, DPM, "HeunDiscreteScheduler")),
    *((name, {}, {"num_inference_steps": 3, "timesteps": [9, 5, 1]}) for name in (EULER, DPM, "HeunDiscreteScheduler")),
    *((name, {grid: True}, {"timesteps": [9, 5, 1]}) for name in (EULER, DPM, "HeunDiscreteScheduler") for grid in GRIDS),
    (EULER, {}, {"timesteps": [9, 5, 1], "sigmas": [3.0, 1.0, 0.0]}),
    (EULER, {}, {"num_inference_steps": 2, "sigmas": [3.0, 1.0, 0.0]}),
    (EULER, {"timestep_type": "continuous", "prediction_type": "v_prediction"}, {"timesteps": [9, 5, 1]}),
    (EULER, {"interpolation_type": "nonsense"}, {"num_inference_steps": 5}),
    *((name, {"final_sigmas_type": "nonsense"}, {"num_inference_steps": 5}) for name in (EULER, DPM)),
    (DPM, {"use_lu_lambdas": True}, {"timesteps": [9, 5, 1]}),
    (DPM, {}, {"num_inference_steps": 5, "mu": 1.0}),
]


@pytest.mark.parametrize("name, config", BAD_CONFIGS)
def test_refused_by_both_constructors(name: str, config: dict) -> None:
    with pytest.raises(Exception) as theirs:
        getattr(diffusers.schedulers, name)(**config)
    with pytest.raises(theirs.type):
        getattr(mindone_diffusers.schedulers, name)(**config)


@pytest.mark.parametrize("name, config, arguments", BAD_CALLS)
def test_refused_by_both_set_timesteps(name: str, config: dict, arguments: dict) -> None:
    ours, theirs = pair(name, **config)
    with pytest.raises((ValueError, AssertionError)):
        theirs.set_timesteps(**arguments)
    with pytest.raises(ValueError):
        ours.set_timesteps(**arguments)


@pytest.mark.parametrize("name", KARRAS)
def test_refused_by_both_steps(name: str) -> None:
    x = np.zeros(SHAPE, np.float32)

    def step(owner, kind, config, started=True, **kwargs):
        scheduler = getattr(owner, name)(**config)
        if started:
            scheduler.set_timesteps(5)
        timestep = kwargs.pop("timestep", None)
        timestep = (scheduler.timesteps[0] if started else 3) if timestep is None else timestep
        return scheduler.step(kind(x), timestep, kind(x), **kwargs)

    bad = [({"prediction_type": "nonsense"}, {})]
    if name.startswith(("DDIM", "DPM")) and name not in SET_UP:
        bad += [({}, {"started": False})]
    if name.startswith("DDIM"):
        bad += [({}, {"eta": 1.0, "generator": torch.Generator(), "variance_noise": x})]
    if name.startswith("Euler"):
        bad += [({}, {"timestep": 3})]
    if name.startswith("Euler") or name in SET_UP:
        bad += [({}, {"timestep": 3.7})]
    if name.startswith(("EulerAncestral", "KDPM2")) or name == "DPMSolverSDEScheduler":
        bad += [({"prediction_type": "sample"}, {})]
    for config, kwargs in bad:
        with pytest.raises(Exception) as theirs:
            step(diffusers, torch.from_numpy, config, **dict(kwargs))
        with pytest.raises(theirs.type):
            step(mindone_diffusers, np.asarray, config, **dict(kwargs))
