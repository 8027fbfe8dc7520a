"""What settings mean as an algorithm, and that those which contradict one another are refused with what would work."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import steepest as st
from steepest.geometry import (
    Decaying,
    EntropyRegularised,
    MaxKL,
    MirrorDescent,
    Preconditioned,
    Subsampled,
    TrustRegion,
    diagonal,
    empirical_fisher,
    expected_advantage,
    fisher,
    kronecker,
    trajectory,
)
from steepest.linear import ConjugateGradient, Factored, SampleSpace
from steepest.policies import MlpCategorical
from steepest.spaces import Box, Discrete
from steepest.training.assembly import build_learner, check_update
from steepest.training.checks import check
from steepest.training.composition import build_algorithm
from steepest.training.config import SamplingConfig, TrainConfig, UpdateConfig
from steepest.training.presets import resolve


def made(name: str = "trpo", updates: int = 1, **settings: Any) -> Any:
    return build_algorithm(name, UpdateConfig(**settings), updates)


def test_each_setting_exchanges_one_part() -> None:
    plain = made()
    assert plain == st.trpo(metric=fisher, solver=ConjugateGradient(10))
    assert made(subsample=0.1).metric == Subsampled(fisher, 0.1)
    assert made(preconditioner="diagonal").metric == Preconditioned(fisher, diagonal)
    assert made(preconditioner="kronecker", subsample=0.5).metric == Subsampled(Preconditioned(fisher, kronecker), 0.5)
    assert made(warm_start=True).solver == ConjugateGradient(10, warm=True)
    assert made("npg", solver="sample-space", momentum=0.9).solver == SampleSpace(momentum=0.9)
    assert made("npg", metric="kronecker").solver == Factored()
    assert made("npg", metric="kronecker", solver="cg").solver == ConjugateGradient(10)
    assert made(divergence="max", delta=0.02, backtracks=3).step == MaxKL(0.02, backtracks=3)
    assert made(entropy=0.1).objective == EntropyRegularised(0.1, expected_advantage)
    assert made(damping=0.5, damping_rule="relative").damping == st.RelativeDamping(0.5)
    assert made(damping=0.5, damping_rule="adaptive").damping == st.LevenbergMarquardt(0.5)
    assert made(damping=1e-6, damping_rule="adaptive").damping == st.LevenbergMarquardt(1e-6, least=1e-6)
    assert made("mirror-descent", cg_iterations=3).step.solver == ConjugateGradient(3)
    assert isinstance(made("mirror-descent").step, MirrorDescent)


def test_sample_space_takes_the_empirical_fisher_matrix_unless_told() -> None:
    """One row a sample: the expected one has a row for each of a distribution's parameters."""
    assert made("npg", solver="sample-space").metric == empirical_fisher
    assert made("trpo", solver="sample-space").metric == empirical_fisher
    assert made("npg", solver="sample-space", metric="fisher").metric == fisher


def test_delta_falls_on_a_line_to_its_last_value() -> None:
    step = made(delta=0.02, delta_final=0.005, updates=11).step
    assert step == Decaying(TrustRegion(0.02), over=10, to=0.25)
    assert float(step.fraction(0)) == 1.0
    assert float(step.fraction(10)) == float(step.fraction(99)) == 0.25
    assert made(delta=0.02, delta_final=0.005).step.over == 1


REFUSED = [
    ("pg", {"subsample": 0.5}, "choose npg"),
    ("pg", {"damping_rule": "adaptive"}, "choose npg"),
    ("covariant", {"metric": "kronecker"}, "choose npg"),
    ("npg", {"solver": "kronecker"}, "preconditioner=kronecker"),
    ("acktr", {"solver": "sample-space"}, "choose cg"),
    ("npg", {"metric": "kronecker", "solver": "sample-space"}, "choose cg"),
    ("npg", {"metric": "kronecker", "solver": "cg", "preconditioner": "kronecker"}, "choose metric=fisher"),
    ("npg", {"preconditioner": "diagonal"}, "solver=cg"),
    ("npg", {"warm_start": True}, "solver=cg"),
    ("acktr", {"preconditioner": "diagonal"}, "solver=cg"),
    ("npg", {"momentum": 0.5}, "solver=sample-space"),
    ("npg", {"solver": "sample-space", "subsample": 0.5}, "solver=cg"),
    ("npg", {"divergence": "max"}, "choose trpo"),
    ("cpo", {"divergence": "max"}, "choose trpo"),
    ("trpo", {"delta": 0.01, "delta_final": 0.02}, "at most delta"),
    ("trpo-lagrangian", {"entropy": 0.1}, "npg or trpo"),
    ("npg", {"entropy": 0.1, "solver": "sample-space"}, "metric=fisher"),
    ("mirror-descent", {"metric": "kronecker"}, "solver=direct"),
    ("mirror-descent", {"solver": "sample-space"}, "solver=direct"),
    ("mirror-descent", {"damped_form": True}, "leave it out"),
    ("cpo", {"damped_form": True}, "leave it out"),
    ("trpo", {"divergence": "max", "damped_form": True}, "leave it out"),
]


@pytest.mark.parametrize(("name", "settings", "instead"), REFUSED)
def test_contradictions_are_refused_with_what_would_work(name: str, settings: dict[str, Any], instead: str) -> None:
    with pytest.raises(st.UsageError, match=instead):
        made(name, **settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"momentum": 1.0}, "momentum must be"),
        ({"subsample": 0.0}, "subsample must be"),
        ({"entropy": -1.0}, "entropy must be"),
        ({"delta_final": 0.0}, "delta_final must be"),
        ({"damping": 0.0, "damping_rule": "adaptive"}, "damping > 0 to start from"),
    ],
)
def test_numbers_out_of_range(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(st.UsageError, match=complaint):
        check(TrainConfig("CartPole-v1", update=UpdateConfig(**settings)))


@pytest.mark.parametrize("algorithm", ["npg", "acktr", "natural-actor-critic", "mirror-descent"])
def test_every_method_that_compares_actions_is_let_through_with_a_vine(algorithm: str) -> None:
    config = TrainConfig("CartPole-v1", algorithm=algorithm, steps=100, sampling=SamplingConfig(scheme="vine"))
    config = resolve(config, Discrete(2))
    learner = build_learner(config, build_algorithm(algorithm, config.update))
    policy = MlpCategorical(4, 2, (8,), key=jax.random.key(0))
    check_update(learner.algorithm, policy, config, Box(-np.ones(4), np.ones(4)))


@pytest.mark.parametrize(
    ("part", "complaint"),
    [({"metric": Subsampled(trajectory, 0.5)}, "whole paths"), ({"objective": EntropyRegularised(0.5)}, "entropy")],
)
def test_what_a_vine_has_not_is_refused_within_other_parts_too(part: dict[str, Any], complaint: str) -> None:
    config = resolve(TrainConfig("CartPole-v1", sampling=SamplingConfig(scheme="vine")), Discrete(2))
    with pytest.raises(st.UsageError, match=complaint):
        build_learner(config, dataclasses.replace(st.trpo(), **part))


def test_delta_final_counts_the_branches_of_a_vine() -> None:
    plain = resolve(TrainConfig("CartPole-v1"), Discrete(2))
    vine = resolve(TrainConfig("CartPole-v1", sampling=SamplingConfig(scheme="vine")), Discrete(2))
    assert plain.branch_steps == 0
    assert vine.branch_steps == 64 * 2 * (vine.vine.length or 0) > 0


def test_what_no_update_can_be_made_of_is_refused_before_anything_is_written(tmp_path: Any) -> None:
    """Kronecker factors of a layer that they do not know, and more rows than a sample-space solve takes."""
    import equinox as eqx
    import jax.numpy as jnp

    class Raw(eqx.Module):
        weight: Any

        def __call__(self, obs: Any) -> Any:
            return st.Categorical(obs @ self.weight)

    out = tmp_path / "run"
    with pytest.raises(st.UsageError, match="weight"):
        st.train("CartPole-v1", "acktr", steps=100, policy=Raw(jnp.zeros((4, 2))), out=out)
    with pytest.raises(st.UsageError, match="smaller batch"):
        st.train("CartPole-v1", "npg", steps=100, solver="sample-space", envs=16, rollout=1024, out=out)
    assert not out.exists()
