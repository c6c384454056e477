"""The console in a real browser, against the real stack."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from bson import Binary
from playwright.sync_api import Page, expect
from pymongo import MongoClient

from scripts.devstack.anvil import Anvil
from scripts.devstack.process import wait_until
from scripts.devstack.services import deploy_contract
from scripts.devstack.stack import Stack
from sessions.core.manifest import Manifest
from sessions.core.types import Hash, SessionId
from sessions.runtime.times import now
from tests.conftest import Figure
from tests.e2e.conftest import UNKNOWN_TOKEN, Api, session_name
from tests.e2e.console.conftest import WAIT_MS, Console, MakeConsole, faults_of_access

pytestmark = pytest.mark.chromium
expect.set_options(timeout=WAIT_MS)

MANY = 10_000
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
REPORT_FAILED = "Failed to load resource"
"""The browser's own line for an answer that is an error."""


@pytest.fixture(scope="module")
def many(stack: Stack) -> Iterator[str]:
    """Ten thousand sealed sessions, as the store has them; gives what their ids begin with."""
    prefix = f"many{token_hex(3)}-"
    opened = now()
    documents = []
    for number in range(MANY):
        name = f"{prefix}{number:05d}"
        manifest = Manifest(
            session_id=SessionId(name),
            chunk_count=3,
            missing=(),
            plaintext_bytes=300_000 + number,
            envelope_bytes=100_000,
            root=Hash(bytes(32)),
            opened_at="2026-01-31T12:00:00.000Z",
            sealed_at="2026-01-31T12:30:00.000Z",
            sealed_by="recorder",
            metadata_sha256=Hash(bytes(32)),
        )
        documents.append(
            {
                "_id": name,
                "status": "sealed",
                "opened_at": opened,
                "metadata": Binary(b"{}"),
                "keys": [],
                "seal_order": {"chunk_count": 3, "sealed_by": "recorder", "sealed_at": opened, "id": "x"},
                "manifest": Binary(manifest.to_bytes()),
                "tiles_attempt": "x",
            }
        )
    with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
        sessions = client[stack.env["storage"]["MONGODB_DATABASE"]]["sessions"]
        sessions.insert_many(documents, ordered=False)
        yield prefix
        sessions.delete_many({"_id": {"$gte": prefix, "$lt": prefix + "~"}})


def _ids(page: Page) -> list[str]:
    return page.locator("tbody td:first-child a").all_inner_texts()


def _metadata(api: Api, session: str, metadata: dict[str, Any]) -> None:
    assert api.processor("PUT", f"/api/v1/sessions/{session}", json={"metadata": metadata}).status_code == 201


def test_a_wrong_token_is_refused_in_words_and_a_right_one_is_let_in(console: Console, stack: Stack) -> None:
    console.expected.append(REPORT_FAILED)
    page = console.page()
    page.goto(f"{stack.storage_url}/console")
    for token, words in (
        (UNKNOWN_TOKEN, "This token is not valid here"),
        (
            stack.tokens["record"],
            "This token is valid, but not for the console: this needs a token with the role audit",
        ),
        (stack.tokens["audit"], ""),
    ):
        page.get_by_label("Token", exact=True).fill(token)
        page.keyboard.press("Enter")
        if words:
            expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    kept = page.evaluate("() => JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert "lucid_" not in kept
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_ten_thousand_sessions_are_walked_by_cursor(console: Console, many: str, figure: Figure) -> None:
    page = console.open("anchors")
    expect(page.get_by_role("heading", name="Anchors")).to_be_visible()
    started = time.perf_counter()
    page.get_by_role("link", name="Sessions", exact=True).click()
    page.locator("tbody tr").nth(99).wait_for()
    figure(f"console: the table of {MANY:,} sessions was painted {time.perf_counter() - started:.2f} s after the click")
    page.get_by_label("Id begins with").fill(many)
    expect(page.locator("tbody a").first).to_have_text(f"{many}00000")
    seen = _ids(page)
    for number in (1, 2):
        page.get_by_role("button", name="More").click()
        expect(page.locator("tbody a").first).to_have_text(f"{many}00{number}00")
        seen += _ids(page)
    assert seen == [f"{many}{number:05d}" for number in range(300)]
    page.get_by_role("button", name="Back").click()
    expect(page.locator("tbody a").first).to_have_text(f"{many}00100")
    page.get_by_label("State").select_option("Recording")
    expect(page.get_by_text("No session fits")).to_be_visible()
    page.get_by_label("Id begins with").fill(f"{many}09")
    page.get_by_label("State").select_option("Sealed and anchored")
    expect(page.locator("tbody a").first).to_have_text(f"{many}09000")
    assert re.search(rf"#/sessions\?filter=sealed&prefix={many}09$", page.url)


def test_a_session_is_seen_from_recording_to_anchored_without_a_reload(
    console: Console, api: Api, tmp_path: Path
) -> None:
    session = session_name("live")
    _metadata(api, session, {"note": MARKUP})
    api.put_chunk(session, 0, b"first" * 100)
    page = console.open()
    page.get_by_label("Id begins with").fill(session)
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Recording")
    row.get_by_role("link").click()
    page.evaluate("() => { window.notReloaded = true }")
    expect(page.get_by_role("heading", name=session)).to_be_visible()
    expect(page.locator(".title .badge")).to_have_text("● Recording")
    expect(page.get_by_role("button", name="Download receipt")).to_be_disabled()
    api.put_chunk(session, 3, b"fourth" * 100)
    missing = page.get_by_role("cell", name="Chunks 1\N{EN DASH}2 missing")
    expect(missing).to_be_visible()
    for index in (1, 2):
        api.put_chunk(session, index, b"between" * 100)
    assert api.processor("POST", f"/api/v1/sessions/{session}/seal", json={"chunk_count": 4}).status_code == 200
    expect(page.locator(".title .badge")).to_have_text("✓ Anchored")
    expect(missing).to_have_count(0)
    expect(page.locator("dt", has_text="Confirmations").locator("xpath=../dd")).to_contain_text("on top")

    # Metadata with markup in it is text: the page has no such element.
    expect(page.get_by_label("Metadata")).to_contain_text(MARKUP)
    assert page.locator("main img, main pre b").count() == 0
    receipt = api.storage("GET", f"/api/v1/sessions/{session}/receipt")
    anchor = receipt.json()["anchor"]
    for told in (
        anchor["transaction"],
        anchor["publisher"],
        receipt.json()["batch"]["root"],
        str(anchor["block_number"]),
    ):
        expect(page.get_by_text(told, exact=True)).to_be_visible()
    with page.expect_download() as found:
        page.get_by_role("button", name="Download receipt").press("Enter")
    assert found.value.suggested_filename == f"{session}.receipt.json"
    assert json.loads(found.value.path().read_bytes()) == receipt.json()
    with page.expect_download() as found:
        page.get_by_role("button", name="Download the proof of chunk 2").press("Enter")
    assert (
        json.loads(found.value.path().read_bytes())
        == api.storage("GET", f"/api/v1/sessions/{session}/chunks/2/proof").json()
    )
    assert page.evaluate("() => window.notReloaded")


def test_held_and_shredded_sessions_say_so(console: Console, api: Api) -> None:
    held, shredded = session_name("held"), session_name("shredded")
    for session in (held, shredded):
        api.record(session, [b"content"])
    assert api.storage("PUT", f"/api/v1/sessions/{held}/hold", "admin", json={"held": True}).status_code == 200
    assert api.processor("DELETE", f"/api/v1/sessions/{shredded}", "admin").status_code == 200
    page = console.open()
    page.get_by_label("State").select_option("Held")
    page.get_by_label("Id begins with").fill(held)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("Held")
    page.get_by_label("State").select_option("Shredded")
    page.get_by_label("Id begins with").fill(shredded)
    expect(page.get_by_role("link", name=shredded)).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("Shredded")
    page.get_by_role("link", name=shredded).click()
    expect(page.get_by_text("by stack-admin")).to_be_visible()
    expect(page.get_by_text("They were destroyed")).to_be_visible()
    assert api.storage("PUT", f"/api/v1/sessions/{held}/hold", "admin", json={"held": False}).status_code == 200


def test_a_seal_that_did_not_wait_for_a_lost_processor_says_so(console: Console, api: Api, stack: Stack) -> None:
    name, other = session_name("unheard"), session_name("heard")
    for session in (name, other):
        api.record(session, [b"x"])
    with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
        sessions = client[stack.env["storage"]["MONGODB_DATABASE"]]["sessions"]
        sessions.update_one({"_id": name}, {"$set": {"seal_order.unheard": ["desk-17-0a1b2c3d"]}})
    page = console.open(f"session/{name}")
    expect(page.get_by_text("Sealed without hearing from desk-17-0a1b2c3d")).to_be_visible()
    page.goto(page.url.replace(name, other))
    expect(page.get_by_role("heading", name=other)).to_be_visible()
    expect(page.get_by_text("Sealed without hearing from")).to_have_count(0)


def test_findings_are_shown_where_they_belong(console: Console, api: Api, stack: Stack) -> None:
    session = session_name("found")
    api.record(session, [b"content"])
    with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
        database = client[stack.env["storage"]["MONGODB_DATABASE"]]
        record = database["chunks"].find_one_and_delete({"_id.s": session})
        assert record is not None
        assert api.storage("POST", "/api/v1/scrub", json={"session_id": session}).json()["findings"]
        page = console.open(f"session/{session}")
        expect(page.locator(".title").get_by_text("finding")).to_be_visible()
        expect(page.locator("ul.findings")).to_contain_text("missing")
        page.get_by_role("link", name="Health").click()
        expect(page.get_by_role("link", name=session).first).to_be_visible()
        expect(page.get_by_text("chunk-processor")).to_be_visible()
        database["chunks"].insert_one(record)
        database["findings"].delete_many({"session_id": session})


def _sealed(page: Page, api: Api, prefix: str, chunks: list[bytes]) -> tuple[str, bytes]:
    """A session that is anchored, and its receipt."""
    session = session_name(prefix)
    api.record(session, chunks)
    page.goto(page.url.partition("#")[0] + f"#/session/{session}")
    expect(page.locator(".title .badge")).to_have_text("✓ Anchored")
    return session, api.storage("GET", f"/api/v1/sessions/{session}/receipt").content


def _file(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "application/json", "buffer": content}


def _verdict(page: Page, files: list[Any], node: str) -> str:
    page.get_by_role("button", name="Begin anew").or_(page.get_by_role("button", name="Verify")).first.wait_for()
    if page.get_by_role("button", name="Begin anew").is_visible():
        page.get_by_role("button", name="Begin anew").click()
    page.get_by_label("Receipt, chunk proofs").set_input_files(files)
    expect(page.locator(".chosen")).to_contain_text("Receipt: r.json")
    page.get_by_label("RPC endpoint").fill(node)
    page.get_by_role("button", name="Verify").click()
    return page.locator(".verdict").inner_text()


@pytest.fixture
def empty_chain(tmp_path: Path) -> Iterator[Anvil]:
    """A chain on which nobody has deployed anything."""
    node = Anvil(tmp_path / "chain")
    try:
        node.start()
        yield node
    finally:
        node.stop()


def test_receipts_are_verified_in_the_page(console: Console, api: Api, stack: Stack, empty_chain: Anvil) -> None:
    console.nodes |= {stack.rpc_url, empty_chain.url}
    page = console.open()
    chunks = [b"one" * 50, b"two" * 60, b"three" * 70]
    session, receipt = _sealed(page, api, "verified", chunks)
    envelopes = [
        _file(f"{index}.envelope", api.storage("GET", f"/api/v1/sessions/{session}/chunks/{index}/envelope").content)
        for index in range(3)
    ]
    proof = _file("p.json", api.storage("GET", f"/api/v1/sessions/{session}/chunks/1/proof").content)
    with console.context.expect_page() as opened:
        page.get_by_role("link", name="Verify here").click()
    page = opened.value
    expect(page.locator(".chosen")).to_contain_text("from the console")
    page.get_by_label("RPC endpoint").fill(stack.rpc_url)
    page.get_by_label("Publisher").fill(stack.publisher)
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".verdict")).to_contain_text("Proven: the chain has the anchor")
    expect(page.get_by_text("The publisher is the one that you expect")).to_be_visible()
    page.get_by_label("Publisher").fill("")

    right = _file("r.json", receipt)
    assert _verdict(page, [right, proof, *envelopes], stack.rpc_url).startswith("Proven: ")
    expect(page.get_by_text("The envelopes are exactly those that were sealed")).to_be_visible()
    assert "not all of it was checked" in _verdict(page, [right], "")

    altered = json.loads(receipt)
    altered["manifest"]["plaintext_bytes"] ^= 1
    assert "contradicts" in _verdict(page, [_file("r.json", json.dumps(altered).encode())], stack.rpc_url)
    expect(page.locator(".step.failed")).to_contain_text("the inclusion path leads to another root")
    body = bytearray(envelopes[1]["buffer"])
    body[-1] ^= 1
    assert "contradicts" in _verdict(
        page, [right, envelopes[0], _file("1.envelope", bytes(body)), envelopes[2]], stack.rpc_url
    )
    expect(page.locator(".step.failed")).to_contain_text("a chunk is altered")
    assert "contradicts" in _verdict(page, [right, *envelopes[:2]], stack.rpc_url)
    expect(page.locator(".step.failed")).to_contain_text("chunk 2 is missing")

    # Another chain of the same number, first without the contract, then with it at the same address and no anchor.
    assert "contradicts" in _verdict(page, [right], empty_chain.url)
    expect(page.locator(".step.failed")).to_contain_text("code is not that of LucidAnchors")
    if deploy_contract(empty_chain.url, empty_chain.accounts[0][1]).lower() != stack.contract.lower():
        pytest.fail("the same account's first contract has the same address on each chain")
    assert "contradicts" in _verdict(page, [right], empty_chain.url)
    expect(page.locator(".step.failed")).to_contain_text("The anchor does not hold: the chain has no anchor")


def test_a_node_that_does_not_answer_proves_and_refutes_nothing(console: Console, api: Api, stack: Stack) -> None:
    console.nodes |= {"http://127.0.0.1:1", stack.storage_url}
    console.expected += [REPORT_FAILED, "blocked by CORS policy"]
    page = console.open()
    _, receipt = _sealed(page, api, "alone", [b"x"])
    page.goto(f"{stack.storage_url}/console/verify")
    page.get_by_label("Receipt, chunk proofs").set_input_files([_file("r.json", receipt)])
    for node, words in (
        ("http://127.0.0.1:1", "cannot be asked from this page"),
        (f"{stack.storage_url}/health", "answered no JSON-RPC"),
        ("ftp://127.0.0.1", "begins with https:// or http://"),
    ):
        page.get_by_label("RPC endpoint").fill(node)
        page.get_by_role("button", name="Verify").click()
        expect(page.get_by_role("alert")).to_contain_text(words if "JSON" not in words else re.compile("answered"))
        expect(page.locator(".verdict")).to_have_count(0)


def _film(target: Path) -> bytes:
    source = ["-f", "lavfi", "-i", "testsrc=size=320x180:rate=10", "-t", "2", "-pix_fmt", "yuv420p"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-movflags", "frag_keyframe+empty_moov+default_base_moof"]
    subprocess.run(["ffmpeg", "-v", "error", *source, *coding, "-f", "mp4", str(target)], check=True, timeout=120)
    return target.read_bytes()


def test_recordings_are_played(console: Console, api: Api, stack: Stack, tmp_path: Path) -> None:
    console.expected.append(REPORT_FAILED)
    film = _film(tmp_path / "film.mp4")
    events = [[0.1, "o", "$ echo \x1b[32mgreen\x1b[0m\r\n"], [0.2, "o", "gone\rgreen\r\n"], [0.3, "o", f"{MARKUP}\r\n"]]
    cast = "\n".join(json.dumps(line) for line in [{"version": 2, "width": 60, "height": 10}, *events])
    names = {kind: session_name(kind) for kind in ("film", "cast", "text", "else")}
    api.record(names["film"], [film[at : at + 10_000] for at in range(0, len(film), 10_000)])
    api.record(names["cast"], [cast.encode()])
    api.record(names["text"], [MARKUP.encode(), b" and more"])
    api.record(names["else"], [bytes(range(256))])
    page = console.open(token=stack.tokens["audit"])

    def play(kind: str) -> None:
        page.goto(f"{stack.storage_url}/console#/session/{names[kind]}")
        expect(page.get_by_role("heading", name=names[kind])).to_be_visible()
        # Not by the mouse, from which it may move away while what is above it is still loaded.
        page.get_by_role("button", name="Play", exact=True).press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("this needs a token with the role replay")
        page.get_by_label("Token with the role replay").fill(stack.tokens["replay"])
        page.get_by_role("button", name="Play", exact=True).press("Enter")

    play("film")
    played = page.get_by_label(f"Recording of {names['film']}")
    state = "v => ({at: v.currentTime, of: v.duration, ready: v.readyState, paused: v.paused, error: v.error?.message})"
    assert wait_until(lambda: played.evaluate("v => v.currentTime") > 0.5, 60), played.evaluate(state)
    assert page.evaluate(
        "() => { const v = document.querySelector('video'); return [v.videoWidth, v.videoHeight] }"
    ) == [320, 180]
    play("cast")
    expect(page.get_by_label("Terminal")).to_contain_text(MARKUP)
    expect(page.get_by_label("Terminal")).not_to_contain_text("gone")
    expect(page.locator(".terminal .front-2")).to_have_text("green")
    play("text")
    expect(page.get_by_label("Recording", exact=True)).to_have_text(f"{MARKUP} and more")
    play("else")
    expect(page.get_by_text("This is nothing that a browser plays")).to_be_visible()
    assert page.locator("main img").count() == 0


def test_plots_are_drawn_of_what_is_stored(console: Console, api: Api) -> None:
    for _ in range(2):
        api.record(session_name("plotted"), [b"plain" * 1000])
    page = console.open("activity")
    for title in ("Storage growth", "Compression", "Ingest rate", "Free space"):
        expect(page.get_by_role("img", name=title)).to_be_visible()


def test_the_keyboard_is_enough(console: Console, api: Api, stack: Stack) -> None:
    session = session_name("keys")
    api.record(session, [b"x"])
    page = console.page()
    page.goto(f"{stack.storage_url}/console")
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.keyboard.insert_text(console.operator)
    page.keyboard.press("Enter")
    page.locator("tbody tr").first.wait_for()
    page.keyboard.press("Tab")
    page.keyboard.insert_text(session)
    expect(page.locator("tbody tr")).to_have_count(1)
    for _ in range(3):  # the filter, the table, the link
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=session)).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_no_serious_fault_of_access(make_console: MakeConsole, api: Api, stack: Stack, scheme: str, width: int) -> None:
    console = make_console(color_scheme=scheme, viewport={"width": width, "height": 800})
    session = session_name("access")
    _metadata(api, session, {"host": "desk-1"})
    api.put_chunk(session, 1, b"x" * 1000)
    page = console.page()
    page.goto(f"{stack.storage_url}/console")
    page.get_by_label("Token", exact=True).wait_for()
    assert faults_of_access(page) == []
    page = console.open()
    for view, seen in (
        ("sessions", session),
        (f"session/{session}", "missing"),
        ("anchors", "Transaction"),
        ("activity", "Ingest rate"),
        ("health", "Findings of scrubs"),
    ):
        page.goto(f"{stack.storage_url}/console#/{view}")
        page.get_by_text(seen).locator("visible=true").first.wait_for()
        assert faults_of_access(page) == [], view
        # Nothing is wider than the screen but what scrolls by itself.
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    page.goto(f"{stack.storage_url}/console/verify")
    page.get_by_label("RPC endpoint").wait_for()
    assert faults_of_access(page) == []
