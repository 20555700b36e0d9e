"""Search over an experiment's parameters, random or Bayesian, on Ray Tune: one machine or a cluster.

`search` suggests parameters, trains an `Experiment` for each and stops the unpromising ones early. It writes
down what it suggested and what came out, so that calling it again resumes a search that was interrupted. With
several objectives, such as accuracy and instructions, it looks for the front between them.
"""

import dataclasses
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from scnn.data import fingerprint
from scnn.experiment import Experiment, load_data, state_file
from scnn.features import Features
from scnn.files import cache_dir, canonical, locked, read_json, write_json

# In a notebook, importing Ray would report that ipywidgets are missing, which nothing here uses.
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
try:
    import optuna
    import ray
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
        distribution_to_json,
    )
    from optuna.trial import TrialState, create_trial
    from pyarrow.fs import FileSystem, FileType
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
    from ray.tune.search import Searcher

    from scnn._ray import session
    from scnn._trial import MEASURED, given, train, varied
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"scnn.search needs Ray Tune and Optuna; {error.name} is missing: pip install 'scnn-audio[search]'",
        name=error.name,
    ) from error

KINDS = ("random", "tpe")
# What a search can aim at, and whether more or less of it is better. `instructions` are those of a word on a
# Cortex-M4 as `scnn.deploy.cost.estimate` has them, which needs neither compiler nor emulator.
OBJECTIVES = {"accuracy": "max", "sparsity_all": "max", "instructions": "min", "packed_bytes": "min"}
SPACE = {"threshold": (0.0, 5.0), "num_steps": (1, 25), "beta": (0.0, 1.0)}  # the paper's, whose T began at 0
STARTUP = 5  # trials of kind "tpe" that are drawn at random, before there is something to learn from
RESTARTS = 3  # of one trial, each after its machine or process was lost
FORMAT = 2  # raise it when the same search suggests or writes down something else
_FIXED = ("corpus", "split", "test", "validation", "epochs", "seed")  # or trials do not compare
_TYPES = {each.name: each.type for each in dataclasses.fields(Experiment)}


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        table: a row a trial, in the order of suggestion: the parameters; `status`, which is "finished" or
            "stopped" (early); `epochs` trained; and on the validation clips, after the last of them,
            `accuracy`, `sparsity_first` and `sparsity_all`, all in 0..1. `test_accuracy` is there for the
            chosen trial alone. With further `objectives` there is a column for each.
        best: the chosen trial: of the finished ones that of the highest validation accuracy, and of several
            such the sparsest.
    """

    table: pd.DataFrame
    best: Experiment


def search(
    base: Experiment,
    space: Mapping[str, tuple[float, float] | list] = SPACE,
    *,
    trials: int,
    kind: str = "random",
    objectives: Sequence[str] = ("accuracy",),
    seed: int = 0,
    grace: int = 2,
    reduction: int = 3,
    address: str | None = None,
    storage: str | Path | None = None,
    max_concurrent: int | None = None,
) -> Search:
    """Train `trials` variations of `base` and choose the one of the highest validation accuracy.

    Suggestion n depends on the seed, on n and, for "tpe", on the results known by then. So a random search
    always tries the same parameters; "tpe" does so with `max_concurrent` 1, and where several trials run at
    once, their order of arrival matters. What ASHA stops depends on that order for both kinds.

    To resume a search that was interrupted (Ctrl-C, a kill, a lost machine), call it again with the same
    arguments; with more `trials`, it is extended. Trials that ended are read, and those under way resume
    after their last epoch.

    Args:
        base: what is not searched over; its validation clips guide the search, its test clips do not. The
            accuracy is that of its `readout`.
        space: of each parameter a tuple (lowest, highest), both included, or a list of choices.
        trials: how many in all, those of earlier calls included.
        kind: "random", or "tpe", Optuna's tree-structured Parzen estimator, which learns from earlier trials.
        objectives: one or more of `OBJECTIVES`, the accuracy among them. With several, "tpe" looks for trials
            that no other beats in all of them (`scnn.metrics.pareto` finds these in the table), and no trial
            is stopped early, as one that is less accurate may be cheaper.
        seed: of the suggestions. The seed of the trainings is that of `base`.
        grace: epochs before ASHA, the asynchronous successive halving, stops a trial.
        reduction: after `grace` epochs, and after `reduction` times as many again and again, a trial
            continues only if it is among the best 1 / `reduction` of the trials that have reached it so far.
        address: of a Ray cluster that this machine is part of, HOST:PORT or "auto". None starts Ray here.
        storage: folder or URI (s3://...) that all machines reach. There the state of every unfinished
            training is kept, so that another machine can resume it. Not needed on one machine, or where
            SCNN_HOME is shared.
        max_concurrent: trials at once, by default one for each CPU. A trial uses one CPU, and one thread of
            it.

    Raises:
        ValueError: parameters are not valid, and the message lists what is; or the search's file is damaged
            or of another search, and the message names it.
        RuntimeError: a trial failed, or none of them finished, as they diverged.
    """
    distributions = _check(base, space, trials, kind, seed, grace, reduction, address, max_concurrent)
    goals = _check_objectives(objectives)
    described = {
        "format": FORMAT,
        "base": json.loads(base.to_json()),
        "corpus": fingerprint(base.corpus),
        "space": {name: distribution_to_json(values) for name, values in distributions.items()},
        "kind": kind,
        "objectives": list(goals),
        "seed": seed,
        "asha": [grace, reduction],
    }
    digest = _checksum(described)[:20]
    file = cache_dir() / "searches" / f"{digest}.json"
    with locked(file):
        journal = _Journal(file, described)
        if storage is not None:
            where = str(storage) if "://" in str(storage) else str(Path(storage).resolve())
            storage = f"{where.rstrip('/')}/{digest}"
        if any(number not in journal.ended() for number in range(trials)):
            draw = partial(_suggestion, kind, seed, distributions, goals)
            epochs = base.training().epochs
            scheduler: TrialScheduler = ASHAScheduler("epoch", "accuracy", "max", epochs, grace, reduction)
            rungs = sorted({min(grace * reduction**k, epochs) for k in range(epochs)})
            if len(goals) > 1:
                scheduler, rungs = FIFOScheduler(), [epochs]
            settings = {"base": base, "storage": storage, "rungs": rungs, "objectives": goals}
            with session(address):
                _tune(settings, journal, trials, draw, scheduler, max_concurrent)
        _clean(base, journal, storage)  # also what a search that was killed at its end has left
        return _result(base, journal, trials)


def importance(table: pd.DataFrame, space: Mapping[str, tuple | list] = SPACE, seed: int = 0) -> pd.Series:
    """How much of the variance of the validation accuracy each parameter explains; the sum is 1.

    fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014) as in Optuna: a random forest is fitted to the trials of
    `table`, and for each parameter the forest's answer is averaged over all others. What parameters do only
    together is left out. A trial that was stopped early counts with the accuracy that it had.
    """
    distributions = {name: _distribution(name, values) for name, values in space.items()}
    with _optuna_quiet():
        study = optuna.create_study(direction="maximize")
        for row in table[[*space, "accuracy"]].to_dict("records"):
            value = row.pop("accuracy")
            study.add_trial(create_trial(params=row, distributions=distributions, value=value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(space))
    return pd.Series(shares, name="importance").reindex(list(space))


def _check(base, space, trials, kind, seed, grace, reduction, address, max_concurrent):
    """The distribution of each parameter; `ValueError` for what cannot be searched."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    counts = {"trials": (trials, 1), "seed": (seed, 0), "grace": (grace, 1), "reduction": (reduction, 2)}
    if max_concurrent is not None:
        counts["max_concurrent"] = (max_concurrent, 1)
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    epochs = base.training().epochs
    if grace > epochs:
        raise ValueError(f"grace must be at most the {epochs} epochs of the base, not {grace}")
    if address is not None and address.startswith("ray://"):
        raise ValueError(f"address must be HOST:PORT or auto, not {address!r}; call from inside the cluster")
    valid = ", ".join(name for name in _TYPES if name not in _FIXED)
    if not space:
        raise ValueError(f"space is empty; it must name one or more of {valid}")
    for name, values in space.items():
        if name not in _TYPES or name in _FIXED:
            raise ValueError(f"space has {name!r}; valid: {valid}")
        range_of = isinstance(values, tuple) and len(values) == 2 and _TYPES[name] in (int, float)
        choices = isinstance(values, list) and len(set(values)) > 1
        allowed = (int, float) if _TYPES[name] is float else (_TYPES[name],)
        if not (range_of or choices) or any(type(value) not in allowed for value in values):
            raise ValueError(
                f"space[{name!r}] must be a tuple (lowest, highest) or a list of two or more choices, "
                f"of type {_TYPES[name].__name__}, not {values!r}"
            )
        if range_of and not values[0] < values[1]:
            raise ValueError(f"space[{name!r}] must be (lowest, highest), not {values!r}")
        for value in values:  # what Experiment refuses is reported before anything is trained
            dataclasses.replace(base, **{name: value})
    data = load_data(base)  # this also leaves the features in the cache, for all trials
    base.build(len(data.corpus.classes))
    if not len(data.split.validation):
        raise ValueError(
            f"validation = {base.validation} of the base leaves no clips to guide the search; use e.g. 0.2, "
            "or split = 'speaker:NAME,OTHER'"
        )
    return {name: _distribution(name, values) for name, values in space.items()}


def _check_objectives(objectives: Sequence[str]) -> dict[str, str]:
    named = tuple(objectives)
    if "accuracy" not in named or len(set(named)) < len(named) or not set(named) <= OBJECTIVES.keys():
        raise ValueError(
            f"objectives must be different ones of {', '.join(OBJECTIVES)}, and accuracy among them, "
            f"not {objectives!r}"
        )
    return {name: OBJECTIVES[name] for name in named}


def _distribution(name: str, values: tuple | list) -> BaseDistribution:
    if isinstance(values, list):
        plain = [json.dumps(asdict(each)) if isinstance(each, Features) else each for each in values]
        return CategoricalDistribution(plain)
    return (IntDistribution if _TYPES[name] is int else FloatDistribution)(*values)


class _Journal:
    """The file of a search: for each trial what was suggested and, once it has ended, what came out.

    Ray and Optuna could keep this themselves, but promise less. `ray.tune.Tuner.restore` reads pickles
    written every ten seconds at most; it forgets what ASHA has seen, takes no higher number of trials, and
    starts from nothing where its state is damaged. Optuna's `JournalStorage` keeps suggestions and results,
    but not the state of the sampler, and leaves it to the caller to resume trials. A line torn by a kill
    makes its file unreadable from the next write on, and after a lost line trials are mixed up in silence.
    """

    def __init__(self, file: Path, described: dict[str, Any]):
        self.file, self.described = file, described
        self.trials: list[dict[str, Any]] = []  # in the order of suggestion
        if not file.exists():
            return
        try:
            content = read_json(file)
            if not isinstance(content, dict) or content.get("search") != described:
                raise ValueError("it is not of this search")
            if content.get("checksum") != _checksum(content.get("trials")):
                raise ValueError("it is damaged, the checksum differs")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{file} cannot be resumed from ({error}); remove the file to search anew (what was trained "
                "completely is remembered elsewhere)"
            ) from error
        self.trials = content["trials"]

    def ended(self) -> dict[int, dict[str, Any]]:
        return {number: trial for number, trial in enumerate(self.trials) if "status" in trial}

    def write(self) -> None:
        content = {"search": self.described, "trials": self.trials, "checksum": _checksum(self.trials)}
        write_json(self.file, content)


def _checksum(content: Any) -> str:
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _suggestion(
    kind: str,
    seed: int,
    distributions: dict[str, BaseDistribution],
    objectives: dict[str, str],
    trials: list[dict[str, Any]],
) -> dict[str, Any]:
    """The parameters of the trial after `trials`: from the seed, its number and, for "tpe", their results.

    An Optuna sampler draws from one stream of random numbers, which would start anew in a resumed search. So
    each parameter of each trial has a sampler of its own.
    """
    study = optuna.create_study(
        directions=["maximize" if mode == "max" else "minimize" for mode in objectives.values()]
    )
    for trial in trials:
        ended = "status" in trial
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if ended else TrialState.RUNNING,
                params=trial["parameters"],
                distributions=distributions,
                values=[trial[name] for name in objectives] if ended else None,
            )
        )
    parameters = {}
    for name, distribution in distributions.items():
        basis = f"{kind} {seed} {len(trials)} {name}".encode()
        own_seed = int.from_bytes(hashlib.sha256(basis).digest()[:4], "big")
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=own_seed)
        if kind == "tpe":
            sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=own_seed)
        new = create_trial(state=TrialState.RUNNING)
        parameters[name] = sampler.sample_independent(study, new, name, distribution)
    return parameters


class _Suggestions(Searcher):
    """Ray Tune asks it for the parameters of the next trial, and tells it how each trial ended."""

    def __init__(self, journal: _Journal, left: list[int], draw: Callable, epochs: int, bar: tqdm):
        super().__init__()
        self.journal, self.left, self.draw = journal, left, draw
        self.epochs, self.bar = epochs, bar
        self.numbers: dict[str, int] = {}  # of Ray's names

    def __getstate__(self):  # Ray keeps copies to restore from, which the journal is for
        return {}

    def save(self, checkpoint_path: str) -> None:  # likewise
        pass

    def suggest(self, trial_id: str) -> dict[str, Any]:
        number = self.numbers[trial_id] = self.left.pop(0)
        if number == len(self.journal.trials):
            self.journal.trials.append({"parameters": self.draw(self.journal.trials)})
            self.journal.write()
        return self.journal.trials[number]["parameters"]

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if result is None:  # it failed
            return
        status = "finished" if result["epoch"] == self.epochs else "stopped"
        end = {"status": status, "epochs": result["epoch"], "accuracies": result["accuracies"]}
        for name in ("accuracy", *MEASURED, *self.journal.described["objectives"]):
            end[name] = None if np.isnan(result[name]) else result[name]
        self.journal.trials[self.numbers[trial_id]] |= end
        self.journal.write()
        self.bar.update()
        self.bar.set_postfix(best=f"{max(trial['accuracy'] for trial in self.journal.ended().values()):.3f}")


def _tune(
    settings: dict[str, Any],
    journal: _Journal,
    trials: int,
    draw: Callable[[list[dict[str, Any]]], dict[str, Any]],
    scheduler: TrialScheduler,
    max_concurrent: int | None,
) -> None:
    """Run what is left of the search, in the Ray session that is there."""
    ended = journal.ended()
    for number, trial in ended.items():
        _judge_again(scheduler, f"ended {number}", trial["accuracies"])
    left = [number for number in range(trials) if number not in ended]
    kind, epochs = journal.described["kind"], settings["base"].training().epochs
    bar = tqdm(total=trials, initial=trials - len(left), desc=f"{kind} search", disable=None, leave=False)
    with _optuna_quiet(), tempfile.TemporaryDirectory() as scratch, bar:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(train, **settings), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=_Suggestions(journal, left, draw, epochs, bar),
                scheduler=scheduler,
                num_samples=len(left),
                max_concurrent_trials=max_concurrent or max(1, int(ray.cluster_resources()["CPU"])),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="search",
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                verbose=0,
            ),
        )
        failed = tuner.fit().errors
    if failed:
        last_line = str(failed[0]).strip().splitlines()[-1]
        raise RuntimeError(
            f"{len(failed)} of {trials} trials failed, one with: {last_line}. "
            "The same call tries them again; trials that ended are kept."
        )


def _judge_again(scheduler: TrialScheduler, name: str, accuracies: list[float]) -> None:
    """Tell ASHA the accuracies of a trial that ended in an earlier call."""
    trial = tune.experiment.Trial("past", trial_id=name, stub=True)
    nobody: Any = None  # runs it: it ended
    scheduler.on_trial_add(nobody, trial)
    for epoch, accuracy in enumerate(accuracies, start=1):
        scheduler.on_trial_result(nobody, trial, {"epoch": epoch, "accuracy": accuracy})
    scheduler.on_trial_remove(nobody, trial)


def _clean(base: Experiment, journal: _Journal, storage: str | None) -> None:
    """Remove the training states of the trials that were stopped: nothing will resume them."""
    for trial in journal.ended().values():
        if trial["status"] == "stopped":
            folder = state_file(varied(base, trial["parameters"])).parent
            if folder.exists():
                # Where another process holds the lock, the folder is in use.
                with suppress(Timeout), FileLock(folder.with_suffix(".lock"), timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
    if storage is not None:
        system, path = FileSystem.from_uri(storage)
        if system.get_file_info(path).type == FileType.Directory:
            system.delete_dir(path)


def _result(base: Experiment, journal: _Journal, trials: int) -> Search:
    rows = []
    for trial in journal.trials[:trials]:
        end = {name: value for name, value in trial.items() if name not in ("parameters", "accuracies")}
        end = {name: np.nan if value is None else value for name, value in end.items()}
        rows.append(given(trial["parameters"]) | end)
    table = pd.DataFrame(rows).rename_axis("trial")
    finished = table[table["status"] == "finished"]
    if finished.empty:
        raise RuntimeError(
            f"none of the {trials} trials finished: they diverged, or were stopped early; search with more "
            "trials, or in another space"
        )
    best = finished.sort_values(["accuracy", "sparsity_all"], ascending=False, kind="stable").index[0]
    table.loc[table.index != best, "test_accuracy"] = np.nan
    return Search(table, varied(base, journal.trials[best]["parameters"]))


@contextmanager
def _optuna_quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
