"""Partially observed MDPs: controllers against enumeration of all paths (s,o,m,a,m'), and what memory buys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import enumeration as oracle
import steepest as st
from finite_problems import EXACT, assert_close, flat
from steepest.errors import UsageError
from steepest.worlds.finite import FinitePOMDP
from steepest.worlds.finite import random as random_mdp

pytestmark = pytest.mark.usefixtures("x64_off")

S, A, O, H = 2, 2, 2, 2
RNG = np.random.default_rng(3)
WORLD = random_mdp(S, A, H, 5)
SEEN = RNG.dirichlet(np.ones(O), size=S)
POMDP = FinitePOMDP(WORLD.transition, WORLD.reward, WORLD.initial, H, SEEN)
CLOCK = FinitePOMDP(
    RNG.dirichlet(np.ones(S), size=(3, S, A)), RNG.normal(size=(3, S, A)), WORLD.initial, 3, SEEN
)  # depends on the step
sizes = pytest.mark.parametrize(("pomdp", "memory"), [(POMDP, 1), (POMDP, 2), (CLOCK, 1)], ids=["1", "2", "clock"])


class Path(NamedTuple):
    """probability, return, and the choices that a controller made: (o, m, a, m') of each step."""

    probability: float
    total: float
    choices: list[tuple[int, int, int, int]]


def paths(pomdp: FinitePOMDP, table: np.ndarray) -> Iterator[Path]:
    """All (s,o,m,a,m') paths; table: π(a,m'|o,m), [O,M,A,M]. Nothing of the reduction is used."""
    world = pomdp.hidden
    steps, memory = world.horizon, table.shape[1]
    p = np.broadcast_to(world.transition, (steps, S, A, S))
    r = np.broadcast_to(world.reward, (steps, S, A))
    step = list(itertools.product(range(S), range(O), range(A), range(memory)))
    for path in itertools.product(step, repeat=steps):
        probability, total, m, choices = 1.0, 0.0, 0, []
        for h, (s, o, a, kept) in enumerate(path):
            came = world.initial[s] if h == 0 else p[h - 1, path[h - 1][0], path[h - 1][2], s]
            probability *= came * pomdp.observation[s, o] * table[o, m, a, kept]
            total += r[h, s, a]
            choices.append((o, m, a, kept))
            m = kept
        yield Path(float(probability), float(total), choices)


def controller(memory: int, seed: int) -> tuple[st.TabularSoftmax, np.ndarray]:
    """A policy with a logit for each ((o,m), (a,m')), and π by hand, [O,M,A,M]."""
    logits = 2.0 * np.random.default_rng(seed).normal(size=(O * memory, A * memory))
    return st.TabularSoftmax(logits), oracle.softmax(logits).reshape(O, memory, A, memory)


def scores(every: list[Path], table: np.ndarray) -> np.ndarray:
    """Ψ = Σ_h ∇ln π(a,m'|o,m) of each path, [N, O·M·A·M]."""
    out = np.zeros((len(every), *table.shape))
    for n, path in enumerate(every):
        for o, m, a, kept in path.choices:
            out[n, o, m] -= table[o, m]
            out[n, o, m, a, kept] += 1.0
    return out.reshape(len(every), -1)


@sizes
def test_value_and_path_probabilities_are_those_of_enumeration(pomdp: FinitePOMDP, memory: int):
    policy, table = controller(memory, 0)
    every = list(paths(pomdp, table))
    assert abs(math.fsum(path.probability for path in every) - 1) < EXACT
    mdp = pomdp.mdp(memory)
    assert (mdp.states, mdp.actions) == (S * O * memory, A * memory)
    value = math.fsum(path.probability * path.total for path in every)
    assert_close(mdp.value(pomdp.observed(policy, memory)), value)


@sizes
@pytest.mark.claim("R22")
def test_R22_gradient_is_the_mean_of_return_times_the_score_of_what_is_seen(pomdp: FinitePOMDP, memory: int):
    policy, table = controller(memory, 0)
    every = list(paths(pomdp, table))
    weighted = np.array([path.probability * path.total for path in every])
    gradient = pomdp.mdp(memory).gradient(pomdp.observed(policy, memory))
    assert_close(flat(gradient), weighted @ scores(every, table))


@sizes
@pytest.mark.claim("R16", "BS")
def test_R16_path_fisher_of_a_controller_is_horizon_times_fisher(pomdp: FinitePOMDP, memory: int):
    policy, table = controller(memory, 0)
    every = list(paths(pomdp, table))
    score = scores(every, table)
    second = np.einsum("n,np,nq->pq", [path.probability for path in every], score, score)
    mdp, seen = pomdp.mdp(memory), pomdp.observed(policy, memory)
    assert_close(mdp.trajectory_fisher(seen), second)
    assert_close(mdp.horizon * mdp.fisher(seen), second)


@sizes
@pytest.mark.claim("R11")
def test_R11_path_kl_of_controllers_is_that_of_enumeration(pomdp: FinitePOMDP, memory: int):
    (p, near), (q, far) = controller(memory, 0), controller(memory, 1)
    kl = math.fsum(
        x.probability * math.log(x.probability / y.probability)
        for x, y in zip(paths(pomdp, near), paths(pomdp, far), strict=True)
        if x.probability > 0
    )
    assert kl > 0.5
    assert_close(pomdp.mdp(memory).trajectory_kl(pomdp.observed(p, memory), pomdp.observed(q, memory)), kl)


def test_a_natural_step_moves_the_controller_and_raises_its_value():
    policy, _ = controller(2, 0)
    seen, mdp = POMDP.observed(policy, 2), POMDP.mdp(2)
    better, info = st.improve(seen, mdp, st.npg(delta=1e-4))
    assert better.policy.logits.shape == policy.logits.shape
    assert info.kl == pytest.approx(1e-4, rel=0.05)
    assert mdp.value(better) - mdp.value(seen) == pytest.approx(H * info.predicted_improvement, rel=0.05)


def test_what_sees_everything_is_the_mdp_itself():
    logits = RNG.normal(size=(S, A))
    open_eyes = FinitePOMDP(WORLD.transition, WORLD.reward, WORLD.initial, H, np.eye(S))
    policy = st.TabularSoftmax(logits)
    assert_close(open_eyes.mdp().value(open_eyes.observed(policy)), WORLD.value(policy))
    assert_close(open_eyes.mdp().fisher(open_eyes.observed(policy)), WORLD.fisher(policy))


# What memory buys


def cue() -> FinitePOMDP:
    """A cue is seen in the first of two steps, and asked for in the second: 1 for the right answer.

    States: cue left, cue right, asked after left, asked after right. Observations: left, right, question.
    """
    transition = np.zeros((4, 2, 4))
    transition[[0, 2], :, 2] = transition[[1, 3], :, 3] = 1.0
    reward = np.zeros((4, 2))
    reward[2, 0] = reward[3, 1] = 1.0
    return FinitePOMDP(transition, reward, [0.5, 0.5, 0, 0], 2, np.eye(3)[[0, 1, 2, 2]])


def best_controller(pomdp: FinitePOMDP, memory: int) -> float:
    """The largest value of the (A·M)^(O·M) deterministic controllers."""
    mdp, pairs = pomdp.mdp(memory), pomdp.observations * memory
    choices = itertools.product(range(pomdp.hidden.actions * memory), repeat=pairs)
    return max(float(mdp.value(np.tile(plan, mdp.states // pairs))) for plan in map(np.array, choices))


def test_memory_is_worth_half_of_the_reward_where_the_cue_is_gone():
    pomdp = cue()
    assert best_controller(pomdp, 1) == 0.5
    rng = np.random.default_rng(0)
    for logits in rng.normal(size=(5, 3, 2)):  # nor does it help to draw lots
        assert pomdp.mdp().value(pomdp.observed(st.TabularSoftmax(logits))) == pytest.approx(0.5, abs=EXACT)
    plan = np.zeros((3, 2), int)  # of (o, m): the action a·2 + m'
    plan[0], plan[1] = 0, 1  # keep m' = 0 after left and m' = 1 after right
    plan[2] = [0, 2]  # and answer with what was kept
    remembers = np.tile(plan.ravel(), 4)
    assert pomdp.mdp(2).value(remembers) == 1.0
    assert pomdp.mdp(2).optimal()[0] == 1.0  # of policies that see everything: no controller can do better


def test_natural_steps_find_out_what_to_remember():
    pomdp = cue()
    mdp = pomdp.mdp(2)
    logits = 0.1 * np.random.default_rng(1).normal(size=(6, 4))  # equal logits would be a stationary point
    policies, _ = st.iterate(pomdp.observed(st.TabularSoftmax(logits), 2), mdp, st.npg(delta=0.05), steps=40)
    assert mdp.value(policies[0]) == pytest.approx(0.5, abs=0.01)
    assert mdp.value(policies[-1]) > 0.99


# What is refused


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.ones((3, 2)) / 2, r"observation must have shape \[S,O\] with S=2 from initial and O ≥ 1, got \[3, 2\]"),
        (np.ones(2) / 2, r"observation must have shape \[S,O\]"),
        (np.array([[0.5, 0.5], [0.5, 0.6]]), r"observation\[1, :\] sums to 1.1"),
        (np.array([[0.5, 0.5], [-0.5, 1.5]]), r"observation\[1, 0\] is -0.5; probabilities cannot be negative"),
    ],
)
def test_observations_that_are_no_distribution_are_refused(observation: Any, message: str):
    with pytest.raises(UsageError, match=message):
        FinitePOMDP(WORLD.transition, WORLD.reward, WORLD.initial, H, observation)


def test_a_controller_that_does_not_fit_and_a_memory_that_is_none_are_refused():
    with pytest.raises(UsageError, match=r"shape \[2, 2\]; this MDP has O·M=4 pairs .* A=4 actions.*\[4, 4\]"):
        POMDP.observed(st.TabularSoftmax(np.zeros((2, 2))), memory=2)
    with pytest.raises(UsageError, match="expected a policy"):
        POMDP.observed(np.zeros((2, 2)))
    for wrong in (0, -1, 1.0, True):
        with pytest.raises(UsageError, match="memory must be an integer ≥ 1"):
            POMDP.mdp(memory=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"made for 4 states; this MDP has S=8 states"):
        POMDP.mdp(2).value(POMDP.observed(st.TabularSoftmax(np.zeros((2, 2)))))
    assert repr(POMDP) == "FinitePOMDP(S=2, A=2, O=2, H=2)"
    with pytest.raises(ValueError, match="read-only"):
        POMDP.observation[0, 0] = 0.0


def test_a_controller_of_another_pomdp_is_refused():
    """It would read what is hidden: its observation is the index of the state modulo its own count."""
    other = FinitePOMDP(np.full((3, 2, 3), 1 / 3), np.zeros((3, 2)), np.full(3, 1 / 3), 2, np.ones((3, 1)))
    controller = POMDP.observed(st.TabularSoftmax(np.zeros((O, A))))
    with pytest.raises(UsageError, match="this Observed was made for 4 states; this MDP has S=3 states"):
        other.mdp().value(controller)
