"""Signatures are upstream's, but for the differences listed with their reasons (`tools/api_report.py`, docs/support.md)."""

import pytest

from tools import api_report


@pytest.mark.parametrize("name", api_report.classes())
def test_signatures(name):
    lines, _, _ = api_report.compare(name)
    assert lines == []
