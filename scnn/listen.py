"""Words in a stream of sound: a microphone, and a gate that opens for what is louder than the background."""

import math
import queue
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import soxr

from scnn.deploy.frontend import pcm

# Frames are of 10 ms. Levels are sums of energies in whole numbers, the same ones on every machine.
FRAMES = 100  # a second
HIGHPASS = 150  # Hz: below are hum, wind and rumble, and the offset of a sound card
COEFFICIENT, FRACTION = 22, 10  # bits behind the point: of the filter's factors and samples
OPEN, CLOSE = 6, 3  # in 1/4 floors, of ten frames where a level is of three: 7 and 4 dB above the floor
QUIET = 10**-5.5  # the floor that is expected (-55 dB of full scale) before one is known
LOWEST = 10**-7.0  # no floor is lower (-70 dB)
SHORT, LONG = 3, 10  # frames over which the level and the floor are summed
MEMORY = 15  # tens of frames in which the floor is looked for: longer than a word
KNOWN = 30  # frames after which it is known
HANGOVER = 25  # quiet frames that end a word: longer than the pause before the t of "eight"
BEFORE, AFTER = 12, 8  # frames that are kept before the gate opens, as an f or th is weak, and at the end
SHORTEST, LONGEST = 6, 250  # frames above the threshold for a word, and frames after which one is cut


class Segment(NamedTuple):
    """What may be a word: where it starts in the stream, in seconds, and its float32 samples."""

    start: float
    samples: np.ndarray


class Gate:
    """A voice-activity gate: one segment for each word in a stream of samples.

    It hears int16 samples x, in whole numbers alone; `>>` rounds down. A high-pass of second order leaves::

        y[n] = D - (g D >> 22) + 2 y[n-1] - (e y[n-1] >> 22) - y[n-2] + (h y[n-2] >> 22)
        where D = (x[n] - 2 x[n-1] + x[n-2]) << 10

    The energy of a frame of 10 ms is the sum of `(y >> 10)^2`. The level p is that of the last 3 frames, and
    the floor is::

        f = min over 1.5 s of the energy of 10 frames, and at least -70 dB of full scale

    A segment begins 120 ms before 4 p > 6 f (7 dB) and ends 80 ms after the last 4 p > 3 f (4 dB), once
    250 ms passed without one, or after `longest`, 2.5 s. It is given only if it was above 6 f for 60 ms or
    longer, and once above the 6 f of its end: noise that has set in is part of it by then. Segments do not
    overlap.

    Args:
        sample_rate: Hz, of what `feed` is given.
        longest: frames after which a segment is cut.

    Raises:
        ValueError: the rate is below 1000 Hz, or segments would be shorter than a word.

    >>> gate = Gate(sample_rate=8000)
    >>> list(gate.feed(np.zeros(8000, np.float32)))  # a second of silence
    []
    """

    def __init__(self, sample_rate: int = 8000, longest: int = LONGEST) -> None:
        if sample_rate < 1000:
            raise ValueError(f"sample_rate={sample_rate}: must be 1000 Hz or more")
        if longest < HANGOVER + SHORTEST:
            raise ValueError(f"longest={longest}: must be {HANGOVER + SHORTEST} frames or more")
        self.sample_rate, self.longest = sample_rate, longest
        self.length = sample_rate // FRAMES
        self.coefficients = _highpass(sample_rate)
        full = 2**30 * LONG * self.length  # the energy of ten frames of full scale
        self.quiet, self.lowest = round(QUIET * full), round(LOWEST * full)
        self._kept = np.zeros(0, dtype=np.float32)  # samples from frame `_first` on
        self._state: tuple[int, int, int, int] | None = None  # two x and y
        self._energy = self._filled = 0  # of the frame that is not complete yet, and its samples
        self._first = self._next = 0  # frames: the first that is kept, and the next to be looked at
        self._energies: deque[int] = deque(maxlen=LONG)
        self._floors: deque[int] = deque(maxlen=MEMORY)
        self._free = 0  # the frame from which on nothing belongs to a segment yet
        self._opened: int | None = None

    def feed(self, samples: np.ndarray) -> list[Segment]:
        """The segments that these further samples complete: float in [-1, 1], or int16."""
        samples = np.asarray(samples)
        whole = samples
        if samples.dtype == np.int16:
            samples = samples / np.float32(32768)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise ValueError(
                f"samples {samples.dtype} {list(samples.shape)}: must be float or int16 [samples]"
            )
        if whole.dtype != np.int16:
            whole = pcm(samples)
        self._kept = np.concatenate([self._kept, samples.astype(np.float32)])
        found, heard, begin = [], whole.tolist(), 0
        while begin < len(heard):
            end = begin + self.length - self._filled
            self._hear(heard[begin:end])
            begin = end
            if self._filled == self.length:
                found += self._step()
                self._next += 1
                self._energy = self._filled = 0
        keep = (self._next if self._opened is None else self._opened) - BEFORE
        if keep > self._first:
            self._kept = self._kept[(keep - self._first) * self.length :]
            self._first = keep
        return found

    def flush(self) -> list[Segment]:
        """The segment that the end of the stream completes, if there is one."""
        return [] if self._opened is None else self._end(self._opened, self._next)

    def _hear(self, samples: list[int]) -> None:
        """Add the energy of samples above 150 Hz to that of the frame."""
        x1, x2, y1, y2 = self._state or (samples[0], samples[0], 0, 0)
        g, e, h = self.coefficients
        for x in samples:
            d = (x - 2 * x1 + x2) << FRACTION
            lost = (g * d >> COEFFICIENT) + (e * y1 >> COEFFICIENT) - (h * y2 >> COEFFICIENT)
            y1, y2 = d + 2 * y1 - y2 - lost, y1
            x1, x2 = x, x1
            self._energy += (y1 >> FRACTION) ** 2
        self._state = x1, x2, y1, y2
        self._filled += len(samples)

    def _step(self) -> list[Segment]:
        self._energies.extend([self._energy] * (1 if self._energies else LONG))
        level, floor = sum(list(self._energies)[-SHORT:]), sum(self._energies)
        if self._next % LONG == 0:
            self._floors.append(floor)
        self._floors[-1] = min(self._floors[-1], floor)
        self._floor = max(min(self._floors), self.lowest)
        if self._next < KNOWN:
            self._floor = min(self._floor, self.quiet)
        if self._opened is None:
            if 4 * level <= OPEN * self._floor:
                return []
            self._opened, self._peak, self._above = self._next, 0, 0
        if 4 * level > CLOSE * self._floor:
            self._last = self._next
        self._above += 4 * level > OPEN * self._floor
        self._peak = max(self._peak, level)
        if self._next - self._last >= HANGOVER or self._next - self._opened >= self.longest:
            return self._end(self._opened, self._next + 1)
        return []

    def _end(self, opened: int, heard: int) -> list[Segment]:
        """The segment that `opened` there, if it is one, when so many frames have been heard."""
        start, end = max(opened - BEFORE, self._free, 0), min(self._last + 1 + AFTER, heard)
        self._opened = None
        if self._above < SHORTEST or 4 * self._peak <= OPEN * self._floor:
            return []
        part = slice((start - self._first) * self.length, (end - self._first) * self.length)
        self._free = end
        return [Segment(start * self.length / self.sample_rate, self._kept[part].copy())]


def _highpass(sample_rate: int) -> tuple[int, int, int]:
    """What Butterworth's filter b (1 - 2/z + 1/z^2) / (1 + a/z + c/z^2) lacks to b = 1, a = -2 and c = 1."""
    k = math.tan(math.pi * HIGHPASS / sample_rate)
    b = 1 / (1 + math.sqrt(2) * k + k * k)
    lacking = 1 - b, 2 - 2 * (1 - k * k) * b, 2 * math.sqrt(2) * k * b
    g, e, h = (round(value * 2**COEFFICIENT) for value in lacking)
    return g, e, h


@contextmanager
def microphone(sample_rate: int = 8000, device: int | str | None = None) -> Iterator[Iterator[np.ndarray]]:
    """Record: an iterator without end over float32 [samples], mono, at `sample_rate` Hz.

    Args:
        sample_rate: Hz.
        device: a number or a part of a name, as `python -m sounddevice` lists them; the system's own by
            default.

    Raises:
        ModuleNotFoundError: the extra [listen] is not installed.
        OSError: PortAudio is missing, there is no such microphone, or it cannot be opened; the message says
            what to do.
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
