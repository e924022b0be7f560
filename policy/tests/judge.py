"""Has Qubes' own policy parser decide calls: a case comes in as JSON, verdicts go out.

The parser is the Python package `qrexec` of qubes-core-qrexec (GPL), which is no part of this
project: it has to be installed, or to lie in the folder that PYTHONPATH names.
"""

import json
import pathlib
import sys
import tempfile

from qrexec.exc import AccessDenied
from qrexec.policy import parser


def system_info(qubes):
    """What qubesd tells the policy daemon, each qube under its name and its UUID."""
    domains = {}
    for qube in qubes:
        info = {
            "name": qube["name"],
            "uuid": qube["uuid"],
            "type": qube["class"],
            "tags": qube["tags"],
            "template_for_dispvms": qube["template_for_dispvms"],
            "default_dispvm": "dvm",
            "icon": "x",
            "guivm": "dom0",
            "relayvm": None,
            "transport_rpc": None,
            "power_state": "Running",
            "internal": False,
        }
        domains[qube["name"]] = info
        domains["uuid:" + qube["uuid"]] = info
    return {"domains": domains}


def verdict(policy, info, service, argument, source, target):
    """`allow TARGET`, `ask TARGETS`, `deny`, or `deny and notify`."""
    try:
        request = parser.Request(service, "+" + argument, source, target, system_info=info)
        resolution = policy.evaluate(request)
    except AccessDenied as denied:
        return "deny and notify" if denied.notify else "deny"
    if isinstance(resolution, parser.AskResolution):
        return "ask " + " ".join(sorted(resolution.targets_for_ask))
    return "allow " + str(resolution.target)


# An AllowResolution can be made only of a class that says how it is carried out; nothing is here.
parser.AllowResolution.__abstractmethods__ = frozenset()
parser.AskResolution.__abstractmethods__ = frozenset()


def main():
    case = json.load(sys.stdin)
    info = system_info(case["qubes"])
    with tempfile.TemporaryDirectory() as folder:
        for name, text in case["files"].items():
            pathlib.Path(folder, name).write_text(text, encoding="utf-8")
        policy = parser.FilePolicy(policy_path=pathlib.Path(folder))
    verdicts = [verdict(policy, info, *call) for call in case["calls"]]
    json.dump(verdicts, sys.stdout)


if __name__ == "__main__":
    main()
