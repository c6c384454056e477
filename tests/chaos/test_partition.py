"""A port that is cut off is silent, for connections that are open and for new ones, and is whole again afterwards."""

import socket

import pytest

from scripts.devstack.partition import cut_off


@pytest.mark.partition
def test_nothing_goes_through_while_it_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as ours:
            theirs, _ = listening.accept()
            with cut_off(port):
                ours.sendall(b"held up")
                theirs.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    theirs.recv(7)
                with pytest.raises(TimeoutError):
                    socket.create_connection(("127.0.0.1", port), timeout=0.5)
            theirs.settimeout(10)
            assert theirs.recv(7) == b"held up"  # TCP sends it again
            theirs.close()
