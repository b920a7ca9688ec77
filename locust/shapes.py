"""The number of users over time, at most ``--users``."""

from __future__ import annotations

from typing import Any, ClassVar

from locust import LoadTestShape

SHAPES = ("steady", "steps", "spike")
STEPS = 4
DEFAULT_SECONDS = 120.0


class LoadOverTime(LoadTestShape):
    """Follows ``--shape`` until ``--run-time`` is over."""

    use_common_options: ClassVar[bool] = True

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users and how many start or stop per second; None at the end."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        seconds = float(options.run_time or DEFAULT_SECONDS)
        elapsed = self.get_run_time()
        if elapsed >= seconds:
            return None
        users = int(options.num_users or 1)
        return users_at(options.shape, users, elapsed / seconds), float(options.spawn_rate or users)


def users_at(shape: str, users: int, share: float) -> int:
    """Return the number of users after a share (0 to 1) of the time."""
    if shape == "steps":
        return max(1, users * (int(share * STEPS) + 1) // STEPS)
    if shape == "spike":
        return users if 0.4 <= share < 0.6 else max(1, users // STEPS)  # noqa: PLR2004 - the spike is the middle fifth of the test
    return users


def add_options(parser: Any) -> None:
    """Declare ``--shape``."""
    parser.add_argument("--shape", env_var="LOAD_SHAPE", choices=SHAPES, default="steady", help="load over time")
