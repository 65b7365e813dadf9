"""Arrays kept on disk under a fingerprint of everything that made them; memory-mapped when found again."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from mahler.schema import ConfigError, Table

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PACKAGE = Path(__file__).resolve().parent


@cache
def code_version(*modules: str, alone: str = "") -> str:
    """Digest of the package's sources and compiled kernels: what was made by other code is not found again.

    Where `modules` are named, of those alone and of all that they import, and what that imports; with the module
    `alone`, and nothing that it imports. So an edit of what an array does not depend on leaves it to be found.
    """
    files = _files()
    names = _imported(modules, files) | {alone} if modules else set(files)
    digest = hashlib.sha256()
    for path in sorted(path for name in names for path in files.get(name, ())):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _files() -> dict[str, list[Path]]:
    """The files of each module of the package: its source, and of a kernel what it was compiled to."""
    files: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".pyx", ".pxd", ".so"):
            parts = (PACKAGE.name, *path.relative_to(PACKAGE).parent.parts, path.name.partition(".")[0])
            files.setdefault(".".join(parts).removesuffix(".__init__"), []).append(path)
    return files


def _imported(modules: Iterable[str], files: dict[str, list[Path]]) -> set[str]:
    """`modules`, their packages, and all of this package that they import, wherever in them they do."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or name not in files:
            continue
        found.add(name)
        waiting.append(name.rpartition(".")[0])
        for path in files[name]:
            if path.suffix == ".py":
                waiting += _imports(path)
    return found


@cache
def _imports(path: Path) -> list[str]:
    """Every name that a source imports; whether it is a module's is for others to say."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


_remembering: ContextVar[Path | None] = ContextVar("remembering", default=None)


@contextmanager
def remembering(folder: Path | None) -> Iterator[None]:
    """For as long as the block lasts, `recall` and `remember` are of `folder`; with None there is no memory."""
    token = _remembering.set(folder)
    try:
        yield
    finally:
        _remembering.reset(token)


def recall(key: str) -> Table | None:
    """What a slow computation remembered of itself under `key`; None where it did not, or has no memory."""
    folder = _remembering.get()
    return load(folder, key) if folder else None


def remember(key: str, arrays: Table) -> None:
    """Keep arrays from which a slow computation can go on, where it has a memory. They change no result."""
    folder = _remembering.get()
    if folder:
        store(folder, key, arrays)


def in_turn(keys: Iterable[str]) -> Iterator[int]:
    """The number of each key, while no other process has the key in its turn; those that another has come last.

    So processes that have the same slow things to compute share them out. Without a memory there is nothing to share.
    """
    folder, busy = _remembering.get(), []
    for i, key in enumerate(keys):
        if folder is None:
            yield i
            continue
        with _locked(folder, key, LOCK_EX | LOCK_NB) as got:
            if got:
                yield i
            else:
                busy.append((i, key))
    for i, key in busy:
        with alone(folder, key):
            yield i


def fingerprint(*parts: Any) -> str:
    """A hex SHA-256 of the canonical JSON of `parts`; equal parts have equal fingerprints on any machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def kept(folder: Path | None, key: str, make: Callable[[], Table]) -> Table:
    """The arrays under `key`, made by `make()` and stored where there are none; with no folder just made.

    Of processes that want them at once one makes them, and the others wait for it.
    """
    if folder is None:
        return make()
    arrays = load(folder, key)
    if arrays is None:
        with alone(folder, key):
            arrays = load(folder, key)
            if arrays is None:
                arrays = make()
                store(folder, key, arrays)
    return arrays


@contextmanager
def alone(folder: Path, key: str) -> Iterator[None]:
    """For as long as the block lasts, no other process is in such a block of the same folder and key."""
    with _locked(folder, key, LOCK_EX):
        yield


@contextmanager
def _locked(folder: Path, key: str, how: int) -> Iterator[bool]:
    """Whether the lock of `key` was to be had, for as long as the block lasts. Raises ConfigError where none can be made."""
    path = folder / f".{key}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _lock(path, how)
    except OSError as error:
        raise ConfigError(f"the cache {folder} cannot be written to ({error.strerror}): make it writable, or set "
                          "MAHLER_HOME to a folder that is") from error
    if file is None:
        yield False
        return
    with file:
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path, how: int) -> IO[str] | None:
    """The file, locked; None where `how` is not to wait for who has it.

    Who had it removed it: what was waited for is a lock only while it is still the file of that name.
    """
    while True:
        file = open(path, "w", encoding="utf-8")
        try:
            flock(file, how)
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        file.close()


def load(folder: Path, key: str) -> Table | None:
    """The arrays stored under `key`, read-only; None where there are none, or where an array is not what was stored.

    A damaged entry is removed with a warning, so that the caller makes it again.
    """
    entry = folder / key
    if not (entry / MANIFEST).is_file():
        return None
    try:
        arrays = {}
        for name, checksum in json.loads((entry / MANIFEST).read_text()).items():
            array = np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if _checksum(array) != checksum:
                raise ValueError(f"{name} does not match its checksum")
            arrays[name] = np.asarray(array)          # a view of the map, without its slower subclass
    except (OSError, ValueError, AttributeError, EOFError) as error:
        log.warning("cache entry %s is damaged (%s): it is made again", key[:12], error)
        shutil.rmtree(entry, ignore_errors=True)
        return None
    os.utime(entry)
    return arrays


def store(folder: Path, key: str, arrays: Table, limit_bytes: float = 20e9) -> None:
    """Keep `arrays` under `key`, whole or not at all; the least recently used entries beyond `limit_bytes` go."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".", dir=folder))
    try:
        for name, array in arrays.items():
            np.save(scratch / f"{name}.npy", array, allow_pickle=False)
        (scratch / MANIFEST).write_text(json.dumps({name: _checksum(array) for name, array in arrays.items()}))
        if not (folder / key).exists():
            try:
                os.rename(scratch, folder / key)
            except OSError:
                if not (folder / key).exists():       # else another process was first, with the same content
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _prune(folder, limit_bytes)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data) if array.size else 0


def _prune(folder: Path, limit_bytes: float) -> None:
    entries = sorted((e for e in folder.iterdir() if (e / MANIFEST).is_file()), key=lambda e: e.stat().st_mtime)
    sizes = [sum(f.stat().st_size for f in entry.iterdir()) for entry in entries]
    excess = sum(sizes) - limit_bytes
    for entry, size in zip(entries[:-1], sizes[:-1], strict=True):
        if excess <= 0:
            return
        shutil.rmtree(entry, ignore_errors=True)
        excess -= size
