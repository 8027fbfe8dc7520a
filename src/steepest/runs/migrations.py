"""Checkpoint formats, and the way from each to the next: arrays and info as they would have been written then.

    1   learner, statistics, spaces, policy, counters, offsets of the logs
    2   … and the configuration and the versions: one file is enough. The checksum covers the format's number.

The envelope {"format", "checksum", "info"}, and from 2 on the checksum's rule, are those of every format to come: so a
file of a later steepest can be told from a damaged one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

FORMAT = 2
"""What is written."""

Arrays = dict[str, np.ndarray]
Info = dict[str, Any]


def migrated(version: int, arrays: Arrays, info: Info) -> tuple[Arrays, Info]:
    """A checkpoint of format `version` ≤ FORMAT, as of FORMAT."""
    while version < FORMAT:
        arrays, info = MIGRATIONS[version](arrays, info)
        version += 1
    return _renamed(arrays, info), _with_kind(info)


def _renamed(arrays: Arrays, info: Info) -> Arrays:
    """The layers before a memory were in a network of their own. What is of a user's policy is left as it is."""
    theirs = () if info.get("policy") is not None else ("learner.policy", "learner.algorithm")
    return {
        name if name.startswith(theirs) else name.replace(".features.net.layers[", ".features.layers["): array
        for name, array in arrays.items()
    }


def _with_kind(info: Info) -> Info:
    """The kind of a policy with memory said its head, which the space of the actions says too."""
    policy = info.get("policy")
    heads = ("mlp-categorical", "mlp-multi-categorical", "mlp-bernoulli", "mlp-gaussian")
    if not isinstance(policy, dict) or policy.get("memory", "none") == "none" or policy.get("kind") not in heads:
        return info
    return {**info, "policy": {**policy, "kind": "mlp", "parts": []}}


def _from_1(arrays: Arrays, info: Info) -> tuple[Arrays, Info]:
    """The configuration is in the run folder's config.json alone, the versions in its meta.json."""
    return arrays, {**info, "config": None, "versions": None}


MIGRATIONS: dict[int, Callable[[Arrays, Info], tuple[Arrays, Info]]] = {1: _from_1}
"""From a format to the next."""
