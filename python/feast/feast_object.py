"""All kinds of object a registry holds."""

from __future__ import annotations

from typing import Any, Union, get_args

from feast.batch_feature_view import BatchFeatureView
from feast.data_source import DataSource
from feast.entity import Entity
from feast.feature_service import FeatureService
from feast.feature_view import FeatureView
from feast.labeling.label_view import LabelView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.permissions.permission import Permission
from feast.project import Project
from feast.saved_dataset import SavedDataset, ValidationReference
from feast.stream_feature_view import StreamFeatureView

FeastObject = Union[
    Project,
    FeatureView,
    OnDemandFeatureView,
    BatchFeatureView,
    StreamFeatureView,
    LabelView,
    Entity,
    FeatureService,
    DataSource,
    ValidationReference,
    SavedDataset,
    Permission,
]
ALL_RESOURCE_TYPES: list[Any] = list(get_args(FeastObject))
ALL_FEATURE_VIEW_TYPES: list[Any] = [
    FeatureView,
    OnDemandFeatureView,
    BatchFeatureView,
    StreamFeatureView,
    LabelView,
]


def __getattr__(name: str) -> Any:
    # The messages are looked up on demand: naming them would load protobuf.
    if name == "FeastObjectSpecProto":
        from feast.protos.feast.core import (
            DataSource_pb2,
            Entity_pb2,
            FeatureService_pb2,
            FeatureView_pb2,
            LabelView_pb2,
            OnDemandFeatureView_pb2,
            Permission_pb2,
            Project_pb2,
            SavedDataset_pb2,
            StreamFeatureView_pb2,
            ValidationProfile_pb2,
        )

        return Union[
            Project_pb2.ProjectSpec,
            FeatureView_pb2.FeatureViewSpec,
            OnDemandFeatureView_pb2.OnDemandFeatureViewSpec,
            StreamFeatureView_pb2.StreamFeatureViewSpec,
            LabelView_pb2.LabelViewSpec,
            Entity_pb2.EntitySpecV2,
            FeatureService_pb2.FeatureServiceSpec,
            DataSource_pb2.DataSource,
            ValidationProfile_pb2.ValidationReference,
            SavedDataset_pb2.SavedDatasetSpec,
            Permission_pb2.PermissionSpec,
        ]
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
