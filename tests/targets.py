"""Where the journeys of `make test-e2e` run."""

from __future__ import annotations

import os

TARGET = os.environ.get("FLTS_TEST_TARGET", "embedded")
"""``embedded``, ``compose`` or ``helm``; only `make test-e2e`'s suites are for all."""
