"""Examples, shown below the help of each command. A test parses each of them."""

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "record": (
        "lucid-sessions record film.mkv --session desk-17-monday",
        "lucid-sessions record film.mkv --metadata '{\"desk\": 17}' --json",
        "tar -c /var/log | lucid-sessions record - --session logs-monday",
    ),
    "status": ("lucid-sessions status desk-17-monday",),
    "seal": ("lucid-sessions seal desk-17-monday --chunk-count 42",),
    "replay": (
        "lucid-sessions replay desk-17-monday -o film.mkv",
        "lucid-sessions replay desk-17-monday | ffplay -",
    ),
    "list": (
        "lucid-sessions list --status open",
        "lucid-sessions list --opened-after 2027-01-31T00:00:00Z --json",
    ),
    "receipt": ("lucid-sessions receipt desk-17-monday --wait 600 -o receipt.json",),
    "proof": ("lucid-sessions proof desk-17-monday 3 -o proof.json",),
    "envelopes": ("lucid-sessions envelopes desk-17-monday envelopes/",),
    "verify": (
        "lucid-sessions verify receipt.json",
        "lucid-sessions verify receipt.json --recording-envelopes envelopes/ \\\n      --rpc https://node.example",
    ),
    "scrub": ("lucid-sessions scrub --session desk-17-monday", "lucid-sessions scrub --sample 5% --json"),
    "deploy-contract": ("lucid-sessions deploy-contract --rpc https://node.example --key-file key",),
    "shard-setup": ("lucid-sessions shard-setup --mongodb-url-file url --dry-run",),
    "audit list": ("lucid-sessions audit list",),
    "audit show": ("lucid-sessions audit show 2027-01-31",),
    "audit verify": ("lucid-sessions audit verify 2027-01-31 --rpc https://node.example",),
    "keys new": ("lucid-sessions keys new --out kek-new",),
    "keys new-recovery": ("lucid-sessions keys new-recovery \\\n      --private offline/key --public recovery-public",),
    "keys status": ("lucid-sessions keys status",),
    "keys rotate": ("lucid-sessions keys rotate",),
    "keys retire": ("lucid-sessions keys retire kek-20270131-a1b2c3 --kek-file secrets/kek",),
    "keys export": ("lucid-sessions keys export desk-17-monday -o ring.json",),
    "keys recover": (
        "lucid-sessions keys recover desk-17-monday --private-key offline/key \\\n      --dump dump/ -o film.mkv",
    ),
    "processors list": ("lucid-sessions processors list",),
    "processors forget": ("lucid-sessions processors forget desk-17-0a1b2c3d",),
    "retention due": ("lucid-sessions retention due",),
    "retention set": ("lucid-sessions retention set desk-17-monday --retain-days 400",),
    "spool list": ("lucid-sessions spool list",),
    "spool show": (
        "lucid-sessions spool show 0000000000000004-000000052344",
        "lucid-sessions spool show 0000000000000004-000000052344 -o chunk",
    ),
    "spool retry": ("lucid-sessions spool retry 0000000000000004-000000052344",),
    "spool drop": ("lucid-sessions spool drop 0000000000000004-000000052344",),
    "tokens new": (
        "lucid-sessions tokens new --name desk-17 --role record --sessions desk-17- \\\n      --append secrets/tokens",
    ),
}
"""By command: what is typed, each below 76 columns; a backslash at the end of a line goes on with the next."""


def of(command: str) -> str:
    """The examples of a command, as the end of its help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[command])
