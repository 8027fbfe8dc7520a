"""Tianshou's TRPO and NPG: one measurement, one JSON object. Runs in .venv-peers/torch.

    update                     one update on the batch of problem.py: seconds
    throughput ENV             steps a second, all in
    start ENV                  seconds from the command to the first update
    learn ENV                  a whole run by the settings of its examples: curve, and a final evaluation

Collector, buffers, networks and updates are Tianshou's, put together as its examples/mujoco do; the loop over them is
that of its OnPolicyTrainer without the logging: collect, update, clear the buffer.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from problem import ACTION, ENVS, OBSERVATION, problem
from report import Rate, peak_mib, repeat, resident_mib, say, since_command
from settings import TIANSHOU
from tianshou.algorithm import NPG, TRPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
from tianshou.data import Batch, Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv, VectorEnvNormObs
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch.distributions import Categorical, Distribution, Independent, Normal

ALGORITHMS = {"trpo": TRPO, "npg": NPG}


def update(arguments: argparse.Namespace) -> None:
    """The update alone: returns and advantages are there already. The same weights before each, and the same batch.

    Its ten products are a constant of the code, here exchanged for as many as all sides take. Its critic knows no
    minibatches: an epoch is one step on the whole batch.
    """
    data = problem(arguments.samples)
    box = gym.spaces.Box
    spaces = box(-np.inf, np.inf, (OBSERVATION,), np.float32), box(-1.0, 1.0, (ACTION,), np.float32)
    settings = {"critic_steps": arguments.epochs, "hidden": [arguments.hidden] * 2, "log_std": 0.0, "lr_decay": False}
    algorithm: Any = build(arguments.algorithm, *spaces, {**TIANSHOU, **settings}, steps=1)
    solve = algorithm._conjugate_gradients
    algorithm._conjugate_gradients = lambda g, kl, nsteps: solve(g, kl, nsteps=arguments.products)
    flat = [
        torch.as_tensor(x).reshape(len(data.obs) * ENVS, *x.shape[2:]) for x in (data.obs, data.action, data.reward)
    ]
    batch: Any = Batch(obs=flat[0], act=flat[1], returns=flat[2], adv=(flat[2] - flat[2].mean()) / flat[2].std())
    with torch.no_grad():
        parts = zip(batch.obs.split(100_000), batch.act.split(100_000), strict=True)
        batch.logp_old = torch.cat([algorithm.policy(Batch(obs=obs, info={})).dist.log_prob(act) for obs, act in parts])
    batch.info = Batch()
    first, kl = copy.deepcopy(algorithm.state_dict()), 0.0
    before = resident_mib()

    def prepare() -> None:
        algorithm.load_state_dict(copy.deepcopy(first))  # weights and optimiser; it takes the dictionary apart

    def once() -> None:
        nonlocal kl
        kl = algorithm._update_with_batch(batch, None, 1).kl.mean

    if arguments.once:
        prepare()
        start = time.perf_counter()
        once()
        timing = {"value": time.perf_counter() - start}
    else:
        timing = repeat(once, prepare, arguments.seconds)
    say(timing.pop("value"), "s", **timing, before_mib=before, peak_mib=peak_mib(), kl=kl)


def throughput(arguments: argparse.Namespace) -> None:
    """All in: environments, updates. The settings of its examples; their worker processes unless --dummy."""
    rate = Rate(arguments.skip, arguments.seconds)
    train(arguments, 10**9, lambda steps, _algorithm, _envs: rate(steps))
    say(rate.value, "steps/s", steps=rate.steps, warm_up=rate.warm_up)


def start(arguments: argparse.Namespace) -> None:
    """Until the first update is done."""
    train(arguments, 10**9, lambda steps, _algorithm, _envs: True)
    say(since_command(), "s")


def learn(arguments: argparse.Namespace) -> None:
    """A run by the settings of its examples, until its steps are done or its seconds are over.

    The clock starts with the command and stands still in evaluations.
    """
    curve, away, end = [], 0.0, 0

    def after(steps: int, algorithm: Any, envs: Any) -> bool:
        nonlocal away, end
        end, now = steps, since_command() - away
        if arguments.every and steps // arguments.every > len(curve):
            begun = time.time()
            returns = evaluate(algorithm, envs, arguments.env, 5, 10_000 + arguments.seed)
            away += time.time() - begun
            curve.append((steps, round(now, 2), round(float(np.mean(returns)), 2)))
        return bool(arguments.seconds and now >= arguments.seconds)

    algorithm, envs = train(arguments, arguments.steps, after)
    seconds = since_command() - away
    returns = evaluate(algorithm, envs, arguments.env, 20, 20_000 + arguments.seed)
    say(float(np.mean(returns)), "return", returns=returns, steps=end, seconds=seconds, curve=curve)


def train(arguments: argparse.Namespace, steps: int, after: Callable[[int, Any, Any], bool]) -> tuple[Any, Any]:
    """Collect and update until `steps`, or until `after(steps, algorithm, envs)`; returns those two."""
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002 — Tianshou draws from it
    count = TIANSHOU["envs"]
    kind: Any = DummyVectorEnv if arguments.dummy else SubprocVectorEnv
    sharing = {} if arguments.dummy else {"share_memory": True, "context": "fork"}
    envs: Any = kind([lambda: gym.make(arguments.env)] * count, **sharing)
    one = gym.make(arguments.env)
    if isinstance(one.action_space, gym.spaces.Box):
        envs = VectorEnvNormObs(envs)
    envs.seed([int(x) for x in np.random.SeedSequence(arguments.seed).generate_state(count) >> 1])
    horizon = arguments.horizon or steps
    algorithm = build(arguments.algorithm, one.observation_space, one.action_space, TIANSHOU, horizon)
    buffer = VectorReplayBuffer(TIANSHOU["buffer"], count)
    collector: Any = Collector[CollectStats](algorithm, envs, buffer, exploration_noise=True)
    collector.reset()
    done = 0
    while done < steps:
        with policy_within_training_step(algorithm.policy):
            done += collector.collect(n_step=TIANSHOU["collect"]).n_collected_steps
            algorithm.update(buffer=buffer, batch_size=None, repeat=1)
            collector.reset_buffer(keep_statistics=True)
        if after(done, algorithm, envs):
            break
    envs.close()
    return algorithm, envs


def build(name: str, observation: Any, action: Any, settings: dict[str, Any], steps: int) -> Any:
    """The algorithm as examples/mujoco build it; for discrete actions with a categorical head."""
    shape, hidden = observation.shape, settings["hidden"]
    net, critic_net = (Net(state_shape=shape, hidden_sizes=hidden, activation=torch.nn.Tanh) for _ in range(2))
    discrete = isinstance(action, gym.spaces.Discrete)
    if discrete:
        actor: Any = DiscreteActor(preprocess_net=net, action_shape=action.n, softmax_output=False)
        critic: Any = DiscreteCritic(preprocess_net=critic_net)
        last = actor.last
    else:
        actor = ContinuousActorProbabilistic(preprocess_net=net, action_shape=action.shape, unbounded=True)
        critic = ContinuousCritic(preprocess_net=critic_net)
        torch.nn.init.constant_(actor.sigma_param, settings["log_std"])
        last = actor.mu
    for module in [*actor.modules(), *critic.modules()]:
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.orthogonal_(module.weight, gain=np.sqrt(2))
            torch.nn.init.zeros_(module.bias)
    for module in last.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data.mul_(0.01)
    if discrete:
        kind = DiscreteActorPolicy
        policy: Any = kind(actor=actor, dist_fn=_categorical, action_space=action, deterministic_eval=True)
    else:
        policy = ProbabilisticActorPolicy(
            actor=actor,
            dist_fn=_gaussian,
            action_scaling=True,
            action_bound_method="clip",
            action_space=action,
            deterministic_eval=True,
        )
    optim = AdamOptimizerFactory(lr=settings["lr"])
    if settings["lr_decay"]:
        epochs = max(1, steps // 30_000)
        falling = LRSchedulerFactoryLinear(
            max_epochs=epochs, epoch_num_steps=30_000, collection_step_num_env_steps=settings["collect"]
        )
        optim.with_lr_scheduler_factory(falling)
    return ALGORITHMS[name](
        policy=policy,
        critic=critic,
        optim=optim,
        gamma=settings["gamma"],
        gae_lambda=settings["gae_lambda"],
        return_scaling=settings["return_scaling"],
        optim_critic_iters=settings["critic_steps"],
        **settings[name],
    )


def _gaussian(parameters: tuple[torch.Tensor, torch.Tensor]) -> Distribution:
    return Independent(Normal(*parameters), 1)


def _categorical(logits: torch.Tensor) -> Distribution:
    return Categorical(logits=logits)


def evaluate(algorithm: Any, envs: Any, env: str, episodes: int, seed: int) -> list[float]:
    """Returns of deterministic episodes in fresh environments, with the statistics of training."""
    one, policy = gym.make(env), algorithm.policy
    statistics = envs.get_obs_rms() if isinstance(envs, VectorEnvNormObs) else None
    returns = []
    for episode in range(episodes):
        obs, _ = one.reset(seed=seed if episode == 0 else None)
        total, over = 0.0, False
        while not over:
            seen = np.asarray(obs if statistics is None else statistics.norm(obs), np.float32)[None]
            with torch.no_grad():
                action = policy(Batch(obs=seen, info={})).act.numpy()[0]
            obs, reward, terminated, truncated, _ = one.step(policy.map_action(action))
            total, over = total + float(reward), terminated or truncated
        returns.append(round(total, 2))
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("update")
    verb.set_defaults(call=update)
    for name, value in {"samples": 2048, "hidden": 64, "products": 15, "epochs": 10}.items():
        verb.add_argument(f"--{name}", type=int, default=value)
    verb.add_argument("--algorithm", choices=sorted(ALGORITHMS), default="trpo")
    verb.add_argument("--seconds", type=float, default=5.0)
    verb.add_argument("--once", action="store_true", help="the first update alone: for its memory")
    for call in (throughput, start, learn):
        verb = verbs.add_parser(call.__name__)
        verb.set_defaults(call=call)
        verb.add_argument("env")
        verb.add_argument("--algorithm", choices=sorted(ALGORITHMS), default="trpo")
        verb.add_argument("--dummy", action="store_true", help="all environments in this process")
        verb.add_argument("--skip", type=float, default=3.0)
        verb.add_argument("--seconds", type=float, default=20.0 if call is throughput else 0.0)
        verb.add_argument("--steps", type=int, default=1_000_000)
        verb.add_argument("--horizon", type=int, default=3_000_000 if call is not learn else 0)
        verb.add_argument("--every", type=int, default=0)
        verb.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    arguments.call(arguments)


if __name__ == "__main__":
    main()
