"""Clients trust the certificates that the environment names, as Feast's do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from drivers import T0, definitions, write_repository

from feast import FeatureStore

FEAST = Path(sys.executable).with_name("feast")
MAKE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem"
    " -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Path]:
    """A repository whose online store is a server with a certificate that no system trusts."""
    repository = tmp_path / "server"
    repository.mkdir()
    store = FeatureStore(repo_path=str(write_repository(repository)))
    store.apply(list(definitions().values()))
    store.materialize_incremental(T0)
    subprocess.run(MAKE.split(), cwd=tmp_path, check=True, capture_output=True)
    port = servers.free_port()
    secured = ["--key", str(tmp_path / "key.pem"), "--cert", str(tmp_path / "cert.pem")]
    serve = [str(FEAST), "-c", str(repository), "serve", "--port", str(port), *secured]
    (tmp_path / "feature_store.yaml").write_text(
        f"project: proj\nregistry: {repository / 'registry.db'}\n"
        f"online_store: {{type: remote, path: 'https://localhost:{port}', connection_retries: 0}}\n"
    )
    with servers.server(serve, tmp_path / "log", lambda: servers.listens(port)):
        yield tmp_path


def read(client: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Asks the server for a feature."""
    names = ("FEAST_CA_CERT_FILE_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [str(FEAST), "-c", str(client), "get-online-features", "-e", "driver_id=1001"]
    command += ["-f", "driver_push:trips", "--output", "table"]
    environment |= variables
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_environment_names_what_is_trusted(client: Path) -> None:
    refused = read(client)
    assert refused.returncode == 1
    assert "invalid peer certificate" in refused.stderr
    trusted = str(client / "cert.pem")
    for name in ("FEAST_CA_CERT_FILE_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        done = read(client, **{name: trusted})
        assert (done.returncode, "30" in done.stdout) == (0, True), (name, done.stderr)
    gone = read(client, FEAST_CA_CERT_FILE_PATH="/nowhere.pem")
    assert "environment variable: FEAST_CA_CERT_FILE_PATH" in gone.stderr
