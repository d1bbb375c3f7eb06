"""README.md out of nbs/index.ipynb: `python -m tools.readme`.

nbdev would ask Quarto for this. The index holds text, commands and short results, so a page of
Markdown needs no renderer.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tools.notebooks import ROOT, Cell, notebooks

# A page of the site is a notebook of the repository.
_NOTEBOOK_LINK = re.compile(r"\]\((?![a-z]+:|/|#)(?P<path>[^)\s]+\.ipynb(?:#[^)\s]*)?)")


def render(root: Path = ROOT) -> str:
    """Return the text that README.md must have."""
    index = next(nb for nb in notebooks(root) if nb.name == "index.ipynb")
    parts = []
    for cell in index.cells:
        if cell.kind == "markdown":
            parts.append(_NOTEBOOK_LINK.sub(r"](nbs/\g<path>", cell.text))
        elif cell.kind == "code" and not cell.hidden and cell.code.strip():
            parts.append(f"```python\n{cell.code}\n```")
            parts.extend(_outputs(cell))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _outputs(cell: Cell) -> list[str]:
    shown = []
    for output in cell.outputs:
        data = output.get("data", {})
        if "text/markdown" in data:
            shown.append("".join(data["text/markdown"]))
        elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
            shown.append(f"```text\n{text}\n```")
    return shown


def main() -> int:
    """Write README.md."""
    (ROOT / "README.md").write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
