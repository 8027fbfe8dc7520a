"""A decaying δ: the schedule that it says, in one program, carried by the algorithm's state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest as st
from geometry_problems import in_dtype, problem
from steepest.geometry import Decaying, MaxKL, MirrorDescent, Moment, linearise
from steepest.geometry.decay import exponential, linear
from steepest.worlds.finite import random as random_mdp

MDP = random_mdp(3, 2, 4, 1)
POLICY = st.TabularSoftmax(np.random.default_rng(0).normal(size=(3, 2)))


@pytest.mark.claim("DEC1")
@pytest.mark.parametrize(
    ("shape", "expected"),
    [(linear, [1, 0.7, 0.4, 0.1, 0.1]), (exponential, 10.0 ** -np.array([0, 1 / 3, 2 / 3, 1, 1]))],
)
def test_DEC1_the_predicted_kl_is_the_schedule(shape: Any, expected: Any) -> None:
    """½ΔᵀFΔ = δ_k exactly; the last length is reached after `over` updates and stays."""
    step = Decaying(st.Normalised(1e-3), over=3, to=0.1, shape=shape)
    _, infos = st.iterate(POLICY, MDP, st.npg(step=step, damping=0.0), steps=5)
    np.testing.assert_allclose([info.predicted_kl for info in infos], 1e-3 * np.array(expected), rtol=1e-12)


@pytest.mark.claim("DEC1")
def test_DEC1_a_state_that_was_kept_goes_on_with_its_schedule() -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
    algorithm = st.npg(step=Decaying(st.Normalised(1e-3), over=10, to=0.5))
    state = algorithm.init(policy)._replace(updates=jnp.array(5))
    _, state, info = algorithm.update(policy, state, batch)
    assert float(info.predicted_kl) == pytest.approx(0.75e-3, rel=1e-5)
    assert int(state.updates) == 6


@pytest.mark.claim("DEC1")
def test_DEC1_ten_updates_are_one_program() -> None:
    policy, batch = in_dtype(problem("mlp-categorical"), jnp.float32)
    algorithm = st.trpo(step=Decaying(st.TrustRegion(1e-3), over=10))
    state = algorithm.init(policy)
    jax.clear_caches()
    compilations: list[str] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    kl = []
    for _ in range(10):
        policy, state, info = algorithm.update(policy, state, batch)
        kl.append(info.kl)
    jax.block_until_ready(policy)
    assert len(compilations) == 1, compilations
    assert np.all(np.array(kl) <= 1e-3 * (1 - 0.09 * np.arange(10)) * (1 + 1e-6))


def test_every_step_with_a_length_can_decay() -> None:
    """By its learning rate, or by δ; a step that is itself another in each update is begun."""
    policy, batch = in_dtype(problem("tabular"), jnp.float32)
    moment = Moment(linearise(policy, batch.obs), batch, jax.random.key(0), jnp.array(1))
    for step in (
        st.Fixed(0.2),
        st.Normalised(1e-3, half=False),
        MaxKL(1e-3),
        MirrorDescent(delta=1e-3),
        MirrorDescent(learning_rate=0.2),
    ):
        field = "delta" if getattr(step, "delta", None) is not None else "learning_rate"
        now, _ = Decaying(step, over=2, to=0.5).begin((), moment)
        assert type(now) is type(step)
        assert float(getattr(now, field)) == pytest.approx(0.75 * getattr(step, field), rel=1e-6)
        if hasattr(step, "moment"):
            assert getattr(now, "moment") is moment  # noqa: B009


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decaying(st.Normalised(0.01), over=0), "over ≥ 1 updates, got 0"),
        (lambda: Decaying(st.Normalised(0.01), over=5, to=0.0), "fraction to > 0, got 0"),
        (lambda: Decaying(Decaying(st.Normalised(0.01), over=5), over=5), "this has neither"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(st.UsageError, match=message):
        make()


def test_algorithms_with_a_schedule_are_values() -> None:
    one, two = (st.npg(step=Decaying(st.Normalised(0.01), over=5)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
