"""`mindone-diffusers generate`: what it draws and writes, what it says, how it fails. One run is from the shell."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mindspore
import numpy as np
import pytest
from PIL import Image

import mindone_diffusers
from mindone_diffusers import AutoencoderTiny, DiffusionPipeline, Generator, bundled
from mindone_diffusers.commands import generate, main
from mindone_diffusers.schedulers.scheduling_utils import SchedulerMixin
from tests.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-sd")
    decoder = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    decoder.fill_parameters(0)
    decoder.save_pretrained(folder / "vae_tiny")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    """Every test has a working directory of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def draw(model, capsys):
    """Run the command on the tiny model, two steps of 64x64; returns the lines it prints, after checking that it has no complaints."""

    def run(*words: str) -> list[str]:
        code = main(["generate", "--model", str(model), "--steps", "2", "--size", "64", *words])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        return printed.out.splitlines()

    return run


def fails(capsys, code: int, *words: str) -> str:
    """The one line on standard error of a run that ends with `code` and prints nothing else."""
    try:
        assert main(["generate", *words]) == code
    except SystemExit as end:
        assert end.code == code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"mindone-diffusers: [^\n]+\n", printed.err)
    return printed.err


def text(path: str | Path) -> dict[str, str]:
    with Image.open(path) as picture:
        return picture.text


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_the_picture_is_the_pipelines(draw, model):
    draw("a cat", "--negative-prompt", "a dog", "--guidance-scale", "3", "--seed", "7", "--output", "a.png", "--size", "64x32")
    pipe = DiffusionPipeline.from_pretrained(model)
    image = pipe(
        "a cat", negative_prompt="a dog", guidance_scale=3.0, num_inference_steps=2, width=64, height=32,
        generator=Generator("cpu").manual_seed(7),
    ).images[0]  # fmt: skip
    assert image.size == (64, 32)
    np.testing.assert_array_equal(pixels("a.png"), np.asarray(image))


def test_what_the_file_says(draw):
    draw("a 红 cat", "--negative-prompt", "a dog", "--guidance-scale", "3", "--seed", "7", "--scheduler", "euler-a", "--output", "a.png")
    expected = {
        "prompt": "a 红 cat", "negative_prompt": "a dog", "steps": "2", "guidance_scale": "3.0", "seed": "7", "model": "tiny-sd",
        "scheduler": "EulerAncestralDiscreteScheduler", "dtype": "float32", "mode": "eager",
        "mindone_diffusers": mindone_diffusers.__version__, "mindspore": mindspore.__version__,
    }  # fmt: skip
    assert text("a.png") == expected


def test_same_seed_same_bytes(draw):
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        draw("a cat", "--seed", seed, "--output", f"{name}.png", "--scheduler", "euler-a")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert np.abs(pixels("a.png") - pixels("c.png")).mean() > 1


def test_a_grid_and_its_pictures(draw):
    lines = draw("a cat", "--seed", "7", "--num-images", "3", "--output", "new/grid.png", "--scheduler", "euler-a")
    assert re.fullmatch(r"new/grid\.png: 3 pictures of 64x64, 2 steps, \d+\.\d s", lines[0])
    assert lines[1] == "each alone: new/grid-1.png to grid-3.png"
    assert sorted(path.name for path in Path("new").iterdir()) == ["grid-1.png", "grid-2.png", "grid-3.png", "grid.png"]
    alone = [pixels(f"new/grid-{number}.png") for number in (1, 2, 3)]
    grid = np.concatenate([np.concatenate(alone[:2], 1), np.concatenate([alone[2], np.zeros_like(alone[2])], 1)])
    np.testing.assert_array_equal(pixels("new/grid.png"), grid)
    assert (text("new/grid.png")["seed"], text("new/grid.png")["num_images"]) == ("7", "3")
    assert [text(f"new/grid-{number}.png")["seed"] for number in (1, 2, 3)] == ["7", "8", "9"]

    draw("a cat", "--seed", "8", "--output", "again.png", "--scheduler", "euler-a")
    assert Path("again.png").read_bytes() == Path("new/grid-2.png").read_bytes()


@pytest.mark.parametrize(
    "words", [["-a cat's"], ["a cat", "--negative-prompt=-dog", "--size", "64x32", "--tiny-decoder", "--dtype", "float16"]]
)
def test_the_command_that_is_printed_draws_it_again(draw, capsys, words):
    words = words if words[0][0] != "-" else ["--", *words]
    last = draw("--output", "a.png", *words)[-1]
    name, command, *rest = shlex.split(last.removeprefix("again: "))
    assert (name, command) == ("mindone-diffusers", "generate")
    assert not {"--output", "--guidance-scale", "--graph", "--num-images"} & set(rest)
    assert main([command, *rest]) == 0
    again = capsys.readouterr().out.splitlines()
    assert Path(again[0].split(":")[0]).read_bytes() == Path("a.png").read_bytes()
    assert again[-1] == last


def test_names(draw):
    assert draw("A  red, circle!")[0].startswith("outputs/0001-a-red-circle.png: 64x64, 2 steps, ")
    first = Path("outputs/0001-a-red-circle.png").read_bytes()
    assert draw("A  red, circle!")[0].startswith("outputs/0002-a-red-circle.png")
    Path("outputs/0041.txt").touch()
    assert draw("红色的圆")[0].startswith("outputs/0042-红色的圆.png")
    assert draw("?", "--num-images", "2")[1] == "each alone: outputs/0043-picture-1.png to 0043-picture-2.png"
    assert Path("outputs/0001-a-red-circle.png").read_bytes() == first
    draw("A  red, circle!", "--output", "outputs/0001-a-red-circle.png")
    assert Path("outputs/0001-a-red-circle.png").read_bytes() != first  # another random seed, and asked for by name


def test_seeds_are_random_and_printed(draw):
    seeds = []
    for number in (1, 2):
        words = shlex.split(draw("a cat")[-1])
        seeds.append(words[words.index("--seed") + 1])
        assert text(f"outputs/000{number}-a-cat.png")["seed"] == seeds[-1]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("alias", generate._aliases())
def test_aliases(alias):
    name = generate._scheduler(alias)
    assert name == generate.SCHEDULERS[alias] == generate._scheduler(name)
    assert issubclass(getattr(mindone_diffusers, name), SchedulerMixin)


def test_options_reach_the_models(draw, monkeypatch):
    pipes = []
    monkeypatch.setattr(generate, "_draw", lambda arguments, pipe, seed: pipes.append(pipe) or Image.new("RGB", (8, 8)))
    draw("a cat", "--tiny-decoder", "--dtype", "float16", "--scheduler", "DDIMScheduler", "--graph", "--output", "a.png")
    pipe = pipes[0]
    assert (type(pipe.vae), type(pipe.scheduler).__name__) == (AutoencoderTiny, "DDIMScheduler")
    assert {model.dtype for model in pipe._models().values()} == {mindspore.float16}
    assert {model._graph_options["jit_level"] for model in pipe._models().values()} == {"O0"}
    assert pipe.scheduler.config.beta_start == 0.00085  # the saved scheduler's
    facts = text("a.png")
    assert (facts["decoder"], facts["dtype"], facts["mode"], facts["scheduler"]) == ("vae_tiny", "float16", "graph", "DDIMScheduler")


def test_progress_is_shown_to_people(model, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["generate", "a cat", "--model", str(model), "--steps", "2", "--size", "64", "--seed", "5"]) == 0
    assert re.search(r"seed 5: 100%.* 2/2 ", capsys.readouterr().err)


def test_the_bundled_model_is_the_default(capsys):
    assert main(["generate", "a large red circle on a blue background", "--seed", "0", "--output", "a.png"]) == 0
    assert "--model" not in capsys.readouterr().out
    assert text("a.png")["model"] == "bundled"
    drawn = pixels("a.png")
    middle, corner = drawn[24:40, 24:40].mean((0, 1)), drawn[:4, :4].mean((0, 1))
    assert middle.argmax() == 0 and corner.argmax() == 2  # red in the middle, blue around it


def test_no_bundled_model(capsys, monkeypatch):
    monkeypatch.setattr(bundled, "NAME", "nothing")
    assert "this installation came without the bundled model 'nothing': install again" in fails(capsys, 1, "a cat")
    assert list(Path("outputs").iterdir()) == []


@pytest.mark.parametrize(
    "words, message",
    [
        (["--scheduler", "eular"], "no scheduler 'eular', but ddim, "),
        (["--scheduler", "SchedulerMixin"], "no scheduler 'SchedulerMixin'"),
        (["--size", "63"], "'63': width and height have to be multiples of 8"),
        (["--size", "64x60"], "'64x60': width and height have to be multiples of 8"),
        (["--size", "0"], "'0' is neither WIDTHxHEIGHT nor one number"),
        (["--size", "64*64"], "neither WIDTHxHEIGHT nor one number"),
        (["--steps", "0"], "'0' is not a whole number above 0"),
        (["--num-images", "2.5"], "'2.5' is not a whole number above 0"),
        (["--seed", "-1"], "'-1' is not a whole number from 0 to"),
        (["--seed", str(2**63)], "is not a whole number from 0 to"),
        (["--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
        (["--output", "a.jpg"], "'a.jpg' is not the name of a .png file"),
        (["--output", "folder.png"], "'folder.png' is not the name of a .png file"),
        (["another"], "unrecognized arguments: another"),
    ],
    ids=" ".join,
)
def test_wrong_arguments(capsys, words, message):
    Path("folder.png").mkdir()
    assert message in fails(capsys, 2, "a cat", *words)


def test_a_prompt_is_needed(capsys):
    assert "the following arguments are required: PROMPT (see `mindone-diffusers generate --help`)" in fails(capsys, 2)


def test_models_that_cannot_be_loaded(capsys, model):
    assert "there is no folder nowhere, and the name of a repository on the hub is OWNER/NAME" in fails(
        capsys, 1, "a cat", "--model", "nowhere"
    )
    Path("empty").mkdir()
    assert "empty has no file model_index.json" in fails(capsys, 1, "a cat", "--model", "empty")
    (Path("empty") / "model_index.json").write_text(json.dumps({"_class_name": "Mystery"}))
    assert "'Mystery' is not one this library has" in fails(capsys, 1, "a cat", "--model", "empty")
    assert "this model has no vae_tiny folder, leave out --tiny-decoder" in fails(capsys, 1, "a cat", "--model", "empty", "--tiny-decoder")
    assert list(Path("outputs").iterdir()) == []


def test_what_cannot_be_written_is_found_out_first(capsys, monkeypatch):
    monkeypatch.setattr(generate, "_load", lambda arguments: pytest.fail("loaded first"))
    Path("file").touch()
    assert "cannot write into file/folder: Not a directory" in fails(capsys, 1, "a cat", "--output", "file/folder/a.png")
    assert "cannot write into file: File exists" in fails(capsys, 1, "a cat", "--output", "file/a.png")
    Path("outputs").touch()
    assert "cannot write into outputs: File exists" in fails(capsys, 1, "a cat")


def test_an_interruption_keeps_what_is_done(draw, capsys, model, monkeypatch):
    def interrupted(arguments, pipe, seed):
        if seed == 9:
            raise KeyboardInterrupt
        return Image.new("RGB", (8, 8), (seed, 0, 0))

    monkeypatch.setattr(generate, "_draw", interrupted)
    words = ["a cat", "--model", str(model), "--num-images", "3"]
    assert fails(capsys, 130, *words, "--seed", "8") == "mindone-diffusers: interrupted\n"
    assert [path.name for path in Path("outputs").iterdir()] == ["0001-a-cat-1.png"]
    assert pixels("outputs/0001-a-cat-1.png")[0, 0].tolist() == [8, 0, 0]
    fails(capsys, 130, *words, "--seed", "9")
    assert [path.name for path in Path("outputs").iterdir()] == ["0001-a-cat-1.png"]


def test_from_the_shell(model, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    words = ["mindone-diffusers", "generate", "a cat", "--model", str(model), "--steps", "1", "--size", "32"]
    code = (
        f"import runpy, sys\nsys.argv = {words!r}\n"
        "try:\n    runpy.run_module('mindone_diffusers', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, sorted({'torch', 'transformers.image_utils'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    first, again, last = done.stdout.splitlines()
    assert first.startswith("outputs/0001-a-cat.png: 32x32, 1 step, ") and again.startswith("again: ")
    assert last == "0 []"  # nor were seconds spent on importing torch, or what imports it
    assert (done.returncode, done.stderr) == (0, "")
    assert pixels("outputs/0001-a-cat.png").shape == (32, 32, 3)
