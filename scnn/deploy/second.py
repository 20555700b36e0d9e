"""The same C by other tools, where a machine has them: gcc and clang, QEMU, and Valgrind.

`measure` needs nothing but packages of PyPI. Here other compilers build the same sources with `batch.c`,
which answers a file of recordings in one process:

- `Computer`: on this machine, with every undefined behaviour an error.
- `Board`: on a Cortex-M board emulated by QEMU, which counts instructions by its own clock. It is a
  `measure.CortexM` as well, so that Unicorn runs the same code and both counts can be compared.

`compare` runs all of it and says what is missing.
"""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scnn.deploy.emit import SOURCES
from scnn.deploy.measure import SAMPLES, CortexM, Outcome, Target
from scnn.deploy.quantize import Program

COMPILERS = ("gcc", "clang")
# What gcc calls each core, and QEMU a board with it. None has a Cortex-M0+, whose code a Cortex-M3 runs.
BOARDS = {
    "cortex_m4": ("cortex-m4", "mps2-an386"),
    "cortex_m7": ("cortex-m7", "mps2-an500"),
    "cortex_m0plus": ("cortex-m0plus", "mps2-an385"),
}
_COLUMNS = ("recordings", "different", "instructions", "unicorn", "miscounted", "word")
_BATCH = str(SOURCES / "batch.c")
_CHECKED = ("-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def missing(*programs: str) -> list[str]:
    """Those of `programs` that this machine does not have on its PATH."""
    return [program for program in programs if not shutil.which(program)]


class Computer(Target):
    """A program for this machine by `compiler`, one of `COMPILERS`; with sanitizers, if `flags` say so."""

    def __init__(self, program: Program, folder: Path | str, compiler: str, flags: Sequence[str] = _CHECKED):
        super().__init__(program, folder, flags, f"{compiler}.exe", (compiler,), [_BATCH])

    def answers(self, clips: Sequence[np.ndarray]) -> list[Outcome]:
        """The `Outcome` of each recording, int16 [n].

        Raises:
            ValueError: a sanitizer found something; the message says what.
        """
        return _answers(self, clips, [str(self.path.resolve())])[0]

    def instructions(self, clips: Sequence[np.ndarray]) -> float:
        """This machine's instructions per recording, on average, by Callgrind, which wants no sanitizers."""
        out = self.path.resolve().with_suffix(".callgrind")
        options = [f"--callgrind-out-file={out}", "--toggle-collect=harness_run"]
        _answers(self, clips, ["valgrind", "--tool=callgrind", *options, str(self.path.resolve())])
        total = next(line for line in out.read_text().splitlines() if line.startswith("totals:"))
        return int(total.split()[1]) / len(clips)


class Board(CortexM):
    """A program for `core`, one of `BOARDS`, by gcc: `answers` are QEMU's, and `run` is Unicorn's."""

    def __init__(self, program: Program, folder: Path | str, core: str):
        name, self.machine = BOARDS[core]
        flags = [f"-mcpu={name}", "-mthumb", "-mfloat-abi=soft", "-O2", "-ffreestanding", "-nostdlib"]
        flags += ["-fno-tree-loop-distribute-patterns", f"-Wl,--script={SOURCES / 'cortex_m.ld'}"]
        command, others = ("arm-none-eabi-gcc", "-DHARNESS_BOARD"), [_BATCH, "-lgcc"]
        Target.__init__(self, program, folder, flags, f"{core}-gcc.elf", command, others)
        self._load(core)

    def answers(self, clips: Sequence[np.ndarray]) -> tuple[list[Outcome], list[int]]:
        """Of each recording, int16 [n], the `Outcome`, and what `harness_run` takes in instructions.

        QEMU's clock goes on by 128 ns with each instruction; the program reads it from a timer that counts
        in steps of 40 ns, so that no instruction is missed.
        """
        options = ["-icount", "shift=7", "-semihosting-config", "enable=on,target=native"]
        silent = [word for name in ("display", "monitor", "serial") for word in (f"-{name}", "none")]
        kernel = ["-M", self.machine, "-kernel", str(self.path.resolve())]
        return _answers(self, clips, ["qemu-system-arm", *options, *silent, *kernel])


def _answers(
    target: Target, clips: Sequence[np.ndarray], command: Sequence[str]
) -> tuple[list[Outcome], list[int]]:
    """Outcomes and counts that `command` leaves, run in the folder of `target` on `clips`."""
    folder, classes = target.path.resolve().parent, len(target.program.classes)
    if (longest := max(map(len, clips))) > SAMPLES:
        raise ValueError(f"a recording has {longest} samples: the harness has room for {SAMPLES}")
    with (folder / "recordings").open("wb") as file:
        for pcm in clips:
            file.write(struct.pack("<i", len(pcm)) + np.ascontiguousarray(pcm, dtype="<i2").tobytes())
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ValueError(f"{command[0]} failed with status {done.returncode}:\n{done.stderr}")
    outcomes, counts, at = [], [], 0
    data = (folder / "outcomes").read_bytes()
    while at < len(data):
        answer, count, *scores, logged = struct.unpack_from(f"<iI{classes}ii", data, at)
        at += 12 + 4 * classes + logged
        outcomes.append(Outcome(answer, scores, data[at - logged : at]))
        counts.append(count)
    return outcomes, counts


def compare(
    program: Program,
    folder: Path | str,
    clips: Sequence[np.ndarray],
    outcomes: Sequence[Outcome],
    few: Sequence[int],
) -> tuple[pd.DataFrame, list[str]]:
    """Run `program` by every tool that is here; a row a tool, and what is missing.

    Args:
        folder: for the C and what is compiled from it.
        clips: int16 [n] each.
        outcomes: what the reference gives for each of the clips.
        few: indices of those to count by Unicorn, too.

    Returns:
        Columns `recordings`; how many are `different` from the reference in any bit; `instructions` of one of
        the few and of the harness' log of it, on average, by QEMU or Callgrind; `unicorn`, the same by
        Unicorn; `miscounted`, for how many of the few the two counts are not equal; `word`, `unicorn` without
        the log. And the names of the tools that are missing.
    """
    rows: dict[str, dict[str, Any]] = {}
    absent: list[str] = []

    def differing(answers: Sequence[Outcome]) -> dict[str, Any]:
        wrong = sum(a != b for a, b in zip(answers, outcomes, strict=True))
        return {"recordings": len(answers), "different": wrong}

    some = [clips[i] for i in few]
    for compiler in COMPILERS:
        if lacking := missing(compiler):
            absent += lacking
            continue
        rows[compiler] = differing(Computer(program, folder, compiler).answers(clips))
        if not missing("valgrind"):
            rows[compiler]["instructions"] = Computer(program, folder, compiler, ["-O2"]).instructions(some)
    absent += missing("valgrind")
    if lacking := missing("arm-none-eabi-gcc", "qemu-system-arm"):
        return pd.DataFrame(rows, index=_COLUMNS).T, absent + lacking
    for core in BOARDS:
        board = Board(program, folder, core)
        answers, counts = board.answers(clips)
        rows[core] = differing(answers) | {"instructions": np.mean([counts[i] for i in few])}
        again, own = [], []
        for pcm in some:
            board.run(pcm)
            again.append(sum(board.counts.values()))
            own.append(sum(board.counts.get(name, 0) for name in ("harness_run", "scnn_trace")))
        rows[core]["unicorn"] = np.mean(again)
        rows[core]["miscounted"] = sum(counts[i] != n for i, n in zip(few, again, strict=True))
        rows[core]["word"] = np.mean(again) - np.mean(own)
    return pd.DataFrame(rows, index=_COLUMNS).T, absent
