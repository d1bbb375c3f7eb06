"""The functions of the core, as they ship or with a line replaced.

A mutant is the real source with one text replaced by another. It is run as plain Python: modules of
their own, that import each other and nothing compiled, so that nothing of it reaches the package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gridmm import layout

PACKAGE = Path(layout.__file__).parent
MODULES = ("grid", "center", "slots", "closing", "strategy", "pnl", "risk", "step")


@dataclass(frozen=True)
class Edit:
    """Replace `old`, which stands exactly once in a module, by `new`."""

    module: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """Return the source with the text replaced; a text that is not there once is an error."""
        count = source.count(self.old)
        assert count == 1, f"{self.old!r} stands {count} times in {self.module}: this mutant tests nothing"
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class Functions:
    """What tests call, all from one set of modules."""

    advance: Callable[..., Any]
    fold: Callable[..., None]
    residual: Callable[..., int]
    ledger_gain: Callable[..., int]
    ledger_position: Callable[..., int]
    pnl: Callable[..., Any]
    bounds: Callable[..., tuple[int, int]]
    exposure: Callable[..., tuple[int, int, int, int]]


def _functions(modules: dict[str, ModuleType]) -> Functions:
    step, pnl, slots = modules["step"], modules["pnl"], modules["slots"]
    return Functions(
        advance=step.advance,
        fold=step.fold,
        residual=pnl.residual,
        ledger_gain=pnl.ledger_gain,
        ledger_position=pnl.ledger_position,
        pnl=pnl.pnl,
        bounds=slots.bounds,
        exposure=slots.exposure,
    )


def shipped() -> Functions:
    """Return the core as it ships: compiled."""
    return _functions({name: importlib.import_module(f"gridmm.{name}") for name in MODULES})


@contextmanager
def _aside(names: list[str]) -> Iterator[None]:
    """Take modules away while others bear their names."""
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


def plain(*edits: Edit) -> Functions:
    """Return the core as plain Python, with lines replaced."""
    assert {edit.module for edit in edits} <= set(MODULES)
    names = ["gridmm.compiled", *(f"gridmm.{name}" for name in MODULES)]
    modules = {}
    with _aside(names):
        stub = ModuleType("gridmm.compiled")
        stub.compiled = lambda function: function  # type: ignore[attr-defined]
        sys.modules["gridmm.compiled"] = stub
        for name in MODULES:
            path = PACKAGE / f"{name}.py"
            source = path.read_text(encoding="utf-8")
            for edit in edits:
                if edit.module == name:
                    source = edit.apply(source)
            module = ModuleType(f"gridmm.{name}")
            module.__package__ = "gridmm"
            sys.modules[module.__name__] = modules[name] = module
            exec(compile(source, str(path), "exec"), module.__dict__)
    return _functions(modules)
