"""torchaudio, also beside a build of torch that its compiled extension was not made for.

The PyPI wheel of torchaudio carries an extension that is linked against CUDA. Beside a CPU build of torch
that extension cannot be loaded, and `import torchaudio` fails with it. All that is used here is torchaudio's
Python, which runs without the extension, as torchaudio itself does where it was built without one.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


def import_torchaudio() -> ModuleType:
    """Import torchaudio, leaving out its compiled extension where, and only where, that cannot be loaded.

    Raises:
        ModuleNotFoundError: torchaudio is not installed.
        Exception: whatever else the import raises that does not come from loading a library of its own.
    """
    try:
        return importlib.import_module("torchaudio")
    except OSError as error:
        # The failed import leaves this submodule behind, complete: it is what looks for the libraries.
        loader: Any = sys.modules.get("torchaudio._extension.utils")
        # torch names the library that it could not load by its resolved path.
        if loader is None or str(loader._LIB_DIR.resolve()) not in str(error):
            raise
    # In a folder that is not there, torchaudio finds no extension and goes on without.
    loader._LIB_DIR = loader._LIB_DIR / "left-out"
    return importlib.import_module("torchaudio")


torchaudio = import_torchaudio()
