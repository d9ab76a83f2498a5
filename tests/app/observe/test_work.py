"""What is noted of a request's work, and what is made of the notes."""

from app.observe.work import BatchRun, Stage, Work


def test_of_a_stage_that_texts_and_images_had_at_once_the_longer_counts() -> None:
    work = Work(
        stages=[Stage("queue", 1.0, 1.5), Stage("queue", 1.0, 3.0), Stage("decode", 0.0, 1.0)]
    )

    assert work.stage_s == {"queue": 2.0, "decode": 1.0}


def test_a_batch_knows_of_its_requests_those_that_are_traced() -> None:
    batch = BatchRun("image", 3, 0.0)
    traced, untraced = Work(trace="name"), Work()
    for work in (traced, untraced):
        work.join(batch)

    assert batch.traces == ["name"]
    assert traced.batches == untraced.batches == [batch]
