"""A small checkout to plant violations in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.notebooks import ROOT


class Project:
    """A checkout with notebooks of the test's own, to plant violations in."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def notebook(self, name: str, *cells: str | tuple[str, list[dict[str, Any]]]) -> Path:
        """Write a notebook: a text that starts with `md:` is prose, a pair is code and its outputs."""
        made = []
        for number, cell in enumerate(cells):
            source, outputs = (cell, []) if isinstance(cell, str) else cell
            if source.startswith("md:"):
                new = new_markdown_cell(source.removeprefix("md:"))
            else:
                new = new_code_cell(source, outputs=[nbformat.from_dict(o) for o in outputs])
            new["id"] = f"cell-{number}"
            made.append(new)
        kernel = {"display_name": "python3", "language": "python", "name": "python3"}
        path = self.root / "nbs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
        return path


def result(text: str) -> list[dict[str, Any]]:
    """The stored output of a cell that ends in an expression."""
    data = {"text/plain": text}
    return [{"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}]


def sample(root: Path) -> Project:
    """Make a small project that keeps every promise and is built by the real tools."""
    for name in ("settings.ini", "pyproject.toml", "mkdocs.yml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "docs" / "style", root / "docs" / "style")
    shutil.copytree(ROOT / "docs" / "script", root / "docs" / "script")
    (root / "tools").symlink_to(ROOT / "tools")
    made = Project(root)
    made.write("gridmm/__init__.py", '__version__ = "0.1.0"\n')
    made.write("CHANGELOG.md", "# Changes\n")
    made.notebook("index.ipynb", "md:# Sample\n> A sample", "md:See [double](design/12_double.ipynb#use).")
    made.write("README.md", "# Sample\n> A sample\n\nSee [double](nbs/design/12_double.ipynb#use).\n")
    made.notebook(
        "design/12_double.ipynb",
        "#| default_exp double",
        "md:# Double\n> Twice as much",
        "md:## Use",
        '#| export\ndef double(x: int) -> int:\n    """Return twice `x`."""\n    return 2 * x',
        "md:Twice *two* is four:",
        ("double(2)", result("4")),
        "#| hide\nsecret = 1",
    )
    for name in ("nbs/conftest.py", "nbs/sanitize.cfg"):
        shutil.copy(ROOT / name, root / name)
    return made
