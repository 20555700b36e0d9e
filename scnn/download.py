"""Download and unpack an archive of recordings, with bounds on time, size and memory."""

import gzip
import hashlib
import http.client
import tarfile
import threading
import zlib
from pathlib import Path, PurePosixPath

import requests
import urllib3
from tqdm import tqdm

from scnn.text import printable

_TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two pieces of the response
_MOST_SECONDS = 15 * 60.0  # for the whole download
_MOST = 2**26  # bytes of the archive, packed or unpacked: twice the size of FSDD's
_PIECE = 2**16  # bytes
_BLOCK = tarfile.BLOCKSIZE
_LARGEST = 2**20  # bytes of one recording: more than ten times FSDD's largest
_SKIPPED = (tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)


def fetch(url: str, folder: Path, hashes: dict[str, str], advice: str) -> None:
    """Download a tar.gz and write only the recordings named in `hashes` to `folder`.

    Args:
        hashes: SHA-256 of the files in the archive's folder `recordings`, by file name.
        advice: what the user can do instead; it is appended to every error message.

    Raises:
        ConnectionError: the download fails, is larger than 64 MiB or takes longer than 15 minutes; the
            message names the URL.
        ValueError: the archive is refused: it is truncated, altered, incomplete, larger than 64 MiB when
            unpacked, or has members that are links or lie outside it.
    """
    archive = folder.with_name("archive.tar.gz")
    try:
        _download(url, archive)
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        TimeoutError,
        ValueError,
    ) as error:
        raise ConnectionError(f"{url} could not be downloaded ({printable(error)}). {advice}") from error
    try:
        with gzip.open(archive) as stream:
            _unpack(stream, folder, hashes)
    except (ValueError, EOFError, tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"the archive from {url} was refused and discarded: {printable(error)}. {advice}"
        ) from error


def _download(url: str, path: Path) -> None:
    """Download a file in a separate thread, so that a server that sends a byte a minute cannot block us."""
    failed, over = [], threading.Event()

    def run() -> None:
        try:
            _stream(url, path, over)
        except Exception as error:  # raised again below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(_MOST_SECONDS)
    finally:
        over.set()
    if thread.is_alive():
        raise TimeoutError(f"it was incomplete after {_MOST_SECONDS:.0f} s")
    if failed:
        raise failed[0]


def _stream(url: str, path: Path, over: threading.Event) -> None:
    # A content encoding would be decoded in memory without a bound.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 20 else None
        with open(path, "wb") as file, tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
            # Not `iter_content`, which reads the line before each chunk whole, however long it is.
            while (piece := response.raw.read(_PIECE, decode_content=False)) and not over.is_set():
                if file.tell() + len(piece) > _MOST:
                    raise ValueError(f"it is larger than {_MOST} bytes")
                file.write(piece)
                bar.update(len(piece))


def _unpack(stream: gzip.GzipFile, folder: Path, hashes: dict[str, str]) -> None:
    """Write the recordings named in `hashes` to `folder`.

    Headers are read one by one. Extended headers (PAX, long names) are skipped: recordings need none, and
    `tarfile` would read them whole into memory.
    """
    total = 0
    while (header := stream.read(_BLOCK)) and header.count(0) < _BLOCK:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        size = member.size
        total += _BLOCK + size
        if size < 0 or total > _MOST:
            raise ValueError(f"unpacked it is larger than {_MOST} bytes, or its headers say so")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.type in _SKIPPED):
            raise ValueError(f"{member.name} is a link or a special file, or lies outside the archive")
        if member.isreg() and path.parent.name == "recordings" and path.name in hashes:
            content = stream.read(min(size, _LARGEST))
            size -= len(content)
            if hashlib.sha256(content).hexdigest() != hashes[path.name]:
                raise ValueError(f"{member.name} is not the published recording")
            (folder / path.name).write_bytes(content)
        _skip(stream, size + -member.size % _BLOCK)
    while piece := stream.read(_LARGEST):  # up to the checksum at the end, which a truncated archive lacks
        total += len(piece)
        if total > _MOST:
            raise ValueError(f"unpacked it is larger than {_MOST} bytes")
    missing = sorted(set(hashes) - {file.name for file in folder.iterdir()})
    if missing:
        raise ValueError(f"{len(missing)} of {len(hashes)} recordings are missing, the first is {missing[0]}")


def _skip(stream: gzip.GzipFile, size: int) -> None:
    while size > 0:
        size -= len(stream.read(min(size, _LARGEST))) or size  # at the end of the stream, the next read fails
