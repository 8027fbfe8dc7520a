"""A run that was stopped and resumed ends with the numbers of one that never was, to the bit."""

from __future__ import annotations

import errno
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import steepest as st
from environments import Counting, Effort, Mortal, Tethered, Walk
from sameness import differences
from steepest.errors import RunError
from steepest.normaliser import Normaliser
from steepest.runs import RunFolder, checkpoint, files, sinks
from steepest.sampling.cost_meter import CostMeter
from steepest.sampling.episodes import Running
from steepest.sampling.reward_scale import RewardScale
from steepest.sampling.standing import Standing, from_record
from steepest.training import loop
from steepest.training.iteration import LearnerState
from steepest.training.persistence import Snapshot, read
from steepest.training.standing import Stored
from steepest.worlds import make_world
from steepest.worlds.settable import keepable, keeps

SMALL: dict[str, Any] = {
    "envs": 4, "rollout": 64, "steps": 8 * 256, "checkpoint_every": 3, "tensorboard": False,
    "critic": {"epochs": 2, "minibatch": 64}, "evaluation": {"every": 3 * 256, "episodes": 2, "final_episodes": 2},
}  # fmt: skip


class Stop(Exception):
    """Ends a run as an error does."""


def stopping(at: int) -> Callable[[st.IterationEvent], None]:
    def stop(event: st.IterationEvent) -> None:
        if event.iteration == at:
            raise Stop

    return stop


def stopped_and_resumed(tmp_path: Path, env: Any, at: int, again: Any = None, **settings: Any) -> list[str]:
    """What a run that an error ends after iteration `at`, and that is then resumed, has other than a whole one."""
    whole = st.train(env, out=tmp_path / "whole", callbacks=[stopping(-1)], **settings)
    with pytest.raises(Stop):
        st.train(env, out=tmp_path / "stopped", callbacks=[stopping(at)], **settings)
    st.resume(tmp_path / "stopped", env=again, callbacks=[stopping(-1)])
    assert read(tmp_path / "stopped")[1]["progress"]["resumed"] == 1
    return differences(whole.path, tmp_path / "stopped")


REMEMBERING: dict[str, Any] = {"policy": {"hidden": (8,), "memory": "lstm", "memory_units": 4}}
VINE = {"states": 8, "actions": 2, "length": 3}
SEVERAL: list[Any] = [
    ("CartPole-v1", {"group": 2, "normalise_observations": True, "scale_rewards": True}),
    ("Pendulum-v1", {"workers": 2, "group": 2, "damping_rule": "adaptive", "delta_final": 0.001}),
    pytest.param("Hopper-v5", {"warm_start": True, "subsample": 0.5}, marks=pytest.mark.slow),
    pytest.param("Hopper-v5", {"scheme": "vine", "envs": 1, "vine": VINE}, marks=pytest.mark.slow),
    ("gymnax:CartPole-v1", {"normalise_observations": True, "scale_rewards": True}),
    pytest.param("steepest/CartPoleMasked-v0", {"workers": 2, "group": 2, **REMEMBERING}, marks=pytest.mark.slow),
    ("steepest/CartPoleMasked-v0", {"group": 2, **REMEMBERING}),
    pytest.param("gymnax:CartPole-v1", {"normalise_observations": True, **REMEMBERING}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("at", [4])  # no multiple of checkpoint_every: what is under way then was not planned for
@pytest.mark.parametrize(("env", "settings"), SEVERAL, ids=lambda x: x if isinstance(x, str) else "")
def test_a_resumed_run_ends_as_one_that_was_never_stopped(
    env: str, settings: dict[str, Any], at: int, tmp_path: Path
) -> None:
    assert stopped_and_resumed(tmp_path, env, at, **{**SMALL, **settings}) == []


def test_costs_and_their_limit_go_on(tmp_path: Path) -> None:
    settings = {**SMALL, "algorithm": "trpo-lagrangian", "cost_limit": 6.0, "scale_rewards": True}
    assert stopped_and_resumed(tmp_path, Effort, 4, Effort, **settings) == []


@pytest.mark.parametrize("at", [4, 9])  # in the middle, and with the last iteration
def test_a_signal_loses_nothing(at: int, tmp_path: Path) -> None:
    def interrupt(event: st.IterationEvent) -> None:
        if event.iteration == at:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = st.train("CartPole-v1", out=tmp_path / "whole", **SMALL)
    stopped = st.train("CartPole-v1", out=tmp_path / "stopped", callbacks=[interrupt], **SMALL)
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert len(stopped.metrics) == at
    st.resume(stopped.path)
    assert differences(whole.path, stopped.path) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, "error"])
@pytest.mark.parametrize("which", [1, 2, 3])  # the evaluations of a run, the third of which is that at its end
def test_what_stops_an_evaluation_loses_nothing(
    which: int, how: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = st.train("CartPole-v1", out=tmp_path / "whole", **SMALL)
    play, count = loop.play, [0]

    def disturbed(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == which and how == "error":
            raise Stop
        if count[0] == which:
            os.kill(os.getpid(), how)
        return play(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "play", disturbed)
        if how == "error":
            with pytest.raises(Stop):
                st.train("CartPole-v1", out=tmp_path / "stopped", **SMALL)
        else:
            stopped = st.train("CartPole-v1", out=tmp_path / "stopped", **SMALL)
            assert stopped.exit_code == 128 + how
            assert not len(stopped.evaluation)
            assert not (stopped.path / "evaluation.json").exists()
    st.resume(tmp_path / "stopped")
    assert differences(whole.path, tmp_path / "stopped") == []


def test_a_run_that_goes_on_for_more_steps_is_one_that_had_them_from_the_start(tmp_path: Path) -> None:
    settings = {**SMALL, "evaluation": {"every": 512, "episodes": 2, "final_episodes": 2}}
    whole = st.train("CartPole-v1", out=tmp_path / "whole", **settings)
    half = st.train("CartPole-v1", out=tmp_path / "half", **{**settings, "steps": 4 * 256})
    after = st.resume(half.path, steps=8 * 256)
    keys = [k for k in whole.metrics[-1] if not k.startswith("time/")]
    assert [[row[k] for k in keys if k in row] for row in after.metrics] == [
        [row[k] for k in keys if k in row] for row in whole.metrics
    ]


class TestWhereTheStateCannotBeSaved:
    """`Tethered` holds a lock, of which no copy can be made."""

    def test_it_is_exact_if_that_was_asked_for(self, tmp_path: Path) -> None:
        assert not keeps(make_world(Tethered, 1))
        settings = {**SMALL, "exact_resume": True, "algorithm": "npg"}
        assert stopped_and_resumed(tmp_path, Tethered, 4, Tethered, **settings) == []

    def test_it_is_another_sample_if_not(self, tmp_path: Path) -> None:
        found = stopped_and_resumed(tmp_path, Tethered, 4, Tethered, **{**SMALL, "algorithm": "npg"})
        assert any(difference.startswith("metrics") for difference in found)

    def test_a_signal_leaves_the_checkpoint_that_it_is_exact_from(self, tmp_path: Path) -> None:
        def interrupt(event: st.IterationEvent) -> None:
            if event.iteration == 4:
                os.kill(os.getpid(), signal.SIGTERM)

        for exact, kept in ((True, 3), (False, 4)):
            settings = {**SMALL, "exact_resume": exact, "algorithm": "npg"}
            run = st.train(Tethered, out=tmp_path / str(kept), callbacks=[interrupt], **settings)
            assert RunFolder.open(run.path).load_checkpoint("last")[1]["progress"]["iteration"] == kept

    def test_episodes_begin_afresh_at_every_checkpoint(self, tmp_path: Path) -> None:
        settings = {**SMALL, "exact_resume": True, "algorithm": "npg", "rollout": 16, "steps": 12 * 64}
        run = st.train(Tethered, out=tmp_path / "run", **settings)
        ended = [row["episodes"] for row in run.metrics]
        whole = 3 * 16 // Tethered.LENGTH  # of an environment between two checkpoints; a reset takes a step
        assert ended[2::3] == [4 * whole * (i + 1) for i in range(len(ended) // 3)]


class TestBeginningAfresh:
    def test_for_another_version_of_a_simulator(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, "steps": 512})
        arrays, info = read(run.path)
        info["versions"]["gymnasium"] = "0.9"
        checkpoint.save(run.path / "checkpoints" / "last.safetensors", arrays, info)
        with pytest.warns(UserWarning, match=r"all episodes begin afresh: the checkpoint is of gymnasium 0\.9"):
            st.resume(run.path, steps=1024)

    def test_if_that_is_asked_for(self, tmp_path: Path) -> None:
        runs = [st.train("CartPole-v1", out=tmp_path / name, **{**SMALL, "steps": 512}) for name in "ab"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            after = [st.resume(run.path, steps=1024, afresh=run is runs[0]) for run in runs]
        assert differences(after[0].path, after[1].path) != []

    def test_for_an_object(self, tmp_path: Path) -> None:
        run = st.train(Walk(), "npg", out=tmp_path / "run", **{**SMALL, "envs": 1, "steps": 128, "rollout": 64})
        assert st.resume(run.path, env=Walk(), steps=256).steps >= 256


class TestWhatIsKept:
    def test_the_standing_of_a_world_that_carries_much_with_it_is_not_kept(self) -> None:
        class Heavy(Walk):
            def __init__(self) -> None:
                super().__init__()
                self.table = np.zeros((1000, 1000))

        assert keeps(make_world(Walk, 2))
        assert not keeps(make_world(Heavy, 2))

    def test_nor_is_what_is_no_plain_data_after_all(self) -> None:
        class Rebound(Walk):
            def reset(self, **given: Any) -> Any:
                self.how = self.step if getattr(self, "how", None) is None else super().step
                return super().reset(**given)

        class Telling(Walk):
            said = ""

            def reset(self, **given: Any) -> Any:
                self.said = "again" if getattr(self, "said", "") == "once" else "once"
                return super().reset(**given)

        for env in (Rebound, Telling):
            assert not keeps(make_world(env, 2)), env

    def test_a_get_state_that_raises_later_ends_no_run(self, tmp_path: Path) -> None:
        class Moody(Walk):
            asked = 0

            def get_state(self) -> Any:
                self.asked += 1
                if self.asked == 5:
                    raise KeyError("mood")
                return self.count, self.place

            def set_state(self, state: Any) -> None:
                self.count, self.place = state

        with pytest.warns(UserWarning, match="one that is not kept"):
            run = st.train(Moody, "npg", out=tmp_path / "run", **SMALL)
        assert run.ended == "all steps done"
        assert checkpoint.load(run.path / "checkpoints" / "last.safetensors")[1]["worlds"] is None

    def test_a_state_that_grows_is_kept_no_longer(self, tmp_path: Path) -> None:
        class Growing(Walk):
            def step(self, action: Any) -> Any:
                self.seeds.extend([0] * 10)
                return super().step(action)

        with pytest.warns(UserWarning, match="one that is not kept"):
            run = st.train(Growing, "npg", out=tmp_path / "run", **SMALL)
        rows = [checkpoint.load(path)[1]["worlds"] for path in sorted((run.path / "checkpoints").glob("steps-*"))]
        assert rows[-1] is None

    def test_an_environment_that_was_made_anew_is_the_one_that_is_kept(self) -> None:
        class Fragile(Walk):
            def step(self, action: Any) -> Any:
                if self.count == 3:
                    raise KeyError("wheel")
                return super().step(action)

        world: Any = make_world(Fragile, 2)
        world.bear(lambda fault: None)
        world.reset(0)
        found = keepable(world)
        assert found is not None
        counts = []
        for _ in range(5):
            counts.append([state.layers[-1]["count"] for state in found.keep().envs])
            world.step(np.zeros((2, 1)))
        assert counts == [[0, 0], [1, 1], [2, 2], [3, 3], [0, 0]]

    def test_another_world_goes_on_from_it_to_the_bit(self) -> None:
        for env in ("Hopper-v5", "Acrobot-v1", "Ant-v5", Walk, "gymnax:Pendulum-v1"):
            worlds: Any = [make_world(env, 3) for _ in range(2)]
            rng = np.random.default_rng(0)
            action = worlds[0].action_space
            actions = [np.stack([_sample(action, rng) for _ in range(3)]) for _ in range(60)]
            worlds[0].reset(7)
            for a in actions[:30]:
                worlds[0].step(a)
            first, second = (keepable(world) for world in worlds)
            worlds[1].reset(8)
            assert first is not None
            assert second is not None
            value = Standing(Running.none(3), lambda first=first: {0: first.keep()})
            second.put_back(from_record(*value.to_record(), 3).worlds()[0])
            np.testing.assert_array_equal(worlds[0].obs, worlds[1].obs)
            for a in actions[30:]:
                for x, y in zip(worlds[0].step(a), worlds[1].step(a), strict=True):
                    np.testing.assert_array_equal(x, y)  # None too

    def test_what_a_file_says_of_a_world_is_looked_at(self) -> None:
        world: Any = make_world("CartPole-v1", 1)
        world.reset(0)
        found = keepable(world)
        assert found is not None
        good = found.keep()
        state = good.envs[0]
        layers = [dict(layer) for layer in state.layers]
        wrong = [
            None,
            [],
            (good.envs, 0, 0),
            good._replace(envs=[]),
            good._replace(renewed=np.zeros(2, int)),
            good._replace(steps="0"),
            good._replace(envs=[state._replace(layers=layers[:1])]),
            good._replace(envs=[state._replace(layers=[{**layers[0], "step": 1}, *layers[1:]])]),
            good._replace(envs=[state._replace(layers=[{**layers[0], "env": 1}, *layers[1:]])]),
            good._replace(envs=[state._replace(layers=[*layers[:-1], {**layers[-1], "action_space": 1}])]),
            good._replace(envs=[state._replace(layers=[*layers[:-1], {**layers[-1], "kinematics_integrator": 1}])]),
            good._replace(envs=[state._replace(layers=[*layers[:-1], {**layers[-1], "screen": "human"}])]),
            good._replace(envs=[state._replace(layers=[{**layers[0], "a b": 1}, *layers[1:]])]),
            good._replace(envs=[state._replace(obs=np.zeros(5, np.float32))]),
            good._replace(envs=[state._replace(obs=np.zeros(4))]),
            good._replace(envs=[state._replace(ended=1)]),
        ]
        for kept in wrong:
            with pytest.raises(RunError, match="does not fit"):
                found.put_back(kept)
        found.put_back(good)

    def test_a_simulator_takes_no_state_of_another_model(self) -> None:
        worlds: Any = [make_world(env, 1) for env in ("Hopper-v5", "Swimmer-v5")]
        for world in worlds:
            world.reset(0)
        hopper, swimmer = (keepable(world) for world in worlds)
        assert hopper is not None
        assert swimmer is not None
        other = hopper.keep()
        obs = swimmer.keep().envs[0].obs
        with pytest.raises(RunError, match="does not fit: a simulator's state"):
            swimmer.put_back(other._replace(envs=[other.envs[0]._replace(obs=obs)]))
        state, derived = other.envs[0].own
        for own in (
            (np.full_like(state, np.nan), derived),
            (state, np.full_like(derived, np.inf)),
            (state, np.float32(derived)),
        ):
            with pytest.raises(RunError, match="does not fit: a simulator's state"):
                hopper.put_back(other._replace(envs=[other.envs[0]._replace(own=own)]))

    @pytest.mark.parametrize("wrong", ["record", "arrays", "worlds", "recent", "running"])
    def test_a_checkpoint_whose_standing_is_none_is_refused(self, wrong: str, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, "steps": 512, "scale_rewards": True})
        arrays, info = read(run.path)
        if wrong == "record":
            info["worlds"] = {"record": {"tuple": [{"tuple": []}, {"dict": []}]}}
        elif wrong == "arrays":
            arrays["worlds.float64"] = arrays["worlds.float64"][:3]
        elif wrong == "worlds":
            info["worlds"] = 5
        elif wrong == "recent":
            info["recent"] = ["1"]
        else:
            arrays["reward_scale.running"] = np.full(4, np.nan)
        checkpoint.save(run.path / "checkpoints" / "last.safetensors", arrays, info)
        with pytest.raises(RunError, match="damaged"):
            st.resume(run.path, steps=1024)

    def test_a_native_run_takes_up_no_copies_of_another_number(self, tmp_path: Path) -> None:
        run = st.train("mdp:two-state", out=tmp_path / "run", **{**SMALL, "steps": 512})
        arrays, info = read(run.path)
        name = next(name for name in arrays if name.startswith("worlds."))
        arrays[name] = arrays[name][:2]
        checkpoint.save(run.path / "checkpoints" / "last.safetensors", arrays, info)
        with pytest.raises(RunError, match="does not fit 'worlds'"):
            st.resume(run.path, steps=1024)


def _sample(space: Any, rng: np.random.Generator) -> Any:
    if hasattr(space, "n"):
        return rng.integers(space.n)
    return rng.uniform(-1, 1, space.shape).astype(np.float32)


class TestTheEnd:
    """A run that is killed between its last checkpoint and what it leaves at its end."""

    def test_the_last_evaluation_is_made_up_for(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, "steps": 512})
        with pytest.raises(st.UsageError, match="has done its 512 steps"):
            st.resume(run.path)
        whole = (run.path / "evaluation.json").read_text()
        for missing in ("evaluation.json", "learning_curve.png"):
            (run.path / missing).unlink()
            after = st.resume(run.path)
            assert (after.new_steps, after.ended, after.exit_code) == (0, "all steps done", 0)
            assert (run.path / "evaluation.json").read_text() == whole
            assert (run.path / "learning_curve.png").exists()

    def test_it_goes_no_further_than_it_had_come(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", out=tmp_path / "run", callbacks=[lambda event: "enough"], **SMALL)
        assert len(run.metrics) == 1
        (run.path / "evaluation.json").unlink()
        after = st.resume(run.path)
        assert (len(after.metrics), after.ended) == (1, "enough")
        np.testing.assert_array_equal(after.evaluation, run.evaluation)
        assert len(st.resume(run.path, callbacks=[lambda event: "enough"]).metrics) == 2  # asked once more, it goes on

    def test_more_steps_are_more_steps(self, tmp_path: Path) -> None:
        run = st.train("CartPole-v1", out=tmp_path / "run", **{**SMALL, "steps": 512})
        (run.path / "evaluation.json").unlink()
        assert st.resume(run.path, steps=1024).steps >= 1024


class TestTheMachine:
    """What goes wrong around a run costs it nothing but time."""

    def test_a_damaged_checkpoint(self, tmp_path: Path) -> None:
        whole = st.train("CartPole-v1", out=tmp_path / "whole", **SMALL)
        with pytest.raises(Stop):
            st.train("CartPole-v1", out=tmp_path / "run", callbacks=[stopping(7)], **SMALL)
        last = tmp_path / "run" / "checkpoints" / "last.safetensors"
        with last.open("r+b") as file:  # the newest of the numbered ones is the same file
            file.seek(-100, os.SEEK_END)
            file.write(b"\xff")
        with pytest.warns(UserWarning, match="going on from the checkpoint before it"):
            st.resume(tmp_path / "run")
        assert differences(whole.path, tmp_path / "run") == []

    @pytest.mark.parametrize(
        ("full", "number"), [("checkpoint", errno.ENOSPC), ("log", errno.ENOSPC), ("checkpoint", errno.EROFS)]
    )
    def test_a_full_or_read_only_disk(
        self, full: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = st.train("CartPole-v1", out=tmp_path / "whole", **SMALL)
        room = [9 if full == "checkpoint" else 10]

        def once_full(method: Any) -> Any:
            def write(*args: Any, **kwargs: Any) -> Any:
                room[0] -= 1
                if room[0] == 0:
                    raise OSError(number, os.strerror(number))
                return method(*args, **kwargs)

            return write

        with monkeypatch.context() as patched:
            name = "replace" if full == "checkpoint" else "write"
            patched.setattr(files.os if full == "checkpoint" else sinks.os, name, once_full(getattr(os, name)))
            with pytest.raises(RunError, match=os.strerror(number)):
                st.train("CartPole-v1", out=tmp_path / "run", **SMALL)
        st.resume(tmp_path / "run")
        assert differences(whole.path, tmp_path / "run") == []

    def test_a_clock_that_jumps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = {**SMALL, "tensorboard": True}
        whole = st.train("CartPole-v1", out=tmp_path / "whole", **settings)
        jumps = iter(np.random.default_rng(0).uniform(0, 4e9, 10**6).tolist())
        monkeypatch.setattr(time, "time", lambda: next(jumps))
        run = st.train("CartPole-v1", out=tmp_path / "run", **settings)
        assert differences(whole.path, run.path) == []
        assert all(value >= 0 for row in run.metrics for name, value in row.items() if name.startswith("time/"))


def test_an_evaluation_in_the_environment_itself_begins_the_sums_of_rewards_afresh(tmp_path: Path) -> None:
    """Σγⁱ of rewards of 1, of 16 steps each time: without an end in between they would go on to 1/(1 − γ)."""
    settings = {**SMALL, "envs": 1, "rollout": 16, "steps": 8 * 16, "critic": {"minibatch": 16}}
    settings |= {"evaluation": {"every": 16, "episodes": 1, "final_episodes": 1}, "scale_rewards": True, "gamma": 0.9}
    run = st.train(Counting(100), "npg", out=tmp_path / "run", **settings)
    sums = (1 - 0.9 ** np.arange(1, 17)) / (1 - 0.9)
    assert read(run.path)[0]["reward_scale.mean"] == pytest.approx(sums.mean())
    assert run.metrics[-1]["reward_scale"] == pytest.approx(sums.std(), rel=1e-5)


def test_episodes_afresh_have_no_sums_yet() -> None:
    meter = CostMeter(1.0, 2, RewardScale(Normaliser.empty(()), np.ones(2)))
    scale = RewardScale(Normaliser.empty(()), np.ones(2))
    learner = LearnerState(None, None, None, None)  # type: ignore[arg-type]
    before: Any = Snapshot(None, learner, scale, None, meter, Stored(None, {}))  # type: ignore[arg-type]
    after = before.afresh()
    assert after.standing is None
    np.testing.assert_array_equal(after.reward_scale.running, 0)
    np.testing.assert_array_equal(after.costs.scale.running, 0)


def test_a_worker_that_dies_is_replaced_by_the_same_in_a_resumed_run(tmp_path: Path) -> None:
    env = Mortal
    settings = {**SMALL, "workers": 2, "group": 2, "algorithm": "npg"}
    assert stopped_and_resumed(tmp_path, env, 4, env, **settings) == []


def test_a_run_that_goes_on_has_not_ended(tmp_path: Path) -> None:
    """Killed while it does, it has no evaluation and no curve of a policy that is no longer its last."""
    run = st.train("CartPole-v1", out=tmp_path, workers=0, **{**SMALL, "steps": 256})
    ends = [tmp_path / name for name in ("evaluation.json", "learning_curve.png")]
    assert all(path.exists() for path in ends)
    with pytest.raises(Stop):
        st.resume(run.path, steps=8 * 256, callbacks=[stopping(5)])
    assert not any(path.exists() for path in ends)
