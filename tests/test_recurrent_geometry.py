"""Policies with memory in the geometry: gradients and Fisher products through time against dense float64 oracles."""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import steepest as st
from recurrent_problems import KINDS, MASKED, problem, step_by_step
from steepest import parameters
from steepest.chunks import divided, each
from steepest.errors import UsageError
from steepest.geometry import (
    Moment,
    Preconditioned,
    Subsampled,
    begun,
    diagonal,
    empirical_fisher,
    expected_advantage,
    fisher,
    kronecker,
    linearise,
    mean_kl,
    trajectory,
)
from steepest.policies.masked import with_mask
from steepest.sequences import Sequences, advance, along

SOME = [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]


class Dense:
    """J = ∂z/∂θ through time, by forward differentiation of the loop; and what follows from it."""

    def __init__(self, policy: Any, batch: Any):
        params, self.rest = parameters.split(policy)
        self.flat, self.unravel = ravel_pytree(params)
        self.batch = batch
        self.distribution, self.jacobian = jax.jit(lambda theta: (self.said(theta), jax.jacfwd(self.said)(theta)))(
            self.flat
        )

    def said(self, theta: Any) -> Any:
        return step_by_step(parameters.merge(self.unravel(theta), self.rest), self.batch.obs)

    def rows(self) -> np.ndarray:
        """√w·R·J, [N,k,P]."""
        columns = jax.vmap(self.distribution.whiten, in_axes=-1, out_axes=-1)(self.jacobian)
        return np.sqrt(np.asarray(self.batch.weight))[:, None, None] * np.asarray(columns)

    def fisher(self) -> np.ndarray:
        rows = self.rows().reshape(-1, self.flat.size)
        return rows.T @ rows

    def scores(self) -> np.ndarray:
        """The rows √w uᵀRJ of the actions taken, [N,P]."""
        score = np.asarray(self.distribution.whitened_score(self.batch.action[:, 0]))
        return np.einsum("nk,nkp->np", score, self.rows())

    def gradient(self) -> np.ndarray:
        """Of Σ w·A·ln π."""
        factor = np.sqrt(np.asarray(self.batch.weight)) * np.asarray(self.batch.advantage[:, 0])
        return factor @ self.scores()

    def hessian(self) -> np.ndarray:
        """Of the mean KL, by automatic differentiation."""

        def kl(theta: Any) -> Any:
            return mean_kl(self.distribution, self.said(theta), self.batch.weight)

        return np.asarray(jax.jit(jax.jacfwd(jax.jacfwd(kl)))(self.flat))


@functools.cache
def dense_of(kind: str) -> Dense:
    return Dense(*problem(kind))


def product(operator: Any, like: Any) -> np.ndarray:
    """Its matrix, by products with the unit vectors."""
    flat, unravel = ravel_pytree(like)
    return np.asarray(jax.jit(jax.vmap(lambda e: ravel_pytree(operator(unravel(e)))[0]))(jnp.eye(flat.size))).T


@eqx.filter_jit
def everything(policy: Any, batch: Any) -> Any:
    """(distributions, gradient [P], three matrices [P,P]) as the library has them, the latter by products."""
    local = linearise(policy, batch.obs)
    flat, unravel = ravel_pytree(local.params)

    def matrix(metric: Any) -> Any:
        operator = metric.operator(local, batch)
        return jax.vmap(lambda e: ravel_pytree(operator(unravel(e)))[0])(jnp.eye(flat.size))

    gradient = ravel_pytree(expected_advantage.gradient(local, batch).vector)[0]
    return local.distribution, gradient, [matrix(metric) for metric in (fisher, empirical_fisher, trajectory)]


@pytest.mark.parametrize("kind", SOME)
def test_products_through_time_are_those_of_the_dense_matrices(kind: str) -> None:
    with jax.enable_x64(True):
        policy, batch = problem(kind)
        dense, (distribution, gradient, matrices) = dense_of(kind), everything(policy, batch)
        for here, there in zip(jax.tree.leaves(distribution), jax.tree.leaves(dense.distribution), strict=True):
            np.testing.assert_allclose(here, there, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(gradient, dense.gradient(), rtol=1e-10, atol=1e-14)
        scores, segment = dense.scores(), np.asarray(batch.segment)
        paths = np.stack([scores[segment == s].sum(axis=0) for s in np.unique(segment)])
        oracles = dense.fisher(), scores.T @ scores, paths.T @ paths
        for here, there in zip(matrices, oracles, strict=True):
            np.testing.assert_allclose(here, there, atol=1e-13 * np.abs(there).max())


@pytest.mark.parametrize("kind", [pytest.param("gru-categorical", marks=pytest.mark.slow), "own-module"])
def test_the_fisher_matrix_through_time_is_the_hessian_of_the_mean_kl(kind: str) -> None:
    with jax.enable_x64(True):
        dense = dense_of(kind)
        np.testing.assert_allclose(dense.hessian(), dense.fisher(), atol=1e-13 * np.abs(dense.fisher()).max())


@pytest.mark.parametrize("kind", KINDS[2:])
def test_acting_one_step_at_a_time_says_the_same(kind: str) -> None:
    with jax.enable_x64(True):
        policy, batch = problem(kind)
        sequences, says, step = batch.obs, [], eqx.filter_jit(advance)
        memory, (outputs, memories) = sequences.memory, eqx.filter_jit(along)(policy, batch.obs)
        for t, (obs, fresh) in enumerate(zip(sequences.obs, sequences.fresh, strict=True)):
            memory, said = step(policy, jnp.where(fresh[:, None], 0.0, memory), obs)
            says.append(said)
            np.testing.assert_allclose(memory, memories[t], rtol=1e-13, atol=1e-15)
        together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *says)
        for here, there in zip(jax.tree.leaves(outputs), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(here, there, rtol=1e-13, atol=1e-15)


class InSteps(eqx.Module):
    """A policy of which no stages are known."""

    policy: Any

    def initial(self) -> Any:
        return self.policy.initial()

    def step(self, memory: Any, obs: Any) -> Any:
        return self.policy.step(memory, obs)


def test_what_is_forbidden_has_no_probability_and_the_rest_is_in_proportion() -> None:
    """With stages and without; and in a row without an observation nothing is forbidden."""
    with jax.enable_x64(True):
        policy, batch = problem("gru-masked")
        in_steps, rows = with_mask(InSteps(policy.policy), MASKED), batch.obs
        assert type(in_steps).__name__ == "MaskedRecurrent"
        own, mask = (
            rows._replace(obs=rows.obs[..., :2].astype(np.float32), memory=rows.memory[:, :2]),
            rows.obs[..., 2:].reshape(-1, 3),
        )
        p = np.asarray(jax.nn.softmax(each(policy.policy, own).logits)) * np.where(mask.any(axis=1)[:, None], mask, 1.0)
        for masked, memory in ((policy, rows.memory), (in_steps, own.memory)):
            probs = np.asarray(each(masked, rows._replace(memory=memory)).probs)
            np.testing.assert_array_equal(probs[(mask == 0) & mask.any(axis=1)[:, None]], 0.0)
            np.testing.assert_allclose(probs, p / p.sum(axis=1, keepdims=True), rtol=1e-13)


def test_the_memory_before_the_first_step_is_a_constant_that_matters() -> None:
    with jax.enable_x64(True):
        policy, batch = problem("gru-categorical")

        def said(memory: Any) -> Any:
            return each(policy, batch.obs._replace(memory=memory)).logits

        assert not np.any(jax.jacrev(said)(batch.obs.memory))
        moved = np.asarray(said(batch.obs.memory + 1.0) - said(batch.obs.memory)).reshape(4, 2, 3)
        assert np.abs(moved[:1, 0]).min() > 0  # until its first episode ends
        assert not moved[1:, 0].any()
        assert np.abs(moved[:2, 1]).min() > 0
        assert not moved[2:, 1].any()


SOLVERS = [st.ConjugateGradient(60, tolerance=1e-12), st.Direct(), st.SampleSpace()]


@pytest.mark.parametrize("solver", [SOLVERS[0], *(pytest.param(s, marks=pytest.mark.slow) for s in SOLVERS[1:])])
def test_an_update_is_the_natural_gradient_step(solver: Any) -> None:
    with jax.enable_x64(True):
        policy, batch = problem("gru-categorical")
        dense, damping = dense_of("gru-categorical"), 1e-3
        algorithm = st.Algorithm("npg", expected_advantage, fisher, solver, st.Normalised(1e-10), damping)
        after, _, info = algorithm.update(policy, algorithm.init(policy), batch)
        matrix = dense.fisher()
        x = np.linalg.solve(matrix + damping * np.eye(len(matrix)), dense.gradient())
        step = np.sqrt(2e-10 / (x @ matrix @ x)) * x
        moved = ravel_pytree(parameters.split(after)[0])[0] - dense.flat
        np.testing.assert_allclose(moved, step, rtol=1e-6, atol=1e-8 * np.abs(step).max())
        assert info.accepted
        assert float(info.kl) == pytest.approx(1e-10, rel=1e-2)


def test_what_needs_rows_that_stand_alone_is_refused() -> None:
    policy, batch = problem("gru-categorical", jnp.float32)
    flat = batch._replace(obs=batch.obs.obs.reshape(-1, 2))
    for algorithm, given, message in (
        (st.npg(metric=kronecker), batch, "memory"),
        (st.npg(metric=Preconditioned(fisher, diagonal)), batch, "preconditioner"),
        (st.npg(), flat, "sequences"),
    ):
        with pytest.raises(UsageError, match=message):
            algorithm.update(policy, algorithm.init(policy), given)
    with pytest.raises(UsageError, match="has no memory"):
        each(lambda obs: obs, batch.obs)


@pytest.mark.parametrize("kind", SOME)
def test_a_subsample_is_the_fisher_matrix_of_whole_sequences(kind: str) -> None:
    with jax.enable_x64(True):
        policy, batch = problem(kind)
        local = linearise(policy, batch.obs)
        moment = Moment(local, batch, jax.random.key(2), jnp.zeros((), jnp.int32))
        part, _ = begun(Subsampled(fisher, 0.5), (), moment)
        (steps, envs), drawn = batch.obs.fresh.shape, part.drawn.tolist()
        assert len(drawn) == math.ceil(envs / 2) < envs
        of_drawn = [t * envs + b for t in range(steps) for b in drawn]
        rows = dense_of(kind).rows()[of_drawn].reshape(-1, dense_of(kind).flat.size)
        expected = rows.T @ rows / np.asarray(batch.weight)[of_drawn].sum()
        found = product(part.operator(local, batch), local.params)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("size", [1, 7])
def test_sequences_in_chunks_are_the_same_map_with_the_same_derivatives(kind: str, size: int) -> None:
    with jax.enable_x64(True):
        policy, batch = problem(kind)
        whole, parts = linearise(policy, batch.obs), linearise(policy, batch.obs, size)
        assert divided(batch.obs, size)
        generator = np.random.default_rng(0)
        change = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape)), whole.params)
        back = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape)), whole.push(change))
        for x, y in (
            (whole.distribution, parts.distribution),
            (whole.push(change), parts.push(change)),
            (whole.pull(back), parts.pull(back)),
        ):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), x, y)


def test_a_chunk_has_as_many_whole_sequences_as_fit_and_divide_their_number() -> None:
    with jax.enable_x64(True):
        policy, batch = problem("gru-categorical")
        six = batch.obs.of(jnp.array([1, 0, 0, 1, 1, 0]))
        for size, together in ((1, 1), (8, 2), (11, 2), (12, 3), (20, 3)):  # of 4 steps each
            assert divided(six, size)
            text = str(jax.make_jaxpr(lambda size=size: each(policy, six, size))())
            assert f"f64[{6 // together},4,{together},2]" in text
            for x, y in zip(jax.tree.leaves(each(policy, six, size)), jax.tree.leaves(each(policy, six)), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-13)
        assert not divided(six, 24)


def test_sequences_of_some_environments() -> None:
    _, batch = problem("gru-categorical", jnp.float32)
    some: Sequences = batch.obs.of(jnp.array([1, 0]))
    assert some.rows == 8
    np.testing.assert_array_equal(some.obs[:, 1], batch.obs.obs[:, 0])
    np.testing.assert_array_equal(some.memory[0], batch.obs.memory[1])
