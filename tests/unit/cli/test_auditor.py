"""list, receipt, proof, envelopes, verify."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from sessions.core.receipt import Anchor, AnchorState
from tests.unit.cli.conftest import Run
from tests.unit.client.chain import CONTRACT, PUBLISHER, TwinChain
from tests.unit.client.fake import Fake, FakeSession, serve


@pytest.fixture(autouse=True)
def recorded(fake: Fake) -> None:
    fake.sessions["s"] = FakeSession({index: b"%d" % index * 100 for index in range(5)}, {"who": "me"})
    fake.seal("s")


@pytest.fixture
def anchored(fake: Fake):
    """The session's batch is on a chain."""
    chain = TwinChain()

    async def endpoint(request):
        return await chain(request)

    with serve(endpoint) as url:
        chain.url = url
        fake.anchor = Anchor(state=AnchorState.SUBMITTED)
        batch = fake.receipt("s").batch
        assert batch is not None
        fake.anchor = chain.publish(batch.root)
        yield chain


@pytest.fixture
def receipt(run: Run, tmp_path: Path, anchored) -> Path:
    assert run("receipt", "s", "-o", tmp_path / "receipt.json").code == 0
    return tmp_path / "receipt.json"


def test_list(run: Run, fake: Fake) -> None:
    for number in range(7):
        fake.sessions["x" * 100 + str(number)] = FakeSession()
    shown = run("list")
    assert shown.code == 0
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "SESSION" in shown.out
    assert "2026-01-31 10:00" in shown.out
    assert len(json.loads(run("list", "--limit", 4, "--json").out)["sessions"]) == 4
    sealed = json.loads(run("list", "--status", "sealed", "--json").out)["sessions"]
    assert [one["session_id"] for one in sealed] == ["s"]


def test_receipt(run: Run, fake: Fake, tmp_path: Path) -> None:
    pending = run("receipt", "s")
    assert (pending.code, json.loads(pending.out)["batch"]) == (0, None)
    assert "fetch the receipt again later" in pending.err
    waited = run("receipt", "s", "--wait", "0.05", "-o", tmp_path / "r")
    assert waited.code == 8
    assert "waiting: the anchor is pending" in waited.err
    assert "still pending after 0.05 s" in waited.err
    assert json.loads((tmp_path / "r").read_text())["anchor"]["state"] == "pending"
    assert run("receipt", "s", "--wait", 2.2).err.count("waiting") == 1
    fake.anchor = Anchor(state=AnchorState.CONFIRMED)
    done = run("receipt", "s", "-o", tmp_path / "r", "--json", "--wait", 5)
    assert json.loads(done.out) == {"session_id": "s", "file": str(tmp_path / "r"), "state": "confirmed"}
    fake.sessions["open"] = FakeSession()
    assert run("receipt", "open").code == 6
    assert run("receipt", "nobody").code == 5
    assert run("receipt", "s", "-o", tmp_path / "no" / "folder").code == 1


def test_proof(run: Run, fake: Fake, tmp_path: Path) -> None:
    assert json.loads(run("proof", "s", 3).out)["index"] == 3
    done = run("proof", "s", 3, "-o", tmp_path / "p")
    assert (done.out, done.err) == ("", f"written to {tmp_path / 'p'}\n")
    forged = {**fake.proof("s", 3).to_json(), "root": "00" * 32}
    fake.fault("GET", "/proof", JSONResponse(forged))
    assert run("proof", "s", 3).code == 7
    assert run("proof", "s", -1).code == 2


def test_envelopes(run: Run, tmp_path: Path) -> None:
    done = run("envelopes", "s", tmp_path / "dir")
    assert "5 envelopes" in done.err
    assert len(list((tmp_path / "dir").glob("*.lse"))) == 5
    counted = json.loads(run("envelopes", "s", tmp_path / "dir", "--json").out)
    assert counted["envelopes"] == 5
    assert run("envelopes", "nobody", tmp_path / "other").code == 5


def test_verify_all(run: Run, receipt: Path, anchored: TwinChain, tmp_path: Path) -> None:
    run("envelopes", "s", tmp_path / "dir")
    (tmp_path / "metadata").write_text('{"who": "me"}')
    done = run(
        "verify",
        receipt,
        "--recording-envelopes",
        tmp_path / "dir",
        "--metadata",
        tmp_path / "metadata",
        "--rpc",
        anchored.url,
        "--publisher",
        "0x" + PUBLISHER.hex(),
        "--contract",
        "0x" + CONTRACT.hex(),
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("\nverdict: proven\n")
    assert "[ ]" not in done.out
    assert "[x]" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_verify_in_part(run: Run, receipt: Path) -> None:
    done = run("verify", receipt)
    assert done.code == 0
    assert "[ ] not checked: that the batch root is on the chain (no --rpc)" in done.out
    assert done.out.endswith("\nverdict: proven in part\n")
    assert run("verify", receipt, "--require-anchor").code == 8
    assert json.loads(run("verify", receipt, "--json").out)["verdict"] == "proven in part"
    assert run("verify", "-", stdin=receipt.read_bytes()).code == 0


def test_verify_of_what_is_not_anchored_yet(run: Run, fake: Fake, tmp_path: Path) -> None:
    fake.anchor = Anchor()
    run("receipt", "s", "-o", tmp_path / "r")
    assert run("verify", tmp_path / "r").code == 0
    assert run("verify", tmp_path / "r", "--rpc", "http://127.0.0.1:9").code == 8


def test_verify_by_a_node_that_forgot_the_transaction(run: Run, receipt: Path, anchored: TwinChain) -> None:
    anchored.override = dict.fromkeys(("eth_getTransactionByHash", "eth_getTransactionReceipt"))
    done = run("verify", receipt, "--rpc", anchored.url)
    assert done.code == 8
    assert "verdict: proven in part" in done.out
    assert "name another node" in " ".join(done.out.split())


def test_verify_fails(run: Run, receipt: Path, anchored: TwinChain, tmp_path: Path) -> None:
    run("envelopes", "s", tmp_path / "dir")
    (tmp_path / "dir" / "000000000003.lse").unlink()
    done = run("verify", receipt, "--recording-envelopes", tmp_path / "dir")
    assert done.code == 7
    assert "chunk 3 is missing" in " ".join(done.out.split())
    (tmp_path / "empty").mkdir()
    assert "chunk 0 is missing" in " ".join(
        run("verify", receipt, "--recording-envelopes", tmp_path / "empty").out.split()
    )
    assert run("verify", receipt, "--publisher", "0x" + "99" * 20).code == 7
    anchored.anchored.clear()
    assert run("verify", receipt, "--rpc", anchored.url).code == 7
    receipt.write_text(receipt.read_text().replace('"chunk_count": 5', '"chunk_count": 6'))
    assert run("verify", receipt).code == 7
    receipt.write_text("{ garbled")
    failed = run("verify", receipt, "--json")
    assert failed.code == 7
    assert json.loads(failed.out)["session_id"] is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--rpc", "http://127.0.0.1:1"), 3),
        (("--rpc", "nonsense"), 1),
        (("--publisher", "0x12"), 2),
        (("--contract", "zz"), 2),
        (("--recording-envelopes", "/none"), 1),
        (("--metadata", "/none"), 1),
    ],
)
def test_verify_that_cannot_be_done(run: Run, receipt: Path, arguments, code) -> None:
    done = run("verify", receipt, *arguments)
    assert done.code == code
    assert done.err.startswith("error: ")


def test_receipts_that_are_not_there_or_endless(run: Run, tmp_path: Path) -> None:
    assert run("verify", tmp_path / "none").code == 1
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    assert "larger than any receipt" in run("verify", tmp_path / "huge").err


def test_verify_loads_nothing_of_the_services(receipt: Path) -> None:
    code = f"""
import sys
from sessions.cli.main import main
assert main(["verify", {str(receipt)!r}, "--rpc", "http://127.0.0.1:1"]) == 3
loaded = [name for name in sys.modules if name.startswith(("sessions.processor", "sessions.storage", "sessions.runtime"))]
client = [name for name in sys.modules if name.startswith("sessions.client.")]
assert not loaded, loaded
assert not {{"sessions.client.aio", "sessions.client.sync", "sessions.client.transport"}} & set(client), client
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
