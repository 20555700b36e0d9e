"""Papermill over the notebooks: each is executed with its parameters, and only if something has changed."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from filelock import FileLock
from nbclient.exceptions import DeadKernelError
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError

import scnn
from scnn import data
from scnn.book import ROWS, parameters
from scnn.files import atomic_write

_START = 600  # seconds for a kernel to start in, on a machine that does much else


@dataclass(frozen=True)
class Job:
    """One notebook to execute: where it is, where its run goes, and with which parameters."""

    source: Path
    target: Path
    parameters: dict[str, Any]


def run(jobs: Iterable[Job], scratch: Path) -> list[str]:
    """Execute notebooks, with a line for each; one that fails does not stop the others.

    A notebook is not run again where its cells, its parameters, the corpus and the package are those of the
    run already at its target. A run moves to its target when complete, so an interrupt keeps what finished.

    Args:
        jobs: the notebooks.
        scratch: folder for the notebooks that are running, each in a folder of its own, so that two commands
            do not meet there; one that fails stays.

    Returns:
        One message for each notebook that failed, with notebook, cell and error.
    """
    # Without ipywidgets, which no page uses, tqdm would write this into the first cell of each.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    jobs, failures, watched = list(jobs), [], sys.stderr.isatty()
    package = _package_digest()
    for number, job in enumerate(jobs, start=1):
        line = f"[{number}/{len(jobs)}] {job.source.stem}"
        started = time.monotonic()
        source = nbformat.read(job.source, as_version=4)
        in_place = job.target == job.source
        digest = None if in_place else _digest(source, job.parameters, package)
        if digest and job.target.exists():
            if nbformat.read(job.target, as_version=4).metadata.get("scnn") == digest:
                print(f"{line}: unchanged", flush=True)
                continue
        if not watched:
            print(f"{line}: running", flush=True)
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{job.source.stem}-", dir=scratch))
        partial, rows = folder / job.source.name, folder / "records.csv"
        os.environ[ROWS] = str(rows.absolute())
        failure = None
        try:
            execute_notebook(
                job.source,
                partial,
                job.parameters,
                start_timeout=_START,
                progress_bar={"desc": line, "leave": False} if watched else False,
                extra_arguments=[
                    "--log-level=ERROR"
                ],  # the kernel warns of plain TCP, and it is this machine's own
            )
        except PapermillExecutionError as error:
            first_line = error.source.strip().partition("\n")[0]
            failure = f"cell [{error.exec_count}] ({first_line}): {error.ename}: {error.evalue}"
        except DeadKernelError as error:
            failure = f"the kernel died: {error}"
        except RuntimeError as error:  # of one that did not start
            failure = f"no kernel: {error}"
        finally:
            os.environ.pop(ROWS, None)  # a notebook that is run by other means leaves nothing there
        print(f"{line}: {'failed' if failure else 'ok'}, {time.monotonic() - started:.1f} s", flush=True)
        if failure:
            failures.append(f"{job.source}, {failure}\n    The run up to there: {partial}")
            continue
        executed = nbformat.read(partial, as_version=4)
        _tidy(executed, source)
        if digest:
            executed.metadata["scnn"] = digest
        nbformat.write(executed, partial)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        if not in_place:
            with FileLock(scratch / "records.lock"):
                _merge(rows, job.target)
        os.replace(partial, job.target)
        shutil.rmtree(folder)
    return failures


def _merge(rows: Path, target: Path) -> None:
    """Put a page's trainings in the place of its earlier ones in `records.csv`, beside the page."""
    records, parts = target.with_name("records.csv"), []
    if records.exists():
        earlier = pd.read_csv(records)
        parts.append(earlier[earlier["page"] != target.stem])
    if rows.exists():
        new = pd.read_csv(rows)
        new.insert(0, "page", target.stem)
        parts.append(new)
    parts = [part for part in parts if len(part)]
    if parts:
        with atomic_write(records) as file:
            pd.concat(parts).sort_values("page", kind="stable").to_csv(file, index=False)


def _tidy(executed: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Take out of a run what another machine or another minute would write differently."""
    metadata = {cell["id"]: cell["metadata"] for cell in source["cells"]}
    for cell in executed["cells"]:
        if cell["id"] in metadata:
            cell["metadata"] = metadata[cell["id"]]
        else:
            cell["id"] = "injected-parameters"
            cell["metadata"] = {"tags": ["injected-parameters"]}
        cell.update(_joined(cell))
    executed["metadata"].clear()
    executed["metadata"].update(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )


def _joined(cell: Mapping[str, Any]) -> dict[str, list]:
    """The outputs of a cell, printed text in one piece; a busy machine hands it over in several."""
    joined: list[dict[str, Any]] = []
    for one in cell.get("outputs", []):
        if joined and one.get("name") and one.get("name") == joined[-1].get("name"):
            joined[-1]["text"] += one["text"]
        else:
            joined.append(one)
    return {"outputs": joined} if joined else {}


def _package_digest() -> str:
    """Digest of the package's own files, which a run depends on as much as on its notebook."""
    package = Path(scnn.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest(notebook: Mapping[str, Any], wanted: Mapping[str, Any], package: str) -> str:
    values = parameters(notebook) | wanted
    corpus = values.get("corpus")
    basis = {
        "cells": [
            [cell["id"], cell["cell_type"], cell["source"], cell["metadata"]] for cell in notebook["cells"]
        ],
        "parameters": values,
        "corpus": data.fingerprint(corpus) if corpus else None,
        "package": package,
    }
    return hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()
