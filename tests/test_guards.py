"""Each promise of the repository holds here, and its guard sees a planted breach."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from planted import Project
from tools import guards, proto, protodoc, readme
from tools.notebooks import ROOT, notebooks

Guard = Callable[[Path], list[str]]


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda g: g.__name__)
def test_promise_holds(guard: Guard) -> None:
    assert guard(ROOT) == []


def test_style_is_measured(note: Callable[[str], None]) -> None:
    table = guards.style_table()
    assert all(nb.module in table for nb in notebooks(ROOT) if nb.module), table
    note(table)


def git(project: Project, *args: str) -> None:
    subprocess.run(["git", *args], cwd=project.root, check=True, capture_output=True)


def export(project: Project) -> None:
    git(project, "init", "--quiet", ".")
    subprocess.run([Path(sys.executable).parent / "nbdev_export"], cwd=project.root, check=True)


def plant_stale_module(project: Project) -> None:
    module = project.root / "gridmm" / "double.py"
    module.write_text(module.read_text().replace("2 * x", "3 * x"))


def plant_left_over_module(project: Project) -> None:
    (project.root / "nbs" / "design" / "12_double.ipynb").unlink()


@pytest.mark.parametrize("plant", [plant_stale_module, plant_left_over_module])
def test_export_guard(project: Project, plant: Callable[[Project], None]) -> None:
    export(project)
    assert guards.export_in_sync(project.root) == []
    plant(project)
    assert "gridmm/double.py" in "".join(guards.export_in_sync(project.root))


def test_noise_guard(project: Project) -> None:
    subprocess.run([Path(sys.executable).parent / "nbdev_clean"], cwd=project.root, check=True)
    assert guards.notebooks_clean(project.root) == []
    path = project.root / "nbs" / "design" / "12_double.ipynb"
    path.write_text(path.read_text().replace('"execution_count": null', '"execution_count": 7'))
    assert "nbs/design/12_double.ipynb" in guards.notebooks_clean(project.root)[0]


def test_readme_guard(project: Project) -> None:
    assert guards.readme_in_sync(project.root) == []
    project.write("README.md", "# Something else\n")
    assert "README.md" in guards.readme_in_sync(project.root)[0]


def test_readme_shows_code_and_results(project: Project) -> None:
    stream = [{"output_type": "stream", "name": "stdout", "text": "two\n"}]
    project.notebook("index.ipynb", "md:# T", "#| hide\nx = 1", ("print('two')", stream))
    assert readme.render(project.root) == "# T\n\n```python\nprint('two')\n```\n\n```text\ntwo\n```\n"


SCHEMA = """syntax = "proto3";
package gridmm.v1;

// A grid, as stored.
message Grid {
  // Price of level 0, in ticks.
  int64 anchor = 1;
  Side side = 2;  // Which side opens.
  // What was paid, by asset.
  map<string, int64> fees = 3;
  oneof reason {
    // Said by a person.
    string text = 4;
    // Said by a rule.
    Grid.Rule rule = 5;
  }
  // How it came about.
  repeated Rule history = 6;
  // A rule of the grid.
  message Rule {
    // Name | of the rule.
    optional string name = 1;
  }
}

// A side of the book.
enum Side {
  // Never stored.
  SIDE_UNSPECIFIED = 0;
  // Buys.
  SIDE_BUY = 1;
}
"""


def test_proto_guard(project: Project) -> None:
    schema = project.write("proto/gridmm/v1/grid.proto", SCHEMA)
    assert any("grid_pb2.py " in p for p in guards.proto_in_sync(project.root)), "nothing is compiled yet"
    proto.compile_to(project.root, project.root)
    assert guards.proto_in_sync(project.root) == []
    schema.write_text(SCHEMA.replace("int64 anchor", "int32 anchor"))
    assert any("grid_pb2.py " in p for p in guards.proto_in_sync(project.root))


@pytest.mark.parametrize(
    ("comment", "problem"),
    [
        ("// A grid, as stored.\n", "grid.proto:4: message gridmm.v1.Grid"),
        ("  // Price of level 0, in ticks.\n", "grid.proto:6: field anchor"),
        ("  // Which side opens.", "grid.proto:8: field side"),
        ("    // Said by a rule.\n", "grid.proto:14: field rule"),
        ("    // Name | of the rule.\n", "grid.proto:21: field name"),
        ("// A side of the book.\n", "grid.proto:26: enum gridmm.v1.Side"),
        ("  // Buys.\n", "grid.proto:30: enum value SIDE_BUY"),
    ],
)
def test_comment_guard(project: Project, comment: str, problem: str) -> None:
    schema = project.write("proto/gridmm/v1/grid.proto", SCHEMA)
    assert guards.proto_commented(project.root) == []
    schema.write_text(SCHEMA.replace(comment, ""))
    assert [p for p in guards.proto_commented(project.root) if problem in p]
    with pytest.raises(ValueError, match="has no comment"):
        protodoc.page(project.root)


def test_data_model_is_the_comments(project: Project) -> None:
    project.write("proto/gridmm/v1/grid.proto", SCHEMA)
    page = protodoc.page(project.root)
    assert "### `Grid` { #gridmm.v1.Grid }\n\nA grid, as stored.\n" in page
    assert "| `side` | 2 | [`Side`](#gridmm.v1.Side) | Which side opens. |" in page
    assert "| `fees` | 3 | map of `string` to `int64` | What was paid, by asset. |" in page
    assert "| `rule` | 5 | [`Rule`](#gridmm.v1.Grid.Rule), one of `reason` | Said by a rule. |" in page
    assert "| `history` | 6 | repeated [`Rule`](#gridmm.v1.Grid.Rule) | How it came about. |" in page
    assert "| `name` | 1 | optional `string` | Name \\| of the rule. |" in page
    assert "| `SIDE_BUY` | 1 | Buys. |" in page


def breach(project: Project, *cells: str, name: str = "design/11_thing.ipynb") -> None:
    project.notebook(name, "#| default_exp thing", "md:# Thing\n> A thing", *cells)


@pytest.mark.parametrize(
    "code",
    [
        "from gridmm.double import double",
        "from gridmm import double",
        "import gridmm.double as d",
        "def f():\n    from gridmm.double import double",
        "import importlib\nimportlib.import_module('gridmm.double')",
        "#| export\nfrom gridmm.thing import x",
        "from gridmm.v1.grid_pb2 import Grid",
    ],
)
def test_layer_guard(project: Project, code: str) -> None:
    assert guards.number_is_layer(project.root) == []
    breach(project, code)
    assert "11_thing" in guards.number_is_layer(project.root)[0]


def test_a_higher_layer_may_know_a_lower_one(project: Project) -> None:
    breach(project, "from gridmm.double import double", name="reference/30_thing.ipynb")
    assert guards.number_is_layer(project.root) == []


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from datetime import datetime",
        "import asyncio",
        "import numpy.random",
        "from numpy import random",
        "from numba import objmode",
        "from gridmm.store import load",
        "def f():\n    import socket",
        "def f():\n    return open('x')",
        "def f():\n    print('x')",
        "def f():\n    return np.random.default_rng()",
        "def f():\n    with numba.objmode():\n        pass",
    ],
)
def test_purity_guard(project: Project, code: str) -> None:
    breach(project, f"#| export\n{code}")
    assert "11_thing" in guards.core_is_pure(project.root)[0]


def test_the_core_may_calculate_and_its_pages_may_look(project: Project) -> None:
    breach(
        project,
        "#| export\nimport math\n\nimport numpy as np\nfrom numba import njit",
        "#| export\n@njit\ndef f(x):\n    return np.sqrt(x) + math.pi",
        "import time",
        "print(time.time())",
    )
    breach(project, "#| export\nimport time", name="reference/40_thing.ipynb")
    assert guards.core_is_pure(project.root) == []


def test_the_core_includes_what_it_imports(project: Project) -> None:
    breach(project, "#| export\nimport time", name="reference/02_thing.ipynb")
    assert guards.core_is_pure(project.root) == []
    project.notebook(
        "design/12_double.ipynb", "#| default_exp double", "#| export\nfrom gridmm.thing import x"
    )
    assert "reference/02_thing" in guards.core_is_pure(project.root)[0]


def test_import_cell_guard(project: Project) -> None:
    breach(project, "#| export\nimport math", "def f():\n    import cmath")
    assert guards.imports_stand_alone(project.root) == []
    breach(project, "#| export\nimport math\nTAU = 2 * math.pi")
    assert "mixes imports" in guards.imports_stand_alone(project.root)[0]


def test_star_guard(project: Project) -> None:
    assert guards.imports_are_named(project.root) == []
    breach(project, "from math import *")
    assert "imports * from math" in guards.imports_are_named(project.root)[0]


def test_style_guard(project: Project) -> None:
    breach(project, "#| export\n" + "x = 1\n" * guards.EXPORTED_LINES_MAX)
    assert guards.style_holds(project.root) == []
    breach(project, "#| export\n" + "x = 1\n" * (guards.EXPORTED_LINES_MAX + 1))
    assert "exports 401 lines" in guards.style_holds(project.root)[0]
    breach(project, "#| export\nx = 1", "#| export\ny = 1")
    assert "0.50 text cells per export cell" in guards.style_holds(project.root)[0]


def test_all_guard() -> None:
    module = types.ModuleType("planted")
    exec("__all__ = ['f', 'gone', 'f']\ndef f(): ...\ndef g(): ...\ndef _h(): ...\n", vars(module))
    problems = "\n".join(guards.all_is_honest(module))
    assert "'f' twice" in problems
    assert "'gone', which is not there" in problems
    assert "planted.g is public" in problems
    assert "_h" not in problems
    vars(module)["__all__"] = ["f", "g"]
    assert guards.all_is_honest(module) == []


@pytest.mark.parametrize("path", ["/wo" + "rk/main/x", "'/ro" + "ot/.cache'", "../.libra" + "ry/env"])
def test_machine_path_guard(project: Project, path: str) -> None:
    git(project, "init", "--quiet", ".")
    project.write(".gitignore", "tools\n")
    assert guards.no_machine_paths(project.root) == []
    project.write("docs/note.md", f"one\nsee {path}\n")
    assert "docs/note.md:2" in guards.no_machine_paths(project.root)[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("docs/script/chart.min.js", "x"),
        ("docs/script/chart.js", "x;" * 10_500),
        ("docs/script/chart.js", "/" + "*! somebody */"),
        ("docs/style/font.woff2", ""),
        ("gridmm/chart.js", "x"),
    ],
)
def test_script_guard(project: Project, name: str, text: str) -> None:
    git(project, "init", "--quiet", ".")
    project.write(".gitignore", "tools\n")
    assert guards.no_foreign_scripts(project.root) == []
    project.write(name, text)
    assert name in guards.no_foreign_scripts(project.root)[0]


def test_script_in_an_output_guard(project: Project) -> None:
    git(project, "init", "--quiet", ".")
    project.write(".gitignore", "tools\n")
    html = {"output_type": "display_data", "data": {"text/html": "<script>x</script>"}, "metadata": {}}
    project.notebook("design/11_thing.ipynb", "md:# T", ("show()", [html]))
    assert "stores a script" in guards.no_foreign_scripts(project.root)[0]


def test_locks_agree_with_settings() -> None:
    """What settings.ini asks for is locked, and both locks name one version of each package."""
    from packaging.requirements import Requirement

    from tools.lock import DEV_LOCK, RUN_LOCK, wanted

    def pins(name: str) -> dict[str, str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        found = (Requirement(line.rstrip("\\ ").split(";")[0]) for line in lines if "==" in line)
        return {r.name.lower().replace("_", "-"): str(r.specifier).removeprefix("==") for r in found}

    run, dev = pins(RUN_LOCK), pins(DEV_LOCK)
    assert run.items() <= dev.items()
    asked, more = wanted()
    for lock, requirements in ((run, asked), (dev, asked + more)):
        for text in requirements:
            r = Requirement(text)
            assert r.specifier.contains(lock[r.name.lower().replace("_", "-")]), f"{text}: run `make lock`"
