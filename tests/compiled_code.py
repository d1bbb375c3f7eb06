"""One compilation for all copies of the package that have the same source.

The cache's folder is named by the source, but within it numba keeps the copies apart by their paths, though it
compares the source as well: a copy that is new at its place would be compiled again, for a minute, by every process
that runs before the first has finished. A link makes its path another name of what is compiled already. Where a byte
differs, numba notices, and compiles.
"""

from __future__ import annotations

from pathlib import Path

from gridmm.compiled import cache_folder
from gridmm.kernel_cache import compiler_off, mark_of


def link(package: Path) -> Path | None:
    """Let a copy of the package run what is compiled already.

    Args:
        package: Folder of its modules.

    Returns:
        The link, where one was made.
    """
    if compiler_off():
        return None
    from numba.core.caching import UserProvidedCacheLocator

    folder = cache_folder(package)
    place = folder / UserProvidedCacheLocator.get_suitable_cache_subpath(str(package / "step.py"))
    compiled = [path for path in folder.glob(f"{package.name}_*") if path.is_dir() and not path.is_symlink()]
    if place.exists() or place.is_symlink() or not compiled:
        return None
    place.symlink_to(max(compiled, key=lambda path: len(list(path.iterdir()))))
    mark_of(package).touch()
    return place
