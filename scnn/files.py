"""Files on disk: the cache folder, locks, and files that are written completely or not at all."""

import glob
import hashlib
import json
import os
import secrets
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save

LARGEST_FILE = 2**29  # most bytes of a network or a training state
_LARGEST_HEADER = 2**23
_LARGEST_JSON = 2**24
_DTYPES = {"F32": torch.float32, "BOOL": torch.bool}  # of all stored tensors
_ABANDONED = 3600.0  # seconds after which a temporary file is assumed to be from a killed process


def cache_dir() -> Path:
    """The folder for everything stored between runs: `$SCNN_HOME`, else the user's cache folder.

    Raises:
        OSError: the folder does not exist and cannot be made; the message names `SCNN_HOME`.
    """
    given = os.environ.get("SCNN_HOME")
    try:
        folder = Path(given or pooch.os_cache("scnn")).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    # RuntimeError: ~user of an unknown user, or a link loop
    except (OSError, RuntimeError, ValueError) as error:
        name = f"SCNN_HOME={given!r}" if given else "SCNN_HOME is not set, and the user's cache folder"
        raise OSError(
            f"{name} cannot be used ({error}); set SCNN_HOME to a folder, or a path where one can be made"
        ) from error
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock `path`: one thread of one process enters at a time, the others wait.

    The lock is the file `path` with `.lock` appended to its name. If its holder is killed, it is free again.

    Raises:
        OSError: the lock file cannot be written; the message names `SCNN_HOME`.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        raise OSError(
            f"{path}.lock cannot be written ({error}); set SCNN_HOME to a writable folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary file to write to, and move it to `path` if no error occurred."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}); it was left as it was") from error
    finally:
        temporary.unlink(missing_ok=True)
    sweep(path.parent, glob.escape(path.name))


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files that belong together into `folder`, which is made if necessary, and return their paths.

    Files of the same names are replaced, but only once all new ones are on disk, so that a full disk leaves
    the old ones. Other files stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporaries = {folder / name: _temporary(folder / name) for name in contents}
    try:
        for path, temporary in temporaries.items():
            temporary.write_bytes(contents[path.name])
            _flush(temporary)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}); {folder} was left as it was") from error
    finally:
        for path, temporary in temporaries.items():
            temporary.unlink(missing_ok=True)
            sweep(folder, glob.escape(path.name))
    return list(temporaries)


def _temporary(path: Path) -> Path:
    # A random name, as processes in two containers can share both a folder and a process id.
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def _flush(path: Path) -> None:
    """Flush a written file to the disk."""
    with open(path, "r+b") as written:  # Windows cannot flush a file that is open only for reading
        os.fsync(written.fileno())


def sweep(folder: Path, name: str = "*", seconds: float = _ABANDONED) -> None:
    """Remove temporary files for `name` (a pattern) older than `seconds`: their writers were killed."""
    for temporary in folder.glob(f".{name}.*.part"):
        try:
            if time.time() - temporary.stat().st_mtime >= seconds:
                temporary.unlink()
        except FileNotFoundError:  # another process removed it
            pass


def canonical(content: Any) -> str:
    """JSON that is identical for equal contents.

    Raises:
        ValueError: a number is not finite.

    >>> canonical({"beta": 0.5, "architecture": "6C3-10FC"})
    '{"architecture": "6C3-10FC", "beta": 0.5}'
    """
    return json.dumps(content, sort_keys=True, allow_nan=False)


def parse_json(text: str | bytes, source: Path) -> Any:
    """Parse JSON.

    Raises:
        ValueError: the text is not JSON, or has numbers that are not finite; the message names `source`.
    """

    def refuse(constant: str):
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: not JSON, or damaged ({error})") from error


def read_json(path: Path) -> Any:
    """Read a JSON file; errors as for `parse_json`, and for files that are too large."""
    with open(path, "rb") as file:
        content = file.read(_LARGEST_JSON + 1)
    if len(content) > _LARGEST_JSON:
        raise ValueError(f"{path}: larger than the limit of {_LARGEST_JSON} bytes")
    return parse_json(content, path)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON; `ValueError` for numbers that are not finite."""
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be written ({error})") from error
    with atomic_write(path) as file:
        file.write_text(text, encoding="utf-8")


def read_whole(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has more than `largest` bytes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f"{path}: {size} bytes are more than the limit of {largest}")
        return file.read(size)


def save_tensors(path: Path, form: str, about: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors (float32 or bool) and their description `about` (any JSON) to a safetensors file.

    The header is plain text, and contains a checksum of everything in the file. Equal contents give equal
    files.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": form, "about": about, "checksum": _checksum(form, about, tensors)}
    # A single metadata entry, because safetensors writes several in random order.
    content = save(tensors, {"scnn": json.dumps(header, allow_nan=False)})
    with atomic_write(path) as file:
        file.write_bytes(content)


def load_tensors(path: Path, form: str, largest: int = LARGEST_FILE) -> tuple[Any, dict[str, torch.Tensor]]:
    """Read what `save_tensors` wrote: `about` and the tensors. Nothing in the file is ever executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has more than `largest` bytes, another format than `form`, or is damaged or
            altered; the message gives the reason.
    """
    content = read_whole(path, largest)  # safetensors itself cannot open files with names that are not UTF-8
    try:
        header = _header(content)
        file_format, about = header.get("format"), header.get("about")
        if file_format == form:
            tensors = load(content)
            unchanged = header.get("checksum") == _checksum(form, about, tensors)
    except (SafetensorError, RecursionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error})") from error
    if file_format != form:
        raise ValueError(f"{path}: its header says format {file_format!r}; this reads {form!r}")
    if not unchanged:
        raise ValueError(f"{path}: its contents have changed since they were written: the checksum differs")
    return about, tensors


def _header(content: bytes) -> Any:
    """A file's header entry `scnn`; an error for sizes and dtypes that `save_tensors` never writes."""
    (length,) = struct.unpack("<Q", content[:8]) if len(content) >= 8 else (0,)
    if not 0 < length <= min(_LARGEST_HEADER, len(content) - 8):
        raise ValueError(f"a header of {length} bytes")
    entries = json.loads(content[8 : 8 + length])
    metadata = entries.pop("__metadata__", {})
    for name, entry in entries.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{name} has dtype {entry['dtype']}; valid: {', '.join(_DTYPES)}")
    if set(metadata) != {"scnn"}:
        return {"format": metadata.get("format")}  # from another program, or an older version
    return json.loads(metadata["scnn"])


def _checksum(form: str, about: Any, tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the format, the description, and each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(canonical([form, about]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
