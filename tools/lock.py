"""Write both locks from settings.ini: `python -m tools.lock [--upgrade]`.

One resolution serves every supported Python on every platform, with the hash of each file. The
run-time lock is resolved against the development lock, so a package that is in both has one version.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from configparser import ConfigParser
from pathlib import Path

from tools.notebooks import ROOT

RUN_LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"
BOUND = "python_full_version < '3.14'"
HEADER = "# Exact versions and hashes for Python 3.11, 3.12 and 3.13. Written by `make lock`.\n"


def wanted(root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Return what settings.ini asks for: at run time, and for development on top.

    What builds the package counts as run time: the checkout itself is then installed without
    fetching anything that no lock names.
    """
    ini = ConfigParser(delimiters=["="])
    ini.read(root / "settings.ini", encoding="utf-8")
    build = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    meta = ini["DEFAULT"]
    return meta["requirements"].split() + build, meta["dev_requirements"].split()


def resolve(requirements: list[str], output: Path, options: list[str]) -> None:
    """Choose versions for some requirements and write them with their hashes.

    Raises:
        RuntimeError: There is no set of versions that fits; the message is the resolver's.
    """
    with tempfile.TemporaryDirectory(prefix="gridmm-lock-") as folder:
        source = Path(folder) / "wanted.in"
        source.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet"]
        command += ["--universal", "--python-version", "3.11"]
        command += ["--fork-strategy", "fewest", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--output-file", str(output), *options, str(source)]
        # The pythons to resolve for are named in pyproject.toml, which uv looks for from here.
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"settings.ini asks for versions that do not fit together:\n{done.stderr}")


def main() -> int:
    """Write the development lock, then the run-time lock within it."""
    run, dev = wanted()
    options = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    for name, requirements, constraints in (
        (DEV_LOCK, run + dev, []),
        (RUN_LOCK, run, ["--constraints", str(ROOT / DEV_LOCK)]),
    ):
        path = ROOT / name
        resolve(requirements, path, options + constraints)
        # tools/setup.sh already refuses other Pythons; a marker on every line only hides the others.
        text = path.read_text(encoding="utf-8")
        text = text.replace(f" ; {BOUND} \\", " \\").replace(f"{BOUND} and ", "")
        path.write_text(HEADER + text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
