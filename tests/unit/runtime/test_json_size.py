import gc
import json
import tracemalloc

import pytest

from sessions.runtime import json_size
from sessions.runtime.errors import DomainError


@pytest.mark.parametrize(
    "piece", ["[]", "[[]]", "{}", '{"a":{}}', "1.5", '""', '"a"', "[{},[[]]]", "12345678901234567890"]
)
def test_no_json_takes_more_than_is_reckoned(piece: str) -> None:
    text = f"[{','.join([piece] * 6000)}]".encode()
    reckoned = json_size.cost_bytes(text)
    gc.collect()
    tracemalloc.start()
    held = json.loads(text)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == 6000
    assert used <= reckoned


def test_values_are_bounded() -> None:
    assert json_size.require_few_values(b"[" + b"0," * (json_size.VALUES_MAX - 3) + b"0]") <= json_size.VALUES_MAX
    with pytest.raises(DomainError) as caught:
        json_size.cost_bytes(bytearray(b"[" + b"[]," * json_size.VALUES_MAX + b"[]]"))
    assert caught.value.code == "invalid-request"
    assert str(json_size.VALUES_MAX) in caught.value.detail
