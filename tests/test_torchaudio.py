"""torchaudio can be imported with or without its compiled extension, and no other failure is hidden."""

import subprocess
import sys

import pytest

from scnn._torchaudio import import_torchaudio

PACKAGE = {
    "__init__.py": "from . import _extension\n",
    "_extension/__init__.py": "from .utils import _load_lib\nLOADED = _load_lib('_torchaudio')\n",
    "_extension/utils.py": """\
from pathlib import Path
_LIB_DIR = Path(__file__).parent.parent / "lib"
def _load_lib(lib):
    paths = list(_LIB_DIR.glob(f"{lib}*.so"))
    if paths:
        exec(paths[0].read_text(), {"path": paths[0].resolve()})
    return bool(paths)
""",
}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A package like torchaudio, whose library runs the given Python code when it is loaded."""

    def forget():
        names = [name for name in sys.modules if name.split(".")[0] == "torchaudio"]
        return {name: sys.modules.pop(name) for name in names}

    def make(library, **replaced):
        for name, text in (PACKAGE | {"lib/_torchaudio.abi3.so": library} | replaced).items():
            path = tmp_path / "torchaudio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    real = forget()
    monkeypatch.syspath_prepend(tmp_path)
    yield make
    forget()
    sys.modules.update(real)


def test_extension_that_loads_is_kept(stand_in):
    stand_in("")
    assert import_torchaudio()._extension.LOADED is True


def test_extension_that_cannot_be_loaded_is_left_out(stand_in):
    stand_in("raise OSError(f'Could not load this library: {path}')")
    assert import_torchaudio()._extension.LOADED is False


@pytest.mark.parametrize(
    ("library", "replaced", "error"),
    [
        ("raise OSError('No space left on device')", {}, OSError),
        ("raise RuntimeError('compiled with different CUDA versions')", {}, RuntimeError),
        ("", {"__init__.py": "raise OSError('libsomething.so: cannot open')"}, OSError),
        ("", {"__init__.py": "import a_module_that_is_not_there"}, ModuleNotFoundError),
    ],
)
def test_other_failures_are_raised(stand_in, library, replaced, error):
    stand_in(library, **replaced)
    with pytest.raises(error, match=r"No space|different CUDA|libsomething|a_module_that"):
        import_torchaudio()


def test_real_torchaudio_works_without_its_extension():
    """Simulates a build of torch that the extension does not fit, whichever build is installed."""
    program = """
import torch
def load_library(path):
    raise OSError(f"Could not load this library: {path}")
torch.ops.load_library = load_library
from scnn._torchaudio import torchaudio
import sys
assert sys.modules["torchaudio"] is torchaudio
assert not torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE
print(tuple(torchaudio.functional.create_dct(16, 128, "ortho").shape))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("(128, 16)\n", 0), done.stderr
