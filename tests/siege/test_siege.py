"""The siege in short: nobody is kept from recording, and memory stays within compose's bounds."""

from collections.abc import Iterator

import pytest

from tests.conftest import Figure
from tests.siege import run
from tests.siege.attackers import KINDS
from tests.siege.half_core import half_a_core

_SECONDS = 4.0
_GRACE_SECONDS = 5.0


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:
    with run.besieged(tmp_path_factory.mktemp("siege") / "stack") as found, half_a_core() as group:
        yield (*found, group)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_recorder_is_not_kept_from_recording(kind: str, besieged: tuple, figure: Figure) -> None:
    stack, order, group = besieged
    found = run.one_round(stack, kind, order, group, seconds=_SECONDS, grace_seconds=_GRACE_SECONDS)
    figure(
        f"{kind}: p99 {found.quiet_ms:.0f} -> {found.attacked_ms:.0f} ms, refused {found.refused}, "
        f"after 10 s {found.refused_late}, MiB { ({name: round(peak) for name, peak in found.peaks.items()}) }"
    )
    assert not found.refused_late
    assert all(found.peaks[name] < limit for name, limit in run.LIMIT_MIB.items())
