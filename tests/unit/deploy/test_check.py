"""scripts/deploy-check, in the parts that need no engine: what it makes of what it sees."""

import json
from typing import Any

import pytest

from scripts.deploy import check, engine
from scripts.deploy.check import Report, check_containers, check_network, hint_for
from scripts.deploy.engine import Container, EngineError
from scripts.deploy.smoke import Service, SmokeError, read_tokens

SUBNET = {"subnet": "172.20.0.0/16"}


def config(*, external: bool = False) -> dict[str, Any]:
    lucid: dict[str, Any] = {"external": True} if external else {"ipam": {"config": [SUBNET]}}
    return {"name": "lucid-sessions", "networks": {"lucid": lucid}, "services": {"chunk-processor": {}}}


def network(name: str, *, project: str = "", subnet: str = "10.0.0.0/24") -> dict[str, Any]:
    labels = {"com.docker.compose.project": project} if project else {}
    return {"Name": name, "Labels": labels, "IPAM": {"Config": [{"Subnet": subnet}]}}


@pytest.mark.parametrize(
    ("external", "networks", "said"),
    [
        (False, [], "[ok] will be made"),
        (False, [network("lucid-pi-network", project="lucid-sessions")], "[ok] is there"),
        (False, [network("lucid-pi-network", project="other")], "LUCID_NETWORK_EXTERNAL=true"),
        (True, [network("lucid-pi-network")], "[ok] is joined"),
        (True, [], "docker network create"),
        (False, [network("x", subnet="172.20.0.0/16")], "docker network rm x"),
        (False, [{**network("host"), "IPAM": {"Config": None}}], "[ok] will be made"),
    ],
)
def test_the_network(external: bool, networks: list, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    check_network(config(external=external), networks, report)
    shown = capsys.readouterr().out
    good = said.startswith("[ok]")
    assert said.removeprefix("[ok] ") in shown
    assert report.bad == (0 if good else 1)


def container(state: str, health: str = "", *, exit_code: int = 0, service: str = "chunk-processor") -> Container:
    return Container(service, f"x-{service}-1", state, health, exit_code, "", "")


@pytest.mark.parametrize(
    ("one", "good"),
    [
        (container("running", "healthy"), True),
        (container("running"), True),
        (container("running", "starting"), False),
        (container("running", "unhealthy"), False),
        (container("exited", exit_code=0), False),
        (container("exited", exit_code=0, service="database-setup"), True),
        (container("exited", exit_code=78, service="database-setup"), False),
        (container("restarting", exit_code=78), False),
        (container("created"), False),
    ],
)
def test_what_is_good(one: Container, good: bool) -> None:
    assert one.good == good


def test_what_a_container_said_last_is_shown_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "last_words", lambda _name: ["configuration error: KEK_FILE: cannot read it"])
    report = Report()
    check_containers(config(), [container("restarting", exit_code=78)], report)
    said = capsys.readouterr().out
    assert "restarting, exit code 78" in said
    assert "| configuration error: KEK_FILE" in said
    assert "-> put this secret back" in said


def test_a_container_that_waits_or_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    check_containers(config(), [container("created")], report)
    check_containers(config(), [container("running", service="other")], report)
    said = capsys.readouterr().out
    assert "waits for one of the others" in said
    assert "has no container" in said
    assert report.bad == 2


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Bind for 127.0.0.1:8085 failed: port is already allocated", "ss -ltnp"),
        ("configuration error: CHAIN_ID: Input should be a valid integer", "chain's settings"),
        ("configuration error: ZSTD_LEVEL: too high", "this setting in .env"),
        ("session-storage refuses our token: check", "from one backup"),
        ("all is quiet", ""),
    ],
)
def test_hints(text: str, hint: str) -> None:
    assert hint in hint_for(text)
    assert bool(hint_for(text)) == bool(hint)


def test_nothing_is_wider_than_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.ok("chunk-processor", "degraded, version 0.1.0\n" + "anchors are delayed: " + "words " * 20)
    report.fail("session-storage", "words " * 20, "do this " * 20)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1] == f"{'':26}anchors are delayed: words words words words words"
    assert [line[:12] for line in lines if "->" in line] == ["         -> "]


def test_without_docker_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check.main([]) == 1
    assert "docker is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "with sudo, or add the user"),
        ("Cannot connect to the Docker daemon at unix:///x", "systemctl start docker"),
        ("something else", "docker compose -f: something else"),
    ],
)
def test_a_docker_that_refuses(said: str, meant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EngineError, match=meant):
        engine.configuration()


def test_a_docker_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(engine, "_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(EngineError, match="did not answer within"):
        engine.networks()


def test_a_service_that_is_away() -> None:
    with pytest.raises(SmokeError, match="does not answer"):
        Service("127.0.0.1", 1).ask("GET", "/health")


def test_tokens_that_cannot_be_read(tmp_path: Any) -> None:
    with pytest.raises(SmokeError, match="--tokens DIR"):
        read_tokens(tmp_path)


def test_what_health_says_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from scripts.deploy.smoke import Answer

    bad = {"status": "failed", "version": "1", "checks": {"database": {"status": "failed", "detail": "it is away"}}}
    answers = iter([Answer(503, json.dumps(bad).encode()), Answer(200, b"not JSON")])
    monkeypatch.setattr(Service, "ask", lambda *_: next(answers))
    report = Report()
    check.check_health({"a": Service("x", 1), "b": Service("x", 1)}, report)
    assert "database: it is away" in capsys.readouterr().out
    assert report.bad == 2
