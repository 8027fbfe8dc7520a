"""Rows that are worked out in chunks give what all at once give, with their derivatives, and take less memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest import chunks
from steepest.algorithms.algorithm import update
from steepest.batch import Batch

N = 103
POLICY = st.MlpGaussian(3, 2, (8, 8), key=jax.random.key(0))


def batch(rows: int = N) -> Batch:
    rng = np.random.default_rng(0)
    obs, action, advantage = (rng.normal(size=(rows, *shape)).astype(np.float32) for shape in ((3,), (1, 2), (1,)))
    return Batch(obs, np.full(rows, 1 / rows, np.float32), action, np.ones((rows, 1), np.float32), advantage,
                 np.zeros(rows, np.int32))  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 50, N - 1, N, N + 1])
def test_each_row_is_worked_out_once_whatever_the_chunk(size: int) -> None:
    rows = {"a": jnp.arange(N), "b": jnp.arange(2.0 * N).reshape(N, 2)}
    found = chunks.each(lambda row: row["a"] + row["b"], rows, size)
    np.testing.assert_array_equal(found, rows["a"][:, None] + rows["b"])


def test_large_batches_come_in_chunks_of_themselves() -> None:
    def maps(rows: int) -> bool:
        return "scan" in str(jax.make_jaxpr(lambda x: chunks.each(jnp.tanh, x))(jnp.zeros(rows)))

    assert not maps(chunks.WHOLE)
    assert maps(chunks.WHOLE + 1)


@pytest.mark.parametrize("size", [10, 64])
def test_an_update_in_chunks_is_the_update(size: int) -> None:
    """Gradient, ten Fisher products, line search: the same θ to a float32's rounding of the step."""
    whole = st.trpo(delta=0.01, damping=0.1, solver=st.ConjugateGradient(10))
    results: list[Any] = []
    for algorithm in (whole, dataclasses.replace(whole, chunk=size)):
        policy, _, info = algorithm.update(POLICY, algorithm.init(POLICY), batch())
        results.append((policy, info))
    (one, report), (other, again) = results
    assert report.accepted
    assert again.accepted
    for a, b, was in zip(*(jax.tree.leaves(p) for p in (one, other, POLICY)), strict=True):
        assert float(jnp.abs(a - was).max()) > 1e-4
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)
    np.testing.assert_allclose(report.kl, again.kl, rtol=1e-3)


def test_the_intermediate_memory_of_an_update_is_that_of_chunks() -> None:
    """The compiler's own account: what a row needs between is kept for the rows of one chunk only."""
    policy = st.MlpGaussian(17, 6, (64, 64), key=jax.random.key(0))
    rows = 20_000

    def temporary(size: int) -> int:
        algorithm = dataclasses.replace(st.trpo(damping=0.1), chunk=size)
        obs, row, action, sample = (
            np.zeros(shape, np.float32) for shape in ((rows, 17), rows, (rows, 1, 6), (rows, 1))
        )
        given = Batch(obs, row, action, sample, sample, np.zeros(rows, np.int32))
        program = jax.jit(lambda b: update(algorithm, policy, algorithm.init(policy), b)[2].kl)
        memory: Any = program.lower(given).compile().memory_analysis()
        return memory.temp_size_in_bytes

    assert temporary(1000) < 0.3 * temporary(rows)


def test_a_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(st.UsageError, match="at least 1 row, got 0"):
        dataclasses.replace(st.trpo(), chunk=0)
    with pytest.raises(st.UsageError, match="chunk must be at least 1, got 0"):
        st.train("CartPole-v1", chunk=0)
