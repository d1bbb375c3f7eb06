__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load `gridmm.connect` when somebody asks for it: `import gridmm` itself loads nothing."""
    if name == "connect":
        from importlib import import_module

        return import_module("gridmm.connect")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
