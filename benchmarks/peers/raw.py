"""The raw speed of an environment on all cores: a process a core, each stepping plain Gymnasium with random actions.

Nothing else is done: no observations are kept, no policy acts. What a training run could reach if all but the
environments were free. Imports Gymnasium alone, and runs in either environment.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import gymnasium as gym
from report import say


def steps_in(env_id: str, seconds: float, ready: Any, number: int, results: Any) -> None:
    """Steps of one process, an episode after another, within the seconds that start when all are ready."""
    env = gym.make(env_id)
    env.action_space.seed(number)
    actions = [env.action_space.sample() for _ in range(1_000)]
    env.reset(seed=number)
    ready.wait()
    steps, end = 0, time.perf_counter() + seconds
    began = time.perf_counter()
    while time.perf_counter() < end:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        steps += len(actions)
    results.put(steps / (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("env")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    context: Any = multiprocessing.get_context("fork")
    ready, results = context.Barrier(arguments.processes), context.Queue()
    given = [(arguments.env, arguments.seconds, ready, i, results) for i in range(arguments.processes)]
    processes = [context.Process(target=steps_in, args=arguments) for arguments in given]
    for process in processes:
        process.start()
    rates = [results.get() for _ in processes]
    for process in processes:
        process.join()
    say(sum(rates), "steps/s", each=rates)


if __name__ == "__main__":
    main()
