"""The C compiler of the `ziglang` package, and the targets it compiles for."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from scnn.deploy.emit import CORE, SOURCES, emit, traced_bytes
from scnn.deploy.quantize import Program, most_steps
from scnn.files import write_together

CORES = {"cortex_m4": "thumb-freestanding-eabihf", "cortex_m7": "thumb-freestanding-eabihf"}
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
ZIG = (sys.executable, "-m", "ziglang", "cc")
_BARE = ("-ffreestanding", "-nostdlib", "-fno-builtin")
_API = "input most_samples answer answers name classes rate most_steps tune traced records end".split()


def require(*packages: str) -> None:
    """Raise `ValueError`, with the command to install them, if any of `packages` is missing."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ValueError(f"this needs {' and '.join(missing)}: pip install 'scnn-audio[edge]'")


def compile_c(arguments: Sequence[str], command: Sequence[str] = ZIG) -> None:
    """Compile with `ziglang`, or with another compiler given by `command`.

    Raises:
        ValueError: the compiler fails (the message is its output), or `ziglang` is missing.
    """
    if command is ZIG:
        require("ziglang")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the C compiler failed on {' '.join(arguments)}:\n{done.stderr}")


def shared_library() -> list[str]:
    """Flags for a shared library on this machine."""
    return ["-shared", "-fPIC"]


def bare_cortex_m(core: str) -> list[str]:
    """Flags for a bare-metal Cortex-M; `core` is one of `CORES`."""
    if core not in CORES:
        raise ValueError(f"core must be one of {', '.join(CORES)}, not {core!r}")
    script = f"-Wl,--script={SOURCES / 'cortex_m.ld'}"
    code = ["-ffunction-sections", "-fomit-frame-pointer"]
    return ["-target", CORES[core], f"-mcpu={core}", *_BARE, *code, script]


def bare_wasm(exports: Sequence[str]) -> list[str]:
    """Flags for freestanding WebAssembly that exports the functions named in `exports`."""
    return [
        "-target",
        "wasm32-freestanding",
        *_BARE,
        "-Wl,--no-entry",
        *(f"-Wl,--export={e}" for e in exports),
    ]


def export_c(program: Program, folder: Path | str) -> list[Path]:
    """Write the C sources of `program` to `folder`, all or none of them, and return their paths."""
    with tempfile.TemporaryDirectory() as work:
        emit(program, work)
        return write_together(
            Path(folder), {path.name: path.read_bytes() for path in sorted(Path(work).iterdir())}
        )


def export_wasm(program: Program, folder: Path | str) -> list[Path]:
    """Write `scnn.wasm` and `scnn.mjs`, its loader for pages and Node, to `folder`; return their paths."""
    files = {"scnn.mjs": (SOURCES / "scnn.mjs").read_bytes(), "scnn.wasm": wasm(program)}
    return write_together(Path(folder), files)


def wasm(program: Program) -> bytes:
    """The WebAssembly of `program`, with layer tracing and tuning; the build is reproducible."""
    with tempfile.TemporaryDirectory() as work:
        emit(program, work)
        sources = [f"{SOURCES / 'wasm.c'}", *(f"{work}/{name}" for name in CORE)]
        defines = [f"-DSCNN_TRACED={traced_bytes(program)}", f"-DSCNN_MOST_STEPS={most_steps(program)}"]
        flags = ["-O3", "-s", *bare_wasm([f"scnn_{name}" for name in _API]), *WARNINGS, f"-I{work}"]
        compile_c([*flags, "-DSCNN_TRACE", "-DSCNN_TUNABLE", *defines, *sources, "-o", f"{work}/scnn.wasm"])
        return Path(work, "scnn.wasm").read_bytes()
