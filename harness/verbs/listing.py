"""``list``: claims, scenarios and mutants."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from harness import scenario
from harness.verbs.output import columns, print_result


def list_things(options: argparse.Namespace) -> int:
    listings: Mapping[str, Callable[[], list[tuple[str, str]]]] = {"claims": _claims, "scenarios": _scenarios, "mutants": _mutants}
    rows = listings[options.what]()
    print_result(options, [{"name": name, "says": says} for name, says in rows], columns(rows))
    return 0


def _claims() -> list[tuple[str, str]]:
    from harness.check import CLAIMS

    return [(claim, "reads " + ", ".join(sources) if sources else "on what callers heard") for claim, sources in CLAIMS.items()]


def _scenarios() -> list[tuple[str, str]]:
    from harness.caller.prompts import load_prompts
    from harness.check import CLAIMS

    prompts = {name: prompt.text for name, prompt in load_prompts().items()}
    return [(name, scenario.load(scenario.find(name), prompts=prompts, claims=tuple(CLAIMS)).summary) for name in scenario.own()]


def _mutants() -> list[tuple[str, str]]:
    from harness.stack import breakage, sabotage

    of_calls = [(defect.name, f"{defect.what} (red at {defect.claim})") for defect in breakage.catalogue()]
    return of_calls + [(each.name, f"{each.what} (of a drill; {each.alert} red at {each.claim})") for each in sabotage.catalogue()]
