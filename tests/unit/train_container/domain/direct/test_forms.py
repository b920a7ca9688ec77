"""The parts of a direct network: sizes, both networks, and their weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from flts.forecasting.linear.fit import choose_linear, solve_linear
from flts.forecasting.linear.known import TakenOut
from flts.forecasting.linear.model import LinearModel
from flts.forecasting.linear.table import LinearTable
from flts.forecasting.series import FloatArray
from flts.model_settings import TrainingSettings
from train_container.domain.direct.blend import LEAST_GAIN, Blend, choose_blend
from train_container.domain.direct.correction import Correction, CorrectionReads
from train_container.domain.direct.passes import loss_of
from train_container.domain.direct.plan import LEAST_STEPS, PASS_STEPS, Plan, batch_of
from train_container.domain.direct.segments import SegmentReads, Segments
from train_container.domain.direct.table import NetworkTable, Paths

HORIZON, SEASON, STOP = 6, 12, 150


def plan(**given: object) -> Plan:
    return Plan.of("GRU", TrainingSettings.model_validate({"hidden_size": 8, **given}))


def values(rows: int = 200) -> FloatArray:
    at = np.arange(rows)[:, None]
    noise = np.random.default_rng(0).normal(size=(rows, 2))
    return np.sin(2 * np.pi * at / SEASON + np.arange(2)) + 0.1 * noise


def source(of: FloatArray) -> TakenOut:
    rows = len(of)
    table = LinearTable(
        values=of,
        observed=np.ones(of.shape, dtype=bool),
        segments=[slice(0, rows)],
        seasons=(SEASON,),
        places=np.arange(rows)[:, None] % SEASON,
        clock=np.empty((rows, 0)),
    )
    return TakenOut(table, np.array([0, 1]))


def linear(of: TakenOut) -> LinearModel:
    choice = choose_linear(of.whole, horizon=HORIZON, fit_stop=STOP, stop_stop=STOP + 20)
    return solve_linear(of.whole, choice, stop=STOP)


@pytest.mark.parametrize("samples", [20, 900, 20_000, 10_000_000])
def test_a_form_is_trained_for_a_thousand_steps_in_passes_of_bounded_cost(samples: int) -> None:
    sizes = plan()

    batch = batch_of(samples, sizes.batch)
    steps = sizes.steps_of(samples, batch)

    assert 1 <= steps <= PASS_STEPS
    assert LEAST_STEPS <= steps * sizes.passes_of(samples, batch, LEAST_STEPS) < LEAST_STEPS + PASS_STEPS


def test_given_epochs_are_the_passes() -> None:
    sizes = plan(epochs=3, batch_size=10)

    assert (sizes.steps_of(200, 10), sizes.passes_of(200, 10, 1_000)) == (20, 3)
    assert [batch_of(samples, 64) for samples in (20, 200, 20_000)] == [8, 12, 64]


def test_settings_that_are_not_given_have_the_values_of_direct_networks() -> None:
    sizes = Plan.of("LSTM", TrainingSettings(num_layers=2, epochs=10))
    of_run = Plan.of("LSTM", TrainingSettings().with_overrides({"NUM_LAYERS": 2, "EPOCHS": 10}))

    assert (sizes.hidden, sizes.layers, sizes.dropout, sizes.window, sizes.passes) == (64, 2, 0.2, 48, 10)
    assert of_run == sizes
    assert Plan.of("LSTM", TrainingSettings()).passes is None


def test_an_untrained_correction_is_zero() -> None:
    network = Correction(plan(), inputs=3, known=4, targets=2)

    assert not network(torch.randn(5, 7, 3), torch.randn(5, 6, 4)).any()


def test_no_form_reads_a_value_after_the_origin() -> None:
    later = values()
    later[161:] += 100
    origins, steps = np.array([160]), np.broadcast_to(np.arange(1, HORIZON + 1), (1, HORIZON))
    read = []
    for each in (values(), later):
        rows = source(each)
        table = NetworkTable.fitted(rows, STOP)
        forecasts = table.linear_forecasts(linear(source(values())), origins)
        windows, known = CorrectionReads(10, (SEASON,))(table, origins, steps, forecasts)
        past, _, of_segments = SegmentReads(HORIZON, 24, 3, 3)(table, origins, np.array([1]))
        read.append((windows, known, past, of_segments))

    for one, other in zip(*read, strict=True):
        assert torch.equal(one, other)


def test_the_correction_reads_the_value_one_season_before_a_step() -> None:
    table = NetworkTable.fitted(source(values()), STOP)
    steps = np.array([[1, 12, 13]])

    _, known = CorrectionReads(4, (SEASON,))(table, np.array([100]), steps, torch.zeros(1, 3, 2))

    assert torch.equal(known[0, :, -2:], table.own[[89, 100, 89]])


def test_scales_and_the_profile_are_those_of_the_rows_to_fit_on() -> None:
    later = values()
    later[STOP:] *= 10

    one, other = (NetworkTable.fitted(source(each), STOP).units for each in (values(), later))

    for name in ("mean", "scale", "profile"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_rows_own_value_is_no_part_of_its_profile_among_the_rows_to_fit_on() -> None:
    moved = values()
    moved[50] += 5

    one, other = (NetworkTable.fitted(source(each), STOP) for each in (values(), moved))

    assert one.profile is not None
    assert other.profile is not None
    scales = torch.from_numpy(one.units.target_scale), torch.from_numpy(other.units.target_scale)
    means = torch.from_numpy(one.units.target_mean), torch.from_numpy(other.units.target_mean)
    raw = [each.profile[[50, 62]] * scale + mean for each, scale, mean in zip((one, other), scales, means, strict=True)]
    torch.testing.assert_close(raw[0][0], raw[1][0], atol=1e-5, rtol=0)
    assert (raw[1][1] - raw[0][1]).min() > 0.1


@pytest.mark.parametrize(
    ("seasons", "fit_rows", "expected"),
    [((24, 168), 8_640, (672, 42)), ((), 8_640, (336, 21)), ((12,), 92, (23, 1)), ((720,), 12_000, (2_880, 180))],
)
def test_the_look_back_is_four_seasons_in_sixteen_segments(
    seasons: tuple[int, ...], fit_rows: int, expected: tuple[int, int]
) -> None:
    reads = SegmentReads.of(60, seasons, fit_rows)

    assert (reads.look_back, reads.rows) == expected
    assert reads.ahead == min(reads.rows, 60)
    assert reads.steps.max() == 60


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_a_level_is_carried_over_to_the_forecast_of_segments(cell: str) -> None:
    torch.manual_seed(0)
    network = Segments(replace(plan(), cell=cell, layers=2), rows=3, ahead=2, count=4, targets=2, known=0).eval()
    past, target, known = torch.randn(5, 12), torch.tensor([0, 1, 0, 1, 0]), torch.empty(5, 4, 0)

    forecast = network(past, target, known)

    assert forecast.shape == (5, 8)
    torch.testing.assert_close(network(past + 3, target, known), forecast + 3)


def test_paths_compare_no_step_after_their_stop() -> None:
    rows = source(values())
    paths = Paths.of(NetworkTable.fitted(rows, STOP), linear(rows), np.array([100, STOP - 3]), STOP)

    actual, weight = paths.actual(paths.all_steps())

    assert weight[..., 0].tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]]
    assert torch.equal(actual[0], paths.table.own[101:107])


def test_the_loss_is_squared_and_a_little_absolute_or_absolute_alone() -> None:
    error, weight = torch.tensor([3.0, -1.0, 100.0]), torch.tensor([1.0, 1.0, 0.0])

    assert float(loss_of(error, weight, "mean")) == pytest.approx((9 + 1 + 0.2 * 4) / 2)
    assert float(loss_of(error, weight, "median")) == 2


def blend_of(linear: torch.Tensor, correction: torch.Tensor | None, segments: torch.Tensor | None) -> Blend:
    """Choose the weights for values of 0 at two steps, that is in blocks of one step each."""
    weight = torch.ones_like(linear)
    return choose_blend(linear, correction, segments, torch.zeros_like(linear), weight, torch.ones(2, 1), "mean")


def test_each_block_has_the_better_forecast_or_the_mean_of_near_ones() -> None:
    one = torch.tensor([[[1.0], [1.0]], [[-1.0], [-1.0]]])
    half = 0.5 * one
    worse, near, better = 0.6 * one[:, :1], 0.54 * one[:, :1], 0.4 * one[:, :1]

    first = blend_of(one, half, torch.cat([worse, near], dim=1))
    second = blend_of(one, half, torch.cat([near, better], dim=1))

    assert first.edges.tolist() == [0, 1, 2]
    assert (first.correction.tolist(), first.segments.tolist()) == ([1, 0.5], [0, 0.5])
    assert (second.correction.tolist(), second.segments.tolist()) == ([0.5, 0], [0.5, 1])
    assert first(one, half, one)[0].flatten().tolist() == [0.5, 0.75]
    assert first.metrics["segments_weight_to_2"] == 0.5


def test_a_correction_that_is_too_large_has_a_smaller_weight() -> None:
    one = torch.tensor([[[1.0], [1.0]], [[-1.0], [-1.0]]])

    assert blend_of(one, -one, None).correction.tolist() == [0.5, 0.5]


def test_a_gain_that_may_be_chance_leaves_linear_alone() -> None:
    one = torch.ones(4, 2, 1)

    little, enough = (blend_of(one, (1 - share * LEAST_GAIN) * one, None) for share in (0.8, 1.2))

    assert little.correction.tolist() == [0, 0]
    assert enough.correction.tolist() == [1, 1]
    assert not blend_of(one, None, None).correction.any()
