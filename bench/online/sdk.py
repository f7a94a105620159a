"""`FeatureStore.get_online_features` in process, run by the Python of either side: figures per call, as JSON.

python sdk.py REPOSITORY FILE SECONDS
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time

from feast import FeatureStore


def main() -> None:
    """Calls as often as the seconds allow, each to dictionaries, as Feast's users do."""
    repository, file, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    store = FeatureStore(repo_path=repository)
    with open(file) as lines:
        requests = [json.loads(line) for line in lines]
    for request in requests:
        key, values = next(iter(request["entities"].items()))
        request["rows"] = [{key: value} for value in values]

    def call(request: dict) -> None:
        store.get_online_features(request["features"], request["rows"]).to_dict()

    for request in requests[:3]:
        call(request)
    walls = []
    before, started = time.process_time(), time.perf_counter()
    for request in itertools.cycle(requests):
        at = time.perf_counter()
        call(request)
        now = time.perf_counter()
        walls.append(now - at)
        if now - started > seconds:
            break
    cpu, elapsed = time.process_time() - before, time.perf_counter() - started
    walls.sort()
    print(
        json.dumps(
            {
                "calls": len(walls),
                "rps": len(walls) / elapsed,
                "p50_ms": walls[len(walls) // 2] * 1000,
                "p99_ms": walls[int(len(walls) * 0.99)] * 1000,
                "cpu_ms": cpu * 1000 / len(walls),
                "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "bad": 0,
            }
        )
    )


main()
