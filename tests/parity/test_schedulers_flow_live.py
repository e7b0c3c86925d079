"""Flow-matching schedulers side by side with PyTorch diffusers: what whole loops (test_schedulers_live.py) do not reach."""

import json

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindone_diffusers  # noqa: E402
from mindone_diffusers import Generator  # noqa: E402
from mindone_diffusers.schedulers import arrays, tables  # noqa: E402
from tests.schedulers.cases_flow import CASES  # noqa: E402
from tests.schedulers.runner import Case  # noqa: E402
from tests.schedulers.test_flow import CLASSES, CONFIGS, numbers, output_for  # noqa: E402

EULER, HEUN, LCM = (f"FlowMatch{kind}Scheduler" for kind in ("EulerDiscrete", "HeunDiscrete", "LCM"))
FLOW_MAP, LTX, MINIMAX = "FlowMapEulerDiscreteScheduler", "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler"
HELIOS, PIFLOW = "HeliosDMDScheduler", "PiflowScheduler"
KINDS = {"numpy": (np.asarray, np.asarray), "mindspore": (ms.Tensor, lambda x: x.asnumpy())}


def pair(name: str, steps: int | None = None, **config):
    both = tuple(getattr(library, name)(**config) for library in (mindone_diffusers, diffusers))
    if steps is not None:
        for scheduler in both:
            scheduler.set_timesteps(steps)
    return both


@pytest.fixture(autouse=True, scope="module")
def quiet():
    diffusers.utils.logging.set_verbosity_error()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tables_to_the_last_bit(case: Case) -> None:
    """The map's are float64, where PyTorch's linspace rounds otherwise: there to float32's last bit."""
    ours, theirs = pair(case.scheduler, **case.config)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(**case.timesteps)
    for table in ("timesteps", "sigmas"):
        got, expected = getattr(ours, table), getattr(theirs, table).numpy()
        assert got.dtype == expected.dtype
        if case.scheduler == FLOW_MAP:
            got, expected = got.astype(np.float32), expected.astype(np.float32)
        np.testing.assert_array_equal(got, expected)
    assert ours.num_inference_steps == theirs.num_inference_steps


CONSTRUCTED = [
    *((name, config) for name in (EULER, LCM) for config in ({}, {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True})),
    *((HEUN, config) for config in ({}, {"shift": 3.0, "num_train_timesteps": 500})),
    *((FLOW_MAP, config) for config in ({}, {"shift": 5.0})),
    *(
        (HELIOS, config)
        for config in ({}, {"shift": 2.0, "gamma": 0.5, "num_train_timesteps": 500}, {"stages": 2, "stage_range": [0, 0.4, 1]})
    ),
]


@pytest.mark.parametrize("name, config", CONSTRUCTED)
def test_tables_before_set_timesteps(name: str, config: dict) -> None:
    ours, theirs = pair(name, **config)
    for table in ("sigmas", "timesteps"):
        expected = getattr(theirs, table).numpy()
        assert getattr(ours, table).dtype == expected.dtype
        np.testing.assert_allclose(getattr(ours, table), expected, rtol=1e-14 if expected.dtype == np.float64 else 0)
    for attribute in ("sigma_min", "sigma_max", "step_index", "begin_index"):
        if hasattr(theirs, attribute):
            assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    if name == HELIOS:
        for table in ("ori_start_sigmas", "start_sigmas", "end_sigmas", "timestep_ratios", "timesteps_per_stage", "sigmas_per_stage"):
            got, expected = getattr(ours, table), getattr(theirs, table)
            assert got.keys() == expected.keys()
            for stage in got:
                np.testing.assert_allclose(got[stage], np.asarray(expected[stage]), rtol=1e-12, atol=1e-12)
    assert len(ours) == ours.config.num_train_timesteps


@pytest.mark.parametrize("name", [EULER, LCM])
def test_shift_functions(name: str) -> None:
    t = torch.linspace(1, 0.05, 7, dtype=torch.float64)
    for kind in ("exponential", "linear"):
        ours, theirs = pair(name, time_shift_type=kind, shift_terminal=0.1)
        for mu, exponent in ((0.5, 1.0), (1.3, 2.0)):
            np.testing.assert_allclose(ours.time_shift(mu, exponent, t.numpy()), theirs.time_shift(mu, exponent, t).numpy(), rtol=1e-14)
        np.testing.assert_allclose(ours.stretch_shift_to_terminal(t.numpy()), theirs.stretch_shift_to_terminal(t).numpy(), rtol=1e-14)


# ---- noising


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [EULER, LCM, FLOW_MAP, MINIMAX])
def test_scale_noise_per_sample(name: str, kind: str) -> None:
    array, plain = KINDS[kind]
    ours, theirs = pair(name, 10, shift=3.0)
    sample, noise = numbers(0, (3, 2, 4, 4)), numbers(1, (3, 2, 4, 4))
    for timesteps in (theirs.timesteps[[1, 4, 8]], theirs.timesteps[5:6]):
        expected = theirs.scale_noise(torch.from_numpy(sample), timesteps, torch.from_numpy(noise)).numpy()
        for given in (timesteps.numpy(), timesteps.tolist(), ms.Tensor(timesteps.numpy())):
            got = plain(ours.scale_noise(array(sample), given, array(noise)))
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [EULER, HEUN, LCM])
def test_scale_noise_while_running(name: str) -> None:
    """Once a begin index is set, the level is the current step's whatever the timestep; with Heun's method always."""
    sample, noise = numbers(), numbers(1)
    results = []
    for scheduler, kind in zip(pair(name, 10), (np.asarray, torch.from_numpy)):
        extra = {} if name != LCM else {"generator": Generator().manual_seed(0) if kind is np.asarray else torch.Generator().manual_seed(0)}
        scheduler.set_begin_index(3)
        timestep = scheduler.timesteps[:1]
        noisy = [scheduler.scale_noise(kind(sample), timestep, kind(noise))]
        x = kind(sample)
        for current in scheduler.timesteps[3:6]:
            x = scheduler.step(kind(noise), current, x, **extra).prev_sample
        noisy += [scheduler.scale_noise(kind(sample), timestep, kind(noise)), x]
        assert scheduler.step_index == 6 and scheduler.begin_index == 3
        results.append([np.asarray(x) for x in noisy])
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_heun_starts_where_it_scaled_noise() -> None:
    results = []
    for scheduler, kind in zip(pair(HEUN, 6), (np.asarray, torch.from_numpy)):
        noisy = scheduler.scale_noise(kind(numbers()), scheduler.timesteps[3], kind(numbers(1)))
        results.append((scheduler.step_index, np.asarray(noisy)))
    assert results[0][0] == results[1][0] == 4
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_helios_noising(kind: str) -> None:
    array, plain = KINDS[kind]
    shape = (2, 3, 1, 2, 2)
    sample, noise = numbers(0, shape), numbers(1, shape)
    ours, theirs = pair(HELIOS)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(5, stage_index=1)
    timestep = theirs.timesteps[[3, 1]].long()
    torched = (torch.from_numpy(sample), torch.from_numpy(noise), timestep, theirs.sigmas, theirs.timesteps)
    arguments = (array(sample), array(noise), timestep.numpy(), ours.sigmas, ours.timesteps)
    for method in ("add_noise", "convert_flow_pred_to_x0"):
        expected = getattr(theirs, method)(*torched).numpy()
        np.testing.assert_allclose(plain(getattr(ours, method)(*arguments)), expected, rtol=1e-6, atol=1e-6)


# ---- steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [{}, {"stochastic_sampling": True}, {"shift": 3.0, "invert_sigmas": True}])
def test_per_token_timesteps(config: dict, kind: str) -> None:
    array, plain = KINDS[kind]
    ours, theirs = pair(EULER, 6, **config)
    sample, output = numbers(0, (2, 5, 8)), numbers(1, (2, 5, 8))
    per_token = np.random.default_rng(2).uniform(0, 1000, (2, 5)).astype(np.float32)
    per_token[0, :3] = theirs.timesteps[[0, 2, 5]].numpy()
    for given in (per_token, array(per_token)):
        for scheduler in (ours, theirs):
            scheduler.set_begin_index(0)
        expected = theirs.step(
            torch.from_numpy(output).half(),
            theirs.timesteps[0],
            torch.from_numpy(sample),
            generator=torch.Generator().manual_seed(1),
            per_token_timesteps=torch.from_numpy(per_token),
        ).prev_sample
        got = ours.step(
            array(output.astype(np.float16)),
            ours.timesteps[0],
            array(sample),
            generator=Generator().manual_seed(1),
            per_token_timesteps=given,
        ).prev_sample
        assert expected.dtype == torch.float32 and "float32" in str(got.dtype).lower()
        np.testing.assert_allclose(plain(got), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [LTX, PIFLOW])
def test_begin_index(name: str) -> None:
    results = []
    for scheduler, kind in zip(pair(name, 6), (np.asarray, torch.from_numpy)):
        scheduler.set_begin_index(2)
        x = kind(numbers())
        for timestep in scheduler.timesteps[2:]:
            generator = Generator().manual_seed(1) if kind is np.asarray else torch.Generator().manual_seed(1)
            extra = {"generator": generator} if name == LTX else {}
            output = np.tile(np.sin(np.asarray(x)), scheduler.config.get("n_grid", 1)).astype(np.float32)
            x = scheduler.step(kind(output), timestep, x, **extra).prev_sample
        results.append((scheduler.step_index, np.asarray(x)))
    assert results[0][0] == results[1][0] and len(results[0][1]) == 2
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_first_timestep_in_the_middle(name: str) -> None:
    """Without a begin index, a loop starts where its first timestep is: in its second place if it is there twice."""
    if name == HELIOS:
        pytest.skip("looks up every timestep")
    results = []
    for scheduler, kind in zip(pair(name, 6), (np.asarray, torch.from_numpy)):
        extra = {"generator": Generator().manual_seed(1) if kind is np.asarray else torch.Generator().manual_seed(1)}
        extra = extra if name in (EULER, HEUN, LCM, LTX) else {}
        output = numbers(1, (2, 2, 4, 4 * scheduler.config.get("n_grid", 1)))
        x = scheduler.step(kind(output), scheduler.timesteps[3], kind(numbers()), **extra, return_dict=False)[0]
        results.append((scheduler.step_index, np.asarray(x)))
    assert results[0][0] == results[1][0]
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=2e-6, atol=2e-6)


def test_flow_map_off_the_schedule() -> None:
    ours, theirs = pair(FLOW_MAP, 5, shift=3.0)
    x, velocity = numbers(), numbers(1)
    on = float(theirs.timesteps[2])
    for timestep, target in ((612.5, 87.5), (on, 87.5), (612.5, on), (on, on), (on, 0.0), (on, None), (on + 5e-4, None)):
        theirs_target = None if target is None else torch.tensor(target)
        expected = theirs.step(torch.from_numpy(velocity), torch.tensor(timestep), torch.from_numpy(x), theirs_target).prev_sample.numpy()
        np.testing.assert_allclose(ours.step(velocity, timestep, x, target).prev_sample, expected, rtol=1e-6, atol=1e-6)
        assert ours.index_for_timestep(timestep) == theirs.index_for_timestep(timestep)
    each = torch.tensor([612.5, 300.0])
    expected = theirs.step(torch.from_numpy(velocity), each, torch.from_numpy(x), each / 2).prev_sample.numpy()
    np.testing.assert_allclose(ours.step(velocity, each.numpy(), x, (each / 2).numpy()).prev_sample, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_half_precision(name: str) -> None:
    """Dtypes are upstream's at every step, and values agree to half precision."""
    config = CONFIGS.get(name, {})
    (scheduler_np, scheduler_torch), scheduler_ms = pair(name, 4, **config), getattr(mindone_diffusers, name)(**config)
    scheduler_ms.set_timesteps(4)
    sample = numbers(0, (2, 2, 1, 4, 4)).astype(np.float16)
    x = torch.from_numpy(sample)
    for index in range(len(scheduler_torch.timesteps)):
        output = np.tile(np.sin(x.float().numpy()), config.get("n_grid", 1)).astype(np.float16)
        results = []
        for scheduler, kind, generator in (
            (scheduler_torch, torch.from_numpy, torch.Generator()),
            (scheduler_np, np.asarray, Generator()),
            (scheduler_ms, ms.Tensor, Generator()),
        ):
            extra = {"generator": generator.manual_seed(1)} if name in (EULER, HEUN, LCM, LTX) else {}
            if name == HELIOS:
                schedule = {"dmd_sigmas": scheduler.sigmas, "dmd_timesteps": scheduler.timesteps, "all_timesteps": scheduler.timesteps}
                extra = {"cur_sampling_step": index, "dmd_noisy_tensor": kind(sample), **schedule}
            result = scheduler.step(kind(output), scheduler.timesteps[index], kind(x.numpy()), **extra).prev_sample
            assert str(result.dtype).removeprefix("torch.").lower() == "float16"
            results.append(np.array(result if kind is not ms.Tensor else result.asnumpy()).astype(np.float32))
        limit = 2e-3 * max(1.0, np.abs(results[0]).max())
        assert max(np.abs(result - results[0]).max() for result in results) < limit
        x = torch.from_numpy(results[0].astype(np.float16))


# ---- resizing


@pytest.mark.parametrize("mode", tables.RESIZE_MODES)
def test_resize(mode: str) -> None:
    interpolate = torch.nn.functional.interpolate
    for shape, size in (
        ((2, 3, 7), (10,)),
        ((2, 3, 7), (5,)),
        ((1, 2, 6, 5), (9, 9)),
        ((1, 2, 6, 5), (3, 4)),
        ((1, 2, 3, 4, 5), (2, 6, 11)),
    ):
        sample = numbers(0, shape)
        try:
            expected = interpolate(torch.from_numpy(sample), size=size, mode=mode).numpy()
        except NotImplementedError:
            with pytest.raises(NotImplementedError, match=f"'{mode}' for {len(size)} axes"):
                arrays.resize(sample, list(size), mode)
        else:
            np.testing.assert_allclose(arrays.resize(sample, list(size), mode), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_resize_takes_the_same_neighbours(mode: str) -> None:
    for source in range(1, 40, 3):
        places = torch.arange(source, dtype=torch.float32)[None, None]
        for target in range(1, 130):
            expected = torch.nn.functional.interpolate(places, size=target, mode=mode).numpy()[0, 0]
            np.testing.assert_array_equal(tables.resize_matrix(source, target, mode).argmax(axis=0), expected)


# ---- files and configs


@pytest.mark.parametrize("name", CLASSES)
def test_files_both_ways(name: str, tmp_path) -> None:
    config = {"eta": 0.5} if name == LTX else {"shift": 2.0}
    ours, theirs = pair(name, **config)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs" / "scheduler")
    written = [json.loads((tmp_path / part / "scheduler_config.json").read_text()) for part in ("ours", "theirs/scheduler")]
    assert written[0] == written[1]
    back = getattr(mindone_diffusers, name).from_pretrained(tmp_path / "theirs", subfolder="scheduler")
    forth = getattr(diffusers, name).from_pretrained(tmp_path / "ours")
    public = [{k: v for k, v in scheduler.config.items() if k[0] != "_"} for scheduler in (ours, theirs, back, forth)]
    assert all(config == public[0] for config in public)


@pytest.mark.parametrize("config, mu", [({"shift": 3.0, "use_karras_sigmas": True}, None), ({"use_dynamic_shifting": True}, 0.9)])
def test_ltx_reads_a_flow_matching_config(config: dict, mu: float | None) -> None:
    """Its sigmas are those of the scheduler whose config it was made from, and going back loses nothing."""
    tables, configs = [], []
    for library in (mindone_diffusers, diffusers):
        flow = library.FlowMatchEulerDiscreteScheduler(**config)
        ltx = library.LTXEulerAncestralRFScheduler.from_config(flow.config)
        ltx.set_timesteps(6, mu=mu)
        tables.append((np.asarray(ltx.sigmas), np.asarray(ltx.timesteps)))
        back = library.FlowMatchEulerDiscreteScheduler.from_config(ltx.config)
        configs.append({k: v for k, v in back.config.items() if k[0] != "_"})
    for ours, theirs in zip(*tables):
        np.testing.assert_array_equal(ours, theirs)
    assert configs[0] == configs[1] and configs[0].items() >= config.items()


# ---- errors under the same conditions

X = numbers()
BAD_CONFIGS = [
    *((name, {"use_karras_sigmas": True, "use_beta_sigmas": True}) for name in (EULER, LCM)),
    *((name, {"time_shift_type": "nonsense"}) for name in (EULER, LCM)),
    *((MINIMAX, {"shift": shift}) for shift in (0.0, -1.0)),
    *((PIFLOW, {"n_grid": 1}), (PIFLOW, {"eps": 0.0}), (PIFLOW, {"final_step_size_scale": 1.5}), (PIFLOW, {"num_policy_substeps": 0})),
]
BAD_CALLS = [
    *((name, {"use_dynamic_shifting": True}, {"num_inference_steps": 4}) for name in (EULER, LCM)),
    *((name, {}, {"sigmas": [1.0, 0.5], "timesteps": [900.0]}) for name in (EULER, LCM, FLOW_MAP)),
    *((name, {}, {"num_inference_steps": 3, "sigmas": [1.0, 0.5]}) for name in (EULER, LCM, FLOW_MAP)),
    *((name, {}, {"num_inference_steps": 3, "timesteps": [900.0]}) for name in (EULER, LCM, FLOW_MAP)),
    *((name, {}, {}) for name in (EULER, LCM, FLOW_MAP, LTX, MINIMAX, PIFLOW)),
    (LTX, {}, {"sigmas": [[1.0, 0.5]]}),
    (MINIMAX, {}, {"num_inference_steps": 1}),
    *((MINIMAX, {}, {"sigmas": sigmas}) for sigmas in ([1.0], [1.0, 1.0, 0.0], [1.0, 0.5], [0.5, 1.0, 0.0])),
    *((PIFLOW, {}, {"num_inference_steps": 4, name: value}) for name, value in (("sigmas", [1.0]), ("mu", 1.0), ("timesteps", [1.0]))),
    (PIFLOW, {}, {"num_inference_steps": 0}),
    (HELIOS, {"use_dynamic_shifting": True, "shift": 2.0, "stages": 1}, {"num_inference_steps": 4, "mu": 1.0}),
]


@pytest.mark.parametrize("name, config", BAD_CONFIGS)
def test_refused_by_both_constructors(name: str, config: dict) -> None:
    with pytest.raises(ValueError):
        getattr(diffusers, name)(**config)
    with pytest.raises(ValueError):
        getattr(mindone_diffusers, name)(**config)


@pytest.mark.parametrize("name, config, arguments", BAD_CALLS)
def test_refused_by_both_set_timesteps(name: str, config: dict, arguments: dict) -> None:
    ours, theirs = pair(name, **config)
    with pytest.raises((ValueError, AssertionError, TypeError)):
        theirs.set_timesteps(**arguments)
    with pytest.raises(ValueError):
        ours.set_timesteps(**arguments)


def _exhaust(scheduler, array) -> None:
    for _ in range(5):
        scheduler.step(array(output_for(scheduler)), scheduler.timesteps[0], array(X))


BAD_STEPS = [
    *((name, lambda s, array: s.step(array(output_for(s)), 3, array(X))) for name in (EULER, HEUN, LCM, LTX, MINIMAX, PIFLOW)),
    *((name, lambda s, array: s.step(array(output_for(s)), 3.5, array(X))) for name in (EULER, HEUN, LCM, LTX, MINIMAX, PIFLOW)),
    *((name, lambda s, array: s.index_for_timestep(3.5)) for name in (EULER, HEUN, LCM, LTX, MINIMAX)),
    (LTX, lambda s, array: type(s)().step(array(X), 3.5, array(X))),
    (LTX, lambda s, array: type(s)().index_for_timestep(3.5)),
    (FLOW_MAP, lambda s, array: s.step(array(X), 612.5, array(X))),
    (LCM, lambda s, array: (s.set_scale_factors([1.0], "nearest"), s.step(array(X), s.timesteps[0], array(X)))),
    (LCM, lambda s, array: (s.set_scale_factors([1.0] * 3, "linear"), s.step(array(X), s.timesteps[0], array(X)))),
    (MINIMAX, lambda s, array: s.set_shift(0)),
    (PIFLOW, lambda s, array: s.step(array(X), s.timesteps[0], array(X))),
    (PIFLOW, lambda s, array: s.step(array(output_for(s)[:1]), s.timesteps[0], array(X))),
    (PIFLOW, _exhaust),
]


@pytest.mark.parametrize("name, call", BAD_STEPS)
def test_refused_by_both_steps(name: str, call) -> None:
    ours, theirs = pair(name, 4)
    with pytest.raises(Exception) as expected:
        call(theirs, torch.from_numpy)
    with pytest.raises(expected.type):
        call(ours, np.asarray)
