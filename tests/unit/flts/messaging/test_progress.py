from __future__ import annotations

from flts.contracts.events import RunProgress
from flts.messaging.progress import ProgressReporter
from tests.brokers import raw_data


def make() -> tuple[ProgressReporter, list[RunProgress], list[float]]:
    sent: list[RunProgress] = []
    now = [100.0]
    return ProgressReporter(sent.append, "train-gru", raw_data(), clock=lambda: now[0]), sent, now


def test_at_most_one_report_a_second_and_a_new_state_at_once() -> None:
    report, sent, now = make()

    report("train-gru", "training", epoch=1, epochs=3)
    now[0] += 0.4
    report("train-gru", "training", epoch=2, epochs=3)
    now[0] += 0.7
    report("train-gru", "training", epoch=3, epochs=3)
    report("train-gru", "exporting")

    assert [(each.epoch, each.state) for each in sent] == [(1, "training"), (3, "training"), (3, "exporting")]
    assert sent[1].elapsed == 1.1


def test_the_last_epoch_and_loss_stay_with_the_reports_that_follow() -> None:
    report, sent, now = make()

    report("train-gru", "training", detail="batch 1 of 9")
    report("train-gru", "training", epoch=1, epochs=3, loss=0.5)
    report("train-gru", "training", detail="batch 2 of 9")
    now[0] += 1.1
    report("train-gru", "training", detail="batch 3 of 9")

    assert [(each.epoch, each.loss, each.detail) for each in sent] == [
        (None, None, "batch 1 of 9"),
        (1, 0.5, "batch 3 of 9"),
    ]


def test_the_last_report_held_back_is_sent_at_the_end() -> None:
    report, sent, _ = make()
    report("train-gru", "training", epoch=1)
    report("train-gru", "training", epoch=2)

    report.flush()
    report.flush()

    assert [each.epoch for each in sent] == [1, 2]


def test_stages_are_thinned_out_one_by_one() -> None:
    report, sent, _ = make()

    report("preprocess", "running")
    report("upload", "running")

    assert len(sent) == 2
    assert sent[0].pipeline_run_id == sent[1].pipeline_run_id
