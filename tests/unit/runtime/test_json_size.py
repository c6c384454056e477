import gc
import json
import tracemalloc

import pytest

from sessions.runtime.errors import DomainError
from sessions.runtime.json_size import VALUES_MAX, JsonCost


@pytest.mark.parametrize(
    "piece", ["[]", "[[]]", "{}", '{"a":{}}', "1.5", '""', '"a"', "[{},[[]]]", "12345678901234567890"]
)
def test_no_json_takes_more_than_is_reckoned(piece: str) -> None:
    text = f"[{','.join([piece] * 6000)}]".encode()
    cost = JsonCost()
    cost.add(text, 0, len(text))
    reckoned = cost.size_bytes
    gc.collect()
    tracemalloc.start()
    held = json.loads(text)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == 6000
    assert used <= reckoned


def test_values_are_bounded() -> None:
    most = b"[" + b"0," * (VALUES_MAX - 3) + b"0]"
    cost = JsonCost()
    cost.add(most, 0, len(most))
    assert cost.values <= VALUES_MAX
    bomb = bytearray(b"[" + b"[]," * VALUES_MAX + b"[]]")
    with pytest.raises(DomainError) as caught:
        JsonCost().add(bomb, 0, len(bomb))
    assert caught.value.code == "invalid-request"
    assert str(VALUES_MAX) in caught.value.detail


def test_pieces_count_as_the_whole_does() -> None:
    text = b'{"a": [1, {"b": []}, ""]}' * 6_000
    whole, pieces = JsonCost(), JsonCost()
    whole.add(text, 0, len(text))
    for start in range(0, len(text), 77_777):
        pieces.add(text, start, min(len(text), start + 77_777))
    assert (pieces.values, pieces.size_bytes) == (whole.values, whole.size_bytes)
