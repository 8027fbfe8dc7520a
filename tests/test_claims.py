"""No claim without a test, no claim that nobody made, and the table in the docs is the one that the code gives."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from steepest.reproduce.claims import CLAIMS
from steepest.reproduce.registry import EXPERIMENTS, experiment

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("docs_claims", DOCS / "claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_claims"] = module
    spec.loader.exec_module(module)
    return module


def test_every_claim_has_a_test(table) -> None:
    assert [label for label, tests in table.tests().items() if not tests] == []


def test_every_experiment_draws_claims_that_exist() -> None:
    for name in EXPERIMENTS:
        assert set(experiment(name).claims) <= CLAIMS.keys(), name
        assert experiment(name).claims, name


def test_the_page_in_the_docs_is_up_to_date(table) -> None:
    assert table.PAGE.read_text() == table.page(), "run: python docs/claims.py"
