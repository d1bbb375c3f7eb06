"""A small checkout to plant violations in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


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
