"""What every test may rely on: a hypothesis profile without deadlines, since a first call may compile a kernel."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("vecdb", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vecdb")
