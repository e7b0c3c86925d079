"""The commands run in the tests' own process, too."""

from collections.abc import Iterator

import pytest

from mindone_diffusers.core import logging


@pytest.fixture(autouse=True)
def progress_bars() -> Iterator[None]:
    """Commands switch progress bars off where nobody sees them; they are on again after each test."""
    yield
    logging.enable_progress_bar()
