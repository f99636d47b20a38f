"""judge.py REPORTS GROUP...: reads the reports of a run of the Autobahn fuzzing client, prints a table by group, and fails unless every case of
these groups was run and passed, its closing handshake included."""

import json
import pathlib
import sys

# How many cases a group has, so that a run that stopped half-way does not pass.
CASES = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
# RFC 6455 leaves these cases a choice; NON-STRICT is an answer that is right, but not at the earliest moment.
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
# Reports of cases that failed are named, up to this number.
SHOWN = 20


def main(folder, groups):
    index = json.loads((pathlib.Path(folder) / "index.json").read_text())
    if len(index) != 1:
        sys.exit(f"the reports are of {len(index)} servers, and should be of one")
    (agent, cases), = index.items()
    table = {group: [] for group in groups}
    for case, result in cases.items():
        table.setdefault(int(case.split(".")[0]), []).append((case, result))

    print(f"{agent}\ngroup  cases     ok  non-strict  informational  failed")
    failed, missing = [], []
    for group, results in sorted(table.items()):
        bad = [(case, result) for case, result in results
               if result["behavior"] not in PASSED or result["behaviorClose"] not in PASSED]
        count = [sum(result["behavior"] == verdict for case, result in results if (case, result) not in bad) for verdict in PASSED]
        print(f"{group:5}  {len(results):5}  {count[0]:5}  {count[1]:10}  {count[2]:13}  {len(bad):6}")
        failed += bad
        if len(results) != CASES[group]:
            missing.append(f"group {group} should have {CASES[group]} cases, {len(results)} were run")
    print(f"total  {len(cases):5}")

    for case, result in failed[:SHOWN]:
        print(f"case {case}: {result['behavior']}, close {result['behaviorClose']}: see {folder}/{result['reportfile'].replace('.json', '.html')}", file=sys.stderr)
    if len(failed) > SHOWN:
        print(f"and {len(failed) - SHOWN} more", file=sys.stderr)
    print(*missing, sep="\n", end="\n" if missing else "", file=sys.stderr)
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], [int(group) for group in sys.argv[2:]]))
