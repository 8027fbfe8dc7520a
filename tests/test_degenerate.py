"""A thousand cases in which something is degenerate: θ is never NaN, δ is never exceeded, and there is always a reason.

Near-deterministic policies, σ → 0, zero, huge and tiny advantages, one sample, duplicate samples, a dead layer, rows
that are masked and hold NaN, rows that are not masked and do; alone and together. One compiled program takes all cases
of an algorithm, and the KL of what it returns is taken in float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest.algorithms.algorithm import update
from steepest.batch import Batch, Cost
from steepest.geometry import Reason, mean_kl
from steepest.linear import ConjugateGradient, Direct, SampleSpace, Status
from steepest.parameters import split
from steepest.policies import MlpCategorical, MlpGaussian

DELTA = 0.01
CASES, ROWS, INPUTS = 32, 12, 3

ALGORITHMS = {
    "pg": st.pg(DELTA),
    "npg-direct": st.npg(DELTA, solver=Direct(), damping=0.1),
    "npg-direct-undamped": st.npg(DELTA, solver=Direct(), damping=0.0),
    "npg-cg": st.npg(DELTA, solver=ConjugateGradient(10), damping=1e-3),
    "npg-sample-space": st.npg(DELTA, solver=SampleSpace(), damping=1e-3),
    "npg-subsampled": st.npg(DELTA, metric=st.Subsampled(st.fisher, 0.3), solver=ConjugateGradient(10), damping=0.1),
    "npg-warm": st.npg(DELTA, solver=ConjugateGradient(10, warm=True), damping=0.1),
    "npg-relative": st.npg(DELTA, solver=ConjugateGradient(10), damping=st.RelativeDamping(1e-3)),
    "covariant": st.covariant(DELTA, damping=0.1),
    "natural-actor-critic": st.natural_actor_critic(DELTA, solver=SampleSpace(), damping=1e-3),
    "trpo": st.trpo(DELTA, damping=0.1),
    "trpo-undamped": st.trpo(DELTA, damping=0.0),
    "trpo-empirical": st.trpo(DELTA, metric=st.empirical_fisher, damping=1e-3),
    "trpo-adaptive": st.trpo(DELTA, damping=st.LevenbergMarquardt()),
    "trpo-max-kl": st.trpo(DELTA, damping=0.1, step=st.MaxKL(DELTA)),
    "trpo-entropy": replace(st.trpo(DELTA, damping=0.1), objective=st.EntropyRegularised(0.1)),
    "trpo-lagrangian": st.trpo_lagrangian(DELTA, damping=0.1),
    "trpo-preconditioned": st.trpo(DELTA, metric=st.Preconditioned(st.fisher, st.kronecker), damping=1e-3),
    "trpo-by-the-diagonal": st.trpo(DELTA, metric=st.Preconditioned(st.fisher, st.diagonal), damping=1e-3),
    "cpo": st.cpo(DELTA, damping=0.1),
    "acktr": st.acktr(DELTA, damping=1e-3),
    "mirror-descent": st.mirror_descent(DELTA, damping=0.1),
    "spring": st.npg(DELTA, metric=st.empirical_fisher, solver=SampleSpace(momentum=0.9), damping=1e-3),
}
SURE = tuple(name for name in ALGORITHMS if name.startswith(("trpo", "cpo")))  # what promises KL ≤ δ
RISING = tuple(name for name in SURE if name != "cpo")  # a cost that must fall may take the reward with it


def cases(kind: str) -> tuple[Any, Batch, list[str]]:
    """Policies and batches with a leading axis of cases, float32, and what is wrong with each."""
    rng = np.random.default_rng(11)
    policies, batches, names = [], [], []
    for case in range(CASES):
        key = jax.random.key(case)
        policy: Any = (
            MlpCategorical(INPUTS, 4, (5,), key=key) if kind == "categorical" else MlpGaussian(INPUTS, 2, (5,), key=key)
        )
        policy = jax.tree.map(lambda x: np.asarray(x) * 3.0, policy)
        obs = rng.normal(size=(ROWS, INPUTS))
        weight = np.full(ROWS, 1.0)
        advantage = rng.normal(size=(ROWS, 1))
        policy, what = spoil(policy, kind, rng, case)
        faults = [what]
        for fault in sorted(rng.choice(FAULTS, size=rng.integers(0, 3), replace=False), key=FAULTS.index):
            obs, weight, advantage = FAULTS_BY_NAME[fault](obs, weight, advantage, rng)
            faults.append(fault)
        says = jax.vmap(policy)(jnp.asarray(obs, jnp.float32))
        action = np.asarray(jax.vmap(lambda d, k: d.sample(k))(says, jax.random.split(key, ROWS)))
        cost = Cost(rng.normal(size=(ROWS, 1)), np.asarray(rng.choice([-0.5, 0.0, 0.5])))
        ones = np.ones((ROWS, 1))
        batch = Batch(obs, weight / weight.sum(), action[:, None], ones, advantage, np.arange(ROWS) // 3, cost)
        policies.append(policy)
        batches.append(batch)
        names.append(" + ".join(faults))
    stack = lambda trees: jax.tree.map(lambda *x: _float32(np.stack(x)), *trees)  # noqa: E731
    return stack(policies), stack(batches), names


def _float32(x: np.ndarray) -> Any:
    return jnp.asarray(x, jnp.float32 if x.dtype.kind == "f" else jnp.int32)


def spoil(policy: Any, kind: str, rng: Any, case: int) -> tuple[Any, str]:
    """A policy with something extreme about it."""
    head = lambda p: p.net.layers[-1].weight  # noqa: E731
    what = ["as it is", "sharp", "almost deterministic", "dead layer", "flat"][case % 5]
    if what == "dead layer":
        policy = eqx.tree_at(lambda p: p.net.layers[0].weight, policy, replace_fn=lambda x: 0.0 * x)
        policy = eqx.tree_at(head, policy, replace_fn=lambda x: 0.0 * x)
    elif what == "flat":
        policy = jax.tree.map(lambda x: 1e-20 * x, policy)
    elif kind == "categorical" and what != "as it is":
        scale = 10.0 ** rng.uniform(1, 3) if what == "sharp" else 10.0 ** rng.uniform(3, 7)
        policy = eqx.tree_at(head, policy, replace_fn=lambda x: scale * x)
    elif what != "as it is":
        low = rng.uniform(-8, -3) if what == "sharp" else rng.uniform(-60, -8)
        policy = eqx.tree_at(lambda p: p.log_std, policy, replace_fn=lambda x: 0.0 * x + low)
    return policy, what


def _one(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    return obs, np.eye(ROWS)[2], advantage


def _duplicates(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    return np.repeat(obs[:1], ROWS, axis=0), weight, np.repeat(advantage[:1], ROWS, axis=0)


def _zero(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    return obs, weight, 0.0 * advantage


def _huge(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    return obs, weight, advantage * 10.0 ** rng.uniform(6, 36)


def _tiny(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    return obs, weight, advantage * 10.0 ** rng.uniform(-36, -6)


def _ghosts(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    advantage[3:6], weight[3:6] = np.nan, 0.0
    return obs, weight, advantage


def _broken(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    advantage[7] = rng.choice([np.nan, np.inf, -np.inf])
    return obs, weight, advantage


def _far(obs: Any, weight: Any, advantage: Any, rng: Any) -> Any:
    return obs * 10.0 ** rng.uniform(3, 18), weight, advantage


FAULTS_BY_NAME = {
    "duplicates": _duplicates,
    "one sample": _one,
    "no advantage": _zero,
    "huge advantages": _huge,
    "tiny advantages": _tiny,
    "ghost rows": _ghosts,
    "a row that is not finite": _broken,
    "far observations": _far,
}
FAULTS = list(FAULTS_BY_NAME)


def kl_in_float64(old: Any, new: Any, batch: Batch) -> np.ndarray:
    """[CASES] KL(π_old‖π_new), nats per state, between the distributions that the policies give in float32."""
    says = [jax.vmap(lambda p, obs: jax.vmap(p)(obs))(policy, batch.obs) for policy in (old, new)]
    with jax.enable_x64(True):
        double = [jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), d) for d in says]
        return np.asarray(jax.vmap(mean_kl)(double[0], double[1], jnp.asarray(np.asarray(batch.weight), jnp.float64)))


KINDS = ("categorical", "gaussian")
COMMON = (
    "pg",
    "npg-direct",
    "npg-sample-space",
    "covariant",
    "trpo",
    "trpo-max-kl",
    "cpo",
    "acktr",
    "mirror-descent",
    "spring",
)
OFTEN = {(KINDS[i % 2], name) for i, name in enumerate(COMMON)}
"""Every solver and every step with one kind of policy; the others are compilation enough to be slow."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=() if (kind, name) in OFTEN else pytest.mark.slow)
        for kind in KINDS
        for name in ALGORITHMS
    ],
)
def test_degenerate_cases(kind: str, name: str) -> None:
    algorithm = ALGORITHMS[name]
    policy, batch, what = cases(kind)

    def one(policy: Any, batch: Batch, key: Any) -> Any:
        return update(algorithm, policy, algorithm.init(policy), batch, key)

    new, state, info = eqx.filter_jit(eqx.filter_vmap(one))(policy, batch, jax.random.split(jax.random.key(0), CASES))
    old_leaves, new_leaves = (jax.tree.leaves(split(p)[0]) for p in (policy, new))
    kl = kl_in_float64(policy, new, batch)
    reasons = [Reason(int(r)) for r in info.reason]
    for i in range(CASES):
        said = f"case {i}: {what[i]}: {reasons[i].name}, {Status(int(info.status[i])).name}"
        assert all(np.isfinite(x[i]).all() for x in new_leaves), said
        assert bool(info.accepted[i]) == (reasons[i] == Reason.ACCEPTED), said
        assert int(state.failures[i]) == reasons[i].failed, said
        if reasons[i] == Reason.ACCEPTED:
            # what a gradient step's KL would be in the quadratic model may be beyond float32; what it was may not
            told = info._replace(predicted_kl=info.kl) if name == "pg" else info
            assert all(np.isfinite(np.asarray(x[i])).all() for x in jax.tree.leaves(told)), said
            assert not np.isnan(info.predicted_kl[i]), said
            if name in SURE:
                assert kl[i] <= DELTA * 1.01, (said, kl[i], float(info.kl[i]))
                assert name not in RISING or float(info.improvement[i]) > 0, said
            elif name != "pg":
                assert kl[i] <= 100 * DELTA * 1.01, (said, kl[i], float(info.kl[i]))
        else:
            for a, b in zip(old_leaves, new_leaves, strict=True):
                np.testing.assert_array_equal(a[i], b[i], err_msg=said)
            assert float(info.kl[i]) == 0 and float(info.improvement[i]) == 0, said  # noqa: PT018
    for i, faults in enumerate(what):
        if "no advantage" in faults and "not finite" not in faults and name not in ("cpo", "trpo-entropy"):
            assert reasons[i] in (Reason.NO_GRADIENT, Reason.NONFINITE_GRADIENT), f"case {i}: {faults}: {reasons[i]}"
        if "a row that is not finite" in faults and "one sample" not in faults:
            assert reasons[i] == Reason.NONFINITE_GRADIENT, f"case {i}: {faults}: {reasons[i]}"
    assert sum(r == Reason.ACCEPTED for r in reasons) > CASES // 5  # it is not that nothing is ever done


def test_there_are_a_thousand_of_them() -> None:
    assert 2 * CASES * len(ALGORITHMS) >= 1_000
