"""Builds the training set with point-in-time features and scores a delay model with and without them.

The model is an additive logistic regression: every column is cut into bins, every bin gets one weight, missing values
have a bin of their own. It needs nothing but NumPy, has no randomness, and says what a feature is worth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from prepare import EXAMPLE, LATE_MINUTES

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_SERVICE = "departure_delay_v1"
TIMETABLE_COLUMNS = ["origin", "carrier", "hour", "weekday", "distance"]
TRAINING_SHARE = 0.75  # in order of time: about January to September, scored on October to December


class DelayModel:
    """Predicts the chance that a flight leaves at least `LATE_MINUTES` late."""

    def __init__(self, columns: list[str], bins: int = 24, rounds: int = 12, step: float = 0.5, damping: float = 20.0):
        self.columns = columns
        self.bins, self.rounds, self.step, self.damping = bins, rounds, step, damping

    def fit(self, frame: pd.DataFrame, late: np.ndarray) -> DelayModel:
        """Learns the cuts from `frame`, then the weights, one column after another, by damped Newton steps."""
        self.cuts = {column: self._learn_cuts(frame[column]) for column in self.columns}
        codes = [self._codes(frame[column], column) for column in self.columns]
        self.weights = [np.zeros(len(self.cuts[column]) + 2) for column in self.columns]
        base = late.mean()
        self.intercept = float(np.log(base / (1 - base)))
        score = np.full(len(late), self.intercept)
        for _ in range(self.rounds):
            for code, weight in zip(codes, self.weights, strict=True):
                chance = 1 / (1 + np.exp(-score))
                slope = np.bincount(code, late - chance, len(weight))
                curvature = np.bincount(code, chance * (1 - chance), len(weight)) + self.damping
                change = self.step * slope / curvature
                weight += change
                score += change[code]
        return self

    def chance(self, frame: pd.DataFrame) -> np.ndarray:
        """The chance of a late departure for every row."""
        score = np.full(len(frame), self.intercept)
        for column, weight in zip(self.columns, self.weights, strict=True):
            score += weight[self._codes(frame[column], column)]
        return 1 / (1 + np.exp(-score))

    def _learn_cuts(self, values: pd.Series) -> np.ndarray:
        if not pd.api.types.is_numeric_dtype(values):
            return np.sort(values.dropna().unique().astype(str))
        known = values.dropna().to_numpy(dtype="float64")
        return np.unique(np.quantile(known, np.linspace(0, 1, self.bins + 1)[1:-1])) if len(known) else known

    def _codes(self, values: pd.Series, column: str) -> np.ndarray:
        """Bin 0 is for missing values and for categories that the training set did not contain."""
        cuts = self.cuts[column]
        if cuts.dtype.kind in "OUT":
            return pd.Categorical(values, categories=cuts).codes.astype("int64") + 1
        numbers = pd.to_numeric(values).to_numpy(dtype="float64", na_value=np.nan)
        return np.where(np.isnan(numbers), 0, np.searchsorted(cuts, numbers, side="right") + 1)


def roc_auc(late: np.ndarray, chance: np.ndarray) -> float:
    """Probability that a late flight gets a higher chance than a punctual one; ties count half."""
    rank = pd.Series(chance).rank().to_numpy()
    positive = int(late.sum())
    negative = len(late) - positive
    return float((rank[late == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def log_loss(late: np.ndarray, chance: np.ndarray) -> float:
    """Mean negative log likelihood."""
    return float(-np.mean(np.where(late == 1, np.log(chance), np.log1p(-chance))))


def training_set(store: FeatureStore, flights: pd.DataFrame) -> pd.DataFrame:
    """Joins to every flight the features as they were known at its moment of prediction.

    The store returns entity columns as they came in, so that timetable and label simply travel along.
    """
    service = store.get_feature_service(FEATURE_SERVICE)
    return store.get_historical_features(entity_df=flights, features=service).to_df()


def feature_columns(store: FeatureStore) -> list[str]:
    """Names of the features that the service serves."""
    service = store.get_feature_service(FEATURE_SERVICE)
    return [feature.name for projection in service.feature_view_projections for feature in projection.features]


def score(frame: pd.DataFrame, features: list[str]) -> tuple[dict[str, float | int | str], DelayModel]:
    """Trains on the earlier flights, scores on the later ones: once on the timetable alone, once with features."""
    departed = frame[frame["dep_delay"].notna()].sort_values(["event_timestamp", "flight_id"], ignore_index=True)
    late = (departed["dep_delay"] >= LATE_MINUTES).to_numpy(dtype="float64")
    split = departed["event_timestamp"].quantile(TRAINING_SHARE)
    past = (departed["event_timestamp"] < split).to_numpy()
    if any(len(np.unique(part)) < 2 for part in (late[past], late[~past])):
        raise ValueError(
            f"{len(departed)} departed flights are too few: training and test part both need late and punctual ones"
        )
    without = DelayModel(TIMETABLE_COLUMNS).fit(departed[past], late[past])
    model = DelayModel(TIMETABLE_COLUMNS + features).fit(departed[past], late[past])
    chance_without, chance_with = without.chance(departed[~past]), model.chance(departed[~past])
    result = {
        "split": str(split.date()),
        "train_rows": int(past.sum()),
        "test_rows": int((~past).sum()),
        "late_share": float(late[~past].mean()),
        "auc_without": roc_auc(late[~past], chance_without),
        "auc_with": roc_auc(late[~past], chance_with),
        "log_loss_without": log_loss(late[~past], chance_without),
        "log_loss_with": log_loss(late[~past], chance_with),
    }
    return result, model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repo", type=Path, default=EXAMPLE / "feature_repo", help="prepared and applied feature repository"
    )
    arguments = parser.parse_args()
    timetable = arguments.repo / "data" / "timetable.parquet"
    if not timetable.exists():
        print(f"error: `{timetable}` not found; run prepare.py --repo {arguments.repo} first", file=sys.stderr)
        return 1
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(arguments.repo))
    frame = training_set(store, pd.read_parquet(timetable))
    try:
        result, _ = score(frame, feature_columns(store))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"training set             {len(frame):>9,} flights, {len(frame.columns)} columns")
    print(f"trained before {result['split']}{result['train_rows']:>9,} flights")
    print(f"scored after   {result['split']}{result['test_rows']:>9,} flights, {result['late_share']:.1%} late")
    print(f"ROC AUC   timetable only {result['auc_without']:.4f}   with features {result['auc_with']:.4f}")
    print(f"log loss  timetable only {result['log_loss_without']:.4f}   with features {result['log_loss_with']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
