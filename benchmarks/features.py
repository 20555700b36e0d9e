"""Waveforms to the paper's images: librosa clip by clip and scnn in batches, in turns."""

import argparse
import statistics
import time
import warnings

import librosa
import numpy as np

from scnn.data import CORPORA, Corpus, available, load_corpus
from scnn.features import Features, extract


def with_librosa(corpus: Corpus) -> np.ndarray:
    """The paper's images as a loop over librosa, [N, 1, 32, 32]."""
    images = []
    for waveform in corpus.waveforms:
        sound, _ = librosa.effects.trim(waveform, top_db=10)
        mfcc = librosa.feature.mfcc(y=sound, sr=corpus.sample_rate, n_mfcc=16, hop_length=512)
        tall = librosa.util.pad_center(mfcc, size=32, axis=0)
        images.append(librosa.util.pad_center(tall, size=32, axis=1))
    return np.stack(images)[:, None]


def with_scnn(corpus: Corpus) -> np.ndarray:
    """The same images from `scnn.features`, without its cache, [N, 1, 32, 32]."""
    return extract(corpus, Features(), cache=False).values.numpy()


def measure(corpus: Corpus, repeats: int = 3) -> list[dict]:
    """Median seconds of each way, as a ratio to the first one too; the images are compared as well."""
    ways = {"librosa, clip by clip": with_librosa, "scnn, batched": with_scnn}
    seconds = {name: [] for name in ways}
    images = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=2048 is too large")
        for _ in range(repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                images[name] = way(corpus)
                seconds[name].append(time.perf_counter() - start)
    baseline, reference = next(iter(ways)), next(iter(images.values()))
    return [
        {
            "way": name,
            "clips": len(corpus),
            "seconds": statistics.median(times),
            "times faster": statistics.median(seconds[baseline]) / statistics.median(times),
            "largest difference": float(np.abs(images[name] - reference).max()),
        }
        for name, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", choices=CORPORA, help="default: fsdd where it can be had, else espeak")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way; their median is printed")
    options = parser.parse_args()
    corpus = load_corpus(options.corpus or available("fsdd"))
    print(f"{len(corpus)} clips of {corpus.name} to MFCC images")
    for row in measure(corpus, options.repeats):
        print(
            f"{row['way']:24}{row['seconds']:8.2f} s{row['times faster']:8.1f} times as fast"
            f"{row['largest difference']:10.5f} largest difference"
        )


if __name__ == "__main__":
    main()
