"""Entry point `lucid-sessions`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from sessions.cli import (
    audit_commands,
    auditor_commands,
    examples,
    key_commands,
    operator_commands,
    output,
    processor_commands,
    recorder_commands,
    retention_commands,
    scrub_command,
    spool_commands,
    verify_command,
)
from sessions.cli.exits import HELP, ExitCode, exit_code, words
from sessions.cli.settings import PROCESSOR_URL_DEFAULT, STORAGE_URL_DEFAULT, Settings

# Plain help: it is quick, and its lines stay as they are written.
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": output.WIDTH},
    epilog=HELP,
)


@app.callback()
def common(
    context: typer.Context,
    processor_url: Annotated[
        str, typer.Option(envvar="LUCID_PROCESSOR_URL", metavar="URL", help="chunk-processor.")
    ] = PROCESSOR_URL_DEFAULT,
    storage_url: Annotated[
        str, typer.Option(envvar="LUCID_STORAGE_URL", metavar="URL", help="session-storage.")
    ] = STORAGE_URL_DEFAULT,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LUCID_TOKEN_FILE", metavar="FILE", help="A file with the bearer token; or set LUCID_TOKEN."
        ),
    ] = None,
    retry_seconds: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Keep trying so long; 120 for transfers, 5 for the rest."),
    ] = None,
) -> None:
    """Record, replay and prove sessions.

    Recordings are kept encrypted and tamper-evident; a receipt proves them to
    anybody, without trust in whoever runs the services.
    """
    context.obj = Settings(processor_url, storage_url, token_file, retry_seconds)


_COMMANDS: Final[dict[str, Callable[..., object]]] = {
    "record": recorder_commands.record,
    "status": recorder_commands.status,
    "seal": recorder_commands.seal,
    "replay": recorder_commands.replay,
    "list": auditor_commands.list_sessions,
    "receipt": auditor_commands.receipt,
    "proof": auditor_commands.proof,
    "envelopes": auditor_commands.envelopes,
    "verify": verify_command.verify,
    "scrub": scrub_command.scrub,
    "deploy-contract": operator_commands.deploy_contract,
    "shard-setup": operator_commands.shard_setup,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, epilog=examples.of(_name))(_command)
app.add_typer(audit_commands.audit, name="audit")
app.add_typer(key_commands.keys, name="keys")
app.add_typer(processor_commands.processors, name="processors")
app.add_typer(retention_commands.retention, name="retention")
app.add_typer(spool_commands.spool, name="spool")
app.add_typer(operator_commands.tokens, name="tokens")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    output.provide_stdout()
    try:
        code = app(args=arguments, prog_name="lucid-sessions", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        output.drop_stdout()
        return ExitCode.FAILED
    except typer.TyperException as error:
        message = error.format_message()
        output.note(message if message.startswith("Usage:") else f"error: {message.rstrip('.')} (see --help)")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, no traceback
        output.note(f"error: {words(error)}")
        return exit_code(error)
    if code == ExitCode.INTERRUPTED:  # typer makes this of Ctrl-C
        output.note("error: interrupted")
    return code if isinstance(code, int) else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
