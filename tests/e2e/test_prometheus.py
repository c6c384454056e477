"""Metrics, alerts and dashboard, with a real Prometheus that scrapes a real stack; each alert by the fault it is for."""

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from bson import Binary
from pymongo import MongoClient
from pymongo.database import Database

from scripts.devstack.process import ROOT, wait_until
from scripts.devstack.stack import Stack
from sessions.core.audit import DAY_SESSION_PATTERN, session_of
from sessions.runtime.audit import MAX_WAITING
from tests.altering import altered_end
from tests.conftest import own_stack
from tests.e2e.conftest import UNKNOWN_TOKEN, Api, session_name
from tests.e2e.prometheus import CONFIGURATION, RULES, Prometheus

pytestmark = pytest.mark.prometheus
HERE = Path(__file__)
BY_SERIES = HERE.with_name("alerts_test.yml")
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
SERVICES = {"chunk-processor": "processor", "session-storage": "storage"}
_SPOOL_BYTES = 4 * 1024 * 1024
_QUARANTINE_BYTES = 1024 * 1024
_LOST_SECONDS = 25
_NAME = re.compile(r"\b(?:lucid|process)_[a-z_]+\b|\bup\b")
_ROW = re.compile(r"^\| `(lucid_\w+)` \| (\w+) \| (\w+) \| ([^|]+) \| ([^|]+) \| (.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own: its parts are killed, and its spool is filled."""
    settings = {
        "processor": {"SPOOL_MAX_BYTES": str(_SPOOL_BYTES), "SPOOL_QUARANTINE_MAX_BYTES": str(_QUARANTINE_BYTES)},
        "storage": {"PROCESSOR_WAIT_SECONDS": str(_LOST_SECONDS)},
    }
    yield from own_stack(tmp_path_factory, settings=settings)


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    one = Api(stack)
    yield one
    one.close()


@pytest.fixture(scope="module")
def database(stack: Stack) -> Iterator[Database[Any]]:
    with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
        yield client[stack.env["storage"]["MONGODB_DATABASE"]]


@pytest.fixture(scope="module")
def watch(stack: Stack, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, once it has seen some recording."""
    targets = {
        "lucid-chunk-processor": stack.processor_url.removeprefix("http://"),
        "lucid-session-storage": stack.storage_url.removeprefix("http://"),
    }
    one = Prometheus(tmp_path_factory.mktemp("prometheus"), targets, stack.mongod.marks)
    one.start()
    try:
        name = session_name("watched")
        api.record(name, [os.urandom(1000), b"text " * 5000])
        assert api.processor("GET", f"/api/v1/sessions/{name}/content", "replay").status_code == 200
        yield one
    finally:
        one.stop()


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> list[str]:
    """All queries of the dashboard, with its variables filled in."""
    targets = [target for panel in panels() for target in panel.get("targets", ())]
    return [one["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m") for one in targets]


def promtool(*words: str | Path, text: str = "") -> str:
    """Run it; what it says, once it found nothing wrong."""
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def metrics(api: Api, service: str) -> str:
    text: str = getattr(api, SERVICES[service])("GET", "/metrics", None).text
    return text


def test_promtool_finds_nothing_wrong_with_rules_and_configuration() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", CONFIGURATION)
    promtool("test", "rules", BY_SERIES)


@pytest.mark.parametrize("service", SERVICES)
def test_promtool_finds_nothing_wrong_with_metrics(api: Api, service: str) -> None:
    assert promtool("check", "metrics", text=metrics(api, service)) == ""


def test_the_document_has_every_metric_and_no_other(api: Api) -> None:
    told: dict[str, tuple[str, str, set[str], str]] = {}
    for service in SERVICES:
        text = metrics(api, service)
        types = dict(re.findall(r"^# TYPE (lucid_\w+) (\w+)$", text, re.MULTILINE))
        for name, meaning in re.findall(r"^# HELP (lucid_\w+) (.+)$", text, re.MULTILINE):
            labels = set(
                re.findall(r'(\w+)="', " ".join(re.findall(rf"^{name}(?:_count)?{{(.*)}}", text, re.MULTILINE)))
            )
            services = f"{told[name][3]}, {service}" if name in told else service
            told[name] = (types[name], meaning, labels, services)
    written = {}
    for name, kind, unit, labels, services, meaning in _ROW.findall((ROOT / "docs" / "metrics.md").read_text()):
        written[name] = (
            kind,
            meaning,
            set(re.findall(r"`(\w+)`", labels)),
            services.replace("both", ", ".join(SERVICES)),
        )
        own = name.removesuffix("_total").rsplit("_", 1)[-1]
        assert unit == (own if own in ("seconds", "bytes", "coins") else "count"), name
    assert written == told


def test_a_label_has_few_values(api: Api) -> None:
    name = session_name("never-in-a-metric")
    api.record(name, [b"x"])
    assert api.processor("GET", f"/api/v1/sessions/{name}-unknown", "audit").status_code == 404
    for service in SERVICES:
        text = metrics(api, service)
        assert name not in text
        values: dict[str, set[str]] = {}
        for label, value in re.findall(r'(\w+)="([^"]*)"', text):
            values.setdefault(label, set()).add(value)
        values.pop("le")
        assert max(map(len, values.values())) < 60


def test_the_dashboard_is_as_grafana_wants_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 41
    assert {one["name"]: one["type"] for one in dashboard["templating"]["list"]} == {
        "datasource": "datasource",
        "instance": "query",
    }
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Health", "Ingest", "Storage", "Spool", "Anchoring", "Event loop lag", "Compression"]
    assert len({panel["id"] for panel in panels()}) == len(panels())
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = set(itertools.product(columns, lines))
        assert taken.isdisjoint(cells), panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] == "row":
            continue
        assert (bool(panel["description"]), bool(panel["targets"])) == (True, True)
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_every_query_is_answered_and_names_what_is_scraped(watch: Prometheus) -> None:
    for condition in (
        "rate(lucid_chunks_total[1m]) > 0",
        "lucid_anchor_balance_coins > 0",
        f"count(count_over_time(up[5m]) >= 2) == {len(SERVICES)}",  # a rate is of two scrapes
    ):
        assert watch.holds(condition)
    scraped = set(watch.get("label/__name__/values"))
    for expression in (*expressions(), *(alert["expr"] for alert in alerts())):
        names = set(_NAME.findall(expression))
        assert names <= scraped, expression
        assert names, expression
    for expression in expressions():
        assert watch.query(expression), f"nothing comes of {expression}"


def test_every_metric_of_ours_is_on_the_dashboard(api: Api) -> None:
    shown = set(_NAME.findall(" ".join(expressions())))
    for service in SERVICES:
        for name in re.findall(r"^# TYPE (lucid_\w+) ", metrics(api, service), re.MULTILINE):
            assert shown & {name, f"{name}_bucket", f"{name}_count"}, name


def test_every_alert_says_what_to_do_and_has_a_test() -> None:
    caused = set(re.findall(r"""\.fires\("(\w+)"\)""", HERE.read_text()))
    assert {alert["alert"] for alert in alerts()} == caused
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    for alert in alerts():
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"]
        description = alert["annotations"]["description"]
        assert "docs/operations.md" in description
        for named in re.findall(r'"([^"]+)"', description.split("docs/operations.md")[1]):
            assert any(heading.startswith(named) for heading in headings), named


def test_the_rules_are_evaluated_and_at_rest_none_fires(watch: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in watch.get("rules")["groups"] for rule in group["rules"]]

    assert wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), 20)
    assert {rule["name"]: rule["lastError"] for rule in rules() if rule.get("lastError")} == {}
    assert {rule["name"] for rule in rules()} == {alert["alert"] for alert in alerts()}
    time.sleep(2)  # longer than the alerts' `for` is here
    # On a machine that is busy otherwise the loop does lag.
    assert watch.firing() <= {"LucidEventLoopLag"}


def test_wrong_tokens(api: Api, watch: Prometheus) -> None:
    headers = {"authorization": f"Bearer {UNKNOWN_TOKEN}"}
    for _ in range(150):
        assert api.storage("GET", "/api/v1/sessions", None, headers=headers).status_code == 401
    assert watch.fires("LucidTokensRefused")


def test_a_record_that_was_altered(api: Api, watch: Prometheus, database: Database[Any]) -> None:
    name = session_name("altered")
    api.record(name, [b"one", b"two"])
    body = database["bodies"].find_one({"_id.s": name, "_id.i": 1})
    assert body is not None
    database["bodies"].update_one({"_id": body["_id"]}, {"$set": {"data": Binary(altered_end(body["data"]))}})
    assert api.storage("POST", "/api/v1/scrub", json={"session_id": name}).status_code == 200
    assert watch.fires("LucidScrubFinding")
    assert [one["metric"]["kind"] for one in watch.query("lucid_scrub_findings_total > 0")] == ["altered"]


def test_a_background_task_that_keeps_failing(api: Api, watch: Prometheus, database: Database[Any]) -> None:
    """A session's record is not what storage can read."""
    name = session_name("broken")
    api.record(name, [b"one"], seal=False)
    broken = {"status": "sealing", "seal_order": {"sealed_by": "nobody"}}
    database["sessions"].update_one({"_id": name}, {"$set": broken})
    assert watch.fires("LucidBackgroundFailing")
    database["sessions"].delete_one({"_id": name})


def test_an_account_without_coins(stack: Stack, watch: Prometheus) -> None:
    had = stack.anvil.call("eth_getBalance", stack.publisher, "latest")
    stack.anvil.call("anvil_setBalance", stack.publisher, "0x0")
    assert watch.fires("LucidAnchorBalanceLow")
    stack.anvil.call("anvil_setBalance", stack.publisher, had)
    assert watch.ends("LucidAnchorBalanceLow")


def test_a_chain_that_is_away_and_what_waits_for_it(
    stack: Stack, api: Api, watch: Prometheus, database: Database[Any]
) -> None:
    stack.kill("anvil", signal.SIGTERM)
    first, second = session_name("waits"), session_name("waits")
    api.record(first, [b"x"])
    # While one batch is in no block no other is made, so the next session waits for a batch.
    waiting = {"anchor.state": {"$in": ["pending", "submitted"]}}
    assert wait_until(lambda: database["batches"].count_documents(waiting) > 0, 30)
    api.record(second, [b"x"])
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    database["sessions"].update_one({"_id": second}, {"$set": {"seal_order.sealed_at": long_ago}})
    assert watch.fires("LucidAnchorFailing")
    assert watch.fires("LucidAnchorLate")
    assert watch.holds("lucid_anchor_backlog_sessions >= 2")
    stack.resume("anvil")
    assert watch.holds("lucid_anchor_backlog_sessions == 0")
    assert watch.ends("LucidAnchorLate")


@contextmanager
def lease_elsewhere(database: Database[Any], name: str) -> Iterator[None]:
    """A replica has a lease that is not there, and lets it go in the end."""
    elsewhere = {"holder": "elsewhere", "expires_at": datetime.now(UTC) + timedelta(hours=1)}
    database["leases"].update_one({"_id": name}, {"$set": elsewhere}, upsert=True)
    yield
    database["leases"].update_one({"_id": name}, {"$set": {"expires_at": datetime.fromtimestamp(0, UTC)}})


def test_a_lease_that_nobody_here_holds(watch: Prometheus, database: Database[Any]) -> None:
    with lease_elsewhere(database, "anchorer"):
        assert watch.fires("LucidAnchorNoLeader")
        assert watch.holds('lucid_lease_held{lease="anchorer"} == 0')
    assert watch.ends("LucidAnchorNoLeader")


def test_a_day_of_the_trail_that_nobody_seals(api: Api, watch: Prometheus, database: Database[Any]) -> None:
    """Whoever holds the lease hangs."""
    assert api.processor("GET", "/api/v1/sessions/nobody/content", "replay").status_code == 404  # leaves an event
    assert wait_until(lambda: database["sessions"].count_documents({"_id": {"$regex": DAY_SESSION_PATTERN}}) > 0, 20)
    today = database["sessions"].find_one({"_id": {"$regex": DAY_SESSION_PATTERN}})
    earlier = session_of((datetime.now(UTC) - timedelta(days=3)).date().isoformat())
    with lease_elsewhere(database, "audit"):
        database["sessions"].insert_one({**today, "_id": earlier})
        assert watch.fires("LucidAuditLate")
    assert watch.ends("LucidAuditLate")
    sealed = database["sessions"].find_one({"_id": earlier})
    assert sealed is not None
    assert sealed["status"] == "sealed"


def test_more_kinds_of_refusals_than_the_trail_tells_apart(stack: Stack, api: Api, watch: Prometheus) -> None:
    """Very many tokens are tried for what they may not do, while events cannot be written."""
    tokens = [f"lucid_{number:043}" for number in range(MAX_WAITING + 50)]
    with (stack.folder / "secrets" / "tokens").open("a") as file:
        for number, token in enumerate(tokens):
            file.write(f"many-{number} roles=replay sha256={hashlib.sha256(token.encode()).hexdigest()}\n")

    def put(token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        status: int = api.processor("PUT", "/api/v1/sessions/theirs/chunks/0", None, headers=headers).status_code
        return status

    assert wait_until(lambda: put(tokens[-1]) == 403, 20)
    stack.kill("storage")
    assert {put(token) for token in tokens} == {403}
    assert watch.fires("LucidAuditDropped")
    stack.resume("storage")


def test_an_event_loop_that_does_not_turn(stack: Stack, watch: Prometheus) -> None:
    for _ in range(15):
        stack.kill("processor", signal.SIGSTOP)
        time.sleep(0.25)
        stack.kill("processor", signal.SIGCONT)
        time.sleep(0.11)
    assert watch.fires("LucidEventLoopLag")
    assert watch.holds('ALERTS{alertname="LucidEventLoopLag",alertstate="firing",job="lucid-chunk-processor"}')


def _fill(api: Api, name: str, share: float) -> None:
    """Record into the spool until it is so full."""
    for index in itertools.count():
        text = metrics(api, "chunk-processor")
        used = re.search(r"^lucid_spool_bytes (\S+)$", text, re.MULTILINE)
        assert used
        if float(used[1]) >= share * _SPOOL_BYTES:
            return
        answer = api.put_chunk(f"{name}-{share}", index, os.urandom(128 * 1024))
        assert answer.json()["durability"] == "spooled", answer.text


def test_storage_away_until_the_spool_is_full_and_what_comes_of_it(stack: Stack, api: Api, watch: Prometheus) -> None:
    twice, gapped, filling = session_name("twice"), session_name("gapped"), session_name("filling")
    api.record(twice, [b"what storage has"], seal=False)
    stack.kill("storage")
    other = os.urandom(_QUARANTINE_BYTES * 11 // 50)  # more than a fifth, less than the quarter of a token
    assert api.put_chunk(twice, 0, other).json()["durability"] == "spooled"
    assert watch.fires("LucidServiceDown")
    assert watch.fires("LucidStorageAway")
    assert api.put_chunk(gapped, 5, b"chunks 0 to 4 never come").status_code == 201
    ordered = api.processor("POST", f"/api/v1/sessions/{gapped}/seal", json={"chunk_count": 6})
    assert ordered.status_code == 202
    _fill(api, filling, 0.6)
    assert watch.fires("LucidSpoolFilling")
    _fill(api, filling, 0.85)
    assert watch.fires("LucidSpoolCritical")
    indexes = itertools.count()

    def refused() -> bool:
        return api.put_chunk(f"{filling}-full", next(indexes), os.urandom(128 * 1024)).status_code == 507

    assert wait_until(refused, 20)
    assert watch.fires("LucidSpoolFull")
    assert wait_until(lambda: refused() and "LucidErrors" in watch.firing(), 30)
    assert watch.fires("LucidErrors")
    # It comes back to a disk that is less than twice what is to be kept free.
    (free,) = watch.query("last_over_time(lucid_database_disk_free_bytes[10m])")
    free_bytes = float(free["value"][1])
    stack.env["storage"]["DATABASE_FREE_MIN_BYTES"] = str(round(free_bytes / 1.5))
    stack.resume("storage")
    assert watch.fires("LucidDatabaseDiskLow")
    assert watch.fires("LucidQuarantineNotEmpty")
    assert watch.fires("LucidQuarantineFilling")
    assert watch.fires("LucidQueuedSealRefused")
    assert watch.holds("lucid_spool_entries == 0 and lucid_spool_state == 0")
    assert watch.ends("LucidStorageAway")


def test_a_processor_that_is_lost_with_what_its_spool_holds(stack: Stack, api: Api, watch: Prometheus) -> None:
    """Its session is sealed without it; the chunk is in its quarantine when it comes back."""
    name = session_name("lost")
    api.record(name, [b"chunk 0"], seal=False)
    stack.kill("storage")
    assert api.put_chunk(name, 1, b"chunk 1").json()["durability"] == "spooled"
    stack.kill("processor")
    stack.resume("storage")
    order = {"chunk_count": None, "processor": "other-0a1b2c3d", "until_seconds": 1e9}
    ordered = api.storage("POST", f"/api/v1/sessions/{name}/seal", "processor", json=order)
    assert ordered.status_code == 202, ordered.text
    assert watch.fires("LucidProcessorMissing")
    assert watch.fires("LucidProcessorLost")
    assert watch.fires("LucidSealUnheard")
    stack.resume("processor")
    assert watch.fires("LucidChunksLeftOut")
    assert watch.ends("LucidProcessorLost")


def test_a_database_that_was_set_back(watch: Prometheus, database: Database[Any]) -> None:
    database["uptime"].update_one({}, {"$set": {"seconds": 1.0}})
    assert watch.fires("LucidDatabaseSetBack")


def test_a_database_that_is_away_and_one_without_room(stack: Stack, watch: Prometheus) -> None:
    free_bytes = float(watch.query("lucid_database_disk_free_bytes")[0]["value"][1])
    stack.kill("mongod")
    assert watch.fires("LucidDatabaseAway")
    stack.resume("mongod")
    stack.restart("storage", {"DATABASE_FREE_MIN_BYTES": str(round(free_bytes * 2))})
    assert watch.fires("LucidDatabaseDiskFull")
    assert watch.ends("LucidDatabaseAway")
