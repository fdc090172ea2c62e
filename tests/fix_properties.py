"""How property tests run: a busy machine must not fail one for its time, which is no property of the code."""

from hypothesis import settings

settings.register_profile("whimbrel", deadline=None)
settings.load_profile("whimbrel")
