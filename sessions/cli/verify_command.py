"""verify: what a third party runs. It asks no service and loads none of their code, nor the client of them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sessions.cli import output
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.settings import Json
from sessions.core.anchor_contract import ADDRESS_BYTES

if TYPE_CHECKING:
    from sessions.client.verifying import Report

_MAX_RECEIPT_BYTES: Final = 16 * 1024 * 1024
_MARKS: Final = {"proven": "[+]", "note": "[i]", "not-checked": "[ ]", "failed": "[x]"}
Rpc = Annotated[
    str | None, typer.Option(metavar="URL", help="A node of the chain that you trust. Implies --require-anchor.")
]
Publisher = Annotated[str | None, typer.Option(metavar="0x..", help="The operator's address.")]
Contract = Annotated[str | None, typer.Option(metavar="0x..", help="The contract's address.")]
RequireAnchor = Annotated[bool, typer.Option("--require-anchor", help="Exit with 8 unless the anchor is proven.")]


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
    rpc: Rpc = None,
    publisher: Publisher = None,
    contract: Contract = None,
    require_anchor: RequireAnchor = False,
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
        publisher=address(publisher, "--publisher"),
        contract=address(contract, "--contract"),
    )
    tell(verify(request), require_anchor=require_anchor or rpc is not None, as_json=as_json)


def tell(report: "Report", *, require_anchor: bool, as_json: bool) -> None:
    """Print what was proven and what was not, and end with the exit code that says so."""
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
    if require_anchor and not report.anchor_proven:
        raise typer.Exit(ExitCode.PROVEN_IN_PART)


def _read(name: str) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_RECEIPT_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_RECEIPT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}", "it is a file, or - for stdin") from error
    if len(data) > _MAX_RECEIPT_BYTES:
        raise CommandError(f"{name} is larger than any receipt ({_MAX_RECEIPT_BYTES} bytes)")
    return data


def address(text: str | None, option: str) -> bytes | None:
    """An address that was given with an option.

    Raises:
        CommandError: it is none.
    """
    if text is None:
        return None
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != ADDRESS_BYTES:
        raise CommandError(f"{option} is not an address", "0x and 40 hex digits", code=ExitCode.USAGE)
    return value
