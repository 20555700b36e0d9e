"""Words in a stream of sound: a microphone, and a gate that opens for what is louder than the background."""

import queue
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import soxr
from scipy.signal import butter, sosfilt, sosfilt_zi

# Levels are powers of frames of 10 ms, and ratios of them.
_FRAMES = 100  # a second
_HIGHPASS = 150  # Hz: below are hum, wind and rumble, and the offset of a sound card
_OPEN, _CLOSE = 10**0.7, 10**0.4  # 7 and 4 dB above the floor
_QUIET = 10**-5.5  # the floor that is expected (-55 dB of full scale) before one is known
_LOWEST = 10**-7.0  # no floor is lower (-70 dB)
_SHORT, _LONG = 3, 10  # frames over which the level and the floor are averaged
_MEMORY = 150  # frames in which the floor is looked for: longer than a word
_KNOWN = 30  # frames after which it is known
_HANGOVER = 25  # quiet frames that end a word: longer than the pause before the t of "eight"
_BEFORE, _AFTER = 12, 8  # frames that are kept before the gate opens, as an f or th is weak, and at the end
_SHORTEST, _LONGEST = 6, 250  # frames above the threshold for a word, and frames after which one is cut


class Segment(NamedTuple):
    """What may be a word: where it starts in the stream, in seconds, and its float32 samples."""

    start: float
    samples: np.ndarray


class Gate:
    """A voice-activity gate: one segment for each word in a stream of samples.

    The level p[n] is the power above 150 Hz of frames of 10 ms, averaged over 30 ms. The floor is

        f[n] = min over 1.5 s of the power averaged over 100 ms, and at least -70 dB of full scale

    A segment begins 120 ms before p > f + 7 dB and ends 80 ms after the last p > f + 4 dB, once 250 ms passed
    without one, or after 2.5 s. It is given only if it was above f + 7 dB for 60 ms or longer, and once above
    the f of its end: noise that has set in is part of the floor by then. Segments do not overlap.

    sample_rate: Hz, of what `feed` is given.

    >>> gate = Gate(sample_rate=8000)
    >>> list(gate.feed(np.zeros(8000, np.float32)))  # a second of silence
    []
    """

    def __init__(self, sample_rate: int = 8000) -> None:
        if sample_rate < 1000:
            raise ValueError(f"sample_rate={sample_rate}: must be 1000 Hz or more")
        self.sample_rate = sample_rate
        self._length = sample_rate // _FRAMES
        self._filter = butter(2, _HIGHPASS, "highpass", fs=sample_rate, output="sos")
        self._state: np.ndarray | None = None
        self._kept = np.zeros(0, dtype=np.float32)  # samples from frame `_first` on
        self._rest = np.zeros(0)  # filtered samples that do not fill a frame yet
        self._first = self._next = 0  # frames: the first that is kept, and the next to be looked at
        self._powers: deque[float] = deque(maxlen=_LONG)
        self._floors: deque[float] = deque(maxlen=_MEMORY)
        self._free = 0  # the frame from which on nothing belongs to a segment yet
        self._opened: int | None = None

    def feed(self, samples: np.ndarray) -> list[Segment]:
        """The segments that these further samples complete: float in [-1, 1], or int16."""
        samples = np.asarray(samples)
        if samples.dtype == np.int16:
            samples = samples / np.float32(32768)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise ValueError(
                f"samples {samples.dtype} {list(samples.shape)}: must be float or int16 [samples]"
            )
        if not len(samples):
            return []
        self._kept = np.concatenate([self._kept, samples.astype(np.float32)])
        if self._state is None:
            self._state = sosfilt_zi(self._filter) * samples[0]
        filtered, self._state = sosfilt(self._filter, samples.astype(np.float64), zi=self._state)
        filtered = np.concatenate([self._rest, filtered])
        whole = len(filtered) // self._length * self._length
        self._rest = filtered[whole:]
        found = []
        for power in (filtered[:whole].reshape(-1, self._length) ** 2).mean(axis=1).tolist():
            found += self._step(power)
            self._next += 1
        keep = (self._next if self._opened is None else self._opened) - _BEFORE
        if keep > self._first:
            self._kept = self._kept[(keep - self._first) * self._length :]
            self._first = keep
        return found

    def flush(self) -> list[Segment]:
        """The segment that the end of the stream completes, if there is one."""
        return [] if self._opened is None else self._end()

    def _step(self, power: float) -> list[Segment]:
        self._powers.append(power)
        recent = list(self._powers)
        level = sum(recent[-_SHORT:]) / min(len(recent), _SHORT)
        self._floors.append(sum(recent) / len(recent))
        self._floor = max(min(self._floors), _LOWEST)
        if len(self._floors) < _KNOWN:
            self._floor = min(self._floor, _QUIET)
        if self._opened is None:
            if level <= _OPEN * self._floor:
                return []
            self._opened, self._peak, self._above = self._next, 0.0, 0
        if level > _CLOSE * self._floor:
            self._last = self._next
        self._above += level > _OPEN * self._floor
        self._peak = max(self._peak, level)
        if self._next - self._last >= _HANGOVER or self._next - self._opened >= _LONGEST:
            return self._end()
        return []

    def _end(self) -> list[Segment]:
        start, end = max(self._opened - _BEFORE, self._free, self._first), self._last + 1 + _AFTER
        self._opened = None
        if self._above < _SHORTEST or self._peak <= _OPEN * self._floor:
            return []
        part = slice((start - self._first) * self._length, (end - self._first) * self._length)
        self._free = end
        return [Segment(start * self._length / self.sample_rate, self._kept[part].copy())]


@contextmanager
def microphone(sample_rate: int = 8000, device: int | str | None = None) -> Iterator[Iterator[np.ndarray]]:
    """Record: an iterator without end over float32 [samples], mono, at `sample_rate` Hz.

    device: a number or a part of a name, as `python -m sounddevice` lists them; the system's own by default.

    Raises ModuleNotFoundError where the extra [listen] is not installed, and OSError, with what to do, where
    PortAudio is missing, or there is no such microphone, or it cannot be opened.
    """
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the microphone needs {error.name}, which is missing: pip install 'scnn-audio[listen]'; "
            "or listen to a recording with --file",
            name=error.name,
        ) from error
    except OSError as error:  # on Linux the wheel does not hold PortAudio
        raise OSError(
            f"the microphone needs PortAudio ({error}): install it (Debian and Ubuntu: apt install "
            "libportaudio2); or listen to a recording with --file"
        ) from error
    heard: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    try:
        # Few devices record at 8 kHz, so each records at its own rate.
        rate = sounddevice.query_devices(device, "input")["default_samplerate"]
        stream = sounddevice.InputStream(
            samplerate=rate,
            device=device,
            channels=1,
            dtype="float32",
            callback=lambda samples, *_: heard.put(samples[:, 0].copy()),
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise OSError(
            f"no microphone{'' if device is None else f' {device!r}'} can be opened ({error}); "
            "`python -m sounddevice` lists the devices; or listen to a recording with --file"
        ) from error
    resample = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ").resample_chunk
    with stream:
        yield (resample(heard.get()) for _ in iter(int, 1))
