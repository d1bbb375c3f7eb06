"""Notebooks as data: cells, directives, numbers, modules and imports."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("design", "reference", "operations")
PACKAGE = "gridmm"

_DIRECTIVE = re.compile(r"^\s*#\s*\|\s*(?P<key>[\w-]+)\s*:?\s*(?P<value>.*?)\s*$")
_NUMBERED = re.compile(r"(?P<number>\d+)[a-z]?_(?P<name>\w+)")
_EXPORTING = frozenset({"export", "exporti", "exports"})
_MAGIC = re.compile(r"^\s*[%!?]|\?\s*$")


@dataclass(frozen=True)
class Cell:
    """One cell: its place in the notebook, its kind, its text and what it printed."""

    index: int
    kind: str
    text: str
    outputs: tuple[dict[str, Any], ...]
    tags: tuple[str, ...]

    @cached_property
    def _parted(self) -> tuple[dict[str, str], str]:
        if self.kind != "code":
            return {}, self.text
        directives: dict[str, str] = {}
        code = []
        for line in self.text.splitlines():
            if match := _DIRECTIVE.match(line):
                directives[match["key"]] = match["value"]
            else:
                code.append(line)
        return directives, "\n".join(code).strip("\n")

    @property
    def directives(self) -> dict[str, str]:
        """The `#| key: value` lines of a code cell."""
        return self._parted[0]

    @property
    def code(self) -> str:
        """The cell without its directives."""
        return self._parted[1]

    @property
    def exports(self) -> bool:
        """Whether nbdev copies this cell into the package."""
        return not _EXPORTING.isdisjoint(self.directives)

    @property
    def hidden(self) -> bool:
        """Whether the cell is written for the machine, not for the reader."""
        return "hide" in self.directives

    @property
    def evaluated(self) -> bool:
        """Whether the cell is run by the tests (`#| eval: false` is for cells that need the world)."""
        return self.directives.get("eval", "").lower() != "false"

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree, with IPython's own lines left out."""
        lines = ["" if _MAGIC.search(line) else line for line in self.code.splitlines()]
        if self.code.lstrip().startswith("%%"):
            lines = []
        # Top-level await is legal in a cell; the flag makes it legal here.
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile("\n".join(lines), f"<cell {self.index}>", "exec", flags=flags)
        assert isinstance(tree, ast.Module)
        return tree


@dataclass(frozen=True)
class Notebook:
    """A notebook file below `nbs/`."""

    path: Path
    root: Path

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, in order."""
        raw = json.loads(self.path.read_text(encoding="utf-8"))
        return tuple(
            Cell(
                index=index,
                kind=cell["cell_type"],
                text="".join(cell["source"]),
                outputs=tuple(cell.get("outputs", ())),
                tags=tuple(cell.get("metadata", {}).get("tags", ())),
            )
            for index, cell in enumerate(raw["cells"])
        )

    @property
    def code_cells(self) -> Iterator[Cell]:
        """The code cells, in order."""
        return (cell for cell in self.cells if cell.kind == "code")

    @property
    def name(self) -> str:
        """The path below `nbs/`, such as `design/12_grid.ipynb`."""
        return self.path.relative_to(self.root / "nbs").as_posix()

    @property
    def part(self) -> str:
        """The folder, which is the part of the site: design, reference or operations."""
        return self.name.split("/")[0] if "/" in self.name else ""

    @property
    def number(self) -> int | None:
        """The number in the file name: reading order and layer."""
        match = _NUMBERED.fullmatch(self.path.stem)
        return int(match["number"]) if match else None

    @property
    def slug(self) -> str:
        """The file name without number and suffix: module and address."""
        match = _NUMBERED.fullmatch(self.path.stem)
        return match["name"] if match else self.path.stem

    @cached_property
    def module(self) -> str | None:
        """The module that this notebook exports, without the package, or None."""
        for cell in self.code_cells:
            if "default_exp" in cell.directives:
                return cell.directives["default_exp"]
        return None

    @cached_property
    def title(self) -> str:
        """The H1."""
        for cell in self.cells:
            if cell.kind == "markdown" and (match := re.search(r"^# +(.+?)\s*$", cell.text, re.M)):
                return match[1]
        return self.slug

    def where(self, cell: Cell) -> str:
        """A cell's address for messages."""
        return f"nbs/{self.name}, cell {cell.index}"


def notebooks(root: Path = ROOT) -> list[Notebook]:
    """Return every notebook of the project in reading order."""
    nbs = root / "nbs"
    found = [
        Notebook(path, root)
        for path in nbs.rglob("*.ipynb")
        if not any(part[0] in "._" for part in path.relative_to(nbs).parts)
    ]
    return sorted(found, key=lambda nb: (nb.number if nb.number is not None else -1, nb.name))


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every imported module with its line, wherever in the code it is imported.

    `from gridmm import grid` yields `gridmm.grid`, as does `importlib.import_module("gridmm.grid")`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = PACKAGE if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            if module == PACKAGE:
                for alias in node.names:
                    yield f"{PACKAGE}.{alias.name}", node.lineno
            else:
                yield module, node.lineno
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, node.lineno


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
