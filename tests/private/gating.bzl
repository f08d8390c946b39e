"""Chooses the tests of a package that gate publication. Separate from `collect_gate` (tests/defs.bzl) so that a test can evaluate it."""

def choose(rules, files, ungated):
    """Chooses the gating tests of a package, and finds undecided ones.

    Args:
      rules: list of dicts, one for each rule of the package: name, kind, tags, srcs, compatible (False if this build cannot build it).
      files: the package's files named test_*.py.
      ungated: why tests do not gate. A string covers all tests of the package; a dict has reason → names of tests.

    Returns:
      A pair: names of the gating tests that this build can run, and error messages.
    """
    gating = []
    others = []
    used = []
    for rule in rules:
        if not rule["kind"].endswith("_test"):
            continue
        used += [src.split(":")[-1] for src in rule["srcs"]]
        if "gate" in rule["tags"]:
            if rule["compatible"]:
                gating.append(rule["name"])
        elif "manual" not in rule["tags"]:
            others.append(rule["name"])
    errors = ["no test has {} in its srcs, so it never runs".format(file) for file in files if file not in used]
    if type(ungated) == type(""):
        if not ungated or not others:
            errors.append("`ungated` gives no reason, or no test needs it")
    else:
        excused = [name for names in ungated.values() for name in names]
        errors += [
            "{} neither gates publication (gate = True) nor has a reason in `ungated`".format(name)
            for name in others
            if name not in excused
        ]
        errors += ["`ungated` names {}, which is not a test without `gate`".format(name) for name in excused if name not in others]
        errors += ["`ungated` gives no reason for {}".format(", ".join(names)) for reason, names in ungated.items() if not reason]
    return sorted(gating), errors
