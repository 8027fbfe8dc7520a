"""The command line: train, resume, evaluate, inspect, diagnose, reproduce, doctor. Its options are the fields of the
dataclasses in `commands.py` and of `TrainConfig`.

Exit codes: 0 done; 1 something outside broke (an environment, a file, a disk); 2 wrong usage; 128 + n stopped by signal
n after the iteration was finished and saved (130 SIGINT, 143 SIGTERM).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

import tyro

from steepest.commands import COMMANDS
from steepest.errors import RunError, UsageError
from steepest.training.whole_numbers import whole_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"steepest {version('steepest')}")
        return 0
    debug = "--debug" in arguments
    try:
        if any("\ud800" <= c <= "\udfff" for word in arguments for c in word):  # bytes that nothing could print
            raise UsageError(f"the arguments must be UTF-8, got {arguments!a:.200}")
        sys.path.append(os.getcwd())  # where `my_package:MyEnv-v0` is looked for, after everything installed
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="steepest",
            description="Natural policy optimisation: policy gradient, NPG and TRPO.",
            args=arguments,
            registry=whole_numbers(),
        )
        return command()
    except (UsageError, RunError) as error:
        if debug:
            traceback.print_exc()
        print(f"steepest: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("steepest: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        return 141
    except Exception as error:
        if debug:
            raise
        print(
            f"steepest: unexpected {type(error).__name__}: {error}\nThis is a defect; --debug shows where.",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
