"""The page of every parameter, written by the schema of the configuration and by nothing else.

The schema is Python, so it is imported: in a process of its own, from the checkout that is built, with compilation
off (`python -m tools.configdoc` prints what the site reads).
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.notebooks import PACKAGE, ROOT

if TYPE_CHECKING:
    from gridmm.effects import Effect
    from gridmm.schema import Parameter, Section

HEAD = """# Configuration
> Every parameter with its meaning, unit, default, range and effect, as the schema itself describes it

What stands here is what `gridmm config check` checks and what `gridmm config init` writes: one declaration, read by all
three. How to write a file is in [Configure](../operations/131_configure.ipynb), which values to begin with in
[Choose parameters](../operations/133_choose_parameters.ipynb).

**Takes effect** says when a new value works in a grid that runs. *Now* (hot): with the next event after `gridmm reload`.
*Next epoch* (hot): after `gridmm reload`, with the next lattice; cells that are filled keep their own prices. *Restart*:
`gridmm reload` refuses the file; stop the grid and start it again.

**Related** names the [reason](data_model.md#gridmm.v1.Reason) that a level is absent for, or the
[trigger](data_model.md#gridmm.v1.Trigger) that the parameter sets. Pictures are computed by the functions that decide,
for bitcoin at 60 000, a maker fee of 2 bps and an equity of 10 000 ([Effects](106_effects.ipynb)).

Not in this list, since they stand in no file: keys and tokens, which come from the environment
([Config](32_config.ipynb)), and options of a command (`gridmm run --help`). A file may hold several grids, each with
any of these keys ([Grids of a file](74_grids.ipynb)).
"""

# What shapes a grid more than everything else, and is looked for first.
FIRST = ("grid.price_interval", "grid.volatility_scale", "grid.skew_factor", "grid.grid_size")

CHANGES = {"now": "now (hot)", "epoch": "next epoch (hot)", "start": "restart"}


@dataclass(frozen=True)
class Written:
    """The page, and the pictures that go where it has holes, by key."""

    markdown: str
    figures: dict[str, dict[str, Any]]


def hole(key: str) -> str:
    """Return the place of a picture, as the site's builder fills it."""
    return f'<div class="nb-output nb-effect" data-output="{key}"></div>'


def spelling(name: str) -> str:
    """Return the name as one word of capitals, as other programs write it: `VolatilityScale`."""
    return "".join(part.capitalize() for part in name.split("_"))


def problems(listed: Iterable[Parameter]) -> list[str]:
    """List every parameter that does not say what it is."""
    from gridmm.vocabulary import Reason, Trigger

    found = []
    for p in listed:
        for what in ("meaning", "unit", "effect"):
            if not getattr(p, what):
                found.append(
                    f"{p.key} has no {what}. Say it where it is declared, nbs/reference/29_settings.ipynb."
                )
        if p.unit == "choice" and not p.range:
            found.append(f"{p.key} has no unit and no choices. Declare it with a kind of gridmm.schema.")
        if p.change not in CHANGES:
            found.append(f"{p.key} changes {p.change!r}: must be one of {', '.join(CHANGES)}.")
        if not p.default and not p.left_out:
            found.append(f"{p.key} has no default and does not say what stands in for it (left_out).")
        known = (*Reason.__members__, *Trigger.__members__)
        found += [
            f"{p.key} names the reason {name}, which does not exist."
            for name in p.reasons
            if name not in known
        ]
    return found


def write(model: type[Section], effects: dict[str, Effect], seen_at: dict[str, str]) -> Written:
    """Return the page of all parameters below `model`.

    Raises:
        ValueError: A parameter does not say what it is, or a picture belongs to none; all of them at once.
    """
    from gridmm.schema import catalogue

    listed = list(catalogue(model))
    known = {p.key for p in listed}
    found = problems(listed)
    found += [f"There is a picture of {key}, which is no parameter." for key in effects if key not in known]
    found += [
        f"{key} is seen at {at}, which has no picture." for key, at in seen_at.items() if at not in effects
    ]
    if found:
        raise ValueError("\n".join(found))
    parts = [HEAD, "## The four that shape a grid { #first }"]
    for p in sorted((p for p in listed if p.key in FIRST), key=lambda p: FIRST.index(p.key)):
        parts += _section(p, effects.get(p.key), seen_at.get(p.key))
    parts += ["## All parameters { #all }", _overview(listed)]
    table = ""
    for p in listed:
        if p.table != table:
            table = p.table
            parts += [f"## `[{table}]` {{ #{table} }}", _about(model, table)]
        if p.key not in FIRST:
            parts += _section(p, effects.get(p.key), seen_at.get(p.key))
    return Written("\n\n".join(parts) + "\n", {key: effect.figure() for key, effect in effects.items()})


def _overview(listed: list[Parameter]) -> str:
    rows = ["| Table | Parameters |", "| --- | --- |"]
    for table in dict.fromkeys(p.table for p in listed):
        links = ", ".join(f"[`{p.name}`](#{p.key})" for p in listed if p.table == table)
        rows.append(f"| [`[{table}]`](#{table}) | {links} |")
    return "\n".join(rows)


def _about(model: type[Section], table: str) -> str:
    """Return the sentence of a table of the file."""
    at: Any = model
    for name in table.split("."):
        field = at.model_fields[name]
        at = field.annotation
    return str(field.description)


def related(p: Parameter) -> list[str]:
    """Return the trigger that a parameter sets, by its address, then the reasons that it declares."""
    from gridmm.vocabulary import Trigger

    names = (p.table.rpartition(".")[2].upper(), p.name.upper())
    return [f"trigger {name}" for name in names if name in Trigger.__members__] + list(p.reasons)


def _section(p: Parameter, effect: Effect | None, seen_at: str | None) -> list[str]:
    rows = [
        ("Unit", p.unit if p.unit != "choice" else "one of these words"),
        ("Default", f"`{p.default}`" if p.default else f"left out: {p.left_out}"),
        ("Range", _range(p)),
        ("Takes effect", CHANGES[p.change]),
        ("Effect", p.effect),
        ("Related", ", ".join(f"`{name}`" for name in related(p))),
    ]
    if seen_at:
        rows.append(("Picture", f"[`{seen_at.rpartition('.')[2]}`](#{seen_at})"))
    lines = [f"**{label}** {text}" for label, text in rows if text]
    parts = [f"### `{p.name}` {{ #{p.key} }}", p.meaning, "  \n".join(lines)]
    if effect:
        parts += [hole(p.key), effect.words]
    other = f", in other programs {spelling(p.name)}" if "_" in p.name else ""
    parts.append(f'<p class="nb-spelling" markdown>`{p.key}`{other}</p>')
    return parts


def _range(p: Parameter) -> str:
    if p.unit == "choice":
        return ", ".join(f"`{word}`" for word in p.range.split(", "))
    return html.escape(p.range)


def present(root: Path) -> bool:
    """Tell whether the checkout has a configuration at all."""
    return (root / PACKAGE / "settings.py").exists()


def page(root: Path = ROOT) -> Written:
    """Return the page of the checkout at `root`, made by a process that imports its package.

    Raises:
        ValueError: As `write`.
    """
    environment = {**os.environ, "PYTHONPATH": str(root), "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "tools.configdoc"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return Written(**json.loads(done.stdout))


def main() -> int:
    """Print the page and its pictures as JSON, or what keeps them from being written."""
    import gridmm.effects_of_limits  # noqa: F401  adds its pictures
    from gridmm.effects import EFFECTS, SEEN_AT
    from gridmm.settings import Settings

    try:
        written = write(Settings, {key: draw() for key, draw in EFFECTS.items()}, SEEN_AT)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(vars(written)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
