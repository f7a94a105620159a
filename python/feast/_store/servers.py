"""Servers: each call runs one until Ctrl-C."""

from __future__ import annotations

import json

from feast._store.opened import Opened
from feast._unavailable import NotAvailableYet


class Servers(Opened):
    """Serving what the feature store has to others."""

    def serve(
        self,
        host: str,
        port: int,
        type_: str = "http",
        no_access_log: bool = True,
        workers: int = 1,
        worker_connections: int = 1000,
        max_requests: int = 1000,
        max_requests_jitter: int = 50,
        metrics: bool = False,
        keep_alive_timeout: int = 30,
        tls_key_path: str = "",
        tls_cert_path: str = "",
        registry_ttl_sec: int = 60,
    ) -> None:
        """Serves online features over HTTP until interrupted. One process uses all cores: `workers` change nothing."""
        options = {
            "host": host,
            "port": port,
            "type": type_,
            "no_access_log": no_access_log,
            "workers": workers,
            "metrics": metrics,
            "keep_alive_timeout": keep_alive_timeout,
            "tls_key_path": tls_key_path,
            "tls_cert_path": tls_cert_path,
            "registry_ttl_sec": registry_ttl_sec,
        }
        self._native.serve(json.dumps(options))

    def get_feature_server_endpoint(self) -> str | None:
        """The address of a feature server that the store itself has started; there is none."""
        return None

    def serve_ui(
        self,
        host: str,
        port: int,
        root_path: str = "",
        tls_key_path: str = "",
        tls_cert_path: str = "",
        cors_origins: list[str] | None = None,
    ) -> None:
        """The web interface: not available yet."""
        raise NotAvailableYet("the web interface")

    def serve_registry(
        self,
        port: int,
        tls_key_path: str = "",
        tls_cert_path: str = "",
        rest_api: bool = False,
        host: str = "::",
    ) -> None:
        """Serves the registry to other machines until Ctrl-C: over gRPC on all addresses, or over REST on `host`."""
        self._native.serve_registry(host, port, tls_key_path, tls_cert_path, rest_api)

    def serve_offline(
        self, host: str, port: int, tls_key_path: str = "", tls_cert_path: str = ""
    ) -> None:
        """The offline store server: not available yet."""
        raise NotAvailableYet("the offline store server")

    def serve_transformations(self, port: int, host: str = "::") -> None:
        """Runs the functions of on-demand feature views for other servers, over gRPC, until Ctrl-C.

        It listens on all interfaces, as Feast's does; ``host="127.0.0.1"`` keeps it to this machine.
        """
        self._native.serve_transformations(host, port)
