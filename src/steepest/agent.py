"""What acts, is saved and loaded: observation statistics + policy + the spaces of its environment.

obs → normalise → policy → distribution → sample or mode → clip to the bounds → environment
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from numpy.typing import NDArray

from steepest.distributions import Policy
from steepest.errors import UsageError
from steepest.normaliser import Normaliser
from steepest.policies.specification import PolicySpec
from steepest.sampling.acting import actions, actions_remembering
from steepest.sampling.actor import finite
from steepest.sequences import initial_memory, is_recurrent
from steepest.spaces import Box, Masked, Space, brief, choices, flat_mask, forbids_all, one_for_all, seen


@dataclass(eq=False)
class Agent:
    """A policy that can be put into its environment.

    policy: maps one normalised observation to a distribution.
    observation, action: the spaces, as plain data.
    normaliser: observation statistics, or None to take observations as they are.
    spec: what `policy` is, if it is built in; None for a module of the user's, which `st.load` needs as a template.
    key, drawn: of the stochastic actions of `predict`: the next draw uses (key, drawn); no key is that of seed 0.
    """

    policy: Policy
    observation: Space
    action: Space
    normaliser: Normaliser | None = None
    spec: PolicySpec | None = None
    key: PRNGKeyArray | None = None
    drawn: int = 0

    def seed(self, seed: int) -> None:
        """Start the stochastic actions of `predict` anew from `seed`."""
        self.key, self.drawn = jax.random.key(seed), 0

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_mask: Any = None,
    ) -> tuple[NDArray[Any], Any]:
        """The action for one observation or a batch of them, as the environment takes it.

        observation: [...] as the environment gives it, or [B,...].
        state: what a policy with memory remembers, [M] or [B,M], as the last call returned it; None: a new episode.
        episode_start: where a new one begins, a bool or [B]; None: nowhere. Without memory both are passed through.
        deterministic: the distribution's mode instead of a sample.
        action_mask: [mask] or [B,mask], 1 for what is allowed; for an agent that was trained with masks, and only then.

        Returns (action, state): the action [...] or [B,...] clipped to the bounds and in the environment's dtype, of a
        Dict or Tuple space a dict or tuple of such. Raises UsageError for an observation, a state or an episode_start
        of another shape, RunError for an action that is not finite.
        """
        own = seen(self.observation)
        try:
            given, shape = own.from_environment(observation), own.shape
        except (KeyError, TypeError, ValueError, IndexError) as error:
            what = f"{type(error).__name__}: {error!s:.200}"
            raise UsageError(f"the observation is none of {brief(own)} ({what})") from error
        single = given.shape == shape
        if not single and given.shape[1:] != shape:
            raise UsageError(f"expected an observation of shape {shape}, or a batch of them, got {given.shape}")
        counts = np.inf if isinstance(own, Box) else own.counts
        if not np.isfinite(given).all() or (np.isfinite(counts) & ((given < 0) | (given >= counts))).any():
            raise UsageError(f"the observation is not in the space that the agent was trained on: {observation!r:.200}")
        key = jax.random.key(0) if self.key is None else self.key
        scaling = None if self.normaliser is None else self.normaliser.scaling()
        batch = self._with_mask(given[None] if single else given, action_mask, single)
        draw = np.int32(self.drawn)
        if is_recurrent(self.policy):
            memory, fresh = self._remembered(state, episode_start, None if single else len(batch))
            parts = self.policy, scaling, batch, key, draw, deterministic, memory, fresh
            chosen, memory = map(np.asarray, _actions_remembering(*parts))
            state = memory[0] if single else memory
        else:
            chosen = np.asarray(_actions(self.policy, scaling, batch, key, draw, deterministic))
        self.drawn += 1
        return self.action.to_environment(finite(chosen)[0] if single else finite(chosen)), state

    def _with_mask(self, batch: NDArray[Any], mask: Any, single: bool) -> NDArray[Any]:
        if not isinstance(self.observation, Masked):
            if mask is not None:
                raise UsageError("this agent was trained without masks, and takes no action_mask")
            return batch
        if mask is None:
            raise UsageError(f"this agent was trained with masks: give action_mask, {self.observation.mask} of 0 and 1")
        rows: Any = [mask]
        if not single and isinstance(mask, Mapping):
            rows = [{name: part[i] for name, part in mask.items()} for i in range(len(batch))]
        elif not single:
            rows = [mask] * len(batch) if one_for_all(mask) else mask
        if len(rows) != len(batch):
            raise UsageError(f"expected {len(batch)} action masks, one for each observation, got {len(rows)}")
        flat = np.stack([flat_mask(row, self.action) for row in rows])
        if forbids_all(flat, choices(self.action)).any():
            raise UsageError("the action mask forbids everything")
        return np.concatenate([batch.reshape((len(batch), -1)), flat], axis=1, dtype=np.float32)

    def _remembered(self, state: Any, episode_start: Any, envs: int | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(memory [B,M], new episodes [B]) of what `predict` was given.  envs: None for a single observation."""
        width, leading = initial_memory(self.policy).shape, () if envs is None else (envs,)
        memory = np.zeros((*leading, *width), np.float32) if state is None else np.asarray(state)
        fresh = np.asarray(state is None if episode_start is None else episode_start, bool) | (state is None)
        if memory.shape != (*leading, *width) or memory.dtype.kind != "f":
            raise UsageError(f"expected a state of shape {(*leading, *width)}, or None, got {memory.shape}")
        if fresh.size == 1:
            fresh = np.broadcast_to(fresh.reshape(()), leading)
        if fresh.shape != leading:
            raise UsageError(f"expected an episode_start of shape {leading}, or None, got {fresh.shape}")
        return memory.reshape(-1, *width), fresh.reshape(-1)


_actions, _actions_remembering = eqx.filter_jit(actions), eqx.filter_jit(actions_remembering)
