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
    """Raise `ValueError`, which says what to do, where one of `packages` is not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ValueError(f"this needs the package {' and '.join(missing)}: pip install 'scnn-audio[edge]'")


def compile_c(arguments: Sequence[str], command: Sequence[str] = ZIG) -> None:
    """Compile with `ziglang`, or another `command`.

    Raises:
        ValueError: the compiler fails, and the message is what it says; or `ziglang` is missing.
    """
    if command is ZIG:
        require("ziglang")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the C compiler refused {' '.join(arguments)}:\n{done.stderr}")


def shared_library() -> list[str]:
    """Flags for a library that this machine loads."""
    return ["-shared", "-fPIC"]


def bare_cortex_m(core: str) -> list[str]:
    """Flags for code of a Cortex-M without a system; `core` is one of `CORES`."""
    if core not in CORES:
        raise ValueError(f"core must be one of {', '.join(CORES)}, not {core!r}")
    script = f"-Wl,--script={SOURCES / 'cortex_m.ld'}"
    code = ["-ffunction-sections", "-fomit-frame-pointer"]
    return ["-target", CORES[core], f"-mcpu={core}", *_BARE, *code, script]


def bare_wasm(exports: Sequence[str]) -> list[str]:
    """Flags for WebAssembly without a system."""
    return [
        "-target",
        "wasm32-freestanding",
        *_BARE,
        "-Wl,--no-entry",
        *(f"-Wl,--export={e}" for e in exports),
    ]


def export_c(program: Program, folder: Path | str) -> list[Path]:
    """The C sources of `program` in `folder`, all of them or none; what was written."""
    with tempfile.TemporaryDirectory() as work:
        emit(program, work)
        return write_together(
            Path(folder), {path.name: path.read_bytes() for path in sorted(Path(work).iterdir())}
        )


def export_wasm(program: Program, folder: Path | str) -> list[Path]:
    """`scnn.wasm` and `scnn.mjs`, which loads it in a page or in Node, in `folder`; what was written."""
    files = {"scnn.mjs": (SOURCES / "scnn.mjs").read_bytes(), "scnn.wasm": wasm(program)}
    return write_together(Path(folder), files)


def wasm(program: Program) -> bytes:
    """WebAssembly that answers, tells what every layer did, and can be tuned; the same bytes every time."""
    with tempfile.TemporaryDirectory() as work:
        emit(program, work)
        sources = [f"{SOURCES / 'wasm.c'}", *(f"{work}/{name}" for name in CORE)]
        defines = [f"-DSCNN_TRACED={traced_bytes(program)}", f"-DSCNN_MOST_STEPS={most_steps(program)}"]
        flags = ["-O3", "-s", *bare_wasm([f"scnn_{name}" for name in _API]), *WARNINGS, f"-I{work}"]
        compile_c([*flags, "-DSCNN_TRACE", "-DSCNN_TUNABLE", *defines, *sources, "-o", f"{work}/scnn.wasm"])
        return Path(work, "scnn.wasm").read_bytes()
