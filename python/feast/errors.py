"""All exceptions of the feature store.

Every class can be built in Python with the arguments of its signature. Errors found by the native
engine already carry a complete message; they are made by `_from_native`, with the same classes, so
that `except FeatureViewNotFoundException:` works no matter who noticed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpc import StatusCode

    from feast.field import Field


class FeastError(Exception):
    """Base of all errors of the feature store. `hint`, when set, says what to do next."""

    hint: str | None = None
    __overridden_message__: str

    def grpc_status_code(self) -> StatusCode:
        """The status under which a gRPC server reports this error (needs grpcio)."""
        from grpc import StatusCode

        return StatusCode.INTERNAL

    def http_status_code(self) -> int:
        """The status under which the HTTP server reports this error."""
        return 500

    def __str__(self) -> str:
        message = getattr(self, "__overridden_message__", None)
        return super().__str__() if message is None else message

    def __repr__(self) -> str:
        message = getattr(self, "__overridden_message__", None)
        return super().__repr__() if message is None else f"{type(self).__name__}({message!r})"

    def __reduce__(self) -> Any:
        # The default calls the class with the message, which most signatures do not take.
        return (_rebuild, (type(self), str(self), self.hint))

    def to_error_detail(self) -> str:
        """Class and message as JSON, for a client that wants to raise the same error."""
        import json

        kind = type(self)
        return json.dumps({"module": kind.__module__, "class": kind.__name__, "message": str(self)})

    @staticmethod
    def from_error_detail(detail: str) -> FeastError | None:
        """The error described by `to_error_detail`, or nothing if the text is not of that form."""
        import json

        try:
            parts = json.loads(detail)
            kind = getattr(importlib.import_module(parts["module"]), parts["class"])
            message = parts["message"]
        except (ValueError, KeyError, TypeError, AttributeError, ImportError):
            return None
        if not (isinstance(kind, type) and issubclass(kind, FeastError)):
            return None
        return _rebuild(kind, message, None)


def _rebuild(kind: type[Any], message: str, hint: str | None) -> Any:
    """An error of a class with a finished message, whatever the signature of the class."""
    error: Any = kind.__new__(kind, message)
    error.args = (message,)
    if issubclass(kind, FeastError):
        error.__overridden_message__ = message
    error.hint = hint
    return error


def _quoted(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _missing(kind: str, name: Any, project: Any = None) -> str:
    place = f" in project `{project}`" if project else ""
    return f"{kind} `{name}` does not exist{place}"


# --- objects that are not there


class FeastObjectNotFoundException(FeastError):
    """Something was asked for by name, and nothing has that name."""

    def grpc_status_code(self) -> StatusCode:
        """Not found."""
        from grpc import StatusCode

        return StatusCode.NOT_FOUND

    def http_status_code(self) -> int:
        """Not found."""
        return 404


class EntityNotFoundException(FeastObjectNotFoundException):
    """No entity has this name."""

    def __init__(self, name: str, project: str | None = None) -> None:
        super().__init__(_missing("entity", name, project))


class FeatureServiceNotFoundException(FeastObjectNotFoundException):
    """No feature service has this name."""

    def __init__(self, name: str, project: str | None = None) -> None:
        super().__init__(_missing("feature service", name, project))


class FeatureViewNotFoundException(FeastObjectNotFoundException):
    """No feature view has this name."""

    def __init__(self, name: str, project: str | None = None) -> None:
        super().__init__(_missing("feature view", name, project))


class FeatureViewVersionNotFound(FeastObjectNotFoundException):
    """The view exists, but not in this version."""

    def __init__(self, name: str, version: int | str, project: str | None = None) -> None:
        super().__init__(_missing(f"version {version} of feature view", name, project))


class OnDemandFeatureViewNotFoundException(FeastObjectNotFoundException):
    """No on-demand feature view has this name."""

    def __init__(self, name: str, project: str | None = None) -> None:
        super().__init__(_missing("on-demand feature view", name, project))


class DataSourceObjectNotFoundException(FeastObjectNotFoundException):
    """No data source has this name."""

    def __init__(self, name: str, project: str | None = None) -> None:
        super().__init__(_missing("data source", name, project))


class PermissionObjectNotFoundException(FeastObjectNotFoundException):
    """No permission has this name."""

    def __init__(self, name: str, project: str | None = None) -> None:
        super().__init__(_missing("permission", name, project))


class ProjectObjectNotFoundException(FeastObjectNotFoundException):
    """No project has this name."""

    def __init__(self, name: str, project: str | None = None) -> None:
        super().__init__(_missing("project", name))


class SavedDatasetNotFound(FeastObjectNotFoundException):
    """No saved dataset has this name."""

    def __init__(self, name: str, project: str) -> None:
        super().__init__(_missing("saved dataset", name, project))


class ValidationReferenceNotFound(FeastObjectNotFoundException):
    """No validation reference has this name."""

    def __init__(self, name: str, project: str) -> None:
        super().__init__(_missing("validation reference", name, project))


class RequestDataNotFoundInEntityDfException(FeastObjectNotFoundException):
    """The entity frame lacks a column that an on-demand view needs."""

    def __init__(self, feature_name: str, feature_view_name: str) -> None:
        super().__init__(
            f"the entity frame has no column `{feature_name}`, which the on-demand feature view "
            f"`{feature_view_name}` needs as request data"
        )


class RequestDataNotFoundInEntityRowsException(FeastObjectNotFoundException):
    """The entity rows lack values that an on-demand view needs."""

    def __init__(self, feature_names: list[str]) -> None:
        super().__init__(f"the entity rows lack the request data {_quoted(feature_names)}")


class S3RegistryBucketNotExist(FeastObjectNotFoundException):
    """The bucket of the registry does not exist."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"the bucket `{bucket}` of the registry does not exist; create it first")


class S3RegistryBucketForbiddenAccess(FeastObjectNotFoundException):
    """The bucket of the registry may not be read."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"access to the bucket `{bucket}` of the registry is forbidden")


class PermissionNotFoundException(FeastError):
    """No permission has this name (older form)."""

    def __init__(self, name: str, project: str) -> None:
        super().__init__(_missing("permission", name, project))


class ProjectNotFoundException(FeastError):
    """No project has this name (older form)."""

    def __init__(self, project: str) -> None:
        super().__init__(_missing("project", project))


class PushSourceNotFoundException(FeastError):
    """No push source has this name."""

    def __init__(self, push_source_name: str) -> None:
        super().__init__(_missing("push source", push_source_name))

    def http_status_code(self) -> int:
        """A bad request rather than a missing page: the name came in the body."""
        return 422


# --- definitions that do not fit together


class DataSourceNotFoundException(FeastError):
    """The table or file behind a data source is not there."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no table or file is found at `{path}`; check the path and your access")


class DataSourceNoNameException(FeastError):
    """A data source has neither a name nor a table to be named after."""

    def __init__(self) -> None:
        super().__init__("a data source needs a name when it has no table; add `name=…`")


class DataSourceRepeatNamesException(FeastError):
    """Two data sources have the same name."""

    def __init__(self, ds_name: str) -> None:
        super().__init__(
            f"more than one data source is named `{ds_name}` (upper and lower case do not count); "
            "give each a name of its own"
        )


class ConflictingFeatureViewNames(FeastError):
    """Two views have the same name."""

    def __init__(
        self,
        feature_view_name: str,
        existing_type: str | None = None,
        new_type: str | None = None,
    ) -> None:
        kinds = f" (a {existing_type} and a {new_type})" if existing_type and new_type else ""
        super().__init__(
            f"more than one feature view is named `{feature_view_name}`{kinds}; names of views "
            "must differ in more than upper and lower case, whatever the kind of view"
        )


class FeatureViewPinConflict(FeastError):
    """A view is pinned to an old version and changed at the same time."""

    def __init__(self, name: str, version: int | str) -> None:
        super().__init__(
            f"feature view `{name}` is pinned to version {version} but its definition changed too; "
            "either pin a version or change the definition"
        )


class ConcurrentVersionConflict(FeastError):
    """Somebody else made the same version first."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg)


class RegistryInferenceFailure(FeastError):
    """Something that was left out of a definition cannot be found out."""

    def __init__(self, repo_obj_type: str, specific_issue: str) -> None:
        super().__init__(
            f"cannot complete the definition of {repo_obj_type}: {specific_issue}; "
            "declare it explicitly"
        )


class SpecifiedFeaturesNotPresentError(FeastError):
    """A transformation does not return what its view declares."""

    def __init__(
        self,
        specified_features: list[Field],
        inferred_features: list[Field],
        feature_view_name: str,
    ) -> None:
        def listed(features: Any) -> str:
            return ", ".join(f"`{getattr(one, 'name', one)}`" for one in features) or "nothing"

        super().__init__(
            f"on-demand feature view `{feature_view_name}` declares {listed(specified_features)}, "
            f"but its function returns {listed(inferred_features)} (or other types)"
        )


class FeatureViewMissingDuringFeatureServiceInference(FeastError):
    """A feature service selects from a view that is not there."""

    def __init__(self, feature_view_name: str, feature_service_name: str) -> None:
        super().__init__(
            f"feature service `{feature_service_name}` selects from feature view "
            f"`{feature_view_name}`, which is neither in the repository nor in the registry"
        )


class FeatureNameCollisionError(FeastError):
    """Two requested features would get the same column."""

    def __init__(self, feature_refs_collisions: list[str], full_feature_names: bool) -> None:
        names = _quoted(feature_refs_collisions)
        fix = (
            "remove the duplicates or give a view another name with `with_name`"
            if full_feature_names
            else "remove the duplicates or ask for full_feature_names=True"
        )
        super().__init__(f"the requested features {names} have the same name; {fix}")


class MissingKeyError(FeastError, KeyError):
    """A feature or a join key does not exist: a `KeyError` whose text is a sentence, not a quoted key."""


class InvalidFeaturesParameterType(FeastError):
    """Features were requested by something other than references or a feature service."""

    def __init__(self, features: Any) -> None:
        found = f"is of class {type(features).__name__}"
        if isinstance(features, (list, tuple)):
            wrong = next((each for each in features if not isinstance(each, str)), None)
            found = f"holds an item of class {type(wrong).__name__}"
        super().__init__(
            "`features` must be a list of references such as `view:feature`, or a feature service, "
            f"but {found}"
        )


class FeastJoinKeysDuringMaterialization(FeastError):
    """A source lacks join keys of the view it feeds."""

    def __init__(self, source: str, join_key_columns: set[str], source_columns: set[str]) -> None:
        super().__init__(
            f"data source `{source}` lacks the join keys "
            f"{_quoted(sorted(set(join_key_columns) - set(source_columns)))}; "
            f"it has the columns {_quoted(sorted(source_columns))}"
        )


# --- entity frames and queries


class EntityTimestampInferenceException(FeastError):
    """The entity frame has no obvious timestamp column."""

    def __init__(self, expected_column_name: str) -> None:
        super().__init__(
            f"the entity frame needs a column `{expected_column_name}` or exactly one column "
            "with times"
        )


class FeastEntityDFMissingColumnsError(FeastError):
    """The entity frame lacks columns."""

    def __init__(self, expected: Any, missing: Any) -> None:
        super().__init__(
            f"the entity frame lacks the columns {_quoted(missing)}; needed are {_quoted(expected)}"
        )


class EntityDFNotDateTime(FeastError):
    """The timestamp column of the entity frame holds no times."""

    def __init__(self) -> None:
        super().__init__("the timestamp column of the entity frame must hold dates with time")


class EntitySQLEmptyResults(FeastError):
    """The query for entities found nothing."""

    def __init__(self, entity_sql: str) -> None:
        super().__init__(f"the query for entities returned no rows: {entity_sql}")


class InvalidEntityType(FeastError):
    """Entities were given in an unknown form."""

    def __init__(self, entity_type: type) -> None:
        super().__init__(
            "entities must be given as a data frame, an Arrow table or the text of a query, "
            f"not as {entity_type}"
        )


class DataFrameSerializationError(FeastError):
    """A data frame cannot be sent."""

    def __init__(self, input: Any) -> None:
        super().__init__(
            f"cannot serialize a value of class {type(input).__name__} as a data frame"
        )


class ZeroRowsQueryResult(FeastError):
    """A query found no rows."""

    def __init__(self, query: str) -> None:
        super().__init__(f"the query returned no rows: {query}")


class ZeroColumnQueryResult(FeastError):
    """A query has no columns."""

    def __init__(self, query: str) -> None:
        super().__init__(f"the query returned no columns: {query}")


class SavedDatasetLocationAlreadyExists(FeastError):
    """A saved dataset would overwrite something."""

    def __init__(self, location: str) -> None:
        super().__init__(
            f"`{location}` exists already; choose another place or pass allow_overwrite=True"
        )


class VersionedOnlineReadNotSupported(FeastError):
    """An online store keeps only the newest version of a view."""

    def __init__(self, store_name: str, version: int) -> None:
        super().__init__(
            f"online store `{store_name}` cannot read version {version} of a feature view"
        )


# --- configuration


class FeastRegistryNotSetError(FeastError):
    """The configuration names no registry."""

    def __init__(self) -> None:
        super().__init__("no registry is configured; add `registry: data/registry.db`")


class FeastRegistryTypeInvalidError(FeastError):
    """The configured type of registry does not exist."""

    def __init__(self, registry_type: str) -> None:
        super().__init__(
            f"`{registry_type}` is no registry type; use file, sql, remote, snowflake.registry, or "
            "the path of a class whose name ends in Registry"
        )


class FeastFeatureServerTypeInvalidError(FeastError):
    """The configured type of feature server does not exist."""

    def __init__(self, feature_server_type: str) -> None:
        super().__init__(f"`{feature_server_type}` is no feature server type; use local or mcp")


class FeastProviderLoginError(FeastError):
    """Logging in to a provider failed."""


class FeastProviderNotImplementedError(FeastError):
    """The configured provider does not exist."""

    def __init__(self, provider_name: str) -> None:
        super().__init__(f"`{provider_name}` is no provider; use local, gcp, aws or azure")


class FeastOfflineStoreInvalidName(FeastError):
    """The configured class cannot be an offline store."""

    def __init__(self, offline_store_class_name: str) -> None:
        super().__init__(
            f"there is no offline store `{offline_store_class_name}`; name one such as `file`, or "
            "the path of a class whose name ends in OfflineStore"
        )


class FeastOnlineStoreInvalidName(FeastError):
    """The configured class cannot be an online store."""

    def __init__(self, online_store_class_name: str) -> None:
        super().__init__(
            f"there is no online store `{online_store_class_name}`; name one such as `sqlite`, or "
            "the path of a class whose name ends in OnlineStore"
        )


class FeastInvalidAuthConfigClass(FeastError):
    """The configured class cannot hold authentication settings."""

    def __init__(self, auth_config_class_name: str) -> None:
        super().__init__(
            f"there is no authentication `{auth_config_class_name}`; name `no_auth`, `oidc` or "
            "`kubernetes`, or the path of a class whose name ends in AuthConfig"
        )


class FeastInvalidBaseClass(FeastError):
    """A configured class has the wrong base."""

    def __init__(self, class_name: str, class_type: str) -> None:
        super().__init__(f"the class `{class_name}` must be a subclass of `{class_type}`")


class FeastInvalidInfraObjectType(FeastError):
    """An infrastructure object of an unknown kind."""

    def __init__(self) -> None:
        super().__init__("the kind of an infrastructure object in the registry is unknown")


class FeastModuleImportError(FeastError):
    """A configured module does not exist."""

    def __init__(self, module_name: str, class_name: str) -> None:
        super().__init__(
            f"cannot import the module `{module_name}`, where `{class_name}` should be"
        )


class FeastClassImportError(FeastError):
    """A configured class does not exist."""

    def __init__(self, module_name: str, class_name: str) -> None:
        super().__init__(f"the module `{module_name}` has no class `{class_name}`")


class FeastExtrasDependencyImportError(FeastError):
    """An optional package is needed."""

    # What the extras of that name bring. feast-rs itself is on no package index yet.
    PACKAGES = {
        "pandas": "pandas pyarrow",
        "pytorch": "torch",
        "ge": "great_expectations",
        "ibis": "ibis-framework ibis-substrait",
    }

    def __init__(self, extras_type: str, nested_error: str) -> None:
        packages = self.PACKAGES.get(extras_type, extras_type)
        super().__init__(f"{nested_error}; install it with: pip install {packages}")


class FeastOfflineStoreUnsupportedDataSource(FeastError):
    """An offline store cannot read a kind of source."""

    def __init__(self, offline_store_name: str, data_source_name: str) -> None:
        super().__init__(
            f"offline store `{offline_store_name}` cannot read data sources of kind "
            f"`{data_source_name}`"
        )


class FeastOnlineStoreUnsupportedDataSource(FeastError):
    """An online store cannot use a kind of source."""

    def __init__(self, online_store_name: str, data_source_name: str) -> None:
        super().__init__(
            f"online store `{online_store_name}` cannot use data sources of kind "
            f"`{data_source_name}`"
        )


class ReadOnlyRegistryException(FeastError):
    """The registry may only be read."""

    def __init__(self) -> None:
        super().__init__("this registry is read-only; apply through a server that may write it")


class DockerDaemonNotRunning(FeastError):
    """Docker is needed and does not run."""

    def __init__(self) -> None:
        super().__init__("the Docker daemon does not answer; start it and try again")


class FeastPermissionError(FeastError, PermissionError):
    """The caller may not do that."""

    def __init__(self, details: str) -> None:
        super().__init__(f"permission denied: {details}")

    def grpc_status_code(self) -> StatusCode:
        """Permission denied."""
        from grpc import StatusCode

        return StatusCode.PERMISSION_DENIED

    def http_status_code(self) -> int:
        """Forbidden."""
        return 403


# --- warehouses


class BigQueryJobStillRunning(FeastError):
    """A BigQuery job did not finish in time."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the BigQuery job `{job_id}` is still running")


class BigQueryJobCancelled(FeastError):
    """A BigQuery job was cancelled."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the BigQuery job `{job_id}` was cancelled")


class RedshiftCredentialsError(FeastError):
    """Redshift refused the credentials."""

    def __init__(self) -> None:
        super().__init__("Redshift refused the request; check the credentials and the cluster name")


class RedshiftQueryError(FeastError):
    """A Redshift query failed."""

    def __init__(self, details: Any) -> None:
        super().__init__(f"the Redshift query failed: {details}")


class RedshiftTableNameTooLong(FeastError):
    """A name is longer than Redshift allows."""

    def __init__(self, table_name: str) -> None:
        super().__init__(
            f"the table name `{table_name}` has {len(table_name)} characters; Redshift allows 127"
        )


class SnowflakeCredentialsError(FeastError):
    """Snowflake refused the credentials."""

    def __init__(self) -> None:
        super().__init__("Snowflake refused the connection; check the credentials")


class SnowflakeQueryError(FeastError):
    """A Snowflake query failed."""

    def __init__(self, details: Any) -> None:
        super().__init__(f"the Snowflake query failed: {details}")


class SnowflakeIncompleteConfig(FeastError):
    """The Snowflake settings lack a key."""

    def __init__(self, e: KeyError) -> None:
        super().__init__(f"the Snowflake settings lack the key {e}")


class SnowflakeQueryUnknownError(FeastError):
    """A Snowflake query failed for an unknown reason."""

    def __init__(self, query: str) -> None:
        super().__init__(f"the Snowflake query failed without a reason: {query}")


# --- errors of the native engine

# Classes that are defined beside what they are about.
_ELSEWHERE = {
    "FeastConfigError": "feast._settings",
    "ValidationFailed": "feast.dqm.errors",
}


def _from_native(class_name: str, message: str, hint: str | None) -> Exception:
    """The exception for an error of the native engine: its class by name, its text as it is.

    Python's own classes (`ValueError`, `TimeoutError`, …) are found by name too; an unknown name
    becomes a `FeastError`.
    """
    import builtins

    kind: Any = globals().get(class_name)
    if kind is None and class_name in _ELSEWHERE:
        kind = getattr(importlib.import_module(_ELSEWHERE[class_name]), class_name)
    if kind is None:
        kind = getattr(builtins, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = FeastError
    if kind is KeyError:
        kind = MissingKeyError
    if kind.__name__ == "FeastConfigError":
        error = kind(_with_hint(message, hint))
        error.hint = hint
        return error
    return _rebuild(kind, _with_hint(message, hint), hint)


def _with_hint(message: str, hint: str | None) -> str:
    return f"{message}; {hint}" if hint else message
