from experiments import progress
from isnas_jax.fitting import Progress


class Heard(list):
    """What is shown of the whole run."""

    def __call__(self, stage, news, note=""):
        if stage == "whole run":
            self.append(news)

    def close(self):
        self.append("closed")


def test_the_whole_run_is_what_was_done_and_what_is_to_come_at_most():
    heard = Heard()
    whole = progress.Whole(heard, {"cohort": (4, 100), "restore": (2, 300)})
    whole("score", (3, 8))
    whole("cohort 1/2, fold 1/2", Progress(10, 100, 0.1, 0.0))
    whole("cohort 1/2, fold 2/2", Progress(5, 100, 0.1, 0.0))
    # The first stopped early; the third was there from a run before, and no one hears of it.
    whole("cohort 1/2, fold 1/2", Progress(40, 40, 0.1, 0.0))
    whole("cohort 2/2, fold 2/2", Progress(20, 100, 0.1, 0.0))
    whole("restore", Progress(0, 80, 0.1, 0.0))
    whole.close()
    assert heard == [
        (10, 4 * 100 + 2 * 300),
        (15, 4 * 100 + 2 * 300),
        (45, 40 + 3 * 100 + 2 * 300),
        (65, 40 + 2 * 100 + 2 * 300),
        (65, 40 + 2 * 100 + 80),
        "closed",
    ]
