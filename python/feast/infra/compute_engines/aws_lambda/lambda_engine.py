"""Settings of the AWS Lambda compute engine."""

from __future__ import annotations

from feast._settings import Settings


class LambdaComputeEngineConfig(Settings):
    """Settings of the AWS Lambda compute engine."""

    type: str = "lambda"
    materialization_image: str
    lambda_role: str
