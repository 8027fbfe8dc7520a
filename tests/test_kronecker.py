"""Kronecker factors of policies against brute force over samples, and where they must be the Fisher matrix itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype, problem
from steepest import parameters
from steepest.batch import Batch
from steepest.distributions import Categorical, DiagonalGaussian, UnitGaussian
from steepest.errors import UsageError
from steepest.geometry import Kronecker, Moment, Probes, every_row, fisher, kronecker, linearise, taken_actions
from steepest.layers import Conv, Dense
from steepest.linear import KroneckerBlocks
from steepest.policies import MlpCategorical, MlpGaussian
from steepest.taps import constant, tapped


@pytest.fixture(autouse=True, scope="module")
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class OneLayer(eqx.Module):
    """x ↦ Categorical(xW + β), or a Gaussian with a constant ln σ."""

    head: Dense
    log_std: Any = None

    def __call__(self, x: Any) -> Any:
        z = self.head(x)
        return Categorical(z) if self.log_std is None else DiagonalGaussian(z, constant(self.log_std))


class Image(eqx.Module):
    """[4,4,2] ↦ a unit Gaussian whose mean is a convolution [3,3,2]: positions do not mix, as KFC assumes."""

    conv: Conv

    def __call__(self, x: Any) -> Any:
        return UnitGaussian(self.conv(x).ravel())


class ConvNet(eqx.Module):
    """[4,4,1] ↦ conv, tanh, dense ↦ Categorical over 3."""

    conv: Conv
    head: Dense

    def __call__(self, x: Any) -> Any:
        return Categorical(self.head(jnp.tanh(self.conv(x)).ravel()))


def doubled(policy: Any, seed: int = 0) -> Any:
    """Random weights in float64."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.7 * rng.normal(size=x.shape)), policy)


def batch_of(obs: Any, actions: int = 3, seed: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    n = len(obs)
    weight = rng.uniform(0.2, 1.0, n)
    return Batch(
        jnp.asarray(obs),
        jnp.asarray(weight / weight.sum()),
        jnp.asarray(rng.integers(0, actions, (n, 1))),
        jnp.ones((n, 1)),
        jnp.asarray(rng.normal(size=(n, 1))),
        jnp.arange(n, dtype=jnp.int32),
    )


def normal(*shape: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@eqx.filter_jit
def dense(policy: Any, batch: Batch, metric: Any) -> tuple[Any, Any]:
    local = linearise(policy, batch.obs)
    ours = metric.operator(local, batch).direction
    return ours.matrix(local.params), fisher.operator(local, batch).matrix(local.params)


def matrices(policy: Any, batch: Batch, metric: Any = kronecker) -> tuple[np.ndarray, np.ndarray]:
    """(the blocks' matrix, F), dense."""
    ours, f = dense(policy, batch, metric)
    return np.asarray(ours), np.asarray(f)


def layer_mask(policy: Any, batch: Batch) -> np.ndarray:
    """[P,P], True where both parameters are of one layer."""
    local = linearise(policy, batch.obs)
    leaves = jax.tree.leaves(local.params)
    label = [-1] * len(leaves)
    for i, tap in enumerate(local.taps().taps):
        for n in (tap.weight, tap.bias):
            if n is not None:
                label[n] = i
    of = np.concatenate([np.full(leaf.size, label[n]) for n, leaf in enumerate(leaves)])
    return of[:, None] == of


def brute_force(policy: Any, batch: Batch) -> list[np.ndarray]:
    """A ⊗ G of each layer of an `MlpCategorical`, from outer products sample by sample and action by action."""
    layers = policy.net.layers
    a = [np.zeros((len(layer.weight) + 1,) * 2) for layer in layers]
    g = [np.zeros((len(layer.bias),) * 2) for layer in layers]

    def outputs(shifts: Any, obs: Any) -> Any:
        x, inputs = obs, []
        for i, (layer, shift) in enumerate(zip(layers, shifts, strict=True)):
            inputs.append(x)
            s = x @ layer.weight + layer.bias + shift
            x = jnp.tanh(s) if i < len(layers) - 1 else s
        return jax.nn.log_softmax(x), inputs

    zeros = [jnp.zeros_like(layer.bias) for layer in layers]
    sample = jax.jit(lambda obs: (*outputs(zeros, obs), jax.jacobian(lambda s: outputs(s, obs)[0])(zeros)))
    for obs, w in zip(batch.obs, batch.weight, strict=True):
        log_probs, inputs, scores = jax.tree.map(np.asarray, sample(obs))  # scores: [A, out] for each layer
        for i, x in enumerate(inputs):
            bar = np.append(x, 1.0)
            a[i] += w * np.outer(bar, bar)
            g[i] += w * np.einsum("a,ai,aj->ij", np.exp(log_probs), scores[i], scores[i])
    return [np.kron(x, y) for x, y in zip(a, g, strict=True)]


def permuted(policy: Any, matrix: np.ndarray) -> list[np.ndarray]:
    """The layers' blocks of a dense matrix, each in the order [W; β]; the leaves of a layer lie side by side."""
    blocks, start = [], 0
    for layer in policy.net.layers:
        size = layer.weight.size + layer.bias.size
        blocks.append(matrix[start : start + size, start : start + size])
        start += size
    return blocks


@pytest.mark.claim("KF1")
def test_factors_are_the_outer_products_of_every_sample_and_action() -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float64)
    ours, _ = matrices(policy, batch)
    for mine, theirs in zip(permuted(policy, ours), brute_force(policy, batch), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15)
    assert not ours[~layer_mask(policy, batch)].any()


@pytest.mark.claim("KF1")
def test_one_row_is_exact_in_each_layer() -> None:
    for kind in ("mlp-categorical", "mlp-gaussian"):
        policy, batch = in_dtype(problem(kind), jnp.float64)
        one = Batch(*(jax.tree.map(lambda x: x[:1], column) for column in batch))._replace(weight=jnp.ones(1))
        ours, f = matrices(policy, one)
        mask = layer_mask(policy, one)
        np.testing.assert_allclose(ours[mask], f[mask], rtol=1e-11, atol=1e-14)


@pytest.mark.claim("KF1")
def test_equal_inputs_or_independent_of_the_cotangents_are_exact() -> None:
    policy = doubled(OneLayer(Dense(3, 4, key=jax.random.key(0))))
    ours, f = matrices(policy, batch_of(np.tile(normal(3), (5, 1)), 4))  # deterministic inputs
    np.testing.assert_allclose(ours, f, rtol=1e-11, atol=1e-14)

    flat = eqx.tree_at(lambda p: p.head.weight, policy, jnp.zeros((3, 4)))  # p the same in every state: so is bbᵀ
    ours, f = matrices(flat, batch_of(normal(6, 3), 4))
    np.testing.assert_allclose(ours, f, rtol=1e-11, atol=1e-14)

    gaussian = OneLayer(policy.head, normal(4, seed=5))  # linear in x: b does not depend on it; ln σ is a constant
    ours, f = matrices(in_dtype(gaussian, jnp.float64), batch_of(normal(6, 3)))
    np.testing.assert_allclose(ours, f, rtol=1e-11, atol=1e-13)


@pytest.mark.claim("KF1")
def test_linear_networks_have_exact_blocks() -> None:
    class Linear(eqx.Module):
        layers: tuple[Dense, ...]

        def __call__(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return UnitGaussian(x)

    keys = jax.random.split(jax.random.key(1), 3)
    policy = doubled(Linear(tuple(Dense(i, o, key=k) for i, o, k in zip((3, 4, 2), (4, 2, 3), keys, strict=True))))
    batch = batch_of(normal(9, 3))
    ours, f = matrices(policy, batch)
    mask = layer_mask(policy, batch)
    np.testing.assert_allclose(ours[mask], f[mask], rtol=1e-11, atol=1e-13)
    assert np.abs(f[~mask]).max() > 0.1  # what is left out is not nothing


@pytest.mark.claim("KF1")
def test_convolution_is_exact_where_positions_are_independent() -> None:
    policy = doubled(Image(Conv(2, 2, 2, key=jax.random.key(0))))
    ours, f = matrices(policy, batch_of(normal(5, 4, 4, 2)))
    np.testing.assert_allclose(ours, f, rtol=1e-11, atol=1e-13)


@pytest.mark.claim("KF1")
def test_convolution_of_one_position_and_one_row_is_exact() -> None:
    policy = doubled(ConvNet(Conv(1, 2, 4, key=jax.random.key(0)), Dense(2, 3, key=jax.random.key(1))))
    batch = batch_of(normal(1, 4, 4, 1))
    ours, f = matrices(policy, batch)
    mask = layer_mask(policy, batch)
    np.testing.assert_allclose(ours[mask], f[mask], rtol=1e-11, atol=1e-14)


class Halves(eqx.Module):
    """x ↦ a unit Gaussian at xW, or at x + β: a layer without bias, or without weight."""

    weight: Any = None
    bias: Any = None

    def __call__(self, x: Any) -> Any:
        if self.bias is None:
            return UnitGaussian(tapped(x @ self.weight, "dense", weight=self.weight, x=lambda: x))
        return UnitGaussian(tapped(x + self.bias, "dense", bias=self.bias, x=lambda: x))


@pytest.mark.parametrize("policy", [Halves(weight=np.ones((3, 2))), Halves(bias=np.ones(3))])
def test_weight_or_bias_may_be_missing(policy: Any) -> None:
    batch = batch_of(normal(4, 3))
    ours, f = matrices(in_dtype(policy, jnp.float64), batch)
    np.testing.assert_allclose(ours, f, rtol=1e-11, atol=1e-14)


@pytest.mark.claim("KF2")
def test_random_rows_and_taken_actions_tend_to_the_expectation() -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float64)
    exact, _ = matrices(policy, batch)
    scale = np.linalg.norm(exact)

    @eqx.filter_jit
    def drawn(count: int, key: Any) -> Any:
        local = linearise(policy, batch.obs)
        metric, _ = Kronecker(rows=Probes(count)).begin((), Moment(local, batch, key, jnp.asarray(0)))
        return metric.blocks.matrix(local.params)

    keys = jax.random.split(jax.random.key(0), 16)
    few = [np.linalg.norm(drawn(4, k) - exact) / scale for k in keys[:8]]
    many = [np.linalg.norm(drawn(256, k) - exact) / scale for k in keys[8:]]
    assert 4 < np.mean(few) / np.mean(many) < 16  # √64 = 8

    whole = batch._replace(  # every action with its probability: the scores' mean is the expectation
        action=jnp.tile(jnp.arange(3), (len(batch.weight), 1)), action_weight=jax.vmap(policy)(batch.obs).probs
    )
    ours, _ = matrices(policy, whole, Kronecker(rows=taken_actions))
    np.testing.assert_allclose(ours, exact, rtol=1e-10, atol=1e-14)


def test_probes_need_a_draw_and_averages_a_beginning() -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float64)
    local = linearise(policy, batch.obs)
    for metric in (Kronecker(rows=Probes(2)), Kronecker(decay=0.5), Kronecker(every=2)):
        with pytest.raises(UsageError, match="call begin"):
            metric.operator(local, batch)


def test_masked_rows_count_for_nothing_whatever_is_in_them() -> None:
    for kind in ("mlp-categorical", "mlp-gaussian"):
        policy, batch = in_dtype(problem(kind), jnp.float64)
        spoilt = batch._replace(obs=batch.obs.at[3].set(jnp.nan))
        for metric in (kronecker, Kronecker(rows=taken_actions)):
            ours, _ = matrices(policy, batch, metric)
            np.testing.assert_array_equal(matrices(policy, spoilt, metric)[0], ours)


def test_parameter_of_no_layer_is_named() -> None:
    policy = st.TabularSoftmax(np.zeros((3, 2)))
    batch = batch_of(np.arange(3))
    with pytest.raises(UsageError, match=r"policy\.logits.*steepest\.layers.*st\.frozen.*ConjugateGradient"):
        kronecker.operator(linearise(policy, batch.obs), batch)


class Constant(eqx.Module):
    """A unit Gaussian at a matrix, whatever the observation."""

    value: Any

    def __call__(self, x: Any) -> Any:
        return UnitGaussian(constant(self.value).ravel())


def test_constant_of_several_axes_is_exact_and_has_no_average() -> None:
    policy, batch = Constant(jnp.asarray(normal(2, 3))), batch_of(normal(4, 3))
    ours, f = matrices(policy, batch)
    np.testing.assert_allclose(ours, f, rtol=1e-12, atol=1e-15)
    local, metric = linearise(policy, batch.obs), Kronecker(every=2)
    with pytest.raises(UsageError, match="several axes"):
        metric.begin(metric.init(local.params), Moment(local, batch, jax.random.key(0), jnp.asarray(0)))


def test_layer_too_large_to_decompose_is_refused() -> None:
    with pytest.raises(UsageError, match=r"20000 rows, more than 10000.*ConjugateGradient"):
        Kronecker(every=2).init({"weight": np.zeros((1, 20_000))})


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"decay": -0.1}, {"every": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        Kronecker(**settings)


def test_every_kind_of_policy_gives_blocks() -> None:
    key = jax.random.key(0)
    for policy in (MlpCategorical(3, 4, (5,), key=key), MlpGaussian(3, 2, (5,), key=key)):
        batch = batch_of(normal(4, 3).astype(np.float64))
        operator = kronecker.operator(linearise(policy, batch.obs), batch).direction
        assert isinstance(operator, KroneckerBlocks)
        assert len(operator.blocks) == len(jax.tree.leaves(parameters.split(policy)[0])) // 2 + isinstance(
            policy, MlpGaussian
        )
    assert every_row(linearise(policy, batch.obs)).number == 4
