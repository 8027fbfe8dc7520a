"""What a listener hears of a network's layers: inputs and cotangents, from which every gradient follows."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from steepest.distributions import Categorical
from steepest.errors import UsageError
from steepest.geometry import linearise
from steepest.layers import Conv, Dense
from steepest.parameters import merge, split
from steepest.policies import MlpGaussian


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


class Images(eqx.Module):
    """Two convolutions and a head: what the policies for Atari are made of."""

    first: Conv
    second: Conv
    head: Dense

    def __init__(self, key: Any):
        keys = jax.random.split(key, 3)
        self.first, self.second = Conv(2, 3, 3, stride=2, key=keys[0]), Conv(3, 4, 2, key=keys[1])
        self.head = Dense(16, 3, key=keys[2])

    def __call__(self, image: Any) -> Categorical:
        hidden = jnp.tanh(self.second(jnp.tanh(self.first(image))))
        return Categorical(self.head(hidden.ravel()))


def double(policy: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), policy)


def images() -> tuple[Any, Any]:
    return double(Images(jax.random.key(0))), jax.random.normal(jax.random.key(1), (6, 7, 7, 2))


def gaussian() -> tuple[Any, Any]:
    return double(MlpGaussian(3, 2, (5, 4), key=jax.random.key(0))), jax.random.normal(jax.random.key(1), (6, 3))


def transposed(policy: Any, obs: Any, cotangent: Any) -> Any:
    """Jᵀ·c by JAX alone."""
    params, rest = split(policy)
    return jax.vjp(lambda theta: jax.vmap(merge(theta, rest))(obs), params)[1](cotangent)[0]


@pytest.mark.parametrize("make", [images, gaussian])
def test_inputs_and_cotangents_give_the_whole_gradient(make: Any) -> None:
    policy, obs = make()
    local = linearise(policy, obs)
    tapped = local.taps()
    assert tapped.rest == ()
    rng = np.random.default_rng(0)
    cotangent = jax.tree.map(lambda z: jnp.asarray(rng.normal(size=z.shape)), local.distribution)
    leaves = jax.tree.leaves(transposed(policy, obs, cotangent))
    for tap, x, b in zip(tapped.taps, tapped.inputs, tapped.pull(cotangent), strict=True):
        rows = b.reshape(len(obs), -1, b.shape[-1])
        if tap.weight is not None:
            patches = x.reshape(len(obs), rows.shape[1], -1)
            found = jnp.einsum("ntf,nto->fo", patches, rows).reshape(leaves[tap.weight].shape)
            np.testing.assert_allclose(found, leaves[tap.weight], rtol=1e-10, atol=1e-12)
        if tap.bias is not None:
            np.testing.assert_allclose(rows.sum(axis=(0, 1)), leaves[tap.bias], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_a_convolution_is_the_one_that_everybody_computes(padding: str) -> None:
    image = jnp.asarray(np.random.default_rng(0).normal(size=(9, 7, 2)))
    for size, stride in ((3, 2), (2, 1), (4, 3), (3, 1)):
        layer = double(Conv(2, 3, size, stride=stride, padding=padding, key=jax.random.key(0)))
        how: Any = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        turned = jax.lax.conv_general_dilated(image[None], layer.weight, (stride, stride), padding, **how)
        expected = turned[0] + layer.bias
        np.testing.assert_allclose(layer(image), expected, rtol=1e-10, atol=1e-12)


def test_nothing_changes_for_who_does_not_listen() -> None:
    policy, obs = images()
    local = linearise(policy, obs)
    local.taps()
    distribution: Any = local.distribution
    np.testing.assert_array_equal(distribution.logits, jax.vmap(policy)(obs).logits)


class Odd(eqx.Module):
    """A layer that is called twice, one that is frozen, a parameter of no layer, and a layer that is well behaved."""

    twice: Dense
    still: Any
    scale: Any
    fine: Dense

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0), 3)
        self.twice, self.fine = Dense(3, 3, key=keys[0]), Dense(3, 2, key=keys[1])
        self.still, self.scale = st.frozen(Dense(3, 3, key=keys[2])), jnp.ones(3)

    def __call__(self, obs: Any) -> Categorical:
        return Categorical(self.fine(self.scale * self.still.value(self.twice(jnp.tanh(self.twice(obs))))))


def test_what_belongs_to_no_layer_or_to_two_is_said_to() -> None:
    policy = double(Odd())
    tapped = linearise(policy, jnp.ones((4, 3))).taps()
    leaves = jax.tree_util.tree_leaves_with_path(linearise(policy, jnp.ones((4, 3))).params)
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    assert [paths[n] for n in tapped.rest] == [".twice.weight", ".twice.bias", ".scale"]
    assert len(tapped.taps) == len(tapped.inputs) == len(tapped.pull(Categorical(jnp.ones((4, 2))))) == 1


class Within(eqx.Module):
    layer: Dense

    def __call__(self, obs: Any) -> Categorical:
        return Categorical(jax.vmap(self.layer)(obs).sum(axis=0))


def test_a_layer_that_cannot_be_followed_is_refused() -> None:
    policy = double(Within(Dense(3, 2, key=jax.random.key(0))))
    with pytest.raises(UsageError, match="inside a vmap or a scan"):
        linearise(policy, jnp.ones((4, 5, 3))).taps()


class Tied(eqx.Module):
    """A layer whose weights are used beside it as well."""

    layer: Dense

    def __call__(self, obs: Any) -> Categorical:
        return Categorical(self.layer(obs[0]) + obs[1] @ self.layer.weight)


@pytest.mark.parametrize("case", ["gaussian", "images", "odd", "within", "tied"])
def test_pull_is_the_exact_transpose_of_push_for_every_kind_of_network(case: str) -> None:
    layer = Dense(3, 2, key=jax.random.key(0))
    sets, points = jax.random.normal(jax.random.key(1), (6, 5, 3)), jax.random.normal(jax.random.key(2), (6, 3))
    cases: dict[str, Any] = {
        "gaussian": gaussian,
        "images": images,
        "odd": lambda: (double(Odd()), points),
        "within": lambda: (double(Within(layer)), sets),
        "tied": lambda: (double(Tied(layer)), sets),
    }
    policy, obs = cases[case]()
    local, rng = linearise(policy, obs), np.random.default_rng(0)
    cotangent = jax.tree.map(lambda z: jnp.asarray(rng.normal(size=z.shape)), local.distribution)
    expected = transposed(policy, obs, cotangent)
    found = local.pull(cotangent)
    assert jax.tree.structure(found) == jax.tree.structure(local.params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_a_subset_is_the_same_policy_over_fewer_observations() -> None:
    policy, obs = gaussian()
    local = linearise(policy, obs)
    part = local.subset(jnp.asarray([4, 1]))
    some: Any = part.distribution
    every: Any = local.distribution
    np.testing.assert_allclose(some.mean, every.mean[jnp.asarray([4, 1])], rtol=1e-12)
    theta = jax.tree.map(lambda x: x + 0.1, local.params)
    np.testing.assert_allclose(part.predict(theta).mean, local.predict(theta).mean[jnp.asarray([4, 1])], rtol=1e-12)


def test_a_narrow_layer_has_the_derivatives_of_a_matrix_product() -> None:
    """The Jacobian products of a layer of few outputs are arranged otherwise than JAX would: forward, back, twice."""
    x = jax.random.normal(jax.random.key(0), (5, 16))
    w, dw = (jax.random.normal(jax.random.key(n), (16, 2)) for n in (1, 2))
    c = jax.random.normal(jax.random.key(3), (5, 2))

    def narrow(x: Any, w: Any) -> Any:
        layer = eqx.tree_at(lambda layer: layer.weight, Dense(16, 2, key=jax.random.key(4)), w)
        return jax.vmap(layer)(x)

    def plain(x: Any, w: Any) -> Any:
        return x @ w

    def all_of(f: Any) -> tuple[Any, ...]:
        energy = jax.grad(lambda x, w: jnp.sum(jnp.tanh(f(x, w)) * c), (0, 1))
        return jax.jvp(f, (x, w), (2 * x, dw)), jax.vjp(f, x, w)[1](c), jax.jvp(energy, (x, w), (2 * x, dw))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), all_of(narrow), all_of(plain))
