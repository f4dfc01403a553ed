"""How fast the parser of waldur-site-agent-slurm (PyPI) turns sacct's text into totals: one line of JSON.

Run: peer.py FILE with the text that sacct prints for that agent's question (Account|ReqTRES|Elapsed|User). Lines become its
report objects and are added up per account and user with its own functions, as its backend does for one call of sacct.
"""

import importlib.metadata
import json
import resource
import sys
import time

from waldur_site_agent.backend import utils
from waldur_site_agent_slurm.parser import SlurmReportLine

TRES = {
    "cpu": {"measured_unit": "k-Hours", "unit_factor": 60000},
    "mem": {"measured_unit": "gb-Hours", "unit_factor": 61440},
    "gres/gpu": {"measured_unit": "gpu-Hours", "unit_factor": 60},
}


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    begun = time.perf_counter()
    lines = [SlurmReportLine(line, TRES) for line in text.splitlines() if "|" in line]
    report: dict = {}
    for line in lines:
        users = report.setdefault(line.account, {})
        users[line.user] = utils.sum_dicts([users.get(line.user, {}), line.tres_usage])
    seconds = time.perf_counter() - begun
    figure = {
        "bench": "peer",
        "figure": "python_totals",
        "version": importlib.metadata.version("waldur-site-agent-slurm"),
        "jobs": len(lines),
        "seconds": seconds,
        "jobs_per_s": len(lines) / seconds,
        "accounts": len(report),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figure))


main()
