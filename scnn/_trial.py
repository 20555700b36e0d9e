"""One trial of `scnn.search`, in a process of Ray's on any machine: train, and report each epoch to Tune."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.fs import FileSystem, FileType, copy_files
from ray import tune

from scnn import metrics
from scnn.deploy import cost
from scnn.experiment import Experiment, load_data, run, state_file
from scnn.features import Features
from scnn.training import Diverged

MEASURED = ("sparsity_first", "sparsity_all", "test_accuracy", "seconds")  # after a trial's last epoch
WORST = 1e12  # instructions or bytes of a training that diverged


def varied(base: Experiment, parameters: Mapping[str, Any]) -> Experiment:
    """The experiment of a trial."""
    return dataclasses.replace(base, **given(parameters))


def given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as `Experiment` takes them: a suggestion has features as JSON."""
    return {
        name: Features(**json.loads(value)) if name == "features" else value
        for name, value in parameters.items()
    }


def train(
    parameters: dict[str, Any],
    base: Experiment,
    storage: str | None,
    rungs: list[int],
    objectives: Mapping[str, str],
) -> None:
    """Train `base` with other `parameters`.

    Each report has the accuracies of all epochs so far. Sparsity takes a while to measure, so it is measured
    only where a trial may end: at the `rungs`, and after the last epoch. With `storage`, the state of the
    training is copied there after each epoch, and training resumes from what is there. `objectives` are
    "max" or "min" by name.
    """
    experiment = varied(base, parameters)
    data = load_data(experiment)
    clips = data.part(data.split.validation)[0]
    by = "accuracy_membrane" if experiment.readout == "membrane" else "accuracy"
    state, kept = state_file(experiment), f"{storage}/{experiment.digest}.safetensors"
    accuracies: list[float] = []  # of the epochs that were reported

    def report(network, history, at_last=None):
        measured = dict.fromkeys({*MEASURED, *objectives}, np.nan) | (at_last or {})
        new = history[len(accuracies) :]
        again = len(new) > 1  # epochs of an earlier call are reported at once
        if len(history) in rungs or again:
            active = metrics.activity(network, clips)
            first, whole = float(active["sparsity"].iloc[0]), metrics.sparsity(active)
            measured |= {"sparsity_first": first, "sparsity_all": whole}
        for row in new:
            accuracies.append(row[f"held_out_{by}"])
            seconds = sum(each["seconds"] for each in history[: len(accuracies)])
            tune.report(measured | _progress(accuracies) | {"seconds": seconds})

    def after_epoch(network, history):
        if storage is not None:
            _copy(state, kept)
        if len(history) < experiment.training().epochs:  # the last one is reported below, with the record
            report(network, history)

    if storage is not None and _exists(kept):
        state.parent.mkdir(parents=True, exist_ok=True)
        copy_files(kept, str(state))
    try:
        record = run(experiment, after_epoch)
    except Diverged:  # as bad as no answer; the other trials continue
        worst = {name: 0.0 if mode == "max" else WORST for name, mode in objectives.items()}
        tune.report(dict.fromkeys(MEASURED, np.nan) | worst | _progress([*accuracies, 0.0]))
        return
    network, at_last = record.network(), {"test_accuracy": record.metrics[by]}
    if "packed_bytes" in objectives:
        at_last["packed_bytes"] = record.metrics["packed_bytes"]
    if "instructions" in objectives:
        at_last["instructions"] = cost.estimate(network, clips, data.images.window[data.split.validation])
    report(network, record.history.to_dict("records"), at_last)


def _progress(accuracies: list[float]) -> dict[str, Any]:
    return {"epoch": len(accuracies), "accuracy": accuracies[-1], "accuracies": list(accuracies)}


def _exists(place: str) -> bool:
    system, path = FileSystem.from_uri(place)
    return system.get_file_info(path).type == FileType.File


def _copy(source: Path, place: str) -> None:
    """Copy a file to a path or URI, where it is either the old one or the new one at any time."""
    system, path = FileSystem.from_uri(place)
    system.create_dir(str(Path(path).parent))
    copy_files(str(source), f"{place}.part")
    system.move(f"{path}.part", path)
