"""Declaring objects: what they hold, what they refuse, and what they cost."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

import feast
from feast import (
    Aggregation,
    BatchFeatureView,
    BigQuerySource,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    LabelView,
    OnDemandFeatureView,
    Project,
    PushSource,
    RequestSource,
    SnowflakeSource,
    StreamFeatureView,
    ValueType,
    errors,
)
from feast.batch_feature_view import batch_feature_view
from feast.credentials import ConnectionRef, CredentialResolutionError, resolve_credentials
from feast.data_format import JsonFormat
from feast.feature_logging import LoggingConfig
from feast.feature_view import DUMMY_ENTITY_NAME, FeatureViewState
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import CombinedGroupNamespacePolicy, RoleBasedPolicy
from feast.permissions.user import User
from feast.saved_dataset import SavedDataset, SavedDatasetStorage, ValidationReference
from feast.types import (
    Array,
    Float32,
    Float64,
    Int32,
    Int64,
    Map,
    PrimitiveFeastType,
    Set,
    String,
    Struct,
    ZonedTimestamp,
    from_feast_type,
    from_value_type,
)

PACKAGE = Path(feast.__file__).parent.parent

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
source = FileSource(
    name="stats",
    path="stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
SCHEMA = [
    Field(name="driver_id", dtype=Int64),
    Field(name="conv_rate", dtype=Float32),
    Field(name="trips", dtype=Int64),
]


def view(**changes: object) -> FeatureView:
    arguments = {"name": "stats", "entities": [driver], "schema": SCHEMA, "source": source}
    return FeatureView(**{**arguments, **changes})  # type: ignore[arg-type]


def refused(kind: type[Exception], make: object, *parts: str) -> None:
    """The call fails with this class, and its message names every part."""
    with pytest.raises(kind) as caught:
        make()  # type: ignore[operator]
    for part in parts:
        assert part in str(caught.value)


# --- cost


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE, check=True
    )
    return done.stdout


def test_declaring_loads_no_library() -> None:
    loaded = run(
        "import sys\n"
        "from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType\n"
        "from feast import OnDemandFeatureView, StreamFeatureView, BatchFeatureView, LabelView\n"
        "from feast.types import Int64\n"
        "from feast.permissions.permission import Permission\n"
        "e = Entity(name='e', value_type=ValueType.INT64)\n"
        "v = FeatureView(name='v', entities=[e], schema=[Field(name='a', dtype=Int64)],\n"
        "                source=FileSource(path='p'))\n"
        "FeatureService(name='s', features=[v[['a']]]); Permission('p')\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    for name in ("google", "pandas", "numpy", "pyarrow", "pydantic", "dill"):
        assert f"'{name}'" not in loaded


def test_every_exported_name_exists() -> None:
    for name in feast.__all__:
        assert getattr(feast, name) is not None
    assert set(feast.__all__) <= set(dir(feast))
    assert feast.__version__
    with pytest.raises(AttributeError, match="no attribute `Nonsense`"):
        feast.Nonsense  # noqa: B018


def test_modules_are_attributes_of_the_package() -> None:
    assert run("import feast; print(feast.types.Int64, feast.data_source.PushMode.ONLINE)")


# --- types


@pytest.mark.parametrize("value_type", [one for one in ValueType if one is not ValueType.NULL])
def test_every_stored_type_has_a_type(value_type: ValueType) -> None:
    try:
        declared = from_value_type(value_type)
    except ValueError:
        pytest.fail(f"{value_type} has no type")
    assert from_feast_type(declared) is value_type


def test_types_are_named_and_compared_by_what_they_hold() -> None:
    assert str(Array(Set(Int64))) == "Array(Set(Int64))"
    assert Array(Int64) == Array(Int64) != Array(Int32)
    assert Array(Int64) != Set(Int64)
    assert Struct({"a": Int64}) == Struct({"a": Int64}) != Struct({"a": String})
    assert len({Array(Int64), Array(Int64), Set(Int64)}) == 2
    assert str(PrimitiveFeastType.UNIX_TIMESTAMP) == "UnixTimestamp"


def test_impossible_types_are_refused() -> None:
    refused(ValueError, lambda: Array(ZonedTimestamp), "Array(ZonedTimestamp)", "Int64")
    refused(ValueError, lambda: Set(Map), "Set(Map)")
    refused(ValueError, lambda: Array(int), "Array")
    refused(ValueError, lambda: Struct({}), "at least one part")


@pytest.mark.parametrize(
    "dtype",
    [
        Array(Struct({"x": Array(Int64), "y": Struct({"z": Float32})})),
        Array(Array(Set(String))),
        Set(Array(Int32)),
        Struct({"lat": Float64}),
        Float32,
    ],
)
def test_a_field_keeps_its_type_in_its_message(dtype: object) -> None:
    field = Field(name="f", dtype=dtype, tags={"a": "b"})  # type: ignore[arg-type]
    again = Field.from_proto(field.to_proto())
    assert again == field and again.dtype == dtype and again.tags == {"a": "b"}


def test_a_wrong_dtype_says_what_to_write() -> None:
    refused(TypeError, lambda: Field(name="f", dtype=int), "field `f`", "write `Int64`")
    refused(
        TypeError, lambda: Field(name="f", dtype=ValueType.FLOAT_LIST), "write `Array(Float32)`"
    )
    refused(TypeError, lambda: Field(name="f", dtype=Array), "Array(Int64)")
    refused(TypeError, lambda: Field(name=3, dtype=Int64), "`name`", "3")


# --- entities and projects


def test_an_entity_is_joined_by_its_name_or_its_key() -> None:
    assert Entity(name="driver").join_key == "driver"
    assert driver.join_key == "driver_id"
    refused(
        ValueError, lambda: Entity(name="e", join_keys=["a", "b"]), "entity `e`", "one join key"
    )
    refused(TypeError, lambda: Entity(name="e", join_keys="a"), "must be a list")
    refused(TypeError, lambda: Entity(name="e", value_type=Int64), "ValueType.INT64")
    refused(TypeError, lambda: Entity(name="e", tags={"version": 1}), "`tags`", "'version'")


def test_objects_remember_their_place() -> None:
    here = inspect.currentframe().f_lineno  # type: ignore[union-attr]
    objects = [Entity(name="e"), view(), FeatureService(name="s", features=[]), Project(name="p")]
    places = [one._declared_at for one in objects]
    assert places[0] == f"{__file__}:{here + 1}"
    assert all(one.startswith(f"{__file__}:") for one in places)


def test_projects_have_names_that_fit_into_table_names() -> None:
    Project(name="a-b_1").is_valid()
    refused(ValueError, Project(name="_x").is_valid, "project `_x`")


# --- data sources


def test_sources_are_named_after_their_tables() -> None:
    assert BigQuerySource(table="p.d.t").name == "p.d.t"
    assert FileSource(path="a.parquet").name == "a.parquet"
    refused(errors.DataSourceNoNameException, lambda: BigQuerySource(query="SELECT 1"), "name")
    refused(ValueError, lambda: BigQuerySource(name="b"), "`b`", "table", "query")
    refused(ValueError, lambda: SnowflakeSource(name="s", table="t", query="q"), "both")


def test_event_and_created_time_are_different_columns() -> None:
    refused(
        ValueError,
        lambda: FileSource(path="p", timestamp_field="t", created_timestamp_column="t"),
        "data source `p`",
        "`t`",
    )


def test_a_stream_needs_a_history() -> None:
    push = PushSource(name="push")
    refused(ValueError, lambda: view(source=push), "`push`", "batch_source")
    refused(ValueError, lambda: PushSource(name="p", batch_source=push), "PushSource")
    good = view(source=PushSource(name="push", batch_source=source))
    assert good.batch_source is source and good.stream_source.name == "push"  # type: ignore[union-attr]


def test_the_address_of_a_secret_travels_in_tags_but_is_not_one() -> None:
    ref = ConnectionRef("env", "DB_", params={"sslmode": "off"})
    one = FileSource(path="p", tags={"a": "b"}, connection_ref=ref)
    message = one.to_proto()
    assert message.tags["feast.connection-ref.name"] == "DB_"
    again = type(one).from_proto(message)
    assert again == one and again.tags == {"a": "b"} and again.connection_ref == ref
    assert copy.deepcopy(ref) == pickle.loads(pickle.dumps(ref)) == ref
    with pytest.raises(CredentialResolutionError, match="no credential provider"):
        resolve_credentials(ConnectionRef("vault", "x"))


# --- feature views


def test_columns_named_like_a_join_key_are_keys() -> None:
    one = view()
    assert one.join_keys == ["driver_id"]
    assert [field.name for field in one.features] == ["conv_rate", "trips"]
    assert [field.name for field in one.schema] == ["driver_id", "conv_rate", "trips"]
    assert view(entities=[]).entities == [DUMMY_ENTITY_NAME]


def test_a_view_refuses_what_does_not_fit() -> None:
    other = Entity(name="rider", join_keys=["driver_id"])
    wrong_type = [Field(name="driver_id", dtype=String)]
    twice = [Field(name="a", dtype=Int64), Field(name="a", dtype=String)]
    mapped = FileSource(path="p", field_mapping={"conv_rate": "rate"})
    vectors = [Field(name=name, dtype=Array(Float32), vector_index=True) for name in ("a", "b")]
    where = "feature view `stats`"
    refused(ValueError, lambda: view(entities=[driver, other]), where, "`driver`, `rider`")
    refused(ValueError, lambda: view(schema=wrong_type), where, "String", "Int64")
    refused(ValueError, lambda: view(schema=twice), where, "`a` more than once")
    refused(ValueError, lambda: view(source=mapped), where, "`conv_rate`", "`rate`")
    refused(ValueError, lambda: view(schema=vectors), where, "vector")
    refused(TypeError, lambda: view(ttl=3600), where, "timedelta(days=1)")
    refused(ValueError, lambda: view(ttl=timedelta(-1)), where, "negative")
    refused(TypeError, lambda: view(entities=["driver"]), where, "Entity")
    refused(TypeError, lambda: view(source="p"), where, "`p`")
    refused(ValueError, lambda: view(source=RequestSource(name="r", schema=[])), where, "`r`")
    refused(ValueError, lambda: view(source=[view()]), where, "sink_source")
    refused(ValueError, lambda: view(version="two"), "`two`", "v2")
    for name in ("a:b", "a@b", ""):
        refused(ValueError, view(name=name).ensure_valid)


def test_selections_are_copies() -> None:
    one = view()
    part = one[["trips"]].with_name("recent").with_join_key_map({"driver_id": "id"})
    assert part.projection.name_to_use() == "recent"
    assert [field.name for field in part.projection.features] == ["trips"]
    assert part.projection.join_key_map == {"driver_id": "id"}
    assert one.projection.name_alias is None and len(one.projection.features) == 2
    assert part.name == "stats" and part._declared_at == one._declared_at
    refused(ValueError, lambda: one[["trip"]], "no feature `trip`", "did you mean `trips`?")
    refused(TypeError, lambda: one["trips"], "list of names")
    assert view(schema=None)[["later"]].projection.desired_features == ["later"]
    with pytest.raises(ValueError, match="not from this view"):
        one.with_projection(view(name="other").projection)


def test_views_are_equal_by_what_they_declare() -> None:
    assert view() == view() and hash(view()) == hash(view())
    assert view(schema=list(reversed(SCHEMA))).features != view().features
    assert view(schema=list(reversed(SCHEMA)))._sorted_features == view()._sorted_features
    assert view() != view(ttl=timedelta(days=2))
    assert view() != view(source=FileSource(path="other"))
    assert view(version="version2") == view(version="v2") != view()


def test_states_follow_each_other() -> None:
    state = FeatureViewState
    assert state.CREATED.can_transition_to(state.GENERATED)
    assert state.MATERIALIZING.can_transition_to(state.GENERATED)
    assert not state.CREATED.can_transition_to(state.AVAILABLE_ONLINE)
    assert state.from_proto(99) is state.STATE_UNSPECIFIED


def test_batch_and_stream_views_check_their_sources() -> None:
    push = PushSource(name="push", batch_source=source)
    refused(ValueError, lambda: BatchFeatureView(name="b", source=push), "`push`", "PushSource")
    refused(ValueError, lambda: BatchFeatureView(name="b"), "batch feature view `b`", "source")
    refused(ValueError, lambda: StreamFeatureView(name="s", source=source), "FileSource")
    total = Aggregation(column="trips", function="sum", time_window=timedelta(minutes=5))
    refused(
        ValueError,
        lambda: StreamFeatureView(name="s", source=push, aggregations=[total]),
        "timestamp_field",
    )
    refused(
        ValueError,
        lambda: StreamFeatureView(
            name="s", source=push, aggregations=[total], timestamp_field="t", enable_tiling=True
        ),
        "tiling_hop_size",
    )
    over = BatchFeatureView(name="b", source=[view()], sink_source=source)
    assert over.sink_source is source
    assert BatchFeatureView(name="b", source=source).sink_source is None
    assert BatchFeatureView(name="b", source=source).online is False


@batch_feature_view(source=source, entities=[driver], schema=SCHEMA, mode="pandas")
def rolled(frame):
    """Rolls up."""
    return frame


def test_a_decorated_function_is_a_view_named_after_it() -> None:
    assert isinstance(rolled, BatchFeatureView)
    assert rolled.name == "rolled" and rolled.__doc__ == "Rolls up."
    assert rolled.feature_transformation.udf_string.startswith("@batch_feature_view(")  # type: ignore[union-attr]
    assert rolled._declared_at.startswith(f"{__file__}:")


# --- on-demand views

amounts = RequestSource(name="amounts", schema=[Field(name="amount", dtype=Float64)])


@on_demand_feature_view(
    sources=[view(), amounts], schema=[Field(name="scaled", dtype=Float64)], mode="python"
)
def scaled(columns):
    pairs = zip(columns["conv_rate"], columns["amount"])
    return {"scaled": [rate * amount for rate, amount in pairs]}


def test_an_on_demand_view_computes_from_short_and_full_names() -> None:
    for name in ("conv_rate", "stats__conv_rate"):
        found = scaled.transform_dict({name: [0.5], "amount": [4.0]})
        assert found == {name: [0.5], "amount": [4.0], "scaled": [2.0]}
    assert scaled.get_request_data_schema() == {"amount": ValueType.DOUBLE}


def test_an_on_demand_view_checks_what_its_function_returns() -> None:
    scaled.infer_features()
    wrong = copy.copy(scaled)
    wrong.features = [Field(name="scale", dtype=Float64)]
    refused(errors.SpecifiedFeaturesNotPresentError, wrong.infer_features, "`scale`", "`scaled`")


def test_an_on_demand_view_needs_sources_and_a_function() -> None:
    refused(ValueError, lambda: OnDemandFeatureView(name="o"), "on-demand feature view `o`")
    refused(
        ValueError,
        lambda: OnDemandFeatureView(name="o", sources=[amounts], singleton=True),
        "singleton",
        "pandas",
    )
    bare = OnDemandFeatureView(name="o", sources=[amounts])
    refused(ValueError, bare.ensure_valid, "neither a function nor aggregations")
    stored = OnDemandFeatureView(name="o", sources=[amounts], write_to_online_store=True)
    refused(ValueError, stored.ensure_valid, "entity")
    total = Aggregation(column="amont", function="sum")
    refused(
        ValueError,
        lambda: OnDemandFeatureView(name="o", input_schema=amounts.schema, aggregations=[total]),
        "`amont`",
        "did you mean `amount`?",
    )


def test_a_pandas_function_may_not_promise_something_else() -> None:
    def wrong(frame) -> dict:
        return frame

    with pytest.raises(TypeError, match="DataFrame"):
        on_demand_feature_view(sources=[amounts], schema=[], mode="pandas")(wrong)


def test_reading_a_registry_runs_no_code() -> None:
    message = scaled.to_proto()
    kept = message.spec.feature_transformation.user_defined_function
    kept.body = b"never unpickled"
    kept.body_text = "raise SystemExit('never run')"
    again = OnDemandFeatureView.from_proto(message)
    transformation = again.feature_transformation
    assert transformation.udf is None and transformation.name == "scaled"  # type: ignore[union-attr]
    assert again.to_proto() == message
    with pytest.raises(ValueError, match="read from a registry"):
        again.transform_dict({})


# --- feature services


def test_a_service_resolves_references_by_name() -> None:
    one = view()
    service = FeatureService(name="s", features=["stats:trips", one])
    refused(ValueError, service.to_proto, "feature service `s`", "stats:trips")
    service.resolve_pending_refs("p", None, {"stats": one})
    names = [[f.name for f in p.features] for p in service.feature_view_projections]
    assert names == [["conv_rate", "trips"], ["trips"]]
    wrong = FeatureService(name="s", features=["stat:trips"])
    refused(ValueError, lambda: wrong.resolve_pending_refs("p", None, {"stats": one}), "`stats`?")
    for ref in ("", "a:", "@v1:b", "a@:b"):
        bad = FeatureService(name="s", features=[ref])
        refused(ValueError, partial(bad.resolve_pending_refs, "p", None, {}), f"`{ref}`")
    refused(ValueError, lambda: FeatureService(name="s", features=[driver]), "`s`", "feature views")


def test_a_service_completes_selections_of_unknown_schemas() -> None:
    open_view = view(schema=None)
    service = FeatureService(name="s", features=[open_view[["trips"]], view(name="b", schema=None)])
    full = {"stats": view(), "b": view(name="b")}
    service.infer_features(full)
    names = [[f.name for f in p.features] for p in service.feature_view_projections]
    assert names == [["trips"], ["conv_rate", "trips"]]
    late = FeatureService(name="s", features=[open_view])
    refused(errors.FeatureViewMissingDuringFeatureServiceInference, lambda: late.infer_features({}))


def test_a_pinned_view_pins_its_projection() -> None:
    service = FeatureService(name="s", features=[view(version="v3")])
    assert service.feature_view_projections[0].name_to_use() == "stats@v3"


def test_a_share_of_requests_is_logged() -> None:
    destination = FileLoggingDestination(path="logs")
    refused(ValueError, lambda: LoggingConfig(destination, sample_rate=2), "sample_rate", "2")
    refused(TypeError, lambda: LoggingConfig("logs"), "LoggingDestination")


# --- permissions


def test_a_permission_matches_type_name_tags_and_action() -> None:
    one = Permission(
        name="p",
        types=[FeatureView],
        name_patterns="st.*",
        actions=[AuthzedAction.DESCRIBE],
        required_tags={"tier": "1"},
    )
    assert one.match_resource(view(tags={"tier": "1"}))
    assert not one.match_resource(view(tags={"tier": "2"}))
    assert not one.match_resource(view(name="x", tags={"tier": "1"}))
    assert not one.match_resource(driver)
    assert one.match_actions([AuthzedAction.DESCRIBE])
    assert not one.match_actions([AuthzedAction.DESCRIBE, AuthzedAction.DELETE])


def test_a_permission_is_checked() -> None:
    refused(ValueError, lambda: Permission(name="p", types=[int]), "permission `p`", "FeatureView")
    refused(ValueError, lambda: Permission(name="p", actions=[]), "`actions`")
    refused(ValueError, lambda: Permission(name="p", name_patterns=["("]), "regular expression")


def test_policies_hold_for_either_of_their_names() -> None:
    assert RoleBasedPolicy(["a"]).validate_user(User("u", roles=["a", "b"])) == (True, "")
    held, why = RoleBasedPolicy(["a"]).validate_user(User("u"))
    assert not held and "['a']" in why
    both = CombinedGroupNamespacePolicy(groups=["g"], namespaces=["n"])
    assert both.validate_user(User("u", namespaces=["n"]))[0]
    assert not both.validate_user(User("u", roles=["g"]))[0]


# --- messages and errors


def objects() -> list[object]:
    kafka = KafkaSource(
        name="k", timestamp_field="t", message_format=JsonFormat("a integer"), batch_source=source
    )
    storage = SavedDatasetFileStorage("d.parquet")
    return [
        Project(name="p", tags={"a": "b"}),
        driver,
        source,
        kafka,
        amounts,
        view(ttl=timedelta(days=1), tags={"a": "b"}),
        rolled,
        StreamFeatureView(name="s", source=kafka, schema=SCHEMA, entities=[driver]),
        scaled,
        LabelView(name="l", entities=[driver], schema=[Field(name="label", dtype=String)]),
        FeatureService(name="f", features=[view()[["trips"]], scaled]),
        SavedDataset("d", ["stats:trips"], ["driver_id"], storage, tags={"a": "b"}),
        ValidationReference("v", "d"),
        Permission(name="p", policy=RoleBasedPolicy(["a"])),
    ]


@pytest.mark.parametrize("one", objects(), ids=lambda one: type(one).__name__)
def test_an_object_survives_its_message(one: object) -> None:
    message = one.to_proto()  # type: ignore[attr-defined]
    again = type(one).from_proto(message)  # type: ignore[attr-defined]
    assert again == one
    assert again.to_proto() == message
    assert json.loads(str(one)) and repr(one) and hash(one) == hash(again)


@pytest.mark.parametrize("one", objects(), ids=lambda one: type(one).__name__)
def test_an_object_can_be_copied(one: object) -> None:
    assert copy.deepcopy(one) == one
    assert copy.copy(one) == one


def test_a_storage_that_hides_its_class_is_named() -> None:
    from feast.protos.feast.core import SavedDataset_pb2 as messages

    storage = messages.SavedDatasetStorage()
    storage.custom_storage.configuration = b'{"table": "t"}'
    with pytest.raises(ValueError, match="saved_dataset_storage_class"):
        SavedDatasetStorage.from_proto(storage)


def test_native_errors_have_their_class_and_text() -> None:
    error = errors._from_native("EntityNotFoundException", "entity `x` does not exist", None)
    assert isinstance(error, errors.EntityNotFoundException)
    assert str(error) == "entity `x` does not exist"
    assert error.http_status_code() == 404
    hinted = errors._from_native("FeatureViewNotFoundException", "no `x`", "did you mean `y`?")
    assert str(hinted) == "no `x`; did you mean `y`?" and hinted.hint == "did you mean `y`?"  # type: ignore[attr-defined]
    assert type(errors._from_native("ValueError", "bad", None)) is ValueError
    assert type(errors._from_native("Nonsense", "bad", None)) is errors.FeastError
    assert str(pickle.loads(pickle.dumps(hinted))) == str(hinted)


def test_errors_can_be_made_and_sent() -> None:
    error = errors.EntityNotFoundException("driver", "proj")
    assert str(error) == "entity `driver` does not exist in project `proj`"
    again = errors.FeastError.from_error_detail(error.to_error_detail())
    assert type(again) is type(error) and str(again) == str(error)
    assert errors.FeastError.from_error_detail("nonsense") is None
    assert isinstance(errors.FeastPermissionError("x"), PermissionError)
