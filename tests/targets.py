"""The target on which the suites of `make test-e2e` run."""

from __future__ import annotations

import os

TARGET = os.environ.get("FLTS_TEST_TARGET", "embedded")
"""``embedded``, ``compose`` or ``helm``; only the suites of `make test-e2e` run on all three."""
