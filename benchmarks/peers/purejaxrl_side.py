"""PureJaxRL's PPO on gymnax's CartPole-v1: one measurement, one JSON object. Runs in .venv-peers/jax.

Compiled ahead, and timed apart from that; the settings are those of its own file, but for the number of environments
where it is said. Its metrics are computed as always, its printing is off.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np
from report import say, since_command

sys.path.insert(0, str(Path(__file__).parent / "purejaxrl"))
from ppo import make_train  # type: ignore[import-not-found]

CONFIG = {
    "LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "TOTAL_TIMESTEPS": 500_000, "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4,
    "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5,
    "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True, "DEBUG": False,
}  # fmt: skip
"""Those of its `__main__`, without the printing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", type=int, default=CONFIG["NUM_ENVS"])
    parser.add_argument("--steps", type=int, default=CONFIG["TOTAL_TIMESTEPS"])
    parser.add_argument("--seed", type=int, default=30)
    parser.add_argument("--compilation", action="store_true", help="seconds of tracing, lowering and compiling alone")
    arguments = parser.parse_args()
    config = CONFIG | {"NUM_ENVS": arguments.envs, "TOTAL_TIMESTEPS": arguments.steps}
    key, began = jax.random.PRNGKey(arguments.seed), time.perf_counter()
    program = jax.jit(make_train(config)).lower(key).compile()
    compilation, ready, began = time.perf_counter() - began, since_command(), time.perf_counter()
    if arguments.compilation:
        say(compilation, "s")
        return
    out = jax.block_until_ready(program(key))
    seconds = time.perf_counter() - began
    info = out["metrics"]
    ended = np.asarray(info["returned_episode"])
    steps = config["NUM_UPDATES"] * config["NUM_STEPS"] * config["NUM_ENVS"]
    recent = float(np.mean(np.asarray(info["returned_episode_returns"])[ended][-100:]))
    say(steps / seconds, "steps/s", steps=steps, seconds=seconds, start_and_compilation=ready, recent=recent)


if __name__ == "__main__":
    main()
