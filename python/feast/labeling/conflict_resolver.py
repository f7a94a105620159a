"""Making one label per entity out of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feast.labeling.conflict_policy import ConflictPolicy

if TYPE_CHECKING:
    import pandas


def resolve_conflicts(
    df: pandas.DataFrame,
    join_key_columns: list[str],
    feature_name_columns: list[str],
    timestamp_field: str,
    labeler_field: str,
    conflict_policy: ConflictPolicy,
    labeler_priorities: list[str] | None = None,
) -> pandas.DataFrame:
    """One row per entity, by the policy.

    The newest label wins; or that of the labeler who comes first in `labeler_priorities` (labelers
    who are not listed come last, then the newest); or, per feature, the value most labels have
    (among equals the newest).
    """
    if df.empty:
        return df
    rows = df.sort_values(timestamp_field, kind="stable")
    if conflict_policy is ConflictPolicy.MAJORITY_VOTE:
        return _majority(rows, join_key_columns, feature_name_columns)
    if conflict_policy is ConflictPolicy.LABELER_PRIORITY and labeler_priorities:
        last = len(labeler_priorities)
        rank = {name: place for place, name in enumerate(labeler_priorities)}
        order = rows[labeler_field].map(lambda name: rank.get(name, last))
        rows = rows.iloc[(-order).argsort(kind="stable")]
    return rows.drop_duplicates(join_key_columns, keep="last").reset_index(drop=True)


def _majority(
    rows: pandas.DataFrame, join_key_columns: list[str], feature_name_columns: list[str]
) -> pandas.DataFrame:
    newest = rows.drop_duplicates(join_key_columns, keep="last").copy()
    for name in feature_name_columns:
        votes = rows.dropna(subset=[name])
        counted = votes.groupby([*join_key_columns, name], sort=False).size().rename("votes")
        latest = votes.drop_duplicates([*join_key_columns, name], keep="last")
        ranked = latest.merge(counted.reset_index(), on=[*join_key_columns, name])
        winners = ranked.sort_values("votes", kind="stable").drop_duplicates(
            join_key_columns, keep="last"
        )
        chosen = winners.set_index(join_key_columns)[name]
        keys = newest.set_index(join_key_columns).index
        newest[name] = chosen.reindex(keys).to_numpy()
    return newest.reset_index(drop=True)
