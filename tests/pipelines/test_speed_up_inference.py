"""The snippets of docs/speed_up_inference.md, run in their order."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools" / "bundled_model"))

from evaluate import classify  # noqa: E402

PAGE = (ROOT / "docs" / "speed_up_inference.md").read_text()
SNIPPETS = re.findall(r"^## ([^\n]+)\n[^#]*?```python\n(.*?)```", PAGE, re.M | re.S)
UNTRAINED = ("A distilled UNet", "Latent consistency")


@pytest.fixture(scope="module")
def names():
    """What the snippets have defined so far; the first draws a picture."""
    start = re.search(r"```python\n(.*?)```", PAGE, re.S).group(1)
    namespace = {"__name__": "example"}
    exec(compile(start, "docs/speed_up_inference.md", "exec"), namespace)
    namespace["pipe"].set_progress_bar_config(disable=True)
    assert_red_circle(namespace["image"])
    return namespace


def assert_red_circle(image: Image.Image) -> None:
    found = classify(image)
    assert (found["color"], found["shape"], found["background"]) == ("red", "circle", "blue"), found


@pytest.mark.parametrize("title, code", SNIPPETS, ids=[title for title, _ in SNIPPETS])
def test_snippet(names, title, code):
    names["image"] = None
    exec(compile(code, f"docs/speed_up_inference.md: {title}", "exec"), names)
    if title == "Several pictures at once":
        names["image"], other = names["images"]
        assert (classify(other)["color"], classify(other)["background"]) == ("green", "white")
    if title in UNTRAINED:
        assert names["image"].size == (64, 64)
    else:
        assert_red_circle(names["image"])
