"""Seeded augmentation: recordings changed as if by another voice, room or microphone.

`vary` changes a waveform before its features are computed; `jitter`, `mask` and `mixup` change a batch of
images during training.
"""

import json
import math
from dataclasses import dataclass

import numba
import numpy as np
import soxr
import torch
from scipy.signal import lfilter
from torch.nn import functional
from tqdm import tqdm

from scnn.data import Corpus
from scnn.features import Features, Varied, extract, trim_bounds

_FRAME, _HOP, _SEARCH = 256, 128, 64  # samples at 8 kHz: window, hop and search range of the overlap-add


@dataclass(frozen=True)
class Augmentation:
    """How recordings are changed for training. Each pair gives the two ends of a range.

    Attributes:
        copies: number of changed copies of each recording, made before training. Each training step draws
            one of them or the recording itself.
        pitch: factor for pitch and formants together, as from a man to a child (resampling).
        tempo: factor for the speaking rate, independent of the pitch (overlap-add).
        cut: level in dB. Half of the copies lose what is softer than this at both ends, as an eager voice
            gate cuts the "s" off "six".
        tilt: coefficient a of `x[n] + a x[n-1]`, which darkens (above 0) or brightens (below 0) the sound.
        resonance: share of copies coloured by one resonance between 200 and 3,500 Hz. Half as many lose
            their low frequencies, as from a small microphone.
        echo: share of copies with one echo after 10 to 120 ms.
        noise: signal-to-noise ratio of coloured noise, in dB.
        silence: most seconds of (noisy) silence before and after the word.
        shift: most pixels by which an image moves along time; along the bands it moves by 1 at most.
        stretch: largest share by which an image is stretched or squeezed along time; half of it along the
            bands.
        masks: number of time stripes, and of band stripes, that are blanked in each image.
        mixup: parameter of the beta distribution for mixing half of the batches with themselves; 0 mixes
            none.
        seed: seed of the copies.

    Raises:
        ValueError: a field is not valid; the message names it.
    """

    copies: int = 6
    pitch: tuple[float, float] = (0.72, 1.38)
    tempo: tuple[float, float] = (0.75, 1.35)
    cut: tuple[float, float] = (6.0, 30.0)
    tilt: tuple[float, float] = (-0.6, 0.8)
    resonance: float = 0.5
    echo: float = 0.5
    noise: tuple[float, float] = (5.0, 45.0)
    silence: float = 0.4
    shift: int = 5
    stretch: float = 0.15
    masks: int = 2
    mixup: float = 0.3
    seed: int = 0

    def __post_init__(self):
        for name, most in (("copies", 64), ("shift", 64), ("masks", 8), ("seed", 2**31 - 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise ValueError(f"{name} must be a whole number from 0 to {most}, not {value!r}")
        ranges = {"pitch": (0.5, 2.0), "tempo": (0.5, 2.0), "tilt": (-0.95, 0.95), "noise": (-20.0, 100.0)}
        ranges["cut"] = (1.0, 100.0)
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))
            if not pair or not least <= value[0] <= value[1] <= most:
                raise ValueError(
                    f"{name} must be two numbers in {least}..{most}, the lower first, not {value!r}"
                )
            object.__setattr__(self, name, tuple(float(end) for end in value))
        limits = {"resonance": 1.0, "echo": 1.0, "silence": 2.0, "stretch": 0.5, "mixup": 10.0}
        for name, most in limits.items():
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= most:
                raise ValueError(f"{name} must be a number in 0..{most}, not {value!r}")
            object.__setattr__(self, name, float(value))

    def waveform_part(self) -> dict[str, object]:
        """The fields that the copies depend on, for their digest."""
        names = ("pitch", "tempo", "cut", "tilt", "resonance", "echo", "noise", "silence", "seed")
        return {name: getattr(self, name) for name in names}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# --- waveforms --------------------------------------------------------------------------------------------


def vary(
    waveform: np.ndarray, sample_rate: int, augmentation: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """A changed copy of `waveform`, float32 [samples]: another voice, tempo, timbre, room and background."""
    a, sound = augmentation, waveform
    if generator.random() < 0.5:
        ((start, end),) = trim_bounds([sound], generator.uniform(*a.cut), _FRAME)
        sound = sound[start:end]
    pitch = math.exp(generator.uniform(*np.log(a.pitch)))
    tempo = math.exp(generator.uniform(*np.log(a.tempo)))
    sound = repitched(sound, sample_rate, pitch)
    sound = stretched(sound, tempo / pitch)  # resampling has already changed the tempo by `pitch`
    sound = tilted(sound, generator.uniform(*a.tilt))
    if generator.random() < a.resonance:
        sound = resonant(sound, sample_rate, generator.uniform(200, 3500), generator.uniform(0.5, 0.85))
    if generator.random() < a.resonance / 2:
        sound = thinned(sound, generator.uniform(0.7, 0.97))
    if generator.random() < a.echo:
        sound = echoed(sound, round(sample_rate * generator.uniform(0.01, 0.12)), generator.uniform(0.1, 0.5))
    loudness = math.sqrt(float(np.mean(np.square(sound, dtype=np.float64))))
    before, after = (round(sample_rate * max(0.0, generator.uniform(-0.25, 1) * a.silence)) for _ in range(2))
    sound = np.concatenate([np.zeros(before), sound, np.zeros(after)])
    noise = coloured_noise(len(sound), generator.uniform(-0.5, 0.97), generator)
    sound = sound + noise * loudness * 10 ** (-generator.uniform(*a.noise) / 20)
    return (sound / max(1.0, float(np.abs(sound).max()))).astype(np.float32)


def repitched(waveform: np.ndarray, sample_rate: int, factor: float) -> np.ndarray:
    """`waveform` played `factor` times as fast: pitch, formants and tempo rise together (soxr)."""
    return soxr.resample(waveform, sample_rate * factor, sample_rate, quality="LQ")


def stretched(waveform: np.ndarray, factor: float) -> np.ndarray:
    """`waveform` spoken `factor` times as fast at the same pitch.

    Windows of 256 samples are read at the new pace and added with half overlap. Each is shifted by up to 64
    samples to match the one before, so that the voice's periods line up (WSOLA; Verhelst and Roelands, ICASSP
    1993). A waveform shorter than two windows is returned unchanged, and so is any for a factor within 2 % of
    1.
    """
    if len(waveform) < 2 * _FRAME or abs(math.log(factor)) < 0.02:
        return waveform
    return _overlap_add(np.ascontiguousarray(waveform, dtype=np.float32), factor, int(len(waveform) / factor))


@numba.njit(cache=True, nogil=True)
def _overlap_add(waveform, factor, length):
    rising = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    sound, weight = np.zeros(length + _FRAME), np.zeros(length + _FRAME)
    last = len(waveform) - _FRAME
    source = 0
    for to in range(0, length, _HOP):
        target = min(int(to * factor), last)
        continued = source + _HOP  # the previous window's natural continuation
        if to == 0 or continued > last:
            source = target
        else:
            best, source = -np.inf, target
            for start in range(max(0, target - _SEARCH), min(last, target + _SEARCH) + 1, 2):
                fit = 0.0
                for i in range(0, _FRAME, 2):
                    fit += waveform[start + i] * waveform[continued + i]
                if fit > best:
                    best, source = fit, start
        for i in range(_FRAME):
            sound[to + i] += rising[i] * waveform[source + i]
            weight[to + i] += rising[i]
    return (sound[:length] / np.maximum(weight[:length], 1e-3)).astype(np.float32)


def tilted(waveform: np.ndarray, amount: float) -> np.ndarray:
    """x[n] + amount x[n-1]: darker for an amount above 0, brighter for one below."""
    return lfilter([1.0, amount], [1.0], waveform)


def resonant(waveform: np.ndarray, sample_rate: int, frequency: float, radius: float) -> np.ndarray:
    """`waveform` filtered by one resonance at `frequency` Hz: a pole pair at `radius`, sharper towards 1."""
    angle = 2 * math.pi * frequency / sample_rate
    return lfilter([1.0], [1.0, -2 * radius * math.cos(angle), radius**2], waveform)


def thinned(waveform: np.ndarray, pole: float) -> np.ndarray:
    """`waveform` high-passed by a zero at 0 Hz and a real `pole`; the closer to 1, the less is lost."""
    return lfilter([1.0, -1.0], [1.0, -pole], waveform)


def echoed(waveform: np.ndarray, delay: int, gain: float) -> np.ndarray:
    """`waveform` plus an echo of itself, `delay` samples later and scaled by `gain`.

    >>> echoed(np.array([1.0, 0.0, 0.0]), delay=2, gain=0.5).tolist()
    [1.0, 0.0, 0.5, 0.0, 0.0]
    """
    sound = np.concatenate([waveform, np.zeros(delay)])
    sound[delay:] += gain * waveform
    return sound


def coloured_noise(length: int, colour: float, generator: np.random.Generator) -> np.ndarray:
    """Noise of RMS 1, with a `colour` in -1..1: high-pitched below 0, low-pitched above."""
    noise = lfilter([1.0], [1.0, -colour], generator.standard_normal(length + 64))[64:]
    return noise / max(math.sqrt(float(np.mean(noise**2))), 1e-12)


def copies(
    corpus: Corpus, features: Features, augmentation: Augmentation, indices: np.ndarray
) -> torch.Tensor:
    """The clips `indices` of a corpus and their changed copies, as images float32 `[N, 1 + copies, 1, H, W]`.

    The first image of each is the clip itself. Copies are made of the whole corpus and cached like the images
    of `scnn.features.extract`, so that experiments and splits share them. A clip's copies depend only on the
    clip, on its number in the corpus and on `augmentation`.
    """
    chosen = extract(corpus, features).values[indices]
    images = chosen.new_empty(len(indices), 1 + augmentation.copies, *chosen.shape[1:])
    images[:, 0] = chosen
    settings = json.dumps(augmentation.waveform_part(), sort_keys=True)
    numbers = range(1, 1 + augmentation.copies)
    for number in tqdm(numbers, f"copies of {corpus.name}", unit="copy", delay=2, disable=None, leave=False):

        def waveform(clip: int, number: int = number) -> np.ndarray:
            generator = np.random.default_rng([augmentation.seed, number, clip])
            return vary(corpus.waveforms[clip], corpus.sample_rate, augmentation, generator)

        varied = Varied(f"{settings} {number}", waveform)
        images[:, number] = extract(corpus, features, varied=varied).values[indices]
    return images


# --- images -----------------------------------------------------------------------------------------------


def jitter(images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """`images` [N, 1, H, W], each shifted and stretched a little in one bilinear resampling."""
    a, (count, _, height, width) = augmentation, images.shape
    if not (a.shift or a.stretch):
        return images

    def drawn(most: float) -> torch.Tensor:
        return most * (2 * torch.rand(count, generator=generator) - 1)

    grid = torch.zeros(count, 2, 3)
    grid[:, 0, 0], grid[:, 1, 1] = torch.exp(drawn(a.stretch)), torch.exp(drawn(a.stretch / 2))
    grid[:, 0, 2] = 2 * drawn(a.shift).round() / width
    grid[:, 1, 2] = 2 * drawn(min(a.shift, 1)).round() / height
    places = functional.affine_grid(grid, list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, align_corners=False)


def mask(images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """`images` with `masks` time stripes and as many band stripes set to 0, each up to a seventh wide.

    Follows SpecAugment (Park et al., Interspeech 2019).
    """
    count = len(images)
    for dimension in (2, 3) * augmentation.masks:
        length = images.shape[dimension]
        width = torch.randint(0, length // 7 + 2, (count, 1), generator=generator)
        start = (torch.rand(count, 1, generator=generator) * (length - width)).long()
        place = torch.arange(length)[None]
        kept = (place < start) | (place >= start + width)
        images = images * (kept[:, None, :, None] if dimension == 2 else kept[:, None, None, :])
    return images


def mixup(
    images: torch.Tensor, targets: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a batch with a shuffled copy of itself, in half of the calls.

    Images and `targets` `[N, classes]` are mixed in the same proportion, which is drawn from a beta
    distribution (Zhang et al., ICLR 2018).
    """
    if not augmentation.mixup or torch.rand((), generator=generator) < 0.5:
        return images, targets
    seed = int(torch.randint(2**31, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(augmentation.mixup, augmentation.mixup))
    order = torch.randperm(len(images), generator=generator)
    return (
        share * images + (1 - share) * images[order],
        share * targets + (1 - share) * targets[order],
    )
