"""What all tests share: no deadline for a Hypothesis example, since a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("gate", deadline=None)
settings.load_profile("gate")
