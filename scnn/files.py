"""Everything that is kept on disk: the home, locks, and files that are written whole or not at all."""

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

LARGEST_FILE = 2**29  # bytes of a network or a training state
_LARGEST_HEADER = 2**23
_LARGEST_JSON = 2**24
_DTYPES = {"F32": torch.float32, "BOOL": torch.bool}  # of all that is kept
_LEFT = 3600.0  # seconds after which a temporary file is taken for one that a killed process left


def cache_dir() -> Path:
    """The folder for everything that is kept between runs: `$SCNN_HOME`, else the user's cache folder.

    Raises:
        OSError: naming `SCNN_HOME`, where there is no such folder and none can be made.
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

    The lock is the file `path` with `.lock` appended to its name.

    Raises:
        OSError: naming `SCNN_HOME`, where it cannot be made.
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
    """Write files that belong together into `folder`, which is made if need be; their paths.

    None takes its place before all of them are on the disk, so that a full disk leaves the old ones. Files of
    the same names are replaced, others stay.
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
    # Processes of two containers can share a folder and a number, so the name is drawn at random.
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def _flush(path: Path) -> None:
    """Have what was written to a file on the disk."""
    with open(path, "r+b") as written:  # Windows refuses to flush what is open for reading alone
        os.fsync(written.fileno())


def sweep(folder: Path, name: str = "*", seconds: float = _LEFT) -> None:
    """Remove temporary files of a name (a pattern) older than `seconds`: their writers were killed."""
    for left in folder.glob(f".{name}.*.part"):
        try:
            if time.time() - left.stat().st_mtime >= seconds:
                left.unlink()
        except FileNotFoundError:  # another process was faster
            pass


def canonical(content: Any) -> str:
    """JSON that is the same for equal contents.

    Raises:
        ValueError: for numbers that are not finite.

    >>> canonical({"beta": 0.5, "architecture": "6C3-10FC"})
    '{"architecture": "6C3-10FC", "beta": 0.5}'
    """
    return json.dumps(content, sort_keys=True, allow_nan=False)


def parse_json(text: str | bytes, source: Path) -> Any:
    """What JSON says; `ValueError` naming its `source` for what is no JSON, or has numbers not finite."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: not JSON, or damaged ({error})") from error


def read_json(path: Path) -> Any:
    """What a JSON file says; errors as of `parse_json`."""
    with open(path, "rb") as file:
        content = file.read(_LARGEST_JSON + 1)
    if len(content) > _LARGEST_JSON:
        raise ValueError(f"{path}: of more than the {_LARGEST_JSON} bytes that are read")
    return parse_json(content, path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people to read; `ValueError` for numbers that are not finite."""
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be written ({error})") from error
    with atomic_write(path) as file:
        file.write_text(text, encoding="utf-8")


def read_whole(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file of more than `largest` bytes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f"{path}: of {size} bytes, more than the {largest} that are read")
        return file.read(size)


def save_tensors(path: Path, form: str, about: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file of tensors (float32 or bool) and of what they are, `about`, any JSON.

    Its header is plain text, and holds a checksum of all that the file says. Equal contents give equal files.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": form, "about": about, "checksum": _checksum(form, about, tensors)}
    # One entry, as safetensors writes several in random order; within it the order is kept.
    content = save(tensors, {"scnn": json.dumps(header, allow_nan=False)})
    with atomic_write(path) as file:
        file.write_bytes(content)


def load_tensors(path: Path, form: str, largest: int = LARGEST_FILE) -> tuple[Any, dict[str, torch.Tensor]]:
    """What `save_tensors` wrote: `about` and the tensors. Nothing in the file is ever executed.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: with the reason, for a file of more than `largest` bytes, that is of another format than
            `form`, or that does not say what was written.
    """
    content = read_whole(path, largest)  # as safetensors opens no file whose name is not UTF-8
    try:
        header = _header(content)
        found, about = header.get("format"), header.get("about")
        if found == form:
            tensors = load(content)
            unchanged = header.get("checksum") == _checksum(form, about, tensors)
    except (SafetensorError, RecursionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error})") from error
    if found != form:
        raise ValueError(f"{path}: its header says format {found!r}; this reads {form!r}")
    if not unchanged:
        raise ValueError(f"{path}: its contents are not those that were written, the checksum differs")
    return about, tensors


def _header(content: bytes) -> Any:
    """What a file's header says of it; an error where it says more than we ever write."""
    (length,) = struct.unpack("<Q", content[:8]) if len(content) >= 8 else (0,)
    if not 0 < length <= min(_LARGEST_HEADER, len(content) - 8):
        raise ValueError(f"a header of {length} bytes")
    entries = json.loads(content[8 : 8 + length])
    metadata = entries.pop("__metadata__", {})
    for name, entry in entries.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{name} is of dtype {entry['dtype']}; valid are {', '.join(_DTYPES)}")
    if set(metadata) != {"scnn"}:
        return {"format": metadata.get("format")}  # of another program, or an older version
    return json.loads(metadata["scnn"])


def _checksum(form: str, about: Any, tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over the format, the description, and each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(canonical([form, about]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
