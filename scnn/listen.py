"""Find words in a stream of sound: a microphone, and a gate that opens above the background level."""

import math
import queue
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import soxr

from scnn.deploy.frontend import pcm

# A frame is 10 ms. Levels are integer sums of energies, so they are the same on every machine.
FRAMES = 100  # per second
HIGHPASS = 150  # Hz: removes hum, wind, rumble, and the offset of a sound card
COEFFICIENT, FRACTION = 22, 10  # fractional bits of the filter's coefficients and of its samples
OPEN, CLOSE = 6, 3  # quarters of the floor: as it sums ten frames and a level three, 7 and 4 dB above it
QUIET = 10**-5.5  # highest floor (-55 dB of full scale) assumed until it is known
LOWEST = 10**-7.0  # lowest floor (-70 dB of full scale)
SHORT, LONG = 3, 10  # frames summed for the level and for the floor
MEMORY = 15  # tens of frames searched for the floor: longer than a word
KNOWN = 30  # frames until the floor is known
HANGOVER = 25  # quiet frames that end a word: longer than the pause before the t of "eight"
BEFORE, AFTER = 12, 8  # frames kept before the gate opens (an f or th is weak) and after the last loud one
SHORTEST, LONGEST = 6, 250  # fewest loud frames of a word, and frames after which a segment is cut


class Segment(NamedTuple):
    """A possible word: its start in the stream, in seconds, and its float32 samples."""

    start: float
    samples: np.ndarray


class Gate:
    """A voice-activity gate: one segment for each word in a stream of samples.

    It computes with int16 samples x in integer arithmetic; `>>` rounds down. A second-order high-pass gives::

        y[n] = D - (g D >> 22) + 2 y[n-1] - (e y[n-1] >> 22) - y[n-2] + (h y[n-2] >> 22)
        where D = (x[n] - 2 x[n-1] + x[n-2]) << 10

    The energy of a 10 ms frame is the sum of `(y >> 10)^2`. The level p is the energy of the last 3 frames,
    and the noise floor is::

        f = min over 1.5 s of the energy of 10 frames, and at least -70 dB of full scale

    A segment begins 120 ms before 4 p > 6 f (7 dB). It ends 80 ms after the last frame with 4 p > 3 f (4 dB),
    as soon as 250 ms have passed without one, or after `longest` frames (2.5 s). It is returned only if it
    was above 6 f for 60 ms or longer, and if its highest level is also above the 6 f at its end, when the
    floor includes any noise that has started. Segments do not overlap.

    Args:
        sample_rate: Hz, of the samples passed to `feed`.
        longest: frames after which a segment is cut.

    Raises:
        ValueError: the sample rate is below 1000 Hz, or `longest` is too short for a word.

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
        full = 2**30 * LONG * self.length  # energy of ten full-scale frames
        self.quiet, self.lowest = round(QUIET * full), round(LOWEST * full)
        self._kept = np.zeros(0, dtype=np.float32)  # samples from frame `_first` on
        self._state: tuple[int, int, int, int] | None = None  # the last two x and y
        self._energy = self._filled = 0  # of the incomplete frame: its energy and number of samples
        self._first = self._next = 0  # frame indices: the first one kept, and the next to process
        self._energies: deque[int] = deque(maxlen=LONG)
        self._floors: deque[int] = deque(maxlen=MEMORY)
        self._free = 0  # first frame after the last segment
        self._opened: int | None = None

    def feed(self, samples: np.ndarray) -> list[Segment]:
        """Process more samples (float in [-1, 1], or int16); the segments that they complete."""
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
        segments, values, begin = [], whole.tolist(), 0
        while begin < len(values):
            end = begin + self.length - self._filled
            self._hear(values[begin:end])
            begin = end
            if self._filled == self.length:
                segments += self._step()
                self._next += 1
                self._energy = self._filled = 0
        keep = (self._next if self._opened is None else self._opened) - BEFORE
        if keep > self._first:
            self._kept = self._kept[(keep - self._first) * self.length :]
            self._first = keep
        return segments

    def flush(self) -> list[Segment]:
        """End the stream; the segment that this completes, if any."""
        return [] if self._opened is None else self._end(self._opened, self._next)

    def _hear(self, samples: list[int]) -> None:
        """Add the samples' energy above 150 Hz to that of the current frame."""
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
        """Close the gate after `heard` frames; the segment that began at frame `opened`, if it is a word."""
        start, end = max(opened - BEFORE, self._free, 0), min(self._last + 1 + AFTER, heard)
        self._opened = None
        if self._above < SHORTEST or 4 * self._peak <= OPEN * self._floor:
            return []
        part = slice((start - self._first) * self.length, (end - self._first) * self.length)
        self._free = end
        return [Segment(start * self.length / self.sample_rate, self._kept[part].copy())]


def _highpass(sample_rate: int) -> tuple[int, int, int]:
    """Integer coefficients of the Butterworth high-pass b (1 - 2/z + 1/z^2) / (1 + a/z + c/z^2).

    They are the small differences g = 1 - b, e = 2 + a and h = 1 - c, which fixed point keeps more precisely.
    """
    k = math.tan(math.pi * HIGHPASS / sample_rate)
    b = 1 / (1 + math.sqrt(2) * k + k * k)
    differences = 1 - b, 2 - 2 * (1 - k * k) * b, 2 * math.sqrt(2) * k * b
    g, e, h = (round(value * 2**COEFFICIENT) for value in differences)
    return g, e, h


@contextmanager
def microphone(sample_rate: int = 8000, device: int | str | None = None) -> Iterator[Iterator[np.ndarray]]:
    """Record from a microphone: an endless iterator over blocks float32 [samples], mono, at `sample_rate` Hz.

    Args:
        sample_rate: Hz.
        device: number or part of the name, as `python -m sounddevice` lists them; the system's default
            microphone if None.

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
    except OSError as error:  # the Linux wheel does not include PortAudio
        raise OSError(
            f"the microphone needs PortAudio ({error}): install it (Debian and Ubuntu: apt install "
            "libportaudio2); or listen to a recording with --file"
        ) from error
    heard: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    try:
        # Few devices record at 8 kHz, so record at the device's own rate.
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
