"""Every message, enumeration and service is Feast's, number by number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import descriptors


def test_our_messages_are_feasts_messages() -> None:
    done = subprocess.run(
        [os.environ["FEAST_PEER_PYTHON"], str(HERE / "descriptors.py")],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    theirs = json.loads(done.stdout)
    ours = json.loads(json.dumps(descriptors.facts()))
    assert ours.keys() == theirs.keys()
    for name, facts in theirs.items():
        assert ours[name] == facts, name
