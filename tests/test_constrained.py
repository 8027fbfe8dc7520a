"""Constrained policy optimisation: its step by a constrained optimiser, its iterates by the linear programme."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import steepest as st
from constrained_problems import problem
from finite_problems import assert_close, flat
from geometry_problems import in_dtype
from geometry_problems import problem as batch_problem
from steepest.algorithms import cpo, trpo_lagrangian
from steepest.batch import Batch, Cost
from steepest.errors import UsageError
from steepest.geometry import Constrained, Lagrangian, Reason, Subsampled
from steepest.geometry.half_plane import optimum
from steepest.worlds.finite import ConstrainedMDP, DiscountedMDP

EXACT = st.Direct()


@pytest.mark.claim("CPO1")
def test_CPO1_the_half_plane_has_the_optimum_of_a_constrained_optimiser() -> None:
    rng, solve = np.random.default_rng(0), jax.jit(optimum)
    cases = {"free": 0, "bound": 0, "recovery": 0}
    for _ in range(200):
        a, b = rng.normal(size=(2, 2))
        radius, c = rng.uniform(0.1, 2.0), rng.normal()
        with jax.enable_x64(True):
            found = jax.tree.map(np.asarray, solve(*map(jnp.asarray, (a, b, c, radius))))
        assert bool(found.infeasible) == (c >= radius * np.linalg.norm(b))
        if found.infeasible:
            cases["recovery"] += 1
            assert_close(found.y, -radius * b / np.linalg.norm(b))
            continue
        assert np.linalg.norm(found.y) <= radius * (1 + 1e-12)
        assert b @ found.y + c <= 1e-12
        best = minimize(
            lambda z, a=a: -a @ z,
            -0.9 * radius * b / np.linalg.norm(b),
            jac=lambda z, a=a: -a,
            method="SLSQP",
            constraints=[
                {"type": "ineq", "fun": lambda z, r=radius: r**2 - z @ z, "jac": lambda z: -2 * z},
                {"type": "ineq", "fun": lambda z, b=b, c=c: -b @ z - c, "jac": lambda z, b=b: -b},
            ],
            options={"ftol": 1e-14, "maxiter": 300},
        )
        assert a @ found.y == pytest.approx(-best.fun, abs=1e-6)
        free = b @ a * radius / np.linalg.norm(a) + c <= 0
        cases["free" if free else "bound"] += 1
        assert (found.multiplier == 0) == free
        if not free:  # Achiam et al. 2017, eq. 12, for a maximum
            q, r, s = a @ a, a @ b, b @ b
            pressure = np.sqrt((q - r**2 / s) / (radius**2 - c**2 / s))
            price = (pressure * c + r) / s
            assert_close(found.y, (a - price * b) / pressure, rtol=1e-8)
            assert found.multiplier == pytest.approx(price, rel=1e-7)
    assert min(cases.values()) > 20, cases


@pytest.mark.claim("CPO1")
@pytest.mark.parametrize("case", ["free", "bound", "recovery"])
def test_CPO1_the_step_is_the_optimum_over_all_parameters(case: str) -> None:
    """The KKT conditions of max gᵀΔ, ½ΔᵀFΔ ≤ δ, bᵀΔ + c ≤ 0, which is convex: Δ ∝ F⁺(g − νb), ν ≥ 0, both tight."""
    delta, share = 1e-6, 0.1  # share: 1 − γ, from a discounted sum to a mean over states
    world = problem(1).world
    policy = st.TabularSoftmax(np.random.default_rng(3).normal(size=(5, 3)))
    g, b = share * flat(world.mdp.gradient(policy)), share * flat(world.costs.gradient(policy))
    fisher = world.mdp.fisher(policy)
    inverse = np.linalg.pinv(fisher, hermitian=True, rcond=1e-12)
    reach = np.sqrt(2 * delta * b @ inverse @ b)  # how far the cost can be changed
    excess = {"free": -2 * reach, "bound": 0.3 * reach, "recovery": 1.2 * reach}[case]
    world = ConstrainedMDP(world.mdp, world.costs.reward, world.cost(policy) - excess / share)
    new, info = st.improve(policy, world, cpo(delta, solver=EXACT))
    move, said = flat(new) - flat(policy), info.details
    assert said is not None
    assert info.accepted
    assert float(said["cost_excess"]) == pytest.approx(excess, rel=1e-9)
    assert bool(said["recovery"]) == (case == "recovery")
    radius = np.sqrt(2 * delta) * float(info.step_size)
    assert 0.5 * move @ fisher @ move == pytest.approx(radius**2 / 2, rel=1e-8)
    assert float(info.predicted_kl) == pytest.approx(radius**2 / 2, rel=1e-8)
    assert float(info.kl) <= delta
    assert float(info.predicted_improvement) == pytest.approx(g @ move, rel=1e-8)
    assert float(said["cost_predicted"]) == pytest.approx(b @ move, rel=1e-6)
    assert float(said["cost_change"]) == pytest.approx(b @ move, rel=1e-2)
    if case == "recovery":
        assert_close(move, -radius / np.sqrt(b @ inverse @ b) * inverse @ b, rtol=1e-7)
        return
    price = float(said["cost_multiplier"])
    assert (price == 0) == (case == "free")
    ascent = inverse @ (g - price * b)
    direction = ascent / np.sqrt(ascent @ fisher @ ascent)
    assert_close(move / np.sqrt(move @ fisher @ move), direction, rtol=1e-3 if info.backtracks else 1e-7)


@pytest.mark.claim("CPO2")
@pytest.mark.parametrize(("delta", "steps", "gap", "over"), [(1e-2, 50, 2e-2, 1e-3), (1e-3, 120, 1e-3, 3e-4)])
@pytest.mark.parametrize("seed", [1, 6, 7])
def test_CPO2_reaches_the_linear_programme_and_comes_back_from_beyond(
    delta: float, steps: int, gap: float, over: float, seed: int
) -> None:
    world, within, beyond = problem(seed)
    best = world.optimal()
    for start in (within, beyond):
        policies, infos = st.iterate(start, world, cpo(delta, solver=EXACT), steps)
        excess = np.array([world.cost(p) for p in policies]) - world.limit
        recovering = [bool(info.details["recovery"]) for info in infos if info.details is not None]
        back = int(np.argmax(excess <= 0))
        assert (excess[0] > 0.5) == any(recovering) == (start is beyond)
        assert np.all(np.diff(excess[: back + 1]) < 0)  # straight back
        assert not any(recovering[back:])
        assert excess[back:].max() < over  # the surrogate stays within, the true cost to second order
        assert world.value(policies[-1]) == pytest.approx(best.value, abs=gap)
        assert all(float(info.kl) <= delta for info in infos)


@pytest.mark.claim("CPO2")
def test_CPO2_holds_for_policies_that_know_the_time() -> None:
    """A finite horizon has its optimum in time-dependent policies: those of the world with the clock in the state."""
    world, within, _ = problem(2, None)
    policies, _ = st.iterate(within, world, cpo(1e-2, solver=EXACT), steps=60)
    excess = np.array([world.cost(p) for p in policies]) - world.limit
    assert excess.max() < 1e-3
    assert world.value(policies[-1]) == pytest.approx(world.optimal().value, abs=2e-2)


@pytest.mark.claim("CPO5")
def test_CPO5_the_lagrangian_converges_where_its_price_has_a_proportional_term() -> None:
    world, within, _ = problem(1)
    best = world.optimal()
    spread = {}
    for proportional in (0.0, 5.0):
        method = trpo_lagrangian(
            solver=EXACT, step=st.Fixed(0.3), price=Lagrangian(integral=0.5, proportional=proportional)
        )
        policies, infos = st.iterate(within, world, method, steps=300)
        late = policies[200:]
        value = np.array([world.value(p) for p in late])
        spread[proportional] = value.std()
        if proportional:
            price = [float(info.details["multiplier"]) for info in infos[200:] if info.details is not None]
            np.testing.assert_allclose(value, best.value, atol=2e-2)
            np.testing.assert_allclose([world.cost(p) for p in late], world.limit, atol=2e-3)
            np.testing.assert_allclose(price, best.multiplier, rtol=2e-2)
    assert spread[0.0] > 0.1 > 100 * spread[5.0]


@pytest.mark.claim("CPO5")
def test_CPO5_the_price_does_not_depend_on_the_units() -> None:
    world, within, _ = problem(1)
    dearer = DiscountedMDP(world.mdp.transition, 100 * world.mdp.reward, world.mdp.initial, 0.9)
    scaled = ConstrainedMDP(dearer, 7 * world.costs.reward, 7 * world.limit)
    ends = [st.iterate(within, w, trpo_lagrangian(1e-3, solver=EXACT), steps=5) for w in (world, scaled)]
    assert_close(flat(ends[1][0][-1]), flat(ends[0][0][-1]), rtol=1e-9)
    prices = [float(infos[-1].details["multiplier"]) for _, infos in ends if infos[-1].details is not None]
    assert prices[1] == pytest.approx(100 / 7 * prices[0], rel=1e-9)


@pytest.mark.claim("CPO4")
def test_CPO4_a_degenerate_constraint_never_gives_nan() -> None:
    rng = np.random.default_rng(0)
    policy, batch = batch_problem("tabular")
    method = cpo(1e-2, solver=st.ConjugateGradient(10), damping=0.1)
    special: list[Any] = [0.0, 1e-30, -1e-30, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e30]
    seen = set()
    state, policy = method.init(in_dtype(policy, jnp.float32)), in_dtype(policy, jnp.float32)
    for n in range(200):
        g = [0.0 * batch.advantage, batch.advantage, 1e-20 * batch.advantage, np.nan * batch.advantage][n % 4]
        cost = [g, -g, 0.0 * g, rng.normal(size=g.shape), 1e20 * batch.advantage][rng.integers(5)]
        excess = np.asarray(special[rng.integers(len(special))])
        given = in_dtype(batch._replace(advantage=g, cost=Cost(cost, excess)), jnp.float32)
        new, _, info = method.update(policy, state, given)
        reason = Reason(int(info.reason))
        seen.add(reason)
        assert np.isfinite(flat(new)).all()
        if reason is not Reason.ACCEPTED:
            assert_close(np.float64(flat(new)), np.float64(flat(policy)), rtol=0)
        assert float(info.kl) <= 1e-2
    assert {Reason.ACCEPTED, Reason.NO_GRADIENT, Reason.NONFINITE_GRADIENT, Reason.INFEASIBLE} <= seen


def test_the_step_is_the_optimum_of_its_plane_under_damping_and_few_iterations() -> None:
    """KL is measured undamped, and the linear cost is at the limit, however rough the two directions are."""
    world, within, _ = problem(1)
    world = ConstrainedMDP(world.mdp, world.costs.reward, world.cost(within) + 1e-4)
    method = cpo(1e-6, solver=st.ConjugateGradient(2), damping=0.3)
    _, info = st.improve(within, world, method)
    said = info.details
    assert said is not None
    assert info.accepted
    assert float(info.predicted_kl) == pytest.approx(1e-6 * float(info.step_size) ** 2, rel=1e-8)
    assert float(said["cost_excess"]) == pytest.approx(-1e-5, rel=1e-9)
    assert float(said["cost_predicted"]) <= 1e-5
    assert float(said["cost_multiplier"]) > 0


@pytest.mark.parametrize("solver", [st.SampleSpace(), st.Direct(), st.ConjugateGradient(30)])
def test_both_directions_come_from_the_solver_of_the_algorithm(solver: Any) -> None:
    world, within, _ = problem(1)
    exact, _ = st.improve(within, world, cpo(1e-3, solver=EXACT))
    assert_close(flat(st.improve(within, world, cpo(1e-3, solver=solver))[0]), flat(exact), rtol=1e-6)


def test_a_batch_of_a_few_rows_keeps_the_excess_of_all() -> None:
    world, within, _ = problem(1)
    _, info = st.improve(within, world, cpo(1e-3, metric=Subsampled(fraction=0.5), damping=0.1))
    assert info.details is not None
    expected = 0.1 * (world.cost(within) - world.limit)
    assert float(info.details["cost_excess"]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", [cpo(), trpo_lagrangian()])
def test_a_batch_without_costs_is_refused(method: Any) -> None:
    world, within, _ = problem(1)
    with pytest.raises(UsageError, match=r"costs.*ConstrainedMDP"):
        st.improve(within, world.mdp, method)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    wrongs: list[dict[str, Any]] = [{"delta": 0.0}, {"delta": 0.1, "shrink": 1.0}, {"delta": 0.1, "backtracks": -1}]
    for wrong in wrongs:
        with pytest.raises(UsageError, match="Constrained needs"):
            Constrained(**wrong)
    with pytest.raises(UsageError, match="finite integral"):
        Lagrangian(integral=-1.0)
    with pytest.raises(UsageError, match="stays 0"):
        Lagrangian(integral=0.0, proportional=0.0)


def test_a_batch_has_no_cost_unless_it_is_given_one() -> None:
    world, within, _ = problem(1)
    batch: Batch = world.mdp.batch(within)
    assert batch.cost is None
    cost = world.batch(within).cost
    assert cost is not None
    assert_close(cost.advantage, world.costs.advantages(within))
