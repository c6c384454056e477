"""scrub: is all there still, and as it was?"""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from sessions.cli import output, settings
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.progress import progress
from sessions.cli.settings import TRANSFER_RETRY_SECONDS, Json

if TYPE_CHECKING:
    from sessions.client.scrub import Finding

_SAMPLE = re.compile(r"(\d{1,3}(?:\.\d+)?)%")


def scrub(
    context: typer.Context,
    *,
    session: Annotated[str | None, typer.Option(metavar="ID", help="This session alone.", show_default=False)] = None,
    sample: Annotated[str, typer.Option(metavar="PERCENT", help="Share of the bodies, chosen by chance.")] = "100%",
    as_json: Json = False,
) -> None:
    """Have all that is stored read again, and compared.

    Every body with its record, and the records of sealed sessions with their
    tree and manifest. It needs the role admin or audit, and repairs nothing.
    Exits with 7 when something is missing, altered, truncated, orphaned or foreign.
    """
    share = _share(sample)
    sessions = chunks = read_bytes = 0
    findings: list[Finding] = []
    with settings.of(context).client(TRANSFER_RETRY_SECONDS) as client, progress("scrubbed") as advance:
        for step in client.scrub(session, sample=share):
            sessions, chunks, read_bytes = sessions + step.sessions, chunks + step.chunks, read_bytes + step.bytes
            findings += step.findings
            advance(read_bytes, step.total_bytes if share == 1 else None)
    if as_json:
        output.document({"sessions": sessions, "chunks": chunks, "bytes": read_bytes, "findings": findings})
    else:
        for one in findings:
            where = one.session_id if one.index is None else f"{one.session_id} chunk {one.index}"
            output.paragraph("[-]", f"{one.kind} {one.part}: {where}: {one.detail}")
        what = f"{sessions} sessions, {chunks} chunks, {output.size(read_bytes)} of bodies"
        output.line(f"{what}: {len(findings)} findings" if findings else f"{what}: all as it was stored")
    if findings:
        raise typer.Exit(ExitCode.VERIFICATION_FAILED)


def _share(text: str) -> float:
    match = _SAMPLE.fullmatch(text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise CommandError("--sample is a share such as 5%, above 0% and at most 100%", code=ExitCode.USAGE)
    return share
