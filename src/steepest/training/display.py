"""The terminal: one line of progress while a run goes on, one table at its end."""

from __future__ import annotations

import math
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressDisplay:
    """A bar with return, KL, CG residual, steps per second and time left; plain lines where there is no terminal."""

    _LINE_SECONDS = 5.0

    def __init__(self, console: Console, total: int):
        self._console, self._total, self._printed = console, total, -math.inf
        self._began: tuple[float, int] | None = None
        self._bar = Progress(
            TextColumn("[bold]{task.fields[steps]}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, steps=f"0/{total:,}", text="compiling", left="–")

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(escape(line), highlight=False, soft_wrap=True)

    def iteration(self, steps: int, row: dict[str, Any]) -> None:
        """Show one iteration."""
        now = time.monotonic()
        if self._began is None:  # after the compilation, which would spoil the estimate
            self._began = (now, steps)
        since, first = self._began
        rate = (steps - first) / (now - since) if now > since and steps > first else row["time/steps_per_second"]
        left = max(0.0, (self._total - steps) / max(rate, 1e-9))
        text = (
            f"return {_number(row['return/recent'])}  kl {row['update/kl']:.4f}  "
            f"residual {row['update/residual']:.1e}  {rate:,.0f} steps/s"
        )
        if "evaluation/mean" in row:
            text += f"  evaluation {row['evaluation/mean']:.1f}"
        if self._console.is_terminal:
            self._bar.update(
                self._task, completed=min(steps, self._total), steps=f"{steps:,}", text=text, left=_clock(left)
            )
        elif now - self._printed > self._LINE_SECONDS or "evaluation/mean" in row:
            self._printed = now
            self._console.print(f"{steps:>10,} steps  {text}  left {_clock(left)}", highlight=False, soft_wrap=True)


def summary(console: Console, rows: dict[str, str]) -> None:
    """The table at the end of a run. Paths are not broken, so that they can be copied."""
    width = max(map(len, rows))
    for name, value in rows.items():
        console.print(f"[bold]{name:<{width}}[/bold]  {escape(value)}", highlight=False, soft_wrap=True)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
