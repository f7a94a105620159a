"""Which label wins when labelers disagree."""

from __future__ import annotations

from enum import Enum


class ConflictPolicy(Enum):
    """How contradicting labels of one entity become one."""

    LAST_WRITE_WINS = "last_write_wins"
    LABELER_PRIORITY = "labeler_priority"
    MAJORITY_VOTE = "majority_vote"

    def to_proto(self) -> int:
        """The number in the message: their order."""
        return list(ConflictPolicy).index(self)

    @classmethod
    def from_proto(cls, proto_val: int) -> ConflictPolicy:
        """The policy of a number in a message."""
        known = list(cls)
        if not 0 <= proto_val < len(known):
            raise ValueError(f"the registry holds the unknown conflict policy {proto_val}")
        return known[proto_val]
