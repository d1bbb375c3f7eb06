"""Compile `proto/` into the package: `python -m tools.proto`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.notebooks import PACKAGE, ROOT


def sources(root: Path = ROOT) -> list[Path]:
    """List the schema files."""
    return sorted((root / "proto").rglob("*.proto"))


def protoc(root: Path, *options: str) -> None:
    """Run the compiler of grpcio-tools over the whole schema.

    Raises:
        RuntimeError: The schema does not compile; the message is the compiler's, with file and line.
    """
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", f"-I{root / 'proto'}", *options]
    done = subprocess.run([*command, *map(str, sources(root))], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"proto/ does not compile. Mend the line it names:\n{done.stderr}")


def compile_to(out: Path, root: Path = ROOT) -> None:
    """Write the modules and their type stubs below `out`, which stands for the checkout."""
    (out / PACKAGE).mkdir(parents=True, exist_ok=True)
    protoc(root, f"--python_out={out}", f"--pyi_out={out}")


def main() -> int:
    """Replace the package's generated modules."""
    for old in (ROOT / PACKAGE).rglob("*_pb2.py*"):
        old.unlink()
    if not sources():
        print("proto/ holds no schema yet")
        return 0
    compile_to(ROOT)
    for folder in {ROOT / PACKAGE / path.parent.relative_to(ROOT / "proto" / PACKAGE) for path in sources()}:
        (folder / "__init__.py").touch()
    print(f"compiled {len(sources())} schema file(s) into {PACKAGE}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
