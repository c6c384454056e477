"""What somebody does to bytes who should not."""


def altered_end(data: bytes) -> bytes:
    """The same bytes, but for the last: that is another for certain, which a byte that is put there is not."""
    return data[:-1] + bytes([data[-1] ^ 1])
