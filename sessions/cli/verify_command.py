"""verify: what a third party runs. It asks no service and loads none of their code, nor the client of them."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from sessions.cli import output
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.settings import Json
from sessions.core.anchor_contract import ADDRESS_BYTES

_MAX_RECEIPT_BYTES: Final = 16 * 1024 * 1024
_MARKS: Final = {"proven": "[+]", "note": "[i]", "not-checked": "[ ]", "failed": "[x]"}


def verify(
    *,
    receipt: Annotated[
        str, typer.Argument(metavar="RECEIPT", help="The receipt file; - for stdin.", show_default=False)
    ],
    recording_envelopes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The session's envelopes, to check them too.")
    ] = None,
    metadata: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The recorder's metadata, a JSON object.")
    ] = None,
    rpc: Annotated[
        str | None, typer.Option(metavar="URL", help="A node of the chain that you trust. Implies --require-anchor.")
    ] = None,
    publisher: Annotated[str | None, typer.Option(metavar="0x..", help="The operator's address.")] = None,
    contract: Annotated[str | None, typer.Option(metavar="0x..", help="The contract's address.")] = None,
    require_anchor: Annotated[
        bool, typer.Option("--require-anchor", help="Exit with 8 unless the anchor is proven.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify a receipt, and say what is proven and what is not.

    No service is asked and no key is needed: give the envelopes to check a
    recording, and a node of the chain to check when it was sealed.

    Exits with 0 when nothing contradicts the receipt, 7 when something does,
    and 8 when the anchor was asked for and is not proven.
    """
    from sessions.client.verifying import Request, verify

    request = Request(
        receipt=_read(receipt),
        envelopes=recording_envelopes,
        metadata=None if metadata is None else _read(str(metadata)),
        node_url=rpc,
        publisher=_address(publisher, "--publisher"),
        contract=_address(contract, "--contract"),
    )
    report = verify(request)
    if as_json:
        output.document(
            {
                "verdict": report.verdict,
                "session_id": report.receipt and report.receipt.manifest.session_id,
                "anchor_proven": report.anchor_proven,
                "steps": [{"outcome": step.outcome.value, "text": step.text} for step in report.steps],
            }
        )
    else:
        for step in report.steps:
            output.paragraph(_MARKS[step.outcome.value], step.text)
        output.line(f"\nverdict: {report.verdict}")
    if report.failed:
        raise typer.Exit(ExitCode.VERIFICATION_FAILED)
    if (require_anchor or rpc) and not report.anchor_proven:
        raise typer.Exit(ExitCode.PROVEN_IN_PART)


def _read(name: str) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_RECEIPT_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_RECEIPT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}") from error
    if len(data) > _MAX_RECEIPT_BYTES:
        raise CommandError(f"{name} is larger than any receipt ({_MAX_RECEIPT_BYTES} bytes)")
    return data


def _address(text: str | None, option: str) -> bytes | None:
    if text is None:
        return None
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != ADDRESS_BYTES:
        raise CommandError(f"{option} is not an address", "0x and 40 hex digits", code=ExitCode.USAGE)
    return value
