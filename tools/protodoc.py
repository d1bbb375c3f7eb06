"""The data model's page, written by the comments of `proto/` and by nothing else."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    SourceCodeInfo,
)

from tools.notebooks import ROOT
from tools.proto import protoc

HEAD = """# Data model
> Every message that gridmm stores or sends, as the schema itself describes it

Names, numbers and meanings on this page are those of the `.proto` files. Numbers are never reused:
what is written today must be readable by every later version.
"""

# Field numbers of descriptor.proto, which are the steps of a source path.
_MESSAGE, _ENUM = 4, 5
_NESTED_FIELD, _NESTED_MESSAGE, _NESTED_ENUM, _ENUM_VALUE = 2, 3, 4, 2

_SCALARS = {
    value.number: value.name.removeprefix("TYPE_").lower()
    for value in FieldDescriptorProto.Type.DESCRIPTOR.values
}


@dataclass(frozen=True)
class Entry:
    """Something of the schema that has a name and must have a meaning."""

    kind: str
    name: str
    where: str
    comment: str
    number: int | None = None
    type: str = ""
    children: list[Entry] = field(default_factory=list)


def _files(root: Path) -> list[FileDescriptorProto]:
    with tempfile.TemporaryDirectory(prefix="gridmm-proto-") as folder:
        out = Path(folder) / "schema.binpb"
        protoc(root, "--include_source_info", f"--descriptor_set_out={out}")
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


class _Reader:
    """Walks one file of the schema and pairs each element with its comment."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.file = file
        self.locations = {tuple(loc.path): loc for loc in file.source_code_info.location}

    def entries(self) -> Iterator[Entry]:
        for i, message in enumerate(self.file.message_type):
            yield from self.message(message, (_MESSAGE, i), self.file.package)
        for i, enum in enumerate(self.file.enum_type):
            yield self.enum(enum, (_ENUM, i), self.file.package)

    def message(self, message: DescriptorProto, path: tuple[int, ...], scope: str) -> Iterator[Entry]:
        name = f"{scope}.{message.name}"
        maps = {f".{name}.{n.name}": n for n in message.nested_type if n.options.map_entry}
        fields = [
            self.entry(
                "field", f.name, (*path, _NESTED_FIELD, i), number=f.number, type=_type(f, message, maps)
            )
            for i, f in enumerate(message.field)
        ]
        yield self.entry("message", name, path, children=fields)
        for i, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from self.message(nested, (*path, _NESTED_MESSAGE, i), name)
        for i, enum in enumerate(message.enum_type):
            yield self.enum(enum, (*path, _NESTED_ENUM, i), name)

    def enum(self, enum: EnumDescriptorProto, path: tuple[int, ...], scope: str) -> Entry:
        values = [
            self.entry("enum value", v.name, (*path, _ENUM_VALUE, i), number=v.number)
            for i, v in enumerate(enum.value)
        ]
        return self.entry("enum", f"{scope}.{enum.name}", path, children=values)

    def entry(
        self,
        kind: str,
        name: str,
        path: tuple[int, ...],
        number: int | None = None,
        type: str = "",
        children: Sequence[Entry] = (),
    ) -> Entry:
        location = self.locations[path]
        where = f"proto/{self.file.name}:{location.span[0] + 1}"
        return Entry(kind, name, where, _comment(location), number, type, list(children))


def _comment(location: SourceCodeInfo.Location) -> str:
    text = location.leading_comments or location.trailing_comments
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.strip("\n").splitlines()).strip()


def _type(f: FieldDescriptorProto, message: DescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    if entry := maps.get(f.type_name):
        key, value = entry.field
        return f"map of {_plain(key)} to {_plain(value)}"
    if f.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {_plain(f)}"
    if f.proto3_optional:
        return f"optional {_plain(f)}"
    if f.HasField("oneof_index"):
        return f"{_plain(f)}, one of `{message.oneof_decl[f.oneof_index].name}`"
    return _plain(f)


def _plain(f: FieldDescriptorProto) -> str:
    if not f.type_name:
        return f"`{_SCALARS[f.type]}`"
    name = f.type_name.removeprefix(".")
    if name.startswith("google."):
        return f"`{name}`"
    return f"[`{name.rpartition('.')[2]}`](#{name})"


def schema(root: Path = ROOT) -> list[tuple[str, list[Entry]]]:
    """Return each schema file's name with its messages and enums, in the order they are written."""
    return [(file.name, list(_Reader(file).entries())) for file in _files(root)]


def uncommented(root: Path = ROOT) -> list[str]:
    """List everything of the schema that does not say what it means."""
    return [
        f"{entry.where}: {entry.kind} {entry.name} has no comment. Say its meaning and its unit."
        for _, entries in schema(root)
        for parent in entries
        for entry in (parent, *parent.children)
        if not entry.comment
    ]


def page(root: Path = ROOT) -> str:
    """Return the data model as Markdown.

    Raises:
        ValueError: Something has no comment; the message lists file and line of each.
    """
    if missing := uncommented(root):
        raise ValueError("\n".join(missing))
    parts = [HEAD]
    for file, entries in schema(root):
        parts.append(f"## {Path(file).stem.replace('_', ' ').capitalize()}\n\nFile `proto/{file}`.\n")
        parts.extend(_section(entry) for entry in entries)
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    short = entry.name.rpartition(".")[2]
    lines = [f"### `{short}` {{ #{entry.name} }}", "", entry.comment, ""]
    if entry.kind == "enum":
        lines += ["| Value | No. | Meaning |", "| --- | ---: | --- |"]
        lines += [f"| `{v.name}` | {v.number} | {_cell(v.comment)} |" for v in entry.children]
    elif entry.children:
        lines += ["| Field | No. | Type | Meaning |", "| --- | ---: | --- | --- |"]
        lines += [f"| `{f.name}` | {f.number} | {f.type} | {_cell(f.comment)} |" for f in entry.children]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Fit a comment into one table cell."""
    return text.replace("|", "\\|").replace("\n\n", "<br>").replace("\n", " ")


def main() -> int:
    """Print the page, or what keeps it from being written."""
    try:
        print(page())
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
