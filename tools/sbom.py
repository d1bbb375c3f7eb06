"""Write the bill of materials: every run-time dependency with version and hashes, as CycloneDX JSON.

    python -m tools.sbom [OUTPUT]    # dist/gridmm.cdx.json
    python -m tools.sbom --lock      # choose newer versions of the tool itself

The tool that writes it lives in an environment of its own below `.cache/`: it is no dependency of gridmm, and none of
gridmm's may change because of it. It reads the lock, so the bill says what `make run` installs, not what happens to be
installed here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from tools.lock import HEADER, RUN_LOCK, resolve
from tools.notebooks import ROOT

LOCK = "requirements-sbom.lock"
TOOL = "cyclonedx-bom"
OUTPUT = Path("dist") / "gridmm.cdx.json"
SPECIFICATION = "1.6"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def locked(text: str) -> dict[tuple[str, str], set[str]]:
    """Return the hashes of each (name, version) in a lock."""
    found: dict[tuple[str, str], set[str]] = {}
    hashes: set[str] = set()
    for line in text.splitlines():
        if pin := _PIN.match(line):
            hashes = found.setdefault((pin[1].lower(), pin[2]), set())
        hashes.update(_HASH.findall(line))
    return found


def listed(bill: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Return the hashes of each (name, version) in a bill of materials."""
    return {
        (one["name"].lower(), one["version"]): {
            digest["content"]
            for place in one.get("externalReferences", ())
            for digest in place.get("hashes", ())
            if digest["alg"] == "SHA-256"
        }
        for one in bill.get("components", ())
    }


def differences(lock: str, bill: dict[str, Any]) -> list[str]:
    """Return, one line each, where a bill of materials does not say what a lock says."""
    wanted, said = locked(lock), listed(bill)
    lines = [f"{name} {version} is locked and not listed" for name, version in wanted.keys() - said.keys()]
    lines += [f"{name} {version} is listed and not locked" for name, version in said.keys() - wanted.keys()]
    both = wanted.keys() & said.keys()
    lines += [
        f"{name} {version} has other hashes"
        for name, version in both
        if wanted[name, version] != said[name, version]
    ]
    lines += [f"{name} {version} has no hash" for (name, version), hashes in wanted.items() if not hashes]
    return sorted(lines)


def environment(root: Path = ROOT) -> Path:
    """Return the tool's environment, made or made anew where the lock has changed."""
    folder, lock = root / ".cache" / "sbom", (root / LOCK).read_text(encoding="utf-8")
    stamp = folder / "lock"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != lock:
        venv.create(folder, with_pip=True, clear=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "--require-hashes", "-r", str(root / LOCK)], check=True)
        stamp.write_text(lock, encoding="utf-8")
    return folder


def write(output: Path, root: Path = ROOT) -> list[str]:
    """Write the bill of materials of the run-time lock; return where it differs from the lock."""
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [str(environment(root) / "bin" / "cyclonedx-py"), "requirements", str(root / RUN_LOCK)]
    command += ["--pyproject", str(root / "pyproject.toml"), "--output-reproducible", "--validate"]
    command += ["--spec-version", SPECIFICATION, "--output-format", "JSON", "--output-file", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{TOOL} wrote nothing: {done.stderr.strip()}. Read {RUN_LOCK}, then `make sbom` again"
        )
    bill = json.loads(output.read_text(encoding="utf-8"))
    return differences((root / RUN_LOCK).read_text(encoding="utf-8"), bill)


def main() -> int:
    """Write the bill, or the tool's lock; return 1 where the bill and the lock differ."""
    words = sys.argv[1:]
    if words == ["--lock"]:
        resolve([TOOL], ROOT / LOCK, ["--upgrade"])
        path = ROOT / LOCK
        path.write_text(
            HEADER.replace("make lock", "python -m tools.sbom --lock") + path.read_text(encoding="utf-8")
        )
        return 0
    output = Path(words[0]) if words else ROOT / OUTPUT
    wrong = write(output)
    for line in wrong:
        print(f"{output.name}: {line}", file=sys.stderr)
    print(f"{output}: {len(listed(json.loads(output.read_text(encoding='utf-8'))))} components")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
