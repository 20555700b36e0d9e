"""Read one recording into a waveform, from a file in any format that libsndfile supports.

Headers are not trusted: a file is decoded block by block up to a limit, and a truncated file is refused.
"""

import io
import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import librosa
import numpy as np
import soundfile

from scnn.text import printable

MAX_SECONDS = 3.0  # the longest recording of FSDD takes 2.3 s
MIN_SECONDS = 0.025  # shortest accepted recording: one frame of speech
RATES = (1000, 768_000)  # Hz, lowest and highest accepted sample rate

_OTHER_ENDINGS = {  # in addition to the format's own name
    "AIFF": ("aif", "aifc"),
    "AU": ("snd",),
    "IRCAM": ("sf",),
    "MP3": ("mp2",),
    "NIST": ("sph",),
    "OGG": ("oga", "opus"),
    "SVX": ("iff", "8svx"),
    "WAV": ("wave",),
}
ENDINGS = frozenset(
    f".{ending}"
    for kind in soundfile.available_formats()
    if kind != "RAW"  # has no header for sample rate and channels
    for ending in (kind.lower(), *_OTHER_ENDINGS.get(kind, ()))
)

_BLOCK = 2**20  # values decoded at a time
_MOST = 2**25  # most values decoded from one file: six minutes of stereo at 48 kHz, an hour of mono at 8 kHz
_BEYOND = 2.0**40  # no valid sample is this large, whatever scale a float file uses
_UNKNOWN = 2**62  # libsndfile reports frame counts from here on for an unknown length
_SILENCE = 2.0**-15  # one step of a 16-bit recording
_CHUNKS = 1000  # most chunks searched for the audio
_STREAMED = 0x7F000000  # 32-bit sizes from here on mean that the size was unknown while writing
_SIZES_32 = (b"RIFF", b"RIFX", b"FORM", b".snd", b"dns.")
_CONTAINERS = {  # offset of the first chunk, struct layout of a chunk's name and size, alignment of chunks
    b"RIFF": (12, "<4sI", 2),
    b"RIFX": (12, ">4sI", 2),
    b"RF64": (12, "<4sI", 2),
    b"FORM": (12, ">4sI", 2),
    b"caff": (8, ">4sq", 1),
    b"riff": (40, "<16sq", 8),
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by MPEG version
_MP3_KBITS = {3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
_MP3_KBITS[2] = _MP3_KBITS[0] = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_SLACK = 8192  # most samples that a decoder trims off the ends
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the longest page


def read_audio(path: str | Path, sample_rate: int = 8000, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Read one recording as float32 `[samples]`, mono, at `sample_rate` Hz.

    - several channels: averaged;
    - another sample rate: resampled (soxr, through librosa);
    - longer than `max_seconds`: cropped to the part of that length with the most energy;
    - louder than full scale, as resampled and float recordings can be: scaled to a peak of 1.

    If the header leaves the length open, as in a stream, the file is read to its end.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read as audio, is truncated, empty (no samples), shorter than 25 ms,
            longer than 2^25 samples over all channels, silent (its samples span at most one 16-bit step), or
            has values that are not finite. The message names the file.
    """
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise ValueError(f"sample_rate={sample_rate}: must be from {RATES[0]} to {RATES[1]} Hz")
    if not max_seconds > 0:
        raise ValueError(f"max_seconds={max_seconds}: must be above 0")
    file = os.fspath(path)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{printable(file)}: no such file, or not a regular one")
    try:
        samples, rate = _decode(file, max_seconds)
        samples = _resampled(samples, rate, sample_rate)
        if np.ptp(samples) <= _SILENCE:
            raise ValueError("silent, it contains no signal")
    except soundfile.SoundFileError as error:
        raise ValueError(f"{printable(file)}: cannot be read as audio ({_reason(error)})") from error
    except ValueError as error:
        raise ValueError(f"{printable(file)}: {error}") from error
    peak = np.abs(samples).max()
    return samples / peak if peak > 1 else samples


def fit(samples: np.ndarray, rate: int, sample_rate: int, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Crop samples at `rate` Hz to their loudest `max_seconds` and resample them, as `read_audio` does.

    >>> a_second = np.zeros(16_000, np.float32)
    >>> fit(a_second, 16_000, 8000).shape
    (8000,)
    """
    part = _Loudest(max_seconds * rate)
    part.add(samples)
    return _resampled(part.samples(), rate, sample_rate)


def _resampled(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    if rate == sample_rate:
        return samples
    return librosa.resample(samples, orig_sr=rate, target_sr=sample_rate)


class _Reader(soundfile.SoundFile):
    """Read without seeking after each block, which fails at the end of a stream of unknown length."""

    def seekable(self) -> bool:
        return False


class _Streamed(io.FileIO):
    """A WAV file whose audio size (four bytes at `position`) was never filled in: it is read as unknown."""

    def __init__(self, path: str, position: int):
        super().__init__(path)
        self.position = position

    def readinto(self, buffer) -> int:
        start = self.tell()
        count = super().readinto(buffer)
        first, last = max(start, self.position), min(start + count, self.position + 4)
        if first < last:
            memoryview(buffer).cast("B")[first - start : last - start] = b"\xff" * (last - first)
        return count


def _decode(path: str, max_seconds: float) -> tuple[np.ndarray, int]:
    """The samples of a file, mono and cropped to their loudest part, and the sample rate."""
    if path.lower().endswith(".raw"):
        raise ValueError("cannot be read as audio (no header gives its rate and channels; save it as WAV)")
    with open(path, "rb") as file:
        unfilled = _look(file)
    # As bytes, because a file name need not be UTF-8.
    source = os.fsencode(path) if os.name == "posix" else path
    with _Reader(source if unfilled is None else _Streamed(path, unfilled)) as file:
        rate, channels, promised = file.samplerate, file.channels, file.frames
        if file.format == "RAW":  # libsndfile guessed it from the ending, for lack of a header
            raise ValueError("cannot be read as audio (it has no header)")
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"its sample rate is {rate} Hz; valid are {RATES[0]} to {RATES[1]} Hz")
        if file.format == "MP3" and _count_mp3(path) > promised + _MP3_SLACK:
            raise ValueError("its length is not in its header, which a variable bit rate requires")
        part = _Loudest(max_seconds * rate)
        count, low, high = 0, np.inf, -np.inf
        for block in _blocks(file):
            count += len(block)
            if channels > 1:
                low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
            part.add(block.mean(axis=1) if channels > 1 else block[:, 0])
    if count < promised < _UNKNOWN:
        raise ValueError(f"truncated, it ends after {count} of {promised} samples")
    if not count:
        raise ValueError("empty, it contains no samples")
    if count < MIN_SECONDS * rate:
        raise ValueError(f"too short, {1000 * count / rate:.3g} ms of at least {1000 * MIN_SECONDS:g} ms")
    samples = part.samples()
    if channels > 1 and np.ptp(samples) <= _SILENCE < np.max(high - low):
        raise ValueError(f"silent when mixed to mono: its {channels} channels cancel out")
    return samples, rate


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """A file's decoded audio in blocks float32 [frames, channels] of at most 2^20 values."""
    size = min(_BLOCK // file.channels, file.frames + 1)  # one more, so that the last block is short
    count = 0
    while True:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise ValueError(
                f"truncated or damaged, it cannot be read to its end ({_reason(error)})"
            ) from error
        if block.size and not np.abs(block).max() < _BEYOND:
            raise ValueError("contains values that are not finite numbers, or are impossibly large")
        count += block.size
        if count > _MOST:
            seconds = _MOST / file.channels / file.samplerate
            raise ValueError(f"too long, at most {seconds:.0f} s can be read; cut it")
        if len(block):
            yield block
        if len(block) < size:
            return


def _reason(error: soundfile.SoundFileError) -> str:
    """libsndfile's message without the file name in front."""
    reason = printable(str(error).rpartition(": ")[2])
    if not reason or reason.startswith("File does not exist"):  # its message for an MP3 without a whole frame
        return "libsndfile finds none in it"
    return reason


class _Loudest:
    """Find the `length` successive samples with the most energy in a stream of blocks (or all, if fewer)."""

    def __init__(self, length: float):
        self.length = max(round(min(length, _MOST)), 1)
        self.blocks: list[np.ndarray] = []
        self.held = 0  # samples in `blocks`
        self.best, self.most = np.zeros(0, np.float32), -1.0

    def add(self, block: np.ndarray) -> None:
        self.blocks.append(block)
        self.held += len(block)
        if self.held > 2 * self.length + _BLOCK:
            self._search()

    def samples(self) -> np.ndarray:
        if self.most < 0 and self.held <= self.length:
            return self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks)
        self._search()
        return self.best

    def _search(self) -> None:
        """Search the held samples, and keep those that a part ending in the next block can begin with."""
        samples = np.concatenate(self.blocks)
        energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
        energies = energy[self.length :] - energy[: -self.length]
        start = int(np.argmax(energies))
        if energies[start] > self.most:
            self.best, self.most = samples[start : start + self.length].copy(), energies[start]
        self.blocks, self.held = [samples[-self.length :].copy()], self.length


def _look(file: BinaryIO) -> int | None:
    """Refuse a container that is truncated or whose header promises more audio than it holds.

    Returns:
        The position of a WAV file's audio size if it was never filled in, else None.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(12)
    kind = head[:4]
    if kind == b"OggS":
        _look_at_pages(file, size)
        return None
    if kind in (b".snd", b"dns.") and len(head) == 12:
        start, promised = struct.unpack(">II" if kind == b".snd" else "<II", head[4:])
    elif kind == b"NIST":
        start, promised = _find_in_sphere(file)
    elif kind in _CONTAINERS:
        start, promised = _find(file, size, *_CONTAINERS[kind]) or (size, 0)
    else:
        return None
    if kind in (b"RIFF", b"RIFX") and promised == 0:
        file.seek(start)
        following = file.read(4)  # if there is no audio, the next chunk's name, which is ASCII
        return start - 4 if len(following) == 4 and not re.fullmatch(rb"[ -~]{4}", following) else None
    if promised > size - start and not (promised >= _STREAMED and kind in _SIZES_32):
        raise ValueError(f"truncated, its header promises {promised} bytes, it has {max(size - start, 0)}")
    return None


def _find(file: BinaryIO, size: int, position: int, layout: str, align: int) -> tuple[int, int] | None:
    """Where the audio of a chunked container begins, and its size in bytes according to the header."""
    length = struct.calcsize(layout)
    wide = None
    for _ in range(_CHUNKS):
        file.seek(position)
        header = file.read(length)
        if len(header) < length:
            break
        name, promised = struct.unpack(layout, header)
        start = position + length
        if len(name) == 16:  # Wave64's sizes include the header
            promised -= length
        if name[:4] in (b"data", b"SSND", b"BODY"):
            return start, promised if wide is None else wide
        if promised < 0:
            break
        if promised > size - start:  # the file ends before its audio
            return start, promised
        if name == b"ds64":  # RF64's 64-bit sizes, of the file and of the audio
            wide = int.from_bytes(file.read(16)[8:], "little")
        position = start + promised + -promised % align
    return None


def _find_in_sphere(file: BinaryIO) -> tuple[int, int]:
    """Like `_find`, for a NIST SPHERE file, whose header is text."""
    file.seek(0)
    header = file.read(1024)
    start = re.match(rb"NIST_1A\n +(\d{1,6})\n", header)
    numbers = dict(re.findall(rb"^(\w+) -i (\d{1,9})$", header, re.MULTILINE))
    factors = [int(numbers.get(key, 0)) for key in (b"sample_count", b"sample_n_bytes", b"channel_count")]
    return int(start[1]) if start else 0, math.prod(factors)


def _look_at_pages(file: BinaryIO, size: int) -> None:
    """Refuse an Ogg file whose last page is incomplete, or not marked as the last."""
    file.seek(max(0, size - 2 * _OGG_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 + len(segments) + sum(segments) or not (segments and page[5] & 4):
        raise ValueError("truncated, its last page is missing")


def _count_mp3(path: str) -> int:
    """Number of samples in an MP3 file, from its frame headers.

    Without a Xing header, libsndfile guesses the length from the first frame, and reads no further.
    """
    samples = 0
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            file.seek(
                10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
            )
        else:
            file.seek(0)
        while len(head := file.read(4)) == 4 and head[0] == 255 and head[1] & 0xE6 == 0xE2:
            version, kbits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
            if version == 1 or kbits in (0, 15) or rate == 3:
                break
            part = 576 * (2 if version == 3 else 1)
            bits = 1000 * _MP3_KBITS[version][kbits - 1]
            samples += part
            file.seek(part // 8 * bits // _MP3_RATES[version][rate] + (head[2] >> 1 & 1) - 4, os.SEEK_CUR)
    return samples
