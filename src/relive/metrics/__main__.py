"""`python -m relive.metrics` writes the tables of docs/metrics.md to stdout."""

import sys

from relive.metrics.reference import reference

sys.stdout.write(reference())
