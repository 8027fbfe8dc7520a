"""Every distribution: density, entropy and KL against sums or sampling, and the Fisher factor against autodiff."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steepest.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
    SquashedGaussian,
    UnitGaussian,
)


def ravel(tree) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0])


def cases() -> dict[str, tuple[Distribution, Distribution, np.ndarray]]:
    """name ↦ (p, q, actions), in float64."""
    rng = np.random.default_rng(0)
    return {
        "categorical": (
            Categorical(jnp.asarray(rng.normal(size=5) * 2)),
            Categorical(jnp.asarray(rng.normal(size=5))),
            np.arange(5),
        ),
        "peaked": (Categorical(jnp.array([0.0, 12.0, -9.0])), Categorical(jnp.zeros(3)), np.arange(3)),
        "gaussian": (
            DiagonalGaussian(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3) - 1)),
            DiagonalGaussian(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3))),
            rng.normal(size=(6, 3)),
        ),
        "multi-categorical": (
            MultiCategorical(jnp.asarray(rng.normal(size=5) * 2), (2, 3)),
            MultiCategorical(jnp.asarray(rng.normal(size=5)), (2, 3)),
            np.array([[0, 0], [1, 2], [0, 1], [1, 0]]),
        ),
        "bernoulli": (
            Bernoulli(jnp.asarray(rng.normal(size=3) * 2)),
            Bernoulli(jnp.asarray(rng.normal(size=3))),
            np.array([[0, 0, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]]),
        ),
        "beta": (
            Beta(jnp.array([0.3, -2.0, 4.0]), jnp.array([1.0, 0.5, 3.0])),
            Beta(jnp.array([-1.0, -1.0, 4.5]), jnp.array([2.0, 0.8, 3.5])),
            rng.normal(size=(6, 3)),
        ),
        "squashed-gaussian": (
            SquashedGaussian(jnp.asarray(rng.normal(size=2)), jnp.asarray([-1.0, 0.2])),
            SquashedGaussian(jnp.asarray(rng.normal(size=2)), jnp.asarray([-0.5, 0.0])),
            rng.normal(size=(6, 2)),
        ),
        "product": (
            product(rng),
            product(rng),
            np.concatenate([rng.normal(size=(4, 2)), rng.integers(0, [3, 2, 2, 2], (4, 4))], axis=1),
        ),
        "unit-gaussian": (
            UnitGaussian(jnp.asarray(rng.normal(size=3))),
            UnitGaussian(jnp.asarray(rng.normal(size=3))),
            rng.normal(size=(6, 3)),
        ),
    }


def product(rng: np.random.Generator) -> Product:
    """Of a Gaussian, and a product of a categorical, a pair of them and a switch."""
    logits = [jnp.asarray(rng.normal(size=n)) for n in (3, 4, 1)]
    inner = Product([Categorical(logits[0]), MultiCategorical(logits[1], (2, 2)), Bernoulli(logits[2])])
    return Product([DiagonalGaussian(jnp.asarray(rng.normal(size=2)), jnp.asarray(rng.normal(size=2) - 1)), inner])


@pytest.fixture(params=list(cases()))
def case(request):
    with jax.enable_x64(True):
        yield cases()[request.param]


def unit(p: Distribution) -> list:
    """The unit tangents on z."""
    flat, unravel = ravel_pytree(p)
    return [unravel(row) for row in jnp.eye(flat.size)]


def factor(p: Distribution) -> np.ndarray:
    """R, [k, entries of z]."""
    flat, unravel = ravel_pytree(p)
    return np.asarray(jax.jit(jax.vmap(lambda e: p.whiten(unravel(e)), out_axes=1))(jnp.eye(flat.size)))


def transposed(p: Distribution, rows: int) -> np.ndarray:
    """Rᵀ, by its own product."""
    return np.asarray(jax.jit(jax.vmap(lambda y: ravel_pytree(p.whiten_transpose(y))[0], out_axes=1))(jnp.eye(rows)))


def test_factor_is_the_hessian_of_the_kl(case) -> None:
    p, _, _ = case
    flat, unravel = ravel_pytree(p)
    hessian = jax.jit(jax.hessian(lambda z: p.kl(unravel(z))))(flat)
    r = factor(p)
    np.testing.assert_allclose(r.T @ r, hessian, atol=1e-12)


def test_whiten_transpose_is_the_transpose(case) -> None:
    p, _, _ = case
    r = factor(p)
    np.testing.assert_allclose(transposed(p, len(r)), r.T, atol=1e-14)


def test_score_identity(case) -> None:
    """Rᵀu = ∇_z ln π(a), u ⟂ null(Rᵀ), and u is what whitening the cotangent gives."""
    p, _, actions = case

    def both(a: Any) -> Any:
        score, u = jax.grad(lambda d: d.log_prob(a))(p), p.whitened_score(a)
        return ravel_pytree(p.whiten_transpose(u))[0], ravel_pytree(score)[0], u, p.whiten_cotangent(score)

    every = [np.asarray(x) for x in jax.jit(jax.vmap(both))(jnp.asarray(actions))]
    rt = transposed(p, every[2].shape[-1])
    projector = np.linalg.pinv(rt, rcond=1e-12) @ rt
    for pulled, score, u, whitened in zip(*every, strict=True):
        np.testing.assert_allclose(pulled, score, atol=1e-12)
        np.testing.assert_allclose(projector @ u, u, atol=1e-8 * np.abs(u).max())
        np.testing.assert_allclose(whitened, u, rtol=1e-7, atol=1e-9)


def test_kl_of_itself_is_exactly_zero(case) -> None:
    p, _, _ = case
    assert float(p.kl(p)) == 0.0
    single = jax.tree.map(lambda x: x.astype(jnp.float32), p)
    assert float(jax.jit(lambda d: d.kl(d))(single)) == 0.0


def test_one_state_or_many(case) -> None:
    p, q, actions = case
    many_p, many_q = (jax.tree.map(lambda x: jnp.stack([x, x + 0.1]), d) for d in (p, q))
    action = jnp.asarray(actions[0])

    @jax.jit
    def all_three(p: Any, q: Any, action: Any) -> Any:
        return p.kl(q), p.entropy(), p.log_prob(action)

    many, one = all_three(many_p, many_q, jnp.stack([action] * 2)), all_three(p, q, action)
    for all_of, single in zip(many, one, strict=True):
        np.testing.assert_allclose(all_of[0], single, rtol=1e-13)


def test_sampling_agrees_with_log_prob_entropy_and_kl(case) -> None:
    p, q, _ = case
    n = 40_000

    def drawn(key: Any) -> Any:
        sample = p.sample(key)
        return p.log_prob(sample), q.log_prob(sample)

    log_p, log_q = map(np.asarray, jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(0), n)))
    for estimate, exact in ((-log_p, p.entropy()), (log_p - log_q, p.kl(q))):
        error = abs(estimate.mean() - float(exact))
        assert error <= 4 * estimate.std() / np.sqrt(n) + 1e-4
    assert float(p.kl(q)) > 0


def test_mode_is_the_most_probable(case) -> None:
    p, _, actions = case
    if isinstance(p, SquashedGaussian):
        p = p.straight  # its mode is the median of what it says
    best = float(p.log_prob(p.mode()))
    assert all(best >= float(p.log_prob(jnp.asarray(a))) for a in actions)


def test_pitfall_1_kl_is_summed_over_action_dimensions() -> None:
    p = DiagonalGaussian(jnp.zeros(7), jnp.zeros(7))
    q = DiagonalGaussian(jnp.ones(7), jnp.zeros(7))
    assert float(p.kl(q)) == pytest.approx(7 * 0.5)
    assert float(p.entropy()) == pytest.approx(7 * 0.5 * np.log(2 * np.pi * np.e))


def test_pitfall_2_a_growing_deviation_costs() -> None:
    """The sign of ln σ, and the direction: KL(old‖new), not KL(new‖old)."""
    old, new = DiagonalGaussian(jnp.zeros(1), jnp.zeros(1)), DiagonalGaussian(jnp.zeros(1), jnp.ones(1))
    assert float(old.kl(new)) == pytest.approx(1.0 + np.exp(-2) / 2 - 0.5)
    assert float(new.kl(old)) == pytest.approx(-1.0 + np.exp(2) / 2 - 0.5)


def test_a_masked_action_takes_no_part() -> None:
    p = Categorical(jnp.array([0.3, -jnp.inf, 1.0]))
    q = Categorical(jnp.array([0.0, -jnp.inf, 0.0]))
    sub_p, sub_q = Categorical(p.logits[jnp.array([0, 2])]), Categorical(q.logits[jnp.array([0, 2])])
    assert float(p.kl(q)) == pytest.approx(float(sub_p.kl(sub_q)))
    assert float(p.entropy()) == pytest.approx(float(sub_p.entropy()))
    assert float(p.kl(p)) == 0.0
    for y in (p.whiten(Categorical(jnp.ones(3))), p.whitened_score(jnp.array(0)), p.whiten_cotangent(q)):
        assert np.isfinite(np.asarray(y)[[0, 2]]).all()
        assert float(y[1]) == 0.0
    kl_gradient = jax.grad(lambda d: p.kl(d))(q)
    assert np.isfinite(np.asarray(kl_gradient.logits)).all()
    draws = jax.vmap(p.sample)(jax.random.split(jax.random.key(0), 500))
    assert not (np.asarray(draws) == 1).any()


@pytest.mark.parametrize("actions", [2, 3, 7])
@pytest.mark.claim("N1")
def test_N1_softmax_fisher_has_rank_k_minus_1(actions: int) -> None:
    """F = diag(p) − ppᵀ; F⁺(p⊙A) = A up to a constant if E_p A = 0."""
    with jax.enable_x64(True):
        p = Categorical(jnp.asarray(np.random.default_rng(actions).normal(size=actions)))
        probs = np.asarray(p.probs)
        r = np.stack([p.whiten(e) for e in unit(p)], axis=1)
    fisher = r.T @ r
    np.testing.assert_allclose(fisher, np.diag(probs) - np.outer(probs, probs), atol=1e-15)
    assert np.linalg.matrix_rank(fisher) == actions - 1
    advantage = np.arange(actions) - probs @ np.arange(actions)
    solved = np.linalg.pinv(fisher) @ (probs * advantage)
    np.testing.assert_allclose(solved - solved[0], advantage - advantage[0], atol=1e-12)


@pytest.mark.claim("N2")
def test_N2_gaussian_fisher() -> None:
    with jax.enable_x64(True):
        p = DiagonalGaussian(jnp.array([1.0, 2.0]), jnp.log(jnp.array([0.5, 3.0])))
        r = np.stack([p.whiten(e) for e in unit(p)], axis=1)
    np.testing.assert_allclose(r.T @ r, np.diag([4.0, 1 / 9, 2.0, 2.0]), atol=1e-14)


def test_the_centred_score_keeps_float32_accurate() -> None:
    """In the dual solve at λ = 1e-7 the uncentred u = e_a/√p_a loses 2e-2, the centred one does not."""
    logits = np.random.default_rng(0).normal(size=(50, 4))
    single = Categorical(jnp.asarray(logits, jnp.float32))
    u = np.asarray(single.whitened_score(jnp.zeros(50, int)), np.float64)
    root = np.sqrt(np.asarray(single.probs, np.float64))
    assert np.abs(np.sum(u * root, axis=-1)).max() < 1e-6


def test_a_product_is_the_distribution_over_all_combinations() -> None:
    """Probabilities, entropy and KL of two parts against the categorical over their six pairs."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        p, q = (MultiCategorical(jnp.asarray(rng.normal(size=5)), (2, 3)) for _ in range(2))
        flat = [Categorical(jnp.add.outer(d.parts[0].log_probs, d.parts[1].log_probs).ravel()) for d in (p, q)]
        pairs = jnp.asarray([[i, j] for i in range(2) for j in range(3)])
        np.testing.assert_allclose(jax.vmap(p.log_prob)(pairs), flat[0].log_probs, atol=1e-14)
        assert float(p.entropy()) == pytest.approx(float(flat[0].entropy()), rel=1e-13)
        assert float(p.kl(q)) == pytest.approx(float(flat[0].kl(flat[1])), rel=1e-12)


def test_a_product_is_its_parts() -> None:
    """ln π, entropy, KL and the Fisher matrix are those of the parts, each of which sees its own of an action."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(4)
        p, q = product(rng), product(rng)
        gaussian, inner = p.parts
        first, second, third = inner.parts
        action = jnp.array([0.3, -1.0, 2.0, 1.0, 0.0, 1.0])
        each = [gaussian.log_prob(action[:2]), first.log_prob(jnp.array(2)), second.log_prob(jnp.array([1, 0]))]
        assert float(p.log_prob(action)) == pytest.approx(float(sum(each) + third.log_prob(jnp.array([1]))), rel=1e-13)
        kl = gaussian.kl(q.parts[0]) + sum(a.kl(b) for a, b in zip(inner.parts, q.parts[1].parts, strict=True))
        assert float(p.kl(q)) == pytest.approx(float(kl), rel=1e-13)
        r = np.stack([p.whiten(e) for e in unit(p)], axis=1)
        alone = np.stack([gaussian.whiten(e) for e in unit(gaussian)], axis=1)
    np.testing.assert_array_equal(r[:4, :4], alone)
    assert not r[:4, 4:].any()
    assert not r[4:, :4].any()


def test_actions_of_a_product_are_one_vector_of_floats() -> None:
    p = product(np.random.default_rng(0))
    many = jax.tree.map(lambda x: jnp.stack([x] * 5), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), p))
    key = jax.random.key(1)
    for action in (many.sample(key), many.from_noise(many.noise(key)), many.mode()):
        assert action.shape == (5, 6)
        assert action.dtype == jnp.float32
    np.testing.assert_array_equal(many.sample(key), many.from_noise(many.noise(key)))


def test_a_switch_is_a_categorical_of_two() -> None:
    with jax.enable_x64(True):
        z, y = jnp.array([0.7, -2.0, 30.0]), jnp.array([-0.2, 1.0, 28.0])
        p, q = Bernoulli(z), Bernoulli(y)
        two = [Categorical(jnp.stack([jnp.zeros(3), x], axis=-1)) for x in (z, y)]
        action = jnp.array([1, 0, 1])
        assert float(p.log_prob(action)) == pytest.approx(float(two[0].log_prob(action).sum()), rel=1e-13)
        assert float(p.entropy()) == pytest.approx(float(two[0].entropy().sum()), rel=1e-13)
        assert float(p.kl(q)) == pytest.approx(float(two[0].kl(two[1]).sum()), rel=1e-12)


def test_certain_switches_and_masked_parts_are_finite() -> None:
    certain = Bernoulli(jnp.array([200.0, -200.0]))
    masked = MultiCategorical(jnp.array([0.0, -jnp.inf, 1.0, 0.0]), (2, 2))
    for p in list[Any]([certain, masked]):
        flat, unravel = ravel_pytree(p)
        for y in (p.entropy(), p.kl(p), p.whiten(unravel(jnp.ones(flat.size))), p.whitened_score(p.mode())):
            assert np.isfinite(np.asarray(y)).all()
    assert not np.asarray(jax.vmap(masked.sample)(jax.random.split(jax.random.key(0), 99)))[:, 0].any()
