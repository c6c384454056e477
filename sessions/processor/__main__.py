"""Entry of chunk-processor's container: `python -m sessions.processor`."""

import os
import signal
import sys

# The first process of a container is deaf to SIGTERM until it has a handler, and the imports below take a second or
# more: without this, whoever stops the container meanwhile waits for the whole grace period. Nothing is open yet.
signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))

from sessions.processor.main import main  # noqa: E402

sys.exit(main())
