"""The nouns of the flow: a `Rollout` is what happened, a `Batch` is what an update sees.

    Rollout  T steps of B environments, in raw units, as the worlds gave them (NumPy, on the host)
    Batch    N states with m actions each, weighted:  L(θ) = Σ_n w_n Σ_m v_nm · A_nm · π_θ(a_nm|s_n)/π_old(a_nm|s_n)

Exact and sampled are one type. A rollout has m = 1, v = 1, w = 1/N; a finite MDP has N = S, m = A, w = d(s),
v = π(a|s). Masked rows (padding, reset ghosts) have w = 0 and are a special case nowhere else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float, Int


class Rollout(NamedTuple):
    """T consecutive steps of B environments. One row is one canonical transition.

    obs: [T,B,…] what the policy saw, not normalised.
    action: [T,B,…] what the policy chose: before any clipping to the bounds of the environment.
    reward: [T,B] float32, raw.
    next_obs: [T,B,…] the true successor of (obs, action), also at the end of an episode: never the reset observation.
    terminated: [T,B] the successor is absorbing, its value 0.
    truncated: [T,B] the episode was cut; the successor has a value and is bootstrapped.
    valid: [T,B] False for ghost rows, in which a vector environment reset itself and ignored the action.
    cost: [T,B] float32, raw, as in a `Transition`; None for a world that reports none.
    memory: [B,M] what the policy remembered before the first row, flat; None for one that remembers nothing. It begins
        anew after a row that is terminated, truncated or not valid.
    """

    obs: Any
    action: Any
    reward: Any
    next_obs: Any
    terminated: Any
    truncated: Any
    valid: Any
    cost: Any = None
    memory: Any = None


class Cost(NamedTuple):
    """What a limit J_C ≤ d on a cost says of a batch: Σ w v A_C·π/π_old + c ≤ 0, per state.

    advantage: A_C [N,m], in raw units of the cost.
    excess: c, []: J_C − d in the unit in which the mean of A_C is a change of J_C: divided by the length of an episode.
    """

    advantage: Float[Any, "N m"]
    excess: Float[Any, ""]


class Batch(NamedTuple):
    """N states with m weighted actions each: all that the geometry knows of reinforcement learning.

    obs: [N,…] as the policy takes it (normalised already); for one that remembers, `Sequences` of N rows.
    weight: [N], Σ = 1; 0 for a masked row.
    action: [N,m,…].
    action_weight: [N,m], Σ_m = 1.
    advantage: [N,m], in raw reward units.
    segment: [N] int, which path the row lies on; any labels.
    cost: what is limited, or None.
    """

    obs: Any
    weight: Float[Any, " N"]
    action: Any
    action_weight: Float[Any, "N m"]
    advantage: Float[Any, "N m"]
    segment: Int[Any, " N"]
    cost: Cost | None = None
