"""Every page runs on a reader's own recordings: three words, named as in Speech Commands."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import soundfile
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError

from scnn.data import load_corpus

ROOT = Path(__file__).parents[1]
ONE = {"seeds": [0], "epochs": 1}
FAST = {  # as little work per page as possible
    "01_features": {"repeats": 2, "hops": [512], "coefficients": [8, 16], "frames": [256]},
    "02_neurons": {"slopes": [25.0]},
    "03_training": ONE | {"num_steps": 2},
    "04_quantization": ONE
    | {
        "num_steps": 2,
        "models": ["C"],
        "bits_model": "C",
        "bit_recipes": ["int4"],
        "ptq_bits": [8],
        "frozen": ["int8-paper"],
        "clips": 4,
    },
    "05_layers": ONE | {"seeds_standardised": [0], "num_steps": 3, "model": "C", "digit": "stop"},
    "06_sweeps": ONE
    | {"models": ["C"], "steps": [1, 2], "most_steps_a": 1, "thresholds": [1.0], "betas": [0.5]},
    "07_search": {"models": ["C"], "trials": [2], "fresh": [2], "epochs": 1, "grace": 1},
    "08_table": ONE,
    "09_speed": {"model": "C", "num_steps": 2, "rounds": 1},
    "10_strangers": {"network_epochs": 1, "epochs": 1, "tune_epochs": 1},
    "11_front": {"trials": 2, "epochs": 1, "points": 1, "strangers": 1, "words": 1},
    "12_device": {"epochs": 1, "recordings": 4, "words": 2, "thresholds": [256, 512]},
    "13_new_voice": {"examples": [1], "draws": 2, "epochs": 20, "tune_epochs": 10},
    "14_own_words": {"others": "espeak", "epochs": 1, "copies": 1},
}
WORDS = {"0": "no", "1": "stop", "2": "yes"}


def folder(root: Path, named: bool) -> Path:
    """Three words by three voices, four takes each; if `named`, the file names contain the speaker."""
    corpus = load_corpus("espeak")
    speakers = sorted(set(corpus.speakers.tolist()))[:3]
    for waveform, label, speaker, take in zip(
        corpus.waveforms, corpus.labels, corpus.speakers, corpus.takes, strict=True
    ):
        word = WORDS.get(corpus.classes[label])
        if word and speaker in speakers and take < 4:
            name = f"{speaker}_nohash_{take}" if named else f"{speakers.index(speaker)}{take}"
            (root / word).mkdir(parents=True, exist_ok=True)
            soundfile.write(root / word / f"{name}.wav", waveform, corpus.sample_rate, "PCM_16")
    return root


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Future]:
    """Run all pages, two at a time; returns the outcome of each."""
    root = tmp_path_factory.mktemp("pages")
    words = folder(root / "words", named=True)

    def run(name: str) -> nbformat.NotebookNode:
        given = FAST[name] | {"corpus": str(words)}
        source, target = ROOT / "notebooks" / f"{name}.ipynb", root / f"{name}.ipynb"
        return execute_notebook(source, target, given, progress_bar=False)

    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def own_core() -> None:
        if cores:  # so that no page starts workers for such short trainings
            os.sched_setaffinity(0, {cores.pop()})

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2, initializer=own_core) as pool:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        yield {name: pool.submit(run, name) for name in FAST}
        pool.shutdown(cancel_futures=True)


def test_every_page_is_here():
    assert sorted(FAST) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", FAST)
def test_a_page_runs_on_three_words(pages, name):
    page = pages[name].result()
    shown = [
        one for cell in page.cells for one in cell.get("outputs", []) if "image/png" in one.get("data", ())
    ]
    assert shown


def test_a_page_that_needs_speakers_says_so_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = folder(tmp_path / "words", named=False)
    source, target = ROOT / "notebooks" / "01_features.ipynb", tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError) as stopped:
        execute_notebook(source, target, {"corpus": str(words)}, progress_bar=False)
    assert stopped.value.exec_count == 4  # after the imports, the parameters and the injected ones
    assert "needs at least 2 speakers" in stopped.value.evalue
    assert "SPEAKER_nohash_TAKE.wav" in stopped.value.evalue
