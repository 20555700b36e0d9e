"""From waveforms to images: trim, MFCC, log-mel or filter-bank energies, zero padding, normalisation, cache.

A clip's features are a small matrix, bands by frames, centred by zero padding in an image of fixed size. The
whole corpus is computed in a few batches that hold only windows that exist, in float64, so that the image of
a clip does not depend on the clips beside it.
"""

import dataclasses
import functools
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.signal import butter, sosfilt

from scnn._torchaudio import torchaudio
from scnn.data import Corpus
from scnn.files import cache_dir, load_tensors, locked, save_tensors, sweep

KINDS = ("mfcc", "logmel", "energy")
NORMALIZATIONS = ("none", "clip", "band", "peak", "train")
CROPS = ("middle", "loudest")
MAX_RATE = 384_000  # Hz

_MELS = 128  # librosa's default number of mel bands, of which an MFCC is the cosine transform
_TRIM_FRAME, _TRIM_HOP = 2048, 512  # librosa.effects.trim's defaults, in samples
_TRIM_OVERLAP = _TRIM_FRAME // _TRIM_HOP
_FLOOR = 1e-10  # librosa.power_to_db's least power
_RANGE_DB = 80.0  # and its range below the loudest band of the clip
_LOWEST_HZ, _HIGHEST = 100.0, 0.95  # the filter bank's outer edges: Hz, and a share of the Nyquist frequency
_WINDOWS_AT_ONCE = 256  # keeps a batch of windows and their spectra in the processor's cache
_SAMPLES_AT_ONCE = 2**20  # bounds the memory that a group of clips takes
_MOST = {"bands": 256, "hop": 2**16, "frame": 2**16, "height": 1024, "width": 1024, "trim_frame": 2**16}
_LARGEST = 2**26  # values in all frames of one clip: half a gigabyte, a second or two
_FORMAT = 2  # raise it when the same waveforms and features come to give other images, or another file
_FILE = "scnn images 1"


@dataclass(frozen=True)
class Features:
    """What an image shows. The defaults are the paper's MFCC image.

    Attributes:
        kind: "mfcc" (coefficients of `librosa.feature.mfcc`), "logmel" (mel bands in dB) or "energy" (RMS of
            the bands of a Butterworth filter bank).
        bands: coefficients, mel bands or filters: the rows of the image that hold data.
        hop: samples between frames.
        frame: samples in a frame. None becomes the paper's: 2048, and 256 for "energy" (pass it again where
            `dataclasses.replace` changes the kind).
        trim_db: leading and trailing parts that are more than this many dB below the clip's loudest frame are
            cut off first; None keeps the whole clip.
        height: pixels of the image.
        width: pixels of the image.
        normalization: "none"; "clip" and "band" give every clip, or every row of every clip, mean 0 and
            deviation 1 over its frames; "peak" makes every clip's loudest pixel 2 and what is `range_db` or
            more below it 0, so that silence is zero like the padding; "train" leaves that to `statistics` and
            `normalize`, over the training clips.
        preemphasis: what is subtracted of the sample before, `x[n] - preemphasis x[n-1]`, ahead of everything
            else: 0 leaves the waveform as it is, 0.97 lifts high frequencies as speech recognisers do, so
            that the trimming keeps a soft "s".
        trim_frame: samples of the frames whose loudness decides on the trimming, every quarter of which there
            is one. librosa's 2048 keep a margin of up to a quarter of a second around a word.
        crop: what a clip with more frames than the image is wide keeps: its "middle" frames, or the
            successive ones that are "loudest" together.
        range_db: dB that "peak" shows.
        equalize: share of how much each band is above or below the clip's mean band, over its frames, that is
            taken out before the "peak": half of what a microphone or a room colours.

    Raises:
        ValueError: naming the parameter and its valid values.
    """

    kind: str = "mfcc"
    bands: int = 16
    hop: int = 512
    frame: int = None  # type: ignore[assignment]  # a number from here on: see __post_init__
    trim_db: float | None = 10.0
    height: int = 32
    width: int = 32
    normalization: str = "none"
    preemphasis: float = 0.0
    trim_frame: int = 2048
    crop: str = "middle"
    range_db: float = 55.0
    equalize: float = 0.0

    def __post_init__(self):
        for name, valid in (("kind", KINDS), ("normalization", NORMALIZATIONS), ("crop", CROPS)):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(valid)}")
        if self.frame is None:
            object.__setattr__(self, "frame", 256 if self.kind == "energy" else 2048)
        for name, most in _MOST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name}={value!r}: must be a whole number of at least 1")
            if value > most:
                raise ValueError(f"{name}={value!r}: must be at most {most}")
            object.__setattr__(self, name, int(value))
        if self.frame % 2:
            raise ValueError(f"frame={self.frame}: must be even, so that a frame has a centre")
        if self.trim_frame % 4:
            raise ValueError(
                f"trim_frame={self.trim_frame}: must be a multiple of 4, as its hop is a quarter"
            )
        for name, least, most in (("preemphasis", 0, 1), ("equalize", 0, 1), ("range_db", 1, 80)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise ValueError(f"{name}={value!r}: must be a number from {least} to {most}")
            object.__setattr__(self, name, float(value))
        if self.normalization == "peak" and self.kind != "logmel":
            raise ValueError(f"normalization='peak' needs levels in dB, kind='logmel', not {self.kind!r}")
        if self.bands > self.height:
            raise ValueError(
                f"bands={self.bands}: must be at most height={self.height}, the rows of the image"
            )
        if self.kind == "mfcc" and self.bands > _MELS:
            raise ValueError(f"bands={self.bands}: must be at most {_MELS} for kind='mfcc'")
        if self.trim_db is not None:
            number = not isinstance(self.trim_db, bool) and isinstance(self.trim_db, int | float)
            if not number or not 0 < self.trim_db < math.inf:
                raise ValueError(f"trim_db={self.trim_db!r}: must be a number of dB above 0, or None")
            object.__setattr__(self, "trim_db", float(self.trim_db))


@dataclass(frozen=True)
class Images:
    """The images of some clips.

    Attributes:
        values: float32 `[N, 1, height, width]`, zero outside the window.
        window: bool `[N, height, width]`, True where data is, False where padding.
    """

    values: torch.Tensor
    window: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)


class Varied(NamedTuple):
    """Another version of each clip of a corpus: a name for all, and the waveform by the clip's number."""

    name: str
    waveform: Callable[[int], np.ndarray]


def extract(corpus: Corpus, features: Features, cache: bool = True, varied: Varied | None = None) -> Images:
    """The images of all clips of a corpus, in its order.

    With kind "mfcc" and the other defaults they equal `librosa.feature.mfcc` of `librosa.effects.trim`,
    centred in the image as `librosa.util.pad_center` does it (the smaller half of the padding above and to
    the left). Clips with more frames than the image is wide keep the frames in the middle.

    The images before normalisation are kept in `cache_dir()/features/`, under a digest of the waveforms and
    the features; a damaged file there is computed again, with a warning. Of several processes that want the
    same images, one computes them. Where they cannot be kept (a full disk, a home that is read only), a
    warning says so.

    Args:
        cache: False neither reads nor writes what is kept.
        varied: if given, its clips stand in the place of the corpus's.

    Raises:
        ValueError: naming the clip, for a waveform that is empty, silent, not finite, not one-dimensional or
            not of floats.
    """
    images = _cached(corpus, features, varied) if cache else None
    if images is None:
        images = _images(corpus, features, varied)
    return _normalized(images, features)


def image(waveform: np.ndarray, sample_rate: int, features: Features) -> Images:
    """The image of one waveform, `[samples]` in [-1, 1] at `sample_rate` Hz, as `Images` of one clip.

    Raises:
        ValueError: for a waveform that is empty, silent, not finite, not one-dimensional or not of floats.

    >>> tone = np.sin(2 * np.pi * 440 / 8000 * np.arange(4000))
    >>> image(tone, 8000, Features()).values.shape
    torch.Size([1, 1, 32, 32])
    """
    if not 0 < sample_rate <= MAX_RATE:
        raise ValueError(f"sample_rate={sample_rate}: must be above 0 Hz and at most {MAX_RATE}")
    images = _compute([np.asarray(waveform)], sample_rate, features, ["waveform"])
    return _normalized(images, features)


def trim_bounds(
    waveforms: Sequence[np.ndarray], trim_db: float = 10.0, trim_frame: int = _TRIM_FRAME
) -> np.ndarray:
    """Where the sound of each waveform starts and ends, in samples, int64 `[N, 2]`.

    The same as from `librosa.effects.trim` with frames of `trim_frame` samples, one every quarter of that (by
    default librosa's, 2048 every 512). A frame counts as sound where ::

        10 log10(p / max p) > -trim_db

    with `p` its mean square, at least 1e-10, and `max p` that of the waveform's loudest frame.
    """
    bounds = np.empty((len(waveforms), 2), dtype=np.int64)
    overlap, hop = _TRIM_OVERLAP, trim_frame // _TRIM_OVERLAP
    for index, waveform in enumerate(waveforms):
        # A frame is a run of whole hops, so that each is squared and summed once; half of the first
        # frame lies before the first sample.
        hops = np.add.reduceat(np.square(waveform, dtype=np.float64), np.arange(0, len(waveform), hop))
        frames = np.convolve(hops, np.ones(overlap))[overlap // 2 - 1 :][: 1 + len(waveform) // hop]
        level = 10 * np.log10(np.maximum(frames / trim_frame, _FLOOR))
        sound = np.flatnonzero(level - level.max() > -trim_db)
        bounds[index] = sound[0] * hop, min(len(waveform), (sound[-1] + 1) * hop)
    return bounds


def filter_bank(bands: int, sample_rate: int) -> list[np.ndarray]:
    """Second-order Butterworth band-pass filters side by side, each as second-order sections.

    Their edges are spaced evenly in log frequency from 100 Hz to 95 % of the Nyquist frequency: 16 bands at
    8 kHz are about a third of an octave each.
    """
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST * sample_rate / 2, bands + 1)
    return [butter(2, band, "bandpass", fs=sample_rate, output="sos") for band in pairwise(edges)]


def statistics(images: Images, indices: Sequence[int] | np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over the window of the clips `indices`.

    Raises:
        ValueError: if there are none.
    """
    chosen = torch.as_tensor(indices, dtype=torch.int64)
    if not len(chosen):
        raise ValueError("indices: must name at least one clip")
    data = images.values[chosen, 0][images.window[chosen]].double()
    return data.mean().item(), data.std(correction=0).item()


def normalize(images: Images, mean: float, deviation: float) -> Images:
    """`(values - mean) / deviation` inside the window; the padding stays 0.

    Raises:
        ValueError: for a deviation that is not above 0.
    """
    if not 0 < deviation < math.inf:
        raise ValueError(f"deviation={deviation}: must be a finite number above 0")
    return _standardized(images, mean, deviation)


def _normalized(images: Images, features: Features) -> Images:
    """The images as their normalisation says, as far as that needs no training set."""
    if features.normalization == "peak":
        return _below_peak(images, features)
    if features.normalization not in ("clip", "band"):
        return images
    dimensions = (1, 2, 3) if features.normalization == "clip" else (3,)
    values, window = images.values.double(), images.window[:, None]
    count = window.sum(dimensions, keepdim=True).clamp(min=1)
    mean = values.sum(dimensions, keepdim=True) / count
    squares = ((values - mean).square() * window).sum(dimensions, keepdim=True)
    deviation = (squares / count).sqrt()
    # What does not vary (a single frame) becomes 0, rather than its rounding errors magnified.
    deviation[deviation <= 1e-6 * mean.abs()] = math.inf
    return _standardized(images, mean, deviation)


def _below_peak(images: Images, features: Features) -> Images:
    """Levels in dB as shares of the range below the loudest, from 0 to 2, where they lie in it."""
    values, window = images.values.double(), images.window[:, None]
    if features.equalize:
        frames = window.sum(3, keepdim=True).clamp(min=1)
        bands = values.sum(3, keepdim=True) / frames  # rows of padding are 0 and stay so
        rows = window.any(3, keepdim=True)
        mean = bands.sum(2, keepdim=True) / rows.sum(2, keepdim=True)
        values = values - features.equalize * (bands - mean)
    loudest = values.masked_fill(~window, -math.inf).amax((1, 2, 3), keepdim=True)
    shown = (values - loudest + features.range_db).clamp(min=0) * (2 / features.range_db)
    return Images(shown.float().masked_fill(~window, 0.0), images.window)


def _standardized(images: Images, mean: float | torch.Tensor, deviation: float | torch.Tensor) -> Images:
    values = ((images.values.double() - mean) / deviation).float()
    return Images(values.masked_fill(~images.window[:, None], 0.0), images.window)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for PyTorch inside, and as many as before afterwards.

    On batches as small as here, waiting for a second one costs more than it saves. And the result is the
    same to the bit on any number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def _compute(
    waveforms: Sequence[np.ndarray], sample_rate: int, features: Features, names: Sequence[str]
) -> Images:
    """The images of the waveforms, not normalised."""
    for waveform, name in zip(waveforms, names, strict=True):
        _check(waveform, name, features)
    values = np.zeros((len(waveforms), 1, features.height, features.width), dtype=np.float32)
    window = np.zeros((len(waveforms), features.height, features.width), dtype=bool)
    top = (features.height - features.bands) // 2
    # Neighbours of similar length waste little when the filter bank pads them to one length.
    lengths = np.array([len(waveform) for waveform in waveforms], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    groups = np.cumsum(lengths[order]) // _SAMPLES_AT_ONCE
    for group in np.split(order, np.flatnonzero(np.diff(groups)) + 1):
        clips = [waveforms[index] for index in group]
        if features.preemphasis:
            clips = [_emphasised(clip, features.preemphasis) for clip in clips]
        if features.trim_db is not None:
            bounds = trim_bounds(clips, features.trim_db, features.trim_frame)
            clips = [clip[start:end] for clip, (start, end) in zip(clips, bounds, strict=True)]
        for index, clip, matrix in zip(group, clips, _matrices(clips, sample_rate, features), strict=True):
            skipped = _skipped(clip, len(matrix), features)
            shown = matrix[skipped : skipped + features.width].T
            left = (features.width - shown.shape[1]) // 2
            place = slice(top, top + features.bands), slice(left, left + shown.shape[1])
            values[index, 0][place] = shown
            window[index][place] = True
    return Images(torch.from_numpy(values), torch.from_numpy(window))


def _emphasised(clip: np.ndarray, share: float) -> np.ndarray:
    """x[n] - share x[n-1]; the first sample, which has none before it, stays as it is."""
    clip = clip.astype(np.float64)
    return np.append(clip[:1], clip[1:] - share * clip[:-1])


def _skipped(clip: np.ndarray, frames: int, features: Features) -> int:
    """How many of a clip's frames come before those in the image."""
    left = frames - features.width
    if left <= 0:
        return 0
    if features.crop == "middle":
        return left // 2
    # A frame's energy: that of the hop of samples which begins half a hop before its centre.
    centred = np.concatenate([np.zeros(features.hop // 2), clip, np.zeros(features.hop)])
    energy = np.square(centred[: frames * features.hop]).reshape(frames, -1).sum(axis=1)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    return int(np.argmax(sums[features.width :] - sums[: -features.width]))


def _check(waveform: np.ndarray, name: str, features: Features) -> None:
    if waveform.dtype.kind != "f":
        raise ValueError(
            f"{name}: a waveform must be of floats in [-1, 1], got {waveform.dtype}; divide whole numbers by "
            "their full scale, as int16 by 32768"
        )
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"{name}: a waveform must be [samples] and not empty, got shape {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise ValueError(f"{name}: the waveform has samples that are not finite numbers")
    if not waveform.any():
        raise ValueError(f"{name}: the waveform is silent, all samples are 0")
    values = (1 + len(waveform) // features.hop) * max(features.frame, _MELS, features.bands)
    if values > _LARGEST:
        raise ValueError(
            f"{name}: {len(waveform)} samples with hop={features.hop} and frame={features.frame} are too "
            f"many frames ({values} values of at most {_LARGEST}); use a larger hop, or a shorter recording"
        )


def _matrices(clips: Sequence[np.ndarray], sample_rate: int, features: Features) -> list[np.ndarray]:
    """The features of each clip, float64 [frames, bands]."""
    lengths = np.array([len(clip) for clip in clips])
    if features.kind == "energy":
        rows = _band_energies(clips, sample_rate, features)
    else:
        mels = _MELS if features.kind == "mfcc" else features.bands
        rows = _mel_levels(clips, lengths, sample_rate, mels, features)
        if features.kind == "mfcc":
            rows = rows @ torchaudio.functional.create_dct(features.bands, mels, "ortho").double().numpy()
    return _split(rows, lengths, features.hop)


def _mel_levels(
    clips: Sequence[np.ndarray], lengths: np.ndarray, sample_rate: int, mels: int, features: Features
) -> np.ndarray:
    """Power in Slaney's mel bands in dB, at most 80 dB below the clip's loudest, [all frames, mels]."""
    hann = torch.hann_window(features.frame, dtype=torch.float64)
    bank = _mel_bank(features.frame, mels, sample_rate)
    powers = []
    for windows in _windows(clips, features.frame, features.hop):
        spectrum = torch.fft.rfft(windows * hann)
        powers.append((spectrum.real.square() + spectrum.imag.square()) @ bank)
    levels = 10 * torch.cat(powers).clamp(min=_FLOOR).log10().numpy()
    for frames in _split(levels, lengths, features.hop):
        np.maximum(frames, frames.max() - _RANGE_DB, out=frames)
    return levels


@functools.cache
def _mel_bank(frame: int, mels: int, sample_rate: int) -> torch.Tensor:
    """Weight of each bin of the spectrum in each of Slaney's mel bands, float64 [frame / 2 + 1, mels]."""
    bank = torchaudio.functional.melscale_fbanks(
        frame // 2 + 1, 0.0, sample_rate / 2, mels, sample_rate, norm="slaney", mel_scale="slaney"
    )
    return bank.double()


def _band_energies(clips: Sequence[np.ndarray], sample_rate: int, features: Features) -> np.ndarray:
    """Root mean square of each frame in each band of the filter bank, [all frames, bands]."""
    padded = np.zeros((len(clips), max(len(clip) for clip in clips)))
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    bands = []
    for sections in filter_bank(features.bands, sample_rate):
        # Cut at the clip's end again: what a filter rings on beyond it is not the clip's.
        filtered = [row[: len(clip)] for row, clip in zip(sosfilt(sections, padded), clips, strict=True)]
        windows = _windows(filtered, features.frame, features.hop)
        bands.append(torch.cat([w.square().mean(dim=1).sqrt() for w in windows]))
    return torch.stack(bands, dim=1).numpy()


def _windows(clips: Sequence[np.ndarray], frame: int, hop: int) -> Iterator[torch.Tensor]:
    """All frames of all clips in order, a few hundred at a time, float64 `[frames, frame]`.

    A clip of n samples has `1 + n // hop` frames, centred on every hop-th sample, zeros beyond its ends.
    """
    lengths = np.array([len(clip) for clip in clips])
    firsts = np.cumsum(lengths + frame) - lengths - frame
    flat = np.zeros(np.sum(lengths + frame))
    for clip, first in zip(clips, firsts, strict=True):
        flat[first + frame // 2 :][: len(clip)] = clip
    steps = [first + np.arange(0, length + 1, hop) for first, length in zip(firsts, lengths, strict=True)]
    every = torch.from_numpy(flat).unfold(0, frame, 1)
    for some in torch.from_numpy(np.concatenate(steps)).split(_WINDOWS_AT_ONCE):
        yield every[some]


def _split(rows: np.ndarray, lengths: np.ndarray, hop: int) -> list[np.ndarray]:
    """Rows of all frames of all clips, as one view per clip."""
    return np.split(rows, np.cumsum(1 + lengths // hop)[:-1])


def _digest(corpus: Corpus, features: Features, varied: Varied | None) -> str:
    settings = dataclasses.asdict(features) | {"sample_rate": corpus.sample_rate, "format": _FORMAT}
    for applied_later in ("normalization", "range_db", "equalize"):
        del settings[applied_later]
    if varied is not None:
        settings["varied"] = varied.name
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for waveform in corpus.waveforms:
        digest.update(f"{waveform.dtype} {waveform.shape}".encode())
        digest.update(np.ascontiguousarray(waveform).data)
    return digest.hexdigest()


def _images(corpus: Corpus, features: Features, varied: Varied | None) -> Images:
    """The images of all clips, or of other versions of them, not normalised."""
    waveforms = corpus.waveforms if varied is None else [varied.waveform(i) for i in range(len(corpus))]
    return _compute(waveforms, corpus.sample_rate, features, corpus.names)


def _cached(corpus: Corpus, features: Features, varied: Varied | None) -> Images | None:
    """The images out of the cache, computed if need be; None, with a warning, where it cannot be written."""
    path = cache_dir() / "features" / f"{_digest(corpus, features, varied)}.safetensors"
    try:
        return _load(path, len(corpus), features)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} is damaged ({error}): computing these features again", stacklevel=3)
    images = None
    try:
        with locked(path):
            with suppress(OSError, ValueError):  # another process may have been faster
                return _load(path, len(corpus), features)
            images = _images(corpus, features, varied)
            save_tensors(path, _FILE, {}, {"values": images.values, "window": images.window})
            sweep(path.parent, path.name, seconds=0)  # of writers that were killed: they had the lock
            sweep(path.parent)
    except OSError as error:
        warnings.warn(f"{error}. These features are not kept, and computed again each time", stacklevel=3)
    return images


def _load(path: Path, count: int, features: Features) -> Images:
    size = features.height, features.width
    shapes = {"values": (count, 1, *size), "window": (count, *size)}
    _, tensors = load_tensors(path, _FILE, largest=8 * count * size[0] * size[1] + 2**20)
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise ValueError("its images are of another shape")
    return Images(tensors["values"], tensors["window"])
