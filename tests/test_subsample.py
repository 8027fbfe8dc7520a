"""Fisher products on a part of the batch: drawn once an update, the same for all products; the rest sees every row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype, problem
from steepest.geometry import Moment, Subsampled, begun, empirical_fisher, fisher, initial, linearise
from steepest.linear import ConjugateGradient, Measured, SampleSpace


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def at(kind: str = "mlp-gaussian", seed: int = 0) -> tuple[Any, Any, Moment]:
    policy, batch = in_dtype(problem(kind), jnp.float64)
    local = linearise(policy, batch.obs)
    return local, batch, Moment(local, batch, jax.random.key(seed), jnp.zeros((), jnp.int32))


@pytest.mark.parametrize("metric", [fisher, empirical_fisher])
def test_it_is_the_metric_of_the_rows_that_were_drawn(metric: Any) -> None:
    local, batch, moment = at()
    part, carried = begun(Subsampled(metric, 0.25), (), moment)
    assert carried == ()
    assert len(part.drawn) == len(set(part.drawn.tolist())) == 12
    operator = part.operator(local, batch)
    expected = 0.0
    for n in part.drawn:
        one = jnp.asarray([n])
        alone = jax.tree.map(lambda x, one=one: x[one], batch)._replace(weight=jnp.ones(1))
        expected += batch.weight[n] * metric.operator(local.subset(one), alone).matrix(local.params)
    expected /= batch.weight[part.drawn].sum()
    np.testing.assert_allclose(operator.matrix(local.params), expected, rtol=1e-10, atol=1e-13)


def test_the_length_of_a_step_is_that_of_all_rows() -> None:
    local, batch, moment = at()
    part, _ = begun(Subsampled(fisher, 0.1), (), moment)
    operator = part.operator(local, batch)
    assert isinstance(operator, Measured)
    v = jax.tree.map(jnp.ones_like, local.params)
    np.testing.assert_allclose(operator.quadratic(v), fisher.operator(local, batch).quadratic(v), rtol=1e-12)
    for seed in range(3):
        algorithm = st.npg(1e-6, metric=Subsampled(fisher, 0.2), damping=0.1)
        policy, data = in_dtype(problem("mlp-gaussian"), jnp.float64)
        _, _, info = algorithm.update(policy, algorithm.init(policy), data, jax.random.key(seed))
        np.testing.assert_allclose(info.kl, 1e-6, rtol=0.01)  # δ is the KL of the whole batch, whatever was drawn


def test_pitfall_7_the_rows_are_drawn_once_an_update() -> None:
    """All products of a solve are with one matrix: CG to convergence solves it, and equal keys give equal steps."""
    local, batch, moment = at()
    part, _ = begun(Subsampled(fisher, 0.5), (), moment)
    operator = part.operator(local, batch).damped(0.1)
    rhs = jax.tree.map(jnp.ones_like, local.params)
    x = ConjugateGradient(60, tolerance=1e-12)(operator, rhs).x
    residual = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), operator(x), rhs)
    assert max(jax.tree.leaves(residual)) < 1e-9
    other, _ = begun(Subsampled(fisher, 0.5), (), moment._replace(key=jax.random.key(9)))
    assert set(other.drawn.tolist()) != set(part.drawn.tolist())


def test_pitfall_8_the_gradient_and_the_line_search_see_every_row() -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float64)
    whole, part = st.trpo(1e-4, damping=0.1), st.trpo(1e-4, metric=Subsampled(fisher, 0.1), damping=0.1)
    _, _, a = whole.update(policy, whole.init(policy), batch)
    new, _, b = part.update(policy, part.init(policy), batch)
    np.testing.assert_allclose(b.gradient_norm, a.gradient_norm, rtol=1e-12)
    old, now = jax.vmap(policy)(batch.obs), jax.vmap(new)(batch.obs)
    np.testing.assert_allclose(b.kl, st.geometry.mean_kl(old, now, batch.weight), rtol=1e-9)


def test_all_rows_are_the_metric_itself() -> None:
    local, batch, moment = at()
    part, _ = begun(Subsampled(fisher, 1.0), (), moment)
    np.testing.assert_allclose(
        part.operator(local, batch).matrix(local.params),
        fisher.operator(local, batch).matrix(local.params),
        rtol=1e-10,
        atol=1e-14,
    )


def test_only_masked_rows_give_no_nan() -> None:
    policy, batch = in_dtype(problem("mlp-gaussian"), jnp.float64)
    masked = batch._replace(weight=jnp.zeros(48).at[5].set(1.0))
    for seed in range(4):
        algorithm = st.npg(metric=Subsampled(fisher, 0.02), damping=0.1)
        new, _, _ = algorithm.update(policy, algorithm.init(policy), masked, jax.random.key(seed))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))


def test_what_it_cannot_do_is_refused() -> None:
    for fraction in (0.0, 1.5, np.nan):
        with pytest.raises(st.UsageError, match=r"fraction in \(0, 1\]"):
            Subsampled(fisher, fraction)
    local, batch, _ = at()
    with pytest.raises(st.UsageError, match="call begin first"):
        Subsampled(fisher, 0.5).operator(local, batch)
    policy, data = in_dtype(problem("mlp-gaussian"), jnp.float64)
    algorithm = st.npg(metric=Subsampled(fisher, 0.5), solver=SampleSpace(), damping=0.1)
    with pytest.raises(st.UsageError, match="ConjugateGradient"):
        algorithm.update(policy, algorithm.init(policy), data)


def test_a_part_that_is_always_the_same_carries_nothing() -> None:
    local, _, moment = at()
    assert initial(fisher, local.params) == ()
    assert begun(fisher, (), moment) == (fisher, ())
