"""A checkpoint is one file: arrays by name, and everything else as JSON in the same file's metadata.

    metadata["steepest"] = {"format": 2, "checksum": blake2b(format, arrays, info), "info": {…}}

One file, so that one rename makes it current: arrays and counters can never be of different moments. The checksum
finds what the file's own structure cannot: a flipped bit in a weight.

    save(path, flatten(policy, "policy"), {"steps": 2048})
    arrays, info = load(path);   policy = restore(template, arrays, "policy")
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from steepest.errors import RunError
from steepest.runs.files import DamagedFileError, parse_json, read_arrays, standard, write_arrays
from steepest.runs.migrations import FORMAT, MIGRATIONS, migrated

_KEY = "steepest"
_CHECKSUM = 64
"""Hexadecimal digits of blake2b with 32 bytes."""

T = TypeVar("T")


def save(path: Path | str, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
    """Write a checkpoint, atomically.

    arrays: by name, any shape; dtypes bool, int, uint, float, bfloat16 and complex64 are kept to the bit.
    info: what standard JSON can hold; numbers that are not finite become null.
    Raises RunError where the system refuses; the old checkpoint is then intact.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    text = json.dumps(standard(info), allow_nan=False)
    record = {"format": FORMAT, "checksum": _checksum(FORMAT, arrays, text), "info": json.loads(text)}
    write_arrays(path, arrays, {_KEY: json.dumps(record)})


def load(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, info) as they were given to `save`, those of an older format brought up to this one.

    Raises RunError for a file that is missing or of a later format, DamagedFileError for one that is damaged in any bit
    or no checkpoint.
    """
    envelope, arrays = read(path)
    if envelope.format > FORMAT:
        raise RunError(f"{path} {_from_the_future(envelope)}")
    return migrated(envelope.format, arrays, envelope.info)


class Envelope(NamedTuple):
    """What every format says of itself."""

    format: int
    checksum: str
    info: dict[str, Any]


def read(path: Path | str) -> tuple[Envelope, dict[str, np.ndarray]]:
    """What is in a checkpoint of whatever format, later ones too. Raises RunError as `load`."""
    arrays, metadata = read_arrays(path)
    envelope = _envelope(path, metadata)
    if envelope.checksum != _checksum(envelope.format, arrays, json.dumps(envelope.info)):
        raise DamagedFileError(f"{path} is damaged: its checksum does not match its content")
    return envelope, arrays


def _envelope(path: Path | str, metadata: dict[str, str]) -> Envelope:
    """What the metadata hold, the checksum not yet compared. Raises DamagedFileError for anything else."""
    if _KEY not in metadata:
        raise DamagedFileError(f"{path} is not a checkpoint: a safetensors file without steepest's metadata")
    try:
        record = parse_json(metadata[_KEY])
        if not isinstance(record, dict) or set(record) != set(Envelope._fields):
            raise ValueError(f"an object with {', '.join(Envelope._fields)} expected")
        envelope = Envelope(**record)
        if type(envelope.format) is not int or envelope.format < min(MIGRATIONS):
            raise ValueError(f"there is no format {envelope.format!r:.80}")
        if not isinstance(envelope.checksum, str) or len(envelope.checksum) != _CHECKSUM:
            raise ValueError("its checksum is none")
        if not isinstance(envelope.info, dict):
            raise ValueError("its info is no object")
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: its metadata cannot be read ({error})") from error
    return envelope


def _from_the_future(envelope: Envelope) -> str:
    versions = envelope.info.get("versions")
    wrote = versions.get("steepest") if isinstance(versions, dict) else None
    which = f"steepest {wrote!s:.20}" if isinstance(wrote, str) and wrote.isprintable() else "a later steepest"
    return (
        f"has checkpoint format {envelope.format}, written by {which}; this one reads up to format {FORMAT}: "
        f"install {which} or newer"
    )


def _checksum(version: int, arrays: dict[str, np.ndarray], info: str) -> str:
    digest = hashlib.blake2b(digest_size=_CHECKSUM // 2)
    if version > 1:  # without it a format 3 with a flipped bit would be a format 2
        digest.update(f"format {version}\n".encode())
    digest.update(info.encode())
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.name, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def flatten(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """The array leaves of a pytree by name, e.g. 'policy.layers[0].weight'; random keys as their uint32 data.

    tree: any pytree; leaves that are not NumPy or JAX arrays (callables, None, Python numbers) are left out.
    prefix: what the tree is called in the file; one name must not begin with another and a dot.
    """
    return {name: _to_numpy(leaf) for name, leaf in _named(tree, prefix)[0] if _is_array(leaf)}


def restore(template: T, arrays: dict[str, np.ndarray], prefix: str) -> T:
    """The template with its array leaves replaced by those that `flatten(tree, prefix)` gave.

    A NumPy leaf of the template becomes NumPy, a JAX leaf JAX (float64 too), a random key a key of the same
    implementation; other leaves stay. Names, shapes and dtypes must match exactly.
    Raises RunError that names each leaf that does not, what the file has and what was expected.
    """
    import jax

    named, structure = _named(template, prefix)
    expected = {name: _to_numpy(leaf) for name, leaf in named if _is_array(leaf)}
    found = {name: array for name, array in arrays.items() if _belongs(name, prefix)}
    problems = [
        f"{name} is missing ({_describe(array)} expected)" for name, array in expected.items() if name not in found
    ]
    problems += [f"{name} is not expected ({_describe(found[name])})" for name in found if name not in expected]
    problems += [
        f"{name} is {_describe(found[name])}, expected {_describe(array)}"
        for name, array in expected.items()
        if name in found and (found[name].shape, found[name].dtype) != (array.shape, array.dtype)
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise RunError(f"the checkpoint does not fit {prefix!r}: " + "; ".join(problems[:5]) + more)
    leaves = [_like(leaf, found[name]) if _is_array(leaf) else leaf for name, leaf in named]
    return jax.tree_util.tree_unflatten(structure, leaves)


def _named(tree: Any, prefix: str) -> tuple[list[tuple[str, Any]], Any]:
    """Leaves with their names, and the structure to put them back into."""
    import jax

    entries, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = []
    for path, leaf in entries:
        key = jax.tree_util.keystr(path)
        joint = "" if not key or key[0] in ".[" else "."  # a pytree registered with keys of its own may have any text
        named.append((prefix + joint + key, leaf))
    if len({name for name, _ in named}) < len(named):
        raise RunError(f"two leaves of {prefix!r} have the same key path and cannot be told apart in a file")
    return named, structure


def _belongs(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in ("", ".", "[")


def _is_array(leaf: Any) -> bool:
    import jax

    return isinstance(leaf, (np.ndarray, np.generic, jax.Array))


def _is_key(leaf: Any) -> bool:
    import jax
    import jax.numpy as jnp

    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    import jax

    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf: Any, array: np.ndarray) -> Any:
    """`array` as what `leaf` is: a random key, a JAX array, a NumPy scalar or a NumPy array."""
    import jax
    import jax.numpy as jnp

    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.array(array), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array):
        with jax.enable_x64(True):  # without it a float64 leaf would come back as float32
            return jnp.array(array)
    return array[()] if isinstance(leaf, np.generic) else array.copy()


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"
