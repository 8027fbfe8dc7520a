"""The partially observed MDP  (S, A, O, H, r, P, ρ, Ω): a policy sees o ~ Ω(·|s), and may keep a memory of its own.

    finite-state controller   π(a, m'|o, m),  m_0 = 0: it acts and chooses what to remember, of M memory states

Together with the world it is a policy in a finite-horizon MDP without anything hidden:

    state (s, o, m), index (s·O + o)·M + m        action (a, m'), index a·M + m'
    P(s',o',m'|s,o,m, a,m'₀) = P(s'|s,a) Ω(o'|s') 1[m' = m'₀]

in which it looks only at (o, m), index o·M + m. So the score of a path is Σ_h ∇ln π(a,m'|o,m) (Bagnell & Schneider
2003), its terms are still a martingale, and G = H·F holds as it does everywhere.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.worlds.finite import actions, tables
from steepest.worlds.finite.model import FiniteHorizonMDP


class Observed(eqx.Module):
    """A policy of what is seen, as a policy of the state: k ↦ policy(k mod n).  Made by `FinitePOMDP.observed`.

    policy: maps the index o·M + m to a distribution over the A·M actions; trained.
    seen: n = O·M, how many indices there are.
    states_of_world: S·O·M of the MDP that it was made for; that of another refuses it.
    """

    policy: Any
    seen: int = eqx.field(static=True)
    states_of_world: int = eqx.field(static=True)

    def __call__(self, state: Any) -> Categorical:
        return self.policy(state % self.seen)


class FinitePOMDP:
    """H steps among S states with A actions, of which a policy sees one of O observations.

    transition: P(s'|s,a), [S,A,S], or [H,S,A,S] where it depends on the step.
    reward: r(s,a), [S,A] or [H,S,A].
    initial: ρ(s), [S].
    horizon: H ≥ 1, steps.
    observation: Ω(o|s), [S,O]: drawn afresh in every step.

    Raises UsageError as `FiniteHorizonMDP` does, and for an Ω that does not fit.
    """

    def __init__(self, transition: Any, reward: Any, initial: Any, horizon: int, observation: Any):
        self.hidden = FiniteHorizonMDP(transition, reward, initial, horizon)
        seen = tables.numbers("observation", observation)
        if seen.ndim != 2 or seen.shape[0] != self.hidden.states or seen.shape[1] < 1:
            raise UsageError(
                f"observation must have shape [S,O] with S={self.hidden.states} from initial and O ≥ 1, "
                f"got {list(seen.shape)}"
            )
        tables.require_distribution("observation", seen)
        seen.setflags(write=False)
        self._observation = seen

    @property
    def observation(self) -> Float[np.ndarray, "S O"]:
        """Ω; read-only."""
        return self._observation

    @property
    def observations(self) -> int:
        """O."""
        return self._observation.shape[1]

    def __repr__(self) -> str:
        world = self.hidden
        return f"FinitePOMDP(S={world.states}, A={world.actions}, O={self.observations}, H={world.horizon})"

    def mdp(self, memory: int = 1) -> FiniteHorizonMDP:
        """The MDP of states (s,o,m) and actions (a,m'), S·O·M and A·M of them.

        memory: M ≥ 1; 1 for memoryless policies. Its `optimal()` sees what is hidden: an upper bound, no controller.
        """
        size = _memory(memory)
        world, seen, kept = self.hidden, self._observation, np.eye(size)
        count, choices = world.states * self.observations * size, world.actions * size
        clock = world.transition.shape[:-3]
        moved = np.einsum("...sat,tp,nk->...santpk", world.transition, seen, kept)  # (s, a, m'; s', o', m')
        wide = (*clock, world.states, self.observations, size, *moved.shape[-5:])
        transition = np.broadcast_to(moved[..., :, None, None, :, :, :, :, :], wide)
        paid = world.reward[..., :, None, None, :, None]
        ones = np.ones((self.observations, size, 1, size))
        reward = (paid * ones).reshape(*world.reward.shape[:-2], count, choices)
        initial = np.einsum("s,so,m->som", world.initial, seen, kept[0]).ravel()
        return FiniteHorizonMDP(transition.reshape(*clock, count, choices, count), reward, initial, world.horizon)

    def observed(self, policy: Any, memory: int = 1) -> Observed:
        """The controller as a policy of `mdp(memory)`.

        policy: maps the index o·M + m to a `Categorical` over the A·M actions a·M + m'; its parameters are θ.

        Raises UsageError for what is no policy, and for a table that has not a row for each (o, m).
        """
        size = _memory(memory)
        seen = self.observations * size
        said = f"O·M={seen} pairs of an observation and a memory state"
        actions.require_policy(policy, seen, self.hidden.actions * size, said)
        return Observed(policy, seen, self.hidden.states * seen)


def _memory(given: Any) -> int:
    if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 1:
        raise UsageError(f"memory must be an integer ≥ 1, the number of memory states, got {given!r}")
    return int(given)
