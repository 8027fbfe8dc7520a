"""What acts on the host: the networks in NumPy say what the policy says, and noise comes from its key alone."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest.normaliser import Normaliser
from steepest.parameters import split
from steepest.policies import MlpBernoulli, MlpCategorical, MlpGaussian, MlpMultiCategorical, TabularSoftmax
from steepest.sampling.acting import CompiledActor, host_actor, normalise
from steepest.sampling.mlp_actor import LARGEST, MlpActor

ENVS, STEPS = 8, 50
KEY = jax.random.key(3)


def trained(policy: Any) -> Any:
    """With weights as large as after training: the head's are small at the start."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 1, x.shape) / len(x) ** 0.5, x.dtype), policy)


def begun(policy: Any, scaling: Any = None, envs: int = ENVS, steps: int = STEPS) -> Any:
    actor = host_actor(policy, envs)
    actor.begin(actor.export(split(policy)[0], scaling), (1, 2, 0), steps, envs)
    return actor


@pytest.mark.parametrize("inputs", [4, 17, 348])
@pytest.mark.parametrize("kind", [MlpGaussian, MlpCategorical])
@pytest.mark.parametrize("statistics", [True, False])
def test_the_network_in_numpy_says_what_the_policy_says_to_1e_6(kind: Any, inputs: int, statistics: bool) -> None:
    rng = np.random.default_rng(1)
    activation: Any = "relu" if inputs == 17 else "tanh"
    policy = trained(kind(inputs, 5, activation=activation, key=KEY))
    obs = rng.normal(0, 1, (ENVS, inputs)).astype(np.float32)
    obs[0] *= 1e4 if statistics else 1.0  # beyond the clip
    scaling = Normaliser.empty((inputs,)).updated(rng.normal(0, 1, (99, inputs))).scaling() if statistics else None
    actor = begun(policy, scaling)
    assert isinstance(actor, MlpActor)
    says = jax.vmap(policy)(normalise(scaling, obs))
    exact = says.mean if kind is MlpGaussian else says.logits
    z = actor.parameters(obs).copy()
    assert np.abs(exact).max() > 1
    rounding = 1e-6 * max(2.0, float(np.abs(exact).max()) / 2)  # units of relu are not bounded
    np.testing.assert_allclose(z, exact, rtol=1e-6, atol=rounding)
    action = actor(obs, 0).copy()
    twin = st.DiagonalGaussian(z, says.log_std) if kind is MlpGaussian else st.Categorical(z)
    np.testing.assert_allclose(twin.log_prob(action), says.log_prob(action), rtol=1e-6, atol=3 * rounding)


@pytest.mark.parametrize("activation", ["tanh", "elu", "silu", "gelu"])
def test_every_activation_and_the_norm_in_numpy(activation: str) -> None:
    obs = np.random.default_rng(1).normal(0, 2, (ENVS, 3)).astype(np.float32)
    for norm in (True, False):
        policy = trained(MlpCategorical(3, 5, (8, 6), activation=activation, norm=norm, key=KEY))
        actor = begun(policy)
        assert isinstance(actor, MlpActor)
        np.testing.assert_allclose(actor.parameters(obs), jax.vmap(policy)(obs).logits, rtol=1e-5, atol=2e-6)


def test_the_actions_are_drawn_from_the_policy() -> None:
    many = 20_000
    obs = np.zeros((many, 3), np.float32)
    gaussian = trained(MlpGaussian(3, 2, (8,), key=KEY))
    says, action = gaussian(obs[0]), begun(gaussian, envs=many, steps=2)(obs, 1)
    np.testing.assert_allclose(action.mean(axis=0), says.mean, atol=0.03)
    np.testing.assert_allclose(action.std(axis=0), np.exp(says.log_std), rtol=0.03)
    multi = trained(MlpMultiCategorical(3, (2, 4), (8,), key=KEY))
    drawn = begun(multi, envs=many, steps=2)(obs, 1)
    for i, part in enumerate(multi(obs[0]).parts):
        np.testing.assert_allclose(np.bincount(drawn[:, i]) / many, part.probs, atol=0.015)
    switches = trained(MlpBernoulli(3, 4, (8,), key=KEY))
    drawn = begun(switches, envs=many, steps=2)(obs, 1)
    np.testing.assert_allclose(drawn.mean(axis=0), jax.nn.sigmoid(switches(obs[0]).logits), atol=0.015)
    assert all(isinstance(host_actor(policy, ENVS), MlpActor) for policy in (multi, switches))
    categorical = trained(MlpCategorical(3, 4, (8,), key=KEY))
    drawn = begun(categorical, envs=many, steps=2)(obs, 1)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / many, categorical(obs[0]).probs, atol=0.015)


@pytest.mark.parametrize("kind", [MlpGaussian, MlpCategorical, "own"])
def test_noise_is_of_the_entropy_and_the_step_alone(kind: Any) -> None:
    policy: Any = MlpGaussian(3, 2, (8,), key=KEY) if kind == "own" else kind(3, 2, (8,), key=KEY)
    obs = np.ones((ENVS, 3), np.float32)

    def actions(entropy: tuple[int, ...]) -> np.ndarray:
        actor: Any = begun(policy)
        if kind == "own":
            actor = pickle.loads(pickle.dumps(CompiledActor(policy)))
        actor.begin(actor.export(split(policy)[0], None), entropy, STEPS, ENVS)
        return np.stack([actor(obs, t).copy() for t in range(STEPS)])

    np.testing.assert_array_equal(actions((1, 2, 0)), actions((1, 2, 0)))
    for other in ((1, 2, 1), (1, 3, 0)):
        assert (actions((1, 2, 0)) != actions(other)).mean() > 0.3
    steps = actions((1, 2, 0)).reshape(STEPS, -1)
    assert len(np.unique(steps, axis=0)) > STEPS / 2


def test_a_policy_of_another_form_is_compiled() -> None:
    class Own(MlpGaussian):
        pass

    own = Own(3, 2, key=KEY)  # pyright: ignore[reportCallIssue]
    for policy in (own, TabularSoftmax(np.zeros((3, 2), np.float32))):
        assert isinstance(host_actor(policy, ENVS), CompiledActor)
    assert isinstance(host_actor(MlpGaussian(17, 6, (128, 256), key=KEY), ENVS), MlpActor)
    assert isinstance(host_actor(MlpGaussian(17, 6, (128, 257), key=KEY), ENVS), CompiledActor)  # 8 × 128 × 257 > 2¹⁸


@pytest.mark.parametrize("kind", [MlpGaussian, "own"])
def test_an_action_that_is_not_finite_is_an_error(kind: Any) -> None:
    policy = jax.tree.map(lambda x: x * np.nan, MlpGaussian(3, 2, (8,), key=KEY))
    actor: Any = begun(policy) if kind is MlpGaussian else CompiledActor(policy)
    actor.begin(actor.export(split(policy)[0], None), (1,), STEPS, ENVS)
    with pytest.raises(st.RunError, match="action that is not finite"):
        actor(np.zeros((ENVS, 3), np.float32), 0)


def test_the_threads_of_blas_change_no_bit() -> None:
    """Up to LARGEST, where `host_actor` stops: a worker has one thread, and a process without workers has several."""
    width = int((LARGEST // 8) ** 0.5)
    program = f"""
import hashlib, numpy as np
from steepest.sampling.mlp_actor import GAUSSIAN, MlpActor, Weights
rng = np.random.default_rng(0)
draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
sizes = [(8, {width}, {width}), (8, 64, 512), (16, 17, 64), (1, 348, 64), (5, 100, 333), (8, 4096, 8)]
for envs, inputs, units in sizes:
    actor = MlpActor(GAUSSIAN)
    layers = [(draw(inputs, units), draw(units)), (draw(units, 6), draw(6))]
    actor.begin(Weights(layers, "tanh", draw(6), None, None), (1,), 1, envs)
    print(hashlib.md5(actor(draw(envs, inputs), 0).tobytes()).hexdigest())
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            check=True,
            capture_output=True,
        ).stdout
        for threads in ("1", "2", "4")
    ]
    assert said[0]
    assert said[0] == said[1] == said[2]
