"""Networks by name: what they are made of, Fisher products and layers against dense Jacobians, and bad input."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype
from steepest import parameters, trees
from steepest.batch import Batch
from steepest.geometry import Moment, begun, expected_advantage, fisher, initial, kronecker, linearise
from steepest.layers import ACTIVATIONS, Mlp, layer_norm
from steepest.linear import Factored
from steepest.policies import NetworkPolicy
from steepest.policies.attention import HEADS, Attention
from steepest.policies.heads import head_for
from steepest.policies.images import Pixels
from steepest.policies.network_policy import Dense
from steepest.policies.specification import PolicySpec
from steepest.policies.trunks import Convolutional, Layers, Residual, network_for
from steepest.spaces import Box, Discrete, MultiBinary

ROWS, ACTIONS = 3, 3
SIDES = {"mlp": 3, "trpo-conv": 10, "a3c": 20, "nature": 36, "impala": 8, "minatar": 4}
WINDOW = Box(np.full((2, 63), -np.inf), np.full((2, 63), np.inf))  # wide enough for a narrow layer
PLAIN = Layers(initialisation="uniform")
KEY = jax.random.key(0)


def image(side: int, channels: int = 1, dtype: str = "uint8") -> Box:
    shape = (side, side + 1, channels)
    return Box(np.zeros(shape), np.full(shape, 255.0), dtype)


def problem(policy: Any, box: Box, outputs: int = ACTIONS) -> tuple[Any, Batch]:
    """The policy with larger last weights in float64, and a batch of images."""
    rng = np.random.default_rng(0)
    policy = parameters.cast(policy, jnp.float64)
    n = ROWS
    obs = rng.integers(0, 255, (n, *box.shape)) if box.dtype == "uint8" else rng.normal(size=(n, *box.shape))
    batch = Batch(
        obs=jnp.asarray(obs, box.inside),
        weight=jnp.asarray([0.5, 0.2, 0.3]),
        action=jnp.asarray(rng.integers(0, outputs, (n, 2))),
        action_weight=jnp.full((n, 2), 0.5),
        advantage=jnp.asarray(rng.normal(size=(n, 2))),
        segment=jnp.arange(n),
    )
    return policy, batch


def relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize(
    "network",
    ["residual", "attention", *(pytest.param(n, marks=pytest.mark.slow) if n == "impala" else n for n in SIDES)],
)
def test_products_and_layers_are_those_of_the_dense_jacobian(network: str) -> None:
    """Fv = Jᵀ W (diag(p) − ppᵀ) J v; inputs and cotangents of the layers give Jᵀc: Kronecker factors know all."""
    how = PLAIN._replace(norm=network in ("trpo-conv", "mlp"), activation="silu" if network == "mlp" else "auto")
    box = WINDOW if network == "attention" else image(SIDES.get(network, 4))
    with jax.enable_x64(True):
        if network == "residual":  # as impala is made, of one narrow section
            trunk = Residual(Pixels(box), (2,), 3, how, key=KEY)
            policy = NetworkPolicy(trunk, Dense(3, ACTIONS, key=KEY), head_for(Discrete(ACTIONS)))
        else:
            given: dict[str, Any] = {"network": network, "how": how, "gain": 1.0}
            policy = NetworkPolicy.of(box, head_for(Discrete(ACTIONS)), (5, 8), **given, key=KEY)
        policy, batch = problem(policy, box)
        rng, taps = np.random.default_rng(1), list[Any]()
        v = jax.tree.map(lambda x: rng.normal(size=x.shape), parameters.split(policy)[0])
        c = rng.normal(size=(ROWS, ACTIONS))

        @jax.jit
        def found(policy: Any, v: Any, c: Any) -> Any:
            params, rest = parameters.split(policy)

            def logits(params: Any) -> Any:
                return jax.vmap(parameters.merge(params, rest))(batch.obs).logits

            local = linearise(policy, batch.obs)
            operator, tapped = fisher.operator(local, batch), local.taps()
            taps[:] = tapped.taps
            assert tapped.rest == ()
            heard = tapped.inputs, tapped.pull(eqx.tree_at(lambda d: d.logits, local.distribution, c))
            return operator.transpose(operator.forward(v)), logits(params), jax.jacrev(logits)(params), heard

        product, z, jacobian, heard = jax.tree.map(np.asarray, found(policy, v, c))
        jacobian = [leaf.reshape(ROWS, ACTIONS, -1) for leaf in jax.tree.leaves(jacobian)]
        dense, flat = np.concatenate(jacobian, axis=-1), np.concatenate([x.ravel() for x in jax.tree.leaves(v)])
        probs, along = np.asarray(jax.nn.softmax(z)), dense @ flat
        along = probs * along - probs * np.sum(probs * along, axis=1, keepdims=True)
        product = np.concatenate([x.ravel() for x in jax.tree.leaves(product)])
        assert relative(product, np.einsum("n,nk,nkp->p", batch.weight, along, dense)) < 1e-12
        for tap, x, b in zip(taps, *heard, strict=True):
            rows = b.reshape(ROWS, -1, b.shape[-1])
            patches = x.reshape(ROWS, rows.shape[1], -1)
            outer = np.einsum("ntf,nto->fo", patches, rows).ravel()
            assert relative(outer, np.einsum("nk,nkp->p", c, jacobian[tap.weight])) < 1e-12
            if tap.bias is not None:
                assert relative(rows.sum(axis=(0, 1)), np.einsum("nk,nkp->p", c, jacobian[tap.bias])) < 1e-12
        assert sum(1 + (tap.bias is not None) for tap in taps) == len(jacobian)


def test_attention_is_its_equation() -> None:
    """Written out in NumPy, one head and one place at a time."""
    module = Attention(3, 2, (5, 8), activation="tanh", initialisation="uniform", key=KEY)
    net: Any = jax.tree.map(lambda x: np.asarray(x, np.float64), module)
    obs = np.random.default_rng(0).normal(size=(3, 2))

    def dense(layer: Any, x: Any) -> Any:
        return x @ layer.weight + layer.bias

    def norm(x: Any) -> Any:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    tokens = [dense(net.embed, np.concatenate([o, np.eye(3)[t]])) for t, o in enumerate(obs)]
    heads = []
    for h in range(HEADS):
        own = slice(2 * h, 2 * h + 2)
        query = dense(net.query, norm(tokens[-1]))[own]
        scores = [np.exp(query @ (norm(x) @ net.keys)[own] / np.sqrt(2)) for x in tokens]
        heads.append(
            sum(s * dense(net.values, norm(x))[own] for s, x in zip(scores, tokens, strict=True)) / sum(scores)
        )
    y = tokens[-1] + dense(net.out, np.concatenate(heads))
    expected = norm(y + dense(net.down, np.tanh(dense(net.up, norm(y)))))
    found = eqx.filter_jit(module)(obs.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert module.features == 8


@pytest.mark.parametrize(
    ("observation", "hidden", "message"),
    [
        (Box(np.zeros(4), np.ones(4)), (8,), r"a window of observations, a Box \[N, entries\] .* not Box\(4,\)"),
        (Box(np.zeros((2, 5, 5)), np.ones((2, 5, 5))), (8,), "choose mlp, or stack vectors"),
        (Discrete(3), (8,), "not Discrete"),
        (WINDOW, (8, 8, 8), "attention has hidden="),
        (WINDOW, (), "attention has hidden="),
        (WINDOW, (8, 6), r"the width a multiple of 4, got \(8, 6\)"),
    ],
)
def test_what_attention_is_not_of(observation: Any, hidden: Any, message: str) -> None:
    with pytest.raises(st.UsageError, match=message):
        PolicySpec.for_spaces(observation, MultiBinary(2), hidden, network="attention").build(KEY)


def test_kronecker_factors_of_a_convolutional_policy_are_inverted_exactly() -> None:
    box = image(4, 2)
    with jax.enable_x64(True):
        trunk = Convolutional(Pixels(box), ((2, 3, 1),), 3, PLAIN, "small", key=KEY)
        head = head_for(Discrete(ACTIONS))
        policy, batch = problem(NetworkPolicy(trunk, Dense(3, ACTIONS, key=KEY), head), box)

        @jax.jit
        def found(policy: Any) -> Any:
            local = linearise(policy, batch.obs)
            moment = Moment(local, batch, KEY, jnp.zeros((), jnp.int32))
            metric = begun(kronecker, initial(kronecker, local.params), moment)[0]
            operator = metric.operator(local, batch)
            gradient = expected_advantage.gradient(local, batch).vector
            solution = Factored()(operator.damped(1e-2), gradient).x
            return operator.matrix(local.params), trees.ravel(gradient)[0], trees.ravel(solution)[0]

        dense, g, x = map(np.asarray, found(policy))
        assert relative(x, np.linalg.solve(dense + 1e-2 * np.eye(len(g)), g)) < 1e-11


def test_the_networks_are_those_of_the_papers() -> None:
    """Numbers of weights, counted by hand for 84×84×4 and 18 actions; a board of 10×10×4 for MinAtar."""
    dense = {"trpo-conv": 16 * 64 + 16 + 16 * 256 + 16 + 19 * 19 * 16 * 20 + 20 + 20 * 18 + 18}
    dense["a3c"] = 16 * 256 + 16 + 32 * 256 + 32 + 9 * 9 * 32 * 256 + 256 + 256 * 18 + 18
    dense["nature"] = 32 * 256 + 32 + 64 * 512 + 64 + 64 * 576 + 64 + 3136 * 512 + 512 + 512 * 18 + 18
    blocks = [(4, 16), (16, 32), (32, 32)]
    convolutions = sum(9 * i * o + o + 2 * (9 * o * o + o) for i, o in blocks)
    dense["impala"] = convolutions + 11 * 11 * 32 * 256 + 256 + 256 * 18 + 18
    atari = Box(np.zeros((4, 84, 84)), np.full((4, 84, 84), 255.0), "uint8")
    for network, expected in dense.items():
        assert PolicySpec.for_spaces(atari, Discrete(18), network=network).weights() == expected
    board = Box(np.zeros((10, 10, 4)), np.ones((10, 10, 4)), "bool")
    spec = PolicySpec.for_spaces(board, Discrete(6))
    assert (spec.kind, spec.network) == ("network", "minatar")
    assert spec.weights() == 9 * 4 * 16 + 16 + 8 * 8 * 16 * 128 + 128 + 128 * 6 + 6


@pytest.mark.parametrize(
    ("shape", "channels", "network", "size"),
    [
        ((84, 84, 3), "auto", "nature", (84, 84, 3)),
        ((4, 84, 84), "auto", "nature", (84, 84, 4)),
        ((4, 84, 84), "last", "minatar", (4, 84, 84)),
        ((2, 84, 84, 3), "auto", "nature", (84, 84, 6)),
        ((36, 40, 1), "auto", "nature", (36, 40, 1)),
        ((35, 40, 1), "auto", "minatar", (35, 40, 1)),
        ((10, 10, 10), "auto", "minatar", (10, 10, 10)),
        ((7, 7, 20), "auto", "minatar", (7, 7, 20)),
        ((20, 7, 7), "auto", "minatar", (7, 7, 20)),
        ((5, 5, 7), "first", "minatar", (5, 7, 5)),
        ((2, 9, 1), "auto", "mlp", (2, 9, 1)),
    ],
)
def test_what_auto_means(shape: tuple[int, ...], channels: str, network: str, size: tuple[int, ...]) -> None:
    box = Box(np.zeros(shape), np.full(shape, 255.0), "uint8")
    assert network_for(box, "auto", channels) == network
    assert Pixels(box, channels).size == size
    rng = np.random.default_rng(0)
    given = rng.integers(0, 255, shape).astype(np.uint8)
    seen = np.asarray(Pixels(box, channels)(given))
    assert seen.shape == size
    images = given if len(shape) == 4 else given[None]
    turned = [np.moveaxis(one, 0, -1) if Pixels(box, channels).first else one for one in images]
    np.testing.assert_allclose(seen, np.concatenate(turned, axis=-1) / 255, rtol=1e-6)


def test_numbers_that_are_no_bytes_are_taken_as_they_are() -> None:
    for dtype in ("float32", "bool"):
        board = Box(np.zeros((4, 4, 2)), np.ones((4, 4, 2)), dtype)
        given = np.random.default_rng(0).integers(0, 2, (4, 4, 2)).astype(board.inside)
        assert given.dtype == np.float32
        np.testing.assert_array_equal(Pixels(board)(given), given)


@pytest.mark.parametrize("network", ["trpo-conv", "a3c", "nature", "impala", "minatar"])
def test_too_small_an_image_names_the_smallest(network: str) -> None:
    least = {"trpo-conv": 10, "a3c": 20, "nature": 36, "impala": 8, "minatar": 3}[network]
    small = Box(np.zeros((least, least - 1, 1)), np.ones((least, least - 1, 1)), "uint8")
    with pytest.raises(st.UsageError, match=f"network {network} takes images of at least {least}×{least} pixels"):
        PolicySpec.for_spaces(small, Discrete(2), network=network, channels="last").build(KEY)
    fitting = Box(np.zeros((least, least, 1)), np.ones((least, least, 1)), "uint8")
    PolicySpec.for_spaces(fitting, Discrete(2), network=network, channels="last").weights()


def test_networks_of_images_for_what_is_none_are_refused() -> None:
    vector = Box(np.zeros(3), np.ones(3))
    with pytest.raises(st.UsageError, match=r"nature is of images, not of observations of Box\(3,\)"):
        network_for(vector, "nature")
    with pytest.raises(st.UsageError, match="unknown network 'natur'; did you mean 'nature'"):
        network_for(vector, "natur")
    with pytest.raises(st.UsageError, match="channels is one of auto, first, last, got 'middle'"):
        Pixels(image(4), "middle")


def test_activations_and_the_norm_are_what_they_are_called() -> None:
    with jax.enable_x64(True):
        x = jnp.linspace(-4.0, 4.0, 41)
        logistic = 1 / (1 + jnp.exp(-x))
        inner = jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)
        expected = {"silu": x * logistic, "gelu": 0.5 * x * (1 + jnp.tanh(inner))}
        expected["elu"] = jnp.where(x > 0, x, jnp.exp(x) - 1)
        for name, y in expected.items():
            np.testing.assert_allclose(ACTIVATIONS[name](x), y, rtol=1e-12, atol=1e-14)
        normed = layer_norm(x + 3)
        np.testing.assert_allclose([normed.mean(), normed.std()], [0, 1], atol=1e-5)
        net = in_dtype(Mlp(2, (3,), 1, last_gain=1.0, norm=True, key=KEY), jnp.float64)
        given = jnp.array([0.3, -2.0])
        hidden = jnp.tanh(layer_norm(net.layers[0](given)))
        np.testing.assert_allclose(net(given), net.layers[1](hidden))


def test_a_policy_of_images_survives_its_record() -> None:
    spec = PolicySpec.for_spaces(image(10, 3), Discrete(4), network="trpo-conv", activation="elu", norm=True)
    again = PolicySpec.from_record(spec.to_record(), image(10, 3), Discrete(4))
    assert again.to_record() == spec.to_record()
    policy: Any = spec.build(KEY)
    other: Any = again.build(KEY)
    seen = np.full((10, 11, 3), 7, np.uint8)
    np.testing.assert_array_equal(policy(seen).mode(), other(seen).mode())
    assert jax.tree.structure(policy) == jax.tree.structure(other)
