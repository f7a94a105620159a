"""Settings of authentication: who may talk to a server, and how a client proves it."""

from __future__ import annotations

from feast._settings import Settings


class AuthConfig(Settings):
    """What every kind of authentication has."""

    type: str = "no_auth"


class OidcAuthConfig(AuthConfig):
    """OpenID Connect, the server"s side."""

    type: str = "oidc"
    auth_discovery_url: str
    client_id: str | None = None
    ui_client_id: str | None = None
    verify_ssl: bool = True
    ca_cert_path: str = ""
    audience: str | None = None
    issuer: str | None = None
    jwks_cache_lifespan_seconds: int = 300
    jwks_request_timeout_seconds: float = 10


class OidcClientAuthConfig(OidcAuthConfig):
    """OpenID Connect, the client"s side: how it gets its token."""

    auth_discovery_url: str | None = None
    client_id: str | None = None
    username: str | None = None
    password: str | None = None
    client_secret: str | None = None
    token: str | None = None
    token_env_var: str | None = None
    token_refresh_margin_seconds: float = 30


class NoAuthConfig(AuthConfig):
    """No authentication."""


class KubernetesAuthConfig(AuthConfig, extra="allow"):
    """Service account tokens of Kubernetes."""

    type: str = "kubernetes"
    user_token: str | None = None
