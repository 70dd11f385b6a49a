"""A bounded folder of downloaded shards that the processes of a machine share.

Each file is under a digest of its address, size and ETag, so a shard that was changed is another file. Locks (flock)
are on the files themselves and end with the process that holds them:

- `<digest>-<name>` is whole. Who reads it has a shared lock; it is removed only by who gets an exclusive one.
- `<digest>-<name>.<size>.part` is what was downloaded so far. Who downloads has an exclusive lock; others wait. A
  download that was killed is resumed by the next who gets the lock.
- `lock` is held while space is counted and made.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import Exit, MLScaleError

_PART = re.compile(r"\.(\d+)\.part$")
_POLL_SECONDS = 0.05
_FREE_SHARE = 0.5
"""The share of the free disk that `cache_gb=auto` takes: others write to it, too."""
_RECENT_SECONDS = 30
"""A use is written down so often, at most: a time on disk for every sample would be a write for every sample."""


@dataclass(frozen=True)
class CacheSpace:
    """The space of a cache, in bytes: what it may have, and what its files have."""

    limit: int
    used: int


class ShardCache:
    """See the module.

    Args:
        folder: of the cache; on a disk of this machine.
        limit: bytes that all files may have together; None for half of the free disk.
        where: the key path of the folder, for errors.
    """

    def __init__(self, folder: Path, limit: int | None, where: str = "data.cache_dir") -> None:
        self.folder, self._limit, self._where = folder, limit, where

    @property
    def limit(self) -> int:
        """The bytes that all files may have together."""
        if self._limit is None:
            self._create_folder()
            own = sum(size for _, size, _ in self._list_files())
            self._limit = int((shutil.disk_usage(self.folder).free + own) * _FREE_SHARE)
        return self._limit

    def measure_space(self) -> CacheSpace:
        """Return the limit, and what is used of it."""
        self._create_folder()
        return CacheSpace(self.limit, sum(size for _, size, _ in self._list_files()))

    def open_whole(self, name: str) -> int | None:
        """Return a handle of a file that is whole, open for reading; None where it is not in the cache.

        As long as the handle is open, no process removes the file.
        """
        path = self.folder / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            self._lock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            status = os.fstat(handle)
            # Between opening and locking, another process may have removed it.
            if status.st_nlink == 0:
                raise BlockingIOError
            if time.time() - status.st_mtime > _RECENT_SECONDS:
                with suppress(OSError):  # of another user, whose files can be read
                    os.utime(path)
        # Who has the exclusive lock is about to remove it.
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        return handle

    @contextmanager
    def open_part(self, name: str, size: int) -> Iterator[int | None]:
        """Yield a handle of the part that is downloaded so far, which no other process has meanwhile.

        None where all space is taken by files that are being read; or where the file is whole by now.
        """
        self._create_folder()
        path = self.folder / f"{name}.{size}.part"
        handle = self._lock_part(path, name, size)
        try:
            yield handle
        finally:
            if handle is not None:
                os.close(handle)

    def commit_part(self, name: str, size: int, handle: int) -> None:
        """Give a part that is whole its name."""
        # Before the rename: after a power cut a whole file must not have holes.
        os.fsync(handle)
        os.chmod(handle, 0o644)
        # Who makes space must not take a part for removed that has got its name meanwhile.
        with self._lock_folder():
            os.replace(self.folder / f"{name}.{size}.part", self.folder / name)

    def remove(self, name: str) -> None:
        """Remove a file whose bytes have turned out to be wrong; who reads it keeps its handle."""
        with suppress(FileNotFoundError):
            os.unlink(self.folder / name)

    def remove_oldest(self) -> bool:
        """Remove the file that was used the longest ago; return False where processes use all of them."""
        with self._lock_folder():
            files = sorted(self._list_files(), key=lambda file: file[2])
            return any(self._remove_unused(self.folder / name) for name, _, _ in files)

    def _lock_part(self, path: Path, name: str, size: int) -> int | None:
        while not (self.folder / name).exists():
            if not path.exists() and not self._make_space(path, size):
                return None
            try:
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # committed or removed since
                continue
            try:
                self._lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who had the lock before may have renamed the file, and then it is not the part any more.
                is_part = _is_same_file(handle, path)
                if is_part and not (self.folder / name).exists():
                    return handle
                # Made in the moment in which another process renamed its own.
                if is_part:
                    os.unlink(path)
                os.close(handle)
            except BlockingIOError:
                os.close(handle)
                # Polled, and not waited for: Ctrl-C must end it.
                time.sleep(_POLL_SECONDS)
            except BaseException:
                os.close(handle)
                raise
        return None

    def _make_space(self, path: Path, size: int) -> bool:
        """Create an empty part, whose space counts from now on; remove what was used the longest ago if need be."""
        with self._lock_folder():
            if path.exists():
                return True
            files = sorted(self._list_files(), key=lambda file: file[2])
            free = self.limit - sum(size for _, size, _ in files)
            # Nothing is removed in vain for a shard that does not fit at all.
            if size > self.limit:
                return False
            for name, own, _ in files:
                if free >= size:
                    break
                if self._remove_unused(self.folder / name):
                    free += own
            if free < size:
                return False
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            except OSError as error:
                raise self._build_folder_error(error) from error
            return True

    def _remove_unused(self, path: Path) -> bool:
        """Remove a file unless a process reads it or downloads to it; return True if it is gone."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return not path.exists()
        try:
            self._lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except (BlockingIOError, PermissionError):
            return False
        finally:
            os.close(handle)
        return True

    def _list_files(self) -> list[tuple[str, int, float]]:
        """Return name, bytes and last use of each file; a part counts as what it will be."""
        files: list[tuple[str, int, float]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.name == "lock" or not entry.is_file(follow_symlinks=False):
                        continue
                    status, part = entry.stat(follow_symlinks=False), _PART.search(entry.name)
                    files.append((entry.name, int(part[1]) if part else status.st_size, status.st_mtime))
        return files

    @contextmanager
    def _lock_folder(self) -> Iterator[None]:
        try:
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._build_folder_error(error) from error
        try:
            # Held for milliseconds, so it is waited for.
            self._lock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _lock(self, handle: int, kind: int) -> None:
        try:
            fcntl.flock(handle, kind)
        except BlockingIOError:
            raise
        except OSError as error:
            raise MLScaleError(
                f"files in {str(self.folder)!r} cannot be locked",
                where=self._where,
                why=f"{error.strerror}; the processes of a machine share downloaded shards by locks",
                fix=f"{self._where}=<a folder on a disk of this machine>",
                exit=Exit.ENVIRONMENT,
            ) from error

    def _create_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._build_folder_error(error) from error

    def _build_folder_error(self, error: OSError) -> MLScaleError:
        return MLScaleError(
            f"shards cannot be kept in {str(self.folder)!r}",
            where=self._where,
            why=error.strerror or str(error),
            fix=f"{self._where}=<a folder you may write to, with free space>",
            exit=Exit.ENVIRONMENT,
        )


def _is_same_file(handle: int, path: Path) -> bool:
    """Return True if an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
