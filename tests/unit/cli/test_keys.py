"""keys: new, new-recovery, status, rotate, retire, export, recover."""

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from sessions.cli import secret_files
from sessions.cli.progress import progress
from sessions.client.errors import TargetError
from sessions.core import key_ring
from sessions.processor import recovery
from sessions.processor.recovery import Recipient
from tests.unit.cli.conftest import Run
from tests.unit.client.fake import Fake, problem
from tests.unit.processor.recorded import Recorded, recorded, write_dump

__all__ = ["recorded"]
R1, R2 = "1" * 16, "2" * 16


def test_a_key_on_stdout(bare: Run) -> None:
    line = bare("keys", "new", "--id", "2026-a").out
    name, _, key = line.strip().partition(":")
    assert name == "2026-a"
    assert len(base64.b64decode(key, validate=True)) == 32
    assert bare("keys", "new").out != bare("keys", "new").out
    assert bare("keys", "new", "--id", "a b").code == 2
    told = json.loads(bare("keys", "new", "--id", "2026-b", "--json").out)
    assert (told["kek_id"], told["line"].partition(":")[0]) == ("2026-b", "2026-b")


def test_a_key_in_a_file_that_is_never_overwritten(bare: Run, tmp_path: Path) -> None:
    path = tmp_path / "kek"
    done = bare("keys", "new", "--out", path)
    assert (done.code, done.out) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert before.split(":")[1].strip() not in done.err
    told = bare("keys", "new", "--id", "b", "--out", tmp_path / "other", "--json")
    assert json.loads(told.out) == {"kek_id": "b", "file": str(tmp_path / "other")}
    again = bare("keys", "new", "--out", path)
    assert again.code == 6
    assert "never overwritten" in again.err
    assert path.read_text() == before
    assert bare("keys", "new", "--out", tmp_path / "no" / "folder").code == 1


def test_a_recovery_pair(bare: Run, tmp_path: Path) -> None:
    private, public = tmp_path / "private", tmp_path / "public"
    done = bare("keys", "new-recovery", "--private", private, "--public", public)
    assert (done.code, done.out) == (0, "")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = recovery.RecoveryKey(private.read_text())
    assert key.recipient_id == Recipient(public.read_text()).recipient_id
    assert f"recipient {key.recipient_id}" in done.err
    assert private.read_text().partition(":")[2][:30] not in done.err
    pair = ("--private", tmp_path / "private-2", "--public", tmp_path / "public-2")
    told = json.loads(bare("keys", "new-recovery", *pair, "--json").out)
    assert told["recipient"] == Recipient((tmp_path / "public-2").read_text()).recipient_id
    assert told["private"] == str(tmp_path / "private-2")
    before = private.read_text(), public.read_text()
    for pair in ((private, tmp_path / "new"), (tmp_path / "new", public), (private, public)):
        assert bare("keys", "new-recovery", "--private", pair[0], "--public", pair[1]).code == 6
    assert (private.read_text(), public.read_text()) == before
    assert not (tmp_path / "new").exists()


def test_half_a_recovery_pair_is_not_left_behind(bare: Run, tmp_path: Path) -> None:
    private = tmp_path / "private"
    assert bare("keys", "new-recovery", "--private", private, "--public", tmp_path / "no" / "folder").code == 1
    assert not private.exists()
    assert bare("keys", "new-recovery", "--private", private, "--public", private).code == 6
    assert not private.exists()


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    for mode in (0o600, 0o644, 0o640):
        path.write_text("before")
        path.chmod(mode)
        (tmp_path / "kek.new").write_text("of an attempt that died")
        secret_files.replace(path, "after")
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("after", mode)
    assert [one.name for one in tmp_path.iterdir()] == ["kek"]
    with pytest.raises(TargetError):
        secret_files.replace(tmp_path / "none", "text")


def _status(rings: dict[str, int], *, recipient: str | None = None, sealed: dict[str | None, int] | None = None):
    return JSONResponse(
        {
            "active": "new",
            "keks": [{"kek_id": name, "in_file": name != "lost", "rings": count} for name, count in rings.items()],
            "recipient": recipient,
            "recipients": [{"recipient": name, "rings": count} for name, count in (sealed or {}).items()],
            "unsealed": [f"s{number:02}" for number in range((sealed or {}).get(None, 0))],
            "something_new": 1,
        }
    )


def _step(rewrapped: int, cursor: str | None = None, failed: int = 0, overtaken: int = 0) -> JSONResponse:
    failures = [{"session_id": f"f{n}", "kek_id": "old", "detail": f"session f{n} needs it"} for n in range(failed)]
    return JSONResponse(
        {
            "rings": rewrapped + failed + overtaken,
            "rewrapped": rewrapped,
            "overtaken": overtaken,
            "failed": failures,
            "next_cursor": cursor,
        }
    )


def test_status(run: Run, fake: Fake) -> None:
    answer = {"rings": {"new": 5, "old": 2, "lost": 1}, "recipient": R1, "sealed": {None: 12, R1: 1}}
    fake.fault("GET", "/keys", _status(**answer), _status(**answer), _status({"new": 0}))
    shown = run("keys", "status")
    assert shown.code == 0
    assert max(map(len, shown.out.splitlines())) <= 80
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["new", "active", "5"] in rows
    assert ["old", "in", "KEK_FILE", "2"] in rows
    assert ["lost", "MISSING", "1"] in rows
    assert ["sealed", "to", "nobody", "12", "sessions"] in rows
    assert "without recovery: s00, s01" in shown.out
    assert json.loads(run("keys", "status", "--json").out)["keks"][1] == {
        "kek_id": "old",
        "in_file": True,
        "rings": 2,
    }
    assert "RECOVERY_PUBLIC_KEY_FILE is not set" in run("keys", "status").out


def test_rotate(run: Run, fake: Fake) -> None:
    fake.fault("GET", "/keys", _status({"new": 0, "old": 5}), _status({"new": 5, "old": 0}))
    fake.fault("POST", "/keys/rotate", _step(3, "c1"), problem(503, "storage-unavailable"), _step(2, overtaken=1))
    done = run("keys", "rotate")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["active KEK  new", "rewrapped   5 keys", "overtaken   1 keys"]
    assert [path for _, path in fake.requests].count("/api/v1/keys/rotate") == 3


def test_rotate_says_what_is_left(run: Run, fake: Fake) -> None:
    left = _status({"new": 1, "old": 2}, recipient=R1, sealed={R2: 3})
    fake.fault("GET", "/keys", _status({"old": 3}), left, _status({"old": 3}), left)
    fake.fault("POST", "/keys/rotate", _step(0, failed=3), _step(0, failed=3))
    done = run("keys", "rotate")
    assert done.code == 1
    assert "left under old  2 sessions" in done.out
    assert "left to seal    3 sessions" in done.out
    assert "failed          3 keys" in done.out
    assert done.err.splitlines()[0] == "not rewrapped: session f0 needs it"
    said = run("keys", "rotate", "--json")
    assert said.code == 1
    value = json.loads(said.out)
    assert (value["left"], value["left_unsealed"], value["failed"]) == ({"old": 2}, 3, 3)
    assert value["failures"][0]["session_id"] == "f0"


def _kek_file(path: Path, *names: str) -> str:
    lines = ["# ours\n", *(f"{name}:{base64.b64encode(os.urandom(32)).decode()}\n" for name in names)]
    path.write_text("".join(lines))
    return path.read_text()


def test_retire(run: Run, fake: Fake, tmp_path: Path) -> None:
    path = tmp_path / "kek"
    before = _kek_file(path, "new", "old", "older")
    fake.fault("GET", "/keys", *(_status({"new": 5, "old": 0, "busy": 2}) for _ in range(9)))
    assert "is the active KEK" in run("keys", "retire", "new", "--kek-file", path).err
    busy = run("keys", "retire", "busy", "--kek-file", path)
    assert (busy.code, "the keys of 2 sessions are under busy" in busy.err) == (6, True)
    assert run("keys", "retire", "none", "--kek-file", path).code == 5
    free = run("keys", "retire", "old")
    assert (free.code, free.out) == (0, "no session needs the KEK old\n")
    assert "may now be removed" in free.err
    assert path.read_text() == before
    assert json.loads(run("keys", "retire", "old", "--kek-file", path, "--json").out)["removed"] is True
    assert path.read_text() == "".join(line for line in before.splitlines(True) if not line.startswith("old:"))
    assert "has no line of it" in run("keys", "retire", "old", "--kek-file", path).err
    assert json.loads(run("keys", "retire", "old", "--json").out)["removed"] is False
    assert run("keys", "retire", "old", "--kek-file", tmp_path / "none").code == 1
    for secret in (line.partition(":")[2].strip() for line in before.splitlines()[1:]):
        assert secret not in busy.err + free.err


def test_a_kek_that_is_first_in_the_file_stays(run: Run, fake: Fake, tmp_path: Path) -> None:
    """The file is another one than the processor's."""
    path = tmp_path / "kek"
    before = _kek_file(path, "old", "new")
    fake.fault("GET", "/keys", _status({"new": 5, "old": 0}))
    refused = run("keys", "retire", "old", "--kek-file", path)
    assert (refused.code, "it stays" in refused.err, path.read_text()) == (6, True, before)


def test_services_that_do_not_answer_as_documented(run: Run, fake: Fake) -> None:
    fake.fault("GET", "/keys", JSONResponse({"active": 1}), problem(403, "forbidden"))
    assert run("keys", "status").code == 1
    assert run("keys", "status").code == 4


def test_keys_without_a_service_need_no_token(bare: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LUCID_TOKEN_FILE", str(tmp_path / "none"))
    assert bare("keys", "new").code == 0
    assert bare("keys", "status").code == 1


def test_counting_on_a_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("keys", counted=True) as advance:
        advance(5, 10)
        advance(10, 10)
    assert "10 of 10" in capsys.readouterr().err


def test_export(run: Run, fake: Fake, recorded: Recorded, tmp_path: Path) -> None:
    fake.fault("GET", "/s/keys", *(JSONResponse(key_ring.to_json(recorded.ring)) for _ in range(5)))
    path = tmp_path / "ring"
    assert run("keys", "export", "s", "-o", path).code == 0
    assert key_ring.from_bytes(path.read_bytes()) == recorded.ring
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("keys", "export", "s", "-o", path).code == 6
    assert json.loads(run("keys", "export", "s").out) == key_ring.to_json(recorded.ring)
    told = json.loads(run("keys", "export", "s", "-o", tmp_path / "ring-2", "--json").out)
    assert told == {"session_id": "s", "file": str(tmp_path / "ring-2"), "keys": len(recorded.ring.keys)}
    fake.fault("GET", "/t/keys", JSONResponse(key_ring.to_json(recorded.ring)))
    assert run("keys", "export", "t").code == 1


def _from_envelopes(recorded: Recorded) -> tuple:
    files = ("--envelopes", recorded.envelopes, "--key-ring", recorded.ring_file)
    return ("keys", "recover", recorded.name, "--private-key", recorded.private, *files)


def test_recover_from_envelopes(bare: Run, recorded: Recorded, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bare(*_from_envelopes(recorded), "-o", out)
    assert (done.code, done.out) == (0, "")
    assert out.read_bytes() == b"".join(recorded.chunks)
    assert "verify --recording-envelopes tells" in done.err
    assert bare(*_from_envelopes(recorded), "-o", out).code == 6
    assert bare(*_from_envelopes(recorded)).out.encode() == b"".join(recorded.chunks)


def test_recover_from_a_dump(bare: Run, recorded: Recorded, tmp_path: Path) -> None:
    given = ("keys", "recover", recorded.name, "--private-key", recorded.private, "--dump", recorded.dump)
    done = bare(*given, "-o", tmp_path / "out")
    assert (done.code, "the root is the manifest's" in done.err) == (0, True)
    assert (tmp_path / "out").read_bytes() == b"".join(recorded.chunks)
    said = json.loads(bare(*given, "-o", tmp_path / "again", "--json").out)
    assert (said["chunks"], said["plaintext_bytes"], said["lost"], said["root_checked"]) == (3, 17, [], True)


def test_recover_what_is_left(bare: Run, recorded: Recorded, tmp_path: Path) -> None:
    (recorded.envelopes / "000000000001.lse").unlink()
    whole = bare(*_from_envelopes(recorded), "-o", tmp_path / "out")
    assert (whole.code, "chunk 1 of session s is not there; --partial" in whole.err) == (1, True)
    part = bare(*_from_envelopes(recorded), "-o", tmp_path / "out", "--partial")
    assert (part.code, "lost: chunks 1\n" in part.err) == (0, True)
    assert (tmp_path / "out").read_bytes() == recorded.chunks[0] + recorded.chunks[2]


def test_a_session_that_was_not_sealed(bare: Run, recorded: Recorded, tmp_path: Path) -> None:
    write_dump(recorded, manifest=None)
    given = ("keys", "recover", "s", "--private-key", recorded.private, "--dump", recorded.dump)
    assert "it was not sealed" in bare(*given, "-o", tmp_path / "out").err


def test_recover_needs_all_that_it_needs(bare: Run, recorded: Recorded, tmp_path: Path) -> None:
    key, envelopes = ("--private-key", recorded.private), ("--envelopes", recorded.envelopes)
    ring, dump, out = ("--key-ring", recorded.ring_file), ("--dump", recorded.dump), ("-o", tmp_path / "out")
    usage = [
        (*key, *out),
        (*key, *out, *envelopes),
        (*key, *out, *ring),
        (*key, *out, *dump, *envelopes, *ring),
        (*key, *out, *dump, *ring),
        (*key, *dump, "--json"),
        (*key, *out, "--envelopes", tmp_path / "none", *ring),
    ]
    for arguments in usage:
        assert bare("keys", "recover", "s", *arguments).code == 2, arguments
    assert bare("keys", "recover", "/", *key, *out, *dump).code == 2
    assert bare("keys", "recover", "other", *key, *out, *envelopes, *ring).code == 2
    recorded.ring_file.write_text("{}")
    assert bare("keys", "recover", "s", *key, *out, *envelopes, *ring).code == 2
    assert bare("keys", "recover", "s", "--private-key", tmp_path / "none", *out, *dump).code == 1
    (tmp_path / "no-key").write_text("lucid-recovery-private-v1:AAAA")
    assert bare("keys", "recover", "s", "--private-key", tmp_path / "no-key", *out, *dump).code == 2
    write_dump(recorded, manifest=b"{}")
    assert bare("keys", "recover", "s", *key, *out, *dump).code == 1
    assert not (tmp_path / "out").exists()


def test_recovering_without_the_libraries(recorded: Recorded) -> None:
    code = """
import sys
sys.modules["cryptography"] = None
from sessions.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    for arguments in (
        ("keys", "new-recovery", "--private", "a", "--public", "b"),
        ("keys", "recover", "s", "--private-key", "a", "--dump", "b", "-o", "c"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "lucid-sessions[recovery]" in done.stderr


def test_recovering_loads_nothing_of_a_service(recorded: Recorded, tmp_path: Path) -> None:
    """What the extra installs is enough, with what the command line brings anyway."""
    code = """
import sys
for name in ("fastapi", "starlette", "pydantic_settings", "structlog", "prometheus_client", "uvicorn", "web3"):
    sys.modules[name] = None
from sessions.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    given = ("keys", "recover", "s", "--private-key", recorded.private, "--dump", recorded.dump, "-o", tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == b"".join(recorded.chunks)
