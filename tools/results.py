"""Results of long runs: `results/NAME.json` with what it takes to measure again, and the page that shows them."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from tools.notebooks import PACKAGE, ROOT

FOLDER = "results"
HEAD = """# Results
> What was run, and what came out

These runs take too long for `make test`. Each table is a file of `results/` in the repository, written by the
program that ran: type its command to measure again. The counts are raw; nothing is rounded up or left out.
"""

_FIELDS: dict[str, type] = {
    "about": str,
    "command": str,
    "commit": str,
    "date": str,
    "machine": dict,
    "code": str,
    "counts": dict,
}


def code_hash(root: Path = ROOT) -> str:
    """Return a hash over the package's source; `_modidx.py` is an index of it, and left out."""
    digest = hashlib.sha256()
    package = root / PACKAGE
    for path in sorted(package.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        if path.name != "_modidx.py":
            source = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()[:16]


def write(
    name: str, about: str, command: str, counts: dict[str, Any], *, code: str = "", root: Path = ROOT
) -> Path:
    """Write `results/NAME.json`.

    Args:
        name: Of the file, without folder and ending.
        about: One sentence: what was run.
        command: As a person types it.
        counts: Raw counts; dictionaries may be nested.
        code: `code_hash` of when the run began; the one of now where left out.
        root: The checkout.
    """
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    result = {
        "about": about,
        "command": command,
        "commit": _commit(root),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "code": code or code_hash(root),
        "counts": counts,
    }
    path = root / FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def _commit(root: Path) -> str:
    """Return the commit, `-dirty` where more than other results has changed since."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short", "HEAD")
    if commit is None:
        return "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    return f"{commit}-dirty" if changed else commit


def read(path: Path) -> dict[str, Any]:
    """Return a result.

    Raises:
        ValueError: It is not what `write` writes; the message says what to do.
    """
    mend = "Results are written by the programs that run, not by hand: run its make target again."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ValueError(f"{FOLDER}/{path.name} is not JSON: {problem}. {mend}") from None
    for name, kind in _FIELDS.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind) or not found[name]:
            raise ValueError(f"{FOLDER}/{path.name} has no `{name}`. {mend}")
    return found


def page(root: Path = ROOT) -> str:
    """Return the page of all results as Markdown; without any, it says so.

    Raises:
        ValueError: A file of `results/` is not what `write` writes.
    """
    now = code_hash(root)
    parts = [HEAD]
    paths = sorted((root / FOLDER).glob("*.json"))
    if not paths:
        parts.append("No result is kept in this checkout.\n")
    parts += [_section(path.stem, read(path), now) for path in paths]
    return "\n".join(parts)


def _section(name: str, result: dict[str, Any], now: str) -> str:
    lines = [f"## {name.replace('_', ' ').capitalize()}", "", result["about"], ""]
    if result["code"] != now:
        lines += [
            '!!! warning "The code has changed since"',
            "",
            f"    These figures are of code `{result['code']}`; this site shows code `{now}`. Until somebody runs",
            f"    `{result['command']}` again, they say nothing certain about it.",
            "",
        ]
    machine = result["machine"]
    on = f"{machine['platform']}, {machine['cores']} cores, Python {machine['python']}"
    lines += ["| | |", "| --- | --- |", f"| Command | `{_cell(result['command'])}` |"]
    lines += [
        f"| Commit | `{result['commit']}` |",
        f"| Date | {result['date']} |",
        f"| Machine | {_cell(on)} |",
    ]
    lines += _rows(result["counts"])
    return "\n".join(lines) + "\n"


def _rows(counts: dict[str, Any], before: str = "") -> list[str]:
    rows = []
    for key, value in counts.items():
        label = f"{before}{str(key).replace('_', ' ')}"
        if isinstance(value, dict) and value:
            rows += _rows(value, f"{label}: ")
        else:
            rows.append(f"| {_cell(label)} | {_cell(_text(value))} |")
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, dict)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
