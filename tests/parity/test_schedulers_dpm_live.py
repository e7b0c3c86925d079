"""The exponential integrators side by side with PyTorch diffusers, where a plain loop does not show it."""

import importlib

import mindspore as ms
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import mindone_diffusers as ours  # noqa: E402
from mindone_diffusers import Generator  # noqa: E402
from mindone_diffusers.core.random import randn_array  # noqa: E402
from mindone_diffusers.schedulers import scheduling_dpmsolver_multistep as our_multistep  # noqa: E402
from mindone_diffusers.schedulers import solvers  # noqa: E402
from tests.schedulers.runner import SD, model  # noqa: E402

SHAPE = (2, 2, 4, 4)
X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
DPM, SINGLE, UNIPC = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"
DEIS, SA, HELIOS, COSINE = "DEISMultistepScheduler", "SASolverScheduler", "HeliosScheduler", "CosineDPMSolverMultistepScheduler"


@pytest.fixture(autouse=True, scope="module")
def quiet():
    diffusers.utils.logging.set_verbosity_error()


def pair(name: str, **config):
    return getattr(ours, name)(**config), getattr(diffusers, name)(**config)


def loop(scheduler, kind, start=X, **arguments) -> np.ndarray:
    sample = kind(start)
    for timestep in scheduler.timesteps:
        output = model(np.asarray(sample), float(timestep), 2)
        sample = scheduler.step(kind(output), timestep, sample, **arguments).prev_sample
    return np.asarray(sample)


def close(got, expected, limit=2e-6) -> None:
    expected = np.asarray(expected)
    assert np.abs(np.asarray(got) - expected).max() <= limit * np.abs(expected).max()


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("predictor", [DPM, DEIS])
def test_unipc_corrects_another_solver(predictor: str, order: int) -> None:
    results = []
    for library, kind in ((ours, np.asarray), (diffusers, torch.from_numpy)):
        solver = getattr(library, predictor)(**SD)
        scheduler = getattr(library, UNIPC)(solver_p=solver, solver_order=order, disable_corrector=[2], **SD)
        scheduler.set_timesteps(8)
        results.append(loop(scheduler, kind))
    close(*results)


FOREIGN = {
    "use_karras_sigmas": True,
    "timestep_spacing": "leading",
    "steps_offset": 3,
    "variance_type": "learned",
    "euler_at_final": True,
    "lambda_min_clipped": -1.0,
    "final_sigmas_type": "sigma_min",
}


@pytest.mark.parametrize("target", [SINGLE, UNIPC, DEIS, "EulerAncestralDiscreteScheduler", "DDIMScheduler", "HeunDiscreteScheduler"])
def test_options_of_other_classes_do_nothing(target: str) -> None:
    """`from_config` keeps them in the config, for the way back."""
    results = []
    for library, kind in ((ours, np.asarray), (diffusers, torch.from_numpy)):
        scheduler = getattr(library, target).from_config(getattr(library, DPM)(**SD, **FOREIGN).config)
        assert all(scheduler.config[name] == value for name, value in FOREIGN.items())
        scheduler.set_timesteps(16)
        results.append((scheduler.timesteps, getattr(scheduler, "sigmas", np.ones(1))))
        if target in (SINGLE, UNIPC, DEIS):
            results[-1] += (loop(scheduler, kind, np.concatenate([X, X], axis=1)[:, :2]),)
    for got, expected in zip(*results, strict=True):
        close(got, expected)


@pytest.mark.parametrize("name, flows", [(DPM, False), (SINGLE, False), (UNIPC, True), (DEIS, False)])
def test_conversions(name: str, flows: bool) -> None:
    """Public conversions and updates at a step of the run."""
    mine, theirs = pair(name, **SD, prediction_type="v_prediction")
    for scheduler in (mine, theirs):
        scheduler.set_timesteps(6)
        scheduler._step_index = 3
    close(
        mine.convert_model_output(X, sample=X[::-1]),
        theirs.convert_model_output(torch.from_numpy(X), sample=torch.from_numpy(X[::-1].copy())),
    )
    first = {DPM: "dpm_solver_first_order_update", SINGLE: "dpm_solver_first_order_update", DEIS: "deis_first_order_update"}.get(name)
    outputs = [np.sin(X + i).astype(np.float32) for i in range(3)]
    if first:
        close(getattr(mine, first)(X, sample=X), getattr(theirs, first)(torch.from_numpy(X), sample=torch.from_numpy(X)))
        kind = {DPM: "multistep_dpm_solver", SINGLE: "singlestep_dpm_solver", DEIS: "multistep_deis"}[name]
        for order in ("second", "third"):
            method = f"{kind}_{order}_order_update"
            expected = getattr(theirs, method)([torch.from_numpy(output) for output in outputs], sample=torch.from_numpy(X))
            close(getattr(mine, method)(outputs, sample=X), expected, 2e-5)
    else:
        mine.model_outputs, theirs.model_outputs = outputs, [torch.from_numpy(output) for output in outputs]
        for order in (1, 2):
            expected = theirs.multistep_uni_p_bh_update(torch.from_numpy(X), sample=torch.from_numpy(X), order=order)
            close(mine.multistep_uni_p_bh_update(X, sample=X, order=order), expected, 1e-5)
            given = {"last_sample": X, "this_sample": X}
            expected = theirs.multistep_uni_c_bh_update(
                torch.from_numpy(X), **{k: torch.from_numpy(v) for k, v in given.items()}, order=order
            )
            close(mine.multistep_uni_c_bh_update(X, **given, order=order), expected, 1e-5)


@pytest.mark.parametrize("algorithm", ["data_prediction", "noise_prediction"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_sa_solver_coefficients(algorithm: str, order: int) -> None:
    mine, theirs = pair(SA, algorithm_type=algorithm)
    nodes, start, end, tau = [0.7, 0.1, -0.9, -1.6][:order], 0.7, 1.3, 0.8
    tensors = [torch.tensor(node, dtype=torch.float64) for node in nodes]
    ends = [torch.tensor(value, dtype=torch.float64) for value in (start, end)]
    close(
        mine.get_coefficients_fn(order, start, end, nodes, tau), torch.stack(theirs.get_coefficients_fn(order, *ends, tensors, tau)), 1e-12
    )
    basis = theirs.lagrange_polynomial_coefficient(order - 1, tensors)
    close(mine.lagrange_polynomial_coefficient(order - 1, nodes), np.array(basis, dtype=np.float64), 1e-12)
    close(
        mine.get_coefficients_exponential_negative(order - 1, start, end),
        theirs.get_coefficients_exponential_negative(order - 1, *ends),
        1e-12,
    )
    expected = theirs.get_coefficients_exponential_positive(order - 1, *ends, torch.tensor(tau, dtype=torch.float64))
    close(mine.get_coefficients_exponential_positive(order - 1, start, end, tau), expected, 1e-12)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", [np.asarray, ms.Tensor])
def test_cosine_with_its_own_noise(several: bool, kind) -> None:
    results = []
    for library, make in ((diffusers, torch.from_numpy), (ours, kind)):
        scheduler = getattr(library, COSINE)()
        scheduler.set_timesteps(8)
        if library is diffusers:
            sigmas = scheduler.sigmas.numpy()
        else:  # to the last bit: a Brownian path is rough
            scheduler.sigmas = sigmas
        generator = (torch.Generator if library is diffusers else Generator)().manual_seed(5)
        if several:
            generator = [generator, (torch.Generator if library is diffusers else Generator)().manual_seed(6)]
        sample = make(X)
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(sample, timestep)
            output = np.sin(scaled.asnumpy() if isinstance(scaled, ms.Tensor) else np.asarray(scaled))
            sample = scheduler.step(make(output), timestep, sample, generator=generator).prev_sample
        results.append(sample.asnumpy() if isinstance(sample, ms.Tensor) else np.asarray(sample))
    close(results[1], results[0], 1e-5)


@pytest.mark.parametrize("predict_x0", [True, False])
def test_helios_unipc_step_with_a_given_history(predict_x0: bool) -> None:
    history = [np.sin(X + i).astype(np.float32) for i in range(3)]
    results = []
    for library, kind, number in ((diffusers, torch.from_numpy, torch.DoubleTensor), (ours, np.asarray, np.array)):
        scheduler = getattr(library, HELIOS)(predict_x0=predict_x0, prediction_type="v_prediction")
        scheduler.set_timesteps(8, stage_index=0)
        output = scheduler.step_unipc(
            kind(X),
            timestep=900.0,
            sample=kind(X),
            model_outputs=[kind(output) for output in history],
            timestep_list=[0, 0, 0],
            **{name: number([value])[0] for name, value in {"sigma_before": 0.7, "sigma": 0.6, "sigma_next": 0.4}.items()},
            cus_step_index=3,
            cus_lower_order_num=2,
            cus_this_order=2,
            cus_last_sample=kind(np.cos(X)),
        )
        results.append([output.prev_sample, output.last_sample, *output.model_outputs])
        assert output.this_order == 2 and scheduler._step_index == 3 and scheduler.lower_order_nums == 2
    for expected, got in zip(*results, strict=True):
        close(got, expected, 1e-5)


def test_helios_euler_step_between_given_sigmas() -> None:
    mine, theirs = pair(HELIOS, scheduler_type="euler")
    expected = theirs.step_euler(torch.from_numpy(X), 900.0, torch.from_numpy(X), sigma=torch.tensor(0.6), sigma_next=torch.tensor(0.4))
    close(mine.step_euler(X, 900.0, X, sigma=0.6, sigma_next=0.4).prev_sample, expected.prev_sample)


def test_helios_tables() -> None:
    mine, theirs = pair(HELIOS, gamma=0.5)
    assert mine.start_sigmas == pytest.approx(theirs.start_sigmas) and mine.end_sigmas == pytest.approx(theirs.end_sigmas)
    assert mine.timestep_ratios.keys() == theirs.timestep_ratios.keys() and mine.gamma == theirs.gamma
    for stage in range(3):
        close(mine.timesteps_per_stage[stage], theirs.timesteps_per_stage[stage])
        close(mine.sigmas_per_stage[stage], theirs.sigmas_per_stage[stage])
    tuples = []
    for scheduler, kind in ((mine, np.asarray), (theirs, torch.from_numpy)):
        scheduler.set_timesteps(4, stage_index=0)
        tuples.append(scheduler.step(kind(X), scheduler.timesteps[0], kind(X), return_dict=False))
    assert tuples[0][1] is tuples[1][1] is None and tuples[0][3] == tuples[1][3] == 1
    close(tuples[0][0], tuples[1][0])
    close(tuples[0][2], tuples[1][2])


CLASSES = [
    ("DPMSolverMultistepInverseScheduler", {}),
    (SA, {}),
    (UNIPC, {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    ("EDMDPMSolverMultistepScheduler", {}),
    (HELIOS, {}),
]


@pytest.mark.parametrize("name, config", CLASSES)
def test_half_precision(name: str, config: dict) -> None:
    """Dtypes and values, of classes that tests of the Stable Diffusion schedulers leave out."""
    where = {"stage_index": 0} if name == HELIOS else {}
    half = X.astype(np.float16)
    schedulers = [getattr(library, name)(**config) for library in (diffusers, ours, ours)]
    samples = [torch.from_numpy(half), half, ms.Tensor(half)]
    for scheduler in schedulers:
        scheduler.set_timesteps(5, **where)
    for index in range(5):
        output = np.sin(samples[0].float().numpy()).astype(np.float16)
        outputs = [torch.from_numpy(output), output, ms.Tensor(output)]
        for i, scheduler in enumerate(schedulers):
            generator = (Generator if i else torch.Generator)().manual_seed(index)
            extra = {"generator": generator} if name == SA else {}
            samples[i] = scheduler.step(outputs[i], scheduler.timesteps[index], samples[i], **extra).prev_sample
        expected = samples[0].float().numpy()
        assert samples[0].dtype == torch.float16 and samples[1].dtype == np.float16 and samples[2].dtype == ms.float16
        limit = 8e-3 * max(1.0, np.abs(expected).max())
        assert np.abs(samples[1].astype(np.float32) - expected).max() < limit
        assert np.abs(samples[2].astype("float32").asnumpy() - expected).max() < limit
        samples[1:] = samples[0].numpy(), ms.Tensor(samples[0].numpy())


@pytest.mark.parametrize("name", ["DPMSolverMultistepInverseScheduler", SA, "EDMDPMSolverMultistepScheduler", COSINE])
def test_add_noise(name: str) -> None:
    mine, theirs = pair(name)
    for scheduler in (mine, theirs):
        scheduler.set_timesteps(10)
    timesteps = theirs.timesteps[[1, 8]]
    expected = theirs.add_noise(torch.from_numpy(X), torch.from_numpy(X[::-1].copy()), timesteps)
    close(mine.add_noise(X, X[::-1], mine.timesteps[[1, 8]]), expected)


@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@pytest.mark.parametrize("last", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", [DPM, SINGLE])
def test_divergent_runs_agree_in_float64(name: str, last: str, solver: str, monkeypatch) -> None:
    """25 steps of third-order "sde-dpmsolver++" grow a last bit of a sigma or a sample beyond the tables' 1e-5 (up to 1e-4, "heun" in
    single steps to 5e-2). Nothing else is between the two: with the same sigmas, and float64 in place of float32, they are equal."""
    theirs_module = importlib.import_module(getattr(diffusers, name).__module__)
    draw = theirs_module.randn_tensor

    class InFloat64:
        float32 = torch.float64

        def __getattr__(self, attribute: str):
            return getattr(torch, attribute)

    def float64_noise(*arguments, dtype=None, **keywords):
        return draw(*arguments, dtype=torch.float32, **keywords).double()

    monkeypatch.setattr(theirs_module, "torch", InFloat64())
    monkeypatch.setattr(theirs_module, "randn_tensor", float64_noise)
    monkeypatch.setattr(solvers, "randn_like", lambda x, generator, dtype: randn_array(x.shape, generator).astype(np.float64))
    monkeypatch.setattr(our_multistep, "cast", lambda values, dtype: values)
    both = pair(name, **SD, algorithm_type="sde-dpmsolver++", solver_order=3, solver_type=solver, final_sigmas_type=last)
    for scheduler in both:
        scheduler.set_timesteps(25)
    both[1].sigmas = torch.from_numpy(both[0].sigmas.astype(np.float64))
    results = []
    for scheduler, kind, generator in zip(both, (np.asarray, torch.from_numpy), (Generator(), torch.Generator())):
        sample, generator = kind(X.astype(np.float64)), generator.manual_seed(0)
        for timestep in scheduler.timesteps:
            output = model(np.asarray(sample), float(timestep), 2).astype(np.float64)
            sample = scheduler.step(kind(output), timestep, sample, generator=generator).prev_sample
        results.append(np.asarray(sample))
    assert results[0].dtype == results[1].dtype == np.float64
    close(*results, limit=1e-8)
