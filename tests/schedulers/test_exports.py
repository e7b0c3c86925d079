"""Where upstream's users find the classes, their outputs and the shared names (against upstream itself: test_schedulers_live.py)."""

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import mindone_diffusers
from mindone_diffusers import schedulers
from mindone_diffusers.core.outputs import BaseOutput
from mindone_diffusers.schedulers import AysSchedules, KarrasDiffusionSchedulers, SchedulerMixin

FOLDER = Path(schedulers.__file__).parent
MODULES = [
    importlib.import_module(".".join(("mindone_diffusers.schedulers", *path.relative_to(FOLDER).with_suffix("").parts)))
    for path in sorted(FOLDER.rglob("scheduling_*.py"))
    if path.stem != "scheduling_utils"
]
# Upstream has these two in `schedulers` only.
NOT_AT_THE_TOP = {"ConsistencyDecoderScheduler", "ScoreSdeVpScheduler"}


def own_scheduler(module) -> type:
    (found,) = (
        value
        for name, value in vars(module).items()
        if name.endswith("Scheduler") and value.__module__ == module.__name__ and name != "DistilledScheduler"
    )
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_module_has_a_class_that_is_exported(module) -> None:
    scheduler = own_scheduler(module)
    name = scheduler.__name__
    assert issubclass(scheduler, SchedulerMixin) and inspect.getdoc(scheduler) and inspect.getdoc(module)
    assert getattr(schedulers, name) is scheduler and name in schedulers.__all__
    assert (name in mindone_diffusers.__all__) == (name not in NOT_AT_THE_TOP)
    if name not in NOT_AT_THE_TOP:
        assert getattr(mindone_diffusers, name) is scheduler


def test_counts() -> None:
    names = {own_scheduler(module).__name__ for module in MODULES}
    assert len(names) == 51 and len(names & set(mindone_diffusers.__all__)) == 49


def test_shared_names() -> None:
    utils = importlib.import_module("mindone_diffusers.schedulers.scheduling_utils")
    assert utils.KarrasDiffusionSchedulers is KarrasDiffusionSchedulers and utils.AysSchedules is AysSchedules
    assert mindone_diffusers.SchedulerMixin is utils.SchedulerMixin is SchedulerMixin
    assert utils.SCHEDULER_CONFIG_NAME == SchedulerMixin.config_name == "scheduler_config.json"
    assert set(KarrasDiffusionSchedulers.__members__) < set(mindone_diffusers.__all__) and len(KarrasDiffusionSchedulers) == 15
    deprecated = importlib.import_module("mindone_diffusers.schedulers.deprecated")
    assert deprecated.KarrasVeScheduler is schedulers.KarrasVeScheduler and deprecated.ScoreSdeVpScheduler is schedulers.ScoreSdeVpScheduler
    for name in ("BlockRefinementSchedulerOutput", "DiscreteDDIMSchedulerOutput", "EntropyBoundSchedulerOutput"):
        assert issubclass(getattr(mindone_diffusers, name), BaseOutput)


@pytest.mark.parametrize("path", ["scheduling_ddpm.DDPMSchedulerOutput", "scheduling_ddim_inverse.DDIMSchedulerOutput",
                                  "scheduling_utils.SchedulerOutput", "scheduling_sde_ve.SdeVeOutput",
                                  "deprecated.scheduling_karras_ve.KarrasVeOutput", "scheduling_lcm.LCMSchedulerOutput"])  # fmt: skip
def test_outputs(path: str) -> None:
    module, _, name = path.rpartition(".")
    output = getattr(importlib.import_module(f"mindone_diffusers.schedulers.{module}"), name)
    first = output(*range(len(inspect.signature(output).parameters)))
    assert issubclass(output, BaseOutput) and first.prev_sample == 0 and first.to_tuple() == tuple(range(len(first)))


def test_the_page_s_examples(capsys) -> None:
    """They print what their last comments say."""
    page = (Path(__file__).parents[2] / "docs" / "schedulers.md").read_text()
    examples = re.findall(r"```python\n(.*?)# ([\d. ]+)\n```", page, re.S)
    assert len(examples) == 2
    for example, said in examples:
        exec(compile(example, "docs/schedulers.md", "exec"), {"__name__": "example"})
        np.testing.assert_allclose([*map(float, capsys.readouterr().out.split())], [*map(float, said.split())], atol=1e-6)


def test_the_page_names_every_class() -> None:
    page = (Path(__file__).parents[2] / "docs" / "schedulers.md").read_text()
    assert [name for name in schedulers.__all__ if name.endswith("Scheduler") and f"`{name}" not in page] == []
