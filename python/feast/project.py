"""`Project`: the name space that all other objects live in."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from feast._definition import Definition, check_text, checked_texts, declared_at

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Project(Definition):
    """A name space. A repository declares at most one, named like `project` in its settings."""

    _compared = ("name", "description", "tags", "owner")

    def __init__(
        self,
        *,
        name: str,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
        created_timestamp: datetime | None = None,
        last_updated_timestamp: datetime | None = None,
    ) -> None:
        check_text("a project", "name", name)
        where = f"project `{name}`"
        check_text(where, "description", description)
        check_text(where, "owner", owner)
        self._declared_at = declared_at()
        self.name = name
        self.description = description
        self.tags = checked_texts(where, "tags", tags)
        self.owner = owner
        self.created_timestamp = created_timestamp
        self.last_updated_timestamp = last_updated_timestamp

    def __hash__(self) -> int:
        return hash(self.name)

    def is_valid(self) -> None:
        """Refuses names that cannot become part of a table name."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"project `{self.name}`: a project name has letters, digits, `_` and `-`, and "
                "starts with a letter or digit"
            )

    def to_proto(self) -> Any:
        """The message `feast.core.Project`."""
        from feast._wire import write_times
        from feast.protos.feast.core.Project_pb2 import Project as Message
        from feast.protos.feast.core.Project_pb2 import ProjectMeta, ProjectSpec

        spec = ProjectSpec(
            name=self.name, description=self.description, tags=self.tags, owner=self.owner
        )
        return Message(spec=spec, meta=write_times(ProjectMeta(), self))

    @classmethod
    def from_proto(cls, project_proto: Any) -> Project:
        """Reads `feast.core.Project`."""
        from feast._wire import read_times

        spec = project_proto.spec
        project = cls(
            name=spec.name,
            description=spec.description,
            tags=dict(spec.tags),
            owner=spec.owner,
        )
        read_times(project_proto.meta, project, zone=UTC)
        return project
