"""The recordings of an archive on the web, fetched and unpacked with bounds on time, size and memory."""

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

_TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two pieces of the answer
_MOST_SECONDS = 15 * 60.0  # for the whole download
_MOST = 2**26  # bytes of the archive, and of what is in it: twice as many as FSDD's has
_PIECE = 2**16  # bytes
_BLOCK = tarfile.BLOCKSIZE
_LARGEST = 2**20  # bytes; no recording of FSDD is a tenth of it
_PASSED_OVER = (tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)


def fetch(url: str, folder: Path, hashes: dict[str, str], advice: str) -> None:
    """Download a tar.gz and write the recordings that `hashes` names, and no other file, to `folder`.

    Args:
        hashes: SHA-256 by file name, of the files in the archive's folder `recordings`.
        advice: what to do instead; it ends every error.

    Raises:
        ConnectionError: naming the URL, where the download fails, is larger than 64 MB or takes longer than
            15 minutes.
        ValueError: where the archive is refused: truncated, altered, incomplete, larger than that when
            unpacked, or with members that are links or lie outside it.
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
            f"the archive from {url} was refused and nothing of it kept: {printable(error)}. {advice}"
        ) from error


def _download(url: str, path: Path) -> None:
    """Download a file, in a thread of its own: nothing else bounds a server that sends a byte a minute."""
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
        raise TimeoutError(f"it was not complete after {_MOST_SECONDS:.0f} s")
    if failed:
        raise failed[0]


def _stream(url: str, path: Path, over: threading.Event) -> None:
    # An encoding would be undone in memory, without a bound.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 20 else None
        with open(path, "wb") as file, tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
            # Not `iter_content`: it reads the line before a chunk whole, however long it is.
            while (piece := response.raw.read(_PIECE, decode_content=False)) and not over.is_set():
                if file.tell() + len(piece) > _MOST:
                    raise ValueError(f"it is larger than {_MOST} bytes")
                file.write(piece)
                bar.update(len(piece))


def _unpack(stream: gzip.GzipFile, folder: Path, hashes: dict[str, str]) -> None:
    """Write the recordings that `hashes` names to `folder`, under these names.

    Headers are read one by one. What extends them (PAX, long names) is passed over: recordings need none, and
    `tarfile` would read it whole into memory.
    """
    total = 0
    while (header := stream.read(_BLOCK)) and header.count(0) < _BLOCK:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        size = member.size
        total += _BLOCK + size
        if size < 0 or total > _MOST:
            raise ValueError(f"unpacked it is larger than {_MOST} bytes, or says so")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.type in _PASSED_OVER):
            raise ValueError(f"{member.name} is a link, or leads out of the archive")
        if member.isreg() and path.parent.name == "recordings" and path.name in hashes:
            content = stream.read(min(size, _LARGEST))
            size -= len(content)
            if hashlib.sha256(content).hexdigest() != hashes[path.name]:
                raise ValueError(f"{member.name} is not the published recording")
            (folder / path.name).write_bytes(content)
        _skip(stream, size + -member.size % _BLOCK)
    while piece := stream.read(_LARGEST):  # to the checksum at its end, which a truncated archive lacks
        total += len(piece)
        if total > _MOST:
            raise ValueError(f"unpacked it is larger than {_MOST} bytes")
    missing = sorted(set(hashes) - {file.name for file in folder.iterdir()})
    if missing:
        raise ValueError(f"{len(missing)} of {len(hashes)} recordings are missing, the first is {missing[0]}")


def _skip(stream: gzip.GzipFile, size: int) -> None:
    while size > 0:
        size -= len(stream.read(min(size, _LARGEST))) or size  # the end is met by whoever reads on
