"""What HMGET and HGETALL take of Redis, by the width of hashes, the number of fields asked for and where they lie.

    python bench/online/hashes.py [--seconds N] [--table]

From these figures the Redis store decides how to read (crates/feast-online/src/stores/redis/reading.rs). Hashes have
fields of Feast's layout: names of four bytes, values of 2 to 18; as lists, or as tables with --table.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from raw_redis import Redis, client, field, send_pipelines, write_pipelines
from servers import cpu_seconds, redis

KEYS, PER_PIPELINE = 2000, 100
LENGTHS = [2, 10, 6, 10, 5, 8, 10, 3, 18, 11]


def main() -> None:
    """Fills, measures and prints one width after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--table", action="store_true", help="hashes that Redis does not keep as lists")
    arguments = parser.parse_args()
    dice = random.Random(1)
    print("| fields | asked | where | places passed | Redis CPU, us per hash | ns per place or field |")
    print("|--:|---|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as scratch, redis(Path(scratch)) as (port, process):
        program, server = client(Path(scratch)), Redis(port)
        if arguments.table:
            server.ask(b"CONFIG", b"SET", b"hash-max-listpack-entries", b"4")
        keys = [b"%032d" % number for number in range(KEYS)]
        for width in (55, 110, 275, 512):
            server.ask(b"FLUSHALL")
            names = [
                b"_ts:view_%02d" % (at // 11) if at % 11 == 10 else field(f"view_{at // 11:02}", f"f{at}")
                for at in range(width)
            ]
            lengths = [7 if at % 11 == 10 else LENGTHS[at % 11] for at in range(width)]
            for key in keys:
                values = [dice.randbytes(length) for length in lengths]
                server.ask(b"HSET", key, *[word for pair in zip(names, values, strict=True) for word in pair])

            def measure(name: bytes, rest: list[bytes], shape: str, places: int, width: int = width) -> None:
                file = Path(scratch) / "commands"
                write_pipelines(file, keys, PER_PIPELINE, name, [rest])
                send_pipelines(program, port, file, 1, 0.1)
                before = cpu_seconds(process)
                told = send_pipelines(program, port, file, 1, arguments.seconds)
                micros = (cpu_seconds(process) - before) * 1e6 / told["requests"] / PER_PIPELINE
                print(f"| {width} | {shape} | {places:,} | {micros:.2f} | {micros * 1000 / places:.0f} |", flush=True)

            measure(b"HGETALL", [], "all: HGETALL |", width)
            for asked in (11, 22, 33, 55, 110, 275):
                for where in ("front", "anywhere", "back"):
                    if asked > width or (asked == width and where != "front"):
                        continue
                    chosen = {
                        "front": names[:asked],
                        "anywhere": dice.sample(names, asked),
                        "back": names[width - asked :],
                    }[where]
                    places = sum(names.index(name) + 1 for name in chosen)
                    measure(b"HMGET", chosen, f"{asked}: HMGET | {where}", places)


if __name__ == "__main__":
    main()
