"""The files around the package: consistent versions, a repeatable set-up, and commands that exist."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = dict(PROJECT["project"]["optional-dependencies"])
PEERS = EXTRAS.pop("peers")  # other libraries, for an environment of their own
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)
VERSIONS = {canonicalize_name(name): version for name, version in PINS.items()}


def environment() -> tuple[str, list[str]]:
    """From environment.yml: the Python requirement, and the packages for pip."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = [one for one in listed if isinstance(one, str) and one.startswith("python=")]
    (pip,) = [one["pip"] for one in listed if isinstance(one, dict)]
    return python.removeprefix("python="), pip


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("folder", ["scnn", "book", "tests"])
def test_what_is_imported_is_a_declared_dependency(folder):
    requirements = [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
    declared = {canonicalize_name(Requirement(one).name) for one in requirements}
    wheels = packages_distributions()
    own = {"scnn", "benchmarks", "book"} | {
        path.stem for name in ("book", "tests") for path in (ROOT / name).rglob("*.py")
    }
    for path in (ROOT / folder).rglob("*.py"):
        for name in imported(path) - own - sys.stdlib_module_names:
            made = {canonicalize_name(wheel) for wheel in wheels.get(name, ["?"])}
            assert made & declared, (
                f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not name"
            )


@pytest.mark.parametrize(
    "requirement", [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
)
def test_every_requirement_has_a_pin_that_satisfies_it(requirement):
    wanted = Requirement(requirement)
    version = VERSIONS.get(canonicalize_name(wanted.name))
    assert version, f"{wanted.name} is not in constraints.txt"
    assert wanted.specifier.contains(version), f"constraints.txt has {wanted.name} {version}"


def test_the_peers_of_the_benchmark_are_exact_versions():
    assert all(str(Requirement(one).specifier).startswith("==") for one in PEERS)


def test_pins_are_exact_and_accept_any_build():
    for name, version in PINS.items():
        assert re.fullmatch(r"[\w.]+", version), f"{name}=={version} is no plain version"


def test_conda_installs_the_same_with_every_extra():
    python, pip = environment()
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python)
    assert pip == ["--constraint constraints.txt", f"--editable .[{','.join(EXTRAS)}]"]
    assert f'--editable ".[{",".join(EXTRAS)}]"' in (ROOT / "Makefile").read_text()


def test_pre_commit_runs_the_pinned_ruff():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = [repo for repo in repos if repo["repo"].endswith("/ruff-pre-commit")]
    assert ruff["rev"] == f"v{VERSIONS['ruff']}"


def test_the_versions_of_the_citation_and_the_package_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'__version__ = "{citation["version"]}"' in (ROOT / "scnn" / "__init__.py").read_text()
    assert citation["license"] == PROJECT["project"]["license"]


def test_every_data_file_of_the_package_is_installed_with_it():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["scnn"]
    for path in (ROOT / "scnn").rglob("*"):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            inside = path.relative_to(ROOT / "scnn")
            assert any(inside.match(pattern) for pattern in patterns), (
                f"no package-data pattern takes {inside}"
            )


def test_the_table_of_contents_lists_what_is_there():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in contents["parts"] for chapter in part["chapters"]]
    files = [each["file"] for chapter in chapters for each in [chapter, *chapter.get("sections", [])]]
    prose = [name for name in [contents["root"], *files] if not name.startswith("book/runs/")]
    assert sorted(prose) == sorted(f"book/{path.stem}" for path in (ROOT / "book").glob("*.md"))
    runs = [Path(name).name for name in files if name.startswith("book/runs/")]
    assert runs == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    "path", ["README.md", "CONTRIBUTING.md", "book/index.md", "book/rerun.md", ".ci/run", ".github/workflows"]
)
def test_the_commands_that_are_named_exist(path):
    files = [ROOT / path] if (ROOT / path).is_file() else list((ROOT / path).glob("*.yml"))
    text = "\n".join(file.read_text() for file in files)
    named = set(re.findall(r"(?:^|`|run: )make ([a-z]+)", text, flags=re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert named and named <= targets, f"{sorted(named - targets)} is no target of the Makefile"


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the project's Makefile in an otherwise empty folder."""
    for name in ("pyproject.toml", "constraints.txt"):
        if not (folder / name).exists():
            (folder / name).write_text("")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = ["make", "-f", str(ROOT / "Makefile"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def interpreter(folder: Path, pip_status: int) -> Path:
    """A fake Python that creates an environment in which pip exits with the given status."""
    inner = f'#!/bin/sh\necho "$@" >> {folder}/calls\nexit {pip_status}\n'
    path = folder / f"python-{pip_status}"
    path.write_text(
        "#!/bin/sh\n[ $1 = -c ] && exit 0\nmkdir -p .venv/bin\n"
        f"cat > .venv/bin/python <<'EOF'\n{inner}EOF\nchmod +x .venv/bin/python\n"
    )
    path.chmod(0o755)
    return path


def test_the_makefile_lists_its_targets(tmp_path):
    listed = re.findall(r"^make (\w+) ", make(tmp_path).stdout, flags=re.MULTILINE)
    targets = "help setup book paper site test lint bench edge faults clean"
    assert set(listed) == set(targets.split())


def test_a_wrong_python_is_refused_by_name(tmp_path):
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = make(tmp_path, "setup", f"PYTHON={old}")
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stderr and str(old) in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_set_up_that_failed_is_begun_again_and_one_that_worked_is_not(tmp_path):
    assert make(tmp_path, "setup", f"PYTHON={interpreter(tmp_path, 1)}").returncode != 0
    assert not (tmp_path / ".venv" / ".ready").exists()

    (tmp_path / ".venv" / "left-over").touch()
    working = f"PYTHON={interpreter(tmp_path, 0)}"
    assert make(tmp_path, "setup", working).returncode == 0
    assert not (tmp_path / ".venv" / "left-over").exists()

    calls = (tmp_path / "calls").read_text()
    assert make(tmp_path, "setup", working).returncode == 0
    assert (tmp_path / "calls").read_text() == calls

    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\n")
    assert make(tmp_path, "setup", working).returncode == 0
    assert len((tmp_path / "calls").read_text()) > len(calls)
