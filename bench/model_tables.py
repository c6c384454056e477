"""The model's answers as Markdown, as docs/scaling.md has them."""

import math
from collections.abc import Iterable
from typing import Final

from bench.markdown import table
from bench.model import ANCHOR_GAS, DAY_SECONDS, Fit, Workload, disk_bytes_a_day, needs
from bench.tables import shown

UTILISATION: Final = 0.6
"""How much of a unit is used at the busiest time: the rest is for a peak in the peak, and for a unit that is away."""
GWEI: Final = (0.1, 1.0, 10.0, 50.0)
COIN: Final = 3_000.0
"""What the chain's coin is taken to cost, in dollars."""
_TX_GAS: Final = 24_061


def show(found: Fit, load: Workload) -> str:
    """All tables."""
    parts = (
        _assumptions(load),
        _lines(found),
        _checks(found),
        _needs(found, load),
        _growth(found, load),
        _gas(load),
    )
    return "\n\n".join(parts)


def _assumptions(load: Workload) -> str:
    rows = [
        ("sessions a day", f"{load.sessions_a_day:,.0f}"),
        (
            "one session",
            f"{load.session_minutes:g} minutes, {load.chunks:,.0f} chunks of {load.chunk_bytes // 1024} KiB",
        ),
        ("busiest time", f"{load.peak:g} times the mean: {load.sessions_a_second:,.1f} sessions a second begin"),
        ("open at once then", f"{load.open_at_once:,.0f} sessions"),
        (
            "recorded then",
            f"{load.bytes_a_second / 2**20:,.0f} MiB/s, {load.bytes_a_second / load.chunk_bytes:,.0f} chunks/s",
        ),
        ("kept", f"{load.keep_days:g} days, by {load.members} members of each replica set"),
    ]
    return table(("assumed", ""), rows)


def _lines(found: Fit) -> str:
    one = 1_000_000
    rows = [
        (f"CPU of {name}", f"{line.once:.3g} s for a GiB, and {line.each * 1e6:.3g} µs for a chunk")
        for name, line in found.cpu.items()
    ]
    rows += [
        ("sealing", f"{found.seal.each * 1e6:.3g} µs for a chunk, and {found.seal.once * 1000:.3g} ms"),
        ("a batch", f"{found.batch.each * 1e6:.3g} µs for a session, and {found.batch.once:.3g} s"),
        ("disk, a chunk", f"{found.disk['record']:.0f} B beside its envelope"),
        ("disk, an envelope byte", f"{found.disk['body']:.3f} B"),
        ("disk, a session", f"{found.disk['session']:,.0f} B, of which indexes {found.disk['index']:,.0f} B"),
        ("envelope", f"{found.disk['envelope']:.3f} of what was recorded"),
    ]
    return table(
        ("what grows", "by"), [*rows, ("a session of a million chunks", f"sealed in {found.seal.at(one):.2g} s")]
    )


def _checks(found: Fit) -> str:
    rows = [
        (
            check.what,
            f"{shown(check.predicted)} {check.unit}",
            f"{shown(check.measured)} {check.unit}",
            f"{check.off:+.0%}",
        )
        for check in found.checks
    ]
    if not rows:
        return "No large size was measured, so the lines are not checked."
    return table(("not fitted on", "predicted", "measured", "off"), rows)


def _needs(found: Fit, load: Workload) -> str:
    asked = needs(found, load)
    rows = [
        (
            need.resource,
            f"{shown(need.needed)} {need.unit}",
            f"{shown(need.has)} {need.unit}",
            f"{need.share:.1%}",
            f"{max(1, math.ceil(need.share / UTILISATION)):,} x {need.of}",
        )
        for need in asked
    ]
    # Resources are used in proportion to sessions: the one that is used most is full first. Anchors do not grow.
    first = max((need for need in asked if need.resource != "anchors"), key=lambda need: need.share)
    wall = load.sessions_a_day / first.share
    lone = next(need for need in asked if need.of == "there is one alone")
    text = (
        f"With one unit of each the first wall is {first.resource}, at {wall:,.0f} sessions a day. More units move it; "
        f"what cannot be multiplied is {lone.resource}, full at {load.sessions_a_day / lone.share:,.0f} sessions a day."
    )
    return (
        table(("resource", "asked", "a unit gives", "of one unit", f"units at {UTILISATION:.0%}"), rows) + "\n\n" + text
    )


def _growth(found: Fit, load: Workload) -> str:
    day = disk_bytes_a_day(found, load)
    rows = [
        ("disk of one member of each set, a day", f"{day / 1e12:,.2f} TB"),
        (
            f"all {load.members} members, {load.keep_days:g} days",
            f"{day * load.members * load.keep_days / 1e12:,.0f} TB",
        ),
        ("chunk records, a day", f"{load.sessions_a_day * load.chunks:,.0f}"),
        ("sessions, after a year", f"{load.sessions_a_day * 365:,.0f}"),
    ]
    return table(("growth", ""), rows)


def _gas(load: Workload) -> str:
    def row(interval: float, gwei: float) -> Iterable[str]:
        calls = DAY_SECONDS / interval
        gas = calls * ANCHOR_GAS
        coins = gas * gwei * 1e-9
        return (
            f"{interval / 60:g} min",
            f"{calls:,.0f}",
            f"{gas / 1e6:.2f} M",
            f"{gwei:g}",
            f"{coins:.4f}",
            f"{coins * COIN:,.2f}",
            f"{coins * COIN / load.sessions_a_day * 1e6:,.2f}",
        )

    rows = [row(interval, gwei) for interval in (load.interval_seconds, 3600.0) for gwei in GWEI]
    head = (
        "interval",
        "calls a day",
        "gas a day",
        "gwei",
        "coins a day",
        f"$ a day, a coin at {COIN:,.0f}",
        "$ for a million sessions",
    )
    return table(head, rows) + (
        f"\n\nA first `anchor` of a root is {ANCHOR_GAS:,} gas whatever the batch holds, a repeated one {_TX_GAS:,}."
    )
