"""``alerts``: what the alerts of a rule file do, in virtual time."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import codec
from harness.errors import UsageError
from harness.verbs.output import Progress, columns, home, print_result


def alerts(options: argparse.Namespace) -> int:
    """Virtual time needs no stack: promtool is the real engine, the cases are made from the rules' own text."""
    from harness.rules.alerts import alert_rules
    from harness.rules.virtual import promtool_files, prove
    from harness.stack.promtool import failures
    from harness.stack.provision import obtain

    if not options.virtual:
        raise UsageError("say --virtual: rules on a live Prometheus cannot be proven yet")
    proofs = [prove(rule) for path in options.rules for rule in alert_rules(Path(path))]
    if not proofs:
        raise UsageError(f"{', '.join(options.rules)}: no alerting rule")
    promtool = obtain("promtool", home=home(), progress=Progress())
    wrong = failures(promtool.path, promtool_files(proofs))
    rows = []
    for proof in proofs:
        where = f"{proof.rule.path}:{proof.rule.line}"
        if proof.not_shown:
            rows.append((proof.rule.name, "not shown", proof.not_shown, where))
            continue
        level = "" if proof.threshold is None else f" at {proof.threshold:g}"
        fires = f"fires {proof.fires_after_s:g} s after {proof.driver or 'the start'} turns{level}"
        rows.append((proof.rule.name, f"{len(proof.cases)} cases", fires, where))
    lines = [
        columns(rows),
        *(["", wrong] if wrong else []),
        f"promtool {promtool.version} {'DISAGREES' if wrong else 'agrees with every case'}",
    ]
    print_result(options, {"proofs": codec.to_json(proofs), "promtool": promtool.version, "wrong": wrong}, "\n".join(lines))
    if wrong:
        return 1
    return 3 if any(proof.not_shown for proof in proofs) else 0
