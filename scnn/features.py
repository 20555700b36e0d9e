"""From waveforms to images: trimming, MFCC, log-mel or band energies, zero padding, normalisation, cache.

A clip's features are a small matrix, bands by frames, centred by zero padding in an image of fixed size. A
corpus is computed in a few batches in float64, without frames that are padding, so that the image of a clip
does not depend on the other clips.
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

_MELS = 128  # librosa's default number of mel bands; an MFCC is their cosine transform
_TRIM_FRAME, _TRIM_HOP = 2048, 512  # librosa.effects.trim's defaults, in samples
_TRIM_OVERLAP = _TRIM_FRAME // _TRIM_HOP
_FLOOR = 1e-10  # librosa.power_to_db's smallest power
_RANGE_DB = 80.0  # librosa.power_to_db's range below the clip's loudest band
_LOWEST_HZ, _HIGHEST = 100.0, 0.95  # the filter bank's outer edges: Hz, and a share of the Nyquist frequency
_WINDOWS_AT_ONCE = 256  # keeps a batch of windows and their spectra in the processor's cache
_SAMPLES_AT_ONCE = 2**20  # bounds the memory of a group of clips
_MOST = {"bands": 256, "hop": 2**16, "frame": 2**16, "height": 1024, "width": 1024, "trim_frame": 2**16}
_LARGEST = 2**26  # values in all frames of one clip: half a gigabyte, a second or two of computing
_FORMAT = 2  # increase when the same waveforms and features give other images, or another file
_FILE = "scnn images 1"


@dataclass(frozen=True)
class Features:
    """How images are made from waveforms. The defaults give the paper's MFCC image.

    Attributes:
        kind: "mfcc" (coefficients of `librosa.feature.mfcc`), "logmel" (mel bands in dB) or "energy" (RMS of
            the bands of a Butterworth filter bank).
        bands: number of coefficients, mel bands or filters, one per image row.
        hop: samples between frames.
        frame: samples per frame. None becomes the paper's value: 256 for "energy", 2048 otherwise. So pass
            it again if `dataclasses.replace` changes the kind.
        trim_db: cut off both ends of the clip where they are more than this many dB below its loudest frame;
            None keeps the whole clip.
        height: of the image, in pixels.
        width: of the image, in pixels.
        normalization: "none"; "clip" and "band" give every clip, or every row of every clip, mean 0 and
            standard deviation 1 over its frames; "peak" maps every clip's loudest pixel to 2, and levels
            `range_db` or more below it to 0, so that silence is zero like the padding; "train" leaves the
            normalisation to `statistics` and `normalize`, over the training clips.
        preemphasis: coefficient of a filter `x[n] - preemphasis x[n-1]` applied first: 0 leaves the waveform
            unchanged; 0.97, usual in speech recognition, raises high frequencies, so that trimming keeps a
            soft "s".
        trim_frame: samples per frame for trimming, with a hop of a quarter frame. librosa's 2048 keeps a
            margin of up to a quarter of a second around a word.
        crop: which frames to keep of a clip with more frames than the image is wide: the "middle" ones, or
            the successive ones with the most energy ("loudest").
        range_db: dynamic range of "peak", in dB.
        equalize: share of each band's offset from the clip's mean level to remove before "peak", where the
            offset is averaged over the frames: 0.5 removes half of a microphone's or room's colouration.

    Raises:
        ValueError: a parameter is not valid; the message names it and its valid values.
    """

    kind: str = "mfcc"
    bands: int = 16
    hop: int = 512
    frame: int = None  # type: ignore[assignment]  # __post_init__ replaces None by a number
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
                f"trim_frame={self.trim_frame}: must be a multiple of 4, as the hop is a quarter of it"
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
                f"bands={self.bands}: must be at most height={self.height}, the number of image rows"
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
        window: bool `[N, height, width]`, True for data, False for padding.
    """

    values: torch.Tensor
    window: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)


class Varied(NamedTuple):
    """A changed version of a corpus: its name, and a function from a clip's index to its waveform."""

    name: str
    waveform: Callable[[int], np.ndarray]


def extract(corpus: Corpus, features: Features, cache: bool = True, varied: Varied | None = None) -> Images:
    """Compute the images of all clips of a corpus, in its order.

    With the default features they equal `librosa.feature.mfcc` of `librosa.effects.trim`, centred in the
    image as by `librosa.util.pad_center` (the smaller half of the padding above and to the left). Clips with
    more frames than the image is wide keep the middle ones.

    The images before normalisation are cached in `cache_dir()/features/`, under a digest of the waveforms and
    the features. A damaged file there is computed again, with a warning. If several processes need the same
    images, only one computes them. If the cache cannot be written (full disk, read-only home), a warning says
    so.

    Args:
        cache: False neither reads nor writes the cache.
        varied: if given, its clips replace those of the corpus.

    Raises:
        ValueError: a waveform is empty, silent, not finite, not one-dimensional or not floating point; the
            message names the clip.
    """
    images = _cached(corpus, features, varied) if cache else None
    if images is None:
        images = _images(corpus, features, varied)
    return _normalized(images, features)


def image(waveform: np.ndarray, sample_rate: int, features: Features) -> Images:
    """The image of one waveform, `[samples]` in [-1, 1] at `sample_rate` Hz, as `Images` of one clip.

    Raises:
        ValueError: the waveform is empty, silent, not finite, not one-dimensional or not floating point, or
            the sample rate is out of range.

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

    The result equals that of `librosa.effects.trim` with frames of `trim_frame` samples and a hop of a
    quarter frame (by default librosa's 2048 and 512). A frame counts as sound if ::

        10 log10(p / max p) > -trim_db

    with `p` its mean square, at least 1e-10, and `max p` that of the waveform's loudest frame.
    """
    bounds = np.empty((len(waveforms), 2), dtype=np.int64)
    overlap, hop = _TRIM_OVERLAP, trim_frame // _TRIM_OVERLAP
    for index, waveform in enumerate(waveforms):
        # A frame consists of whole hops, so that each sample is squared and summed once; half of the first
        # frame lies before the first sample.
        hops = np.add.reduceat(np.square(waveform, dtype=np.float64), np.arange(0, len(waveform), hop))
        frames = np.convolve(hops, np.ones(overlap))[overlap // 2 - 1 :][: 1 + len(waveform) // hop]
        level = 10 * np.log10(np.maximum(frames / trim_frame, _FLOOR))
        sound = np.flatnonzero(level - level.max() > -trim_db)
        bounds[index] = sound[0] * hop, min(len(waveform), (sound[-1] + 1) * hop)
    return bounds


def filter_bank(bands: int, sample_rate: int) -> list[np.ndarray]:
    """Adjacent Butterworth band-pass filters of order 2, each as second-order sections.

    Their edges are evenly spaced in log frequency from 100 Hz to 95 % of the Nyquist frequency: at 8 kHz,
    each of 16 bands is about a third of an octave wide.
    """
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST * sample_rate / 2, bands + 1)
    return [butter(2, band, "bandpass", fs=sample_rate, output="sos") for band in pairwise(edges)]


def statistics(images: Images, indices: Sequence[int] | np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over the windows of the clips `indices`.

    Raises:
        ValueError: `indices` is empty.
    """
    chosen = torch.as_tensor(indices, dtype=torch.int64)
    if not len(chosen):
        raise ValueError("indices: must name at least one clip")
    data = images.values[chosen, 0][images.window[chosen]].double()
    return data.mean().item(), data.std(correction=0).item()


def normalize(images: Images, mean: float, deviation: float) -> Images:
    """`(values - mean) / deviation` inside the window; the padding stays 0.

    Raises:
        ValueError: the deviation is not a finite number above 0.
    """
    if not 0 < deviation < math.inf:
        raise ValueError(f"deviation={deviation}: must be a finite number above 0")
    return _standardized(images, mean, deviation)


def _normalized(images: Images, features: Features) -> Images:
    """Apply the normalisations that need no training set."""
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
    # Constant values (of a single frame) become 0, instead of magnified rounding errors.
    deviation[deviation <= 1e-6 * mean.abs()] = math.inf
    return _standardized(images, mean, deviation)


def _below_peak(images: Images, features: Features) -> Images:
    """Map levels in dB to 0..2: from `range_db` below the loudest pixel to the loudest."""
    values, window = images.values.double(), images.window[:, None]
    if features.equalize:
        frames = window.sum(3, keepdim=True).clamp(min=1)
        bands = values.sum(3, keepdim=True) / frames  # rows of padding stay 0
        rows = window.any(3, keepdim=True)
        mean = bands.sum(2, keepdim=True) / rows.sum(2, keepdim=True)
        values = values - features.equalize * (bands - mean)
    loudest = values.masked_fill(~window, -math.inf).amax((1, 2, 3), keepdim=True)
    scaled = (values - loudest + features.range_db).clamp(min=0) * (2 / features.range_db)
    return Images(scaled.float().masked_fill(~window, 0.0), images.window)


def _standardized(images: Images, mean: float | torch.Tensor, deviation: float | torch.Tensor) -> Images:
    values = ((images.values.double() - mean) / deviation).float()
    return Images(values.masked_fill(~images.window[:, None], 0.0), images.window)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on a single thread inside this context.

    For the small batches here, synchronising a second thread costs more than it saves. A single thread also
    gives bit-identical results on any number of cores.
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
    # Clips of similar length are grouped, so that the filter bank pads them little.
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
            cropped = matrix[skipped : skipped + features.width].T
            left = (features.width - cropped.shape[1]) // 2
            place = slice(top, top + features.bands), slice(left, left + cropped.shape[1])
            values[index, 0][place] = cropped
            window[index][place] = True
    return Images(torch.from_numpy(values), torch.from_numpy(window))


def _emphasised(clip: np.ndarray, share: float) -> np.ndarray:
    """x[n] - share x[n-1]; the first sample is left unchanged."""
    clip = clip.astype(np.float64)
    return np.append(clip[:1], clip[1:] - share * clip[:-1])


def _skipped(clip: np.ndarray, frames: int, features: Features) -> int:
    """How many of a clip's frames to skip before those in the image."""
    surplus = frames - features.width
    if surplus <= 0:
        return 0
    if features.crop == "middle":
        return surplus // 2
    # A frame's energy is taken over one hop of samples around its centre.
    centred = np.concatenate([np.zeros(features.hop // 2), clip, np.zeros(features.hop)])
    energy = np.square(centred[: frames * features.hop]).reshape(frames, -1).sum(axis=1)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    return int(np.argmax(sums[features.width :] - sums[: -features.width]))


def _check(waveform: np.ndarray, name: str, features: Features) -> None:
    if waveform.dtype.kind != "f":
        raise ValueError(
            f"{name}: a waveform must be of floats in [-1, 1], got {waveform.dtype}; divide integers by "
            "their full scale, for example int16 by 32768"
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
            f"many frames ({values} values, at most {_LARGEST}); use a larger hop or a shorter recording"
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
    """Power in Slaney's mel bands in dB, clamped to 80 dB below the clip's loudest, [all frames, mels]."""
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
    """Weight of each spectrum bin in each of Slaney's mel bands, float64 [frame / 2 + 1, mels]."""
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
        # Cut off at the clip's end: the filter's ringing after it does not belong to the clip.
        filtered = [row[: len(clip)] for row, clip in zip(sosfilt(sections, padded), clips, strict=True)]
        windows = _windows(filtered, features.frame, features.hop)
        bands.append(torch.cat([w.square().mean(dim=1).sqrt() for w in windows]))
    return torch.stack(bands, dim=1).numpy()


def _windows(clips: Sequence[np.ndarray], frame: int, hop: int) -> Iterator[torch.Tensor]:
    """All frames of all clips in order, a few hundred at a time, float64 `[frames, frame]`.

    A clip of n samples has `1 + n // hop` frames, centred on every hop-th sample, with zeros beyond its ends.
    """
    lengths = np.array([len(clip) for clip in clips])
    firsts = np.cumsum(lengths + frame) - lengths - frame
    flat = np.zeros(np.sum(lengths + frame))
    for clip, first in zip(clips, firsts, strict=True):
        flat[first + frame // 2 :][: len(clip)] = clip
    steps = [first + np.arange(0, length + 1, hop) for first, length in zip(firsts, lengths, strict=True)]
    frames = torch.from_numpy(flat).unfold(0, frame, 1)
    for starts in torch.from_numpy(np.concatenate(steps)).split(_WINDOWS_AT_ONCE):
        yield frames[starts]


def _split(rows: np.ndarray, lengths: np.ndarray, hop: int) -> list[np.ndarray]:
    """Split the rows of all frames of all clips into one view per clip."""
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
    """The images of all clips, or of their varied versions, not normalised."""
    waveforms = corpus.waveforms if varied is None else [varied.waveform(i) for i in range(len(corpus))]
    return _compute(waveforms, corpus.sample_rate, features, corpus.names)


def _cached(corpus: Corpus, features: Features, varied: Varied | None) -> Images | None:
    """The images from the cache, computed and stored if missing; None if the cache cannot be locked.

    If the cache cannot be written, a warning says so.
    """
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
            with suppress(OSError, ValueError):  # another process may have written it meanwhile
                return _load(path, len(corpus), features)
            images = _images(corpus, features, varied)
            save_tensors(path, _FILE, {}, {"values": images.values, "window": images.window})
            sweep(path.parent, path.name, seconds=0)  # we hold the lock, so these are from killed writers
            sweep(path.parent)
    except OSError as error:
        warnings.warn(f"{error}. These features are not cached, but computed each time", stacklevel=3)
    return images


def _load(path: Path, count: int, features: Features) -> Images:
    size = features.height, features.width
    shapes = {"values": (count, 1, *size), "window": (count, *size)}
    _, tensors = load_tensors(path, _FILE, largest=8 * count * size[0] * size[1] + 2**20)
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise ValueError("its images have another shape")
    return Images(tensors["values"], tensors["window"])
