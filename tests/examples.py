"""Numbers of Hypothesis examples: a tenth by default, all of them under `-m soak`."""

from hypothesis import settings


def examples(most: int) -> settings:
    """Return settings with at most this many examples under `-m soak`, and a tenth of them by default.

    Args:
        most: Number of examples of a full run.
    """
    share = settings.get_profile("default").max_examples / settings.get_profile("soak").max_examples
    full = settings.default.max_examples == settings.get_profile("soak").max_examples
    return settings(max_examples=most if full else max(1, round(most * share)))
