"""Run notebooks again in place: `python -m tools.run_notebooks [paths]`.

Each runs in a kernel of its own, from its own folder, as nbval will run it. Outputs are stored,
then cleaned, so that a second run changes nothing.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tools.notebooks import ROOT, Notebook, notebooks

_SKIP = "skip-execution"


def run(path: Path) -> None:
    """Execute one notebook and store what its cells show."""
    content = nbformat.read(path, as_version=4)
    not_run = [cell.index for cell in Notebook(path, ROOT).code_cells if not cell.evaluated]
    for index in not_run:
        content.cells[index].metadata.setdefault("tags", []).append(_SKIP)
    client = NotebookClient(
        content,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
        # ipykernel warns on every start that its loopback sockets are not encrypted.
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    client.execute()
    for index in not_run:
        metadata = content.cells[index].metadata
        metadata["tags"].remove(_SKIP)
        if not metadata["tags"]:
            del metadata["tags"]
    nbformat.write(content, path)


def main() -> int:
    """Run the notebooks that are named, or all of them."""
    paths = [Path(name).resolve() for name in sys.argv[1:]] or [nb.path for nb in notebooks()]
    for path in paths:
        start = time.perf_counter()
        run(path)
        subprocess.run([Path(sys.executable).parent / "nbdev_clean", "--fname", str(path)], check=True)
        print(f"{path.relative_to(ROOT)} {time.perf_counter() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
