"""Write claims.md: label → statement → tests → figures.   python docs/claims.py

A label comes from `steepest.reproduce.claims`, its tests from the marks in tests/, its figures from the experiments.
"""

from __future__ import annotations

import ast
from pathlib import Path

from steepest.reproduce.claims import CLAIMS
from steepest.reproduce.registry import EXPERIMENTS, experiment

HERE = Path(__file__).parent
PAGE = HERE / "claims.md"


def tests() -> dict[str, list[str]]:
    """label ↦ the tests that are marked with it, as file::name."""
    found: dict[str, list[str]] = {label: [] for label in CLAIMS}
    for path in sorted((HERE.parent / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for label in (label for mark in node.decorator_list for label in _labels(mark)):
                    found[label].append(f"{path.name}::{node.name}")
    return found


def page() -> str:
    """claims.md."""
    figures: dict[str, list[str]] = {label: [] for label in CLAIMS}
    for name in EXPERIMENTS:
        for label in experiment(name).claims:
            figures[label].append(name)
    shown = tests()
    rows = [
        f"| {label} | {statement.replace('|', chr(92) + '|')} | {'<br>'.join(f'`{t}`' for t in shown[label])} "
        f"| {'<br>'.join(f'`{f}`' for f in figures[label])} |"
        for label, statement in CLAIMS.items()
    ]
    return (
        "# Claims\n\nEach claim of the theory, the tests that show it (`pytest --claim LABEL` runs them) and the "
        "experiments that draw it\n(`steepest reproduce NAME`). Made by `python docs/claims.py`.\n\n"
        "| label | claim | tests | figures |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _labels(mark: ast.expr) -> list[str]:
    """The labels of `@pytest.mark.claim("R1", …)`; of anything else none."""
    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
        return [argument.value for argument in mark.args if isinstance(argument, ast.Constant)]  # pyright: ignore
    return []


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
