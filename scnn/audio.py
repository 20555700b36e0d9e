"""One recording: from a file in any format that libsndfile reads to a waveform.

What a file promises is not believed: it is read block by block up to a limit, and one that ends before its
audio does is refused.
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
MIN_SECONDS = 0.025  # the shortest that is taken: one frame of speech
RATES = (1000, 768_000)  # Hz, the lowest and the highest

_OTHER_ENDINGS = {  # beside the format's own name
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
    if kind != "RAW"  # which says neither rate nor channels
    for ending in (kind.lower(), *_OTHER_ENDINGS.get(kind, ()))
)

_BLOCK = 2**20  # values that are decoded at a time
_MOST = 2**25  # values that are decoded of one file: six minutes of stereo at 48 kHz, an hour at 8 kHz
_BEYOND = 2.0**40  # no sample is there, whatever scale a file of floats uses
_UNKNOWN = 2**62  # from here on a number of frames stands for one that is not known
_SILENCE = 2.0**-15  # one step of a 16-bit recording
_CHUNKS = 1000  # looked at for the one that holds the audio
_STREAMED = 0x7F000000  # a 32-bit size from here on stands for one that was not known while writing
_SIZES_32 = (b"RIFF", b"RIFX", b"FORM", b".snd", b"dns.")
_CONTAINERS = {  # where the first chunk begins, its name and size, and to what the next one is aligned
    b"RIFF": (12, "<4sI", 2),
    b"RIFX": (12, ">4sI", 2),
    b"RF64": (12, "<4sI", 2),
    b"FORM": (12, ">4sI", 2),
    b"caff": (8, ">4sq", 1),
    b"riff": (40, "<16sq", 8),
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version
_MP3_KBITS = {3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
_MP3_KBITS[2] = _MP3_KBITS[0] = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_SLACK = 8192  # samples that a decoder takes off the ends, at most
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the longest one


def read_audio(path: str | Path, sample_rate: int = 8000, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Read one recording as float32 `[samples]`, mono, at `sample_rate` Hz.

    - more than one channel: mixed down to their mean;
    - another sample rate: resampled (soxr, through librosa);
    - longer than `max_seconds`: cropped to the loudest part of that length, the one with most energy;
    - louder than full scale, as resampling and float files can be: scaled back to a peak of 1.

    A file is read to its end where its header leaves its length open, as that of a stream does.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: naming the file, where it cannot be read as audio, ends before its audio does, is empty
            (no samples), shorter than 25 ms, longer than 2^25 samples of all channels, silent (nothing beyond
            a constant of the least 16-bit step), or holds values that are not finite.
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
            raise ValueError("silent, it holds no signal")
    except soundfile.SoundFileError as error:
        raise ValueError(f"{printable(file)}: cannot be read as audio ({_reason(error)})") from error
    except ValueError as error:
        raise ValueError(f"{printable(file)}: {error}") from error
    peak = np.abs(samples).max()
    return samples / peak if peak > 1 else samples


def fit(samples: np.ndarray, rate: int, sample_rate: int, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Samples at `rate` Hz cropped to their loudest `max_seconds` and resampled, as `read_audio` does it.

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
    """Reads on and on, without a seek after each block: at the end of a stream of unknown length it fails."""

    def seekable(self) -> bool:
        return False


class _Streamed(io.FileIO):
    """A WAV file whose size of the audio, four bytes at `position`, was never filled in: read as unknown."""

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
    """The samples of a file, mono and cropped to their loudest part, and their rate."""
    if path.lower().endswith(".raw"):
        raise ValueError("cannot be read as audio (no header says its rate and channels; save it as WAV)")
    with open(path, "rb") as file:
        unfilled = _look(file)
    # As bytes: a name need not be UTF-8.
    source = os.fsencode(path) if os.name == "posix" else path
    with _Reader(source if unfilled is None else _Streamed(path, unfilled)) as file:
        rate, channels, promised = file.samplerate, file.channels, file.frames
        if file.format == "RAW":  # what libsndfile makes of the ending where there is no header
            raise ValueError("cannot be read as audio (it has no header)")
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"its sample rate is {rate} Hz; valid are {RATES[0]} to {RATES[1]} Hz")
        if file.format == "MP3" and _count_mp3(path) > promised + _MP3_SLACK:
            raise ValueError("its length is not in its header, which is needed where the bit rate varies")
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
        raise ValueError("empty, it holds no samples")
    if count < MIN_SECONDS * rate:
        raise ValueError(f"too short with {1000 * count / rate:.3g} ms, it needs {1000 * MIN_SECONDS:g}")
    samples = part.samples()
    if channels > 1 and np.ptp(samples) <= _SILENCE < np.max(high - low):
        raise ValueError(f"silent once it is mixed to mono: its {channels} channels cancel")
    return samples, rate


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """All that a file decodes to, float32 [frames, channels] with at most a million values at a time."""
    size = min(_BLOCK // file.channels, file.frames + 1)  # one more, so that a block is short at the end
    count = 0
    while True:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise ValueError(
                f"truncated or damaged, it cannot be read to its end ({_reason(error)})"
            ) from error
        if block.size and not np.abs(block).max() < _BEYOND:
            raise ValueError("holds values that are not finite numbers, or far beyond any scale")
        count += block.size
        if count > _MOST:
            seconds = _MOST / file.channels / file.samplerate
            raise ValueError(f"too long, only its first {seconds:.0f} s would be read; cut it")
        if len(block):
            yield block
        if len(block) < size:
            return


def _reason(error: soundfile.SoundFileError) -> str:
    """What libsndfile says, without the file's name before it."""
    reason = printable(str(error).rpartition(": ")[2])
    if not reason or reason.startswith("File does not exist"):  # said of an MP3 without a whole frame
        return "libsndfile finds none in it"
    return reason


class _Loudest:
    """Of samples that come in blocks, the `length` successive ones with most energy, or all if fewer."""

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
        """Search what is held, and go on holding what a part that ends in the next block can begin with."""
        samples = np.concatenate(self.blocks)
        energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
        energies = energy[self.length :] - energy[: -self.length]
        start = int(np.argmax(energies))
        if energies[start] > self.most:
            self.best, self.most = samples[start : start + self.length].copy(), energies[start]
        self.blocks, self.held = [samples[-self.length :].copy()], self.length


def _look(file: BinaryIO) -> int | None:
    """Refuse a container that promises more audio than it holds, or breaks off.

    Returns:
        Where the size of a WAV file's audio stands, if it was never filled in.
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
        following = file.read(4)  # the name of a chunk where there is no audio, which is ASCII
        return start - 4 if len(following) == 4 and not re.fullmatch(rb"[ -~]{4}", following) else None
    if promised > size - start and not (promised >= _STREAMED and kind in _SIZES_32):
        raise ValueError(f"truncated, it promises {promised} bytes where {max(size - start, 0)} are left")
    return None


def _find(file: BinaryIO, size: int, position: int, layout: str, align: int) -> tuple[int, int] | None:
    """Where the audio of a container of chunks begins, and how many bytes of it are promised."""
    length = struct.calcsize(layout)
    wide = None
    for _ in range(_CHUNKS):
        file.seek(position)
        header = file.read(length)
        if len(header) < length:
            break
        name, promised = struct.unpack(layout, header)
        start = position + length
        if len(name) == 16:  # Wave64 counts the header in
            promised -= length
        if name[:4] in (b"data", b"SSND", b"BODY"):
            return start, promised if wide is None else wide
        if promised < 0:
            break
        if promised > size - start:  # it ends before its audio
            return start, promised
        if name == b"ds64":  # the sizes of RF64, of the whole and of the audio
            wide = int.from_bytes(file.read(16)[8:], "little")
        position = start + promised + -promised % align
    return None


def _find_in_sphere(file: BinaryIO) -> tuple[int, int]:
    """The same of a NIST file, whose header is text."""
    file.seek(0)
    header = file.read(1024)
    start = re.match(rb"NIST_1A\n +(\d{1,6})\n", header)
    numbers = dict(re.findall(rb"^(\w+) -i (\d{1,9})$", header, re.MULTILINE))
    factors = [int(numbers.get(key, 0)) for key in (b"sample_count", b"sample_n_bytes", b"channel_count")]
    return int(start[1]) if start else 0, math.prod(factors)


def _look_at_pages(file: BinaryIO, size: int) -> None:
    """Refuse an Ogg file whose last page is not whole, or not marked as the last."""
    file.seek(max(0, size - 2 * _OGG_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 + len(segments) + sum(segments) or not (segments and page[5] & 4):
        raise ValueError("truncated, its last page is missing")


def _count_mp3(path: str) -> int:
    """How many samples the frames of an MP3 file hold, by their headers.

    libsndfile reads no further than to a length which it guesses from the first frame without a Xing header.
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
