"""Runs the whole story of a feature store on real flights, step by step, each with its time.

    python examples/flights/demo.py                 # all 336,776 flights
    python examples/flights/demo.py --limit 5000    # a quick look

Needs `feast`, pandas, PyArrow and NumPy. Works in a scratch copy; the checked-in files stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent
MARKER = ".flights-demo"  # tells a scratch directory of ours from somebody's work
HEALTH_SECONDS = 60
HEALTH_PAUSE = 0.05
STOP_SECONDS = 15
HTTP_SECONDS = 60
COMMAND_SECONDS = 1800

FEATURE_SERVICE = "departure_delay_v1"

# In the story it is eight in the evening of Monday, 30 December, in New York. The weather data have just ended, and
# three flights leave in an hour.
FIRST_DAY, NOW = "2013-01-01T00:00:00", "2013-12-31T01:00:00"
UPCOMING = {
    "origin": ["EWR", "JFK", "LGA"],
    "dest": ["SFO", "LAX", "ORD"],
    "carrier": ["UA", "B6", "AA"],
    "hour": [21, 21, 21],
    "weekday": [0, 0, 0],
}
STORM = {
    "origin": "JFK",
    "temp": 33.1,
    "dewp": 32.0,
    "humid": 96.0,
    "wind_dir": 50.0,
    "wind_speed": 36.8,
    "wind_gust": 54.1,
    "precip": 0.42,
    "pressure": 991.5,
    "visib": 0.25,
    "event_timestamp": f"{NOW}+00:00",
}


class DemoError(Exception):
    """Ends the demo; the message is all that the user sees."""


class Steps:
    """Prints each step with its time and keeps them for the summary."""

    def __init__(self, total: int):
        self.total = total
        self.done: list[tuple[str, float, str]] = []
        self.began = time.perf_counter()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Times the body; the lines that the body appends are the result, the first one goes into the summary."""
        print(f"[{len(self.done) + 1}/{self.total}] {title}", flush=True)
        began = time.perf_counter()
        result: list[str] = []
        yield result
        seconds = time.perf_counter() - began
        for line in result:
            print(f"      {line}")
        print(f"      {seconds:.2f} s", flush=True)
        self.done.append((title, seconds, result[0] if result else ""))

    def summary(self) -> str:
        """A table of all steps."""
        rows = [(title, f"{seconds:.2f} s", result) for title, seconds, result in self.done]
        rows.append(("total", f"{time.perf_counter() - self.began:.2f} s", ""))
        titles = max(len(title) for title, _, _ in rows)
        times = max(len(seconds) for _, seconds, _ in rows)
        results = max(len(result) for _, _, result in rows)
        rule = f"{'-' * titles}  {'-' * times}  {'-' * results}"
        lines = [f"{'step':{titles}}  {'time':>{times}}  result", rule]
        lines += [f"{title:{titles}}  {seconds:>{times}}  {result}".rstrip() for title, seconds, result in rows[:-1]]
        lines += [rule, f"{rows[-1][0]:{titles}}  {rows[-1][1]:>{times}}"]
        return "\n".join(lines)


# The scratch copy ---------------------------------------------------------------------------------------------------


def scratch_copy(workdir: Path) -> Path:
    """Puts a fresh copy of the feature repository into `workdir`, replacing only what an earlier run left there."""
    if workdir.exists() and not workdir.is_dir():
        raise DemoError(f"`{workdir}` is a file; pass a directory with --workdir")
    if workdir.is_dir() and any(workdir.iterdir()) and not (workdir / MARKER).exists():
        raise DemoError(f"`{workdir}` holds files that this demo did not write; pass an empty directory with --workdir")
    repo = workdir / "feature_repo"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / MARKER).touch()
        if repo.exists():
            shutil.rmtree(repo)
        shutil.copytree(EXAMPLE / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    except OSError as error:
        raise DemoError(
            f"cannot write to `{workdir}`: {error.strerror}; pass another directory with --workdir"
        ) from error
    return repo


# The command line ---------------------------------------------------------------------------------------------------


def feast_command() -> str:
    """The `feast` that belongs to this Python."""
    command = Path(sys.executable).parent / "feast"
    if not command.exists():
        raise DemoError(
            f"no `feast` command beside `{sys.executable}`; run the demo with the Python that has feast installed"
        )
    return str(command)


def feast(repo: Path, *arguments: str) -> list[str]:
    """Runs one feast command in the repository and returns the lines it printed, without colours."""
    shown = f"feast {' '.join(arguments)}"
    command = [feast_command(), "-c", str(repo), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"`{shown}` did not end within {COMMAND_SECONDS} s") from error
    if done.returncode != 0:
        why = last_line(done.stderr or done.stdout)
        raise DemoError(f"`{shown}` ended with exit code {done.returncode}: {why}")
    return plain(done.stdout).splitlines()


def plain(text: str) -> str:
    """Removes colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def last_line(text: str) -> str:
    """The line that names the error."""
    lines = [line.strip() for line in plain(text).splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def excerpt(lines: list[str], most: int = 8) -> list[str]:
    """The first lines of an output, and how many more there are."""
    lines = [line for line in lines if line.strip()]
    return lines if len(lines) <= most else [*lines[: most - 1], f"... {len(lines) - most + 1} more lines"]


# The server ---------------------------------------------------------------------------------------------------------


class Server:
    """A running `feast serve` and its HTTP interface."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path):
        self.process, self.log = process, log
        self.url = f"http://127.0.0.1:{port}"

    def wait_until_healthy(self) -> None:
        """Returns when /health answers 200; the pause between two attempts ends early if the server dies."""
        deadline = time.monotonic() + HEALTH_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                with urllib.request.urlopen(f"{self.url}/health", timeout=HTTP_SECONDS) as response:
                    if response.status == 200:
                        return
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(timeout=HEALTH_PAUSE)
                raise DemoError(f"`feast serve` ended with exit code {code}: {last_line(self.log.read_text())}")
        raise DemoError(
            f"`feast serve` did not answer on {self.url}/health within {HEALTH_SECONDS} s; its log: {self.log}"
        )

    def post(self, path: str, body: dict) -> dict | None:
        """Sends JSON and returns the JSON of the answer, None for an empty one."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=HTTP_SECONDS) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:300]
            raise DemoError(f"POST {path} answered {error.code}: {detail}") from error
        except (OSError, http.client.HTTPException) as error:
            raise DemoError(f"POST {path} got no answer from {self.url}: {error}") from error
        return json.loads(content) if content else None

    def online_features(self, entities: dict[str, list]) -> dict[str, list]:
        """Values of the feature service by name; the order of the answer is the server's own."""
        answer = self.post("/get-online-features", {"feature_service": FEATURE_SERVICE, "entities": entities})
        names = answer["metadata"]["feature_names"]
        return {name: column["values"] for name, column in zip(names, answer["results"], strict=True)}

    def stop(self) -> None:
        """Asks the server and its workers to end, and ends them if they do not."""
        for stop_signal in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=STOP_SECONDS)


@contextlib.contextmanager
def serving(repo: Path) -> Iterator[Server]:
    """Starts `feast serve` on a free port and stops it however the body ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = repo.parent / "serve.log"
    command = [feast_command(), "-c", str(repo), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    server = Server(process, port, log)
    try:
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()


# The story ----------------------------------------------------------------------------------------------------------


def run(workdir: Path, limit: int | None) -> None:
    """Runs all steps and prints the summary."""
    try:
        import pandas as pd
        from feast import FeatureStore

        import prepare
        import train
    except ImportError as error:
        raise DemoError(
            f"`{error.name}` is not installed for {sys.executable}; the demo needs feast, pandas and pyarrow"
        ) from error

    steps = Steps(total=11)
    feast_command()
    repo = scratch_copy(workdir)

    with steps.step("prepare the feature tables") as result:
        try:
            rows = prepare.prepare(repo, limit=limit)
        except FileNotFoundError as error:
            raise DemoError(
                f"raw data not found: `{error.filename}`; restore {prepare.RAW} from the repository"
            ) from error
        timetable = pd.read_parquet(repo / "data" / "timetable.parquet")
        statistics = sum(rows[name] for name in ("origin_departures", "carrier_delays", "route_delays"))
        result += [
            f"{rows['timetable']:,} flights -> {statistics:,} rows of statistics, {rows['weather']:,} of weather"
        ]

    with steps.step("feast plan") as result:
        lines = feast(repo, "plan")
        result += [f"{len(lines)} lines of changes, nothing written yet", *excerpt(lines)]

    with steps.step("feast apply") as result:
        feast(repo, "apply")
        store = FeatureStore(repo_path=str(repo))
        views, services = store.list_feature_views(), store.list_feature_services()
        result += [
            f"{len(views)} feature views, {len(services)} feature service, {len(store.list_entities())} entities"
        ]

    with steps.step("training set for all flights") as result:
        frame = train.training_set(store, timetable)
        features = train.feature_columns(store)
        complete = f"{len(frame):,} rows x {len(features)} features"
        result += [
            complete
            if len(frame) == len(timetable)
            else f"{complete}; the offline store lost {len(timetable) - len(frame):,} rows"
        ]

    with steps.step("delay model, without and with the features") as result:
        try:
            scores, model = train.score(frame, features)
        except ValueError as error:
            raise DemoError(f"{error}; pass a larger --limit") from error
        result += [
            f"ROC AUC {scores['auc_without']:.3f} -> {scores['auc_with']:.3f}",
            f"log loss {scores['log_loss_without']:.3f} -> {scores['log_loss_with']:.3f}",
            f"trained on {scores['train_rows']:,} flights before {scores['split']}, scored on {scores['test_rows']:,}",
        ]

    with steps.step("feast materialize") as result:
        feast(repo, "materialize", FIRST_DAY, NOW)
        result += [f"latest row per key of {len(views)} views as of {NOW[:16]}Z"]

    entities = {key: UPCOMING[key] for key in ("origin", "dest", "carrier")}
    distance = timetable.groupby(["origin", "dest"])["distance"].first()
    upcoming = pd.DataFrame(UPCOMING)
    upcoming["distance"] = [distance.get(route) for route in zip(upcoming["origin"], upcoming["dest"], strict=True)]

    def chances(online: dict[str, list]) -> list[float]:
        table = upcoming.assign(**{name: pd.to_numeric(pd.Series(online[name], dtype="object")) for name in features})
        return list(model.chance(table))

    with contextlib.ExitStack() as running:
        with steps.step("feast serve") as result:
            server = running.enter_context(serving(repo))
            result += [f"healthy on {server.url}"]

        with steps.step("query over HTTP and predict") as result:
            before = server.online_features(entities)
            chances_before = chances(before)
            result += [f"{len(UPCOMING['origin'])} flights x {len(features)} features"]
            result += departures(before, chances_before)

        with steps.step("push a storm at JFK over HTTP") as result:
            body = {
                "push_source_name": "weather_observations",
                "df": {name: [value] for name, value in STORM.items()},
                "to": "online_and_offline",
            }
            server.post("/push", body)
            result += [f"observation of {STORM['event_timestamp'][:16]}Z to online_and_offline"]

        with steps.step("see it online and offline") as result:
            after = server.online_features(entities)
            chances_after = chances(after)
            jfk = entities["origin"].index("JFK")
            expect_close("the online store", after["wind_speed"][jfk], STORM["wind_speed"])
            minute_before, at_storm = wind_offline(store)
            expect_close("the offline store", at_storm, STORM["wind_speed"])
            expect_close("the offline store a minute earlier", minute_before, before["wind_speed"][jfk])
            result += [f"P(late) of B6 JFK-LAX {chances_before[jfk]:.0%} -> {chances_after[jfk]:.0%}"]
            result += departures(after, chances_after)
            result += [
                f"offline: a training row of 00:59Z sees {minute_before:.1f} mph of wind, one of 01:00Z {at_storm:.1f}"
            ]

        with steps.step("stop the server") as result:
            server.stop()
            result += [f"exit code {server.process.returncode}"]

    print(f"\n{steps.summary()}\n")
    if limit is not None:
        print("The first flights of January teach a model little: its scores count without --limit only.\n")
    print(next_commands(repo))


def departures(online: dict[str, list], chances: list[float]) -> list[str]:
    """A small table of what the model reads and predicts."""
    lines = ["flight       wind mph  visib mi  left late, 3 h  carrier late, 7 d  route late, 50  P(late)"]
    for row, chance in enumerate(chances):
        values = {name: column[row] for name, column in online.items()}
        lines.append(
            f"{values['carrier']} {values['origin']}-{values['dest']}"
            f"  {number(values['wind_speed'], '.1f'):>9}  {number(values['visib'], '.2f'):>8}"
            f"  {number(values['origin_late_share_3h'], '.0%'):>14}"
            f"  {number(values['carrier_late_share_7d'], '.0%'):>17}"
            f"  {number(values['route_late_share_50'], '.0%'):>14}  {chance:>7.0%}"
        )
    return lines


def number(value: float | None, form: str) -> str:
    """A feature value that may be absent, as with few flights."""
    return "-" if value is None else format(value, form)


def wind_offline(store) -> tuple[float, float]:
    """Wind at JFK as a training set sees it one minute before the pushed observation, and at its time."""
    import pandas as pd

    at_storm = pd.Timestamp(STORM["event_timestamp"])
    moments = pd.DataFrame({"origin": "JFK", "event_timestamp": [at_storm - pd.Timedelta(minutes=1), at_storm]})
    frame = store.get_historical_features(entity_df=moments, features=["origin_weather:wind_speed"]).to_df()
    minute_before, at = frame.sort_values("event_timestamp")["wind_speed"]
    return float(minute_before), float(at)


def expect_close(place: str, found: float | None, expected: float) -> None:
    """Fails unless the store returned the value that the story promises, to the precision of a 32-bit float."""
    if found is None or not abs(found - expected) < 1e-3:
        raise DemoError(f"{place} returned wind speed {found} at JFK after the push, expected {expected}")


def next_commands(repo: Path) -> str:
    """What to try now."""
    place, python = shlex.quote(short(repo)), shlex.quote(short(sys.executable))
    command = shlex.quote(short(feast_command()))
    return "\n".join(
        [
            "Next, on the repository that the demo left behind:",
            f"  {command} -c {place} feature-views list",
            f"  {command} -c {place} feature-services describe {FEATURE_SERVICE}",
            f"  {command} -c {place} get-online-features -e origin=JFK -e dest=LAX -f route_delays:route_late_share_50",
            f"  {command} -c {place} serve",
            f"  {python} {shlex.quote(short(EXAMPLE / 'train.py'))} --repo {place}",
            f"Change {short(repo / 'definitions.py')}, then see what would happen:",
            f"  {command} -c {place} plan",
        ]
    )


def short(path: str | Path) -> str:
    """A path as one would type it here; links stay, since a virtual environment is one."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N flights of the year")
    parser.add_argument(
        "--workdir", type=Path, default=EXAMPLE / ".work", help="scratch directory (default: .work beside this file)"
    )
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit must be at least 1, found {arguments.limit}")
    # A polite kill must unwind the stack as Ctrl-C does, or the server would outlive the demo.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(arguments.workdir.absolute(), arguments.limit)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
