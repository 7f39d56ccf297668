"""SSNet: everything that trains, infers, measures and draws."""

import os

# PyTorch's CPU threads wait for each other by spinning. On a laptop that also does
# something else, the spinning costs more than the work; asleep they cost nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
