"""Labels: judgements about entities by people or programs, which may contradict each other."""

from feast.labeling.conflict_policy import ConflictPolicy
from feast.labeling.conflict_resolver import resolve_conflicts
from feast.labeling.label_view import LabelView

__all__ = ["ConflictPolicy", "LabelView", "resolve_conflicts"]
