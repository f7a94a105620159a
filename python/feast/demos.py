"""Notebooks that show a feature store at work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = "feature_store.yaml"

# Title, then (text, code) for each step.
_STEPS = [
    (
        "Connect",
        "from feast import FeatureStore\n\nstore = FeatureStore(fs_yaml_file={path!r})\nstore.project",
    ),
    (
        "What is defined",
        "for view in store.list_feature_views():\n"
        "    print(view.name, [feature.name for feature in view.features])",
    ),
    (
        "Training data: features as they were known at the time of each row",
        "import pandas as pd\n\n"
        "view = store.list_feature_views()[0]\n"
        "references = [f'{{view.name}}:{{feature.name}}' for feature in view.features]\n"
        "# Replace the values by keys of your own.\n"
        "rows = pd.DataFrame({{key: [1001] for key in view.join_keys}})\n"
        "rows['event_timestamp'] = pd.Timestamp.now(tz='UTC')\n"
        "store.get_historical_features(entity_df=rows, features=references).to_df()",
    ),
    (
        "Into the online store",
        "from datetime import datetime, timezone\n\n"
        "store.materialize_incremental(end_date=datetime.now(timezone.utc))",
    ),
    (
        "Features for a request",
        "keys = [{{key: 1001 for key in view.join_keys}}]\n"
        "store.get_online_features(features=references, entity_rows=keys).to_dict()",
    ),
]


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    if kind == "code":
        cell.update(execution_count=None, outputs=[])
    return cell


def copy_demo_notebooks(
    output_dir: str = "./feast-demo-notebooks", repo_path: str = ".", overwrite: bool = False
) -> None:
    """Writes a notebook for each `feature_store.yaml` at or below a folder."""
    target = Path(output_dir).resolve()
    if target.exists() and not overwrite:
        raise FileExistsError(f"`{target}` exists already; remove it or pass overwrite=True")
    found = sorted(Path(repo_path).resolve().rglob(_FILE))
    if not found:
        raise FileNotFoundError(f"no {_FILE} is found at or below `{Path(repo_path).resolve()}`")
    for path in found:
        folder = target / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        cells = [_cell("markdown", f"# Feature store of `{path.parent.name}`")]
        for title, code in _STEPS:
            cells.append(_cell("markdown", f"## {title}"))
            cells.append(_cell("code", code.format(path=str(path))))
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (folder / "feature_store.ipynb").write_text(json.dumps(notebook, indent=1))
