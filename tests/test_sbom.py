"""The bill of materials says what the lock says, name by name and hash by hash; the tool that writes it is locked too."""

from __future__ import annotations

from typing import Any

import pytest

from tools.lock import RUN_LOCK
from tools.notebooks import ROOT
from tools.sbom import LOCK, TOOL, differences, locked

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
TEXT = f"# Exact versions\nAlpha-x==1.0 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\nbeta==2.1 ; sys_platform == 'win32' \\\n    --hash=sha256:{C}\n"


def component(name: str, version: str, *hashes: str) -> dict[str, Any]:
    said = [{"alg": "SHA-256", "content": one} for one in hashes]
    return {"name": name, "version": version, "externalReferences": [{"hashes": said}]}


WHOLE = [component("alpha-x", "1.0", A, B), component("beta", "2.1", C)]


def test_a_bill_that_says_what_the_lock_says_differs_in_nothing() -> None:
    assert differences(TEXT, {"components": WHOLE}) == []


@pytest.mark.parametrize(
    ("components", "line"),
    [
        (WHOLE[:1], "beta 2.1 is locked and not listed"),
        ([*WHOLE, component("gamma", "3", C)], "gamma 3 is listed and not locked"),
        ([component("alpha-x", "1.0", A), WHOLE[1]], "alpha-x 1.0 has other hashes"),
    ],
)
def test_what_differs_is_named(components: list[dict[str, Any]], line: str) -> None:
    assert differences(TEXT, {"components": components}) == [line]


def test_a_lock_without_hashes_is_no_lock() -> None:
    assert differences("alpha==1.0\n", {"components": [component("alpha", "1.0")]}) == [
        "alpha 1.0 has no hash"
    ]


def test_both_locks_of_this_checkout_pin_everything_with_hashes() -> None:
    for name in (RUN_LOCK, LOCK):
        found = locked((ROOT / name).read_text(encoding="utf-8"))
        assert len(found) > 5 and all(found.values()), name
    assert TOOL in {name for name, _ in found}
    assert TOOL not in (ROOT / RUN_LOCK).read_text(encoding="utf-8")
