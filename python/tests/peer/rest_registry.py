"""Feast's REST registry server; run by Feast's interpreter.

    python rest_registry.py REPOSITORY PORT

Feast 0.67.0 makes its application with arguments that the FastAPI of today does not take any more.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import fastapi


class Lenient(fastapi.FastAPI):
    """An application that is silent about arguments that are gone."""

    def __init__(self, **named: Any) -> None:
        for gone in ("default_status_code", "default_headers"):
            named.pop(gone, None)
        super().__init__(**named)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fastapi.FastAPI = Lenient
    from feast import FeatureStore

    store = FeatureStore(repo_path=sys.argv[1])
    store.serve_registry(
        port=int(sys.argv[2]), rest_api=True, host="127.0.0.1", tls_key_path="", tls_cert_path=""
    )
