"""The log-mel image in fixed point: int16 samples in, int16 pixels out, the same bits on every machine.

The steps are those of `scnn.features`: pre-emphasis, trim, frames centred on every hop-th sample, Hann
window, spectrum, mel bands, level, 80 dB of range, normalisation. All arithmetic below is on integers, `>>`
rounds down, and no value leaves the range of its type in the C::

    sample    y[n] = (x[n] << 13) - emphasis x[n-1]                 int32, below 2^29
    energy    sum of (y[n] >> 6)^2, for trimming and cropping       uint64, below 2^62
    frame     y[n] window[n] >> 16                                  int32, below 2^28
    spectrum  an FFT of half the frame, halved at every stage       int32, below 2^30
    power     re^2 + im^2                                           uint64, below 2^60
    band      sum of weight (power >> exponent)                     uint64, below 2^58
    level     1024 log2(band), 0 at the features' floor of 1e-10    uint16
    pixel     256 (level - mean) / deviation                        int16
              or 8192 (level - correction of its band - peak + range) / range, at least 0

The second form of a pixel is for normalization="peak". It has no outliers, so its unit can be finer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scnn import features as float_features
from scnn.features import Features

UNIT, PEAK_UNIT = 256, 4096  # the integer for a pixel of 1, in general and for "peak"
OCTAVE = 1024  # the increase of a level when the power doubles
RANGE = round(float_features._RANGE_DB * math.log2(10) / 10 * OCTAVE)
LOG_STEPS = 32  # segments in the logarithm's table
EMPHASIS = 1 << 13
TRIM = 1 << 21
LARGEST = 16_000  # pixels of data: with more, an outlier could overflow int16
LARGEST_FRAME = 2048
LARGEST_CROP = 2**16  # samples in all frames shown: keeps their energy below 2^62
QUIETER = 6  # bits dropped from a sample before squaring it
PEAK_SHIFT = 17


def _table(values: np.ndarray, unit: int, dtype: type) -> np.ndarray:
    """`values` in -1..1 times `unit`, rounded, and clipped to the range of `dtype`."""
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values * unit), limits.min, limits.max).astype(dtype)


def pcm(waveform: np.ndarray) -> np.ndarray:
    """Convert a waveform, float in -1..1 [n], to int16 samples [n]; 1.0 becomes 32767."""
    return np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)


@dataclass(frozen=True)
class FrontEnd:
    """The integer front end for `features` at a sample rate.

    Attributes:
        features: how images are computed.
        sample_rate: Hz.
        constants: mean and standard deviation, for the normalisation "train".

    Raises:
        ValueError: a field of the features has no integer form; the message names it.
    """

    features: Features
    sample_rate: int = 8000
    constants: tuple[float, float] | None = None

    def __post_init__(self):
        f = self.features
        if f.kind != "logmel":
            raise ValueError(f"features kind={f.kind!r}: only 'logmel' has an integer front end")
        if f.frame & (f.frame - 1) or not 16 <= f.frame <= LARGEST_FRAME:
            raise ValueError(
                f"features frame={f.frame}: the integer FFT needs a power of two in 16..{LARGEST_FRAME}"
            )
        if f.bands * f.width > LARGEST:
            raise ValueError(
                f"features bands={f.bands}, width={f.width}: their product must be at most {LARGEST}"
            )
        if f.trim_db is not None and f.trim_db > 60:
            raise ValueError(f"features trim_db={f.trim_db}: must be at most 60 for the integer comparison")
        if f.crop == "loudest" and f.hop * f.width > LARGEST_CROP:
            raise ValueError(
                f"features hop={f.hop}, width={f.width}: their product must be at most {LARGEST_CROP} for "
                "crop='loudest'"
            )
        if f.normalization == "train" and self.constants is None:
            raise ValueError(
                "features normalization='train' needs the mean and standard deviation of the training clips"
            )

    @property
    def unit(self) -> int:
        """The integer for a pixel of 1."""
        return PEAK_UNIT if self.features.normalization == "peak" else UNIT

    @cached_property
    def emphasis(self) -> int:
        """The share of the previous sample that is subtracted, in units of 2^-13."""
        return round(self.features.preemphasis * EMPHASIS)

    @cached_property
    def trim(self) -> int:
        """The trimming threshold as a share of the loudest frame's energy, in 2^-21; 0: no trimming."""
        return 0 if self.features.trim_db is None else round(10 ** (-self.features.trim_db / 10) * TRIM)

    @cached_property
    def trim_floor(self) -> int:
        """The minimum energy of a frame in trimming."""
        return round(float_features._FLOOR * self.features.trim_frame * 2.0 ** (2 * (28 - QUIETER)))

    @cached_property
    def window(self) -> np.ndarray:
        """The rising half of the Hann window including its peak, int16 [frame / 2 + 1]."""
        phase = np.arange(self.features.frame // 2 + 1) / self.features.frame
        return _table(0.5 - 0.5 * np.cos(2 * np.pi * phase), 1 << 15, np.int16)

    @cached_property
    def twiddles(self) -> np.ndarray:
        """Cosine and sine of 2 pi k / frame, int32 [frame / 2, 2]."""
        phase = 2 * np.pi * np.arange(self.features.frame // 2) / self.features.frame
        return _table(np.stack([np.cos(phase), np.sin(phase)], axis=1), 1 << 31, np.int32)

    @cached_property
    def order(self) -> np.ndarray:
        """The bit-reversed order of the FFT's inputs, int [frame / 2]."""
        bits = (self.features.frame // 2).bit_length() - 1
        return np.array([int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)])

    @cached_property
    def _bank(self) -> tuple[np.ndarray, int]:
        """Mel weights, uint16 [frame / 2 + 1, bands], and the power of two by which they are scaled."""
        bank = float_features._mel_bank(self.features.frame, self.features.bands, self.sample_rate).numpy()
        scale = math.floor(math.log2(65535 / bank.max()))
        return np.rint(bank * 2.0**scale).astype(np.uint16), scale

    @cached_property
    def bands(self) -> list[tuple[int, np.ndarray]]:
        """For each band, its first bin and its weights from there on, uint16."""
        bands = []
        for weights in self._bank[0].T:
            used = np.flatnonzero(weights)
            first, end = (used[0], used[-1] + 1) if len(used) else (0, 0)
            bands.append((int(first), weights[first:end]))
        return bands

    @cached_property
    def offset(self) -> int:
        """The level of the features' power floor; it is subtracted, so that the floor is 0."""
        power = 2.0 * (27 - math.log2(self.features.frame // 2)) + self._bank[1]
        return round(OCTAVE * (math.log2(float_features._FLOOR) + power))

    @cached_property
    def logarithm(self) -> np.ndarray:
        """log2(1 + i / 32) in 2^-14, uint16 [33]."""
        return np.rint(16 * OCTAVE * np.log2(1 + np.arange(LOG_STEPS + 1) / LOG_STEPS)).astype(np.uint16)

    @cached_property
    def fixed(self) -> tuple[int, int, int] | None:
        """Mean level, gain and shift if they are the same for every clip ("none" and "train"), else None."""
        if self.features.normalization in ("clip", "band", "peak"):
            return None
        mean, deviation = 0.0, 1.0
        if self.features.normalization == "train":
            assert self.constants is not None  # __post_init__ checks this
            mean, deviation = self.constants
        unit = 10 * math.log10(2) / OCTAVE  # dB
        gain = UNIT * unit / deviation
        shift = 14 - math.floor(math.log2(gain))
        if not 0 <= shift <= 30:
            raise ValueError(f"normalization: pixels cannot represent a deviation of {deviation} dB")
        level = round((mean - 10 * math.log10(float_features._FLOOR)) / unit)
        return level, min(round(gain * 2**shift), 32767), shift

    @cached_property
    def peak(self) -> tuple[int, int, int]:
        """For "peak": the range in levels, the gain from level to pixel, and the equalisation in 2^-8."""
        levels = round(self.features.range_db * math.log2(10) / 10 * OCTAVE)
        return levels, round(2 * PEAK_UNIT * 2.0**PEAK_SHIFT / levels), round(self.features.equalize * 256)

    @cached_property
    def largest(self) -> int:
        """The largest magnitude of a pixel."""
        if self.features.normalization == "peak":
            return 2 * PEAK_UNIT
        if self.fixed is not None:
            return 32767
        # A standardised value is at most the square root of the count; rounding the mean adds less than half.
        count = self.features.width * (self.features.bands if self.features.normalization == "clip" else 1)
        return min(32767, math.ceil(1.5 * UNIT * math.sqrt(count)) + 1)

    def place(self, samples: np.ndarray) -> tuple[int, int, int]:
        """The first frame shown, the number of frames, and the column of the first.

        Args:
            samples: from `heard`.
        """
        f = self.features
        frames = 1 + len(samples) // f.hop
        shown = min(frames, f.width)
        first = (frames - shown) // 2
        if first + shown < frames and f.crop == "loudest":
            # Each frame is represented by one hop of samples around its centre.
            hops = np.pad(samples, (f.hop // 2, f.hop))[: frames * f.hop].reshape(frames, -1)
            sums = np.cumsum(np.append(0, _energy(hops).sum(axis=1)))  # differences survive a wrap
            first = int(np.argmax(sums[shown:] - sums[:-shown]))
        return first, shown, (f.width - shown) // 2

    def image(self, pcm: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """The image of a recording.

        Args:
            pcm: int16 [n].

        Returns:
            Pixels, int64 [height, width], and the range of columns that hold data (start, end).

        Raises:
            ValueError: the samples are not int16, not one-dimensional, or all zero.
        """
        f = self.features
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise ValueError(f"pcm must be int16 [samples], not {pcm.dtype} {list(pcm.shape)}")
        if not pcm.any():
            raise ValueError("pcm is silent: all samples are 0")
        samples = self.heard(pcm)
        levels = self.levels(samples)
        highest = int(levels.max())
        first, shown, left = self.place(samples)
        data = np.maximum(levels[first : first + shown].T - highest + RANGE, 0)
        image = np.zeros((f.height, f.width), dtype=np.int64)
        top = (f.height - f.bands) // 2
        image[top : top + f.bands, left : left + shown] = self._standardised(data, highest)
        return image, (left, left + shown)

    def images(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """The images of many clips, int16 [N, height, width]."""
        return np.stack([self.image(clip)[0] for clip in clips]).astype(np.int16)

    def emphasised(self, pcm: np.ndarray) -> np.ndarray:
        """`pcm` after pre-emphasis, int64 [n], in units of 2^-13; the sample before the first is 0."""
        samples = pcm.astype(np.int64)
        return (samples << 13) - self.emphasis * np.concatenate([[0], samples[:-1]])

    def heard(self, pcm: np.ndarray) -> np.ndarray:
        """`pcm` after pre-emphasis and trimming of quiet ends, int64."""
        samples = self.emphasised(pcm)
        start, end = self.trim_bounds(samples) if self.trim else (0, len(samples))
        return samples[start:end]

    def frame_count(self, pcm: np.ndarray) -> int:
        """The number of frames in the spectrogram of samples, int16 [n]."""
        return 1 + len(self.heard(pcm)) // self.features.hop

    def trim_bounds(self, samples: np.ndarray) -> tuple[int, int]:
        """Where sound starts and ends in the output of `emphasised`, as in `scnn.features.trim_bounds`.

        A frame is sound if its energy is above `trim` 2^-21 of the loudest frame's.
        """
        overlap, hop = float_features._TRIM_OVERLAP, self.features.trim_frame // float_features._TRIM_OVERLAP
        hops = np.add.reduceat(_energy(samples), np.arange(0, len(samples), hop))
        frames = np.convolve(hops, np.ones(overlap, dtype=np.int64))[overlap // 2 - 1 :]
        energy = np.maximum(frames[: 1 + len(samples) // hop], self.trim_floor)
        sound = np.flatnonzero(energy > int(energy.max()) * self.trim >> 21)
        return int(sound[0]) * hop, min(len(samples), (int(sound[-1]) + 1) * hop)

    def levels(self, samples: np.ndarray) -> np.ndarray:
        """Level of every band in every frame of pre-emphasised samples [n], int64 [1 + n // hop, bands]."""
        power = self.power(self.frames(samples))
        exponent = np.maximum(_bits(np.bitwise_or.reduce(power, axis=1)) - 32, 0)
        short = power >> exponent.astype(np.uint64)[:, None]
        sums = short @ self._bank[0].astype(np.uint64)
        level = self._log2(sums) + exponent[:, None] * OCTAVE - self.offset
        return np.where(sums == 0, 0, np.maximum(level, 0))

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Windowed frames of pre-emphasised samples [n], int64 [1 + n // hop, frame]."""
        f = self.features
        padded = np.pad(samples, f.frame // 2)
        window = np.concatenate([self.window, self.window[-2:0:-1]]).astype(np.int64)
        starts = np.arange(0, len(samples) + 1, f.hop)
        return np.lib.stride_tricks.sliding_window_view(padded, f.frame)[starts] * window >> 16

    def power(self, frames: np.ndarray) -> np.ndarray:
        """Power of every bin, uint64 [F, frame / 2 + 1], of windowed frames [F, frame]."""
        half = self.features.frame // 2
        real, imaginary = self._fft(frames[:, 0::2], frames[:, 1::2])
        k = np.arange(1, half // 2)
        a, b = (real[:, k], imaginary[:, k]), (real[:, half - k], imaginary[:, half - k])
        even = (a[0] + b[0]) >> 1, (a[1] - b[1]) >> 1
        odd = _times(a[1] + b[1], b[0] - a[0], *self.twiddles[k].T.astype(np.int64))
        power = np.empty((len(frames), half + 1), dtype=np.int64)
        power[:, 0] = (real[:, 0] + imaginary[:, 0]) ** 2
        power[:, half] = (real[:, 0] - imaginary[:, 0]) ** 2
        power[:, half // 2] = real[:, half // 2] ** 2 + imaginary[:, half // 2] ** 2
        power[:, k] = (even[0] + odd[0]) ** 2 + (even[1] + odd[1]) ** 2
        power[:, half - k] = (even[0] - odd[0]) ** 2 + (even[1] - odd[1]) ** 2
        return power.astype(np.uint64)

    def _fft(self, real: np.ndarray, imaginary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The complex FFT of [F, n], divided by n: the first two stages at once, then stage by stage."""
        size = real.shape[1]
        r, i = (part[:, self.order].reshape(len(part), -1, 4) for part in (real, imaginary))
        sums = r[..., 0::2] + r[..., 1::2], i[..., 0::2] + i[..., 1::2]
        differences = r[..., 0::2] - r[..., 1::2], i[..., 0::2] - i[..., 1::2]
        (r0, r2), (i0, i2) = (np.moveaxis(part, -1, 0) for part in sums)
        (r1, r3), (i1, i3) = (np.moveaxis(part, -1, 0) for part in differences)
        r = np.stack([r0 + r2, r1 + i3, r0 - r2, r1 - i3], axis=-1) >> 2
        i = np.stack([i0 + i2, i1 - r3, i0 - i2, i1 + r3], axis=-1) >> 2
        length = 8
        while length <= size:
            pairs = [part.reshape(len(part), -1, 2, length // 2) for part in (r, i)]
            twiddles = self.twiddles[:: 2 * size // length][: length // 2].T.astype(np.int64)
            product = _times(pairs[0][:, :, 1], pairs[1][:, :, 1], *twiddles)
            halved = [part[:, :, 0] >> 1 for part in pairs]
            r, i = (np.stack([h + p, h - p], axis=2) for h, p in zip(halved, product, strict=True))
            length *= 2
        return r.reshape(len(r), -1), i.reshape(len(i), -1)

    def _log2(self, sums: np.ndarray) -> np.ndarray:
        """1024 log2 of positive uint64 values, int64; the result for 0 is arbitrary."""
        exponent = _bits(sums) - 1
        mantissa = sums << (63 - exponent).astype(np.uint64)
        piece = (mantissa >> np.uint64(58)).astype(np.int64) - LOG_STEPS
        rest = (mantissa >> np.uint64(42)).astype(np.int64) & 0xFFFF
        table = self.logarithm.astype(np.int64)
        piece = np.maximum(piece, 0)  # for a value of 0, which has no logarithm
        between = table[piece] + ((table[piece + 1] - table[piece]) * rest >> 16)
        return exponent * OCTAVE + (between >> 4)

    def _standardised(self, data: np.ndarray, highest: int) -> np.ndarray:
        if self.fixed is not None:
            mean, gain, shift = self.fixed
            return _scaled(data, mean - highest + RANGE, gain, shift)
        if self.features.normalization == "band":
            return np.stack([_scaled(row, *standard(row)) for row in data])
        if self.features.normalization == "peak":
            return self._below_peak(data)
        return _scaled(data, *standard(data))

    def _below_peak(self, data: np.ndarray) -> np.ndarray:
        """Levels [bands, frames] as pixels relative to the peak, from 0 to 2 as in `scnn.features`."""
        levels, gain, share = self.peak
        means, mean = _mean(data.sum(axis=1), data.shape[1]), _mean(data.sum(), data.size)
        data = data - ((share * (means - mean) + 128) >> 8)[:, None]
        shown = np.maximum(data - data.max() + levels, 0)
        return shown * gain + (1 << PEAK_SHIFT >> 1) >> PEAK_SHIFT


def standard(values: np.ndarray) -> tuple[int, int, int]:
    """Mean, gain and shift that standardise levels to mean 0 and deviation 1; gain 0 if all are equal."""
    count, total = values.size, int(values.sum())
    root = math.isqrt(count * int((values * values).sum()) - total * total)  # count * standard deviation
    mean = _mean(total, count)
    if root == 0:
        return mean, 0, 0
    gain, shift = UNIT * count, 0
    while gain < root << 14:
        gain, shift = gain << 1, shift + 1
    return mean, min(gain // root, 32767), shift


def _scaled(values: np.ndarray, mean: int, gain: int, shift: int) -> np.ndarray:
    return np.clip(((values - mean) * gain + (1 << shift >> 1)) >> shift, -32767, 32767)


def _mean(total, count: int):
    """`total / count`, rounded."""
    return (total + count // 2) // count


def _energy(samples: np.ndarray) -> np.ndarray:
    return np.square(samples >> QUIETER)


def _times(real, imaginary, cosine, sine):
    """Half of (real + i imaginary)(cosine - i sine), with factors in 2^-31."""
    return (
        (real * cosine >> 32) + (imaginary * sine >> 32),
        (imaginary * cosine >> 32) - (real * sine >> 32),
    )


def _bits(values: np.ndarray) -> np.ndarray:
    """Bit length of uint64 values, int64; 0 for 0."""
    high, low = (
        (values >> np.uint64(32)).astype(np.float64),
        (values & np.uint64(0xFFFFFFFF)).astype(np.float64),
    )
    return np.where(high > 0, np.frexp(high)[1] + 32, np.frexp(low)[1]).astype(np.int64)
