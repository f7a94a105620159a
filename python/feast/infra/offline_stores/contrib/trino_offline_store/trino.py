"""Settings of the Trino offline store."""

from __future__ import annotations

from typing import Any

from feast._settings import Settings


class BasicAuthModel(Settings):
    """User name and password."""

    username: str
    password: str


class KerberosAuthModel(Settings):
    """Kerberos."""

    _aliases = {
        "config-file": "config",
        "service-name": "service_name",
        "mutual-authentication": "mutual_authentication",
        "force-preemptive": "force_preemptive",
        "hostname-override": "hostname_override",
        "sanitize-mutual-error-response": "sanitize_mutual_error_response",
        "ca-bundle-file": "ca_bundle",
    }

    config: str | None = None
    service_name: str | None = None
    mutual_authentication: bool = False
    force_preemptive: bool = False
    hostname_override: str | None = None
    sanitize_mutual_error_response: bool = True
    principal: str | None
    delegate: bool = False
    ca_bundle: str | None = None


class JWTAuthModel(Settings):
    """A JSON web token."""

    token: str


class CertificateAuthModel(Settings):
    """A client certificate."""

    _aliases = {
        "cert-file": "cert",
        "key-file": "key",
    }

    cert: str | None = None
    key: str | None = None


class AuthConfig(Settings):
    """Kind of authentication and its keys."""

    type: str
    config: dict[str, Any] | None


class TrinoOfflineStoreConfig(Settings):
    """Settings of the Trino offline store."""

    _aliases = {
        "http-scheme": "http_scheme",
        "ssl-verify": "verify",
        "x-trino-extra-credential-header": "extra_credential",
    }

    type: str = "trino"
    host: str
    port: int
    catalog: str
    user: str
    source: str | None = "trino-python-client"
    http_scheme: str = "http"
    verify: bool = True
    extra_credential: str | None = None
    connector: dict[str, str]
    dataset: str = "feast"
    auth: AuthConfig | None = None
