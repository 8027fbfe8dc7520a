"""SSᵀ through the layers: the matrix that R products with M give, for every kind of policy, and no S anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import POLICIES, in_dtype, problem
from steepest import trees
from steepest.batch import Batch
from steepest.geometry import empirical_fisher, expected_advantage, fisher, kernel, linearise
from steepest.layers import Conv, Dense
from steepest.linear import SampleSpace
from steepest.taps import tapped

METRICS = {"fisher": fisher, "empirical": empirical_fisher}
EPS = float(np.finfo(np.float32).eps)


class Image(eqx.Module):
    """[6,6,2] ↦ three actions: overlapping patches, then patches that do not."""

    first: Conv
    second: Conv
    head: Dense

    def __init__(self, key: Any):
        keys = jax.random.split(key, 3)
        self.first = Conv(2, 3, 3, key=keys[0])
        self.second = Conv(3, 2, 2, stride=2, key=keys[1])
        self.head = Dense(8, 3, key=keys[2])

    def __call__(self, obs: Any) -> st.Categorical:
        return st.Categorical(self.head(jnp.ravel(jnp.tanh(self.second(jnp.tanh(self.first(obs)))))))


class Twice(eqx.Module):
    """A layer that is used twice, one that is frozen, one without bias, and a number that belongs to none."""

    shared: Dense
    fixed: Any
    weight: Any
    scale: Any

    def __init__(self, key: Any):
        keys = jax.random.split(key, 3)
        self.shared = Dense(3, 3, key=keys[0])
        self.fixed = st.frozen(Dense(3, 4, key=keys[1]))
        self.weight = jax.random.normal(keys[2], (4, 2))
        self.scale = jnp.asarray(0.7)

    def __call__(self, obs: Any) -> st.Categorical:
        x = jnp.tanh(self.fixed.value(jnp.tanh(self.shared(jnp.tanh(self.shared(obs))))))
        return st.Categorical(self.scale * tapped(x @ self.weight, "dense", weight=self.weight, x=lambda: x))


class Tied(eqx.Module):
    """Weights that are used by their layer and once more beside it."""

    layer: Dense

    def __call__(self, obs: Any) -> st.Categorical:
        return st.Categorical(self.layer(obs) + jnp.sum(jnp.tanh(self.layer.weight), axis=0))


class Scanned(eqx.Module):
    """A layer inside a scan, where it cannot be followed."""

    layer: Dense

    def __call__(self, obs: Any) -> st.Categorical:
        return st.Categorical(jax.lax.scan(lambda x, _: (jnp.tanh(self.layer(x)), None), obs, length=2)[0])


def batch_of(policy: Any, obs: np.ndarray, seed: int, m: int = 2) -> Batch:
    """m actions a state, drawn by the policy itself; uneven weights, one row masked."""
    rng = np.random.default_rng(seed)
    n = len(obs)
    says = jax.vmap(policy)(jnp.asarray(obs, jnp.float32))
    action = jnp.stack([says.sample(jax.random.key(seed + i)) for i in range(m)], axis=1)
    weight, split = rng.uniform(0.2, 1.0, n), rng.uniform(0.2, 1.0, (n, m))
    weight[1] = 0.0
    split /= split.sum(axis=1, keepdims=True)
    return Batch(obs, weight / weight.sum(), np.asarray(action), split, rng.normal(size=(n, m)), np.arange(n))


def own_problem(kind: str) -> tuple[Any, Batch]:
    rng = np.random.default_rng(1)
    key = jax.random.key(2)
    if kind in POLICIES:
        return problem(kind)
    if kind == "image":
        policy, obs = Image(key), rng.normal(size=(7, 6, 6, 2))
    elif kind == "twice":
        policy, obs = Twice(key), rng.normal(size=(7, 3))
    elif kind == "tied":
        policy, obs = Tied(Dense(3, 3, key=key)), rng.normal(size=(7, 3))
    else:
        policy, obs = Scanned(Dense(3, 3, key=key)), rng.normal(size=(7, 3))
    return policy, batch_of(policy, obs, 3)


def both(kind: str, dtype: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """metric ↦ (SSᵀ through the layers, SSᵀ of S multiplied out), for a policy and batch in this dtype."""
    policy, batch = in_dtype(own_problem(kind), dtype)

    @jax.jit
    def build(policy: Any, batch: Batch) -> Any:
        local = linearise(policy, batch.obs)
        operators = {name: metric.operator(local, batch) for name, metric in METRICS.items()}
        return {name: (o.products and o.products(), o.factor(local.params)) for name, o in operators.items()}

    found = jax.tree.map(np.asarray, build(policy, batch))
    return {name: (fast, s.astype(float) @ s.T.astype(float)) for name, (fast, s) in found.items()}


@pytest.mark.parametrize("kind", [*POLICIES, "image", "twice", "tied"])
def test_it_is_the_matrix_of_the_products(kind: str) -> None:
    """In float64 to its rounding, in float32 to a few of its own, row by row in the order of the dual."""
    with jax.enable_x64(True):
        double, single = both(kind, jnp.float64), both(kind, jnp.float32)
    for metric, (fast, slow) in double.items():
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12 * np.abs(slow).max())
        assert single[metric][0].dtype == np.float32
        np.testing.assert_allclose(single[metric][0], slow, rtol=0, atol=10 * EPS * np.abs(slow).max())


@pytest.mark.parametrize(("kind", "entries"), [("image", 240), ("mlp-gaussian", 4_000)])
def test_memory_is_bounded_by_parts(kind: str, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features in parts that do not divide the 18 and 12 there are; 5 states of 48 at a time."""
    monkeypatch.setattr(kernel, "_ENTRIES_AT_A_TIME", entries)
    with jax.enable_x64(True):
        for fast, slow in both(kind, jnp.float64).values():
            np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12 * np.abs(slow).max())


def test_columns_are_taken_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_COLUMNS_AT_A_TIME", 5)
    with jax.enable_x64(True):
        for fast, slow in both("twice", jnp.float64).values():
            np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12 * np.abs(slow).max())


@pytest.mark.parametrize("kind", ["scanned", "tabular"])
def test_what_cannot_be_followed_is_multiplied_out(kind: str) -> None:
    """A layer in a scan; and 15 parameters of no layer where there are 12 rows: SSᵀ is there all the same."""
    policy, batch = in_dtype(own_problem(kind), jnp.float32)
    batch = jax.tree.map(lambda column: column[:4], batch)

    @jax.jit
    def build() -> Any:
        local = linearise(policy, batch.obs)
        operator = fisher.operator(local, batch)
        assert operator.products is not None
        assert operator.products() is None
        return operator.kernel(local.params), operator.factor(local.params)

    found, s = build()
    np.testing.assert_allclose(found, s @ s.T, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "states", "tolerance"),
    [
        ("categorical", "few", 1e-5),
        ("gaussian", "many", 1e-5),
        ("gaussian", "duplicates", 1e-5),
        ("categorical", "many", 5e-5),
    ],
)
def test_solutions_in_float32_are_those_of_float64(head: str, states: str, tolerance: float) -> None:
    """Within 1e-5 of a dense direct solve, λ = 1e-3 of the mean diagonal of SᵀS; 5e-5 where rows are more than
    parameters and y is mostly in the null space of Sᵀ, so that the rounding of S counts by y/λ."""
    rng = np.random.default_rng(4)
    obs = rng.normal(size=({"few": 12, "many": 80, "duplicates": 40}[states], 4))
    if states == "duplicates":
        obs[20:] = obs[:20]
    make = st.MlpCategorical if head == "categorical" else st.MlpGaussian
    policy = make(4, 3, (12,), key=jax.random.key(5))
    policy, batch = in_dtype((policy, batch_of(policy, obs, 6)), jnp.float32)
    with jax.enable_x64(True):
        exact = jax.jit(dense)(*in_dtype((policy, batch), jnp.float64))
    g, factors = np.asarray(exact[0]), {name: np.asarray(s) for name, s in exact[1].items()}
    dampings = {name: 1e-3 * float(np.mean(np.sum(s * s, axis=0))) for name, s in factors.items()}

    @jax.jit
    def solve(policy: Any, batch: Batch, dampings: Any) -> Any:
        local = linearise(policy, batch.obs)
        gradient = expected_advantage.gradient(local, batch)
        solved = {}
        for name, metric in METRICS.items():
            operator = metric.operator(local, batch).damped(dampings[name])
            solution = SampleSpace()(operator, gradient.vector, metric.dual(local, batch, gradient))
            solved[name] = trees.ravel(solution.x)[0]
        return solved

    for name, x in solve(policy, batch, dampings).items():
        s = factors[name]
        expected = np.linalg.solve(s.T @ s + dampings[name] * np.eye(len(g)), g)
        assert np.linalg.norm(np.asarray(x, float) - expected) < tolerance * np.linalg.norm(expected)


def dense(policy: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
    """(g, metric ↦ S)."""
    local = linearise(policy, batch.obs)
    factors = {name: metric.operator(local, batch).factor(local.params) for name, metric in METRICS.items()}
    return trees.ravel(expected_advantage.gradient(local, batch).vector)[0], factors


def arrays(jaxpr: Any) -> Iterator[tuple[int, str]]:
    """(entries, shape) of every array that a program makes, its loops and functions included."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield getattr(variable.aval, "size", 0), str(variable.aval)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "jaxpr"):
                    yield from arrays(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    yield from arrays(inner)


@pytest.mark.parametrize(("metric", "n"), [("empirical", 96)])
def test_a_step_of_a_wide_network_makes_nothing_of_size_samples_times_parameters(metric: str, n: int) -> None:
    """Of a whole update no array is larger than θ; S, multiplied out, is seen by the same eye."""
    policy = st.MlpGaussian(8, 2, (256, 256), key=jax.random.key(0))
    batch = in_dtype(batch_of(policy, np.random.default_rng(7).normal(size=(n, 8)), 8, m=1), jnp.float32)
    algorithm = st.npg(metric=METRICS[metric], solver=SampleSpace(momentum=0.9), damping=0.1)
    program = jax.make_jaxpr(lambda: algorithm.update(policy, algorithm.init(policy), batch))()
    largest = max(arrays(program.jaxpr))
    p, rows = trees.size(eqx.filter(policy, eqx.is_inexact_array)), n if metric == "empirical" else 4 * n
    assert rows == 96
    assert largest[0] == p, largest
    assert largest[0] < n * p / 24
    local = linearise(policy, batch.obs)
    operator = METRICS[metric].operator(local, batch)
    held = jax.make_jaxpr(lambda: operator.factor(local.params))()
    assert max(arrays(held.jaxpr))[0] >= n * p
