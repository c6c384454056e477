"""The page's verifier against the golden vectors, and against ours in Python: what one takes, the other takes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from scripts.devstack.process import ROOT
from sessions.core import anchor_contract, proof, receipt
from sessions.core.errors import CoreError
from sessions.storage.console.site import PATH, Site
from tests.contract.test_verify_chain import make_receipt
from tests.unit.client.chain import TwinChain, hexed
from tests.unit.core.tamper import bit_flips

pytestmark = pytest.mark.chromium

ORIGIN = "http://localhost"
STEP = 5
"""Of so many bits one is turned: each of a byte's eight in turn, since it does not divide by 2."""
MODULES = (
    "const [strict, merkle, receipt, envelope, chain] = await Promise.all(['strict', 'merkle', 'receipt', 'envelope',"
    " 'chain'].map((name) => import(`/console/${name}.js`)));"
)


def vectors(name: str) -> Any:
    return json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """The verifier's page as the service serves it, without a service."""
    site = Site(None)
    one = browser.new_page()

    def answer(route: Route) -> None:
        found = site.answer(route.request.url.removeprefix(ORIGIN + PATH).strip("/"), None)
        route.fulfill(status=200, headers=dict(found.headers), body=bytes(found.body))

    one.route(f"{ORIGIN}/**", answer)
    one.goto(f"{ORIGIN}{PATH}/verify")
    yield one
    one.close()


def run(page: Page, body: str, argument: Any = None) -> Any:
    """What a function of the modules gives; `given` is the argument."""
    return page.evaluate(f"async (given) => {{ {MODULES} {body} }}", argument)


def test_trees_of_rfc_9162(page: Page) -> None:
    trees = vectors("rfc9162_trees")
    found = run(
        page,
        """
        const leaves = await Promise.all(given.leaves.map((leaf) => merkle.leafHash(strict.fromHex(leaf))));
        const roots = [];
        for (let size = 0; size <= leaves.length; size += 1) {
          const tree = new merkle.Frontier();
          for (const leaf of leaves.slice(0, size)) await tree.append(leaf);
          roots.push(strict.toHex(await tree.root()));
        }
        const led = await Promise.all(given.inclusion.map(async ({ index, size, path }) =>
          strict.toHex(await merkle.rootFromPath(leaves[index], index, size, path.map(strict.fromHex)))));
        return { leaves: leaves.map(strict.toHex), roots, led };
        """,
        trees,
    )
    assert found["leaves"] == trees["leaf_hashes"]
    assert found["roots"] == trees["roots"]
    assert found["led"] == [trees["roots"][vector["size"]] for vector in trees["inclusion"]]


def test_leaves_of_envelopes_gaps_and_manifests(page: Page) -> None:
    given = {name: vectors(name) for name in ("envelopes", "missing_leaves", "manifests")}
    found = run(
        page,
        """
        const { toHex, fromHex } = strict;
        const envelopes = await Promise.all(given.envelopes.map(async (vector) => {
          const bytes = fromHex(vector.envelope);
          const header = envelope.readEnvelope(bytes);
          return [header.sessionId, header.index, header.plaintextBytes,
            toHex(await receipt.chunkLeaf(header.sessionId, header.index, bytes.length, await merkle.sha256(bytes)))];
        }));
        const missing = await Promise.all(given.missing_leaves.map(async (vector) =>
          toHex(await receipt.missingLeaf(vector.session_id, vector.index))));
        const manifests = await Promise.all(given.manifests.map(async (vector) => {
          const bytes = receipt.canonical(vector.manifest);
          return [new TextDecoder().decode(bytes), toHex(await merkle.sha256(bytes)), toHex(await receipt.sessionLeaf({ bytes }))];
        }));
        return { envelopes, missing, manifests };
        """,
        given,
    )
    assert found["envelopes"] == [
        [vector["session_id"], vector["index"], vector["plaintext_bytes"], vector["leaf_hash"]]
        for vector in given["envelopes"]
    ]
    assert found["missing"] == [vector["leaf_hash"] for vector in given["missing_leaves"]]
    assert found["manifests"] == [
        [vector["canonical"], vector["sha256"], vector["batch_leaf_hash"]] for vector in given["manifests"]
    ]


READ_ALL = """
const works = async (act) => {
  try { await act(); return 1; } catch (error) {
    if (error instanceof strict.FormatError || error instanceof merkle.VerificationError) return 0;
    throw error;
  }
};
const checked = async (bytes) => {
  const read = receipt.readReceipt(bytes);
  if (read.batch === null) throw new merkle.VerificationError("in no batch");
  await merkle.verifyInclusion(await receipt.sessionLeaf(read.manifest), read.batch.index, read.batch.size, read.batch.path, read.batch.root);
};
const proven = async (bytes) => {
  const read = receipt.readProof(bytes);
  await receipt.verifyProof(read, { sessionId: read.sessionId, chunkCount: read.treeSize, root: read.root });
};
const act = given.kind === "receipt" ? checked : proven;
"""


def _takes_receipt(data: bytes) -> int:
    try:
        receipt.verify_batch(receipt.from_bytes(data))
    except CoreError:
        return 0
    return 1


def _takes_proof(data: bytes) -> int:
    try:
        proof.from_bytes(data).verify()
    except CoreError:
        return 0
    return 1


@pytest.mark.parametrize(
    ("kind", "takes", "name"), [("receipt", _takes_receipt, "receipts"), ("proof", _takes_proof, "chunk_proofs")]
)
def test_of_bits_that_are_turned_the_page_says_what_we_say(page: Page, kind: str, takes: Any, name: str) -> None:
    for vector in vectors(name):
        text = json.dumps(vector)
        assert run(
            page,
            READ_ALL + "return works(() => act(new TextEncoder().encode(given.text)));",
            {"kind": kind, "text": text},
        ) == takes(text.encode())
    data = json.dumps(vectors(name)[2]).encode()
    found = run(
        page,
        READ_ALL
        + """
        const bytes = new TextEncoder().encode(given.text);
        const told = [];
        for (let at = 0; at < 8 * bytes.length; at += given.step) {
          const copy = bytes.slice();
          copy[Math.floor(at / 8)] ^= 1 << at % 8;
          told.push(await works(() => act(copy)));
        }
        return told.join("");
        """,
        {"kind": kind, "text": data.decode(), "step": STEP},
    )
    assert found == "".join(str(takes(flipped)) for flipped in islice(bit_flips(data), 0, None, STEP))


SPELLINGS = [
    ('"version": 1', '"version": 1.0'),
    ('"version": 1', '"version": true'),
    ('"version": 1', '"version": 1e0'),
    ('"version": 1', '"version": 01'),
    ('"version": 1', '"version": 1, "version": 1'),
    ('"version": 1', '"version": 1, "__proto__": 1'),
    ('"version": 1', '"ver\\u0073ion": 1'),
    ('"version": 1', "'version': 1"),
    ('"chunk_count": 2', '"chunk_count": -0'),
    ('"chunk_count": 2', '"chunk_count": 9007199254740993'),
    ('"plaintext_bytes": 112', '"plaintext_bytes": NaN'),
    ('"missing": []', '"missing": [[0, 0], [1, 1]]'),
    ('"missing": []', '"missing": [[0]]'),
    ('"session_id": "demo"', '"session_id": "<b>"'),
    ('"session_id": "demo"', '"session_id": "\\ud800"'),
    ('"session_id": "demo"', '"session_id": "d\\u0065mo"'),
    ("2026-01-31T22:15", "2026-02-29T22:15"),
    ("2026-01-31T22:15", "2024-02-29T22:15"),
    ("2026-01-31T22:15", "0000-02-29T22:15"),
    ("2026-01-31T22:15", "1900-02-29T22:15"),
    ("2026-01-31T22:15", "2026-01-31T24:15"),
    ('"state": "confirmed"', '"state": null'),
    ('"chain_id": 31337', '"chain_id": null'),
    ("0x5f5f", "5f5f"),
    ("0x5f5f", "0x5F5f"),
]


def test_other_spellings_are_taken_and_refused_alike(page: Page) -> None:
    text = json.dumps(vectors("receipts")[0])
    spelled = [text, "\ufeff" + text, text + " ", text + "x", "[" * 200, '{"a": ' * 200, "null", "", "[]"]
    for old, new in SPELLINGS:
        assert old in text
        spelled.append(text.replace(old, new, 1))
    told = run(
        page,
        READ_ALL + "return Promise.all(given.texts.map((text) => works(() => act(new TextEncoder().encode(text)))));",
        {"kind": "receipt", "texts": spelled},
    )
    assert told == [_takes_receipt(text.encode()) for text in spelled]
    assert told[:3] == [1, 0, 1]


def test_what_is_known_of_the_contract_is_what_we_know(page: Page) -> None:
    assert run(page, "return [chain.ANCHOR, chain.ANCHORED_AT, chain.CODE_SHA256];") == [
        anchor_contract.ANCHOR_SELECTOR.hex(),
        anchor_contract.ANCHORED_AT_SELECTOR.hex(),
        anchor_contract.RUNTIME_CODE_SHA256.hex(),
    ]


def test_without_webcrypto_the_page_says_so(browser: Browser) -> None:
    site = Site(None)
    with browser.new_context() as context:
        page = context.new_page()
        plain = "http://storage.example"  # not this machine, and not https

        def answer(route: Route) -> None:
            found = site.answer(route.request.url.removeprefix(plain + PATH).strip("/"), None)
            route.fulfill(status=200, headers=dict(found.headers), body=bytes(found.body))

        page.route(f"{plain}/**", answer)
        page.goto(f"{plain}{PATH}/verify")
        assert "browsers offer WebCrypto only to pages over https" in page.get_by_role("alert").inner_text()


def test_markup_is_refused_by_the_policy_itself(page: Page) -> None:
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return null } catch (error) { return error.name } }"
    )
    assert refused == "TypeError"


PRUNED = {"code": 4444, "message": "pruned history unavailable"}


@pytest.mark.parametrize("gone", [{"result": None}, {"error": PRUNED}], ids=["null", "pruned"])
@pytest.mark.parametrize(
    "methods",
    [
        (),
        ("eth_getTransactionByHash",),
        ("eth_getTransactionReceipt",),
        ("eth_getTransactionByHash", "eth_getTransactionReceipt", "eth_getBlockByNumber"),
    ],
)
def test_what_a_node_no_longer_knows_contradicts_nothing(page: Page, gone: Any, methods: tuple[str, ...]) -> None:
    """B46: a node that prunes history made a true receipt fail; `sessions.client.verifying` says the same."""
    plain, twin = make_receipt("pruned"), TwinChain()
    anchor = twin.publish(plain.batch.root)
    hashed = hexed(anchor.transaction)
    answers = {
        "eth_chainId": twin.eth_chainId(),
        "eth_getCode": twin.eth_getCode(hexed(anchor.contract), ""),
        "eth_call": hexed(twin.time_of(anchor.block_number).to_bytes(32, "big")),
        "eth_getTransactionByHash": twin.eth_getTransactionByHash(hashed),
        "eth_getTransactionReceipt": twin.eth_getTransactionReceipt(hashed),
        "eth_getBlockByNumber": twin.eth_getBlockByNumber("latest", False),
    }
    said = {method: {"result": answer} for method, answer in answers.items()} | dict.fromkeys(methods, gone)
    for change, verdict in (({}, "proven in part" if methods else "proven"), ({"block_hash": b"\7" * 32}, "failed")):
        if change and "eth_getBlockByNumber" in methods:
            continue  # nothing says otherwise
        stated = replace(plain, anchor=replace(anchor, **change))
        found = run(
            page,
            """
            const { verify } = await import('/console/verifier.js');
            const before = window.fetch;
            window.fetch = async (url, { body }) => {
              const { id, method } = JSON.parse(body);
              return new Response(JSON.stringify({ jsonrpc: '2.0', id, ...given.said[method] }));
            };
            const steps = [];
            try {
              const receipt = new TextEncoder().encode(given.receipt);
              const asked = { receipt, proofs: [], envelopes: [], nodeUrl: 'http://node.test', publisher: '' };
              const verdict = await verify(asked, (outcome, text) => steps.push(`${outcome}: ${text}`), () => {});
              return { verdict, steps };
            } finally {
              window.fetch = before;
            }
            """,
            {"said": said, "receipt": json.dumps(stated.to_json())},
        )
        assert found["verdict"] == verdict, found["steps"]
        if verdict == "proven in part":
            assert any(
                "not-checked: the transaction was not checked there: name another" in one for one in found["steps"]
            )
