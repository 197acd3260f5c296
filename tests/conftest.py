"""Hypothesis: bounded, and the same examples in every run.

`--hypothesis-profile=explore` looks for new ones instead.
"""

from hypothesis import HealthCheck, settings

_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "relive",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_QUIET,
)
settings.register_profile(
    "explore", max_examples=2_000, deadline=None, database=None, suppress_health_check=_QUIET
)
settings.load_profile("relive")
