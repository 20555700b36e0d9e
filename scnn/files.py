"""Everything that is kept on disk: the home, locks, and files that are written whole or not at all."""

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
from filelock import FileLock
from safetensors import SafetensorError

_LEFT = 3600.0  # seconds after which a temporary file is taken for one that a killed process left


def cache_dir() -> Path:
    """The folder for everything that is kept between runs: $SCNN_HOME, else the user's cache folder.

    Raises `OSError`, naming SCNN_HOME, where there is no such folder and none can be made.
    """
    given = os.environ.get("SCNN_HOME")
    try:
        folder = Path(given or pooch.os_cache("scnn")).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a home of nobody, or a loop of links
        name = f"SCNN_HOME={given!r}" if given else "SCNN_HOME is not set, and the user's cache folder"
        raise OSError(
            f"{name} cannot be used ({error}); set it to a folder, or to where one can be made"
        ) from error
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time: the others wait. The lock of a killed process is free.

    The lock is the file `path` with `.lock` behind its name. Raises `OSError`, naming SCNN_HOME, where it
    cannot be made.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter from a file system without locks
        raise OSError(
            f"{path}.lock cannot be written ({error}); set SCNN_HOME to a folder where that is possible"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file to write to, which takes the place of `path` once all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of two containers can share a folder and a number, so the name is drawn at random.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        yield temporary
        with open(temporary, "r+b") as written:  # Windows refuses to flush what is open for reading alone
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # the latter for a disk that is full
        raise OSError(f"{path} could not be written ({error}); it was left as it was") from error
    finally:
        temporary.unlink(missing_ok=True)
    sweep(path.parent, glob.escape(path.name))


def sweep(folder: Path, name: str = "*", seconds: float = _LEFT) -> None:
    """Remove temporary files of a name (a pattern) older than `seconds`: their writers were killed."""
    for left in folder.glob(f".{name}.*.part"):
        try:
            if time.time() - left.stat().st_mtime >= seconds:
                left.unlink()
        except FileNotFoundError:  # another process was faster
            pass
