"""sb3-contrib's TRPO and Stable-Baselines3's PPO: one measurement, one JSON object. Runs in .venv-peers/torch.

update                     one TRPO update on the batch of problem.py: seconds
throughput ENV             steps a second, all in
start ENV                  seconds from the command to the first update
solve ENV --target 475     seconds from the command until an evaluation reaches a return
learn ENV                  a whole run by the settings of settings.py: curve, and a final evaluation
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from problem import ACTION, ENVS, OBSERVATION, problem
from report import Rate, peak_mib, repeat, resident_mib, say, since_command
from sb3_contrib import TRPO
from settings import PPO as ZOO_PPO
from settings import TRPO as ZOO_TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

ALGORITHMS = {"trpo": (TRPO, ZOO_TRPO), "ppo": (PPO, ZOO_PPO)}


class Nothing(gym.Env):
    """Has the spaces of the problem; is never stepped."""

    observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (ACTION,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        return np.zeros(OBSERVATION, np.float32), {}


def update(arguments: argparse.Namespace) -> None:
    """TRPO.train() alone: returns and advantages are there already. Each time from the same weights and batch."""
    data = problem(arguments.samples)
    model = TRPO(
        "MlpPolicy",
        DummyVecEnv([Nothing] * ENVS),
        n_steps=arguments.samples // ENVS,
        batch_size=arguments.minibatch,
        cg_max_steps=arguments.products,
        n_critic_updates=arguments.epochs,
        policy_kwargs={"net_arch": [arguments.hidden] * 2},
        device="cpu",
        seed=0,
    )
    model.set_logger(_silent())
    buffer, policy = model.rollout_buffer, model.policy
    with torch.no_grad():
        parts = [torch.as_tensor(x).reshape(-1, x.shape[-1]).split(100_000) for x in (data.obs, data.action)]
        found = [policy.evaluate_actions(obs, action)[:2] for obs, action in zip(*parts, strict=True)]
        value, log_prob = (torch.cat([pair[i].flatten() for pair in found]).reshape(-1, ENVS) for i in (0, 1))
        starts = np.concatenate([np.ones((1, ENVS), bool), data.terminated[:-1]])
        for t in range(len(data.obs)):
            buffer.add(data.obs[t], data.action[t], data.reward[t], starts[t], value[t], log_prob[t])
        buffer.compute_returns_and_advantage(value[-1], data.terminated[-1])
    kept = {
        name: getattr(buffer, name)
        for name in ("observations", "actions", "values", "log_probs", "advantages", "returns")
    }
    weights = {name: x.clone() for name, x in policy.state_dict().items()}
    optimiser = policy.optimizer.state_dict()
    before = resident_mib()

    def prepare() -> None:  # the buffer lays its arrays out anew at its first reading after a rollout: so does this one
        policy.load_state_dict(weights)
        policy.optimizer.load_state_dict(optimiser)
        policy.optimizer.state.clear()
        for name, array in kept.items():
            setattr(buffer, name, array)
        buffer.generator_ready = False

    if arguments.once:
        prepare()
        start = time.perf_counter()
        model.train()
        timing = {"value": time.perf_counter() - start}
    else:
        timing = repeat(model.train, prepare, arguments.seconds)
    logged = {k: float(v) for k, v in model.logger.name_to_value.items() if k.startswith("train/")}
    say(timing.pop("value"), "s", **timing, before_mib=before, peak_mib=peak_mib(), **logged)


def throughput(arguments: argparse.Namespace) -> None:
    """All in: environments, updates, logging. Default settings; with several environments the batch stays 2 048."""
    rate = Rate(arguments.skip, arguments.seconds)
    kind = SubprocVecEnv if arguments.processes else DummyVecEnv
    # forked, its workers are children whose time is counted; a fork server's are not
    started = {"start_method": "fork"} if arguments.processes else None
    env = make_vec_env(arguments.env, arguments.envs, seed=0, vec_env_cls=kind, vec_env_kwargs=started)
    model = ALGORITHMS[arguments.algorithm][0]("MlpPolicy", env, n_steps=2048 // arguments.envs, device="cpu", seed=0)
    model.learn(10**9, callback=AfterUpdate(lambda model: rate(model.num_timesteps)))
    env.close()
    say(rate.value, "steps/s", steps=rate.steps, warm_up=rate.warm_up)


def start(arguments: argparse.Namespace) -> None:
    """Until the first update is done."""
    env = make_vec_env(arguments.env, 1, seed=0)
    model = ALGORITHMS[arguments.algorithm][0]("MlpPolicy", env, device="cpu", seed=0)
    model.learn(10**9, callback=AfterUpdate(lambda model: True))
    say(since_command(), "s", steps=model.num_timesteps)


def solve(arguments: argparse.Namespace) -> None:
    """By the recommended settings, evaluated for ten episodes each 10 000 steps."""
    model = _recommended(arguments.algorithm, arguments.env, arguments.seed, arguments.steps)
    reached = []

    def evaluate(model: Any) -> bool:
        due = model.num_timesteps // 10_000 > len(reached)
        if due:
            reached.append(float(np.mean(_returns(model, arguments.env, 10, 10_000 + arguments.seed))))
        return due and reached[-1] >= arguments.target

    model.learn(arguments.steps, callback=AfterUpdate(evaluate))
    if not reached or reached[-1] < arguments.target:
        raise SystemExit(f"{arguments.target:g} not reached after {model.num_timesteps} steps: {reached}")
    say(since_command(), "s", steps=model.num_timesteps, evaluations=reached)


def learn(arguments: argparse.Namespace) -> None:
    """A run by the recommended settings, until its steps are done or its seconds are over.

    The clock starts with the command and stands still in evaluations.
    """
    model = _recommended(arguments.algorithm, arguments.env, arguments.seed, arguments.steps)
    curve, away = [], 0.0

    def after(model: Any) -> bool:
        nonlocal away
        now, steps = since_command() - away, model.num_timesteps
        if arguments.every and steps // arguments.every > len(curve):
            start = time.time()
            returns = _returns(model, arguments.env, 5, 10_000 + arguments.seed)
            away += time.time() - start
            curve.append((steps, round(now, 2), round(float(np.mean(returns)), 2)))
        return bool(arguments.seconds and now >= arguments.seconds)

    model.learn(arguments.steps, callback=AfterUpdate(after))
    seconds = since_command() - away
    returns = _returns(model, arguments.env, arguments.episodes, 20_000 + arguments.seed)
    say(float(np.mean(returns)), "return", returns=returns, steps=model.num_timesteps, seconds=seconds, curve=curve)


class AfterUpdate(BaseCallback):
    """Calls `then` after every update, and ends the training where it returns True."""

    def __init__(self, then: Any):
        super().__init__()
        self._then, self._updates, self._end = then, 0, False

    def _on_rollout_start(self) -> None:  # learn() is: collect, update, collect …; a rollout starts after an update
        self._updates += 1
        self._end = self._updates > 1 and self._then(self.model)

    def _on_step(self) -> bool:
        return not self._end


def _recommended(algorithm: str, env: str, seed: int, steps: int) -> Any:
    """The zoo's model: its settings, normalisation of observations and returns, and all."""
    kind, zoo = ALGORITHMS[algorithm]
    if env not in zoo:
        raise SystemExit(f"no recommended settings of {algorithm} for {env}; there are some for {', '.join(zoo)}")
    settings = dict(zoo[env])
    vec: Any = make_vec_env(env, settings.pop("n_envs", 1), seed=seed)
    if settings.pop("normalize", False):
        vec = VecNormalize(vec, gamma=settings.get("gamma", 0.99))
    policy = settings.pop("policy", {})
    names = {"hidden": "net_arch", "activation": "activation_fn"}
    policy = {names.get(k, k): torch.nn.ReLU if v == "relu" else v for k, v in policy.items()}
    settings = {name: _schedule(value) for name, value in settings.items()}
    return kind("MlpPolicy", vec, policy_kwargs=policy, device="cpu", seed=seed, **settings)


def _schedule(value: Any) -> Any:
    """'lin_0.001' falls on a straight line from there to 0."""
    if not isinstance(value, str):
        return value
    first = float(value.removeprefix("lin_"))
    return lambda left: left * first


def _returns(model: Any, env: str, episodes: int, seed: int) -> list[float]:
    """Of deterministic episodes in fresh environments, with the statistics of training, rewards as they are."""
    vec: Any = make_vec_env(env, 1, seed=seed)
    trained = model.get_vec_normalize_env()
    if trained is not None:
        vec = VecNormalize(vec, training=False, norm_reward=False)
        vec.obs_rms = trained.obs_rms
    returns, _ = evaluate_policy(model, vec, episodes, deterministic=True, return_episode_rewards=True)
    vec.close()
    return [round(float(x), 2) for x in returns]


def _silent() -> Any:
    from stable_baselines3.common.logger import Logger

    return Logger(folder=None, output_formats=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("update")
    verb.set_defaults(call=update)
    for name, value in {"samples": 2048, "hidden": 64, "products": 15, "epochs": 10, "minibatch": 128}.items():
        verb.add_argument(f"--{name}", type=int, default=value)
    verb.add_argument("--seconds", type=float, default=5.0)
    verb.add_argument("--once", action="store_true", help="the first update alone: for its memory")
    for call in (throughput, start, solve, learn):
        verb = verbs.add_parser(call.__name__)
        verb.set_defaults(call=call)
        verb.add_argument("env")
        verb.add_argument("--algorithm", choices=sorted(ALGORITHMS), default="trpo")
        verb.add_argument("--envs", type=int, default=1)
        verb.add_argument("--processes", action="store_true", help="a process for each environment")
        verb.add_argument("--skip", type=float, default=3.0)
        verb.add_argument("--seconds", type=float, default=20.0 if call is throughput else 0.0)
        verb.add_argument("--steps", type=int, default=1_000_000)
        verb.add_argument("--every", type=int, default=0)
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--target", type=float, default=475.0)
        verb.add_argument("--episodes", type=int, default=20, help="of the final evaluation")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    arguments.call(arguments)


if __name__ == "__main__":
    main()
