"""Errors that say whose fault they are.

HarnessError            printed as one sentence without a traceback; anything else is our bug and keeps its traceback
├── UsageError          the user: command, file, plan          exit 2
├── EnvironmentFault    the machine: a missing tool, a taken port   exit 2
└── StackError          the stack under test: a part died or never answered   exit 2 before the first call
"""

from __future__ import annotations


class HarnessError(Exception):
    """Raised on purpose. The message says what, where, got, wanted, and the next step."""


class UsageError(HarnessError):
    """The command, the scenario, the target file or the plan cannot be used as given."""


class EnvironmentFault(HarnessError):
    """This machine lacks something: a tool, a free port, a permission, disk space."""


class StackError(HarnessError):
    """A part of the stack under test died, refused or never answered. Carries the last lines of its log in the message."""
