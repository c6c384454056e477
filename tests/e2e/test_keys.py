"""The life of keys on a real stack: added, rotated while recorders write and the processor dies, retired, recovered."""

import base64
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import bson
import httpx
import pytest
from bson import json_util
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from scripts.devstack import leaks
from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from sessions.client import Client, RetryPolicy
from sessions.core.types import SessionId
from sessions.processor.key_files import load_keks
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.recovery import RecoveryKey
from sessions.runtime.times import now
from sessions.storage.key_documents import key_document, key_of
from tests.conftest import Figure
from tests.e2e.conftest import Api, session_name
from tests.e2e.test_cli import CLI, FAILED, NOT_AUTHORISED, NOT_FOUND, OK, REFUSED, USAGE, VERIFICATION, Shell, narrow

MANY = 10_000
RECORDERS = 8
MIB = 1024 * 1024


@dataclass
class Rig:
    """A stack of our own, whose keys we change."""

    stack: Stack
    api: Api
    shell: Shell
    folder: Path
    private: Path
    kept: dict[str, list[bytes]] = field(default_factory=dict)
    """All that was recorded, by session."""

    @property
    def kek_file(self) -> Path:
        return Path(self.stack.env["processor"]["KEK_FILE"])

    def add_kek(self, name: str) -> str:
        """Put a new KEK first, in a new file, and restart the processor with it; gives the one that was active."""
        before = self.kek_file.read_text()
        path = self.folder / f"kek-{name}"
        self.shell("keys", "new", "--id", name, "--out", path, urls=False)
        leaks.register("KEK", base64.b64decode(path.read_text().partition(":")[2]))
        path.write_text(path.read_text() + before)
        self.stack.restart("processor", {"KEK_FILE": str(path)})
        return before.partition(":")[0]

    def record(self, prefix: str, chunks: list[bytes], *, seal: bool = True) -> str:
        name = session_name(prefix)
        self.api.record(name, chunks, seal=seal)
        self.kept[name] = chunks
        return name

    def check_readable(self, names: list[str]) -> None:
        for name in names:
            answer = self.api.processor("GET", f"/api/v1/sessions/{name}/content", "replay")
            assert answer.status_code == 200, answer.text
            assert answer.content == b"".join(self.kept[name]), name

    def status(self) -> dict:
        return json.loads(self.shell("keys", "status", "--json", role="admin").stdout)

    def rings(self) -> dict[str, int]:
        return {entry["kek_id"]: entry["rings"] for entry in self.status()["keks"]}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("keys")
    one = Stack(folder / "stack", settings={"storage": {"ANCHORING": "off"}})
    one.start()
    api, shell = Api(one), Shell(one)
    private, public = folder / "offline" / "recovery", folder / "recovery.pub"
    private.parent.mkdir()
    shell("keys", "new-recovery", "--private", private, "--public", public, urls=False)
    leaks.register("recovery private key", base64.b64decode(private.read_text().partition(":")[2]))
    one.restart("processor", {"RECOVERY_PUBLIC_KEY_FILE": str(public)})
    try:
        yield Rig(one, api, shell, folder, private)
    finally:
        api.close()
        one.stop()
        shutil.rmtree(one.folder / "mongo", ignore_errors=True)


@contextmanager
def recorders(rig: Rig) -> Iterator[Callable[[], int]]:
    """Eight that record all the while, each a session after the other; gives a function that counts their chunks."""
    done = threading.Event()
    counts = [0] * RECORDERS

    def run(number: int) -> None:
        policy = RetryPolicy(budget_seconds=60, wait_initial_seconds=0.05, wait_max_seconds=0.5)
        token = rig.stack.tokens["record"]
        with Client(rig.stack.processor_url, token=token, retry=policy) as client:
            while not done.is_set():
                name = session_name(f"live-{number}")
                rig.kept[name] = []
                for index in range(25):
                    if done.is_set():
                        break
                    data = os.urandom(200) + bytes(300)
                    client.put_chunk(name, index, data)
                    rig.kept[name].append(data)
                    counts[number] += 1
                    time.sleep(0.02)
                if rig.kept[name]:
                    client.seal(name, len(rig.kept[name]))
                else:
                    del rig.kept[name]

    with ThreadPoolExecutor(RECORDERS) as pool:
        running = [pool.submit(run, number) for number in range(RECORDERS)]
        try:
            yield lambda: sum(counts)
        finally:
            done.set()
        for one in running:
            one.result()


def test_the_life_of_a_kek(rig: Rig) -> None:
    names = [rig.record("life", [os.urandom(100) + bytes([n]), b"second"], seal=n % 2 == 0) for n in range(16)]
    old = rig.add_kek("second")
    assert rig.rings() == {"second": 0, old: 16}
    rig.check_readable(names)
    assert "16 sessions are under" in rig.shell("keys", "retire", old, role="admin", expect=REFUSED).stderr

    def step(cursor: str | None) -> dict:
        body = {"cursor": cursor, "limit": 3}
        answer = rig.api.processor("POST", "/api/v1/keys/rotate", "admin", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    with recorders(rig) as recorded:
        cursor, rewrapped = None, 0
        for _ in range(3):
            done = step(cursor)
            cursor, rewrapped = done["next_cursor"], rewrapped + done["rewrapped"]
            rig.check_readable(names)
        assert rewrapped == 9
        assert rig.rings()[old] == 7

        # It dies within a step, wherever that is; what was replaced is replaced, and what was not is as it was.
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(lambda: step(None))
            rig.stack.kill("processor", signal.SIGKILL)
            assert under_way.exception() is None or isinstance(under_way.exception(), httpx.HTTPError)
        rig.stack.resume("processor")
        assert 0 < rig.rings()[old] <= 7
        rig.check_readable(names)

        count = recorded()
        said = json.loads(rig.shell("keys", "rotate", "--json", role="admin").stdout)
        assert (said["left"], said["failed"], said["left_unsealed"]) == ({}, 0, 0)
        assert 0 < said["rewrapped"] <= 7
        rig.check_readable(names)
        assert wait_until(lambda: recorded() > count + 50, 30), "recorders stand still"

    assert rig.rings()[old] == 0
    again = rig.shell("keys", "rotate", role="admin").stdout
    narrow(again)
    assert "rewrapped   0 keys" in again
    assert rig.shell("keys", "retire", "second", role="admin", expect=REFUSED).stderr.startswith("error: second is the")
    rig.shell("keys", "retire", "never", role="admin", expect=NOT_FOUND)
    before = rig.kek_file.read_text()
    assert "may now be removed" in rig.shell("keys", "retire", old, role="admin").stderr
    assert rig.kek_file.read_text() == before
    rig.shell("keys", "retire", old, "--kek-file", rig.kek_file, role="admin")
    assert rig.kek_file.read_text() == before.splitlines(keepends=True)[0]

    rig.stack.restart("processor")
    assert list(rig.rings()) == ["second"]
    narrow(rig.shell("keys", "status", role="admin").stdout)
    rig.check_readable(list(rig.kept))


def test_who_may_not(rig: Rig) -> None:
    for command in (("status",), ("rotate",), ("retire", "x")):
        for role in ("audit", "nobody"):
            rig.shell("keys", *command, role=role, expect=NOT_AUTHORISED)


def _insert(rig: Rig, wrapper: FileKeyWrapper, count: int) -> dict[str, Dek]:
    """Open sessions with a key each, in the documents that storage would write."""
    deks = {session_name("many"): Dek.generate() for _ in range(count)}
    common = {"status": "open", "opened_at": now(), "metadata": b"{}"}
    with MongoClient(rig.stack.mongodb_url) as client:
        client[rig.stack.env["storage"]["MONGODB_DATABASE"]]["sessions"].insert_many(
            {"_id": name, **common, "keys": [key_document(wrapper.wrap(SessionId(name), dek))]}
            for name, dek in deks.items()
        )
    return deks


def _all_rings(rig: Rig) -> Iterator[tuple[str, list]]:
    with MongoClient(rig.stack.mongodb_url) as client:
        for one in client[rig.stack.env["storage"]["MONGODB_DATABASE"]]["sessions"].find({}, {"keys": 1}):
            yield one["_id"], [key_of(key) for key in one["keys"]]


def test_ten_thousand_sessions_while_recorders_write_and_the_processor_dies(rig: Rig, figure: Figure) -> None:
    deks = _insert(rig, load_keks(rig.kek_file), MANY)
    old = rig.add_kek("third")
    counts = "/api/v1/keys"

    def left() -> int:
        keks = rig.api.storage("GET", counts, "processor").json()["keks"]
        return next((entry["rings"] for entry in keks if entry["kek_id"] == old), 0)

    total = left()
    assert total >= MANY
    with recorders(rig) as recorded:
        environment = {
            **os.environ,
            "LUCID_PROCESSOR_URL": rig.stack.processor_url,
            "LUCID_STORAGE_URL": rig.stack.storage_url,
            "LUCID_TOKEN": rig.stack.tokens["admin"],
        }
        began = time.monotonic()
        with subprocess.Popen(
            [CLI, "keys", "rotate", "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as rotating:
            assert wait_until(lambda: left() <= total * 0.6, 60)
            rig.stack.kill("processor", signal.SIGKILL)
            half, first_seconds = left(), time.monotonic() - began
            assert 0 < half < total
            rig.stack.resume("processor")
            went_on = time.monotonic()
            out, err = rotating.communicate(timeout=120)
            second_seconds = time.monotonic() - went_on
        assert rotating.returncode == OK, err
        figure(f"rotated {total - half} in {first_seconds:.1f} s, killed, {half} more in {second_seconds:.1f} s")
        figure(f"{half / second_seconds:.0f} rings a second, while {recorded()} chunks were recorded")
        assert wait_until(lambda: recorded() > 50, 30)
    said = json.loads(out)
    assert (said["left"], said["failed"]) == ({}, 0)
    assert left() == 0

    rig.shell("keys", "retire", old, "--kek-file", rig.kek_file, role="admin")
    alone, private = load_keks(rig.kek_file), RecoveryKey(rig.private.read_text())
    assert alone.kek_ids == ("third",)
    seen = 0
    sample = set(random.Random(1).sample(sorted(deks), 200))
    for name, keys in _all_rings(rig):
        for key in keys:
            dek = alone.unwrap(SessionId(name), key)
            seen += 1
            assert name not in deks or dek == deks[name]
            if name in sample:
                assert private.open(SessionId(name), key) == dek
    assert seen >= MANY
    rig.stack.restart("processor")
    names = list(rig.kept)
    rig.check_readable(random.Random(2).sample(names, min(60, len(names))))
    assert rig.status()["unsealed"] == []


def test_a_kek_that_is_another_one_is_told_from_a_corrupt_ring(rig: Rig) -> None:
    name = rig.record("wrong", [b"content"])
    right = rig.kek_file.read_text()
    wrong = rig.folder / "kek-wrong"
    wrong.write_text(f"{right.partition(':')[0]}:{base64.b64encode(os.urandom(32)).decode()}\n")
    rig.stack.restart("processor", {"KEK_FILE": str(wrong)})
    try:
        content = rig.api.processor("GET", f"/api/v1/sessions/{name}/content", "replay")
        chunk = rig.api.processor("GET", f"/api/v1/sessions/{name}/chunks/0", "replay")
    finally:
        (rig.folder / "kek-right").write_text(right)
        rig.stack.restart("processor", {"KEK_FILE": str(rig.folder / "kek-right")})
    for answer in (content, chunk):
        assert (answer.status_code, answer.json()["code"]) == (503, "key-unavailable")
        assert answer.json()["reason"] == "kek-differs"
    rig.check_readable([name])


def test_the_key_cache_forgets(rig: Rig) -> None:
    """A session shredded behind the processor's back is not readable from memory for longer than DEK_CACHE_SECONDS."""
    rig.stack.restart("processor", {"DEK_CACHE_SECONDS": "1"})
    name = rig.record("forgotten", [b"content"])
    rig.check_readable([name])
    del rig.kept[name]
    assert rig.api.storage("DELETE", f"/api/v1/sessions/{name}", "admin").status_code == 200
    answer = rig.api.processor("GET", f"/api/v1/sessions/{name}/chunks/0", "replay")
    assert answer.json()["code"] == "session-shredded"
    rig.stack.restart("processor", {"DEK_CACHE_SECONDS": "900"})
    rig.shell("keys", "export", name, role="admin", expect=REFUSED)


# Recovery, from an export of the collections, with nothing running.


@dataclass
class Offline:
    """What somebody has who has no service: the recovery key, exports, and what should come out."""

    rig: Rig
    exports: dict[str, Path]
    sessions: dict[str, list[bytes]]
    envelopes: Path
    ring: Path


def _export(rig: Rig, folder: Path) -> dict[str, Path]:
    """What mongodump and mongoexport write."""
    made = {kind: folder / kind for kind in ("bson", "bson-gzip", "relaxed", "canonical", "array-gzip")}
    for path in made.values():
        (path / "lucid_sessions").mkdir(parents=True)
    with MongoClient(rig.stack.mongodb_url, document_class=RawBSONDocument) as client:
        db = client[rig.stack.env["storage"]["MONGODB_DATABASE"]]
        for name in db.list_collection_names():
            raw = [one.raw for one in db[name].find()]
            if name == "bodies":
                random.Random(3).shuffle(raw)
            documents = [bson.decode(one) for one in raw]
            (made["bson"] / "lucid_sessions" / f"{name}.bson").write_bytes(b"".join(raw))
            (made["bson"] / "lucid_sessions" / f"{name}.metadata.json").write_text("{}")
            zipped = gzip.compress(b"".join(raw), 1)
            (made["bson-gzip"] / "lucid_sessions" / f"{name}.bson.gz").write_bytes(zipped)
            for kind, options in (
                ("relaxed", json_util.RELAXED_JSON_OPTIONS),
                ("canonical", json_util.CANONICAL_JSON_OPTIONS),
            ):
                lines = [json_util.dumps(one, json_options=options, separators=(",", ":")) for one in documents]
                (made[kind] / f"{name}.json").write_text("".join(f"{line}\n" for line in lines))
            array = gzip.compress(("[" + ",\n".join(lines) + "]\n").encode(), 1)
            (made["array-gzip"] / f"{name}.json.gz").write_bytes(array)
    return made


@pytest.fixture(scope="module")
def offline(rig: Rig) -> Offline:
    contents = {
        "mixed": [b"", b"x", b"lucid " * 10_000, os.urandom(3 * MIB), b"end"],
        "large": [os.urandom(16 * MIB), b"behind"],
        "open": [os.urandom(1000)] * 3,
        "empty": [],
    }
    sessions = {}
    for kind, chunks in contents.items():
        name = session_name(f"recover-{kind}")
        if not chunks:
            assert rig.api.processor("PUT", f"/api/v1/sessions/{name}", json={}).status_code == 201
        rig.api.record(name, chunks, seal=kind != "open")
        sessions[name] = chunks
    folder = rig.folder / "offline"
    with MongoClient(rig.stack.mongodb_url) as client:  # of ten thousand others, only some
        db = client[rig.stack.env["storage"]["MONGODB_DATABASE"]]
        db["sessions"].delete_many({"_id": {"$regex": "^many-"}})
    ring, envelopes = folder / "key-ring.json", folder / "envelopes"
    mixed = next(iter(sessions))
    rig.shell("envelopes", mixed, envelopes, role="audit")
    rig.shell("keys", "export", mixed, "-o", ring, role="admin")
    assert ring.stat().st_mode & 0o077 == 0
    assert json.loads(rig.shell("keys", "export", mixed, role="admin").stdout) == json.loads(ring.read_text())
    rig.shell("keys", "export", mixed, role="audit", expect=NOT_AUTHORISED)
    exports = _export(rig, folder)
    for part in ("processor", "storage", "mongod", "anvil"):
        rig.stack.kill(part, signal.SIGTERM)
    assert not any(rig.stack.alive().values())
    return Offline(rig, exports, sessions, envelopes, ring)


def _name(offline: Offline, kind: str) -> str:
    return next(name for name in offline.sessions if kind in name)


@pytest.mark.parametrize("kind", ["bson", "bson-gzip", "relaxed", "canonical", "array-gzip"])
def test_recovery_from_an_export_alone(offline: Offline, tmp_path: Path, kind: str) -> None:
    shell, private = offline.rig.shell, offline.rig.private
    for name, chunks in offline.sessions.items():
        out = tmp_path / name
        arguments = ("keys", "recover", name, "--private-key", private, "--dump", offline.exports[kind])
        said = json.loads(shell(*arguments, "-o", out, "--json", urls=False).stdout)
        assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(b"".join(chunks)).digest()
        sealed = "open" not in name
        assert (said["chunks"], said["lost"], said["root_checked"]) == (len(chunks), [], sealed)
        shell(*arguments, "-o", out, urls=False, expect=REFUSED)
        assert out.read_bytes() == b"".join(chunks)


def test_recovery_from_envelopes_and_a_key_ring_alone(offline: Offline, tmp_path: Path) -> None:
    name = _name(offline, "mixed")
    shell = offline.rig.shell
    given = ("keys", "recover", name, "--private-key", offline.rig.private, "--key-ring", offline.ring)
    done = shell(*given, "--envelopes", offline.envelopes, "-o", tmp_path / "out", urls=False)
    narrow(done.stderr)
    assert (tmp_path / "out").read_bytes() == b"".join(offline.sessions[name])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LUCID_T")}
    piped = subprocess.run(
        [CLI, *map(str, given), "--envelopes", str(offline.envelopes)],
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert piped.stdout == b"".join(offline.sessions[name])


def test_what_cannot_be_recovered_is_said(offline: Offline, tmp_path: Path) -> None:
    shell, private = offline.rig.shell, offline.rig.private
    name, chunks = _name(offline, "mixed"), offline.sessions[_name(offline, "mixed")]
    other_private = tmp_path / "other"
    shell("keys", "new-recovery", "--private", other_private, "--public", tmp_path / "pub", urls=False)
    given = ("keys", "recover", name, "--key-ring", offline.ring, "-o", tmp_path / "out", "--private-key")
    differs = shell(*given, other_private, "--envelopes", offline.envelopes, urls=False, expect=FAILED)
    assert "is sealed to the recipient" in differs.stderr
    shell(*given, tmp_path / "pub", "--envelopes", offline.envelopes, urls=False, expect=USAGE)
    assert not (tmp_path / "out").exists()

    damaged = tmp_path / "envelopes"
    shutil.copytree(offline.envelopes, damaged)
    data = bytearray((damaged / "000000000002.lse").read_bytes())
    data[-1] ^= 1
    (damaged / "000000000002.lse").write_bytes(data)
    shell(*given, private, "--envelopes", damaged, urls=False, expect=VERIFICATION)
    (damaged / "000000000001.lse").unlink()
    shell(*given, private, "--envelopes", damaged, urls=False, expect=FAILED)
    assert not (tmp_path / "out").exists()
    said = shell(*given, private, "--envelopes", damaged, "--partial", "--json", urls=False)
    assert json.loads(said.stdout)["lost"] == [[1, 2]]
    assert (tmp_path / "out").read_bytes() == chunks[0] + b"".join(chunks[3:])

    dump = ("keys", "recover", session_name("none"), "--private-key", private, "--dump")
    assert "has no session" in shell(*dump, offline.exports["bson"], "-o", "x", urls=False, expect=FAILED).stderr
    assert "has no sessions.bson" in shell(*dump, tmp_path, "-o", "x", urls=False, expect=FAILED).stderr
