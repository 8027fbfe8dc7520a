"""Worlds that can be put back into a state, which rollouts from states that were visited before need.

    states = world.get_state()              where the environments stand: opaque snapshots, on the host
    world.set_state(states, seeds)          environment i stands where states[i] was taken
    world.advance(action, running)          a step of some of the environments, none of which resets itself

What follows a state is the same to the bit each time, for the same actions: the random numbers of an environment are
part of its state. With seeds they start anew, the same for equal seeds: common random numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from steepest.errors import UsageError
from steepest.spaces import Box, Masked, Space, describe, permitted
from steepest.worlds.state_record import from_record, to_record
from steepest.worlds.world import Transition, World

_INSTEAD = (
    "single path needs no such thing: leave the scheme at single-path; or give the unwrapped environment two methods, "
    "get_state() → state and set_state(state)"
)


MOST = 1000
"""Parts of the state of one environment, and kilobytes of it, that are kept with every rollout: MuJoCo's have tens. One
that carries a table of data with it has more."""


class Keepable(Protocol):
    """A world that another process can take up where it stands."""

    def keep(self) -> Any:
        """Where all environments stand: plain data, as of `state_record.py`, which later steps leave as it is."""
        ...

    def put_back(self, kept: Any) -> None:
        """Stand there: what follows is the same to the bit as it was after `keep`. It was reset before.

        Raises RunError for what is not of such a world.
        """
        ...


class SettableWorld(Protocol):
    """The part of a world that vine uses: B environments, and where they stand."""

    name: str
    envs: int

    @property
    def obs(self) -> np.ndarray:
        """[B,…] as in `World`."""
        ...

    def get_state(self, envs: Sequence[int] | None = None) -> list[Any]:
        """Snapshots of the environments `envs`, or of all, which later steps leave as they are.

        An environment whose next step is a ghost row gives a state in which it still is.
        """
        ...

    def set_state(self, states: Sequence[Any], seeds: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Put environment i where states[i] was taken, in this or another environment of the world.

        states: [B].  seeds: [B] in [0, 2³²): the environment's own random numbers start anew from there, equal ones for
        equal seeds. Without them they go on as they did after the snapshot.

        Returns `obs`, that of the states. Raises UsageError for another number of states or seeds.
        """
        ...

    def advance(self, action: np.ndarray, running: np.ndarray) -> Transition:
        """Take action [B,…] in the environments where running [B]: the others stand still, with valid = False.

        Nothing resets itself: an environment that ended must be set again before it is stepped. Raises RunError where
        an environment breaks.
        """
        ...


def settable(world: World) -> SettableWorld:
    """The world as one that can be put back into a state, tried out: it stands after a reset.

    Settable are finite MDPs, and Gymnasium environments in this process of which a snapshot can be taken: MuJoCo's,
    those whose state is in plain attributes, as in classic control, and those with get_state and set_state.

    Raises UsageError for any other world, and for one that goes on differently after it was put back.
    """
    found: Any = world
    if world.backend == "gymnasium":
        from steepest.worlds.gymnasium_state import GymnasiumStates

        found = GymnasiumStates(world)
    if not all(callable(getattr(found, name, None)) for name in ("get_state", "set_state", "advance")):
        raise refusal(world.name, f"a world of the backend {world.backend!r} has no way to be put back into a state")
    if not _replays(world, found):
        raise refusal(world.name, "what follows a state is not the same after the environment was put back into it")
    return found


def keepable(world: World) -> Keepable | None:
    """The world as one that can be taken up elsewhere, as far as can be seen from outside; None where it cannot.

    Nothing is stepped, so that it stands where it stood: `keeps` tries it out.
    """
    found: Any = world
    if world.backend == "gymnasium":
        from steepest.worlds.gymnasium_state import GymnasiumStates

        try:
            found = GymnasiumStates(world)
        except UsageError:
            return None
    return found if callable(getattr(found, "keep", None)) and callable(getattr(found, "put_back", None)) else None


def kept(found: Keepable) -> Any:
    """Where the environments stand; None where they have become something that cannot be kept, or raise."""
    try:
        return found.keep()
    except Exception:  # whatever an environment of the user's makes of it, the run does without
        return None


def keeps(world: World, before: int = 3, after: int = 3) -> bool:
    """Whether the world goes on from where it was put back as it did before, through a file; tried out by a few steps.
    It must be reset afterwards."""
    try:
        found = keepable(world)
        if found is None:
            return False
        act = _acting(world, before + after)
        world.reset(0)
        for t in range(before):
            world.step(act(t, world.obs))
        state = from_record(*to_record(found.keep(), 2 * MOST * world.envs))
        first = [(*world.step(act(before + t, world.obs)), world.obs) for t in range(after)]
        found.put_back(state)
        second = [(*world.step(act(before + t, world.obs)), world.obs) for t in range(after)]
    except Exception:  # as of `kept`
        return False
    return all(_same(x, y) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True))


def _same(x: np.ndarray | None, y: np.ndarray | None) -> bool:
    if x is None or y is None:
        return x is y
    return np.array_equal(x, y, equal_nan=x.dtype.kind == "f")


def _acting(world: World, count: int) -> Callable[[int, np.ndarray], np.ndarray]:
    """(t < count, observations) ↦ actions as a policy would choose them, the same in all environments where they can
    be: drawn at random, once."""
    space, form = copy.deepcopy(world.action_space), describe(world.action_space, "action")
    space.seed(0)
    actions = [np.stack([form.from_environment(space.sample())] * world.envs) for _ in range(count)]
    if form.inside != np.int32:
        real = True if isinstance(form, Box) else np.isinf(form.counts)
        actions = [np.where(real, np.clip(a, -10, 10), a) for a in actions]  # bounds can be anything
    allowed = _allowed(world, form)
    return lambda t, obs: allowed(actions[t], obs)


def at_rest(world: World) -> Callable[[np.ndarray], np.ndarray]:
    """Observations ↦ actions 0, or the first that are allowed, for trials."""
    form = describe(world.action_space, "action")
    rest, allowed = np.zeros((world.envs, *form.shape), form.inside), _allowed(world, form)
    return lambda obs: allowed(rest, obs)


def _allowed(world: World, action: Space) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(actions, observations) ↦ the actions, of which none is forbidden."""
    observation = describe(world.observation_space, "observation")
    if not isinstance(observation, Masked):
        return lambda chosen, obs: chosen
    return lambda chosen, obs: permitted(action, chosen, observation.form.split(obs)[1])


def refusal(name: str, why: str) -> UsageError:
    """The error for a world that cannot be put back into a state: why, and what to do instead."""
    return UsageError(f"{name}: {why}; {_INSTEAD}")


def _replays(world: World, states: SettableWorld, before: int = 5, after: int = 8) -> bool:
    """Whether every environment goes on from a state of the first as the first did, to the bit."""
    act = _acting(world, before + after)
    world.reset(0)
    own = states.get_state()  # a snapshot holds what an environment was made with, too: give each its own again
    for t in range(before):
        world.step(act(t, world.obs))
    if not _running(states):  # the first step of an episode will do
        world.reset(0)
    snapshot = states.get_state([0])[0]

    def follow(running: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        seen: list[tuple[np.ndarray, ...]] = [(states.obs.copy(),)]
        for t in range(after):
            transition = states.advance(act(before + t, states.obs), running)
            seen.append(tuple(np.where(_rows(running, x), x, 0) for x in transition if x is not None))
            running = running & ~(transition.terminated | transition.truncated)
        return seen

    every = np.ones(states.envs, bool)
    first = follow(np.arange(states.envs) == 0)
    states.set_state([snapshot] * states.envs)
    second = follow(every)
    states.set_state([snapshot] * states.envs, [7] * states.envs)
    common = follow(every)
    same = all(
        np.array_equal(x[0], y[0]) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True)
    )
    alike = all((x == x[:1]).all() for row in common for x in row)
    states.set_state(own)
    return same and alike


def _running(states: SettableWorld) -> bool:
    """Whether the next step of the first environment is one, and no reset."""
    return not getattr(states.get_state([0])[0], "ended", False)


def _rows(running: np.ndarray, like: np.ndarray) -> np.ndarray:
    return running.reshape(-1, *[1] * (like.ndim - 1))
