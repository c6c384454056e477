""".env.example and the compose file against the settings classes: each setting is there, with its default, and works."""

import re
from typing import Any

import pytest
import yaml

from scripts.devstack.process import ROOT
from sessions import __version__
from sessions.processor.settings import ProcessorSettings
from sessions.storage.provision import dev_chain
from sessions.storage.settings import StorageSettings

EXAMPLE = (ROOT / ".env.example").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.pi.yml").read_text())
SERVICES = {"chunk-processor": ProcessorSettings, "session-storage": StorageSettings}

_ENTRY = re.compile(
    r"^# (?P<what>.+) · (?P<unit>.+) · (?P<default>.+)\n(?:\(.*\)\n|# \(.*\)\n)?(?P<entries>(?:#?[A-Z_]+=.*\n)+)",
    re.MULTILINE,
)
_SUBSTITUTION = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^${}]*))?\}")


def documented() -> dict[str, tuple[str, str]]:
    """Of each setting: what stands in the file after =, and the default that its line names."""
    found = {}
    for entry in _ENTRY.finditer(EXAMPLE):
        for line in entry["entries"].splitlines():
            name, _, value = line.lstrip("#").partition("=")
            found[name] = (value, entry["default"])
    return found


def fixed() -> set[str]:
    return set(re.findall(r"[A-Z_]{4,}", EXAMPLE.rpartition("# Fixed by")[2]))


def substituted() -> dict[str, str | None]:
    """Variables of the compose file, and their defaults there."""
    text = (ROOT / "docker-compose.pi.yml").read_text()
    return {match["name"]: match["default"] for match in _SUBSTITUTION.finditer(text)}


def environment(service: str) -> dict[str, str]:
    values: dict[str, str] = {}
    given = COMPOSE["services"][service]["environment"]
    for source in (given.get("<<") or {}, given):
        values |= {name: str(value) for name, value in source.items() if name != "<<"}
    return values


@pytest.mark.parametrize("service", SERVICES)
def test_each_setting_of_the_services_is_documented_and_passed_on(service: str) -> None:
    names = {name.upper() for name in SERVICES[service].model_fields}
    assert names - documented().keys() - fixed() == set()
    passed_on = environment(service)
    not_passed = {name for name in names if name not in passed_on}
    # These the images set, or another one takes their place.
    assert not_passed <= {"SERVICE_NAME", "HOST", "PORT", "MONGODB_URL"}
    assert set(passed_on) <= names


def test_what_is_documented_is_used_and_the_other_way_round() -> None:
    used = set(substituted())
    assert used - documented().keys() == set()
    assert documented().keys() - used == {"COMPOSE_PROFILES"}


def test_the_defaults_are_those_that_hold() -> None:
    classes = [cls.model_fields for cls in SERVICES.values()]
    for name, (value, default) in documented().items():
        if name == "SEAL_THREADS":  # counted where it runs
            continue
        compose_default = substituted().get(name)
        if compose_default:
            holds = compose_default
        else:
            field = next((fields[name.lower()] for fields in classes if name.lower() in fields), None)
            holds = str(field.default) if field and field.default is not None else ""
        shown = {"none": "", "the development chain's": dev_chain.CONTRACT}.get(default, default)
        assert holds.lower() in (shown.lower(), *shown.lower().split(", ")), (name, holds, shown)
        if f"\n#{name}=" in EXAMPLE:
            assert value == holds.lower() or value == holds, (name, value, holds)


def test_the_example_is_a_first_start_with_a_development_chain() -> None:
    set_there = dict(line.split("=", 1) for line in EXAMPLE.splitlines() if re.match(r"[A-Z_]+=", line))
    assert set_there == {"COMPOSE_PROFILES": "dev-chain", "ANCHORING": "on", "ANCHOR_CONFIRMATIONS": "1"}


def test_no_image_is_consumed_by_a_moving_name() -> None:
    images = {substitute(service["image"]) for service in COMPOSE["services"].values()}
    assert images == {
        f"pickme/lucid-chunk-processor:{__version__}",
        f"pickme/lucid-session-storage:{__version__}",
        "mongo:7.0",
        "ghcr.io/foundry-rs/foundry:v1.7.1",
    }
    for path in (ROOT / "sessions").glob("Dockerfile.*"):
        text = path.read_text()
        assert re.findall(r"^ARG [A-Z]+_IMAGE=(.+)$", text, re.MULTILINE) == [
            "python:3.11-slim-bookworm",
            "gcr.io/distroless/python3-debian12:nonroot",
        ]
        assert set(re.findall(r"^FROM (?:--platform=\S+ )?(\S+)", text, re.MULTILINE)) == {
            "${BUILDER_IMAGE}",
            "${RUNTIME_IMAGE}",
        }


def substitute(text: str) -> str:
    return _SUBSTITUTION.sub(lambda match: match["default"] or "", text)


def test_each_secret_goes_to_those_alone_who_need_it() -> None:
    mounted = {name: set(service.get("secrets", [])) for name, service in COMPOSE["services"].items()}
    readers: dict[str, set[str]] = {}
    for service, names in mounted.items():
        for name in names:
            readers.setdefault(name, set()).add(service)
    assert readers == {
        "tokens": {"chunk-processor", "session-storage"},
        "kek": {"chunk-processor"},
        "recovery-public": {"chunk-processor"},
        "storage-token": {"chunk-processor"},
        "mongodb-url": {"session-storage", "database-setup"},
        "mongodb-admin-url": {"database-setup"},
        "mongodb-root-password": {"mongodb"},
        "chain-key": {"session-storage", "chain-setup"},
    }
    assert set(readers) == set(COMPOSE["secrets"])


def test_every_service_is_confined() -> None:
    for name, service in COMPOSE["services"].items():
        merged = {**service.get("<<", {}), **service}
        assert merged["read_only"] is True, name
        assert merged["cap_drop"] == ["ALL"]
        assert merged["security_opt"] == ["no-new-privileges:true"]
        assert merged["user"] in ("65532:65532", "999:999", "1000:1000")
        assert merged["pids_limit"]
        assert merged["mem_limit"]
        assert merged["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
        assert merged.get("privileged") is None
