"""Signatures are upstream's, but for the differences listed with their reasons (`tools/api_report.py`, docs/support.md)."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("api_report", Path(__file__).parents[2] / "tools" / "api_report.py")
api_report = importlib.util.module_from_spec(spec)
spec.loader.exec_module(api_report)


@pytest.mark.parametrize("name", api_report.classes())
def test_signatures(name):
    lines, _, _ = api_report.compare(name)
    assert lines == []
