"""A functional environment as a world of B copies: what evaluation, vine and everything else on the host works with.

The host sees NumPy arrays; a step is one compiled program. Training on one path does not step it: it takes `copies`
into a program of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steepest.errors import RunError, UsageError
from steepest.spaces import Box, Joint
from steepest.worlds.functional.copies import Copies, Outcome, Stand, where
from steepest.worlds.functional.protocol import FunctionalEnvironment
from steepest.worlds.world import Transition


class FunctionalWorld:
    """`World` and `SettableWorld` of copies of one environment.

    environment: of the functional form (`protocol.py`).  envs: B ≥ 1.  params, time_limit: as in `Copies`; the
    environment's own, if not given.  name, backend: as in `World`.

    A copy resets itself in the step that ends its episode: `obs` is then the next episode's first observation, while
    the transition's next_obs is the true successor. No row is a ghost.

    Raises UsageError where the environment cannot be traced and vectorised, or says other than its spaces; in `step`
    RunError for observations and rewards that are not finite.
    """

    def __init__(
        self,
        environment: FunctionalEnvironment,
        envs: int = 1,
        *,
        params: Any = None,
        time_limit: int | None = None,
        name: str | None = None,
        backend: str = "functional",
    ):
        if envs < 1:
            raise UsageError(f"a world has at least one environment, got envs={envs}")
        self.copies = Copies(environment, params=params, time_limit=time_limit)
        self.name, self.backend, self.envs = name or self.copies.name, backend, envs
        self.observation_space, self.action_space = environment.observation_space, environment.action_space
        self._begin = jax.jit(self.copies.begin)
        self._step, self._follow = jax.jit(self.copies.step), jax.jit(_where_running(self.copies))
        self._stand: Stand | None = None
        self._obs: np.ndarray | None = None

    def with_envs(self, envs: int) -> FunctionalWorld:
        """The same environment, `envs` times; what is compiled for it is shared."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, envs=envs, _stand=None, _obs=None)
        return other

    @property
    def stand(self) -> Stand:
        """Where the copies stand, on the device. Raises UsageError before the first reset."""
        if self._stand is None:
            raise UsageError(f"world {self.name!r} must be reset before it is used")
        return self._stand

    @property
    def obs(self) -> np.ndarray:
        """[B,…] what to act upon next. Raises UsageError before the first reset."""
        if self._obs is None:
            self._obs = np.asarray(self.stand.obs)
        return self._obs

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start B new episodes and return their observations [B,…]; see `World.reset`."""
        if seed is None:
            return self._put(self._begin(self.copies.tables, self.stand.key, self.stand.drawn))
        keys = jax.random.split(jax.random.key(seed), self.envs)
        return self._put(self._begin(self.copies.tables, keys, jnp.zeros(self.envs, jnp.uint32)))

    def step(self, action: np.ndarray) -> Transition:
        """One step of all copies.  action: [B,…], clipped to the bounds of the space."""
        stand, outcome = self._step(self.copies.tables, self.stand, self._checked(action))
        transition = self._transition(outcome, np.ones(self.envs, bool))
        self._put(stand)
        return transition

    def close(self) -> None:
        """Nothing is held."""

    def get_state(self, envs: Sequence[int] | None = None) -> list[Any]:
        """See `SettableWorld.get_state`."""
        host = jax.tree.map(np.asarray, plain(self.stand))
        return [jax.tree.map(lambda x, i=i: x[i], host) for i in (range(self.envs) if envs is None else envs)]

    def set_state(self, states: Sequence[Any], seeds: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """See `SettableWorld.set_state`."""
        for what, given in (("states", states), ("seeds", seeds)):
            if given is not None and len(given) != self.envs:
                raise UsageError(f"{self.name} has {self.envs} environments, got {len(given)} {what}")
        stand = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *states)
        stand = stand._replace(key=jax.random.wrap_key_data(stand.key))
        if seeds is not None:
            keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
            stand = stand._replace(key=keys, drawn=jnp.zeros_like(stand.drawn))
        return self._put(stand)

    def keep(self) -> list[np.ndarray]:
        """See `Keepable.keep`."""
        return [np.asarray(leaf) for leaf in jax.tree.leaves(plain(self.stand))]

    def put_back(self, kept: Any) -> None:
        """See `Keepable.put_back`."""
        here, structure = jax.tree.flatten(plain(self.stand))
        fits = isinstance(kept, list) and [_form(x) for x in kept] == [_form(x) for x in here]
        if not fits:
            raise RunError(f"{self.name}: the state that was kept does not fit")
        stand = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in kept])
        self._put(stand._replace(key=jax.random.wrap_key_data(stand.key)))

    def advance(self, action: np.ndarray, running: np.ndarray) -> Transition:
        """See `SettableWorld.advance`. A copy that ends stays where it is."""
        running = np.array(running, bool)
        stand, outcome = self._follow(self.copies.tables, self.stand, self._checked(action), running)
        transition = self._transition(outcome, running)
        self._put(stand)
        return transition

    def _put(self, stand: Stand) -> np.ndarray:
        self._stand, self._obs = stand, None
        return self.obs

    def _checked(self, action: Any) -> np.ndarray:
        action, space = np.asarray(action), self.copies.action
        shape = (self.envs, *space.shape)
        kinds = "fiu" if isinstance(space, Box | Joint) else "iu"
        if action.shape != shape or action.dtype.kind not in kinds:
            raise UsageError(f"{self.name} takes actions of shape {shape}, got {action.dtype} of shape {action.shape}")
        counts = np.inf if isinstance(space, Box) else space.counts
        if (np.isfinite(counts) & ((action < 0) | (action >= counts))).any():
            raise UsageError(f"{self.name}: actions are 0 … {counts - 1}, got {action.min()} … {action.max()}")
        if not np.isfinite(action).all():
            raise RunError(f"{self.name} was to be given an action that is not finite")
        return action

    def _transition(self, outcome: Outcome, valid: np.ndarray) -> Transition:
        reward, next_obs, terminated, truncated, cost = (None if x is None else np.asarray(x) for x in outcome)
        assert reward is not None
        assert next_obs is not None
        for what, array in (("an observation", next_obs), ("a reward", reward)):
            if not np.isfinite(array).all():
                env = int(np.argwhere(~np.isfinite(array))[0][0])
                raise RunError(f"{self.name}: environment {env} of {self.envs} returned {what} that is not finite")
        return Transition(reward, next_obs, terminated, truncated, valid, cost)  # type: ignore[arg-type]


def plain(stand: Stand) -> Stand:
    """With the random keys as numbers."""
    return stand._replace(key=jax.random.key_data(stand.key))


def _form(leaf: Any) -> Any:
    return getattr(leaf, "shape", None), getattr(leaf, "dtype", None)


def _where_running(copies: Copies) -> Any:
    """A step of some of the copies: the others stand still."""

    def follow(tables: Any, stand: Stand, action: Any, running: Any) -> tuple[Stand, Outcome]:
        stepped, outcome = copies.follow(tables, stand, action)
        goes_on = running & ~(outcome.terminated | outcome.truncated)
        cost = None if outcome.cost is None else jnp.where(running, outcome.cost, 0.0)
        still = Outcome(
            jnp.where(running, outcome.reward, 0.0),
            where(running, outcome.next_obs, stand.obs),
            outcome.terminated & running,
            outcome.truncated & running,
            cost,
        )
        return where(goes_on, stepped, stand), still

    return follow
