"""The commands of the command line: each a dataclass whose fields are its options."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from steepest.reproduce.registry import EXPERIMENTS
from steepest.training.checks import check
from steepest.training.compilations import cache_compilations
from steepest.training.config import TrainConfig


@dataclass(frozen=True)
class Output:
    """What is printed."""

    quiet: bool = False
    """Print only the end."""
    json: bool = False
    """Print one JSON object, for programs."""
    debug: bool = False
    """Print the traceback of an error."""


@dataclass(frozen=True)
class Train:
    """Train a policy, and leave a run folder behind."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    out: Path | None = None
    """The run folder. Default: runs/ENV/ALGORITHM/TIME-sSEED."""
    seeds: int | None = None
    """Train with so many seeds at once, from --seed on, as one program: in functional worlds, such as gymnax's. With
    --out, its run folders are OUT/s0, OUT/s1, …"""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()

    def __call__(self) -> int:
        from steepest.training.hosting import place

        check(self.config)
        with ExitStack() as stack:
            placed = place(stack, self.config, self.config.env)  # workers start while the next line imports JAX
            from steepest.training.train import train

            cache_compilations()
            run = train(
                self.config.env,
                self.config.algorithm,
                config=self.config,
                out=self.out,
                quiet=self.output.quiet or self.output.json,
                console=_console(),
                placed=placed,
                seeds=self.seeds,
            )
        return _report(run, self.output)


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its last checkpoint."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    steps: int | None = None
    """A new number of environment steps in all."""
    env: str | None = None
    """Repeat the environment's id, if it has a module prefix: a file's word imports nothing."""
    algorithm: str | None = None
    """Repeat the algorithm's name, if it is a plugin."""
    sinks: tuple[str, ...] | None = None
    """Other plugins that are given the metrics; repeat them to go on with the same."""
    afresh: bool = False
    """Begin all episodes afresh, as after a change of the environment's own code."""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()

    def __call__(self) -> int:
        from steepest.training.train import resume

        cache_compilations()
        run = resume(
            self.run,
            env=self.env,
            algorithm=self.algorithm,
            steps=self.steps,
            afresh=self.afresh,
            sinks=self.sinks,
            quiet=self.output.quiet or self.output.json,
            console=_console(),
        )
        return _report(run, self.output)


@dataclass(frozen=True)
class Evaluate:
    """Play whole episodes with the agent of a run."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    episodes: int = 20
    """How many."""
    seed: int = 0
    """Of the environments, and of the actions if they are sampled."""
    stochastic: bool = False
    """Sample the actions instead of taking the most probable one."""
    checkpoint: Literal["last", "best"] = "last"
    """The agent at the end, or the best by the evaluations during training."""
    env: str | None = None
    """Another environment than the run's; needed if the run's id has a module prefix."""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()

    def __call__(self) -> int:
        from steepest.training.closing import evaluation_line
        from steepest.training.evaluation import evaluate
        from steepest.training.persistence import needs, read, read_config, restore_agent

        cache_compilations()
        arrays, info = read(self.run, self.checkpoint)
        agent = restore_agent(arrays, info)
        needs(info, "env", self.env, "--env ID")
        env = self.env if self.env is not None else read_config(self.run, info).env
        returns = evaluate(agent, env, self.episodes, self.seed, not self.stochastic, allow_import=self.env is not None)
        summary = {"mean": float(returns.mean()), "std": float(returns.std()), "episodes": len(returns)}
        if self.output.json:
            print(json.dumps({"returns": returns.tolist(), **summary, "deterministic": not self.stochastic}))
        else:
            print(evaluation_line(returns))
        return 0


@dataclass(frozen=True)
class Inspect:
    """Say what is in a checkpoint, and whether it is whole: versions, counters, arrays. Executes nothing of it."""

    path: tyro.conf.Positional[Path]
    """A checkpoint file, or a run folder."""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()

    def __call__(self) -> int:
        from steepest.runs.inspection import in_words, inspect

        record = inspect(self.path)
        print(json.dumps(record) if self.output.json else in_words(record))
        return 0 if record["whole"] else 1


@dataclass(frozen=True)
class Diagnose:
    """Find out why a run behaves as it does: trust reports, noise of the gradient, spectrum, residuals, steps; or why
    an update failed."""

    run: tyro.conf.Positional[Path]
    """The run folder; or a file of its updates/, to make that update again."""
    rows: int | None = None
    """Rows to collect with the last policy, in whole batches of the run's size. Default: 16 batches."""
    seed: int = 0
    """Of the environments and actions of those."""
    out: Path | None = None
    """The folder for figures, diagnosis.json and diagnosis.md. Default: RUN/diagnosis."""
    env: str | None = None
    """Another environment than the run's; needed if the run's id has a module prefix."""
    algorithm: str | None = None
    """Repeat the algorithm's name, if it is a plugin."""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()

    def __call__(self) -> int:
        from steepest.runs.files import reachable

        if reachable(self.run).is_file():
            return self._replay()
        from steepest.training.diagnose import diagnose

        cache_compilations()
        silent = self.output.quiet or self.output.json
        progress = (lambda what: None) if silent else (lambda what: print(what, file=sys.stderr, flush=True))
        data = diagnose(
            self.run, rows=self.rows, seed=self.seed, env=self.env, algorithm=self.algorithm, progress=progress
        )
        from steepest.reports.diagnosis import write_diagnosis

        out = self.run / "diagnosis" if self.out is None else self.out
        record = write_diagnosis(data, out)
        if self.output.json:
            print(json.dumps({"out": str(out), **{k: record[k] for k in ("run", "numbers", "findings")}}))
            return 0
        if not silent:
            print("\n".join(" ".join(filter(None, (f["says"], f["advice"]))) for f in record["findings"]))
        print(out / "diagnosis.md")
        return 0

    def _replay(self) -> int:
        from steepest.reports.replayed_update import in_words
        from steepest.runs.files import standard
        from steepest.training.failed_update import replay

        cache_compilations()
        record = replay(self.run, env=self.env, algorithm=self.algorithm)
        print(json.dumps(standard(record)) if self.output.json else in_words(record))
        return 0


@dataclass(frozen=True)
class Reproduce:
    """Make an experiment of the lecture or the papers again: figure, numbers, sentences, and an index page."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=f"{', '.join(EXPERIMENTS)}; or all.")]
    quick: bool = False
    """Seconds instead of minutes: fewer seeds, points or steps; the text says what was left out."""
    out: Path = Path("reproduced")
    """The folder for NAME.png, .svg, .csv, .md and index.html."""
    output: Annotated[Output, tyro.conf.arg(name="")] = Output()

    def __call__(self) -> int:
        from steepest.reproduce.output import reproduce
        from steepest.reproduce.registry import experiment

        cache_compilations()
        names = EXPERIMENTS if self.name == "all" else (self.name,)
        for name in names:
            experiment(name)  # an unknown name is refused before anything runs
        records = []
        for name in names:
            records.append(reproduce(name, self.out, self.quick))
            if not (self.output.quiet or self.output.json):
                print(f"{name}: {records[-1]['seconds']} s", file=sys.stderr, flush=True)
        index = str(self.out / "index.html")
        print(json.dumps({"experiments": records, "index": index}) if self.output.json else index)
        return 0


@dataclass(frozen=True)
class Doctor:
    """Say what is installed, which environments work here, and what is at odds."""

    output: Annotated[Output, tyro.conf.arg(name="")] = Output()

    def __call__(self) -> int:
        from steepest.doctor import examine, healthy, in_words

        silent = self.output.quiet or self.output.json
        record = examine((lambda what: None) if silent else (lambda what: print(what, file=sys.stderr, flush=True)))
        print(json.dumps(record) if self.output.json else in_words(record))
        return 0 if healthy(record) else 1


COMMANDS: dict[str, Callable[..., Any]] = {
    "train": Train,
    "resume": Resume,
    "evaluate": Evaluate,
    "inspect": Inspect,
    "diagnose": Diagnose,
    "reproduce": Reproduce,
    "doctor": Doctor,
}


def _report(run: Any, output: Output) -> int:
    """The end of `train` and `resume`."""
    from steepest.training.closing import report

    return report(run, _console(), as_json=output.json)


def _console() -> Any:
    """Progress goes to standard error: standard output is the result."""
    from rich.console import Console

    return Console(stderr=True)
