"""Run the determinism probe on every supported Python that is here, and keep what it printed: `make pythons`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from test_pythons import RUNNING, SUPPORTED, environment, find, probe
from tools.results import code_hash, write


def main() -> int:
    """Probe each Python, the running one also without the compiler; fail where two differ."""
    code, hashes, absent = code_hash(), {}, []
    for version in SUPPORTED:
        python = Path(sys.executable) if version == RUNNING else find(version)
        if python is None:
            absent.append(version)
            print(f"Python {version}: not on this machine", flush=True)
            continue
        inside = python if version == RUNNING else environment(python, version)
        for compiler in (True, False) if version == RUNNING else (True,):
            name = version if compiler else f"{version} without the compiler"
            hashes[name] = probe(inside, compiler=compiler).strip()
            print(f"Python {name}: {hashes[name]}", flush=True)
    differ = len(set(hashes.values())) != 1 or not all(hashes.values())
    about = "The same seeded worlds on every supported Python of one machine, as a hash over the state after every step."
    counts = {"hash": hashes, "absent": absent, "all_alike": not differ}
    write("pythons", about, "make pythons", counts, code=code)
    if differ:
        print("They do not decide alike: see the hashes above.", file=sys.stderr)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
