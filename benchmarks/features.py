"""From waveforms to the paper's images: with librosa clip by clip, and with scnn in batches."""

import warnings
from collections.abc import Callable
from functools import partial

import librosa
import numpy as np

from scnn.data import Corpus
from scnn.features import Features, extract

BASELINE = "librosa"


def with_librosa(corpus: Corpus) -> np.ndarray:
    """The paper's images, [N, 1, 32, 32], computed with librosa in a loop."""
    images = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=2048 is too large")
        for waveform in corpus.waveforms:
            sound, _ = librosa.effects.trim(waveform, top_db=10)
            mfcc = librosa.feature.mfcc(y=sound, sr=corpus.sample_rate, n_mfcc=16, hop_length=512)
            tall = librosa.util.pad_center(mfcc, size=32, axis=0)
            images.append(librosa.util.pad_center(tall, size=32, axis=1))
    return np.stack(images)[:, None]


def with_scnn(corpus: Corpus) -> np.ndarray:
    """The same images, [N, 1, 32, 32], from `scnn.features` without its cache."""
    return extract(corpus, Features(), cache=False).values.numpy()


def ways(corpus: Corpus) -> dict[str, Callable[[], np.ndarray]]:
    """Both, ready to be timed on `corpus`."""
    return {BASELINE: partial(with_librosa, corpus), "scnn": partial(with_scnn, corpus)}
