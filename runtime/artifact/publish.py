"""Directories published whole: written aside, then put in place by exchanging names.

A reader, or a machine that stops at any moment, sees the old directory or the new one, never a mix and never a part.
"""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ArtifactError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Both from <linux/fs.h> and <fcntl.h>."""
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV}
_DISK_PROBLEMS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@contextmanager
def publish(target: Path, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Give an empty directory to fill; when the block ends, it becomes ``target``; when it fails, it is removed.

    An existing ``target`` is replaced only if it is an empty directory or ``replaceable`` says so: else ArtifactError.
    Left-overs of writers that were killed are removed. Where the file system cannot exchange two names, two renames
    do it, and the next publication puts the old directory back if a kill fell between them.
    """
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        _refuse_foreign(target, replaceable)
        aside, lock = _make_aside(target)
    except OSError as problem:
        raise ArtifactError(f"cannot write {target}: {problem.strerror}; choose another place") from problem
    try:
        yield aside
        _sync_tree(aside)
        _refuse_foreign(target, replaceable)
        _put_in_place(aside, target)
    except OSError as problem:
        if problem.errno not in _DISK_PROBLEMS:
            raise
        raise ArtifactError(
            f"cannot write {target}: {problem.strerror}; make room or choose another place"
        ) from problem
    finally:
        # After success this name holds the old directory.
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


@contextmanager
def publish_files(target: Path) -> Iterator[Path]:
    """Give an empty directory to fill with the file ``target`` and others that belong to it; when the block ends, they
    go where ``target`` is to be; when it fails, they are removed.

    Files of these names are replaced, ``target`` being gone first and back last: a reader sees the old files, no
    ``target``, or the new files. ArtifactError where they cannot be written.
    """
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise ArtifactError(f"{target} is a directory; choose another output path")
        _sweep(target)
        aside, lock = _make_aside(target)
    except OSError as problem:
        raise ArtifactError(f"cannot write {target}: {problem.strerror}; choose another place") from problem
    try:
        yield aside
        _sync_tree(aside)
        target.unlink(missing_ok=True)
        for file in sorted(aside.iterdir(), key=lambda f: f.name == target.name):
            file.replace(target.with_name(file.name))
        _sync(target.parent)
    except OSError as problem:
        if problem.errno not in {*_DISK_PROBLEMS, errno.EISDIR}:
            raise
        raise ArtifactError(
            f"cannot write {target}: {problem.strerror}; make room or choose another place"
        ) from problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


def _refuse_foreign(target: Path, replaceable: Callable[[Path], bool]) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise ArtifactError(f"{target} exists and is not a directory; choose another output path")
    if any(target.iterdir()) and not replaceable(target):
        raise ArtifactError(
            f"{target} exists and is not an xllmc engine; choose another output path or remove it first"
        )


def _make_aside(target: Path) -> tuple[Path, int]:
    """A new directory beside ``target``, and a lock on it that ends with this process."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    while True:
        try:
            aside.mkdir()
        except FileExistsError:
            raise ArtifactError(f"{target} is being written by this process already; wait for it to end") from None
        lock = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return aside, lock
        # A sweeper took it between mkdir and flock.
        os.close(lock)


def _sweep(target: Path) -> None:
    """Remove what killed writers of ``target`` left. Their lock tells: process ids are reused, above all in
    containers.
    """
    for old in target.parent.glob(f".{_literal(target.name)}.*.old"):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    for aside in target.parent.glob(f".{_literal(target.name)}.*.tmp"):
        with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
            lock = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(aside, ignore_errors=True)
            finally:
                os.close(lock)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _put_in_place(aside: Path, target: Path) -> None:
    if not target.exists():
        aside.rename(target)
    elif not _exchange(aside, target):
        old = aside.with_suffix(".old")
        target.rename(old)
        aside.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the C library, the kernel or the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if not libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(second))


def _sync_tree(root: Path) -> None:
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync(Path(directory, name))
        _sync(Path(directory))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
