"""`make edge`, and its cross-checks: other compilers, QEMU's Cortex-M boards and Callgrind agree."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from scnn.data import ESPEAK_FOLDER, load_corpus
from scnn.deploy import __main__ as edge
from scnn.deploy import convert, measure, second
from scnn.deploy.frontend import FrontEnd, pcm
from scnn.features import Features, image
from scnn.models import build

CROSS = ("arm-none-eabi-gcc", "qemu-system-arm")


def need(*programs: str) -> None:
    if lacking := second.missing(*programs):
        pytest.skip(f"not on this machine: {', '.join(lacking)}")


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Samples of a few packaged recordings, and the shortest possible one."""
    return [*map(pcm, load_corpus("espeak").waveforms[::251]), np.ones(1, np.int16)]


@pytest.fixture(scope="module")
def program(clips):
    """A small program with random weights, large enough that its neurons spike."""
    features = Features(kind="logmel", bands=16, height=16, width=16, frame=128, hop=256, trim_db=30,
                        normalization="clip")  # fmt: skip
    network = build("4C3s2p1-8C3s2p1-12FC-10FC", num_steps=4, input_shape=(1, 16, 16))
    network.weights[-1].weight.data *= 3
    return convert(
        network, FrontEnd(features), calibration=image(clips[0] / np.float32(32768), 8000, features).values
    )


@pytest.mark.parametrize("compiler", second.COMPILERS)
def test_another_compiler_gives_the_same_bits_under_sanitizers(compiler, program, clips, tmp_path):
    need(compiler)
    wanted = measure.expected(program, clips)
    assert any(any(outcome.log[512:]) for outcome in wanted), "no neuron ever spikes"
    assert second.Computer(program, tmp_path, compiler).answers(clips) == wanted


def test_what_a_sanitizer_finds_is_said(program, clips, tmp_path):
    need("gcc")
    layer = program.layers[-1]
    heavy = replace(layer, bias=np.full_like(layer.bias, 2**31 - 1))
    target = second.Computer(replace(program, layers=(*program.layers[:-1], heavy)), tmp_path, "gcc")
    with pytest.raises(ValueError, match="signed integer overflow"):
        target.answers(clips)


def test_callgrind_counts_the_same_every_time(program, clips, tmp_path):
    need("gcc", "valgrind")
    target = second.Computer(program, tmp_path, "gcc", ["-O2"])
    first = target.instructions(clips[:2])
    assert first == target.instructions(clips[:2])
    assert 10_000 < first < 2_000_000


@pytest.mark.parametrize("core", second.BOARDS)
def test_qemu_gives_the_same_bits_and_counts_what_unicorn_counts(core, program, clips, tmp_path):
    """The same file in two emulators takes exactly as many instructions, in every run."""
    need(*CROSS)
    board = second.Board(program, tmp_path, core)
    answers, counts = board.answers(clips)
    assert answers == measure.expected(program, clips)
    assert (answers, counts) == board.answers(clips)
    for clip, outcome, count in zip(clips, answers, counts, strict=True):
        assert board.run(clip) == outcome
        assert sum(board.counts.values()) == count
    assert len(set(counts)) > 1


def test_what_is_too_long_for_the_harness_is_refused(program, tmp_path):
    need("gcc")
    with pytest.raises(ValueError, match="65537 samples"):
        second.Computer(program, tmp_path, "gcc").answers([np.ones(65537, np.int16)])


def test_without_the_tools_nothing_is_compared_and_all_are_named(program, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    table, missing = second.compare(program, tmp_path, clips, measure.expected(program, clips), [0])
    assert table.empty and missing == [*second.COMPILERS, "valgrind", *CROSS]


def test_a_difference_is_counted(program, clips, tmp_path, monkeypatch):
    need("gcc")
    monkeypatch.setattr(second, "BOARDS", {"cortex_m4": second.BOARDS["cortex_m4"]})
    wanted = measure.expected(program, clips)
    wanted[1] = replace(wanted[1], answer=wanted[1].answer + 1)
    table, _ = second.compare(program, tmp_path, clips[:2], wanted[:2], [0])
    assert (table["different"] == 1).all() and (table["recordings"] == 2).all()


@pytest.fixture
def corpus(tmp_path):
    """A recording of each digit."""
    folder = tmp_path / "few"
    folder.mkdir()
    for digit in range(10):
        for path in sorted(ESPEAK_FOLDER.glob(f"{digit}_en-us-f2_*"))[:1]:
            shutil.copy(path, folder)
    return folder


def test_make_edge_checks_every_target(corpus, tmp_path, monkeypatch, capsys):
    """The command of the Makefile, for the packaged network."""
    out = tmp_path / "edge.json"
    arguments = ["--corpus", str(corpus), "--clips", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["python -m scnn.deploy", *arguments])
    assert edge.main() == 0
    found, said = json.loads(out.read_text()), capsys.readouterr().out
    assert found["different"] == {"host": 0, "wasm": 0, "cortex_m4": 0, "cortex_m7": 0}
    assert "wasm: 0 of 10 recordings differ" in said
    for name in found["missing"]:
        assert name in said.split("not installed, so not compared: ")[1]
    tools = {*second.COMPILERS, *second.BOARDS} if not found["missing"] else set()
    assert tools <= set(found["second"])
    for row in found["second"].values():
        assert (row["recordings"], row["different"], row.get("miscounted", 0)) == (10, 0, 0)


def test_make_edge_fails_on_a_difference_and_goes_without_other_tools(corpus, tmp_path, monkeypatch, capsys):
    out, honest = tmp_path / "edge.json", measure.expected
    monkeypatch.setattr(sys, "argv", ["edge", "--corpus", str(corpus), "--clips", "1", "--out", str(out)])
    monkeypatch.setattr(measure, "expected", lambda *given: [replace(o, answer=99) for o in honest(*given)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert edge.main() == 1
    found = json.loads(out.read_text())
    assert found["different"]["host"] == 10 and not found["second"]
    absent = "not installed, so not compared: gcc, clang, valgrind, arm-none-eabi-gcc, qemu-system-arm"
    assert absent in capsys.readouterr().out
