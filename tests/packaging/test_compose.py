"""docker-compose.yml, checked without a container engine."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which no database is named."""
    for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD", "URL"):
        monkeypatch.delenv(f"DATABASE_{name}", raising=False)
    return monkeypatch


def postgres_service() -> dict[str, Any]:
    """Read the service, its `${NAME:-default}` filled in from the environment as compose does."""

    def fill(value: object) -> Any:
        if isinstance(value, dict):
            return {key: fill(each) for key, each in value.items()}
        if isinstance(value, list):
            return [fill(each) for each in value]
        if isinstance(value, str) and "${" in value:
            return dotenv_values(stream=io.StringIO(f'VALUE="{value}"'))["VALUE"]
        return value

    service: dict[str, Any] = fill(YAML(typ="safe").load(COMPOSE)["services"]["postgres"])
    return service


def test_compose_file_follows_the_compose_specification() -> None:
    """The file is valid by the JSON schema of the compose specification."""
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    done = subprocess.run([*checker, COMPOSE], capture_output=True, text=True, check=False)

    assert (0, "ok -- validation done\n") == (done.returncode, done.stdout)


def test_schema_would_notice_a_mistake(tmp_path: Path) -> None:
    """A misspelt key is refused, so the check above says something."""
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("healthcheck:", "healthchek:"))
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    done = subprocess.run([*checker, broken], capture_output=True, text=True, check=False)

    assert 1 == done.returncode


def test_image_has_postgresql_15_and_pgvector(environment: pytest.MonkeyPatch) -> None:
    """The service runs pgvector's own image for PostgreSQL 15."""
    assert "pgvector/pgvector:pg15" == postgres_service()["image"]


def test_credentials_default_to_those_of_development(environment: pytest.MonkeyPatch) -> None:
    """With nothing set, user, password, database and port are those in the setup guide."""
    service = postgres_service()

    expected = {
        "POSTGRES_USER": "myloware",
        "POSTGRES_PASSWORD": "myloware_dev_password",
        "POSTGRES_DB": "myloware",
    }
    assert expected == service["environment"]
    assert ["127.0.0.1:5432:5432"] == service["ports"]


def test_credentials_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    """DATABASE_USER, DATABASE_PASSWORD, DATABASE_NAME and DATABASE_PORT are the service's too."""
    environment.setenv("DATABASE_USER", "alice")
    environment.setenv("DATABASE_PASSWORD", "s p:c@l")
    environment.setenv("DATABASE_NAME", "orders")
    environment.setenv("DATABASE_PORT", "6543")

    service = postgres_service()

    expected = {"POSTGRES_USER": "alice", "POSTGRES_PASSWORD": "s p:c@l", "POSTGRES_DB": "orders"}
    assert expected == service["environment"]
    assert ["127.0.0.1:6543:5432"] == service["ports"]


def test_port_is_open_to_this_machine_only(environment: pytest.MonkeyPatch) -> None:
    """A development password must not answer to the network."""
    assert all(port.startswith("127.0.0.1:") for port in postgres_service()["ports"])


def test_health_check_asks_the_configured_database_over_tcp(environment: pytest.MonkeyPatch) -> None:
    """`pg_isready` runs with the container's own user and database; compose leaves `$$` to its shell."""
    kind, command = postgres_service()["healthcheck"]["test"]

    assert "CMD-SHELL" == kind
    assert 'pg_isready -q -h 127.0.0.1 -U "$$POSTGRES_USER" -d "$$POSTGRES_DB"' == command


def test_data_outlives_the_container(environment: pytest.MonkeyPatch) -> None:
    """The data folder is a volume that the file declares."""
    declared = YAML(typ="safe").load(COMPOSE)["volumes"]

    volume, _, folder = postgres_service()["volumes"][0].partition(":")

    assert "/var/lib/postgresql/data" == folder
    assert volume in declared


def test_env_example_names_the_service(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy of .env.example reaches the very database that the service serves."""
    example = dotenv_values(ROOT / ".env.example")
    for name, value in example.items():
        environment.setenv(name, str(value))

    service = postgres_service()

    assert example["DATABASE_USER"] == service["environment"]["POSTGRES_USER"]
    assert example["DATABASE_PASSWORD"] == service["environment"]["POSTGRES_PASSWORD"]
    assert example["DATABASE_NAME"] == service["environment"]["POSTGRES_DB"]
    assert [f"127.0.0.1:{example['DATABASE_PORT']}:5432"] == service["ports"]
