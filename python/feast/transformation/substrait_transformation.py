"""Transformations written with Ibis and kept as a Substrait plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feast.transformation._sample import fields_of_frame
from feast.transformation.base import Transformation, pickled
from feast.transformation.mode import TransformationMode


class SubstraitTransformation(Transformation):
    """A relational plan, and the Ibis function that produced it."""

    _mode = TransformationMode.SUBSTRAIT

    def __new__(
        cls,
        substrait_plan: bytes,
        udf: Callable[..., Any],
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
    ) -> SubstraitTransformation:
        return object.__new__(cls)

    def __init__(
        self,
        substrait_plan: bytes,
        udf: Callable[..., Any],
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            mode=TransformationMode.SUBSTRAIT,
            udf=udf,
            udf_string="",
            name=name,
            tags=tags,
            description=description,
            owner=owner,
        )
        self.substrait_plan = substrait_plan

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SubstraitTransformation)
            and self.substrait_plan == other.substrait_plan
        )

    def __hash__(self) -> int:
        return hash(self.substrait_plan)

    def to_proto(self) -> Any:
        """The message `feast.core.SubstraitTransformationV2`."""
        from feast.protos.feast.core.Transformation_pb2 import SubstraitTransformationV2

        return SubstraitTransformationV2(
            substrait_plan=self.substrait_plan, ibis_function=pickled(self)
        )

    @classmethod
    def from_proto(cls, substrait_transformation_proto: Any) -> SubstraitTransformation:
        """Reads `feast.core.SubstraitTransformationV2`: the plan, without the function."""
        one = cls(substrait_plan=substrait_transformation_proto.substrait_plan, udf=None)  # type: ignore[arg-type]
        one._body = substrait_transformation_proto.ibis_function
        return one

    @classmethod
    def from_ibis(
        cls, user_function: Callable[..., Any], sources: list[Any]
    ) -> SubstraitTransformation:
        """The plan of an Ibis function over the columns of some sources (needs ibis-substrait)."""
        from feast.errors import FeastExtrasDependencyImportError

        try:
            import ibis
            from ibis_substrait.compiler.core import SubstraitCompiler
        except ImportError as error:
            raise FeastExtrasDependencyImportError("ibis", str(error)) from error
        columns = {}
        for source in sources:
            projection = getattr(source, "projection", None)
            fields = (
                projection.features if projection is not None else getattr(source, "schema", None)
            )
            for field in source.features if fields is None else fields:
                columns[field.name] = _ibis_type(field)
        expression = user_function(ibis.table(columns, name="t"))
        plan = SubstraitCompiler().compile(expression).SerializeToString()
        return cls(substrait_plan=plan, udf=user_function)

    def transform_ibis(self, table: Any) -> Any:
        """Runs the Ibis function on an Ibis table."""
        return self.function()(table)

    def transform_arrow(self, pa_table: Any, features: list[Any] = []) -> Any:  # noqa: B006
        """Runs the plan on an Arrow table (needs pyarrow with Substrait)."""
        from pyarrow import substrait

        result = substrait.run_query(
            self.substrait_plan, table_provider=lambda _, schema: pa_table.select(schema.names)
        ).read_all()
        return result.select([one.name for one in features]) if features else result

    def transform(self, df: Any) -> Any:
        """Runs the plan on a pandas frame."""
        import pyarrow

        return self.transform_arrow(pyarrow.Table.from_pandas(df)).to_pandas()

    def transform_singleton(self, input_df: Any) -> Any:
        """Refused: a plan works on tables."""
        raise ValueError("a substrait transformation does not run on single rows")

    def infer_features(self, random_input: dict[str, list[Any]], singleton: bool | None) -> Any:
        """The features the plan adds to a sample of one row."""
        import pandas

        fields = fields_of_frame(self.transform(pandas.DataFrame.from_dict(random_input)))
        return [one for one in fields if one.name not in random_input]


def _ibis_type(field: Any) -> Any:
    from ibis.expr import datatypes

    from feast.types import from_feast_to_pyarrow_type

    return datatypes.DataType.from_pyarrow(from_feast_to_pyarrow_type(field.dtype))
