"""Loading a repository: which files, which objects, and what is said about its problems."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

from feast._repository import Repository, load
from feast.protos.feast.core.Registry_pb2 import Registry

DEFINITIONS = """
    from datetime import timedelta
    from feast.entity import Entity
    from feast.feature_view import FeatureView
    from feast.field import Field
    from feast.infra.offline_stores.file_source import FileSource
    from feast.types import Float32, Int64

    driver = Entity(name="driver", join_keys=["driver_id"])
    stats = FeatureView(
        name="driver_stats",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[Field(name="conv_rate", dtype=Float32)],
        source=FileSource(name="stats_source", path="stats.parquet", timestamp_field="event_timestamp"),
    )
"""
ENTITY = (
    'from feast.entity import Entity\ndriver = Entity(name="driver", join_keys=["driver_id"])\n'
)


def contents(result: dict) -> Registry:
    return Registry.FromString(result["contents"])


def names(objects) -> list[str]:
    return [each.spec.name for each in objects]


def only_problem(result: dict) -> dict:
    assert len(result["problems"]) == 1, result["problems"]
    return result["problems"][0]


def test_objects_come_with_their_sources_and_places(write_files):
    result = load(str(write_files({"features/stats.py": DEFINITIONS})), "proj")

    assert result["problems"] == []
    assert names(contents(result).feature_views) == ["driver_stats"]
    assert names(contents(result).entities) == ["driver"]
    assert [source.name for source in contents(result).data_sources] == ["stats_source"]
    assert result["locations"] == {
        "entity/driver": "features/stats.py:9",
        "feature_view/driver_stats": "features/stats.py:10",
        "data_source/stats_source": "features/stats.py:15",
    }


def test_imported_objects_count_once(write_files):
    files = {"entities.py": ENTITY, "views.py": "from entities import driver\nalias = driver\n"}
    result = load(str(write_files(files)), "proj")

    assert result["problems"] == []
    assert names(contents(result).entities) == ["driver"]


def test_objects_in_lists_and_classes_do_not_count(write_files):
    text = ENTITY.replace("driver =", "drivers =").replace("Entity(", "[Entity(").rstrip() + "]\n"
    result = load(str(write_files({"a.py": text})), "proj")

    assert result["problems"] == []
    assert len(contents(result).entities) == 0


def test_files_follow_feastignore(write_files):
    root = write_files(
        {
            "kept.py": "",
            "package/__init__.py": "",
            "package/also_kept.py": "",
            "scripts/run.py": "",
            "notes.py": "",
            "deep/er/generated_a.py": "",
            ".venv/lib/x.py": "",
            "env/pyvenv.cfg": "",
            "env/lib/y.py": "",
            "package/__pycache__/z.py": "",
            ".feastignore": "scripts  # run by hand\n\n# nothing\nnotes.py\n**/generated_*.py\n",
        }
    )
    found = [str(path.relative_to(root.resolve())) for path in Repository(root).files()]

    assert found == ["kept.py", "package/also_kept.py"]


def test_bad_ignore_pattern_is_a_problem(write_files):
    problem = only_problem(load(str(write_files({".feastignore": "\n/etc\n"})), "proj"))

    assert problem["location"] == ".feastignore:2"
    assert "not a pattern, `/etc`" in problem["message"]


def test_a_broken_file_does_not_hide_the_others(write_files):
    files = {
        "good.py": ENTITY,
        "bad.py": "x = 1\ny = (\n",
        "missing.py": "import no_such_module_here\n",
    }
    result = load(str(write_files(files)), "proj")

    assert names(contents(result).entities) == ["driver"]
    assert [problem["location"] for problem in result["problems"]] == ["bad.py:2", "missing.py:1"]
    assert "not valid Python" in result["problems"][0]["message"]
    assert (
        result["problems"][1]["message"]
        == "imports module `no_such_module_here`, which does not exist"
    )


def test_an_error_is_reported_where_the_user_wrote_it(write_files):
    text = """
    from feast.entity import Entity

    def make(**keys):
        return Entity(**keys)

    driver = make(name="driver", join_keys=["a", "b"])
    """
    problem = only_problem(load(str(write_files({"a.py": text})), "proj"))

    assert problem["location"] == "a.py:5"
    assert "Traceback" not in problem["message"]
    assert "driver" in problem["message"]


def test_one_cause_in_an_imported_file_is_reported_once(write_files):
    files = {
        "a.py": "import b\n",
        "b.py": "raise RuntimeError('no luck')\n",
        "c.py": "from b import x\n",
    }
    problem = only_problem(load(str(write_files(files)), "proj"))

    assert problem["location"] == "b.py:1"
    assert problem["message"] == "cannot be imported: RuntimeError: no luck"


def test_a_misspelt_import_names_the_near_one(write_files):
    problem = only_problem(
        load(str(write_files({"a.py": "from feast.entity import Entitty\n"})), "proj")
    )

    assert problem["message"] == "imports `Entitty` from `feast.entity`, which has no such name"
    assert problem["hint"] == "did you mean `Entity`?"


def test_a_script_that_exits_is_a_problem(write_files):
    problem = only_problem(load(str(write_files({"run.py": "import sys\nsys.exit(3)\n"})), "proj"))

    assert problem["location"] == "run.py:2"
    assert "exit code 3" in problem["message"]
    assert "__main__" in problem["hint"]


def test_the_same_name_twice_is_a_problem_with_both_places(write_files):
    files = {"a.py": ENTITY, "b.py": ENTITY.replace('["driver_id"]', '["id"]')}
    problem = only_problem(load(str(write_files(files)), "proj"))

    assert problem["object"] == "entity `driver`"
    assert problem["location"] == "b.py:2"
    assert "a.py:2" in problem["message"]


def test_view_names_are_compared_without_case(write_files):
    files = {"a.py": DEFINITIONS, "b.py": DEFINITIONS.replace('"driver_stats"', '"Driver_Stats"')}
    problem = only_problem(load(str(write_files(files)), "proj"))

    assert problem["object"] == "feature view `Driver_Stats`"
    assert "`driver_stats` at `a.py:10`" in problem["message"]


def test_an_identical_definition_met_twice_is_one_object(write_files):
    files = {"team/__init__.py": "", "team/entities.py": ENTITY, "copy.py": ENTITY}
    result = load(str(write_files(files)), "proj")

    assert result["problems"] == []
    assert names(contents(result).entities) == ["driver"]


def test_projects(write_files):
    project = 'from feast.project import Project\np = Project(name="{}")\n'
    same = load(str(write_files({"p.py": project.format("proj")}, "same")), "proj")
    other = load(str(write_files({"p.py": project.format("other")}, "other")), "proj")
    both = {"p.py": project.format("proj"), "q.py": project.format("second")}
    two = load(str(write_files(both, "two")), "proj")

    assert same["problems"] == []
    assert names(contents(same).projects) == ["proj"]
    assert (
        "is not the project of `feature_store.yaml`, which is `proj`"
        in only_problem(other)["message"]
    )
    assert "defines 2 projects" in only_problem(two)["message"]


def test_a_file_may_have_the_name_of_a_known_module(write_files):
    result = load(
        str(write_files({"json.py": ENTITY, "v1.2/x.py": ENTITY.replace("driver", "rider")})),
        "proj",
    )

    assert result["problems"] == []
    assert sorted(names(contents(result).entities)) == ["driver", "rider"]
    assert hasattr(json, "dumps")


def test_a_second_load_sees_the_files_as_they_are_now(write_files):
    root = write_files({"entities.py": ENTITY})
    load(str(root), "proj")
    (root / "entities.py").write_text(ENTITY.replace('"driver"', '"rider"'))

    assert names(contents(load(str(root), "proj")).entities) == ["rider"]


def test_two_repositories_with_the_same_file_names_do_not_mix(write_files):
    first = load(str(write_files({"entities.py": ENTITY}, "one")), "proj")
    second = load(
        str(write_files({"entities.py": ENTITY.replace('"driver"', '"rider"')}, "two")), "proj"
    )

    assert names(contents(first).entities) == ["driver"]
    assert names(contents(second).entities) == ["rider"]


def test_loading_leaves_the_process_as_it_was(write_files, capsys):
    root = write_files({"a.py": "import os\nprint('here', os.path.basename(os.getcwd()))\n"})
    before = (list(sys.path), Path.cwd())
    load(str(root), "proj")

    assert (list(sys.path), Path.cwd()) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "here repository\n"
    assert not list(root.rglob("__pycache__"))


def test_a_missing_folder_is_a_problem(tmp_path):
    problem = only_problem(load(str(tmp_path / "nowhere"), "proj"))

    assert problem["object"].startswith("repository `") and problem["message"] == "does not exist"


def test_as_a_program_it_prints_one_json_object(write_files):
    text = ENTITY + "import os\nprint('noise')\nos.write(1, b'more noise')\n"
    root = write_files({"a.py": text})
    done = subprocess.run(
        [sys.executable, "-m", "feast._repository", str(root), "proj"],
        capture_output=True,
        check=True,
    )

    result = json.loads(done.stdout)
    result["contents"] = base64.b64decode(result["contents"])
    assert names(contents(result).entities) == ["driver"]
    assert b"noise" in done.stderr


def test_loading_imports_neither_pandas_nor_arrow(write_files):
    root = write_files({"a.py": DEFINITIONS})
    script = (
        "import sys; from feast._repository import load; "
        f"assert not load({str(root)!r}, 'proj')['problems']; "
        "print(sorted({'pandas', 'pyarrow', 'numpy', 'polars', 'feast._feast'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert done.stdout.strip() == "[]"
