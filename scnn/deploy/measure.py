"""The C of a `Program` on its targets: compile it with Zig, run it from Python, count its instructions.

- `Host`: a shared library for this machine, called through ctypes.
- `CortexM`: Cortex-M code, run by the emulator Unicorn, which counts the instructions of every function.
- `Wasm`: freestanding WebAssembly, run by wasmtime; the same file runs in a browser.

All three run the same sources with `harness.c`, which logs the image and every hidden layer, so that
`verify` can compare all bits with `scnn.deploy.reference`. Counts are of instructions, never of cycles.
"""

import bisect
import ctypes
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scnn.deploy import reference
from scnn.deploy.compiler import WARNINGS, ZIG, bare_cortex_m, bare_wasm, compile_c, shared_library
from scnn.deploy.emit import CORE, SOURCES, STREAM, emit, traced_bytes
from scnn.deploy.quantize import Program
from scnn.deploy.stream import Word

RAM = 0x20000000  # start address
SAMPLES = 65_536  # in the longest recording that fits the harness
_EXPORTS = ["harness_run", "scnn_samples", "scnn_log", "scnn_logged", "scnn_scores"]


@dataclass(frozen=True)
class Outcome:
    """A target's answer to one recording, its scores, and the log of its layers."""

    answer: int
    scores: list[int]
    log: bytes


class Target:
    """A compiled program; `run` returns its `Outcome` for samples, int16 [n].

    Args:
        folder: where the C and the compiled code go.
        flags: for the compiler.
        name: of the compiled file.
        command: the compiler.
        others: sources and libraries besides the program and the harness.
        streaming: whether to compile the stream as well: call `hear` with its samples, and `finish` at its
            end.
    """

    def __init__(
        self,
        program: Program,
        folder: Path | str,
        flags: Sequence[str],
        name: str,
        command: Sequence[str] = ZIG,
        others: Sequence[str] = (),
        streaming: bool = False,
    ):
        self.program, self.path = program, Path(folder) / name
        emit(program, folder)
        defines = [f"-DHARNESS_SAMPLES={SAMPLES}", f"-DHARNESS_LOG={traced_bytes(program)}", "-DSCNN_TRACE"]
        defines += ["-DHARNESS_STREAM"] if streaming else []
        core = (*CORE, STREAM) if streaming else CORE
        sources = [str(SOURCES / "harness.c"), *(str(Path(folder) / name) for name in core)]
        arguments = [*flags, *WARNINGS, *defines, f"-I{folder}", *sources, *others, "-o", str(self.path)]
        compile_c(arguments, command)

    def _write(self, data: bytes) -> None:
        """Put samples into the program's buffer."""
        raise NotImplementedError(f"{type(self).__name__} only answers batches of recordings")

    def _read(self, name: str, size: int) -> bytes:
        """The first `size` bytes of one of the program's variables."""
        raise NotImplementedError(f"{type(self).__name__} only answers batches of recordings")

    def _call(self, function: str, count: int) -> int:
        """Call a function of the program with a number of samples, and return its result."""
        raise NotImplementedError(f"{type(self).__name__} only answers batches of recordings")

    def run(self, pcm: np.ndarray) -> Outcome:
        if len(pcm) > SAMPLES:
            raise ValueError(f"pcm has {len(pcm)} samples; the harness has room for {SAMPLES}")
        self._write(np.ascontiguousarray(pcm, dtype="<i2").tobytes())
        answer = self._call("harness_run", len(pcm))
        classes = len(self.program.classes)
        scores = struct.unpack(f"<{classes}i", self._read("scnn_scores", 4 * classes))
        (logged,) = struct.unpack("<i", self._read("scnn_logged", 4))
        return Outcome(answer, list(scores), self._read("scnn_log", logged))

    def hear(self, pcm: np.ndarray) -> list[Word]:
        """Process further samples of a stream, int16 [n], and return the words they complete."""
        words = []
        while len(pcm):
            part = np.ascontiguousarray(pcm[:SAMPLES], dtype="<i2")
            self._write(part.tobytes())
            pcm = pcm[self._call("harness_hear", len(part)) :]
            words += self._heard()
        return words

    def finish(self) -> list[Word]:
        """End the stream, and return the word that this completes, if any."""
        self._call("harness_hear", -1)
        return self._heard()

    def _heard(self) -> list[Word]:
        start, length, answer, confidence, sure = struct.unpack("<IIiii", self._read("scnn_heard", 20))
        return [] if answer < 0 else [Word(start, length, answer, confidence, bool(sure))]


class Host(Target):
    """A program for this machine. `flags` may add compiler options such as sanitizers."""

    def __init__(
        self, program: Program, folder: Path | str, flags: Sequence[str] = ("-O2",), streaming: bool = False
    ):
        name = "stream.so" if streaming else "host.so"
        super().__init__(program, folder, [*flags, *shared_library()], name, streaming=streaming)
        self._library = ctypes.CDLL(str(self.path))

    def _write(self, data: bytes) -> None:
        ctypes.memmove(ctypes.addressof(ctypes.c_char.in_dll(self._library, "scnn_samples")), data, len(data))

    def _read(self, name: str, size: int) -> bytes:
        return ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(self._library, name)), size)

    def _call(self, function: str, count: int) -> int:
        return self._library[function](count)


class Wasm(Target):
    """A program in WebAssembly, run by wasmtime."""

    def __init__(self, program: Program, folder: Path | str, flags: Sequence[str] = ("-O2",)):
        import wasmtime

        super().__init__(program, folder, [*flags, *bare_wasm(_EXPORTS)], "harness.wasm")
        self._store = wasmtime.Store()
        module = wasmtime.Module.from_file(self._store.engine, str(self.path))
        self._exports: Any = wasmtime.Instance(self._store, module, []).exports(self._store)

    def _address(self, name: str) -> int:
        return self._exports[name].value(self._store)

    def _write(self, data: bytes) -> None:
        self._exports["memory"].write(self._store, data, self._address("scnn_samples"))

    def _read(self, name: str, size: int) -> bytes:
        start = self._address(name)
        return bytes(self._exports["memory"].read(self._store, start, start + size))

    def _call(self, function: str, count: int) -> int:
        return self._exports[function](self._store, count)


class CortexM(Target):
    """A program for a Cortex-M, one of `compiler.CORES`, run by Unicorn.

    Attributes:
        counts: instructions of the last run, by function.
    """

    def __init__(
        self,
        program: Program,
        folder: Path | str,
        core: str = "cortex_m4",
        flags: Sequence[str] = ("-O2",),
        streaming: bool = False,
    ):
        bare = [*bare_cortex_m(core), "-Wl,--entry=harness_run"]
        bare += ["-Wl,--no-gc-sections"] if streaming else []
        name = f"{core}-stream.elf" if streaming else f"{core}.elf"
        super().__init__(program, folder, [*flags, *bare], name, streaming=streaming)
        self._load(core)

    def _load(self, core: str) -> None:
        """Load the compiled program into Unicorn."""
        from unicorn import UC_ARCH_ARM, UC_HOOK_BLOCK, UC_MODE_MCLASS, UC_MODE_THUMB, Uc
        from unicorn import arm_const as arm

        self._elf = Elf(self.path.read_bytes())
        self._starts = sorted((address, name) for name, (address, _) in self._elf.functions.items())
        self._blocks: dict[tuple[int, int], int] = {}
        self.counts: dict[str, int] = {}
        models = {"cortex_m4": arm.UC_CPU_ARM_CORTEX_M4, "cortex_m7": arm.UC_CPU_ARM_CORTEX_M7}
        # Any, because Unicorn's type hints do not know what it creates for ARM.
        self._machine: Any = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self._machine.ctl_set_cpu_model(models.get(core, arm.UC_CPU_ARM_CORTEX_M0))
        self._machine.mem_map(0, 1 << 22)
        self._machine.mem_map(RAM, 1 << 22)
        for address, data in self._elf.segments:
            self._machine.mem_write(address, data)
        self._machine.hook_add(UC_HOOK_BLOCK, self._count)

    def _count(self, machine, address, size, user) -> None:
        """Unicorn's hook: called before each basic block."""
        self._blocks[address, size] = self._blocks.get((address, size), 0) + 1

    def _function(self, address: int) -> str:
        return self._starts[bisect.bisect(self._starts, (address, "\U0010ffff")) - 1][1]

    def _thumb(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        """The Thumb instructions in `size` bytes of code, as two half-words; the second is 0 if unused."""
        halves = iter(struct.unpack(f"<{size // 2}H", self._machine.mem_read(address, size)))
        for half in halves:
            yield half, next(halves, 0) if half >> 11 >= 0b11101 else 0

    def words_accessed(self, names: Collection[str]) -> int:
        """The number of words that the named functions loaded and stored in the last run.

        It is derived from their instructions, because Unicorn hangs on some code if its memory hook is used.
        Conditional instructions count even when skipped.
        """
        own = [block for block in self._blocks if self._function(block[0]) in names]
        return sum(self._blocks[block] * sum(map(_words, self._thumb(*block))) for block in own)

    def _write(self, data: bytes) -> None:
        self._machine.mem_write(self._elf.objects["scnn_samples"][0], data)

    def _read(self, name: str, size: int) -> bytes:
        return bytes(self._machine.mem_read(self._elf.objects[name][0], size))

    def _call(self, function: str, count: int) -> int:
        from unicorn import arm_const as arm

        self._blocks.clear()
        machine, end = self._machine, 0x3FFFF0
        machine.reg_write(arm.UC_ARM_REG_SP, RAM + (1 << 22))
        machine.reg_write(arm.UC_ARM_REG_LR, end | 1)
        machine.reg_write(arm.UC_ARM_REG_R0, count & 0xFFFFFFFF)
        machine.emu_start(self._elf.functions[function][0] | 1, end)
        self.counts = {}
        for (address, size), times in self._blocks.items():
            name = self._function(address)
            self.counts[name] = self.counts.get(name, 0) + times * sum(1 for _ in self._thumb(address, size))
        answer = machine.reg_read(arm.UC_ARM_REG_R0)
        return answer - (1 << 32) if answer >> 31 else answer


def _words(instruction: tuple[int, int]) -> int:
    """The number of words that an instruction from `CortexM._thumb` loads or stores."""
    half, rest = instruction
    if half >> 11 >= 0b11101:
        if half >> 9 == 0b1110100:  # double-word, or a list of registers
            return 2 if half & 0x40 else rest.bit_count()
        return int(half >> 9 == 0b1111100)
    if half & 0xF600 == 0xB400:  # push and pop
        return (half & 0x1FF).bit_count()
    if half >> 12 == 0b1100:  # a list of registers
        return (half & 0xFF).bit_count()
    return int(half >> 11 == 0b01001 or 5 <= half >> 12 <= 9)


class Elf:
    """A 32-bit ELF file: `segments` to load, and `functions` and `objects` as {name: (address, bytes)}."""

    def __init__(self, data: bytes):
        program, sections = struct.unpack_from("<II", data, 28)
        size, count, each, number = struct.unpack_from("<HHHH", data, 42)
        self.segments = []
        for i in range(count):
            kind, offset, address, _, length = struct.unpack_from("<5I", data, program + i * size)
            if kind == 1 and length:
                self.segments.append((address, data[offset : offset + length]))
        headers = [struct.unpack_from("<10I", data, sections + i * each) for i in range(number)]
        self.functions: dict[str, tuple[int, int]] = {}
        self.objects: dict[str, tuple[int, int]] = {}
        for header in headers:
            if header[1] != 2:  # not a symbol table
                continue
            names = headers[header[6]][4]
            for at in range(header[4], header[4] + header[5], 16):
                name, value, length, info = struct.unpack_from("<IIIB", data, at)
                text = data[names + name : data.index(b"\0", names + name)].decode()
                if info & 15 == 2:
                    self.functions[text] = value & ~1, length
                elif info & 15 == 1:
                    self.objects[text] = value, length


def expected(program: Program, clips: Sequence[np.ndarray]) -> list[Outcome]:
    """The reference's `Outcome` of each recording, int16 [n]."""
    images = program.front_end.images(clips)
    found = reference.run(program, images)
    logs = [image.astype("<i2").tobytes() for image in images]
    for layer in found.hidden:
        logs = [log + activity.tobytes() for log, activity in zip(logs, layer, strict=True)]
    return [Outcome(*each) for each in zip(found.answers, found.scores.tolist(), logs, strict=True)]


def verify(target: Target, clips: Sequence[np.ndarray], outcomes: Sequence[Outcome] | None = None) -> int:
    """The number of recordings whose result differs from the reference in any bit of any layer.

    Args:
        clips: int16 [n] each.
        outcomes: the reference's, if already known.
    """
    outcomes = expected(target.program, clips) if outcomes is None else outcomes
    return sum(target.run(pcm) != wanted for pcm, wanted in zip(clips, outcomes, strict=True))


def instructions(target: CortexM, clips: Sequence[np.ndarray]) -> pd.DataFrame:
    """Instructions per recording for each function: mean, least and most over the recordings.

    Conditional instructions count even when skipped. The harness's own instructions are left out.
    """
    counts = []
    for pcm in clips:
        target.run(pcm)
        own = {name: n for name, n in target.counts.items() if name not in ("harness_run", "scnn_trace")}
        counts.append(own)
    table = pd.DataFrame(counts).fillna(0).T
    table.loc["sum"] = table.sum()
    return pd.DataFrame({"mean": table.mean(axis=1), "least": table.min(axis=1), "most": table.max(axis=1)})


def sizes(target: CortexM) -> dict[str, int]:
    """Bytes of a program on a Cortex-M: `code`, `constants` and `ram`, without the harness."""
    elf = target._elf
    own = ("harness_run", "scnn_trace", "scnn_samples", "scnn_log", "scnn_logged")
    code = sum(size for name, (_, size) in elf.functions.items() if name not in own)
    objects = [(at, size) for name, (at, size) in elf.objects.items() if name not in own]
    ram = sum(size for at, size in objects if at >= RAM)
    return {"code": code, "constants": sum(size for _, size in objects) - ram, "ram": ram}
