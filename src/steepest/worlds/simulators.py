"""What a Gymnasium environment holds besides its plain attributes, taken out and put back: that of a simulator."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np

from steepest.errors import UsageError


class Plain:
    """An environment that is its attributes."""

    def skips(self, layer: Any) -> bool:
        return False

    def get(self) -> Any:
        return None

    def set(self, own: Any) -> None:
        pass


class OwnSnapshots(Plain):
    """An environment that takes its own snapshots; its generators are ours all the same."""

    def __init__(self, env: Any):
        self._env = env

    def skips(self, layer: Any) -> bool:
        return layer is self._env

    def get(self) -> Any:
        return copy.deepcopy(self._env.get_state())

    def set(self, own: Any) -> None:
        self._env.set_state(copy.deepcopy(own))


class Mujoco(Plain):
    """model, data: MuJoCo's."""

    def __init__(self, env: Any):
        import mujoco

        self._model, self._data, self._mujoco = env.model, env.data, cast(Any, mujoco)
        self._kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._size = self._mujoco.mj_stateSize(env.model, self._kind)
        self._derived = _quantities(env.data)
        self._ends = np.cumsum([x.size for x in self._derived])

    def get(self) -> Any:
        state = np.empty(self._size)
        self._mujoco.mj_getState(self._model, self._data, state, self._kind)
        return state, np.concatenate(self._derived)

    def set(self, own: Any) -> None:
        state, derived = own
        fits = derived.shape == (self._ends[-1],) and state.shape == (self._size,)
        if not fits or derived.dtype != np.float64 or not (np.isfinite(state).all() and np.isfinite(derived).all()):
            raise UsageError("a simulator's state is not one of this model")
        self._mujoco.mj_setState(self._model, self._data, state, self._kind)
        self._mujoco.mj_forward(self._model, self._data)  # contacts, which have no place of their own, and all indices
        for array, value in zip(self._derived, np.split(derived, self._ends[:-1]), strict=True):
            array[...] = value


def _quantities(data: Any) -> list[np.ndarray]:
    """Flat views of all quantities of MjData whose number the model fixes: they lie in one block of memory, qpos first.

    Indices are not among them: they follow from the state, and wrong ones would lead the simulator out of its memory.
    """
    begin, end = data.qpos.ctypes.data, data.qpos.ctypes.data + data.nbuffer
    arrays = (getattr(data, name) for name in dir(data) if not name.startswith("_"))
    return [
        x.reshape(-1)
        for x in arrays
        if isinstance(x, np.ndarray) and x.size and x.dtype == np.float64 and begin <= x.ctypes.data < end
    ]


def simulator_of(env: Any) -> Plain:
    """What `env`, without wrappers, holds besides its attributes."""
    own = getattr(type(env), "set_state", None)
    if callable(getattr(env, "get_state", None)) and own is not None:
        return OwnSnapshots(env)
    is_mujoco = type(getattr(env, "data", None)).__name__ == "MjData" and hasattr(env, "model")
    return Mujoco(env) if is_mujoco else Plain()
