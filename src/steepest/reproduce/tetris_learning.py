"""Two ways to learn Tetris from a stream of games: policy gradients by GPOMDP, and greedy policy iteration.

    gradient    g = Σ_t (R_t − R̄) ∇ln π(a_t|s_t)/N       R_t = Σ_k γᵏ r_{t+k} until the game is over
    iteration   w ← argmin Σ_t (wᵀφ_t − v_t − Σ_k λᵏ d_{t+k})²      then greedy: argmax_a r_sa + wᵀφ_sa
                v_t = w_oldᵀφ_t,  d_t = r_{t+1} + v_{t+1} − v_t     φ_t of the board after placement t

R_t by summing ahead is GPOMDP's trace of scores by summing back (Baxter & Bartlett 2001). Policy iteration is the
λ-policy iteration of Bertsekas & Ioffe (1996), undiscounted, from their first policy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from steepest.algorithms import Algorithm
from steepest.batch import Batch
from steepest.worlds.tetris.afterstates import AfterstateGreedy, AfterstateSoftmax
from steepest.worlds.tetris.game import Board, Steps, Tetris, rollout

DISCOUNT = 0.97
AHEAD = 32  # steps that are only looked at by returns, never learnt from: .97³² = .38
WARM_UP = 64  # steps before anything is counted: at first all games are young, and none is lost


class Sample(NamedTuple):
    """How much is played in one iteration: `games` side by side, `steps` pieces each."""

    games: int
    steps: int


class Score(NamedTuple):
    """Of each iteration: lines completed [K] and games lost [K], both counts."""

    lines: np.ndarray
    lost: np.ndarray


def policy_gradient(
    algorithm: Algorithm, policy: AfterstateSoftmax, sample: Sample, iterations: int, seed: int
) -> Score:
    """Play and update by `algorithm`, `iterations` times; the games go on from one iteration to the next."""
    boards, key = _begin(policy, sample, seed)
    state = algorithm.init(policy)
    scores = []
    for _ in range(iterations):
        key, play = jax.random.split(key)
        boards, steps = rollout(policy.world, policy, boards, play, sample.steps)
        scores.append((steps.lines.sum(), steps.over.sum()))
        policy, state, _ = algorithm.update(policy, state, gradient_batch(steps))
    return Score(*np.asarray(scores).T)


def policy_iteration(world: Tetris, trace: float, sample: Sample, iterations: int, seed: int) -> Score:
    """Play greedily, fit the value by least squares with λ = `trace`, `iterations` times.

    The first policy is greedy in −10 for a hole and −1 for a row of height, which is no value: the first fit takes
    none for what follows the last piece it saw.
    """
    policy = AfterstateGreedy(jnp.zeros(world.features).at[-3].set(-1.0).at[-2].set(-10.0), world)
    boards, key = _begin(policy, sample, seed)
    weights, decay = jnp.zeros(world.features), 1.0
    scores = []
    for _ in range(iterations):
        key, play = jax.random.split(key)
        boards, steps = rollout(world, policy, boards, play, sample.steps)
        scores.append((steps.lines.sum(), steps.over.sum()))
        weights, decay = fit_value(world, weights, steps, decay), trace
        policy = AfterstateGreedy(weights, world)
    return Score(*np.asarray(scores).T)


@eqx.filter_jit
def gradient_batch(steps: Steps) -> Batch:
    """All but the last `AHEAD` steps as a batch of N rows of one action; the advantage is R_t less its mean."""
    over = steps.over

    def backward(later: Array, now: tuple[Array, Array]):
        lines, last = now
        total = lines + DISCOUNT * jnp.where(last, 0.0, later)
        return total, total

    lines = steps.lines.astype(jnp.float32)
    returns = jax.lax.scan(backward, jnp.zeros(over.shape[1]), (lines, over), reverse=True)[1]
    kept = max(1, over.shape[0] - AHEAD)
    returns, action, obs = jax.tree.map(
        lambda x: x[:kept].reshape(kept * x.shape[1], *x.shape[2:]), (returns, steps.action, steps.board)
    )
    rows = len(returns)
    return Batch(
        obs=obs,
        weight=jnp.full(rows, 1 / rows),
        action=action[:, None],
        action_weight=jnp.ones((rows, 1)),
        advantage=(returns - returns.mean())[:, None],
        segment=jnp.tile(jnp.arange(over.shape[1]), kept),
    )


@eqx.filter_jit
def fit_value(world: Tetris, weights: Float[Array, " P"], steps: Steps, trace: float) -> Float[Array, " P"]:
    """w of the value of the board after a placement, in lines to come, by least squares on λ-returns."""

    def after(board: Board, action: Array) -> Array:
        return world.afterstate_features(world.placements(board).columns[action])

    features = jax.vmap(jax.vmap(after))(steps.board, steps.action)
    value = features @ weights
    goes_on = 1.0 - steps.over.astype(jnp.float32)
    # d_t needs the placement after it, so the last step has none
    difference = goes_on[:-1] * (steps.lines[1:] + value[1:]) - value[:-1]

    def backward(later: Array, now: tuple[Array, Array]):
        d, more = now
        total = d + trace * more * later
        return total, total

    start = jnp.zeros(value.shape[1])
    correction = jax.lax.scan(backward, start, (difference, goes_on[:-1]), reverse=True)[1]
    target = (value[:-1] + correction).reshape(-1)
    return jnp.linalg.lstsq(features[:-1].reshape(-1, world.features), target)[0]


def _begin(policy: Any, sample: Sample, seed: int) -> tuple[Board, Array]:
    """Games that have been played for a while, and a key."""
    key, first, warm = jax.random.split(jax.random.key(seed), 3)
    boards = jax.vmap(policy.world.reset)(jax.random.split(first, sample.games))
    return rollout(policy.world, policy, boards, warm, WARM_UP)[0], key
