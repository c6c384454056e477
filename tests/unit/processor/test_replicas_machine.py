"""Two processors and storage's replicas in random orders: keys, spools, seals, crashes, and a database set back.

Storage is real behind its HTTP interface, on its twins and without sockets; the spools' files are real.
`LUCID_REPLICAS_MACHINE_EXAMPLES=500 scripts/test tests/unit/processor/test_replicas_machine.py` tries more orders.
"""

import os

from hypothesis import HealthCheck, settings

from tests.unit.processor.replicas_machine import ReplicasMachine

EXAMPLES = int(os.environ.get("LUCID_REPLICAS_MACHINE_EXAMPLES", "100"))
STEPS = 30

TestReplicasMachine = ReplicasMachine.TestCase
TestReplicasMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
