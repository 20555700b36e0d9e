"""Cross-checks of the C with other tools, if installed: gcc and clang, QEMU, and Valgrind.

`measure` needs only packages from PyPI. Here, other compilers build the same sources with `batch.c`, which
answers a file of recordings in one process:

- `Computer`: runs on this machine, with any undefined behaviour an error.
- `Board`: runs on a Cortex-M board emulated by QEMU, whose clock gives the number of instructions. It is also
  a `measure.CortexM`, so that Unicorn can run the same code and the two counts can be compared.

`compare` runs everything, and reports which tools are missing.
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
# gcc's name for each core, and a QEMU board with it. No board has a Cortex-M0+; a Cortex-M3 runs its code.
BOARDS = {
    "cortex_m4": ("cortex-m4", "mps2-an386"),
    "cortex_m7": ("cortex-m7", "mps2-an500"),
    "cortex_m0plus": ("cortex-m0plus", "mps2-an385"),
}
_COLUMNS = ("recordings", "different", "instructions", "unicorn", "miscounted", "word")
_BATCH = str(SOURCES / "batch.c")
_CHECKED = ("-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def missing(*programs: str) -> list[str]:
    """The `programs` that are not on the PATH."""
    return [program for program in programs if not shutil.which(program)]


class Computer(Target):
    """A program for this machine, built by one of `COMPILERS`; `flags` turn on sanitizers by default."""

    def __init__(self, program: Program, folder: Path | str, compiler: str, flags: Sequence[str] = _CHECKED):
        super().__init__(program, folder, flags, f"{compiler}.exe", (compiler,), [_BATCH])

    def answers(self, clips: Sequence[np.ndarray]) -> list[Outcome]:
        """The `Outcome` of each recording, int16 [n].

        Raises:
            ValueError: a sanitizer reports an error, which is in the message.
        """
        return _answers(self, clips, [str(self.path.resolve())])[0]

    def instructions(self, clips: Sequence[np.ndarray]) -> float:
        """Mean instructions per recording on this machine, by Callgrind; needs a build without sanitizers."""
        out = self.path.resolve().with_suffix(".callgrind")
        options = [f"--callgrind-out-file={out}", "--toggle-collect=harness_run"]
        _answers(self, clips, ["valgrind", "--tool=callgrind", *options, str(self.path.resolve())])
        total = next(line for line in out.read_text().splitlines() if line.startswith("totals:"))
        return int(total.split()[1]) / len(clips)


class Board(CortexM):
    """A program for `core`, one of `BOARDS`, built by gcc; `answers` uses QEMU, and `run` uses Unicorn."""

    def __init__(self, program: Program, folder: Path | str, core: str):
        name, self.machine = BOARDS[core]
        flags = [f"-mcpu={name}", "-mthumb", "-mfloat-abi=soft", "-O2", "-ffreestanding", "-nostdlib"]
        flags += ["-fno-tree-loop-distribute-patterns", f"-Wl,--script={SOURCES / 'cortex_m.ld'}"]
        command, others = ("arm-none-eabi-gcc", "-DHARNESS_BOARD"), [_BATCH, "-lgcc"]
        Target.__init__(self, program, folder, flags, f"{core}-gcc.elf", command, others)
        self._load(core)

    def answers(self, clips: Sequence[np.ndarray]) -> tuple[list[Outcome], list[int]]:
        """For each recording, int16 [n], its `Outcome` and the instructions of `harness_run`.

        QEMU's clock advances by 128 ns per instruction. The program reads it from a timer with a resolution
        of 40 ns, fine enough to count every instruction.
        """
        options = ["-icount", "shift=7", "-semihosting-config", "enable=on,target=native"]
        silent = [word for name in ("display", "monitor", "serial") for word in (f"-{name}", "none")]
        kernel = ["-M", self.machine, "-kernel", str(self.path.resolve())]
        return _answers(self, clips, ["qemu-system-arm", *options, *silent, *kernel])


def _answers(
    target: Target, clips: Sequence[np.ndarray], command: Sequence[str]
) -> tuple[list[Outcome], list[int]]:
    """Run `command` on `clips` in the folder of `target`, and return the outcomes and counts it writes."""
    folder, classes = target.path.resolve().parent, len(target.program.classes)
    if (longest := max(map(len, clips))) > SAMPLES:
        raise ValueError(f"a recording has {longest} samples; the harness has room for {SAMPLES}")
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
    """Run `program` with every installed tool.

    Args:
        folder: where the C and the compiled code go.
        clips: int16 [n] each.
        outcomes: the reference's result for each clip.
        few: indices of the clips whose instructions are counted.

    Returns:
        A table with a row for each tool, and the names of the missing tools. The columns are `recordings`;
        `different`, how many of them differ from the reference in any bit; `instructions`, the mean over the
        few clips by QEMU or Callgrind, including the harness's log; `unicorn`, the same by Unicorn;
        `miscounted`, how many of the few have different counts in QEMU and Unicorn; and `word`, which is
        `unicorn` without the log.
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
