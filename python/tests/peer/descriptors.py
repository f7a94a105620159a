"""Prints the facts of all message files, in either interpreter, as JSON.

python descriptors.py        # {file: {package, imports, messages, enums, services}}
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

FOLDERS = ("core", "registry", "serving", "types")


def facts() -> dict[str, Any]:
    """What of each file matters to a reader of its messages."""
    from google.protobuf import descriptor_pb2

    import feast.protos

    root = Path(feast.protos.__file__).parent / "feast"
    result = {}
    for path in sorted(path for folder in FOLDERS for path in (root / folder).glob("*_pb2.py")):
        module = importlib.import_module(f"feast.protos.feast.{path.parent.name}.{path.stem}")
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        found: dict[str, Any] = {}
        for one in file.message_type:
            message(one, one.name, found)
        for one in file.enum_type:
            found[one.name] = sorted([value.number, value.name] for value in one.value)
        services = {
            one.name: [
                [m.name, m.input_type, m.output_type, m.client_streaming, m.server_streaming]
                for m in one.method
            ]
            for one in file.service
        }
        result[file.name] = [file.package, file.syntax, sorted(file.dependency), found, services]
    return result


def message(one: Any, name: str, found: dict[str, Any]) -> None:
    """Adds the facts of a message and of everything declared inside it."""
    oneofs = [group.name for group in one.oneof_decl]
    found[name] = sorted(
        [
            field.number,
            field.name,
            field.type,
            field.type_name,
            field.label,
            field.proto3_optional,
            oneofs[field.oneof_index] if field.HasField("oneof_index") else "",
        ]
        for field in one.field
    )
    for value in one.enum_type:
        found[f"{name}.{value.name}"] = sorted([item.number, item.name] for item in value.value)
    for nested in one.nested_type:
        message(nested, f"{name}.{nested.name}", found)


if __name__ == "__main__":
    print(json.dumps(facts()))
