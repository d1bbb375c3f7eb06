"""Every notebook's examples, against the package as it is installed.

nbval runs the cells as they stand, so what it exercises is the notebook's own copy of the code. Here
the exporting cells are left out and the names of the module stand in for them. A notebook that exports nothing
would run as nbval runs it.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys

import pytest
from execnb.shell import CaptureShell

from planted import Project, result
from tools.notebooks import PACKAGE, ROOT, Notebook, notebooks


@pytest.mark.parametrize("nb", [nb for nb in notebooks() if nb.module], ids=lambda nb: nb.name)
def test_examples_hold_for_the_package(nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nb.path.parent)
    shell = CaptureShell(str(nb.path))
    module = importlib.import_module(f"{PACKAGE}.{nb.module}")
    shell.user_ns.update({k: v for k, v in vars(module).items() if not k.startswith("__")})
    for cell in nb.code_cells:
        if cell.exports or not cell.evaluated or not cell.code.strip():
            continue
        for output in shell.run(cell.code):
            if output["output_type"] == "error" and "raises-exception" not in cell.tags:
                trace = "\n".join(output["traceback"])
                pytest.fail(f"{nb.where(cell)}\n{cell.code}\n{trace}", pytrace=False)


def nbval(project: Project) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "nbs"]
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)


def test_stale_output_fails(project: Project) -> None:
    project.notebook(
        "design/12_double.ipynb",
        "md:# Double",
        ("1 + 1", result("2")),
        "#| eval: false\nraise RuntimeError('not run')",
    )
    fresh = nbval(project)
    assert fresh.returncode == 0, fresh.stdout
    project.notebook("design/13_stale.ipynb", "md:# Stale", ("1 + 1", result("3")))
    project.notebook("design/14_raising.ipynb", "md:# Raising", "raise ValueError('planted')")
    stale = nbval(project)
    assert stale.returncode == 1
    failed = {line.split()[1] for line in stale.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {f"nbs/design/{name}.ipynb::Cell" for name in ("13_stale", "14_raising")}, stale.stdout
    assert "Cell 0" in stale.stdout and "3" in stale.stdout


def test_running_again_changes_nothing(project: Project) -> None:
    """`make notebooks` stores exactly what is there already."""
    from tools.run_notebooks import run

    name = project.notebook("design/12_double.ipynb", "md:# Double", "1 + 1", "#| eval: false\n1 / 0")
    clean = [shutil.which("nbdev_clean", path=str(ROOT / ".venv" / "bin")) or "nbdev_clean"]
    texts = []
    for _ in range(2):
        run(name)
        subprocess.run(clean, cwd=project.root, check=True)
        texts.append(name.read_text(encoding="utf-8"))
    assert '"2"' in texts[0] and "ZeroDivision" not in texts[0]
    assert texts[0] == texts[1]
