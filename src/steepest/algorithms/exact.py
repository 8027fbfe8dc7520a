"""Exact methods: an algorithm on the exact batch of a finite MDP, in float64.

    policy, info = improve(policy, mdp, npg(delta=0.01))
    policies, infos = iterate(policy, mdp, algorithm, steps=100)

There is no exact algorithm, only an exact `Batch`: the very lines that train on sampled data run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from steepest.algorithms.algorithm import Algorithm
from steepest.batch import Batch
from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.geometry import StepInfo
from steepest.worlds.finite.precision import exact, inwards

P = TypeVar("P", bound=Policy)


@runtime_checkable
class ExactWorld(Protocol):
    """Whatever can enumerate its own batch under a policy."""

    def batch(self, policy: Any) -> Batch:
        """The weighted batch, NumPy float64."""
        ...


def improve(policy: P, mdp: ExactWorld, algorithm: Algorithm) -> tuple[P, StepInfo]:
    """One exact step of `algorithm` in float64.

    policy: maps a state index to a distribution.  mdp: the world.

    Returns the policy after the step, its arrays NumPy float64, and the trust report (NumPy scalars). The policy is
    the one given, bit for bit in float64, where no step was taken.
    """
    policies, infos = iterate(policy, mdp, algorithm, steps=1)
    return policies[-1], infos[0]


def iterate(policy: P, mdp: ExactWorld, algorithm: Algorithm, steps: int) -> tuple[list[P], list[StepInfo]]:
    """`steps` exact steps, carrying the algorithm's state.

    Returns the policies θ_0 … θ_steps, steps + 1 of them, and the trust report of each step. Raises UsageError for
    steps < 1.
    """
    if steps < 1:
        raise UsageError(f"iterate needs steps ≥ 1, got {steps}")
    if not isinstance(algorithm, Algorithm):
        raise UsageError(f"expected an algorithm such as st.npg(delta=0.01), got {algorithm!r}")
    if not isinstance(mdp, ExactWorld):
        raise UsageError(f"expected a world with an exact batch, such as st.FiniteHorizonMDP, got {mdp!r}")
    return _iterate(policy, mdp, algorithm, steps)


def policy_path(policies: Sequence[Policy], mdp: Any) -> Float[np.ndarray, "T S A"]:
    """π_t(a|s) along a list of policies, as `iterate` returns them: the path in the space of behaviour, in which two
    parameterisations can be compared.

    mdp: whatever has `probabilities(policy)`, such as st.FiniteHorizonMDP.

    Returns [T,S,A] float64, T the number of policies. Raises UsageError for none.
    """
    if not len(policies):
        raise UsageError("policy_path needs at least one policy")
    return np.stack([mdp.probabilities(policy) for policy in policies])


@exact
def _iterate(policy: P, mdp: ExactWorld, algorithm: Algorithm, steps: int) -> tuple[list[P], list[StepInfo]]:
    current = inwards(policy)
    state = algorithm.init(current)
    policies, infos = [current], []
    for _ in range(steps):
        batch = jax.tree.map(jnp.asarray, mdp.batch(current))
        current, state, info = algorithm.update(current, state, batch)
        policies.append(current)
        infos.append(info)
    return policies, infos
