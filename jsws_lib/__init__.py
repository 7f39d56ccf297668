"""SSNet: everything that trains, infers, measures and draws."""

import os

# PyTorch's CPU threads wait for each other by spinning, which on a machine that also does
# something else can cost more than the work. Falling asleep at once costs as much where
# it does nothing else. So: spin for some microseconds, then sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
