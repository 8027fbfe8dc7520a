"""Small policies that remember, sequences with ends of episodes and a ghost row in them, and an oracle step by step."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from steepest.batch import Batch
from steepest.distributions import DiagonalGaussian
from steepest.policies.encoder import Numbers, Parts, Within, plain_encoder
from steepest.policies.heads import BernoulliHead, CategoricalHead, GaussianHead
from steepest.policies.images import Pixels
from steepest.policies.masked import with_mask
from steepest.policies.recurrent import RecurrentNetwork, recurrent_network
from steepest.policies.trunks import Convolutional, Layers, Plain
from steepest.sequences import Sequences, fresh_rows, initial_memory
from steepest.spaces import Box, Discrete, Joint, Masked

T, B = 4, 2
KINDS = ("gru-masked", "gru-categorical", "lstm-gaussian", "own-module", "gru-parts")
VECTOR = Box(np.full(2, -np.inf), np.full(2, np.inf))
MASKED = Masked(VECTOR, 3)
PICTURE = Box(np.zeros((2, 2, 1)), np.full((2, 2, 1), 255.0), "uint8")
PARTS = Joint((PICTURE, Discrete(2), Box(np.full(1, -np.inf), np.full(1, np.inf))))


class Own(eqx.Module):
    """A user's: two methods, a trace of the observations and the step's number in a dict; its head is a Gaussian's."""

    weight: Any
    log_std: Any

    def initial(self) -> Any:
        return {"trace": jnp.zeros(len(self.weight), self.weight.dtype), "step": jnp.zeros((), self.weight.dtype)}

    def step(self, memory: Any, obs: Any) -> Any:
        trace = jnp.tanh(self.weight @ jnp.concatenate([obs, memory["trace"], memory["step"][None]]))
        return {"trace": trace, "step": memory["step"] + 0.1}, DiagonalGaussian(trace, self.log_std)


def policy_of(kind: str) -> Any:
    """In float32, away from where its head starts."""
    key = jax.random.key(1)
    if kind in ("gru-categorical", "gru-masked"):
        policy: Any = recurrent_network(VECTOR, CategoricalHead(3), (3,), units=2, key=key)
    elif kind == "gru-parts":
        how, keys = Layers(norm=True), jax.random.split(key)
        picture = Convolutional(Pixels(PICTURE), ((1, 2, 1),), 2, how, "small", key=keys[0])
        each = Within(picture, (2, 2, 1)), Within(plain_encoder(PARTS.parts[1]), ()), Within(Numbers(1), (1,))
        features = Plain(Parts(each, PARTS.sizes), (2,), how, key=keys[1])
        policy = RecurrentNetwork(features, CategoricalHead(3), units=1, key=key)
    elif kind == "lstm-gaussian":
        policy = recurrent_network(VECTOR, GaussianHead(jnp.zeros(2)), (), memory="lstm", units=2, key=key)
    elif kind == "gru-bernoulli":
        policy = recurrent_network(VECTOR, BernoulliHead(2), (3,), units=2, key=key)
    else:
        policy = Own(jnp.zeros((2, 5)), jnp.zeros(2))
    policy = with_mask(policy, MASKED) if kind == "gru-masked" else policy
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: jnp.asarray(0.7 * rng.normal(size=x.shape)), policy)


def flags() -> tuple[np.ndarray, np.ndarray]:
    """(done, valid) [T,B]: environment 0 ends in the middle and at last, 1 has a ghost row after its end."""
    done, valid = np.zeros((T, B), bool), np.ones((T, B), bool)
    done[0, 0] = done[3, 0] = done[1, 1] = True
    valid[2, 1] = False
    return done, valid


def problem(kind: str, dtype: Any = jnp.float64) -> tuple[Any, Batch]:
    """A policy and a batch of sequences, uneven weights, masked rows of weight 0; in the dtype. The ghost row has no
    observation, and so a mask of 0."""
    rng = np.random.default_rng(5)
    policy = jax.tree.map(lambda x: jnp.asarray(x, dtype), policy_of(kind))
    done, valid = flags()
    width = initial_memory(policy).size
    obs = jnp.asarray(rng.normal(size=(T, B, 2)), dtype)
    if kind == "gru-parts":
        pixels, sign = rng.integers(0, 255, (T, B, 4)), rng.integers(0, 2, (T, B, 1))
        obs = jnp.concatenate([jnp.asarray(pixels, dtype), jnp.asarray(sign, dtype), obs[..., :1]], axis=-1)
    sequences = Sequences(obs, fresh_rows(done, valid), jnp.asarray(0.5 * rng.normal(size=(B, width)), dtype))
    n = T * B
    weight = rng.uniform(0.2, 1.0, n) * valid.ravel()
    action: Any = rng.normal(size=(n, 1, 2))
    if kind in ("gru-categorical", "gru-masked", "gru-parts"):
        action = rng.integers(0, 3, (n, 1))
    if kind == "gru-bernoulli":
        action = rng.integers(0, 2, (n, 1, 2))
    if kind == "gru-masked":
        allowed = rng.integers(0, 2, (T, B, 3))
        np.put_along_axis(allowed, action.reshape(T, B, 1), 1, axis=-1)
        both = jnp.concatenate([obs, jnp.asarray(allowed, dtype)], axis=-1)
        sequences = sequences._replace(obs=jnp.where(jnp.asarray(valid)[..., None], both, 0.0))
    batch = Batch(
        obs=sequences,
        weight=jnp.asarray(weight / weight.sum(), dtype),
        action=jnp.asarray(action) if action.dtype.kind == "i" else jnp.asarray(action, dtype),
        action_weight=jnp.ones((n, 1), dtype),
        advantage=jnp.asarray(rng.normal(size=(n, 1)), dtype),
        segment=jnp.asarray(rng.integers(0, n, n), jnp.int32),
    )
    return policy, batch


def step_by_step(policy: Any, sequences: Sequences) -> Any:
    """The distributions at the N rows as they are said while acting, one environment and one step at a time: a loop
    without a scan or a vmap, which knows of the ends and the ghost row from `flags`."""
    done, valid = flags()
    says: list[list[Any]] = [[None] * B for _ in range(T)]
    for b in range(B):
        memory = _structured(policy, sequences.memory[b])
        for t in range(T):
            if t and (done[t - 1, b] or not valid[t - 1, b]):
                memory = policy.initial()
            memory, says[t][b] = policy.step(memory, sequences.obs[t, b])
    rows = [says[t][b] for t in range(T) for b in range(B)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _structured(policy: Any, flat: Any) -> Any:
    """The memory of so many numbers, in the order of the leaves."""
    leaves, structure = jax.tree.flatten(policy.initial())
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = [flat[end - leaf.size : end].reshape(leaf.shape) for end, leaf in zip(ends, leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)
