"""`steepest diagnose`: its numbers against the log, the exact gradient of a finite MDP and the learner's own report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import steepest as st
from steepest import cli
from steepest.algorithms.diagnostics import batch_gradients, cosines, noise_rows
from steepest.errors import UsageError
from steepest.reports.diagnosis import write_diagnosis
from steepest.reports.diagnosis_text import numbers, pairs
from steepest.runs import RunFolder, read_lines
from steepest.sampling.rollout import Collector
from steepest.training import new_batches
from steepest.training.diagnose import diagnose
from steepest.training.iteration import Given
from steepest.training.settings import from_record
from steepest.worlds import make_world
from steepest.worlds.finite.sampled import make_mdp

SETTINGS: dict[str, Any] = {
    "envs": 4, "rollout": 40, "minibatch": 32, "epochs": 2, "every": 0, "final_episodes": 1, "tensorboard": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """npg on mdp:two-state, two updates, with γ = λ = 1 and rollouts of whole episodes: an unbiased gradient."""
    path = tmp_path_factory.mktemp("runs") / "two"
    given = {**SETTINGS, "gamma": 1.0, "gae_lambda": 1.0, "centre_advantages": False}
    st.train("mdp:two-state", "npg", steps=320, seed=4, out=path, **given)
    return path


@pytest.fixture(scope="module")
def data(run: Path) -> dict[str, Any]:
    return diagnose(run, rows=16 * 160, seed=1)


def loaded(path: Path) -> Any:
    arrays, info = RunFolder.open(path).load_checkpoint("last")
    return new_batches.load_measured(from_record(RunFolder.open(path).read_config()), arrays, info, None, None)


def test_the_updates_are_the_rows_of_the_log(run: Path, data: dict[str, Any]):
    rows = read_lines(run / "metrics.jsonl")
    assert len(rows) == 2
    for name in ("kl", "predicted_kl", "predicted_improvement", "improvement", "damping", "reason", "accepted"):
        assert data["updates"][name] == [row[f"update/{name}"] for row in rows]
    steps, predicted, realised = pairs(data["updates"], "predicted_kl", "kl")
    np.testing.assert_array_equal(steps, [160, 320])
    np.testing.assert_array_equal(predicted, [row["update/predicted_kl"] for row in rows])
    table = numbers(data)
    assert table["realised KL / predicted, median"] == pytest.approx(np.median(realised / predicted))
    assert table["updates"] == 2
    assert table["kept the policy"] == 0


def test_the_cosine_with_the_exact_gradient_goes_to_1_as_the_batch_grows(run: Path):
    what = loaded(run)
    world = make_mdp("two-state", 4)
    batches = new_batches.collect_batches(what, world, 1024, 0)
    gradients = batch_gradients(what.learner.algorithm, what.agent.policy, batches)
    exact = ravel_pytree(world.mdp.gradient(what.agent.policy))[0]
    rows = np.full(1024, 160.0)
    unit = np.asarray(exact, np.float64) / np.linalg.norm(exact)
    across = gradients - np.outer(gradients @ unit, unit)  # what turns a gradient; 1 − cos ≈ ½ E‖across‖²/‖g‖²
    turn = np.mean(np.sum(across**2, axis=1)) / (gradients.mean(0) @ unit) ** 2
    assert noise_rows(gradients, rows) / 160 > 0.8 * turn  # of which N₀ has all, and what lies along g
    means = []
    for group in (1, 4, 16, 64, 256):
        found = cosines(gradients, rows, group, np.asarray(exact, np.float64))
        means.append(found.mean())
    assert 1 - means[1] == pytest.approx(turn / 4 / 2, rel=0.4)
    assert np.all(np.diff(means) > 0)
    assert means[-1] > 0.995
    assert means[0] < 0.97  # there is noise to average away
    # and its size is right: the mean of all batches is ∇V/H, within three standard errors
    error = np.linalg.norm(gradients.mean(0) - np.asarray(exact) / world.mdp.horizon)
    assert error < 3 * np.sqrt(np.mean(np.sum((gradients - gradients.mean(0)) ** 2, axis=1)) / 1024)
    assert error < 0.1 * np.linalg.norm(exact) / world.mdp.horizon


def test_a_group_is_compared_with_the_others_alone_and_the_noise_scale_is_right():
    rng = np.random.default_rng(0)
    pure = rng.normal(size=(16, 400))  # no signal: a cosine with a mean that contains them would be about ¼
    assert abs(cosines(pure, np.ones(16), 1).mean()) < 0.03
    signal = np.zeros(400)
    signal[0] = 2.0
    gradients = signal + rng.normal(size=(400, 400)) / 4  # of 10 rows each: tr Cov of one row is 10·400/16
    assert noise_rows(gradients, np.full(400, 10.0)) == pytest.approx(10 * 400 / 16 / 4, rel=0.05)
    assert noise_rows(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.ones(2)) == np.inf
    assert np.isnan(cosines(np.zeros((3, 2)), np.ones(3), 1)).all()


def test_a_new_batch_is_the_one_that_the_learner_makes(run: Path):
    what = loaded(run)
    collector = Collector(make_mdp("two-state", 4))
    rng = np.random.default_rng(0)
    rollout, _ = collector.collect(lambda obs, t: rng.integers(0, 2, obs.shape), 40)
    batch, _ = new_batches.batch_of(what, rollout)
    state = what.learner.init(what.agent.policy, what.critic)
    _, info = what.learner.update(state, Given(rollout, None, None, np.float32(1), jax.random.key(0)))
    stacked = jax.tree.map(lambda x: x[None], batch)
    ours = batch_gradients(what.learner.algorithm, what.agent.policy, stacked)[0]
    assert np.linalg.norm(ours) == pytest.approx(float(info.step.gradient_norm), rel=1e-5)
    parts, rows = new_batches.cut(stacked, what.config)
    pieces = batch_gradients(what.learner.algorithm, what.agent.policy, parts)
    np.testing.assert_allclose(new_batches.merged(pieces, rows, len(rows))[0][0], ours, rtol=1e-4, atol=1e-6)


def test_all_but_one_is_the_batch_of_the_others(run: Path):
    what = loaded(run)
    batches = new_batches.collect_batches(what, make_world("mdp:two-state", 4), 3, 0)
    left = new_batches.all_but(batches, 1)
    assert float(left.weight.sum()) == pytest.approx(1)
    assert np.all(np.asarray(left.weight).reshape(3, -1)[1] == 0)
    whole = batch_gradients(what.learner.algorithm, what.agent.policy, jax.tree.map(lambda x: x[None], left))[0]
    each = batch_gradients(what.learner.algorithm, what.agent.policy, batches)
    np.testing.assert_allclose(whole, (each[0] + each[2]) / 2, rtol=1e-4, atol=1e-6)
    segments = np.asarray(left.segment).reshape(3, -1)
    assert not set(segments[0]) & set(segments[2])


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GRU in policy and critic, without centred advantages, which would be other ones in every part."""
    path, own = tmp_path_factory.mktemp("runs") / "memory", {"memory": "gru", "memory_units": 3, "hidden": (4,)}
    settings = {**SETTINGS, "rollout": 16, "minibatch": 16, "centre_advantages": False}
    critic = {"hidden": (4,), "memory_units": 3}
    st.train("steepest/CartPoleMasked-v0", "npg", steps=64, out=path, policy=own, critic=critic, **settings)
    return path


def test_of_a_policy_with_memory_whole_sequences_are_cut_and_put_together(remembering: Path):
    what = loaded(remembering)
    batches = new_batches.collect_batches(what, make_world("steepest/CartPoleMasked-v0", 4), 3, 0)
    assert batches.obs.fresh.shape == (3, 16, 4)
    assert np.asarray(batches.obs.memory).any(axis=(1, 2)).tolist() == [False, True, True]  # they go on
    algorithm, policy = what.learner.algorithm, what.agent.policy
    each = batch_gradients(algorithm, policy, batches)
    parts, rows = new_batches.cut(batches, what.config)
    assert parts.obs.fresh.shape == (12, 16, 1)
    pieces = batch_gradients(algorithm, policy, parts)
    np.testing.assert_allclose(new_batches.merged(pieces, rows, 4)[0], each, rtol=1e-4, atol=1e-6)
    left = jax.tree.map(lambda x: x[None], new_batches.all_but(batches, 1))
    valid = np.asarray(batches.weight > 0).sum(1)
    others = (valid[0] * each[0] + valid[2] * each[2]) / (valid[0] + valid[2])
    np.testing.assert_allclose(batch_gradients(algorithm, policy, left)[0], others, rtol=1e-4, atol=1e-6)


def test_a_new_batch_of_a_policy_with_memory_is_the_one_that_the_learner_makes(remembering: Path):
    what = loaded(remembering)
    world, state = (
        make_world("steepest/CartPoleMasked-v0", 4),
        what.learner.init(what.agent.policy, what.critic, None, 4),
    )
    first, second = (
        jax.tree.map(lambda x, k=k: x[k], new_batches.collect_batches(what, world, 2, 0)) for k in range(2)
    )
    rollouts = []
    original, new_batches.batch_of = new_batches.batch_of, lambda *a: rollouts.append(a[1]) or original(*a)
    try:
        new_batches.collect_batches(what, world, 2, 0)
    finally:
        new_batches.batch_of = original
    for rollout, batch in zip(rollouts, (first, second), strict=True):
        after, info = what.learner.update(state, Given(rollout, None, what.scaling, np.float32(1), jax.random.key(0)))
        ours = batch_gradients(what.learner.algorithm, what.agent.policy, jax.tree.map(lambda x: x[None], batch))[0]
        assert np.linalg.norm(ours) == pytest.approx(float(info.step.gradient_norm), rel=1e-4)
        state = state._replace(critic_memory=after.critic_memory)


@pytest.mark.slow
def test_a_run_with_memory_can_be_diagnosed(remembering: Path):
    found = diagnose(remembering, rows=4 * 64)
    assert np.isfinite(found["natural"]["cosine"]).all()
    record = write_diagnosis(found, remembering / "diagnosis")
    assert {"gradient", "spectrum", "solver", "line"} <= {f["figure"] for f in record["findings"]}


def test_the_spectrum_is_that_of_the_fisher_matrix(run: Path, data: dict[str, Any]):
    what = loaded(run)
    batches = new_batches.collect_batches(what, make_world("mdp:two-state", 4), 1, 1)
    table = np.asarray(what.agent.policy.logits, np.float64)
    probs = np.exp(table) / np.exp(table).sum(1, keepdims=True)
    share = np.bincount(np.asarray(batches.obs[0]), minlength=2) / 160
    blocks = [w * np.linalg.eigvalsh(np.diag(p) - np.outer(p, p)) for w, p in zip(share, probs, strict=True)]
    spectrum = data["spectrum"]
    assert spectrum["values"][-1] == pytest.approx(np.max(blocks), rel=1e-5)
    assert spectrum["weights"].sum() == pytest.approx(1)
    found = spectrum["values"][spectrum["values"] > spectrum["floor"]]
    expected = np.ravel(blocks)[np.ravel(blocks) > 1e-9]
    assert np.abs(found[:, None] - expected).min(1).max() < 1e-5  # every one found is one, and two are null


def test_residuals_fall_to_rounding_and_a_short_step_realises_what_is_predicted(data: dict[str, Any]):
    residual = data["solver"]["residual"]
    assert np.all(residual[:, 0] == 1)
    assert residual[data["solver"]["damping"].index(0.1), 5] < 1e-5
    line = data["line"]
    np.testing.assert_allclose(line["delta"], 0.01 * 2.0 ** np.arange(-4, 5), rtol=1e-6)
    error = np.abs(line["kl"] / line["delta"] - 1)
    assert error[0] < 0.05
    assert error[-1] > error[0]
    np.testing.assert_allclose(line["gain"][0], line["predicted"][0], rtol=0.1)
    assert np.max(np.abs(data["natural"]["cosine"])) <= 1 + 1e-6


def test_directions_of_large_batches_agree(tmp_path: Path):
    """With those of all the others: of 640 rows to 0.935 to 0.977 in the mean, by the seeds 0 to 5; of 160 rows to 0.58
    to 0.94, by the seeds 0 to 7."""
    given = {**SETTINGS, "gamma": 1.0, "gae_lambda": 1.0, "centre_advantages": False, "envs": 16}
    st.train("mdp:two-state", "npg", steps=1280, seed=4, out=tmp_path / "run", **given)
    found = diagnose(tmp_path / "run", rows=16 * 640, seed=1)["natural"]["cosine"]
    assert 0.9 < np.mean(found) <= 1 + 1e-6


def test_the_command_writes_figures_numbers_and_sentences(run: Path, tmp_path: Path, capsys: Any):
    out = tmp_path / "out"
    assert cli.main(["diagnose", str(run), "--rows", "400", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    record = json.loads((out / "diagnosis.json").read_text())
    assert printed["numbers"] == record["numbers"]
    assert record["run"]["rows"] == 480  # whole batches
    page = (out / "diagnosis.md").read_text()
    for finding in record["findings"]:
        assert finding["says"] in page
        for ending in ("png", "svg"):
            assert (out / f"{finding['figure']}.{ending}").stat().st_size > 2000
    assert "2 of 2 updates changed the policy; none failed." in page
    assert not list(out.glob(".*"))


def test_a_log_of_few_columns_and_of_failures_is_said_as_it_is(data: dict[str, Any], tmp_path: Path):
    nothing: dict[str, Any] = {name: [None] * 4 for name in data["updates"]}
    old = write_diagnosis({**data, "updates": {**nothing, "step": [1, 2, 3, 4]}}, tmp_path / "old")
    assert {"kl", "improvement", "damping"}.isdisjoint(f["figure"] for f in old["findings"])
    assert old["numbers"]["realised KL / predicted, median"] is None
    failing = {
        **nothing,
        "step": [1, 2, 3, 4],
        "reason": ["accepted", "line_search", "line_search", "solver"],
        "accepted": [True, False, False, False],
        "kl": [0.02, 0.0, 0.0, 0.0],
        "predicted_kl": [0.01, 0.01, 0.01, 0.01],
        "backtracks": [0, 10, 10, 0],
    }
    said = {f["figure"]: f for f in write_diagnosis({**data, "updates": failing}, tmp_path / "bad")["findings"]}
    assert "1 of 4 updates changed the policy; 75 % did not: line_search 2, solver 1." in said["acceptance"]["says"]
    assert "shrank the step in 2, at most 10 times" in said["acceptance"]["says"]
    assert said["kl"]["says"] == "The realised KL was 2 × the predicted one on the median of 1 update."
    assert "smaller delta" in said["kl"]["advice"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "algorithm"),
    [("CartPole-v1", "pg"), ("Pendulum-v1", "trpo")],
)
def test_every_kind_of_run_can_be_diagnosed(env: str, algorithm: str, tmp_path: Path):
    path = tmp_path / "run"
    given = {**SETTINGS, "policy": {"hidden": (4,)}, "critic": {"hidden": (4,), "minibatch": 32, "epochs": 1}}
    st.train(
        env, algorithm, steps=100, out=path, **{k: v for k, v in given.items() if k not in ("minibatch", "epochs")}
    )
    found = diagnose(path, rows=320)
    assert len(found["updates"]["step"]) == 1
    assert (found["natural"] is None) == (algorithm == "pg")
    record = write_diagnosis(found, path / "diagnosis")
    assert {"gradient", "spectrum", "solver", "line"} <= {f["figure"] for f in record["findings"]}


def test_what_cannot_be_diagnosed_is_refused_before_anything_is_written(run: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="more than one batch of the run's, 160, to compare with, got 160"):
        diagnose(run, rows=160)
    folder = RunFolder.create(tmp_path / "empty")
    folder.write_config({"env": "mdp:two-state"})
    folder.write_meta({})
    with pytest.raises(UsageError, match="no iteration in its metrics"):
        diagnose(folder.path)
    assert cli.main(["diagnose", str(folder.path), "--quiet"]) == 2
    assert not (folder.path / "diagnosis").exists()
    with pytest.raises(UsageError, match="is not a run folder"):
        diagnose(tmp_path / "nothing")
